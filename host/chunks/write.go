package chunks

import (
	"io"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// A Writer writes a chunk file that reads back, by [Auto], as the same chunks: one
// array of indefinite length if the first chunk is an array, otherwise a sequence.
// Without chunks the file is empty, which is a sequence as well.
//
// Writes are not buffered. The file is complete after Close.
type Writer struct {
	w     io.Writer
	array bool
	size  int64
}

// NewWriter returns a writer to w, which it does not close.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write writes a chunk, which is one well-formed CBOR item and is not kept. Errors
// are those of the underlying writer.
func (w *Writer) Write(chunk []byte) error {
	if w.size == 0 && startsArray(chunk) {
		w.array = true
		if err := w.write([]byte{arrayHead}); err != nil {
			return err
		}
	}
	return w.write(chunk)
}

// Close ends the file.
func (w *Writer) Close() error {
	if !w.array {
		return nil
	}
	return w.write([]byte{breakByte})
}

// SizeWith returns the size in bytes that the complete file would have if chunk
// were its next and last.
func (w *Writer) SizeWith(chunk []byte) int64 {
	size := w.size + int64(len(chunk))
	switch {
	case w.array:
		return size + 1
	case w.size == 0 && startsArray(chunk):
		return size + 2
	}
	return size
}

// arrayHead begins an array of indefinite length.
const arrayHead = 0x9f

// startsArray reports whether a file that begins with the item is taken as an
// array.
func startsArray(item []byte) bool { return len(item) > 0 && item[0]>>5 == abi.MajorArray }

func (w *Writer) write(b []byte) error {
	n, err := w.w.Write(b)
	w.size += int64(n)
	return err
}
