package notation

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/x448/float16"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// A SyntaxError explains in one line why a text is not the JSON of an item.
type SyntaxError string

func (e SyntaxError) Error() string { return string(e) }

func syntaxErrorf(format string, args ...any) error { return SyntaxError(fmt.Sprintf(format, args...)) }

// AppendItem appends the CBOR of one JSON value (RFC 8259). Keys keep their order.
// A number without fraction and exponent is an integer, beyond 64 bits a bignum
// (RFC 8949, section 3.4.3); any other number, and -0, is the shortest float that
// has the value of the nearest double.
//
// Values that would not survive the conversion are refused: an object with a
// duplicate key, a number that is not a finite double, an integer of more than
// 8,192 bits, and a text with half of a surrogate pair. The error is a
// [SyntaxError]; dst is invalid after an error.
func AppendItem(dst, value []byte) ([]byte, error) { return appendItem(dst, value, false) }

// ParseExact returns the item of one JSON value in the exact form. An object whose
// only key is "hex", with a text as value, is the item of these bytes; spaces in
// them are ignored. A number with a point or an exponent is the shortest float that
// has the value of the nearest double. Any other number is an integer, which must
// fit CBOR without a tag. A duplicate key in an object is refused. The error is a
// [SyntaxError].
func ParseExact(value []byte) ([]byte, error) {
	item, err := appendItem(nil, value, true)
	if err != nil {
		return nil, err
	}
	if err := abi.CheckItem(item); err != nil { // Hex within arrays is nested deeper.
		return nil, SyntaxError(err.Error())
	}
	return item, nil
}

func appendItem(dst, value []byte, exact bool) ([]byte, error) {
	if err := checkJSON(value, exact); err != nil {
		return nil, err
	}
	keys := keyLists.Get().(*[][]byte)
	e := jsonReader{dst: dst, rest: value, exact: exact, keys: (*keys)[:0]}
	err := e.value(0)
	if cap(e.keys) <= maxKeyList {
		*keys = e.keys[:cap(e.keys)]
		clear(*keys) // they are parts of value
		keyLists.Put(keys)
	}
	if err != nil {
		return nil, err
	}
	return e.dst, nil
}

// keyLists are lists of up to maxKeyList keys for [jsonReader]; without them, most
// objects would take four allocations.
var keyLists = sync.Pool{New: func() any { return new([][]byte) }}

const maxKeyList = 256

// checkJSON refuses texts that are not one JSON value, and values that the decoder
// would silently replace.
func checkJSON(value []byte, exact bool) error {
	switch {
	case len(bytes.TrimSpace(value)) == 0 && exact:
		return SyntaxError("empty")
	case len(bytes.TrimSpace(value)) == 0:
		return SyntaxError("empty: want one JSON value on each line")
	case !utf8.Valid(value):
		return SyntaxError("not UTF-8")
	case !json.Valid(value):
		return invalidJSON(value, exact)
	case halfSurrogate(value):
		return SyntaxError(`half of a surrogate pair (\ud800 to \udfff) in a text`)
	}
	return nil
}

// invalidJSON returns an error that explains an invalid value.
func invalidJSON(value []byte, exact bool) error {
	d := json.NewDecoder(bytes.NewReader(value))
	var first json.RawMessage
	err := d.Decode(&first)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return syntaxErrorf("invalid JSON at byte %d: %s", syntax.Offset, syntax)
	}
	if err != nil { // the text ends within the value
		return SyntaxError("invalid JSON: the text ends within a value")
	}
	if exact {
		return SyntaxError("more than one value")
	}
	return syntaxErrorf("invalid JSON at byte %d: more than one value, want one on each line", d.InputOffset()+1)
}

// halfSurrogate reports whether valid JSON has an escape \ud800 to \udfff that is
// not part of a pair.
func halfSurrogate(value []byte) bool {
	for {
		i := bytes.IndexByte(value, '\\')
		if i < 0 {
			return false
		}
		value = value[i:]
		switch unit := surrogate(value); {
		case unit == 0:
			value = value[2:]
		case unit < 0xdc00 && surrogate(value[6:]) >= 0xdc00:
			value = value[12:]
		default:
			return true
		}
	}
}

// surrogate returns the value of the escape at the start of b if it is \ud800 to
// \udfff, and 0 otherwise.
func surrogate(b []byte) uint64 {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0
	}
	unit, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	if err != nil || unit < 0xd800 || unit > 0xdfff {
		return 0
	}
	return unit
}

// jsonReader converts a JSON value to CBOR. Package encoding/json checks the value,
// and decodes texts with escapes; after that, only the ends of tokens are left to
// find, which are unambiguous in a valid value. The decoder of encoding/json makes
// an allocation or two for each token, and takes five times as long.
type jsonReader struct {
	dst   []byte
	rest  []byte   // of the value
	exact bool     // an object may be hex, and integers have no tag
	keys  [][]byte // of all open objects, the innermost last
}

// next skips blanks and returns the next byte.
func (e *jsonReader) next() byte {
	for e.rest[0] == ' ' || e.rest[0] == '\t' || e.rest[0] == '\r' || e.rest[0] == '\n' {
		e.rest = e.rest[1:]
	}
	return e.rest[0]
}

func (e *jsonReader) value(depth int) error {
	switch e.next() {
	case '{', '[':
		if depth == abi.MaxDepth {
			return syntaxErrorf("more than %d levels of nesting", abi.MaxDepth)
		}
		return e.container(depth + 1)
	case '"':
		e.text(e.string())
		return nil
	case 't':
		return e.literal(0xf5, "true")
	case 'f':
		return e.literal(0xf4, "false")
	case 'n':
		return e.literal(0xf6, "null")
	}
	end := 1
	for end < len(e.rest) && isNumber(e.rest[end]) {
		end++
	}
	number := e.rest[:end]
	e.rest = e.rest[end:]
	return e.number(string(number))
}

func isNumber(c byte) bool {
	return '0' <= c && c <= '9' || c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-'
}

func (e *jsonReader) literal(item byte, word string) error {
	e.dst, e.rest = append(e.dst, item), e.rest[len(word):]
	return nil
}

func (e *jsonReader) text(s []byte) {
	e.dst = append(abi.AppendHead(e.dst, abi.MajorText, uint64(len(s))), s...)
}

// string reads a string and returns its contents.
func (e *jsonReader) string() []byte {
	escaped, end := false, 1
	for ; e.rest[end] != '"'; end++ {
		if e.rest[end] == '\\' {
			escaped = true
			end++
		}
	}
	quoted := e.rest[:end+1]
	e.rest = e.rest[end+1:]
	if !escaped {
		return quoted[1:end]
	}
	var s string
	_ = json.Unmarshal(quoted, &s) // always valid: it was checked
	return []byte(s)
}

// container encodes the next array or object. Its head is one byte until the count
// is known; for most, one byte is enough.
func (e *jsonReader) container(depth int) error {
	start, count, major := len(e.dst), uint64(0), abi.MajorArray
	end := byte(']')
	if e.rest[0] == '{' {
		end, major = '}', abi.MajorMap
	}
	keys := keySet{all: &e.keys, from: len(e.keys)}
	defer keys.forget()
	e.dst = append(e.dst, 0)
	for e.rest = e.rest[1:]; e.next() != end; count++ {
		if e.rest[0] == ',' {
			e.rest = e.rest[1:]
		}
		if major == abi.MajorMap {
			if err := e.key(&keys); err != nil {
				return err
			}
		}
		if err := e.value(depth); err != nil {
			return err
		}
	}
	e.rest = e.rest[1:]
	if e.exact && major == abi.MajorMap && count == 1 && bytes.HasPrefix(e.dst[start+1:], hexHead) {
		if value := e.dst[start+1+len(hexHead):]; value[0]>>5 == abi.MajorText {
			return e.hex(start, value)
		}
	}
	e.count(start, major, count)
	return nil
}

// count puts the head of an array or map before its elements, which begin after the
// byte at start.
func (e *jsonReader) count(start int, major byte, n uint64) {
	head := abi.AppendHead(make([]byte, 0, 9), major, n)
	if len(head) > 1 {
		e.dst = append(e.dst, head[1:]...)
		copy(e.dst[start+len(head):], e.dst[start+1:])
	}
	copy(e.dst[start:], head)
}

// hexKey is the only key of an object that represents an item in hex, and hexHead
// is its CBOR.
const hexKey = "hex"

var hexHead = abi.AppendText(nil, hexKey)

// hex replaces the output from start on by the item whose hex is in text.
func (e *jsonReader) hex(start int, text []byte) error {
	contents, _, _ := Contents(text)
	item, err := hex.DecodeString(strings.ReplaceAll(string(contents), " ", ""))
	if err != nil {
		return syntaxErrorf("invalid hex %.64q: %s", contents, err)
	}
	if err := abi.CheckItem(item); err != nil {
		return syntaxErrorf("invalid CBOR item %.64q: %s", contents, err)
	}
	e.dst = append(e.dst[:start], item...)
	return nil
}

// key reads a key and the colon.
func (e *jsonReader) key(keys *keySet) error {
	e.next()
	key := e.string()
	if !keys.add(key) {
		return syntaxErrorf("duplicate key %.64q in one object", key)
	}
	e.text(key)
	e.next()
	e.rest = e.rest[1:]
	return nil
}

// keySet is the set of keys of an object: the end of a list that it shares with the
// enclosing objects, and a map once there are many.
type keySet struct {
	all  *[][]byte
	from int
	many map[string]bool
}

// listedKeys is the number of keys of an object up to which they are searched
// linearly.
const listedKeys = 16

// add returns false if the key is in the set.
func (s *keySet) add(key []byte) bool {
	own := (*s.all)[s.from:]
	if len(own) < listedKeys {
		for _, k := range own {
			if bytes.Equal(k, key) {
				return false
			}
		}
		*s.all = append(*s.all, key)
		return true
	}
	if s.many == nil {
		s.many = map[string]bool{}
		for _, k := range own {
			s.many[string(k)] = true
		}
	}
	if s.many[string(key)] {
		return false
	}
	s.many[string(key)] = true
	return true
}

// forget removes the keys from the list.
func (s *keySet) forget() { *s.all = (*s.all)[:s.from] }

func (e *jsonReader) number(s string) error {
	if s == "-0" && !e.exact || strings.ContainsAny(s, ".eE") {
		return e.float(s)
	}
	digits, negative := strings.CutPrefix(s, "-")
	n, err := strconv.ParseUint(digits, 10, 64)
	switch {
	case err != nil:
		return e.bignum(digits, negative)
	case negative && n > 0:
		e.dst = abi.AppendHead(e.dst, abi.MajorNegint, n-1)
	default:
		e.dst = abi.AppendHead(e.dst, abi.MajorUint, n)
	}
	return nil
}

const (
	// maxBignum is the limit of an integer that is read or written in digits, in
	// bytes: the conversion takes more than linear time.
	maxBignum = 1024
	// maxDigits is the number of decimal digits that maxBignum bytes can hold.
	maxDigits = 2467

	tagBignum         = 2
	tagNegativeBignum = 3
)

// bignum encodes an integer whose digits do not fit 64 bits.
func (e *jsonReader) bignum(digits string, negative bool) error {
	if len(digits) > maxDigits {
		return syntaxErrorf("integer of %d digits too large: more than %d bytes; a text can hold any number of digits", len(digits), maxBignum)
	}
	n, ok := new(big.Int).SetString(digits, 10)
	if !ok {
		return syntaxErrorf("invalid number %.64q", digits)
	}
	tag := uint64(tagBignum)
	if negative { // the value is -1 - n
		tag = tagNegativeBignum
		if n.Sub(n, big.NewInt(1)); n.IsUint64() {
			e.dst = abi.AppendHead(e.dst, abi.MajorNegint, n.Uint64())
			return nil
		}
	}
	if e.exact {
		return syntaxErrorf("%.64s is too large for a CBOR integer: write it in hex", digits)
	}
	b := n.Bytes()
	if len(b) > maxBignum {
		return syntaxErrorf("integer of %d digits too large: more than %d bytes; a text can hold any number of digits", len(digits), maxBignum)
	}
	e.dst = abi.AppendHead(e.dst, abi.MajorTag, tag)
	e.dst = append(abi.AppendHead(e.dst, abi.MajorBytes, uint64(len(b))), b...)
	return nil
}

// float encodes the double nearest to s.
func (e *jsonReader) float(s string) error {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil && e.exact {
		return syntaxErrorf("%.64s is too large for a 64-bit float", s)
	}
	if err != nil {
		return syntaxErrorf("the number %.64s is too large for a 64-bit float", s)
	}
	e.dst = AppendFloat(e.dst, f)
	return nil
}

// AppendFloat appends the shortest float that has the value of f (RFC 8949, section
// 4.1). f must not be NaN.
func AppendFloat(dst []byte, f float64) []byte {
	single := float32(f)
	if float64(single) != f {
		return binary.BigEndian.AppendUint64(append(dst, 0xfb), math.Float64bits(f))
	}
	if half := float16.Fromfloat32(single); half.Float32() == single {
		return binary.BigEndian.AppendUint16(append(dst, 0xf9), half.Bits())
	}
	return binary.BigEndian.AppendUint32(append(dst, 0xfa), math.Float32bits(single))
}
