//go:build unix

package main

import (
	"runtime"
	"syscall"
)

// peakMemory returns the peak of this process's physical memory in bytes, or 0 if it
// is unknown.
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
