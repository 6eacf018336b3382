package main

import (
	"bufio"
	"crypto/rand"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// A file of outputs is a CBOR sequence, JSON lines, CSV or a directory, by how
// its path ends. Outputs come one after another in id order, and only one of
// them is held.

// eachOutput calls each for every output there is, in id order, and returns its
// first error.
type eachOutput func(each func(id abi.ID, output []byte) error) error

// namesDir reports whether outputs that are to go to a path go to files of
// their own in it.
func namesDir(path string) bool {
	if os.IsPathSeparator(path[len(path)-1]) {
		return true
	}
	stat, err := os.Stat(path)
	return err == nil && stat.IsDir()
}

// openDir makes sure that files can be made in a directory, and sets dir to what
// makes them.
func (f *resultFiles) openDir(path string, dir **target) error {
	if err := os.MkdirAll(path, 0o777); err != nil { // less the umask
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	t := &target{path: path}
	*dir, f.order = t, append(f.order, t)
	if err := t.begin(); err != nil {
		return err
	}
	return errors.Join(t.file.Close(), os.Remove(t.temp))
}

// begin makes a temporary file in a directory.
func (t *target) begin() (err error) {
	t.temp = filepath.Join(t.path, ".output."+rand.Text())
	t.file, err = os.OpenFile(t.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	return err
}

// writeOutputs writes what all yields to where outputs are to go.
func (f *resultFiles) writeOutputs(all eachOutput) error {
	switch {
	case f.outputs == "":
		return nil
	case f.dir != nil:
		return all(f.writeOutputFile)
	}
	return f.targets[f.outputs].write(func(w *bufio.Writer) error { return writeOutputsAs(w, f.outputs, all) })
}

// writeOutputFile writes one output to a file of its own.
func (f *resultFiles) writeOutputFile(id abi.ID, output []byte) error {
	return f.writeIn(f.dir, id.FileName()+".cbor", output)
}

// writeIn writes a file in a directory, which appears under its name when all of
// it is written. Unlike a file of all outputs it is not flushed to the disk by
// itself: for each of a million that takes minutes.
func (f *resultFiles) writeIn(dir *target, name string, contents []byte) error {
	f.mu.Lock()
	err := dir.begin()
	f.mu.Unlock()
	if err != nil {
		return err
	}
	_, err = dir.file.Write(contents)
	if err := errors.Join(err, dir.file.Close()); err != nil {
		return err
	}
	return os.Rename(dir.temp, filepath.Join(dir.path, name))
}

// writeOutputsAs writes outputs in the form that a path's ending names.
func writeOutputsAs(w *bufio.Writer, path string, all eachOutput) error {
	var entry []byte
	format := "cbor"
	switch strings.ToLower(filepath.Ext(path)) {
	case ".csv":
		return writeOutputsCSV(w, all)
	case ".jsonl", ".ndjson":
		format = "json"
	}
	return all(func(id abi.ID, output []byte) error {
		entry = abi.AppendOutput(entry[:0], id, output)
		return writeItem(w, entry, format)
	})
}

// writeOutputsCSV writes a header and a record for each output. The first one
// decides: where it is a map with texts as keys and no array or map in it, each
// key is a column, and all others must have the same keys. Where it is not, the
// one column beside the id is the output, as a text or as JSON.
func writeOutputsCSV(w *bufio.Writer, all eachOutput) error {
	t := csvTable{w: csv.NewWriter(w)}
	if err := all(t.add); err != nil {
		return err
	}
	if t.record == nil {
		t.start(nil)
	}
	t.w.Flush()
	return t.w.Error()
}

// csvTable writes outputs as records, or chunks, which have no column for the
// id and are all maps.
type csvTable struct {
	w      *csv.Writer
	chunks bool
	keys   []string       // in the order of columns; nil where an output is one column
	column map[string]int // of a key
	record []string       // nil before the header is written
	filled []bool         // which columns of the record
	cell   strings.Builder
}

// start writes the header.
func (t *csvTable) start(keys []string) {
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
	_ = t.w.Write(header) // Error has it
}

// columnName is the name of a key's column: that of the key, unless it is the
// name of the first.
func columnName(key string) string {
	if key == "id" {
		return "output.id"
	}
	return key
}

// add writes an output.
func (t *csvTable) add(id abi.ID, output []byte) error {
	if t.record == nil {
		t.start(scalarKeys(output))
	}
	t.record[0] = id.String()
	if text, isText := id.Text(); isText {
		t.record[0] = text
	}
	if t.keys == nil {
		t.record[1] = t.text(output)
	} else if err := t.fill(output); err != nil {
		return fmt.Errorf("output of chunk %v: %w: the columns of a CSV file are those of the first output (%s); a file named .jsonl takes any output", id, err, shortText(strings.Join(t.keys, ",")))
	}
	return t.w.Write(t.record)
}

// addChunk writes a chunk.
func (t *csvTable) addChunk(chunk []byte) error {
	if t.record == nil {
		var keys []string
		pairs, _ := scalarPairs(chunk)
		for _, p := range pairs {
			keys = append(keys, p.key)
		}
		if keys == nil {
			return errors.New("it is no map of texts to single values, with a key at least")
		}
		t.start(keys)
	}
	if err := t.fill(chunk); err != nil {
		return fmt.Errorf("%w: the columns are the keys of the first chunk (%s)", err, shortText(strings.Join(t.keys, ",")))
	}
	return t.w.Write(t.record)
}

// fill fills the columns with the values of a map.
func (t *csvTable) fill(output []byte) error {
	clear(t.filled)
	pairs, ok := scalarPairs(output)
	if !ok {
		return errors.New("it is no map of texts to single values")
	}
	for _, p := range pairs {
		i, known := t.column[p.key]
		switch {
		case !known:
			return fmt.Errorf("its key %.64q is no column", p.key)
		case t.filled[i]:
			return fmt.Errorf("its key %.64q stands twice", p.key)
		}
		t.record[i], t.filled[i] = t.text(p.value), true
	}
	for _, key := range t.keys {
		if !t.filled[t.column[key]] {
			return fmt.Errorf("it has no key %.64q", key)
		}
	}
	return nil
}

// text returns an item as a cell: a text as it is, null as nothing, and
// anything else as JSON, without the quotes where that is a string.
func (t *csvTable) text(item []byte) string {
	t.cell.Reset()
	b := bufio.NewWriter(&t.cell)
	tr := transcoder{out: b, rest: item}
	h := tr.head()
	if h.Major == abi.MajorText {
		return strings.ToValidUTF8(string(tr.bytes(h)), "\ufffd")
	}
	tr.rest = item
	tr.item()
	b.Flush()
	s := t.cell.String()
	switch {
	case s == "null":
		return ""
	case s[0] == '"':
		_ = json.Unmarshal([]byte(s), &s) // it was just written
	}
	return s
}

// pair is a key of a map with its value, one item.
type pair struct {
	key   string
	value []byte
}

// scalarPairs returns the pairs of a map with texts as keys and with values
// that are no arrays or maps; ok is false where the item is none.
func scalarPairs(item []byte) (pairs []pair, ok bool) {
	t := transcoder{rest: item}
	h := t.head()
	if h.Major != abi.MajorMap {
		return nil, false
	}
	for n := uint64(0); h.Indefinite && !t.atBreak() || !h.Indefinite && n < h.Arg; n++ {
		key := t.head()
		if key.Major != abi.MajorText {
			return nil, false
		}
		name := string(t.bytes(key))
		size, _ := abi.ItemSize(t.rest)
		value := t.rest[:size]
		t.rest = t.rest[size:]
		if !isScalar(value) {
			return nil, false
		}
		pairs = append(pairs, pair{name, value})
	}
	return pairs, true
}

// isScalar reports whether an item is neither array nor map, tags aside.
func isScalar(item []byte) bool {
	t := transcoder{rest: item}
	h := t.head()
	for h.Major == abi.MajorTag {
		h = t.head()
	}
	return h.Major != abi.MajorArray && h.Major != abi.MajorMap
}

// scalarKeys returns the keys that are the columns after an output, or nil.
func scalarKeys(output []byte) (keys []string) {
	pairs, _ := scalarPairs(output)
	names := map[string]bool{"id": true}
	for _, p := range pairs {
		name := columnName(p.key)
		if names[name] {
			return nil
		}
		names[name] = true
		keys = append(keys, p.key)
	}
	return keys
}
