//go:build race

package merkle_test

// raceDetector makes code allocate that else does not.
const raceDetector = true
