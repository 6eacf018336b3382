package chunks_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host/chunks"
)

// A stream yields the same chunks as a scan, in file order, and refuses the same
// defects at the same locations, except duplicate ids.
func FuzzStream(f *testing.F) {
	for _, s := range []string{"", "80", "9fff", "0102f6", a2 + a1 + ax, "83" + a2 + a1 + "05", a1 + a1, "8301", "8201", "820102 05", "5f4101ff", "a2 626964 01 626964 02"} {
		f.Add(unhex(f, s), uint8(0), uint16(0))
		f.Add(unhex(f, s), uint8(1), uint16(3))
		f.Add(unhex(f, s), uint8(2), uint16(100))
	}
	f.Fuzz(func(t *testing.T, data []byte, format uint8, limit uint16) {
		o := chunks.Options{Name: "fuzz", Format: chunks.Format(format % 3), MaxChunk: int64(limit)}
		streamed, streamErr := collectStream(data, o)
		file, err := chunks.Spool(t.Context(), bytes.NewReader(data), o)
		if err != nil {
			if !errors.Is(err, chunks.ErrDuplicateID) && (streamErr == nil || streamErr.Error() != err.Error()) {
				t.Errorf("%v, and as a stream %v", err, streamErr)
			}
			return
		}
		defer file.Close()
		if streamErr != nil || len(streamed) != file.Len() {
			t.Fatalf("%d chunks, and as a stream %d (%v)", file.Len(), len(streamed), streamErr)
		}
		err = file.Read(t.Context(), 0, file.Len(), func(i int, chunk []byte) error {
			if s := streamed[file.Position(i)]; s.Position != file.Position(i) || s.ID != file.ID(i) || !bytes.Equal(s.Bytes, chunk) {
				t.Errorf("chunk %v is %x, and as a stream %v is %x", file.ID(i), chunk, s.ID, s.Bytes)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func collectStream(data []byte, o chunks.Options) (all []chunks.Chunk, err error) {
	for chunk, err := range chunks.Stream(context.Background(), bytes.NewReader(data), o) {
		if err != nil {
			return all, err
		}
		chunk.Bytes = bytes.Clone(chunk.Bytes)
		all = append(all, chunk)
	}
	return all, nil
}

// A stream reads only as far as it is asked to, and may be left early.
func TestStreamIsLazy(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	go func() { _, _ = w.Write([]byte{1, 2, 0x61}) }() // ends when the pipe is read
	count := 0
	for chunk, err := range chunks.Stream(t.Context(), r, chunks.Options{Format: chunks.Sequence}) {
		if err != nil {
			t.Fatal(err)
		}
		if count++; chunk.Position == 1 {
			break // before the third, which never arrives
		}
	}
	if count != 2 {
		t.Errorf("%d chunks", count)
	}
}

func TestContextEndsAStream(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	for _, err := range chunks.Stream(ctx, r, chunks.Options{}) {
		if err != context.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
	}
}

// If chunks come from a source that people know, messages name the place there.
func TestPlace(t *testing.T) {
	o := chunks.Options{Name: "x.jsonl", TempDir: t.TempDir(), Place: func(p int) string { return "x.jsonl:" + string(rune('1'+p)) }}
	for want, items := range map[string][][]byte{
		`x.jsonl:3: duplicate id 1, first used by x.jsonl:1; use another IDKey, or NoIDKey`: {unhex(t, a1), unhex(t, a2), unhex(t, a1)},
		"x.jsonl:2: empty: not a CBOR item":                                                 {{1}, nil},
	} {
		if _, err := chunks.FromSeq(t.Context(), seqOf(items...), o); err == nil || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
}
