// Package dbfile reads the rows of tables from a SQLite file and its log, whatever
// their state: truncated, with pages that are zeroed or damaged, without a header,
// or made by an attacker. It looks at the pages and not at the schema, so it may
// yield a row more than once, also from pages that are no longer in use, and a row
// may be wrong: the caller must be able to verify each row by itself.
//
// The format is documented in https://sqlite.org/fileformat2.html.
package dbfile

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
)

const (
	// PageSize is the only supported page size. It is fixed, so that rows can be
	// found in a file without its header.
	PageSize = 4096
	// UsableSize is PageSize without the checksum at the end of each page.
	UsableSize = PageSize - 8

	// logHeader is the size of the header before the log's first frame, frameHeader
	// that of the header before the page in each frame.
	logHeader   = 32
	frameHeader = 24

	// overflowFactor bounds how many overflow pages are read for each page of the
	// file and of its log. In a sound file each is read once, and once more for each
	// frame of the log that has its row; in a hostile file, all rows may refer to
	// the same pages.
	overflowFactor = 64
)

// File is a SQLite file with its write-ahead log. It is not safe for concurrent
// use.
type File struct {
	pages, log section
	latest     map[uint32]int64 // the last frame of the log for each page number
	overflow   int64            // pages that may still be read
	page       [PageSize]byte
	next       [PageSize]byte // of an overflow chain
	payload    []byte
	values     []Value
}

// section is a part of a file that consists of units of equal size.
type section struct {
	from        io.ReaderAt
	header      int64
	unit        int64
	count       int64
	beforePages int64 // bytes before the page in a unit
}

// Row is a row of a table.
type Row struct {
	ID      int64
	Columns []Value
}

// Value is the value of a column.
type Value struct {
	Integer int64  // 0 if the value is not an integer
	Bytes   []byte // of a blob or a text, perhaps cut short; nil for other values
}

// Open opens the file at a path and its log. Either may be missing.
func Open(path string) (f *File, close func() error, err error) {
	file, size, err := openSized(path)
	if err != nil {
		return nil, nil, err
	}
	log, logSize, err := openSized(path + "-wal")
	if err != nil {
		return nil, nil, errors.Join(err, closeFile(file))
	}
	return New(file, size, log, logSize), func() error { return errors.Join(closeFile(file), closeFile(log)) }, nil
}

func closeFile(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

// openSized opens a file and returns its size. A missing file is nil, with size 0.
func openSized(path string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// New returns a File of the bytes of a database and of its log. Bytes that cannot be
// read count as zeros.
func New(file io.ReaderAt, size int64, log io.ReaderAt, logSize int64) *File {
	f := &File{
		pages:  section{from: file, unit: PageSize, count: units(size, 0, PageSize)},
		log:    section{from: log, header: logHeader, unit: frameHeader + PageSize, beforePages: frameHeader, count: units(logSize, logHeader, frameHeader+PageSize)},
		latest: map[uint32]int64{},
	}
	var header [4]byte
	for i := range f.log.count {
		if n, _ := log.ReadAt(header[:], f.log.header+i*f.log.unit); n == len(header) {
			f.latest[binary.BigEndian.Uint32(header[:])] = i
		}
	}
	return f
}

// units returns how many units follow a header; the last one may be cut short.
func units(size, header, unit int64) int64 { return max(0, size-header+unit-1) / unit }

// Rows yields the rows with a number of columns, from the pages of the file and
// then of the log. A row is valid until the next one.
func (f *File) Rows(columns int) iter.Seq[Row] {
	return func(yield func(Row) bool) {
		f.overflow = overflowFactor * (f.pages.count + f.log.count)
		for _, s := range []*section{&f.pages, &f.log} {
			for i := range s.count {
				s.read(i, &f.page)
				if !f.rowsOfPage(columns, yield) {
					return
				}
			}
		}
	}
}

// read reads a page; bytes that cannot be read are zero.
func (s *section) read(i int64, page *[PageSize]byte) {
	n, _ := s.from.ReadAt(page[:], s.header+i*s.unit+s.beforePages)
	clear(page[n:])
}

// tableLeaf is the type of pages that hold the rows of a table.
const tableLeaf = 0x0d

// roomFactor bounds the sum of the sizes of a page's rows, in pages. It is above 1,
// since the size of a damaged row may be wrong, and small, since thousands of
// pointers may refer to the same bytes.
const roomFactor = 4

// rowsOfPage yields the rows of f.page, if it is a table leaf.
func (f *File) rowsOfPage(columns int, yield func(Row) bool) bool {
	const header = 8
	if f.page[0] != tableLeaf {
		return true
	}
	count := int(binary.BigEndian.Uint16(f.page[3:]))
	room := roomFactor * PageSize
	for i := range min(count, (PageSize-header)/2) {
		at := int(binary.BigEndian.Uint16(f.page[header+2*i:]))
		if at < header || at >= PageSize {
			continue
		}
		c, ok := parseCell(f.page[at:])
		if room -= len(c.local); room < 0 {
			return true
		}
		if !ok || countColumns(c.local) != columns {
			continue
		}
		if !yield(Row{c.id, f.parseRecord(f.record(c))}) {
			return false
		}
	}
	return true
}

// cell is a row on a leaf.
type cell struct {
	id    int64
	size  int    // of the record
	local []byte // the part of the record on the leaf
	next  uint32 // the number of the first overflow page, which has more of it
}

// maxRecord is the size of the largest record that is read. It is above SQLite's
// default limit for the length of a blob.
const maxRecord = 1 << 30

// parseCell parses a cell; ok is false if it is malformed.
func parseCell(b []byte) (c cell, ok bool) {
	const (
		maxLocal = UsableSize - 35
		minLocal = (UsableSize-12)*32/255 - 23
	)
	size, rest, ok := varint(b)
	id, rest, hasID := varint(rest)
	if !ok || !hasID || size > maxRecord {
		return c, false
	}
	c.id, c.size = int64(id), int(size)
	if c.size <= maxLocal {
		c.local = rest[:min(c.size, len(rest))]
		return c, true
	}
	local := minLocal + (c.size-minLocal)%(UsableSize-4)
	if local > maxLocal {
		local = minLocal
	}
	if local+4 > len(rest) {
		return c, false
	}
	c.local, c.next = rest[:local], binary.BigEndian.Uint32(rest[local:])
	return c, true
}

// record returns the record of a cell with its overflow pages, as far as these
// exist.
func (f *File) record(c cell) []byte {
	const overflow = UsableSize - 4
	if len(c.local) == c.size || c.next == 0 {
		return c.local
	}
	f.payload = append(f.payload[:0], c.local...)
	size := int(min(int64(c.size), (f.pages.count+f.log.count)*PageSize)) // the chain may have a cycle
	for next := c.next; len(f.payload) < size && f.numbered(next); {
		next = binary.BigEndian.Uint32(f.next[:])
		f.payload = append(f.payload, f.next[4:4+min(overflow, size-len(f.payload))]...)
	}
	return f.payload
}

// numbered reads an overflow page by its number.
func (f *File) numbered(number uint32) bool {
	frame, logged := f.latest[number]
	if f.overflow--; f.overflow < 0 || !logged && (number == 0 || int64(number) > f.pages.count) {
		return false
	}
	if logged {
		f.log.read(frame, &f.next)
	} else {
		f.pages.read(int64(number)-1, &f.next)
	}
	return true
}

// maxHeader is the size of the largest record header that is read.
const maxHeader = 64

// cutHeader returns the types of a record's columns, and the body after them.
func cutHeader(b []byte) (types, body []byte, ok bool) {
	size, rest, ok := varint(b)
	width := len(b) - len(rest)
	if !ok || size < uint64(width) || size > uint64(len(b)) || size > maxHeader {
		return nil, nil, false
	}
	return b[width:size], b[size:], true
}

// countColumns returns the number of columns of a record that begins with b, -1 if
// its header is malformed.
func countColumns(b []byte) (n int) {
	types, _, ok := cutHeader(b)
	if !ok {
		return -1
	}
	for ; len(types) > 0; n++ {
		if _, types, ok = varint(types); !ok {
			return -1
		}
	}
	return n
}

// parseRecord returns the columns of a record, up to the first malformed one.
func (f *File) parseRecord(b []byte) []Value {
	f.values = f.values[:0]
	types, body, ok := cutHeader(b)
	for ok && len(types) > 0 {
		var kind uint64
		var v Value
		if kind, types, ok = varint(types); !ok {
			break
		}
		if v, body, ok = cutValue(kind, body); ok {
			f.values = append(f.values, v)
		}
	}
	return f.values
}

// cutValue takes a value of a type from the front of a record's body. If a blob or a
// text is cut short, the value is the rest of the body.
func cutValue(kind uint64, body []byte) (v Value, rest []byte, ok bool) {
	switch {
	case kind == 0, kind == 8:
		return v, body, true
	case kind == 9:
		return Value{Integer: 1}, body, true
	case kind >= 12:
		n := min((kind-12)/2, uint64(len(body)))
		return Value{Bytes: body[:n:n]}, body[n:], true
	case kind > 6:
		return v, nil, false
	}
	n := [...]int{0, 1, 2, 3, 4, 6, 8}[kind]
	if n > len(body) {
		return v, nil, false
	}
	v.Integer = int64(int8(body[0]))
	for _, digit := range body[1:n] {
		v.Integer = v.Integer<<8 | int64(digit)
	}
	return v, body[n:], true
}

// Checksum returns the checksum of a page, which is stored in its last 8 bytes. See
// https://sqlite.org/cksumvfs.html.
func Checksum(page *[PageSize]byte) (sum [8]byte) {
	var a, b uint32
	for at := 0; at < UsableSize; at += 8 {
		a += binary.LittleEndian.Uint32(page[at:]) + b
		b += binary.LittleEndian.Uint32(page[at+4:]) + a
	}
	binary.LittleEndian.PutUint32(sum[:], a)
	binary.LittleEndian.PutUint32(sum[4:], b)
	return sum
}

// varint reads a varint of SQLite: big-endian, 7 bits a byte, and all 8 bits of the
// ninth byte.
func varint(b []byte) (v uint64, rest []byte, ok bool) {
	for i := 0; i < len(b) && i < 9; i++ {
		if i == 8 {
			return v<<8 | uint64(b[i]), b[9:], true
		}
		v = v<<7 | uint64(b[i]&0x7f)
		if b[i] < 0x80 {
			return v, b[i+1:], true
		}
	}
	return 0, nil, false
}
