package chunks

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// countingReader counts the reads of a file.
type countingReader struct {
	io.ReaderAt
	reads int
}

func (r *countingReader) ReadAt(b []byte, at int64) (int, error) {
	r.reads++
	return r.ReaderAt.ReadAt(b, at)
}

// TestChunksThatAreCloseAreReadTogether leaves out a small chunk, and one that
// takes longer to read than a system call.
func TestChunksThatAreCloseAreReadTogether(t *testing.T) {
	items := make([][]byte, 100)
	for i := range items {
		items[i] = []byte{byte(i % 24)}
	}
	items[60] = abi.AppendText(nil, strings.Repeat("x", readGap))
	whole, err := Of(items...)
	if err != nil {
		t.Fatal(err)
	}
	var set abi.IDSet
	set.AddRange(10, 39)
	set.AddRange(41, 59)
	set.AddRange(61, 90)
	f, err := whole.Select(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	counted := &countingReader{ReaderAt: f.data}
	f.data = counted
	err = f.Read(t.Context(), 0, f.Len(), func(i int, chunk []byte) error {
		if want := items[f.Position(i)]; !bytes.Equal(chunk, want) {
			t.Errorf("chunk %d is %x, expected %x", i, chunk, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if f.Len() != 79 || counted.reads != 2 {
		t.Errorf("%d reads of %d chunks in two runs", counted.reads, f.Len())
	}
}

func TestSelectingAllHoldsNothingMore(t *testing.T) {
	whole, err := Of([]byte{1}, []byte{2})
	if err != nil {
		t.Fatal(err)
	}
	var set abi.IDSet
	set.AddRange(0, 1)
	if f, err := whole.Select(t.Context(), set); err != nil || f.index.order != nil {
		t.Errorf("an order of %d chunks (%v)", len(f.index.order), err)
	}
}
