package parquet

import (
	"encoding/binary"
	"errors"
)

// Limits of metadata. It is read into Go values that are larger than its bytes.
const (
	maxDepth    = 32      // nested structures
	maxElements = 1 << 20 // of all lists
)

var (
	errShort   = errors.New("it is truncated")
	errInvalid = errors.New("it is malformed")
	errLarge   = errors.New("it has more than 1,048,576 elements")
)

// guard walks over a structure of Thrift's compact protocol without reading it into
// values. The library that does so allocates lists by the lengths that they state.
type guard struct {
	b        []byte
	at       int
	elements int
}

// structSize returns the size of the structure at the start of b. The error is
// errShort if it does not end in b.
func structSize(b []byte) (int, error) {
	g := &guard{b: b}
	err := g.structure(0)
	return g.at, err
}

func (g *guard) byte() (byte, error) {
	if g.at >= len(g.b) {
		return 0, errShort
	}
	g.at++
	return g.b[g.at-1], nil
}

func (g *guard) uvarint() (uint64, error) {
	n, size := binary.Uvarint(g.b[g.at:])
	switch {
	case size == 0:
		return 0, errShort
	case size < 0:
		return 0, errInvalid
	}
	g.at += size
	return n, nil
}

func (g *guard) skip(n uint64) error {
	if n > uint64(len(g.b)-g.at) {
		return errShort
	}
	g.at += int(n)
	return nil
}

func (g *guard) structure(depth int) error {
	if depth > maxDepth {
		return errInvalid
	}
	for {
		head, err := g.byte()
		if err != nil || head == 0 {
			return err
		}
		if head>>4 == 0 {
			if _, err := g.uvarint(); err != nil { // the field's number
				return err
			}
		}
		if err := g.value(head&0xf, depth, false); err != nil {
			return err
		}
	}
}

// The types of the compact protocol.
const (
	typeTrue, typeFalse       = 1, 2
	typeByte                  = 3
	typeInt16                 = 4
	typeInt64                 = 6
	typeDouble                = 7
	typeBinary                = 8
	typeList, typeSet         = 9, 10
	typeMap, typeStruct       = 11, 12
	longList            uint8 = 15
)

func (g *guard) value(kind byte, depth int, inList bool) error {
	switch {
	case kind == typeTrue || kind == typeFalse:
		if !inList {
			return nil
		}
		return g.skip(1)
	case kind == typeByte:
		return g.skip(1)
	case kind >= typeInt16 && kind <= typeInt64:
		_, err := g.uvarint()
		return err
	case kind == typeDouble:
		return g.skip(8)
	case kind == typeBinary:
		n, err := g.uvarint()
		if err != nil {
			return err
		}
		return g.skip(n)
	case kind == typeList || kind == typeSet:
		return g.list(depth)
	case kind == typeMap:
		return g.pairs(depth)
	case kind == typeStruct:
		return g.structure(depth + 1)
	}
	return errInvalid
}

func (g *guard) list(depth int) error {
	head, err := g.byte()
	if err != nil {
		return err
	}
	n := uint64(head >> 4)
	if head>>4 == longList {
		if n, err = g.uvarint(); err != nil {
			return err
		}
	}
	return g.values(n, depth, head&0xf)
}

func (g *guard) pairs(depth int) error {
	n, err := g.uvarint()
	if err != nil || n == 0 {
		return err
	}
	kinds, err := g.byte()
	if err != nil {
		return err
	}
	return g.values(n, depth, kinds>>4, kinds&0xf)
}

func (g *guard) values(n uint64, depth int, kinds ...byte) error {
	if depth >= maxDepth {
		return errInvalid
	}
	if n > uint64(maxElements-g.elements) {
		return errLarge
	}
	g.elements += int(n)
	for range n {
		for _, kind := range kinds {
			if err := g.value(kind, depth+1, true); err != nil {
				return err
			}
		}
	}
	return nil
}
