package sources

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/x448/float16"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// JSONLines yields the JSON values of an input, of which each line holds one
// (RFC 8259). Keys stay in their order. A number without fraction and exponent
// is an integer, beyond 64 bits a bignum (RFC 8949, section 3.4.3); any other
// number, and -0, is the shortest float that keeps the value of the double
// nearest to it.
//
// What would not come back as it was is refused: a key that an object has
// twice, a number that is no finite double, an integer of more than 8,192 bits,
// and texts with half of a surrogate pair. So are lines without a value.
func JSONLines(in Input) Source {
	return func(yield func([]byte, error) bool) {
		lines := newLineReader(in)
		var e jsonEncoder
		for {
			line, err := lines.next()
			if err == io.EOF {
				return
			}
			var item []byte
			if err == nil {
				item, err = e.line(lines, line)
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}

// line returns the chunk of a line.
func (e *jsonEncoder) line(lines *lineReader, line []byte) ([]byte, error) {
	if lines.line == 1 {
		line = bytes.TrimPrefix(line, byteOrderMark)
	}
	e.dst = e.dst[:0]
	err := e.encode(line)
	switch {
	case err != nil:
		return nil, lines.in.fail(lines.line, err, "", "%s", err)
	case len(e.dst) > lines.in.limit():
		return nil, lines.in.tooLarge(lines.line, "its chunk")
	}
	return e.dst, nil
}

// byteOrderMark is what some programs begin a file of UTF-8 with.
var byteOrderMark = []byte("\xef\xbb\xbf")

// AppendJSON appends the CBOR of one JSON value, by the rules of [JSONLines].
// The error is one line and wraps [ErrMalformed]; dst is then of no use.
func AppendJSON(dst, value []byte) ([]byte, error) {
	e := jsonEncoder{dst: dst}
	if err := e.encode(value); err != nil {
		return nil, err
	}
	return e.dst, nil
}

// malformed is an error of JSON that wraps ErrMalformed.
type malformed string

func (m malformed) Error() string { return string(m) }
func (malformed) Unwrap() error   { return ErrMalformed }

func malformedf(format string, args ...any) error { return malformed(fmt.Sprintf(format, args...)) }

// checkJSON refuses what is not one JSON value, and what the decoder would
// replace without a word.
func checkJSON(value []byte) error {
	switch {
	case len(bytes.TrimSpace(value)) == 0:
		return malformed("it is empty, and each line is to hold one JSON value")
	case !utf8.Valid(value):
		return malformed("not UTF-8")
	case !json.Valid(value):
		return invalidJSON(value)
	case halfSurrogate(value):
		return malformed(`a text has half of a surrogate pair (\ud800 to \udfff), which is no character`)
	}
	return nil
}

// invalidJSON explains a value that is not valid.
func invalidJSON(value []byte) error {
	d := json.NewDecoder(bytes.NewReader(value))
	var first json.RawMessage
	err := d.Decode(&first)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return malformedf("invalid JSON at byte %d of it: %s", syntax.Offset, syntax)
	}
	if err != nil { // the end within the value
		return malformed("invalid JSON: it ends within a value")
	}
	return malformedf("invalid JSON at byte %d of it: more after the value, and each line is to hold one", d.InputOffset()+1)
}

// halfSurrogate reports whether valid JSON has an escape \ud800 to \udfff that
// is not one of a pair.
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

// surrogate returns the value of the escape that b begins with, where that is
// \ud800 to \udfff, else 0.
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

// jsonEncoder turns a JSON value into CBOR. Package encoding/json says whether
// it is valid, and what texts with escapes hold; what is left is to find the
// ends of tokens, which are never in doubt then. Its own decoder makes
// an allocation or two for each token, and takes five times as long.
type jsonEncoder struct {
	dst  []byte
	rest []byte   // of the value
	keys [][]byte // of all objects that are open, the innermost last
}

// encode appends one value to dst.
func (e *jsonEncoder) encode(value []byte) error {
	if err := checkJSON(value); err != nil {
		return err
	}
	e.rest, e.keys = value, e.keys[:0]
	return e.value(0)
}

// next passes blanks and returns the byte that follows.
func (e *jsonEncoder) next() byte {
	for e.rest[0] == ' ' || e.rest[0] == '\t' || e.rest[0] == '\r' || e.rest[0] == '\n' {
		e.rest = e.rest[1:]
	}
	return e.rest[0]
}

func (e *jsonEncoder) value(depth int) error {
	switch e.next() {
	case '{', '[':
		if depth == abi.MaxDepth {
			return malformedf("more than %d levels of nesting", abi.MaxDepth)
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

func (e *jsonEncoder) literal(item byte, word string) error {
	e.dst, e.rest = append(e.dst, item), e.rest[len(word):]
	return nil
}

func (e *jsonEncoder) text(s []byte) {
	e.dst = append(abi.AppendHead(e.dst, abi.MajorText, uint64(len(s))), s...)
}

// string passes a string and returns what it holds.
func (e *jsonEncoder) string() []byte {
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
	_ = json.Unmarshal(quoted, &s) // it was found valid
	return []byte(s)
}

// container encodes the array or object that is next. The head stands in one
// byte until the count is known; for most, one byte is enough.
func (e *jsonEncoder) container(depth int) error {
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
	head := abi.AppendHead(make([]byte, 0, 9), major, count)
	if len(head) > 1 {
		e.dst = append(e.dst, head[1:]...)
		copy(e.dst[start+len(head):], e.dst[start+1:])
	}
	copy(e.dst[start:], head)
	return nil
}

// key passes a key and the colon.
func (e *jsonEncoder) key(keys *keySet) error {
	e.next()
	key := e.string()
	if !keys.add(key) {
		return malformedf("the key %.64q stands twice in one object", key)
	}
	e.text(key)
	e.next()
	e.rest = e.rest[1:]
	return nil
}

// keySet is the keys of an object: the end of a list that those around it use
// too, and a map once they are many.
type keySet struct {
	all  *[][]byte
	from int
	many map[string]bool
}

const fewKeys = 16

// add returns false where the key is there.
func (s *keySet) add(key []byte) bool {
	own := (*s.all)[s.from:]
	if len(own) < fewKeys {
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

// forget takes the keys off the list.
func (s *keySet) forget() { *s.all = (*s.all)[:s.from] }

func (e *jsonEncoder) number(s string) error {
	if s == "-0" || strings.ContainsAny(s, ".eE") {
		return e.float(s)
	}
	digits, negative := strings.CutPrefix(s, "-")
	n, err := strconv.ParseUint(digits, 10, 64)
	switch {
	case err != nil:
		return e.bignum(digits, negative)
	case negative:
		e.dst = abi.AppendHead(e.dst, abi.MajorNegint, n-1)
	default:
		e.dst = abi.AppendHead(e.dst, abi.MajorUint, n)
	}
	return nil
}

const (
	// maxBignum is how many bytes an integer may have. Reading and printing
	// one takes more than linear time.
	maxBignum = 1024
	// maxDigits is how many decimal digits maxBignum bytes can hold.
	maxDigits = 2467

	tagBignum         = 2
	tagNegativeBignum = 3
)

// bignum encodes an integer whose digits do not fit 64 bits.
func (e *jsonEncoder) bignum(digits string, negative bool) error {
	if len(digits) > maxDigits {
		return malformedf("an integer of %d digits is longer than %d bytes; a text holds digits of any number", len(digits), maxBignum)
	}
	n, ok := new(big.Int).SetString(digits, 10)
	if !ok {
		return malformedf("%.64q is no number", digits)
	}
	tag := uint64(tagBignum)
	if negative { // the value is -1 - n
		tag = tagNegativeBignum
		if n.Sub(n, big.NewInt(1)); n.IsUint64() {
			e.dst = abi.AppendHead(e.dst, abi.MajorNegint, n.Uint64())
			return nil
		}
	}
	b := n.Bytes()
	if len(b) > maxBignum {
		return malformedf("an integer of %d digits is longer than %d bytes; a text holds digits of any number", len(digits), maxBignum)
	}
	e.dst = abi.AppendHead(e.dst, abi.MajorTag, tag)
	e.dst = append(abi.AppendHead(e.dst, abi.MajorBytes, uint64(len(b))), b...)
	return nil
}

// float encodes the double that is nearest to s.
func (e *jsonEncoder) float(s string) error {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return malformedf("the number %.64s is beyond the largest double", s)
	}
	e.dst = appendFloat(e.dst, f)
	return nil
}

// appendFloat appends the shortest float that keeps the value of f (RFC 8949,
// section 4.1), which is no NaN.
func appendFloat(dst []byte, f float64) []byte {
	single := float32(f)
	if float64(single) != f {
		return binary.BigEndian.AppendUint64(append(dst, 0xfb), math.Float64bits(f))
	}
	if half := float16.Fromfloat32(single); half.Float32() == single {
		return binary.BigEndian.AppendUint16(append(dst, 0xf9), half.Bits())
	}
	return binary.BigEndian.AppendUint32(append(dst, 0xfa), math.Float32bits(single))
}
