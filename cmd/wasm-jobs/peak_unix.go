//go:build unix

package main

import (
	"runtime"
	"syscall"
)

// peakMemory returns the most physical memory that this process had, in bytes; 0
// where that is not known.
func peakMemory() uint64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	peak := uint64(usage.Maxrss)
	if runtime.GOOS != "darwin" && runtime.GOOS != "ios" {
		peak <<= 10 // in KiB there
	}
	return peak
}
