package sources

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"slices"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
)

// JSONLines yields the JSON values of an input, one per line (RFC 8259). Keys keep
// their order. A number without fraction and exponent is an integer, beyond 64 bits
// a bignum (RFC 8949, section 3.4.3); any other number, and -0, is the shortest
// float that has the value of the nearest double.
//
// Values that would not survive the conversion are refused: an object with a
// duplicate key, a number that is not a finite double, an integer of more than
// 8,192 bits, and a text with half of a surrogate pair.
//
// Lines end with LF, CR LF or CR; blank ones are passed over. An input that is one
// array, on one line or on several, yields the elements of the array. If its first
// line is longer than 1 MiB and begins an array, it must be one. To find out, up to
// 1 MiB is read before the first value, unless [Input.Stream] is set.
func JSONLines(in Input) Source { return jsonValues(in, appendValue) }

// JSONObjects is [JSONLines] for objects, of which it yields only the pairs whose keys
// are given. Any other value is malformed.
func JSONObjects(in Input, keys []string) Source {
	var whole []byte
	return jsonValues(in, func(dst []byte, in Input, line int, value []byte) (_ []byte, err error) {
		if whole, err = appendValue(whole[:0], in, line, value); err != nil {
			return nil, err
		}
		item, isMap := SelectKeys(dst, whole, keys)
		if !isMap {
			return nil, in.fail(line, ErrMalformed, "", "not an object, of which keys could be selected")
		}
		return item, nil
	})
}

// jsonValues yields the values of an input as convert makes items of them.
func jsonValues(in Input, convert func(dst []byte, in Input, line int, value []byte) ([]byte, error)) Source {
	return func(yield func([]byte, error) bool) {
		in.Reader = &lineEnds{r: in.Reader}
		r := bufio.NewReader(in.Reader)
		if !in.Stream {
			r = bufio.NewReaderSize(in.Reader, firstLine)
			if line, array := passArray(r); array {
				e := &elements{in: in, r: r, line: line}
				e.yield(convert, yield)
				return
			}
		}
		lines := &lineReader{in: in, r: r}
		var dst []byte
		for {
			line, err := lines.next()
			if err == io.EOF {
				return
			}
			if lines.line == 1 {
				line = bytes.TrimPrefix(line, byteOrderMark)
			}
			if err == nil && isBlank(line) {
				continue
			}
			var item []byte
			if err == nil {
				if item, err = convert(dst[:0], in, lines.line, line); err != nil {
					if err = in.pass(err, line); err == nil {
						continue
					}
				}
				dst = item
				in.mark(lines.line)
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}

// appendValue appends the chunk of a value that begins on a line of the input.
func appendValue(dst []byte, in Input, line int, value []byte) ([]byte, error) {
	item, err := AppendJSON(dst, value)
	switch {
	case err != nil:
		return nil, in.fail(line, err, "", "%s", err)
	case len(item) > in.limit():
		return nil, in.tooLarge(line, "chunk")
	}
	return item, nil
}

// byteOrderMark is the mark that some programs write at the start of a UTF-8 file.
var byteOrderMark = []byte("\xef\xbb\xbf")

// AppendJSON appends the CBOR of one JSON value, by the rules of [JSONLines]. The
// error is one line and wraps [ErrMalformed]; after an error, dst is invalid.
func AppendJSON(dst, value []byte) ([]byte, error) {
	item, err := notation.AppendItem(dst, value)
	if err != nil {
		return nil, malformed(err.Error())
	}
	return item, nil
}

// malformed is an error of JSON that wraps ErrMalformed.
type malformed string

func (m malformed) Error() string { return string(m) }
func (malformed) Unwrap() error   { return ErrMalformed }

func malformedf(format string, args ...any) error { return malformed(fmt.Sprintf(format, args...)) }

// SelectKeys appends a map that [JSONLines] yielded, with only the pairs whose keys are
// given, in the order of the map. It reports whether the item is a map.
func SelectKeys(dst, item []byte, keys []string) ([]byte, bool) {
	head, err := abi.ReadHead(item)
	if err != nil || head.Major != abi.MajorMap {
		return dst, false
	}
	var pairs []byte
	count := uint64(0)
	for rest := item[head.Size:]; len(rest) > 0; {
		key, err := abi.ItemSize(rest)
		if err != nil {
			return dst, false
		}
		value, err := abi.ItemSize(rest[key:])
		if err != nil {
			return dst, false
		}
		name, err := abi.ReadHead(rest)
		if err == nil && slices.Contains(keys, string(rest[name.Size:key])) {
			pairs, count = append(pairs, rest[:key+value]...), count+1
		}
		rest = rest[key+value:]
	}
	return append(abi.AppendHead(dst, abi.MajorMap, count), pairs...), true
}
