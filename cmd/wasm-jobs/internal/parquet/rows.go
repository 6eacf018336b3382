package parquet

import (
	"bytes"
	"errors"
	"slices"

	"github.com/parquet-go/parquet-go/format"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/typed"
)

// Columns have their values with two numbers: the definition level says how many of the
// optional and repeated nodes on the path to the value are there, the repetition level
// which of the repeated ones has another element. Rows are put together again as in the
// Dremel paper, with a function for each kind of node.

// value appends the value of a node. rep and def are the levels at its parent.
func (g *group) value(dst []byte, n *node, rep, def int) ([]byte, error) {
	switch n.repetition {
	case format.Optional:
		if there, err := g.defined(n, def); err != nil || !there {
			return g.null(dst, n, err)
		}
		return g.defining(dst, n, rep, def+1)
	case format.Repeated: // without an annotation, it is a list itself
		return g.list(dst, n, rep, def, g.defining)
	}
	return g.defining(dst, n, rep, def)
}

// defined reports whether a node is there.
func (g *group) defined(n *node, def int) (bool, error) {
	c := g.columns[n.leaves[0].index]
	more, err := c.peek()
	if err == nil && !more {
		err = damaged(c.leaf, "it ends within a row")
	}
	return c.def > def, err
}

// null appends null for a node, and passes the values that say so.
func (g *group) null(dst []byte, n *node, err error) ([]byte, error) {
	if err != nil {
		return dst, err
	}
	return append(dst, typed.Null), g.pass(n)
}

// pass passes a value of each column of a node.
func (g *group) pass(n *node) error {
	for _, l := range n.leaves {
		c := g.columns[l.index]
		if more, err := c.peek(); err != nil {
			return err
		} else if !more {
			return damaged(l, "it ends within a row")
		}
		if c.def == l.maxDef {
			return damaged(l, "it has a value where others have none")
		}
		c.has = false
	}
	return nil
}

// defining appends the value of a node that is there.
func (g *group) defining(dst []byte, n *node, rep, def int) ([]byte, error) {
	switch {
	case n.leaf != nil:
		return g.leaf(dst, n.leaf)
	case n.shape == list && n.children[0].repetition == format.Repeated:
		return g.list(dst, n.children[0], rep, def, g.element)
	case n.shape == table:
		return g.table(dst, n.children[0], rep, def)
	}
	return g.fields(dst, n, rep, def)
}

// element appends an element of a list, which may have a group of its own.
func (g *group) element(dst []byte, n *node, rep, def int) ([]byte, error) {
	if n.shape == list && len(n.children) == 1 && n.children[0].repetition != format.Repeated {
		return g.value(dst, n.children[0], rep, def)
	}
	return g.defining(dst, n, rep, def)
}

func (g *group) fields(dst []byte, n *node, rep, def int) (_ []byte, err error) {
	dst = abi.AppendHead(dst, abi.MajorMap, uint64(len(n.children)))
	for _, child := range n.children {
		if dst, err = g.value(append(dst, child.key...), child, rep, def); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func (g *group) leaf(dst []byte, l *leaf) ([]byte, error) {
	c := g.columns[l.index]
	if c.def != l.maxDef {
		return dst, damaged(l, "it has no value where others have one")
	}
	v, err := c.value()
	if err == nil {
		dst, err = l.convert(dst, v)
	}
	if err != nil {
		return dst, c.fail(err)
	}
	c.has = false
	return dst, g.check(dst)
}

// elements calls each for every element of a repeated node, and returns their number.
func (g *group) elements(n *node, rep, def int, each func() error) (count uint64, err error) {
	if there, err := g.defined(n, def); err != nil || !there {
		if err == nil {
			err = g.pass(n)
		}
		return 0, err
	}
	for more := true; more; count++ {
		if err := each(); err != nil {
			return 0, err
		}
		if more, err = g.another(n, rep+1); err != nil {
			return 0, err
		}
	}
	return count, nil
}

// another reports whether all columns of a node go on with another element at a
// repetition level.
func (g *group) another(n *node, rep int) (bool, error) {
	goesOn := 0
	for _, l := range n.leaves {
		c := g.columns[l.index]
		more, err := c.peek()
		if err != nil {
			return false, err
		}
		if more && c.rep > rep {
			return false, damaged(l, "its lists are longer than others of the row")
		}
		if more && c.rep == rep {
			goesOn++
		}
	}
	if goesOn != 0 && goesOn != len(n.leaves) {
		return false, damaged(n.leaves[0], "its lists have other lengths than those of the columns next to it")
	}
	return goesOn > 0, nil
}

// list appends the elements of a repeated node as an array.
func (g *group) list(dst []byte, n *node, rep, def int, element func([]byte, *node, int, int) ([]byte, error)) ([]byte, error) {
	start := len(dst)
	count, err := g.elements(n, rep, def, func() (err error) {
		if dst, err = element(dst, n, rep+1, def+1); err == nil {
			err = g.check(dst)
		}
		return err
	})
	return insertHead(dst, start, abi.MajorArray, count), err
}

// insertHead puts the head of an item before its elements.
func insertHead(dst []byte, start int, major byte, count uint64) []byte {
	var head [9]byte
	return slices.Insert(dst, start, abi.AppendHead(head[:0], major, count)...)
}

var errKeys = errors.New("duplicate key in a map")

// table appends a map. Its pairs are in the order of the file.
func (g *group) table(dst []byte, n *node, rep, def int) ([]byte, error) {
	start := len(dst)
	keys := map[string]bool{}
	count, err := g.elements(n, rep, def, func() (err error) {
		key := len(dst)
		if dst, err = g.value(dst, n.children[0], rep+1, def+1); err != nil {
			return err
		}
		if keys[string(dst[key:])] {
			return errKeys
		}
		keys[string(bytes.Clone(dst[key:]))] = true
		if dst, err = g.value(dst, n.children[1], rep+1, def+1); err == nil {
			err = g.check(dst)
		}
		return err
	})
	return insertHead(dst, start, abi.MajorMap, count), err
}
