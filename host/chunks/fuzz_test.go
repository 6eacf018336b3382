package chunks_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
)

// Any bytes are either refused with an InputError, or come out exactly as chunks,
// in strictly ascending order of their ids.
func FuzzFile(f *testing.F) {
	for _, s := range []string{"", "80", "9fff", "0102f6", a2 + a1 + ax, "83" + a2 + a1 + "05",
		"9f" + ax + "c201ff", "8301", "820102 05", "bbffffffffffffffff", "5f4101ff", "a2 626964 01 626964 02",
		"a1 7f6169 6164ff 7f6178ff"} {
		f.Add(unhex(f, s), uint8(0), "id", uint16(0))
		f.Add(unhex(f, s), uint8(1), "", uint16(3))
		f.Add(unhex(f, s), uint8(2), "k", uint16(100))
	}
	f.Fuzz(func(t *testing.T, data []byte, format uint8, key string, limit uint16) {
		o := chunks.Options{
			Name: "fuzz", Format: chunks.Format(format % 3), IDKey: key, NoIDKey: key == "", MaxChunk: int64(limit),
		}
		file, err := chunks.Spool(t.Context(), bytes.NewReader(data), o)
		if err != nil {
			checkRefusal(t, err, len(data))
			return
		}
		defer file.Close()
		checkChunks(t, file, data, o)
	})
}

func checkRefusal(t *testing.T, err error, size int) {
	input, ok := errors.AsType[*chunks.InputError](err)
	if !ok || input.Err == nil || input.Reason == "" {
		t.Fatalf("%T: %v", err, err)
	}
	if input.Offset > int64(size) || input.Position > size || bytes.ContainsAny([]byte(err.Error()), "\r\n") {
		t.Fatalf("out of place: %v", err)
	}
}

func checkChunks(t *testing.T, file *chunks.File, data []byte, o chunks.Options) {
	byPosition := make([][]byte, file.Len())
	err := file.Read(t.Context(), 0, file.Len(), func(i int, chunk []byte) error {
		if i > 0 && file.ID(i-1).Compare(file.ID(i)) >= 0 {
			t.Errorf("id %v before %v", file.ID(i-1), file.ID(i))
		}
		id, stated, err := abi.FindID(chunk, o.IDKey)
		if o.NoIDKey || !stated {
			id, err = abi.IntID(uint64(file.Position(i))), nil
		}
		if err != nil || id != file.ID(i) {
			t.Errorf("chunk %x has id %v, want %v (%v)", chunk, file.ID(i), id, err)
		}
		if err := abi.CheckItem(chunk); err != nil || o.MaxChunk > 0 && int64(len(chunk)) > o.MaxChunk {
			t.Errorf("chunk %x of %d bytes: %v", chunk, len(chunk), err)
		}
		byPosition[file.Position(i)] = bytes.Clone(chunk)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	checkWrapping(t, bytes.Join(byPosition, nil), data, file.Len(), o.Format)
	if file.Digest() != naiveDigest(t, file) {
		t.Error("the digest differs from the definition")
	}
}

// checkWrapping checks that data holds exactly the chunks, as a sequence or in one
// array.
func checkWrapping(t *testing.T, joined, data []byte, n int, format chunks.Format) {
	if len(data) > 0 && data[0]>>5 == abi.MajorArray && format != chunks.Sequence {
		h, err := abi.ReadHead(data)
		if err != nil || !h.Indefinite && h.Arg != uint64(n) {
			t.Fatalf("%d chunks from an array with head %+v (%v)", n, h, err)
		}
		data = data[h.Size:]
		if h.Indefinite {
			data = bytes.TrimSuffix(data, []byte{0xff})
		}
	}
	if !bytes.Equal(joined, data) {
		t.Errorf("the chunks are not the file: %x, want %x", joined, data)
	}
}
