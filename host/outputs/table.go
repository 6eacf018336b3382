package outputs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/host/notation"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

// Table writes outputs or chunks as CSV (RFC 4180): a header, and a record for
// each.
//
// The first output decides the columns. If it is a map with texts as keys and
// without arrays or maps in it, each key is a column after the id, and all
// other outputs must have the same keys. Otherwise the only column after the id
// is the output, as a text or as JSON. Chunks must all be maps, and there is no
// column for the id.
//
// A Table holds one record in memory.
type Table struct {
	w      *sources.CSVWriter
	chunks bool
	keys   []string       // in the order of columns; nil if an output is one column
	column map[string]int // by key
	record []string       // nil before the header is written
	filled []bool         // by column of the record
}

// NewTable returns a table of outputs.
func NewTable(w io.Writer) *Table { return &Table{w: sources.NewCSVWriter(w)} }

// NewChunkTable returns a table of chunks.
func NewChunkTable(w io.Writer) *Table { return &Table{w: sources.NewCSVWriter(w), chunks: true} }

// Flush writes buffered records. If a table of outputs has none, it writes the
// header. The error is the first error of writing.
func (t *Table) Flush() error {
	if t.record == nil && !t.chunks {
		t.start(nil)
	}
	return t.w.Flush()
}

func writeTable(w *bufio.Writer, all Seq) error {
	t := NewTable(w)
	for o, err := range all {
		if err == nil {
			err = t.Add(o)
		}
		if err != nil {
			return err
		}
	}
	return t.Flush()
}

// start writes the header.
func (t *Table) start(keys []string) {
	t.keys, t.column = keys, map[string]int{}
	var header []string
	if !t.chunks {
		header = append(header, "id")
	}
	for _, key := range keys {
		t.column[key] = len(header)
		if !t.chunks {
			key = columnName(key)
		}
		header = append(header, key)
	}
	if keys == nil {
		header = append(header, "output")
	}
	t.record, t.filled = make([]string, len(header)), make([]bool, len(header))
	_ = t.w.Write(header) // Flush returns the error
}

// columnName returns the name of a key's column: the key, unless the id's
// column has that name.
func columnName(key string) string {
	if key == "id" {
		return "output.id"
	}
	return key
}

// Add writes an output. The error is an error of writing or a *[WriteError].
func (t *Table) Add(o Output) error {
	if t.record == nil {
		t.start(columnsOf(o.Output))
	}
	t.record[0] = o.ID.String()
	if text, isText := o.ID.Text(); isText {
		t.record[0] = text
	}
	if err := t.addOutput(o.Output); err != nil {
		return &WriteError{o.ID, err}
	}
	return t.w.Write(t.record)
}

func (t *Table) addOutput(output []byte) (err error) {
	if t.keys == nil {
		t.record[1], err = notation.Cell(output)
		return err
	}
	if err = t.fill(output); err == nil || isFormError(err) {
		return err
	}
	return fmt.Errorf("%w: the columns of a CSV file are the keys of the first output (%s); a file named .jsonl takes any output", err, t.columns())
}

func isFormError(err error) bool {
	_, ok := errors.AsType[*notation.FormError](err)
	return ok
}

// AddChunk writes a chunk. The error is an error of writing, a
// *[notation.FormError], or a description of how the chunk does not fit the
// columns.
func (t *Table) AddChunk(chunk []byte) error {
	if t.record == nil {
		var keys []string
		fields, _, err := notation.Fields(chunk)
		if err != nil {
			return err
		}
		for _, f := range fields {
			keys = append(keys, f.Key)
		}
		if keys == nil {
			return errors.New("not a map of texts to single values with at least one key")
		}
		t.start(keys)
	}
	if err := t.fill(chunk); err != nil {
		if isFormError(err) {
			return err
		}
		return fmt.Errorf("%w: the columns are the keys of the first chunk (%s)", err, t.columns())
	}
	return t.w.Write(t.record)
}

// columns lists the columns for a message.
func (t *Table) columns() string {
	const most = 200
	names := strings.Join(t.keys, ",")
	if len(names) <= most {
		return names
	}
	return names[:max(strings.LastIndexByte(names[:most], ','), 0)] + ",..."
}

// fill fills the columns with the values of a map.
func (t *Table) fill(item []byte) error {
	clear(t.filled)
	fields, ok, err := notation.Fields(item)
	if !ok {
		return errors.New("not a map of texts to single values")
	}
	for _, f := range fields {
		i, known := t.column[f.Key]
		switch {
		case err != nil:
			return err
		case !known:
			return fmt.Errorf("unknown key %.64q", f.Key)
		case t.filled[i]:
			return fmt.Errorf("duplicate key %.64q", f.Key)
		}
		if t.record[i], err = notation.Cell(f.Value); err != nil {
			return err
		}
		t.filled[i] = true
	}
	for _, key := range t.keys {
		if !t.filled[t.column[key]] {
			return fmt.Errorf("missing key %.64q", key)
		}
	}
	return nil
}

// columnsOf returns the keys of an output that become columns, or nil.
func columnsOf(output []byte) (keys []string) {
	fields, _, err := notation.Fields(output)
	names := map[string]bool{"id": true}
	for _, f := range fields {
		name := columnName(f.Key)
		if names[name] || err != nil {
			return nil // one column, whose value gives the error
		}
		names[name] = true
		keys = append(keys, f.Key)
	}
	return keys
}
