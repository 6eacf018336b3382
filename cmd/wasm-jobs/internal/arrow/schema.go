package arrow

import (
	"errors"
	"fmt"
	"slices"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// kind is a type of the format, with the number that files have.
type kind byte

const (
	null kind = iota + 1
	integer
	float
	binary_
	utf8
	boolean
	decimal
	date
	clock
	timestamp
	interval
	list
	record
	union
	fixedBinary
	fixedList
	mapping
	duration
	largeBinary
	largeUTF8
	largeList
	runs
	binaryView
	utf8View
	listView
	largeListView
)

// Limits of schemas.
const (
	maxNesting = 64
	maxFields  = 100_000
)

// field is a column, or a part of one.
type field struct {
	name     string
	key      []byte // the name as CBOR
	kind     kind
	width    int // bytes of a value of fixed size; of fixedList, elements
	signed   bool
	unit     int
	scale    int
	utc      bool
	dense    bool // of union
	uuid     bool
	typeIDs  []int
	children []*field

	dictionary bool   // values are indices of a dictionary
	id         int64  // of the dictionary
	index      *field // the type of indices
}

var errMetadata = errors.New("damaged: invalid metadata")

// schemaReader counts fields.
type schemaReader struct{ fields int }

func readSchema(t table) ([]*field, error) {
	if t.shortAt(0, 0) != 0 {
		return nil, fmt.Errorf("big-endian data: %w", ErrUnsupported)
	}
	root := &field{}
	if err := new(schemaReader).children(root, t, 1, 0); err != nil {
		return nil, err
	}
	if t.bad {
		return nil, errMetadata
	}
	return root.children, nil
}

// children reads the fields in a vector.
func (r *schemaReader) children(parent *field, t table, slot, depth int) error {
	if depth > maxNesting {
		return errMetadata
	}
	return t.tables(slot, func(t table) error {
		if r.fields++; r.fields > maxFields {
			return errors.New("too many columns")
		}
		f := &field{name: t.text(0), kind: kind(t.byteAt(2, 0))}
		f.key = abi.AppendText(nil, f.name)
		if err := r.children(f, t, 5, depth+1); err != nil {
			return err
		}
		of, _ := t.tableAt(3)
		if err := f.read(of); err != nil {
			return err
		}
		f.readMeta(t)
		parent.children = append(parent.children, f)
		return f.readDictionary(t)
	})
}

// readDictionary reads the encoding of the values as indices.
func (f *field) readDictionary(t table) error {
	d, ok := t.tableAt(4)
	if !ok {
		return nil
	}
	f.dictionary, f.id, f.index = true, d.longAt(0), &field{kind: integer, width: 4, signed: true}
	if of, ok := d.tableAt(1); ok {
		return f.index.read(of)
	}
	return nil
}

// readMeta recognizes UUIDs.
func (f *field) readMeta(t table) {
	_ = t.tables(6, func(pair table) error {
		f.uuid = f.uuid || f.kind == fixedBinary && f.width == 16 && pair.text(0) == "ARROW:extension:name" && pair.text(1) == "arrow.uuid"
		return nil
	})
}

// read reads the parameters of the type.
func (f *field) read(t table) error {
	switch f.kind {
	case integer:
		f.width, f.signed = t.intAt(0, 0)/8, t.byteAt(1, 0) != 0
	case float:
		f.width = 2 << (t.shortAt(0, 0) & 15)
	case decimal:
		f.scale, f.width = t.intAt(1, 0), t.intAt(2, 128)/8
	case date:
		f.unit = t.shortAt(0, 1)
		f.width = 4 + 4*f.unit
	case clock:
		f.unit, f.width = t.shortAt(0, 1), t.intAt(1, 32)/8
	case timestamp:
		f.unit, f.width, f.utc = t.shortAt(0, 0), 8, t.text(1) != ""
	case duration:
		f.unit, f.width = t.shortAt(0, 1), 8
	case interval:
		f.unit = t.shortAt(0, 0)
		f.width = 4 << (f.unit & 3)
	case fixedBinary, fixedList:
		f.width = t.intAt(0, 0)
	case union:
		f.dense = t.shortAt(0, 0) == 1
		first, count := t.vector(1, 4)
		for i := range count {
			f.typeIDs = append(f.typeIDs, t.i32(first+4*i))
		}
	}
	return f.check()
}

// check refuses parameters that the format does not have.
func (f *field) check() error {
	one, many := len(f.children) == 1, len(f.children)
	ok := true
	switch f.kind {
	case integer:
		ok = slices.Contains([]int{1, 2, 4, 8}, f.width)
	case float:
		ok = slices.Contains([]int{2, 4, 8}, f.width)
	case decimal:
		ok = slices.Contains([]int{4, 8, 16, 32}, f.width)
	case date:
		ok = f.unit == 0 || f.unit == 1
	case clock:
		ok = f.unit >= 0 && f.unit <= 3 && (f.width == 4 || f.width == 8)
	case timestamp, duration:
		ok = f.unit >= 0 && f.unit <= 3
	case interval:
		ok = f.unit >= 0 && f.unit <= 2
	case fixedBinary:
		ok = f.width >= 0
	case fixedList:
		ok = f.width >= 0 && one
	case list, largeList, listView, largeListView:
		ok = one
	case mapping:
		ok = one && f.children[0].kind == record && !f.children[0].dictionary && len(f.children[0].children) == 2
	case runs:
		ok = many == 2 && f.children[0].kind == integer
	case null, binary_, utf8, boolean, record, union, largeBinary, largeUTF8, binaryView, utf8View:
	default:
		return fmt.Errorf("column %.64q: type %d: %w", f.name, f.kind, ErrUnsupported)
	}
	if !ok {
		return fmt.Errorf("column %.64q: %w", f.name, errMetadata)
	}
	return nil
}
