package notation_test

import (
	"bufio"
	"io"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/host/notation"
)

const benchmarked = `{"id":17,"name":"name 17","tags":["a","b\n","é"],"score":2.4285714285714284,"nested":{"x":17,"y":[1,2,3],"z":null}}`

func BenchmarkAppendItem(b *testing.B) {
	var dst []byte
	for b.Loop() {
		var err error
		if dst, err = notation.AppendItem(dst[:0], []byte(benchmarked)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteJSON(b *testing.B) {
	item, err := notation.AppendItem(nil, []byte(benchmarked))
	if err != nil {
		b.Fatal(err)
	}
	w := bufio.NewWriter(io.Discard)
	for b.Loop() {
		if err := notation.WriteJSON(w, item); err != nil {
			b.Fatal(err)
		}
	}
}
