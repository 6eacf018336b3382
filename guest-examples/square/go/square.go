//go:build wasip1

// Square returns n * n for a chunk that is an integer n, or a map with n under
// the key "n". The job's result is the sum. Build: make -C guest-examples go
package main

import (
	"errors"
	"iter"
	"math"
	"math/bits"

	wasmjobs "github.com/wasm-jobs/wasm-jobs/sdk/go"
)

var (
	squares = wasmjobs.Exec(square)
	total   = wasmjobs.Aggregate(sumOutputs)
	totals  = wasmjobs.Merge(sum)
)

//go:wasmexport exec
func exec(ptr, size uint32) uint64 { return squares.Serve(ptr, size) }

//go:wasmexport aggregate
func aggregate(ptr, size uint32) uint64 { return total.Serve(ptr, size) }

//go:wasmexport merge
func merge(ptr, size uint32) uint64 { return totals.Serve(ptr, size) }

var (
	errNoInteger = errors.New("not an integer")
	errOverflow  = errors.New("overflow")
)

// square takes any value, because a chunk has one of two forms.
func square(chunk wasmjobs.Value) (uint64, error) {
	n := chunk
	if chunk.Kind == wasmjobs.KindMap {
		var found bool
		if n, found = chunk.Get("n"); !found {
			return 0, errNoInteger
		}
	}
	switch {
	case n.Kind != wasmjobs.KindUint && n.Kind != wasmjobs.KindNegint:
		return 0, errNoInteger
	case n.Num > math.MaxUint32-uint64(n.Kind): // a negative integer is -1 - Num
		return 0, errOverflow
	}
	magnitude := n.Num + uint64(n.Kind)
	return magnitude * magnitude, nil
}

func sum(values iter.Seq[uint64]) (total uint64, err error) {
	for v := range values {
		var carry uint64
		if total, carry = bits.Add64(total, v, 0); carry != 0 {
			return 0, errOverflow
		}
	}
	return total, nil
}

func sumOutputs(outputs iter.Seq2[wasmjobs.ID, uint64]) (uint64, error) {
	return sum(wasmjobs.Outputs(outputs))
}

func main() {}
