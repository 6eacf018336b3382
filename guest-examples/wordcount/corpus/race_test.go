//go:build race

package main

// raceDetector makes this job about five times as slow: then the count does not run.
const raceDetector = true
