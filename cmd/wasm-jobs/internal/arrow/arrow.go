// Package arrow reads the rows of Apache Arrow IPC streams and files as CBOR. A file is
// read from its start, as the stream that it has inside.
//
// The reader is ours, because files are hostile: every place is checked before it is
// read, and no length that a file states decides an allocation. It holds one batch of
// rows, and the dictionaries.
package arrow

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Limits, in bytes.
const (
	maxMetadata = 64 << 20
	maxBody     = 1 << 30 // of a batch, also after decompression
)

// Errors of [Rows].
var (
	// ErrNot is returned for data that is not of the format.
	ErrNot = errors.New("not an Arrow IPC stream or file")
	// ErrTooLarge is returned if a row has more bytes than it may have.
	ErrTooLarge = errors.New("row too large")
	// ErrUnsupported is wrapped by errors about data that is well-formed.
	ErrUnsupported = errors.New("not supported")
)

var (
	magic        = []byte("ARROW1\x00\x00")
	errTruncated = errors.New("truncated: it ends within a message; copy or download it again")
)

// Options are the options of [Rows].
type Options struct {
	Columns []string // columns to keep; none = all
	MaxRow  int      // limit of the bytes of a row
}

// Rows yields the rows of a stream or file, each a map with the names of the columns in
// their order. A row is valid until the next one. After an error the rows end.
func Rows(r io.Reader, o Options) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		s := &stream{r: &tail{r: r}, o: o, dictionaries: map[int64]*array{}}
		err := s.begin()
		for err == nil {
			var more bool
			if more, err = s.message(yield); !more {
				break
			}
		}
		if err == nil && !s.stopped {
			err = s.end()
		}
		if err != nil && !s.stopped {
			yield(nil, err)
		}
	}
}

// tail keeps the last bytes that were read.
type tail struct {
	r    io.Reader
	last [8]byte
}

func (t *tail) Read(b []byte) (int, error) {
	n, err := t.r.Read(b)
	all := append(t.last[:], b[:n]...)
	copy(t.last[:], all[len(all)-8:])
	return n, err
}

// stream is a stream of messages.
type stream struct {
	r            *tail
	o            Options
	file         bool // with the magic and a footer
	first        []byte
	fields       []*field
	kept         []*field
	dictionaries map[int64]*array
	row          int // rows so far
	stopped      bool
}

// begin looks at the first bytes.
func (s *stream) begin() error {
	var b [8]byte
	n, err := io.ReadFull(s.r, b[:])
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return ErrNot
	}
	if err != nil {
		return err
	}
	if s.file = bytes.Equal(b[:], magic); !s.file {
		s.first = b[:n]
	}
	return nil
}

// end checks that a file is whole. A stream may just end.
func (s *stream) end() error {
	if s.fields == nil {
		return ErrNot
	}
	if !s.file {
		return nil
	}
	if _, err := io.Copy(io.Discard, s.r); err != nil {
		return err
	}
	if !bytes.Equal(s.r.last[2:], magic[:6]) {
		return errTruncated
	}
	return nil
}

// read reads n bytes, which grow with the data.
func (s *stream) read(n int64) ([]byte, error) {
	var b bytes.Buffer
	m, err := io.Copy(&b, io.LimitReader(io.MultiReader(bytes.NewReader(s.first), s.r), n))
	s.first = s.first[min(int(m), len(s.first)):]
	if err == nil && m < n {
		err = errTruncated
	}
	return b.Bytes(), err
}

// size reads the size of the next metadata. It is 0 at the end of the stream.
func (s *stream) size() (int64, error) {
	b, err := s.read(4)
	if err == errTruncated && len(b) == 0 && s.fields != nil && !s.file {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n := binary.LittleEndian.Uint32(b)
	if n == 0xffffffff { // the mark that newer writers put before the size
		if b, err = s.read(4); err != nil {
			return 0, err
		}
		n = binary.LittleEndian.Uint32(b)
	}
	if n > maxMetadata {
		if s.fields == nil {
			return 0, ErrNot
		}
		return 0, errMetadata
	}
	return int64(n), nil
}

// message reads the next message, and reports whether more may follow.
func (s *stream) message(yield func([]byte, error) bool) (more bool, err error) {
	n, err := s.size()
	if n == 0 || err != nil {
		return false, err
	}
	meta, err := s.read(n)
	if err != nil {
		return false, s.early(err)
	}
	f := &flat{b: meta}
	m := f.root()
	version, kind, size := m.shortAt(0, 0), m.byteAt(1, 0), m.longAt(3)
	header, ok := m.tableAt(2)
	switch {
	case f.bad || !ok || size < 0:
		return false, s.early(errMetadata)
	case version < 3:
		return false, fmt.Errorf("version %d of the format: %w", version+1, ErrUnsupported)
	case size > maxBody:
		return false, fmt.Errorf("a batch of %d bytes is too large: want at most %d; write smaller batches", size, maxBody)
	}
	body, err := s.read(size)
	if err != nil {
		return false, err
	}
	err = s.handle(kind, header, body, yield)
	return err == nil && !s.stopped, err
}

// early returns an error; before the schema, data is not of the format.
func (s *stream) early(err error) error {
	if s.fields == nil && (err == errMetadata || err == errTruncated) && !s.file {
		return ErrNot
	}
	return err
}

// The kinds of messages.
const (
	schemaMessage, dictionaryMessage, rowsMessage = 1, 2, 3
)

func (s *stream) handle(kind byte, t table, body []byte, yield func([]byte, error) bool) error {
	switch {
	case kind == schemaMessage && s.fields == nil:
		return s.schema(t)
	case s.fields == nil:
		return ErrNot
	case kind == dictionaryMessage:
		return s.dictionary(t, body)
	case kind == rowsMessage:
		return s.rows(t, body, yield)
	}
	return errMetadata
}

func (s *stream) schema(t table) (err error) {
	if s.fields, err = readSchema(t); err != nil {
		return err
	}
	if len(s.fields) == 0 {
		return errors.New("no columns")
	}
	names := map[string]bool{}
	for _, f := range s.fields {
		if names[f.name] {
			return fmt.Errorf("duplicate column %.64q", f.name)
		}
		if names[f.name] = true; len(s.o.Columns) == 0 || slices.Contains(s.o.Columns, f.name) {
			s.kept = append(s.kept, f)
		}
	}
	for _, name := range s.o.Columns {
		if !names[name] {
			return errors.New("missing column " + strconv.Quote(name))
		}
	}
	return nil
}

// find returns the field whose dictionary has an id.
func find(fields []*field, id int64) *field {
	for _, f := range fields {
		if f.dictionary && f.id == id {
			return f
		}
		if found := find(f.children, id); found != nil {
			return found
		}
	}
	return nil
}

func (s *stream) dictionary(t table, body []byte) error {
	id := t.longAt(0)
	batch, ok := t.tableAt(1)
	f := find(s.fields, id)
	if !ok || f == nil || t.bad {
		return errMetadata
	}
	values := *f
	values.dictionary = false
	arrays, _, err := s.arrays(batch, body, []*field{&values})
	if err != nil {
		return err
	}
	next := arrays[0]
	if t.byteAt(2, 0) != 0 && s.dictionaries[id] != nil {
		next.before = s.dictionaries[id]
	}
	s.dictionaries[id] = next
	return nil
}

// rows yields the rows of a batch.
func (s *stream) rows(t table, body []byte, yield func([]byte, error) bool) error {
	arrays, count, err := s.arrays(t, body, s.fields)
	if err != nil {
		return err
	}
	w := &writer{limit: s.o.MaxRow}
	for i := range count {
		s.row++
		w.b = abi.AppendHead(w.b[:0], abi.MajorMap, uint64(len(s.kept)))
		for c, f := range s.fields {
			if !slices.Contains(s.kept, f) {
				continue
			}
			w.b = append(w.b, f.key...)
			if err := w.value(arrays[c], i); err != nil {
				return fmt.Errorf("row %d: column %.64q: %w", s.row, f.name, err)
			}
		}
		if s.stopped = !yield(w.b, nil); s.stopped {
			return nil
		}
	}
	return nil
}
