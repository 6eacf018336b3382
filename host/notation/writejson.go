package notation

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math"
	"math/big"
	"slices"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/x448/float16"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// errNotUTF8 is the reason why a text cannot be written as JSON or in a table.
var errNotUTF8 = errors.New("a text is not UTF-8")

// WriteJSON writes an item as one line of JSON without a newline, by RFC 8949,
// section 6.1. Byte strings become base64url without padding, values unknown to
// JSON become null, tags are left out, and keys that are not texts become texts of
// their JSON. Numbers, including bignums of up to 1,024 bytes, and the order of
// keys do not change; a float has a point or an exponent.
//
// JSON within a JSON text doubles its backslashes, so that a few bytes of nested
// keys would grow to gigabytes. An array or map that is a key within a key is
// therefore base64url of its CBOR.
//
// The error is a *[FormError] if a text is not UTF-8 or if two keys of a map are
// the same text in JSON, such as 1 and "1"; nothing is written then. Any other
// error comes from w.
func WriteJSON(w *bufio.Writer, item []byte) error {
	if len(item) > maxHeld { // A dry run finds errors before any of it is written.
		if err := writeParts(bufio.NewWriter(io.Discard), item); err != nil {
			return err
		}
		return writeParts(w, item)
	}
	held := lines.Get().(*[]byte)
	defer lines.Put(held)
	j := jsonWriter{dst: (*held)[:0], reader: reader{rest: item}}
	j.item()
	*held = j.dst
	if j.err != nil {
		return &FormError{jsonForm, j.err}
	}
	_, err := w.Write(j.dst)
	return err
}

const (
	// maxHeld is the size in bytes up to which the line of an item is held in
	// memory until it is complete.
	maxHeld = 1 << 20
	// partSize is the size of the parts of a longer line that are held.
	partSize = 64 << 10
)

// lines are buffers for lines.
var lines = sync.Pool{New: func() any { return new([]byte) }}

// writeParts writes the line of an item in parts.
func writeParts(w *bufio.Writer, item []byte) error {
	j := jsonWriter{out: w, reader: reader{rest: item}}
	j.item()
	if j.err != nil {
		return &FormError{jsonForm, j.err}
	}
	_, err := w.Write(j.dst)
	return err
}

// jsonWriter writes one item.
type jsonWriter struct {
	reader
	dst    []byte        // output that is not in out yet
	out    *bufio.Writer // nil if the whole line is held
	inKey  bool
	hashes []uint64 // of the keys of all open maps, the innermost last
	err    error    // the first error
}

func (j *jsonWriter) item() {
	first := j.rest
	h := j.head()
	switch h.Major {
	case abi.MajorUint:
		j.dst = strconv.AppendUint(j.dst, h.Arg, 10)
	case abi.MajorNegint:
		j.negative(h.Arg)
	case abi.MajorBytes:
		j.quoted(base64.RawURLEncoding.EncodeToString(j.bytes(h)))
	case abi.MajorText:
		j.quoted(j.text(h))
	case abi.MajorArray:
		j.array(h)
	case abi.MajorMap:
		j.object(h, first)
	case abi.MajorTag:
		if !j.bignum(h.Arg) {
			j.item()
		}
	default:
		j.simple(h, first[0])
	}
}

// part writes the held output to out, once there is enough.
func (j *jsonWriter) part() {
	if j.out != nil && len(j.dst) > partSize {
		j.out.Write(j.dst) // writeParts returns the error
		j.dst = j.dst[:0]
	}
}

// text reads the contents of a text.
func (j *jsonWriter) text(h abi.Head) string {
	text := j.bytes(h)
	if !utf8.Valid(text) {
		j.fail(fmt.Errorf("%w: %.64q", errNotUTF8, text))
	}
	return string(text)
}

func (j *jsonWriter) fail(err error) {
	if j.err == nil {
		j.err = err
	}
}

// negative writes -1 - n, which may be beyond 64 bits.
func (j *jsonWriter) negative(n uint64) {
	if n == math.MaxUint64 {
		j.dst = append(j.dst, "-18446744073709551616"...)
		return
	}
	j.dst = strconv.AppendUint(append(j.dst, '-'), n+1, 10)
}

// bignum writes the integer of a bignum (RFC 8949, section 3.4.3). It returns false
// if the tag's content is not a bignum, or too long.
func (j *jsonWriter) bignum(tag uint64) bool {
	if tag != tagBignum && tag != tagNegativeBignum || j.rest[0]>>5 != abi.MajorBytes {
		return false
	}
	inner := reader{rest: j.rest}
	b := inner.bytes(inner.head())
	if len(b) > maxBignum {
		return false
	}
	j.rest = inner.rest
	n := new(big.Int).SetBytes(b)
	if tag == tagNegativeBignum {
		n.Not(n) // -1 - n
	}
	j.dst = append(j.dst, n.String()...)
	return true
}

func (j *jsonWriter) simple(h abi.Head, first byte) {
	switch first & 0x1f {
	case 20:
		j.dst = append(j.dst, "false"...)
	case 21:
		j.dst = append(j.dst, "true"...)
	case 25:
		j.float(float64(float16.Frombits(uint16(h.Arg)).Float32()))
	case 26:
		j.float(float64(math.Float32frombits(uint32(h.Arg))))
	case 27:
		j.float(math.Float64frombits(h.Arg))
	default:
		j.dst = append(j.dst, "null"...)
	}
}

func (j *jsonWriter) float(f float64) {
	b, err := json.Marshal(f)
	if err != nil { // infinities and NaN
		b = []byte("null")
	} else if !bytes.ContainsAny(b, ".e") { // keep it a float when it is read again
		b = append(b, ".0"...)
	}
	j.dst = append(j.dst, b...)
}

func (j *jsonWriter) array(h abi.Head) {
	j.dst = append(j.dst, '[')
	for n := uint64(0); j.err == nil && j.more(h, n); n++ {
		if n > 0 {
			j.dst = append(j.dst, ',')
		}
		j.item()
		j.part()
	}
	j.dst = append(j.dst, ']')
}

// object writes a map; first begins with its first key.
func (j *jsonWriter) object(h abi.Head, first []byte) {
	from := len(j.hashes)
	j.dst = append(j.dst, '{')
	for n := uint64(0); j.err == nil && j.more(h, n); n++ {
		if n > 0 {
			j.dst = append(j.dst, ',')
		}
		key := j.key()
		j.hashes = append(j.hashes, maphash.String(seed, key))
		j.quoted(key)
		j.dst = append(j.dst, ':')
		j.item()
		j.part()
	}
	j.dst = append(j.dst, '}')
	if j.err == nil && anyEqual(j.hashes[from:]) {
		j.findTwice(first)
	}
	j.hashes = j.hashes[:from]
}

// seed makes the hashes of keys unpredictable.
var seed = maphash.MakeSeed()

// fewKeys is the number of keys up to which each is compared with each other.
const fewKeys = 12

// anyEqual reports whether two hashes are equal. It may sort them.
func anyEqual(hashes []uint64) bool {
	if len(hashes) > fewKeys {
		slices.Sort(hashes)
		for i := range hashes[1:] {
			if hashes[i] == hashes[i+1] {
				return true
			}
		}
		return false
	}
	for i, h := range hashes {
		if slices.Contains(hashes[:i], h) {
			return true
		}
	}
	return false
}

// findTwice fails if two keys of a map are the same in JSON. It compares keys whose
// hashes are equal.
func (j *jsonWriter) findTwice(first []byte) {
	again := jsonWriter{reader: reader{rest: first}, inKey: j.inKey}
	h := again.head()
	found := map[string]bool{}
	for n := uint64(0); again.more(h, n); n++ {
		key := again.key()
		if found[key] {
			j.fail(fmt.Errorf("duplicate key %.64q in a map", key))
			return
		}
		found[key] = true
		again.reader.item()
	}
}

// key reads a key, and returns its JSON.
func (j *jsonWriter) key() string {
	for j.rest[0]>>5 == abi.MajorTag {
		j.head()
	}
	if j.rest[0]>>5 == abi.MajorText {
		return j.text(j.head())
	}
	item := j.reader.item()
	switch major := item[0] >> 5; {
	case j.inKey && (major == abi.MajorArray || major == abi.MajorMap):
		return base64.RawURLEncoding.EncodeToString(item)
	case major == abi.MajorBytes:
		inner := reader{rest: item}
		return base64.RawURLEncoding.EncodeToString(inner.bytes(inner.head()))
	}
	inner := jsonWriter{reader: reader{rest: item}, inKey: true}
	inner.item()
	if inner.err != nil {
		j.fail(inner.err)
	}
	return string(inner.dst)
}

func (j *jsonWriter) quoted(s string) { j.dst = AppendQuoted(j.dst, s) }

// isPlain reports whether a text needs no escapes in JSON.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// AppendQuoted appends a text as a JSON string. The characters <, > and & are not
// escaped.
func AppendQuoted(dst []byte, s string) []byte {
	if isPlain(s) {
		return append(append(append(dst, '"'), s...), '"')
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string can always be encoded
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}
