//go:build wasip1

// Jsonextism is the kernel in Go as a plugin of Extism, with the imports of such
// plugins.
package main

import (
	"encoding/binary"

	"github.com/wasm-jobs/wasm-jobs/bench/guests/json"
)

//go:wasmimport extism:host/env input_length
func inputLength() uint64

//go:wasmimport extism:host/env input_load_u8
func inputLoadU8(at uint64) uint32

//go:wasmimport extism:host/env input_load_u64
func inputLoadU64(at uint64) uint64

//go:wasmimport extism:host/env alloc
func alloc(size uint64) uint64

//go:wasmimport extism:host/env store_u8
func storeU8(at uint64, value uint32)

//go:wasmimport extism:host/env store_u64
func storeU64(at uint64, value uint64)

//go:wasmimport extism:host/env output_set
func outputSet(at, size uint64)

//go:wasmexport exec
func exec() int32 {
	output, err := json.Chunk(input())
	if err != nil {
		return 1
	}
	to, size := alloc(uint64(len(output))), uint64(len(output))
	whole := size &^ 7
	for i := uint64(0); i < whole; i += 8 {
		storeU64(to+i, binary.LittleEndian.Uint64(output[i:]))
	}
	for i := whole; i < size; i++ {
		storeU8(to+i, uint32(output[i]))
	}
	outputSet(to, size)
	return 0
}

func input() []byte {
	size := inputLength()
	chunk := make([]byte, size)
	whole := size &^ 7
	for i := uint64(0); i < whole; i += 8 {
		binary.LittleEndian.PutUint64(chunk[i:], inputLoadU64(i))
	}
	for i := whole; i < size; i++ {
		chunk[i] = byte(inputLoadU8(i))
	}
	return chunk
}

func init() { json.Warm() }

func main() {}
