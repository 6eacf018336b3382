//go:build wasip1

// See ../panic.c.
package main

import wasmjobs "github.com/wasm-jobs/wasm-jobs/sdk/go"

//go:noinline
func pick(table []uint64, i uint64) uint64 { return table[i] }

var run = wasmjobs.Exec(func(i uint64) (uint64, error) {
	wasmjobs.Log(wasmjobs.LevelInfo, "before")
	return pick([]uint64{1, 2, 3}, i), nil
})

//go:wasmexport exec
func exec(ptr, size uint32) uint64 { return run.Serve(ptr, size) }

func main() {}
