//go:build race

package guestexamples_test

// raceEnabled skips the Go guests: compiling one takes 20 s with the race detector,
// and the guests themselves do not run our goroutines.
const raceEnabled = true
