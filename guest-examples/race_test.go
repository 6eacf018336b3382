//go:build race

package guestexamples_test

// raceEnabled skips the Go guests: compiling one takes 20 s under the race
// detector, and the guests themselves have no goroutines of ours.
const raceEnabled = true
