//go:build !race

package merkle_test

// raceDetector reports whether the race detector is on, which makes code allocate.
const raceDetector = false
