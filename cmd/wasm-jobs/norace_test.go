//go:build !race

package main

// raceDetector is true if the test runs under the race detector, which needs more
// address space than the limits of the scripts allow.
const raceDetector = false
