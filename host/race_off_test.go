//go:build !race

package host_test

// raceDetector reports whether tests run under the race detector, which makes
// code that processes much text about thirty times slower.
const raceDetector = false
