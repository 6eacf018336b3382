//go:build !race

package runtime_test

// raceDetector reports whether tests run under the race detector, which makes
// the compilation of a large guest about ten times slower.
const raceDetector = false
