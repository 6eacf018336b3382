// Package parquet reads the rows of Apache Parquet files as CBOR, and writes tables as
// such files.
//
// Structures of metadata come from github.com/parquet-go/parquet-go/format; pages are
// read here, because files are hostile: no count of a file decides an allocation, pages
// are read one at a time, and everything that can be wrong is an error of one line.
package parquet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Limits of files, in bytes.
const (
	maxFooter = 64 << 20
	maxPage   = 256 << 20
	maxLive   = 1 << 30 // pages of all columns that are held at once
)

var (
	magic     = []byte("PAR1")
	encrypted = []byte("PARE")
)

// Errors of [Open] and [File.Rows].
var (
	// ErrNot is returned if a file is not Parquet.
	ErrNot = errors.New("not a Parquet file")
	// ErrTooLarge is returned if a row has more bytes than it may have.
	ErrTooLarge = errors.New("row too large")
	// ErrUnsupported is wrapped by errors about files that are well-formed.
	ErrUnsupported = errors.New("not supported")
)

// File is an open file.
type File struct {
	r      io.ReaderAt
	groups []format.RowGroup
	fields []*node
	live   int64 // bytes of pages that are held
}

// Open reads the metadata at the end of a file.
func Open(r io.ReaderAt, size int64) (*File, error) {
	meta, err := readFooter(r, size)
	if err != nil {
		return nil, err
	}
	fields, err := readSchema(meta.Schema)
	if err != nil {
		return nil, err
	}
	return &File{r: r, groups: meta.RowGroups, fields: fields}, nil
}

func readFooter(r io.ReaderAt, size int64) (*format.FileMetaData, error) {
	var start, end [8]byte
	if size < int64(2*len(magic)+4) {
		return nil, ErrNot
	}
	if err := errors.Join(readFull(r, start[:4], 0), readFull(r, end[:], size-8)); err != nil {
		return nil, err
	}
	switch {
	case bytes.Equal(end[4:], encrypted):
		return nil, fmt.Errorf("%w: an encrypted Parquet file", ErrUnsupported)
	case !bytes.Equal(start[:4], magic):
		return nil, ErrNot
	case !bytes.Equal(end[4:], magic):
		return nil, errors.New("truncated: the metadata at its end is missing; copy or download it again")
	}
	n := int64(binary.LittleEndian.Uint32(end[:]))
	if n > size-12 {
		return nil, errors.New("damaged: invalid size of its metadata")
	}
	if n > maxFooter {
		return nil, fmt.Errorf("too large: %d bytes of metadata, want at most %d", n, maxFooter)
	}
	b := make([]byte, n)
	if err := readFull(r, b, size-8-n); err != nil {
		return nil, err
	}
	used, err := structSize(b)
	if err != nil {
		return nil, fmt.Errorf("damaged metadata: %w", err)
	}
	meta := new(format.FileMetaData)
	if err := unmarshal(b[:used], meta); err != nil {
		return nil, fmt.Errorf("damaged metadata: %w", err)
	}
	return meta, nil
}

// readFull reads len(b) bytes.
func readFull(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == io.EOF || err == nil {
		return errors.New("truncated: it is shorter than its metadata says; copy or download it again")
	}
	return err
}

// unmarshal reads a structure that passed the guard.
func unmarshal(b []byte, to any) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errInvalid
		}
	}()
	if err := thrift.Unmarshal(new(thrift.CompactProtocol), b, to); err != nil {
		return errInvalid // its text has several lines
	}
	return nil
}

// Options are the options of [File.Rows].
type Options struct {
	Columns []string // top-level columns to keep; none = all
	MaxRow  int      // limit of the bytes of a row
}

// Rows yields the rows of the file, each a map with the names of the columns in their
// order. A row is valid until the next one. After an error the rows end.
func (f *File) Rows(o Options) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		fields, err := selected(f.fields, o.Columns)
		if err != nil {
			yield(nil, err)
			return
		}
		row := 0
		for i := range f.groups {
			g := &group{limit: o.MaxRow}
			for err := range g.rows(f, &f.groups[i], fields) {
				if err != nil {
					yield(nil, fmt.Errorf("row %d: %w", row+1, err))
					return
				}
				if row++; !yield(g.row, nil) {
					return
				}
			}
		}
	}
}

// group reads the rows of a row group.
type group struct {
	limit   int
	columns []*column // by index; nil if not read
	row     []byte
}

// rows makes rows, and yields nil for each, or an error.
func (g *group) rows(f *File, rg *format.RowGroup, fields []*node) iter.Seq[error] {
	return func(yield func(error) bool) {
		defer g.close()
		if err := g.open(f, rg, fields); err != nil {
			yield(err)
			return
		}
		for range rg.NumRows {
			err := g.next(fields)
			if !yield(err) || err != nil {
				return
			}
		}
		for _, c := range g.columns {
			if c == nil {
				continue
			}
			more, err := c.peek()
			if err == nil && more {
				err = damaged(c.leaf, "it has more values than there are rows")
			}
			if err != nil {
				yield(err)
				return
			}
		}
	}
}

func (g *group) open(f *File, rg *format.RowGroup, fields []*node) error {
	if rg.NumRows < 0 {
		return errors.New("damaged: negative number of rows")
	}
	g.columns = make([]*column, len(rg.Columns))
	for _, n := range fields {
		for _, l := range n.leaves {
			if l.index >= len(rg.Columns) {
				return damaged(l, "it is missing in a group of rows")
			}
			c, err := newColumn(f, l, &rg.Columns[l.index])
			if err != nil {
				return err
			}
			g.columns[l.index] = c
		}
	}
	return nil
}

func (g *group) close() {
	for _, c := range g.columns {
		if c != nil {
			c.close()
		}
	}
}

func damaged(l *leaf, reason string) error {
	return fmt.Errorf("column %.64q: damaged: %s", l.path, reason)
}

// next makes the next row.
func (g *group) next(fields []*node) (err error) {
	g.row = abi.AppendHead(g.row[:0], abi.MajorMap, uint64(len(fields)))
	for _, n := range fields {
		for _, l := range n.leaves {
			if err := g.starts(l); err != nil {
				return err
			}
		}
		g.row = append(g.row, n.key...)
		if g.row, err = g.value(g.row, n, 0, 0); err != nil {
			return err
		}
	}
	return g.check(g.row)
}

// starts checks that a row begins in a column.
func (g *group) starts(l *leaf) error {
	c := g.columns[l.index]
	more, err := c.peek()
	switch {
	case err != nil:
		return err
	case !more:
		return damaged(l, "it has fewer values than there are rows")
	case c.rep != 0:
		return damaged(l, "a row begins within a list")
	}
	return nil
}

func (g *group) check(dst []byte) error {
	if len(dst) > g.limit {
		return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, g.limit)
	}
	return nil
}
