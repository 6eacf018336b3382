//go:build race

package main

// raceDetector makes this job some five times as slow: the count runs without.
const raceDetector = true
