//go:build wasip1

// Noopgo is the smallest guest in Go: it returns the chunk.
package main

import "unsafe"

// input keeps the bytes of the current call reachable.
var input []byte

//go:wasmexport alloc
func alloc(size uint32) uint32 {
	input = make([]byte, size)
	return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(input))))
}

//go:wasmexport exec
func exec(ptr, size uint32) uint64 { return uint64(ptr)<<32 | uint64(size) }

func main() {}
