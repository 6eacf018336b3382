//go:build !unix

package main

func peakMemory() uint64 { return 0 }
