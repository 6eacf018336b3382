package parquet

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/format"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// maxNesting is the limit of nested groups of columns.
const maxNesting = 64

// shape is the value that a group of columns makes.
type shape int

const (
	record shape = iota // a map with the names of the columns
	list                // an array
	table               // a map with any keys
)

// node is a column, or a group of columns.
type node struct {
	name       string
	key        []byte // the name as CBOR
	repetition format.FieldRepetitionType
	shape      shape
	children   []*node // nil of a column
	leaves     []*leaf // of the node and all below it
	leaf       *leaf   // nil of a group
}

// leaf is a column.
type leaf struct {
	path           string // for messages
	index          int    // in a row group
	kind           format.Type
	width          int // of values of fixed size; 0 of byte arrays and booleans
	maxRep, maxDef int
	convert        func(dst, value []byte) ([]byte, error)
}

var errSchema = errors.New("damaged: invalid schema")

// schemaReader makes a tree of the list of columns and groups.
type schemaReader struct {
	elements []format.SchemaElement
	columns  int
}

// readSchema returns the columns of the file, each a field of its rows.
func readSchema(elements []format.SchemaElement) ([]*node, error) {
	if len(elements) == 0 {
		return nil, errSchema
	}
	r := &schemaReader{elements: elements[1:]}
	root := &node{}
	if err := r.group(root, &elements[0], 0, 0, 0); err != nil {
		return nil, err
	}
	if len(r.elements) > 0 || len(root.leaves) == 0 {
		return nil, errSchema
	}
	return root.children, nil
}

// group reads the children of a group.
func (r *schemaReader) group(n *node, e *format.SchemaElement, rep, def, depth int) error {
	count := int(e.NumChildren.V)
	if depth > maxNesting || count < 0 || count > len(r.elements) {
		return errSchema
	}
	names := map[string]bool{}
	for range count {
		child, err := r.node(rep, def, depth+1, n)
		if err != nil {
			return err
		}
		if names[child.name] {
			return fmt.Errorf("duplicate column %.64q", child.name)
		}
		names[child.name] = true
		n.children, n.leaves = append(n.children, child), append(n.leaves, child.leaves...)
	}
	return nil
}

func (r *schemaReader) node(rep, def, depth int, parent *node) (*node, error) {
	if len(r.elements) == 0 {
		return nil, errSchema
	}
	e := &r.elements[0]
	r.elements = r.elements[1:]
	n := &node{name: e.Name, key: abi.AppendText(nil, e.Name), repetition: e.RepetitionType.V}
	switch n.repetition {
	case format.Required:
	case format.Optional:
		def++
	case format.Repeated:
		def, rep = def+1, rep+1
	default:
		return nil, errSchema
	}
	if !e.Type.Valid {
		if err := r.group(n, e, rep, def, depth); err != nil {
			return nil, err
		}
		if len(n.leaves) == 0 {
			return nil, fmt.Errorf("the group of columns %.64q is empty: not supported", n.name)
		}
		n.shape = shapeOf(n, e)
		return n, nil
	}
	l := &leaf{path: e.Name, index: r.columns, kind: e.Type.V, width: widthOf(e), maxRep: rep, maxDef: def}
	if parent.name != "" {
		l.path = parent.name + "." + e.Name
	}
	r.columns++
	n.leaf, n.leaves = l, []*leaf{l}
	var err error
	l.convert, err = converter(e)
	return n, err
}

func widthOf(e *format.SchemaElement) int {
	switch e.Type.V {
	case format.Int32, format.Float:
		return 4
	case format.Int64, format.Double:
		return 8
	case format.Int96:
		return 12
	case format.FixedLenByteArray:
		return int(e.TypeLength.V)
	}
	return 0
}

// shapeOf returns the shape of a group, and for a list or a table turns the group with
// its elements into the elements, by the rules of the format for old writers too.
func shapeOf(n *node, e *format.SchemaElement) shape {
	_, isList := e.LogicalType.Value.(*format.ListType)
	_, isMap := e.LogicalType.Value.(*format.MapType)
	if c := e.ConvertedType; c.Valid {
		isList = isList || c.V == deprecated.List
		isMap = isMap || c.V == deprecated.Map || c.V == deprecated.MapKeyValue
	}
	if len(n.children) != 1 || n.children[0].repetition != format.Repeated {
		return record
	}
	inner := n.children[0]
	switch {
	case isMap && len(inner.children) == 2 && inner.shape == record:
		return table
	case isList:
		if inner.shape == record && len(inner.children) == 1 && inner.children[0].repetition != format.Repeated && inner.name != "array" && inner.name != n.name+"_tuple" {
			inner.shape = list // its only child is the element
		}
		return list
	}
	return record
}

// selected returns the fields with the given names, or all if there are none.
func selected(all []*node, names []string) ([]*node, error) {
	if len(names) == 0 {
		return all, nil
	}
	kept := slices.DeleteFunc(slices.Clone(all), func(n *node) bool { return !slices.Contains(names, n.name) })
	for _, name := range names {
		if !slices.ContainsFunc(kept, func(n *node) bool { return n.name == name }) {
			return nil, errors.New("missing column " + strconv.Quote(name))
		}
	}
	return kept, nil
}
