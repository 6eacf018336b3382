package arrow

import "encoding/binary"

// flat reads FlatBuffers. A place outside of the bytes gives zeros and sets bad, which
// is looked at once, at the end: the generated readers of the format panic instead.
type flat struct {
	b   []byte
	bad bool
}

func (f *flat) bytes(at, n int) []byte {
	if at < 0 || n < 0 || at > len(f.b)-n {
		f.bad = true
		return nil
	}
	return f.b[at : at+n]
}

func (f *flat) u8(at int) byte {
	if b := f.bytes(at, 1); b != nil {
		return b[0]
	}
	return 0
}

func (f *flat) u16(at int) int {
	if b := f.bytes(at, 2); b != nil {
		return int(binary.LittleEndian.Uint16(b))
	}
	return 0
}

func (f *flat) i32(at int) int {
	if b := f.bytes(at, 4); b != nil {
		return int(int32(binary.LittleEndian.Uint32(b)))
	}
	return 0
}

func (f *flat) i64(at int) int64 {
	if b := f.bytes(at, 8); b != nil {
		return int64(binary.LittleEndian.Uint64(b))
	}
	return 0
}

// table is a table in f.
type table struct {
	*flat
	at int
}

func (f *flat) root() table { return table{f, f.i32(0)} }

// slot returns the place of a field, 0 if it is not there. Fields count from 0.
func (t table) slot(n int) int {
	v := t.at - t.i32(t.at)
	if off := 4 + 2*n; off < t.u16(v) {
		if o := t.u16(v + off); o != 0 {
			return t.at + o
		}
	}
	return 0
}

func (t table) byteAt(n int, absent byte) byte {
	if at := t.slot(n); at != 0 {
		return t.u8(at)
	}
	return absent
}

func (t table) shortAt(n int, absent int) int {
	if at := t.slot(n); at != 0 {
		return int(int16(t.u16(at)))
	}
	return absent
}

func (t table) intAt(n, absent int) int {
	if at := t.slot(n); at != 0 {
		return t.i32(at)
	}
	return absent
}

func (t table) longAt(n int) int64 {
	if at := t.slot(n); at != 0 {
		return t.i64(at)
	}
	return 0
}

// tableAt returns a table of a field.
func (t table) tableAt(n int) (table, bool) {
	at := t.slot(n)
	return table{t.flat, at + t.i32(at)}, at != 0
}

// vector returns the place of the first element of a field, and their number, if that
// many of a size fit.
func (t table) vector(n, size int) (first, count int) {
	at := t.slot(n)
	if at == 0 {
		return 0, 0
	}
	at += t.i32(at)
	count = t.i32(at)
	if count < 0 || count > len(t.b)/size {
		t.bad = true
		return 0, 0
	}
	t.bytes(at+4, count*size)
	return at + 4, count
}

func (t table) text(n int) string {
	at, count := t.vector(n, 1)
	return string(t.bytes(at, count))
}

// tables calls f with the tables of a field.
func (t table) tables(n int, f func(table) error) error {
	first, count := t.vector(n, 4)
	for i := range count {
		at := first + 4*i
		if t.bad {
			return errMetadata
		}
		if err := f(table{t.flat, at + t.i32(at)}); err != nil {
			return err
		}
	}
	return nil
}
