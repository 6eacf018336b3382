package sources

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A CSVWriter writes records (RFC 4180) that [CSV] reads back byte for byte, even
// if a field contains line ends or a record is one empty field, which package
// encoding/csv writes as a blank line. Records end with LF.
//
// Writes are buffered: Flush must be called after the last record.
type CSVWriter struct {
	w   *bufio.Writer
	err error // of the first record that was not written
}

// NewCSVWriter returns a writer to w.
func NewCSVWriter(w io.Writer) *CSVWriter { return &CSVWriter{w: bufio.NewWriter(w)} }

// Write writes a record of one field or more and keeps none of it. A field that is
// not UTF-8 is refused with an error that wraps [ErrMalformed]; nothing of its
// record is written.
func (w *CSVWriter) Write(record []string) error {
	for i, field := range record {
		if !utf8.ValidString(field) {
			return w.fail(malformedf("field %d is not UTF-8: CSV files must be UTF-8", i+1))
		}
	}
	if len(record) == 0 {
		return w.fail(fmt.Errorf("a record without fields: %w", ErrMalformed))
	}
	if len(record) == 1 && record[0] == "" {
		w.w.WriteString(`""`)
	}
	for i, field := range record {
		if i > 0 {
			w.w.WriteByte(',')
		}
		w.field(field)
	}
	if err := w.w.WriteByte('\n'); err != nil { // the error of any write
		return w.fail(err)
	}
	return nil
}

func (w *CSVWriter) fail(err error) error {
	if w.err == nil {
		w.err = err
	}
	return err
}

func (w *CSVWriter) field(field string) {
	if !needsQuotes(field) {
		w.w.WriteString(field)
		return
	}
	w.w.WriteByte('"')
	for {
		before, after, found := strings.Cut(field, `"`)
		w.w.WriteString(before)
		if !found {
			break
		}
		w.w.WriteString(`""`)
		field = after
	}
	w.w.WriteByte('"')
}

// needsQuotes reports whether a field without quotes would be read differently: by
// [CSV], which removes a byte order mark at the start of a file, or by other
// programs, which trim spaces, or take \. as the end.
func needsQuotes(field string) bool {
	if field == "" {
		return false
	}
	first, _ := utf8.DecodeRuneInString(field)
	return strings.ContainsAny(field, ",\"\r\n") || unicode.IsSpace(first) || first == '\ufeff' || field == `\.`
}

// Flush writes the buffered data, and returns the first error of all writes.
func (w *CSVWriter) Flush() error {
	if err := w.w.Flush(); w.err == nil {
		w.err = err
	}
	return w.err
}
