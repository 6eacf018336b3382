//go:build !race

package runtime_test

// raceDetector makes compiling a large guest some ten times as slow.
const raceDetector = false
