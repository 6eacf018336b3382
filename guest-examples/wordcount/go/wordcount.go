//go:build wasip1

// Wordcount counts the words of a chunk: a text or byte string, or a map with a
// string under the key "text". A word is a longest run of ASCII letters and digits,
// in lower case. The output is a map from word to count, with its keys in the
// deterministic order of RFC 8949, section 4.2.1. The job's result is the sum of
// these maps. Build: make -C guest-examples go
package main

import (
	"errors"
	"iter"
	"math/bits"

	wasmjobs "github.com/wasm-jobs/wasm-jobs/sdk/go"
)

type counts map[string]uint64

var (
	words  = wasmjobs.Exec(countChunk)
	total  = wasmjobs.Aggregate(sumOutputs)
	totals = wasmjobs.Merge(sum)
)

//go:wasmexport exec
func exec(ptr, size uint32) uint64 { return words.Serve(ptr, size) }

//go:wasmexport aggregate
func aggregate(ptr, size uint32) uint64 { return total.Serve(ptr, size) }

//go:wasmexport merge
func merge(ptr, size uint32) uint64 { return totals.Serve(ptr, size) }

var (
	errNoText   = errors.New("no text")
	errOverflow = errors.New("overflow")
)

// countChunk takes any value, because a chunk has one of several forms.
func countChunk(chunk wasmjobs.Value) (counts, error) {
	text := chunk
	if chunk.Kind == wasmjobs.KindMap {
		text, _ = chunk.Get("text") // otherwise an integer, and not a text
	}
	if text.Kind != wasmjobs.KindText && text.Kind != wasmjobs.KindBytes {
		return nil, errNoText
	}
	return count(text.Bytes), nil
}

func count(text []byte) counts {
	c := counts{}
	var word []byte
	for _, b := range text {
		if letter := lower(b); letter != 0 {
			word = append(word, letter)
		} else if len(word) > 0 {
			c[string(word)]++
			word = word[:0]
		}
	}
	if len(word) > 0 {
		c[string(word)]++
	}
	return c
}

// lower returns the letter or digit in lower case, and 0 for other bytes.
func lower(b byte) byte {
	switch {
	case '0' <= b && b <= '9', 'a' <= b && b <= 'z':
		return b
	case 'A' <= b && b <= 'Z':
		return b - 'A' + 'a'
	default:
		return 0
	}
}

func (c counts) add(other counts) error {
	for word, n := range other {
		total, carry := bits.Add64(c[word], n, 0)
		if carry != 0 {
			return errOverflow
		}
		c[word] = total
	}
	return nil
}

func sum(all iter.Seq[counts]) (counts, error) {
	total := counts{}
	for c := range all {
		if err := total.add(c); err != nil {
			return nil, err
		}
	}
	return total, nil
}

func sumOutputs(outputs iter.Seq2[wasmjobs.ID, counts]) (counts, error) {
	return sum(wasmjobs.Outputs(outputs))
}

func main() {}
