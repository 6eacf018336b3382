//go:build !race

package main

// raceDetector takes address space that scripts cannot limit.
const raceDetector = false
