package outputs

import (
	"bufio"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
)

// Form is the form of outputs in a file.
type Form string

const (
	// CBOR is a sequence of maps of id and output: a chunk file.
	CBOR Form = "cbor"
	// JSONLines has the map of each output on a line, as written by
	// notation.WriteJSON.
	JSONLines Form = "json"
	// Diagnostic has the map of each output in diagnostic notation.
	Diagnostic Form = "diag"
	// CSV is a table: see [Table].
	CSV Form = "csv"
)

// FormOf returns the form for the name of a file: JSON lines for .jsonl and
// .ndjson, CSV for .csv, otherwise CBOR.
func FormOf(path string) Form {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".jsonl", ".ndjson":
		return JSONLines
	case ".csv":
		return CSV
	}
	return CBOR
}

// WriteError is returned if an output cannot be written in the requested form.
// Err is a *[notation.FormError], or describes how the output does not fit the
// columns of a table.
type WriteError struct {
	ID  abi.ID
	Err error
}

func (e *WriteError) Error() string { return fmt.Sprintf("output of chunk %v: %v", e.ID, e.Err) }
func (e *WriteError) Unwrap() error { return e.Err }

// Write writes outputs in a form as they come. The error is from the outputs,
// from w, or a *[WriteError]. w has everything that was written before it.
func Write(w *bufio.Writer, form Form, all Seq) error {
	if form == CSV {
		return writeTable(w, all)
	}
	each := NewWriter(w, form)
	for o, err := range all {
		if err == nil {
			err = each.Put(o)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Writer writes outputs in a form other than a table, as they come.
type Writer struct {
	w     *bufio.Writer
	form  Form
	entry []byte
}

// NewWriter returns a writer to w, which the caller must flush.
func NewWriter(w *bufio.Writer, form Form) *Writer { return &Writer{w: w, form: form} }

// Put writes an output and does not keep it. The error is from w or a
// *[WriteError].
func (w *Writer) Put(o Output) error {
	w.entry = abi.AppendOutput(w.entry[:0], o.ID, o.Output)
	err := WriteItem(w.w, w.form, w.entry)
	if _, ok := err.(*notation.FormError); ok {
		return &WriteError{o.ID, err}
	}
	return err
}

// WriteItem writes one well-formed item: unchanged as CBOR, otherwise as a
// line. The error is a *[notation.FormError] or from w.
func WriteItem(w *bufio.Writer, form Form, item []byte) error {
	switch form {
	case CBOR:
		w.Write(item)
	case Diagnostic:
		text, err := notation.Diagnose(item)
		if err != nil {
			return err
		}
		w.WriteString(text)
		w.WriteByte('\n')
	case JSONLines:
		if err := notation.WriteJSON(w, item); err != nil {
			return err
		}
		w.WriteByte('\n')
	default:
		return fmt.Errorf("outputs: unknown form %q", form)
	}
	_, err := w.Write(nil) // the error of any of the writes above
	return err
}
