//go:build wasip1

// Gojq is a guest of gojq, for TestCost, which builds it: a chunk is a byte string of JSON,
// and the output a checksum of what a query makes of it.
package main

import (
	"encoding/json"
	"hash/crc32"
	"unsafe"

	"github.com/itchyny/gojq"
)

func main() {}

// query is compiled before the host takes its snapshot.
var query = compile(`
	[paths(type == "number") as $p | {path: ($p | map(tostring) | join(".")), value: getpath($p)}]
	| group_by(.path | split(".") | last)
	| map({key: (.[0].path | split(".") | last | ascii_upcase), n: length, sum: (map(.value) | add), most: (max_by(.value) | .path | gsub("[0-9]+"; "N"))})
	| sort_by(-.n, .key) | .[] | select(.n > 1) | "\(.key): \(.n) \(.sum) \(.most | @base64)"`)

func compile(source string) *gojq.Code {
	parsed, err := gojq.Parse(source)
	if err != nil {
		panic(err)
	}
	code, err := gojq.Compile(parsed)
	if err != nil {
		panic(err)
	}
	return code
}

var (
	input  []byte
	output [5]byte
)

//go:wasmexport alloc
func alloc(size uint32) uint32 {
	input = make([]byte, size)
	return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(input))))
}

//go:wasmexport exec
func exec(_, size uint32) uint64 {
	chunk, head := input[:size], 1
	if n := chunk[0] & 31; n >= 24 {
		head += 1 << (n - 24)
	}
	var document any
	if err := json.Unmarshal(chunk[head:], &document); err != nil {
		panic(err)
	}
	sum := uint32(0)
	for all := query.Run(document); ; {
		v, more := all.Next()
		if !more {
			break
		}
		text, ok := v.(string)
		if !ok {
			panic(v)
		}
		sum = crc32.Update(sum, crc32.IEEETable, []byte(text))
	}
	output = [5]byte{0x1a, byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}
	return uint64(uintptr(unsafe.Pointer(&output)))<<32 | uint64(len(output))
}
