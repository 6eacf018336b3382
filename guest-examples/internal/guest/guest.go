//go:build wasip1

// Package guest is what the guests in Go share: the export alloc, the import
// fail, and the memory in which the host and the guest exchange bytes.
package guest

import "unsafe"

// input and output keep the bytes of the current call reachable, since the host
// is no holder that the garbage collector knows of.
var input, output []byte

//go:wasmexport alloc
func alloc(size uint32) uint32 {
	input = make([]byte, size)
	return address(input)
}

// Input returns the bytes that the host wrote to where alloc told it to.
func Input(size uint32) []byte { return input[:size] }

// Result returns what exec, aggregate, merge and setup return for b.
func Result(b []byte) uint64 {
	output = b
	return uint64(address(b))<<32 | uint64(len(b))
}

// Kinds of failure.
const (
	Permanent uint32 = 0
	Retryable uint32 = 1
	Requeue   uint32 = 2
)

// Fail says that the current call failed; what it then returns is ignored. It
// returns 0, for: return guest.Fail(guest.Permanent, "why").
func Fail(kind uint32, message string) uint64 {
	fail(kind, uint32(uintptr(unsafe.Pointer(unsafe.StringData(message)))), uint32(len(message)))
	return 0
}

//go:wasmimport wasm_jobs fail
func fail(kind, ptr, size uint32)

func address(b []byte) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }
