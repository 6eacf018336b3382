package parquet

import (
	"encoding/binary"
	"errors"
	"math"
)

// Decoders of values read one value at a time and hold nothing but the page: the counts
// that a page states decide no allocation.

var (
	errPage  = errors.New("damaged: a page ends within a value")
	errRun   = errors.New("damaged: invalid run of values")
	errDelta = errors.New("damaged: invalid block of differences")
	errIndex = errors.New("damaged: a value is not in the dictionary")
)

// values yields values as the plain encoding has them, each valid until the next.
type values interface {
	next() ([]byte, error)
}

// bitsAt returns width bits, at most 64, from a bit of b on. Bits after the end of b are
// reported as not there.
func bitsAt(b []byte, bit uint64, width uint) (n uint64, ok bool) {
	if bit+uint64(width) > 8*uint64(len(b)) {
		return 0, false
	}
	at, shift := bit/8, uint(bit%8)
	var window [9]byte
	copy(window[:], b[at:])
	n = binary.LittleEndian.Uint64(window[:]) >> shift
	if shift+width > 64 {
		n |= uint64(window[8]) << (64 - shift)
	}
	if width < 64 {
		n &= 1<<width - 1
	}
	return n, true
}

// hybrid reads runs of repeated and of packed numbers.
type hybrid struct {
	b      []byte
	width  uint // bits of a number, at most 32
	left   uint64
	packed []byte // nil in a run of one number
	bit    uint64
	number uint32
}

func (h *hybrid) next() (uint32, error) {
	for h.left == 0 {
		if err := h.run(); err != nil {
			return 0, err
		}
	}
	h.left--
	if h.packed == nil {
		return h.number, nil
	}
	n, ok := bitsAt(h.packed, h.bit, h.width)
	h.bit += uint64(h.width)
	if !ok {
		return 0, errPage
	}
	return uint32(n), nil
}

func (h *hybrid) run() error {
	head, size := binary.Uvarint(h.b)
	if size <= 0 {
		return errPage
	}
	h.b = h.b[size:]
	count := head >> 1
	if count > math.MaxInt32 {
		return errRun
	}
	if head&1 == 1 {
		n := min(count*uint64(h.width), uint64(len(h.b))) // writers may cut the last run
		h.left, h.bit, h.packed, h.b = 8*count, 0, h.b[:n:n], h.b[n:]
		if h.packed == nil {
			h.packed = []byte{}
		}
		return nil
	}
	n := int(h.width+7) / 8
	if n > len(h.b) {
		return errPage
	}
	var number [4]byte
	copy(number[:], h.b[:n])
	h.left, h.packed, h.number, h.b = count, nil, binary.LittleEndian.Uint32(number[:]), h.b[n:]
	return nil
}

// plain has values of a fixed number of bytes.
type plain struct {
	b     []byte
	width int
}

func (p *plain) next() ([]byte, error) {
	if len(p.b) < p.width {
		return nil, errPage
	}
	v := p.b[:p.width]
	p.b = p.b[p.width:]
	return v, nil
}

// plainBytes has byte arrays after their lengths.
type plainBytes struct{ b []byte }

func (p *plainBytes) next() ([]byte, error) {
	if len(p.b) < 4 {
		return nil, errPage
	}
	n := binary.LittleEndian.Uint32(p.b)
	p.b = p.b[4:]
	if uint64(n) > uint64(len(p.b)) {
		return nil, errPage
	}
	v := p.b[:n]
	p.b = p.b[n:]
	return v, nil
}

var truth = [2][]byte{{0}, {1}}

// plainBools has a bit for a value.
type plainBools struct {
	b   []byte
	bit uint64
}

func (p *plainBools) next() ([]byte, error) {
	n, ok := bitsAt(p.b, p.bit, 1)
	if p.bit++; !ok {
		return nil, errPage
	}
	return truth[n], nil
}

// hybridBools has runs of bits.
type hybridBools struct{ h hybrid }

func newHybridBools(b []byte) (*hybridBools, error) {
	if len(b) < 4 || uint64(binary.LittleEndian.Uint32(b)) > uint64(len(b)-4) {
		return nil, errPage
	}
	return &hybridBools{hybrid{b: b[4 : 4+binary.LittleEndian.Uint32(b)], width: 1}}, nil
}

func (p *hybridBools) next() ([]byte, error) {
	n, err := p.h.next()
	return truth[n&1], err
}

// dictionary has the values of a column that pages have indices of.
type dictionary struct {
	b      []byte
	width  int      // of values of fixed size
	starts []uint32 // of other values
}

func newDictionary(b []byte, width, count int) (*dictionary, error) {
	d := &dictionary{b: b, width: width}
	if width > 0 {
		if count < 0 || count > len(b)/width {
			return nil, errPage
		}
		d.b = b[:count*width]
		return d, nil
	}
	if count < 0 || count > len(b)/4 {
		return nil, errPage
	}
	p := &plainBytes{b}
	d.starts = make([]uint32, count)
	for i := range d.starts {
		d.starts[i] = uint32(len(b) - len(p.b))
		if _, err := p.next(); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d *dictionary) value(i uint32) ([]byte, error) {
	if d.width > 0 {
		if uint64(i) >= uint64(len(d.b)/d.width) {
			return nil, errIndex
		}
		return d.b[int(i)*d.width:][:d.width], nil
	}
	if uint64(i) >= uint64(len(d.starts)) {
		return nil, errIndex
	}
	return (&plainBytes{d.b[d.starts[i]:]}).next()
}

// indices are values of a dictionary.
type indices struct {
	d *dictionary
	h hybrid
}

func (x *indices) next() ([]byte, error) {
	i, err := x.h.next()
	if err != nil {
		return nil, err
	}
	return x.d.value(i)
}

// delta reads integers as differences in blocks.
type delta struct {
	b      []byte
	block  uint64 // integers in a block
	minis  uint64 // parts of a block, each with a width of its own
	left   uint64
	value  int64
	first  bool
	least  int64  // difference that is added to all of the block
	widths []byte // of the parts of the block that are left
	inMini uint64 // integers left in the part
	packed []byte
	bit    uint64
	width  uint
}

const maxBlock = 1 << 16

func newDelta(b []byte) (*delta, error) {
	d := &delta{b: b, first: true}
	for _, to := range []*uint64{&d.block, &d.minis, &d.left} {
		n, size := binary.Uvarint(d.b)
		if size <= 0 {
			return nil, errPage
		}
		*to, d.b = n, d.b[size:]
	}
	if d.block == 0 || d.block > maxBlock || d.minis == 0 || d.block%d.minis != 0 || d.block/d.minis%8 != 0 {
		return nil, errDelta
	}
	first, size := binary.Varint(d.b)
	if size <= 0 {
		return nil, errPage
	}
	d.value, d.b = first, d.b[size:]
	return d, nil
}

func (d *delta) next() (int64, error) {
	if d.left == 0 {
		return 0, errPage
	}
	d.left--
	if d.first {
		d.first = false
		return d.value, nil
	}
	if d.inMini == 0 {
		if err := d.mini(); err != nil {
			return 0, err
		}
	}
	d.inMini--
	n, ok := bitsAt(d.packed, d.bit, d.width)
	if d.bit += uint64(d.width); !ok {
		return 0, errPage
	}
	d.value += d.least + int64(n)
	return d.value, nil
}

// mini begins the next part of a block.
func (d *delta) mini() error {
	if len(d.widths) == 0 {
		least, size := binary.Varint(d.b)
		if size <= 0 || uint64(len(d.b)-size) < d.minis {
			return errPage
		}
		d.b = d.b[size:]
		d.least, d.widths, d.b = least, d.b[:d.minis], d.b[d.minis:]
	}
	if d.width = uint(d.widths[0]); d.width > 64 {
		return errDelta
	}
	d.widths, d.inMini, d.bit = d.widths[1:], d.block/d.minis, 0
	n := min(d.inMini*uint64(d.width)/8, uint64(len(d.b)))
	d.packed, d.b = d.b[:n], d.b[n:]
	return nil
}

// after returns the bytes that follow all integers. It does not move.
func (d *delta) after() ([]byte, error) {
	c := *d
	for left := max(c.left, 1) - 1; left > 0; left -= min(left, c.inMini) {
		if err := c.mini(); err != nil {
			return nil, err
		}
	}
	return c.b, nil
}

// deltaInts are integers of 4 or 8 bytes.
type deltaInts struct {
	d     *delta
	width int
	buf   [8]byte
}

func (x *deltaInts) next() ([]byte, error) {
	n, err := x.d.next()
	binary.LittleEndian.PutUint64(x.buf[:], uint64(n))
	return x.buf[:x.width], err
}

// deltaLengths are byte arrays, all lengths before all bytes.
type deltaLengths struct {
	lengths *delta
	b       []byte
}

func newDeltaLengths(b []byte) (*deltaLengths, error) {
	d, err := newDelta(b)
	if err != nil {
		return nil, err
	}
	rest, err := d.after()
	return &deltaLengths{d, rest}, err
}

func (x *deltaLengths) next() ([]byte, error) {
	n, err := x.lengths.next()
	if err != nil {
		return nil, err
	}
	if n < 0 || n > int64(len(x.b)) {
		return nil, errPage
	}
	v := x.b[:n]
	x.b = x.b[n:]
	return v, nil
}

// deltaBytes are byte arrays that begin like the one before.
type deltaBytes struct {
	prefixes *delta
	suffixes *deltaLengths
	value    []byte
}

func newDeltaBytes(b []byte) (*deltaBytes, error) {
	d, err := newDelta(b)
	if err != nil {
		return nil, err
	}
	rest, err := d.after()
	if err != nil {
		return nil, err
	}
	suffixes, err := newDeltaLengths(rest)
	return &deltaBytes{prefixes: d, suffixes: suffixes}, err
}

func (x *deltaBytes) next() ([]byte, error) {
	n, err := x.prefixes.next()
	if err != nil {
		return nil, err
	}
	suffix, err := x.suffixes.next()
	if err != nil {
		return nil, err
	}
	if n < 0 || n > int64(len(x.value)) {
		return nil, errPage
	}
	x.value = append(x.value[:n], suffix...)
	return x.value, nil
}

// split has the first bytes of all values, then their second bytes, and so on.
type split struct {
	b     []byte
	at    int
	count int
	buf   []byte
}

func newSplit(b []byte, width int) *split {
	return &split{b: b, count: len(b) / width, buf: make([]byte, width)}
}

func (x *split) next() ([]byte, error) {
	if x.at >= x.count {
		return nil, errPage
	}
	for i := range x.buf {
		x.buf[i] = x.b[i*x.count+x.at]
	}
	x.at++
	return x.buf, nil
}
