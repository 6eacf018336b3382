package notation

import (
	"bytes"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// AppendExact appends the JSON from which [ParseExact] makes the same bytes. An
// item that JSON can represent, with the shortest heads and floats, is written as
// such; any other item, also within arrays and maps, is {"hex": its bytes}.
func AppendExact(dst, item []byte) []byte {
	x := exactWriter{dst: dst, reader: reader{rest: item}}
	x.item()
	return x.dst
}

type exactWriter struct {
	reader
	dst []byte
}

func (x *exactWriter) item() {
	first := x.rest
	h := x.head()
	simple := h.Major == abi.MajorSimple
	switch {
	case !simple && !isShortest(h):
		x.hex(first)
	case h.Major == abi.MajorUint:
		x.dst = strconv.AppendUint(x.dst, h.Arg, 10)
	case h.Major == abi.MajorNegint:
		n := new(big.Int).SetUint64(h.Arg)
		x.dst = append(x.dst, n.Not(n).String()...)
	case h.Major == abi.MajorText && utf8.Valid(x.rest[:h.Arg]):
		x.dst = AppendQuoted(x.dst, string(x.bytes(h)))
	case h.Major == abi.MajorArray:
		x.array(h.Arg)
	case h.Major == abi.MajorMap && textKeys(x.rest, h.Arg):
		x.object(h.Arg)
	case simple && x.simple(first[:h.Size]):
	default:
		x.hex(first)
	}
}

// isShortest reports whether a head is encoded as AppendHead does it.
func isShortest(h abi.Head) bool {
	return !h.Indefinite && len(abi.AppendHead(make([]byte, 0, 9), h.Major, h.Arg)) == h.Size
}

func (x *exactWriter) array(n uint64) {
	x.dst = append(x.dst, '[')
	for i := range n {
		if i > 0 {
			x.dst = append(x.dst, ", "...)
		}
		x.item()
	}
	x.dst = append(x.dst, ']')
}

func (x *exactWriter) object(n uint64) {
	x.dst = append(x.dst, '{')
	for i := range n {
		if i > 0 {
			x.dst = append(x.dst, ", "...)
		}
		x.item()
		x.dst = append(x.dst, ": "...)
		x.item()
	}
	x.dst = append(x.dst, '}')
}

// textKeys reports whether the keys of n pairs are distinct texts that a JSON
// object can have, and cannot be taken for hex.
func textKeys(pairs []byte, n uint64) bool {
	r := reader{rest: pairs}
	var all [][]byte
	keys := keySet{all: &all}
	for range n {
		h := r.head()
		if h.Major != abi.MajorText || !isShortest(h) {
			return false
		}
		key := r.bytes(h)
		if !utf8.Valid(key) || n == 1 && string(key) == hexKey && r.rest[0]>>5 == abi.MajorText || !keys.add(key) {
			return false
		}
		r.item()
	}
	return true
}

// simple writes a simple value or a float. It returns false if JSON cannot
// represent it.
func (x *exactWriter) simple(item []byte) bool {
	switch item[0] {
	case 0xf4:
		x.dst = append(x.dst, "false"...)
	case 0xf5:
		x.dst = append(x.dst, "true"...)
	case 0xf6:
		x.dst = append(x.dst, "null"...)
	case 0xf9, 0xfa, 0xfb:
		return x.float(item)
	default:
		return false
	}
	return true
}

// float writes a float if it is finite and encoded in the shortest form of its
// value.
func (x *exactWriter) float(item []byte) bool {
	var f float64
	if cbor.Unmarshal(item, &f) != nil || math.IsNaN(f) || math.IsInf(f, 0) || !bytes.Equal(AppendFloat(nil, f), item) {
		return false
	}
	text := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(text, ".e") {
		text += ".0"
	}
	x.dst = append(x.dst, text...)
	return true
}

// hex writes the item at the start of first.
func (x *exactWriter) hex(first []byte) {
	x.rest = first
	x.dst = fmt.Appendf(x.dst, `{"%s": "%x"}`, hexKey, x.reader.item())
}
