package arrow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/x448/float16"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/typed"
)

// writer appends values as CBOR.
type writer struct {
	b     []byte
	limit int
	depth int
}

var units = []time.Duration{time.Second, time.Millisecond, time.Microsecond, time.Nanosecond}

// value appends the i-th value of an array.
func (w *writer) value(a *array, i int64) error {
	if i < 0 || i >= a.length {
		return errData
	}
	if len(w.b) > w.limit {
		return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, w.limit)
	}
	if w.depth > 4*maxNesting { // dictionaries of dictionaries
		return errData
	}
	w.depth++
	defer func() { w.depth-- }()
	missing, err := a.isNull(i)
	switch {
	case err != nil:
		return err
	case missing || a.f.kind == null && a.values == nil:
		w.b = append(w.b, typed.Null)
		return nil
	case a.values != nil:
		return w.indexed(a, i)
	}
	switch a.f.kind {
	case boolean:
		return w.bit(a, i)
	case binary_, utf8, largeBinary, largeUTF8:
		return w.bytes(a, i)
	case binaryView, utf8View:
		return w.view(a, i)
	case list, largeList, mapping, fixedList, listView, largeListView:
		return w.list(a, i)
	case record:
		return w.fields(a, i)
	case union:
		return w.union(a, i)
	case runs:
		return w.run(a, i)
	}
	v, err := fixed(a.data, i, int64(a.f.width))
	if err != nil {
		return err
	}
	w.b, err = fixedValue(w.b, a.f, v)
	return err
}

// indexed appends a value of a dictionary.
func (w *writer) indexed(a *array, i int64) error {
	v, err := fixed(a.data, i, int64(a.f.width))
	if err != nil {
		return err
	}
	at := integerOf(v, a.f.signed)
	parts := []*array{}
	for p := a.values; p != nil; p = p.before {
		parts = append(parts, p)
	}
	slices.Reverse(parts)
	for _, p := range parts {
		if at < p.length {
			return w.value(p, at)
		}
		at -= p.length
	}
	return errData
}

func (w *writer) bit(a *array, i int64) error {
	if i/8 >= int64(len(a.data)) {
		return errData
	}
	w.b = typed.Bool(w.b, a.data[i/8]>>(i%8)&1 == 1)
	return nil
}

// wide returns the bytes of an offset.
func wide(k kind) int64 {
	switch k {
	case largeBinary, largeUTF8, largeList, largeListView:
		return 8
	}
	return 4
}

func (w *writer) bytes(a *array, i int64) error {
	lo, hi, err := a.span(i, wide(a.f.kind), int64(len(a.data)))
	if err != nil {
		return err
	}
	return w.text(a.f.kind == utf8 || a.f.kind == largeUTF8, a.data[lo:hi])
}

func (w *writer) text(isText bool, b []byte) (err error) {
	if len(b) > w.limit {
		return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, w.limit)
	}
	if isText {
		w.b, err = typed.Text(w.b, b)
		return err
	}
	w.b = typed.Bytes(w.b, b)
	return nil
}

// view appends a value whose first bytes are in the view, or all.
func (w *writer) view(a *array, i int64) error {
	v, err := fixed(a.data, i, 16)
	if err != nil {
		return err
	}
	isText := a.f.kind == utf8View
	n := int64(int32(binary.LittleEndian.Uint32(v)))
	if n >= 0 && n <= 12 {
		return w.text(isText, v[4:4+n])
	}
	buffer, at := int64(int32(binary.LittleEndian.Uint32(v[8:]))), int64(int32(binary.LittleEndian.Uint32(v[12:])))
	if n < 0 || buffer < 0 || at < 0 || buffer >= int64(len(a.more)) || at > int64(len(a.more[buffer]))-n {
		return errData
	}
	return w.text(isText, a.more[buffer][at:at+n])
}

// listSpan returns the elements of a list.
func (a *array) listSpan(i int64) (lo, hi int64, err error) {
	length := a.children[0].length
	switch a.f.kind {
	case fixedList:
		width := int64(a.f.width)
		if width > 0 && i > (length-width)/width || width > length {
			return 0, 0, errData
		}
		return i * width, (i + 1) * width, nil
	case listView, largeListView:
		if lo, err = number(a.offsets, i, wide(a.f.kind)); err == nil {
			hi, err = number(a.sizes, i, wide(a.f.kind))
		}
		if err == nil && (lo < 0 || hi < 0 || hi > length || lo > length-hi) {
			err = errData
		}
		return lo, lo + hi, err
	}
	return a.span(i, wide(a.f.kind), length)
}

var errKeys = errors.New("duplicate key in a map")

func (w *writer) list(a *array, i int64) error {
	lo, hi, err := a.listSpan(i)
	if err != nil {
		return err
	}
	if a.f.kind == mapping {
		return w.pairs(a.children[0], lo, hi)
	}
	w.b = abi.AppendHead(w.b, abi.MajorArray, uint64(hi-lo))
	for j := lo; j < hi; j++ {
		if err := w.value(a.children[0], j); err != nil {
			return err
		}
	}
	return nil
}

// pairs appends entries of keys and values as a map.
func (w *writer) pairs(entries *array, lo, hi int64) error {
	w.b = abi.AppendHead(w.b, abi.MajorMap, uint64(hi-lo))
	keys := map[string]bool{}
	for j := lo; j < hi; j++ {
		start := len(w.b)
		if err := w.value(entries.children[0], j); err != nil {
			return err
		}
		key := string(w.b[start:])
		if keys[key] {
			return errKeys
		}
		keys[key] = true
		if err := w.value(entries.children[1], j); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) fields(a *array, i int64) error {
	w.b = abi.AppendHead(w.b, abi.MajorMap, uint64(len(a.children)))
	for _, child := range a.children {
		w.b = append(w.b, child.name...)
		if err := w.value(child, i); err != nil {
			return err
		}
	}
	return nil
}

// union appends the value of one of several arrays.
func (w *writer) union(a *array, i int64) error {
	if i >= int64(len(a.data)) {
		return errData
	}
	id := int(int8(a.data[i]))
	if len(a.f.typeIDs) > 0 {
		id = slices.Index(a.f.typeIDs, id)
	}
	if id < 0 || id >= len(a.children) {
		return errData
	}
	if !a.f.dense {
		return w.value(a.children[id], i)
	}
	at, err := number(a.offsets, i, 4)
	if err != nil {
		return err
	}
	return w.value(a.children[id], at)
}

// run appends the value of a run; the first array has the ends of runs.
func (w *writer) run(a *array, i int64) error {
	ends, bad := a.children[0], error(nil)
	n := sort.Search(int(min(ends.length, math.MaxInt32)), func(n int) bool {
		v, err := fixed(ends.data, int64(n), int64(ends.f.width))
		if err != nil {
			bad = err
			return true
		}
		return integerOf(v, true) > i
	})
	if bad != nil {
		return bad
	}
	return w.value(a.children[1], int64(n))
}

// integerOf returns an integer of 1 to 8 bytes.
func integerOf(v []byte, signed bool) int64 {
	var b [8]byte
	if signed && v[len(v)-1]&0x80 != 0 {
		b = [8]byte{255, 255, 255, 255, 255, 255, 255, 255}
	}
	copy(b[:], v)
	return int64(binary.LittleEndian.Uint64(b[:]))
}

// fixedValue appends a value of fixed size.
func fixedValue(dst []byte, f *field, v []byte) ([]byte, error) {
	switch f.kind {
	case integer:
		if !f.signed {
			return typed.Uint(dst, uint64(integerOf(v, false))), nil
		}
		return typed.Int(dst, integerOf(v, true)), nil
	case float:
		return typed.Float(dst, floatOf(v)), nil
	case decimal:
		v = slices.Clone(v)
		slices.Reverse(v)
		return typed.Decimal(dst, typed.BigEndian(v), f.scale)
	case date:
		if f.unit == 1 { // milliseconds
			return typed.Date(dst, floorDiv(integerOf(v, true), 24*60*60*1000)), nil
		}
		return typed.Date(dst, integerOf(v, true)), nil
	case clock:
		return typed.Clock(dst, integerOf(v, true), units[f.unit], false), nil
	case timestamp:
		return typed.Timestamp(dst, integerOf(v, true), units[f.unit], f.utc), nil
	case duration:
		return abi.AppendText(dst, durationText(integerOf(v, true), f.unit)), nil
	case interval:
		return intervalOf(dst, f.unit, v), nil
	}
	if f.uuid {
		return typed.UUID(dst, v), nil
	}
	return typed.Bytes(dst, v), nil
}

func floatOf(v []byte) float64 {
	switch len(v) {
	case 2:
		return float64(float16.Frombits(binary.LittleEndian.Uint16(v)).Float32())
	case 4:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(v)))
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(v))
}

func floorDiv(n, by int64) int64 {
	if q := n / by; n%by >= 0 {
		return q
	}
	return n/by - 1
}

// durationText returns seconds as in ISO 8601: PT1.5S.
func durationText(n int64, unit int) string {
	perSecond := int64(time.Second / units[unit])
	sign, whole, part := "", n/perSecond, n%perSecond
	if n < 0 {
		sign, whole, part = "-", -whole, -part
	}
	text := strings.TrimPrefix(fmt.Sprint(uint64(whole)), "-") // the least of all has no positive
	if part != 0 {
		text += "." + strings.TrimRight(fmt.Sprintf("%0*d", 3*unit, part), "0")
	}
	return sign + "PT" + text + "S"
}

func intervalOf(dst []byte, unit int, v []byte) []byte {
	switch unit {
	case 0:
		return typed.Interval(dst, integerOf(v, true), 0, 0)
	case 1:
		return typed.Interval(dst, 0, integerOf(v[:4], true), integerOf(v[4:], true)*int64(time.Millisecond))
	}
	return typed.Interval(dst, integerOf(v[:4], true), integerOf(v[4:8], true), integerOf(v[8:], true))
}
