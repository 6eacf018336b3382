//go:build wasip1

// Wordcount counts the words of a chunk: a text or byte string, or a map with
// one under the key "text". A word is a longest run of ASCII letters and digits,
// in lower case. The output is a map from word to count, its keys in the
// deterministic order of RFC 8949, section 4.2.1; the job's result is the sum of
// these maps. Build: make -C guest-examples go
package main

import (
	"errors"
	"math"
	"math/bits"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/guest-examples/internal/guest"
)

// decoding undoes defaults that would take wrong chunks for right ones, and
// limits below those of the host. It refuses a map with any key twice, where the
// guest in C looks at its own key only. Bytes decode as text, and need not be UTF-8.
var decoding, _ = cbor.DecOptions{
	ByteStringToString: cbor.ByteStringToStringAllowed,
	UTF8:               cbor.UTF8DecodeInvalid,
	DupMapKey:          cbor.DupMapKeyEnforcedAPF,
	FieldNameMatching:  cbor.FieldNameMatchingCaseSensitive,
	MaxArrayElements:   math.MaxInt32,
	MaxMapPairs:        math.MaxInt32,
	MaxNestedLevels:    256,
}.DecMode()

var encoding, _ = cbor.CoreDetEncOptions().EncMode()

var (
	errNoText   = errors.New("no text")
	errNoCounts = errors.New("not a word count")
	errOverflow = errors.New("overflow")
)

// Major types of CBOR: the first three bits of an item.
const (
	majorBytes = 2
	majorText  = 3
	majorMap   = 5
)

type counts map[string]uint64

//go:wasmexport exec
func exec(_, size uint32) uint64 {
	text, err := textOf(guest.Input(size))
	if err != nil {
		return result(nil, err)
	}
	return result(count(text), nil)
}

//go:wasmexport aggregate
func aggregate(_, size uint32) uint64 {
	var outputs []struct {
		_      struct{} `cbor:",toarray"`
		ID     cbor.RawMessage
		Output counts
	}
	if decoding.Unmarshal(guest.Input(size), &outputs) != nil {
		return result(nil, errNoCounts)
	}
	total, err := counts{}, error(nil)
	for i := 0; i < len(outputs) && err == nil; i++ {
		err = total.add(outputs[i].Output)
	}
	return result(total, err)
}

//go:wasmexport merge
func merge(_, size uint32) uint64 {
	var partials []counts
	if decoding.Unmarshal(guest.Input(size), &partials) != nil {
		return result(nil, errNoCounts)
	}
	total, err := counts{}, error(nil)
	for i := 0; i < len(partials) && err == nil; i++ {
		err = total.add(partials[i])
	}
	return result(total, err)
}

func textOf(chunk cbor.RawMessage) (text string, err error) {
	if chunk[0]>>5 == majorMap {
		var fields struct {
			Text cbor.RawMessage `cbor:"text"`
		}
		if decoding.Unmarshal(chunk, &fields) != nil || fields.Text == nil {
			return "", errNoText
		}
		chunk = fields.Text
	}
	if major := chunk[0] >> 5; major != majorBytes && major != majorText || decoding.Unmarshal(chunk, &text) != nil {
		return "", errNoText
	}
	return text, nil
}

func count(text string) counts {
	c := counts{}
	var word []byte
	for i := range len(text) {
		if letter := lower(text[i]); letter != 0 {
			word = append(word, letter)
		} else if len(word) > 0 {
			c[string(word)]++
			word = word[:0]
		}
	}
	if len(word) > 0 {
		c[string(word)]++
	}
	return c
}

// lower returns the letter or digit in lower case, and 0 for other bytes.
func lower(b byte) byte {
	switch {
	case '0' <= b && b <= '9', 'a' <= b && b <= 'z':
		return b
	case 'A' <= b && b <= 'Z':
		return b - 'A' + 'a'
	default:
		return 0
	}
}

func (c counts) add(other counts) error {
	for word, n := range other {
		total, carry := bits.Add64(c[word], n, 0)
		if carry != 0 {
			return errOverflow
		}
		c[word] = total
	}
	return nil
}

// result returns the counts to the host, or the failure.
func result(c counts, err error) uint64 {
	if err == nil {
		var b []byte
		if b, err = encoding.Marshal(c); err == nil {
			return guest.Result(b)
		}
	}
	return guest.Fail(guest.Permanent, err.Error())
}

func main() {}
