package chunks_test

import (
	"bytes"
	"errors"
	"testing"
	"testing/iotest"

	"github.com/wasm-jobs/wasm-jobs/host/chunks"
)

func TestWriter(t *testing.T) {
	for _, tt := range []struct {
		name  string
		items []string
		want  string
	}{
		{name: "no chunks"},
		{name: "a sequence", items: []string{"01", "8102"}, want: "018102"},
		{name: "an array first", items: []string{"8101", "02"}, want: "9f810102ff"},
		{name: "an array only", items: []string{"9f01ff"}, want: "9f9f01ffff"},
		{name: "a tagged array first", items: []string{"c18101", "8102"}, want: "c181018102"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var items [][]byte
			for _, item := range tt.items {
				items = append(items, unhex(t, item))
			}
			if got := writeAll(t, items); !bytes.Equal(got, unhex(t, tt.want)) {
				t.Errorf("%x, want %s", got, tt.want)
			}
		})
	}
}

// writeAll writes chunks, and checks the size that was predicted with each of them.
func writeAll(t *testing.T, items [][]byte) []byte {
	t.Helper()
	var file bytes.Buffer
	w := chunks.NewWriter(&file)
	size := int64(0)
	for _, item := range items {
		size = w.SizeWith(item)
		if err := w.Write(item); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if size != int64(file.Len()) {
		t.Errorf("%d bytes, and %d were predicted", file.Len(), size)
	}
	return file.Bytes()
}

// failAfter is a writer that fails after a number of bytes.
type failAfter struct{ left int }

func (f *failAfter) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, iotest.ErrTimeout
	}
	return len(b), nil
}

// Every failing write is reported.
func TestWriterFails(t *testing.T) {
	for left := range 4 {
		w := chunks.NewWriter(&failAfter{left: left})
		if err := errors.Join(w.Write([]byte{0x81, 1}), w.Close()); (err != nil) != (left < 4) || !errors.Is(err, iotest.ErrTimeout) {
			t.Errorf("after %d bytes: %v", left, err)
		}
	}
}

// A file that is written from any chunks reads back as the same chunks.
func FuzzWriter(f *testing.F) {
	for _, s := range []string{"", "80", "8101 02", "01 80", "9fff 9f01ff f6", "c180 80", "8180", a1 + "80"} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		read := func(data []byte, format chunks.Format) (items [][]byte, err error) {
			all, err := collectStream(data, chunks.Options{Name: "fuzz", Format: format, NoIDKey: true})
			for _, chunk := range all {
				items = append(items, chunk.Bytes)
			}
			return items, err
		}
		items, err := read(data, chunks.Sequence)
		if err != nil {
			return
		}
		again, err := read(writeAll(t, items), chunks.Auto)
		if err != nil || len(again) != len(items) {
			t.Fatalf("%d chunks became %d (%v)", len(items), len(again), err)
		}
		for i := range items {
			if !bytes.Equal(items[i], again[i]) {
				t.Errorf("chunk %x became %x", items[i], again[i])
			}
		}
	})
}
