package abi_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// vectors reads a file of testdata/abi. Libraries for guests in any language can
// be tested with these files.
func vectors[T any](t *testing.T, name string) []T {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../testdata/abi", name))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Vectors []T }
	if err := json.Unmarshal(b, &file); err != nil || len(file.Vectors) == 0 {
		t.Fatalf("%s: %d vectors, %v", name, len(file.Vectors), err)
	}
	return file.Vectors
}

// id decodes an id of a vector, which must be in its shortest encoding.
func id(t *testing.T, encoded string) abi.ID {
	t.Helper()
	b := unhex(t, encoded)
	found, ok, err := abi.FindID(append([]byte{0xa1, 0x60}, b...), "")
	if !ok || err != nil || hex.EncodeToString(found.AppendCBOR(nil)) != encoded {
		t.Fatalf("%s: not an id in its shortest encoding", encoded)
	}
	return found
}

func TestVectorsOfResults(t *testing.T) {
	for _, v := range vectors[struct {
		Ptr, Len uint32
		Result   string
	}](t, "results.json") {
		result, err := strconv.ParseUint(v.Result, 16, 64)
		if err != nil || len(v.Result) != 16 {
			t.Fatalf("%+v: %v", v, err)
		}
		if got := abi.Pack(v.Ptr, v.Len); got != result {
			t.Errorf("%+v: packed as %016x", v, got)
		}
		if ptr, size := abi.Unpack(result); ptr != v.Ptr || size != v.Len {
			t.Errorf("%+v: unpacked as %d, %d", v, ptr, size)
		}
	}
}

func TestVectorsOfIDs(t *testing.T) {
	var last *abi.ID
	for _, v := range vectors[struct{ Uint, Text, CBOR string }](t, "ids.json") {
		want := abi.TextID(v.Text)
		if v.Uint != "" {
			n, err := strconv.ParseUint(v.Uint, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			want = abi.IntID(n)
		}
		if got := id(t, v.CBOR); got != want {
			t.Errorf("%+v: read as %v", v, got)
		}
		if last != nil && last.Compare(want) >= 0 {
			t.Errorf("%v comes after %v", *last, want)
		}
		last = &want
	}
}

func TestVectorsOfEnvelopes(t *testing.T) {
	for _, v := range vectors[struct {
		Name        string
		Outputs     []struct{ ID, Output, Entry, Map string }
		Aggregate   string
		OutputsFile string `json:"outputs_file"`
	}](t, "envelopes.json") {
		aggregate, file := abi.AppendHead(nil, abi.MajorArray, uint64(len(v.Outputs))), []byte(nil)
		for i, o := range v.Outputs {
			entry := abi.AppendEntry(nil, id(t, o.ID), unhex(t, o.Output))
			output := abi.AppendOutput(nil, id(t, o.ID), unhex(t, o.Output))
			if hex.EncodeToString(entry) != o.Entry || hex.EncodeToString(output) != o.Map {
				t.Errorf("%s: output %d: entry %x, map %x", v.Name, i, entry, output)
			}
			if i > 0 && id(t, v.Outputs[i-1].ID).Compare(id(t, o.ID)) >= 0 {
				t.Errorf("%s: output %d is out of order", v.Name, i)
			}
			aggregate, file = append(aggregate, entry...), append(file, output...)
		}
		if hex.EncodeToString(aggregate) != v.Aggregate || hex.EncodeToString(file) != v.OutputsFile {
			t.Errorf("%s: aggregate %x, file %x", v.Name, aggregate, file)
		}
		if err := abi.CheckItem(aggregate); err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
}

// The reference, fxamacker/cbor, must agree on which items are well-formed.
func TestVectorsOfItems(t *testing.T) {
	for _, v := range vectors[struct {
		Name, Bytes, Error, Reason string
		Size, Offset               int
	}](t, "items.json") {
		b := unhex(t, v.Bytes)
		size, err := abi.ItemSize(b)
		syntax, malformed := errors.AsType[*abi.SyntaxError](err)
		switch {
		case v.Error == "truncated":
			if err != io.ErrUnexpectedEOF || reference.Wellformed(b) == nil {
				t.Errorf("%s: size %d, %v", v.Name, size, err)
			}
		case v.Error == "malformed":
			if !malformed || *syntax != (abi.SyntaxError{Offset: v.Offset, Reason: v.Reason}) {
				t.Errorf("%s: size %d, %v", v.Name, size, err)
			} else {
				checkMalformed(t, b, syntax)
			}
		case err != nil || size != v.Size || v.Size == 0:
			t.Errorf("%s: size %d, %v", v.Name, size, err)
		default:
			checkAccepted(t, b, size)
		}
		if isItem := v.Size > 0 && v.Size == len(b); isItem != (abi.CheckItem(b) == nil) {
			t.Errorf("%s: %v", v.Name, abi.CheckItem(b))
		}
	}
}

func TestVectorsOfChunkIDs(t *testing.T) {
	failures := map[string]error{"": nil, "type": abi.ErrIDType, "twice": abi.ErrIDTwice}
	for _, v := range vectors[struct{ Name, Chunk, Key, ID, Error string }](t, "chunk_ids.json") {
		chunk := unhex(t, v.Chunk)
		if err := abi.CheckItem(chunk); err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
		got, ok, err := abi.FindID(chunk, v.Key)
		if want, known := failures[v.Error]; !known || err != want || ok != (v.ID != "") {
			t.Errorf("%s: %v, %v, %v", v.Name, got, ok, err)
		}
		if ok && got != id(t, v.ID) {
			t.Errorf("%s: %v", v.Name, got)
		}
	}
}
