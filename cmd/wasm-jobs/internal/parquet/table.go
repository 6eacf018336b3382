package parquet

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/typed"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
	"github.com/wasm-jobs/wasm-jobs/host/outputs"
)

// maxColumns is the limit of the columns of outputs, each of which is held in memory.
const maxColumns = 10_000

// WriteOutputs writes outputs as a table with a column for their ids. If all of them are
// maps with texts as keys, each key is a column, and a missing key is null; otherwise
// the only other column is the output. The type of a column is found in its values: a
// column of which no type has all values has the JSON of each.
//
// all is read twice. The error is of all, of w, or an *[outputs.WriteError].
func WriteOutputs(w io.Writer, all outputs.Seq) error {
	t := &outputTable{index: map[string]int{}, isMap: true}
	t.ids.add(abi.AppendHead(nil, abi.MajorUint, 0)) // so that a table without rows has integers
	for o, err := range all {
		if err == nil {
			err = t.find(o)
		}
		if err != nil {
			return err
		}
	}
	p, err := NewWriter(w, t.columns())
	if err != nil {
		return err
	}
	for o, err := range all {
		if err == nil {
			err = t.write(p, o)
		}
		if err != nil {
			return err
		}
	}
	return p.Close()
}

// outputTable is the columns of outputs.
type outputTable struct {
	ids    found
	isMap  bool // all outputs are maps
	names  []string
	index  map[string]int // by key
	keys   []found
	whole  found    // of the output as one column
	values [][]byte // of a row
}

// found are the values of a column.
type found struct {
	texts, bytes, bools, floats, others bool
	negative, ints, big, huge           bool // below 0; any integer; above 2^53; above 2^63-1
}

// maxExact is the largest integer up to which a double has all.
const maxExact = 1 << 53

func (f *found) add(item []byte) {
	h, err := abi.ReadHead(item)
	switch {
	case err != nil || h.Major == abi.MajorArray || h.Major == abi.MajorMap || h.Major == abi.MajorTag:
		f.others = true
	case h.Major == abi.MajorUint:
		f.ints, f.big, f.huge = true, f.big || h.Arg > maxExact, f.huge || h.Arg > math.MaxInt64
	case h.Major == abi.MajorNegint:
		f.ints, f.negative, f.big = true, true, f.big || h.Arg >= maxExact
		f.others = f.others || h.Arg > math.MaxInt64
	case h.Major == abi.MajorText:
		f.texts = true
	case h.Major == abi.MajorBytes:
		f.bytes = true
	case isFloat(item):
		f.floats = true
	case isBool(item):
		f.bools = true
	case !isNull(item):
		f.others = true
	}
}

func isFloat(item []byte) bool { return item[0] >= 0xf9 && item[0] <= 0xfb }
func isBool(item []byte) bool  { return item[0] == 0xf4 || item[0] == 0xf5 }
func isNull(item []byte) bool  { return item[0] == 0xf6 || item[0] == 0xf7 }

func (f *found) kind() Kind {
	kinds := 0
	for _, has := range []bool{f.texts, f.bytes, f.bools, f.floats || f.ints} {
		if has {
			kinds++
		}
	}
	switch {
	case f.others || kinds > 1 || f.huge && f.negative || f.floats && f.big:
		return JSON
	case f.floats:
		return Float
	case f.huge:
		return Uint
	case f.ints:
		return Int
	case f.bools:
		return Bool
	case f.bytes:
		return Bytes
	}
	return Text
}

// find adds the values of an output to those of the columns.
func (t *outputTable) find(o outputs.Output) error {
	if _, isText := o.ID.Text(); isText {
		t.ids.texts = true
	} else {
		t.ids.add(o.ID.AppendCBOR(nil))
	}
	t.whole.add(o.Output)
	t.isMap = t.isMap && pairs(o.Output, func(key string, value []byte) error {
		i, known := t.index[key]
		if !known {
			if i = len(t.keys); i >= maxColumns {
				return errMap
			}
			t.index[key], t.names, t.keys = i, append(t.names, key), append(t.keys, found{})
		}
		t.keys[i].add(value)
		return nil
	}) == nil
	return nil
}

// errMap is returned if an item is not a map that columns can have.
var errMap = fmt.Errorf("not a map of at most %d texts, each once", maxColumns)

// pairs calls each for the pairs of a map with texts as keys.
func pairs(item []byte, each func(key string, value []byte) error) error {
	h, err := abi.ReadHead(item)
	if err != nil || h.Major != abi.MajorMap {
		return errMap
	}
	seen := map[string]bool{}
	for rest := item[h.Size:]; len(rest) > 0 && rest[0] != 0xff; {
		k, err := abi.ReadHead(rest)
		if err != nil || k.Major != abi.MajorText || k.Indefinite {
			return errMap
		}
		size := k.Size + int(k.Arg)
		key := string(rest[k.Size:size])
		n, err := abi.ItemSize(rest[size:])
		if err != nil || seen[key] || !utf8.ValidString(key) {
			return errMap
		}
		seen[key] = true
		if err := each(key, rest[size:size+n]); err != nil {
			return err
		}
		rest = rest[size+n:]
	}
	return nil
}

func (t *outputTable) columns() []Column {
	columns := []Column{{Name: "id", Kind: t.ids.kind()}}
	if columns[0].Kind == JSON { // integers and texts
		columns[0].Kind = Text
	}
	if t.isMap = t.isMap && len(t.names) > 0 && t.unambiguous(); !t.isMap {
		return append(columns, Column{"output", t.whole.kind()})
	}
	for i, name := range t.names {
		columns = append(columns, Column{columnName(name), t.keys[i].kind()})
	}
	t.values = make([][]byte, len(t.names))
	return columns
}

// columnName is the column of a key, unless it is the column of ids.
func columnName(key string) string {
	if key == "id" {
		return "output.id"
	}
	return key
}

func (t *outputTable) unambiguous() bool {
	_, id := t.index["id"]
	_, other := t.index["output.id"]
	return !id || !other
}

func (t *outputTable) write(p *Writer, o outputs.Output) (err error) {
	t.writeID(p, o.ID)
	if !t.isMap {
		err = writeValue(p, 1, o.Output)
	} else {
		clear(t.values)
		err = pairs(o.Output, func(key string, value []byte) error {
			t.values[t.index[key]] = value
			return nil
		})
		for i, value := range t.values {
			if err == nil && value == nil {
				p.Null(i + 1)
			} else if err == nil {
				err = writeValue(p, i+1, value)
			}
		}
	}
	if err != nil {
		return &outputs.WriteError{ID: o.ID, Err: err}
	}
	return p.EndRow()
}

func (t *outputTable) writeID(p *Writer, id abi.ID) {
	text, isText := id.Text()
	switch {
	case isText:
		p.Bytes(0, []byte(text))
	case p.columns[0].Kind == Text:
		p.Bytes(0, []byte(id.String()))
	default:
		n, _ := id.Int()
		p.Uint(0, n)
	}
}

// writeValue writes an item into a column whose kind fits.
func writeValue(p *Writer, i int, item []byte) error {
	if isNull(item) {
		p.Null(i)
		return nil
	}
	h, err := abi.ReadHead(item)
	if err != nil {
		return err
	}
	switch kind := p.columns[i].Kind; kind {
	case Bool:
		p.Bool(i, item[0] == 0xf5)
	case Int, Uint:
		p.Uint(i, integerOf(h))
	case Float:
		f := float64(int64(integerOf(h)))
		if isFloat(item) {
			err = cbor.Unmarshal(item, &f)
		}
		p.Float(i, f)
	case Bytes:
		var b []byte
		err = cbor.Unmarshal(item, &b)
		p.Bytes(i, b)
	case Text:
		var s string
		if err = cbor.Unmarshal(item, &s); err != nil {
			err = errText
		}
		p.Bytes(i, []byte(s))
	case JSON:
		var b bytes.Buffer
		w := bufio.NewWriter(&b)
		if err = notation.WriteJSON(w, item); err == nil {
			err = w.Flush()
		}
		p.Bytes(i, b.Bytes())
	}
	return err
}

var errText = fmt.Errorf("%w: a Parquet file cannot have it; a file named .cbor takes any output", typed.ErrNotUTF8)

// integerOf returns the 64 bits of an integer.
func integerOf(h abi.Head) uint64 {
	if h.Major == abi.MajorNegint {
		return ^h.Arg
	}
	return h.Arg
}
