package outputs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
)

const (
	// maxOutput is the limit of one output in a file, in bytes.
	maxOutput = 1 << 30
	// minEntry is the size of the smallest map of id and output: five heads and
	// two keys.
	minEntry = 1 + 3 + 1 + 7 + 1
)

// Errors of [Open].
var (
	// ErrNotCBOR is returned if the name of a file is that of another form.
	ErrNotCBOR = errors.New("want outputs as CBOR, the only form that keeps their exact bytes")
	// ErrNotRegular is returned for a pipe, a device or a directory, because a
	// file of outputs is read more than once.
	ErrNotRegular = errors.New("not a regular file: want a file of outputs")
)

// ItemError is returned if an item of a file is not a map of id and output.
type ItemError struct {
	Name     string
	Position int // of the item, from 0
}

func (e *ItemError) Error() string {
	return fmt.Sprintf("%s: invalid item %d: want a map of id and output", e.Name, e.Position)
}

// OrderError is returned if outputs are not in id order, or if an id is
// repeated.
type OrderError struct {
	Name      string
	ID, After abi.ID // ID comes after After
}

func (e *OrderError) Error() string {
	return fmt.Sprintf("%s: the output of chunk %v comes after the output of chunk %v: want outputs in id order, without duplicates", e.Name, e.ID, e.After)
}

// File is a file of outputs, a CBOR sequence as written by [Write].
type File struct {
	file *os.File
	size int64
}

// Open opens a file of outputs. The error wraps [ErrNotCBOR] or
// [ErrNotRegular], or is an *[os.PathError].
func Open(path string) (*File, error) {
	if form := FormOf(path); form == JSONLines || form == CSV {
		return nil, fmt.Errorf("%s: %w", path, ErrNotCBOR)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	stat, err := file.Stat()
	if err == nil && !stat.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w", path, ErrNotRegular)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return &File{file, stat.Size()}, nil
}

// Most returns the maximum number of outputs that fit in a file of this size.
// It does not read the file.
func (f *File) Most() int64 { return MostIn(f.size) }

// MostIn returns the maximum number of outputs in a sequence of size bytes.
func MostIn(size int64) int64 { return size / minEntry }

// All returns the outputs, like [Read]. Only one of the sequences may be read
// at a time, each from the start.
func (f *File) All(ctx context.Context) Seq {
	return func(yield func(Output, error) bool) {
		if _, err := f.file.Seek(0, io.SeekStart); err != nil {
			yield(Output{}, err)
			return
		}
		Read(ctx, f.file.Name(), f.file)(yield)
	}
}

// Close closes the file. Its sequences must not be read after that.
func (f *File) Close() error { return f.file.Close() }

// Read yields the outputs of a CBOR sequence of maps of id and output. name is
// used in messages. The error is an *[ItemError], an *[OrderError], one of
// package chunks, ctx's or r's. The sequence can be read once.
func Read(ctx context.Context, name string, r io.Reader) Seq {
	return func(yield func(Output, error) bool) {
		var last abi.ID
		options := chunks.Options{Name: name, Format: chunks.Sequence, NoIDKey: true, MaxChunk: maxOutput}
		for item, err := range chunks.Stream(ctx, r, options) {
			if err != nil {
				yield(Output{}, err)
				return
			}
			o, ok := cut(item.Bytes)
			switch {
			case !ok:
				err = &ItemError{name, item.Position}
			case item.Position > 0 && last.Compare(o.ID) >= 0:
				err = &OrderError{name, o.ID, last}
			}
			if err != nil {
				yield(Output{}, err)
				return
			}
			last = o.ID
			if !yield(o, nil) {
				return
			}
		}
	}
}

var (
	outputKey = abi.AppendText(nil, "output")
	entryHead = abi.AppendText(abi.AppendHead(nil, abi.MajorMap, 2), "id")
)

// cut splits a map of id and output, one well-formed item.
func cut(item []byte) (o Output, ok bool) {
	if rest, ok := bytes.CutPrefix(item, entryHead); ok { // as written by AppendOutput
		h, err := abi.ReadHead(rest)
		if err == nil && h.Major == abi.MajorUint && bytes.HasPrefix(rest[h.Size:], outputKey) {
			return Output{abi.IntID(h.Arg), rest[h.Size+len(outputKey):]}, true
		}
	}
	h, err := abi.ReadHead(item)
	if err != nil || h.Major != abi.MajorMap || h.Indefinite || h.Arg != 2 {
		return o, false
	}
	id, ok, err := abi.FindID(item, "id")
	if err != nil || !ok {
		return o, false
	}
	for rest := item[h.Size:]; len(rest) > 0; {
		k, _ := abi.ItemSize(rest)
		v, _ := abi.ItemSize(rest[k:])
		if key, value := rest[:k], rest[k:k+v]; bytes.Equal(key, outputKey) {
			return Output{id, value}, true
		}
		rest = rest[k+v:]
	}
	return o, false
}
