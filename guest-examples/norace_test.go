//go:build !race

package guestexamples_test

const raceEnabled = false
