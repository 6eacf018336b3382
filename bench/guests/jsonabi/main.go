//go:build wasip1

// Jsonabi is the kernel in Go under the project's own ABI (abi/ABI.md).
package main

import (
	"unsafe"

	"github.com/wasm-jobs/wasm-jobs/bench/guests/json"
)

// input and output keep the bytes of the current call reachable.
var input, output []byte

//go:wasmexport alloc
func alloc(size uint32) uint32 {
	input = make([]byte, size)
	return address(input)
}

//go:wasmexport exec
func exec(_, size uint32) uint64 {
	var err error
	if output, err = json.Chunk(input[:size]); err != nil {
		panic(err)
	}
	return uint64(address(output))<<32 | uint64(len(output))
}

func address(b []byte) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

func init() { json.Warm() }

func main() {}
