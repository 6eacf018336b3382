package arrow

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

var errData = errors.New("damaged: a value is outside of its data")

// array has the values of a field.
type array struct {
	f        *field
	name     []byte // of the field, as CBOR
	length   int64
	validity []byte // bits; nil if all values are there
	offsets  []byte
	data     []byte
	sizes    []byte   // of views of lists
	more     [][]byte // data of views
	children []*array
	values   *array // of a dictionary
	before   *array // an earlier part of a dictionary
}

// batchReader takes the arrays of a batch one after another.
type batchReader struct {
	s       *stream
	body    []byte
	meta    table
	nodes   int // place of the next node
	left    int // nodes left
	buffers int
	bufs    int // buffers left
	views   int
	counts  int
	codec   int // -1 = none
	size    int // decompressed bytes so far
}

// arrays returns the arrays of a batch, and the number of its rows.
func (s *stream) arrays(t table, body []byte, fields []*field) ([]*array, int64, error) {
	r := &batchReader{s: s, body: body, meta: t, codec: -1}
	r.nodes, r.left = t.vector(1, 16)
	r.buffers, r.bufs = t.vector(2, 16)
	r.views, r.counts = t.vector(4, 8)
	if c, ok := t.tableAt(3); ok {
		if r.codec = int(c.byteAt(0, 0)); r.codec > 1 {
			return nil, 0, errMetadata
		}
	}
	count := t.longAt(0)
	var all []*array
	for _, f := range fields {
		a, err := r.array(f)
		if err != nil {
			return nil, 0, err
		}
		if a.length < count {
			return nil, 0, errMetadata
		}
		all = append(all, a)
	}
	if t.bad || count < 0 {
		return nil, 0, errMetadata
	}
	return all, count, nil
}

func (r *batchReader) array(f *field) (*array, error) {
	if r.left == 0 {
		return nil, errMetadata
	}
	a := &array{f: f, name: f.key, length: r.meta.i64(r.nodes)}
	nulls := r.meta.i64(r.nodes + 8)
	r.nodes, r.left = r.nodes+16, r.left-1
	if a.length < 0 || r.meta.bad {
		return nil, errMetadata
	}
	if f.dictionary {
		a.f, a.values = f.index, r.s.dictionaries[f.id]
		if a.values == nil && a.length > nulls {
			return nil, errors.New("a dictionary is missing before the rows that use it: not supported")
		}
		if a.values == nil { // only nulls
			a.values = &array{f: &field{kind: null}}
		}
	}
	if err := r.fill(a, nulls); err != nil {
		return nil, err
	}
	if f.dictionary {
		return a, nil
	}
	for _, child := range f.children {
		c, err := r.array(child)
		if err != nil {
			return nil, err
		}
		a.children = append(a.children, c)
	}
	return a, nil
}

// fill reads the buffers of an array.
func (r *batchReader) fill(a *array, nulls int64) (err error) {
	kind := a.f.kind
	if kind == null || kind == runs {
		return nil
	}
	if kind != union {
		if a.validity, err = r.buffer(); err != nil {
			return err
		}
		if nulls == 0 || len(a.validity) == 0 {
			a.validity = nil
		}
	}
	var want []*[]byte
	switch kind {
	case record, fixedList:
	case list, largeList, mapping:
		want = []*[]byte{&a.offsets}
	case listView, largeListView:
		want = []*[]byte{&a.offsets, &a.sizes}
	case binary_, utf8, largeBinary, largeUTF8:
		want = []*[]byte{&a.offsets, &a.data}
	case union:
		if want = []*[]byte{&a.data}; a.f.dense {
			want = append(want, &a.offsets)
		}
	default:
		want = []*[]byte{&a.data}
	}
	for _, to := range want {
		if *to, err = r.buffer(); err != nil {
			return err
		}
	}
	if kind == binaryView || kind == utf8View {
		return r.variadic(a)
	}
	return nil
}

// variadic reads the data of views.
func (r *batchReader) variadic(a *array) error {
	if r.counts == 0 {
		return errMetadata
	}
	n := r.meta.i64(r.views)
	if r.views, r.counts = r.views+8, r.counts-1; n < 0 || n > int64(r.bufs) {
		return errMetadata
	}
	for range n {
		b, err := r.buffer()
		if err != nil {
			return err
		}
		a.more = append(a.more, b)
	}
	return nil
}

// buffer returns the next buffer.
func (r *batchReader) buffer() ([]byte, error) {
	if r.bufs == 0 {
		return nil, errMetadata
	}
	at, n := r.meta.i64(r.buffers), r.meta.i64(r.buffers+8)
	r.buffers, r.bufs = r.buffers+16, r.bufs-1
	if at < 0 || n < 0 || n > int64(len(r.body)) || at > int64(len(r.body))-n {
		return nil, errMetadata
	}
	b := r.body[at : at+n]
	if r.codec < 0 || len(b) == 0 {
		return b, nil
	}
	return r.decompress(b)
}

var errCompressed = errors.New("damaged: compressed data of a batch is invalid")

func (r *batchReader) decompress(b []byte) ([]byte, error) {
	if len(b) < 8 {
		return nil, errCompressed
	}
	size := int64(binary.LittleEndian.Uint64(b))
	b = b[8:]
	if size == -1 { // not compressed
		return b, nil
	}
	if size < 0 || size > int64(maxBody-r.size) {
		return nil, errors.New("a batch is too large after decompression: write smaller batches")
	}
	var from io.Reader = lz4.NewReader(bytes.NewReader(b))
	if r.codec == 1 {
		z, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, errCompressed
		}
		defer z.Close()
		from = z
	}
	var content bytes.Buffer
	n, err := content.ReadFrom(io.LimitReader(from, size+1))
	if r.size += int(n); err != nil || n != size {
		return nil, errCompressed
	}
	return content.Bytes(), nil
}

// isNull reports whether a value is not there.
func (a *array) isNull(i int64) (bool, error) {
	if a.validity == nil {
		return false, nil
	}
	if i/8 >= int64(len(a.validity)) {
		return false, errData
	}
	return a.validity[i/8]>>(i%8)&1 == 0, nil
}

// fixed returns the bytes of a value of fixed size.
func fixed(b []byte, i, width int64) ([]byte, error) {
	if i < 0 || width < 0 || width > 0 && i > (int64(len(b))-width)/width || width > int64(len(b)) && width > 0 {
		return nil, errData
	}
	return b[i*width : (i+1)*width], nil
}

// number returns a number of 4 or 8 bytes.
func number(b []byte, i, width int64) (int64, error) {
	v, err := fixed(b, i, width)
	if err != nil {
		return 0, err
	}
	if width == 4 {
		return int64(int32(binary.LittleEndian.Uint32(v))), nil
	}
	return int64(binary.LittleEndian.Uint64(v)), nil
}

// span returns the start and the end of a value in other data of some length.
func (a *array) span(i, width, length int64) (lo, hi int64, err error) {
	if len(a.offsets) == 0 { // of no value
		return 0, 0, errData
	}
	lo, err = number(a.offsets, i, width)
	if err == nil {
		hi, err = number(a.offsets, i+1, width)
	}
	if err == nil && (lo < 0 || hi < lo || hi > length) {
		err = errData
	}
	return lo, hi, err
}
