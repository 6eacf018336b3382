//go:build wasip1

// Square gives n * n for a chunk that is an integer n, or a map with n under
// the key "n"; the job's result is the sum. Build: make -C guest-examples go
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
// guest in C looks at its own key only.
var decoding, _ = cbor.DecOptions{
	DupMapKey:         cbor.DupMapKeyEnforcedAPF,
	FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	MaxArrayElements:  math.MaxInt32,
	MaxMapPairs:       math.MaxInt32,
	MaxNestedLevels:   256,
}.DecMode()

var (
	errNoInteger = errors.New("not an integer")
	errOverflow  = errors.New("overflow")
)

// Major types of CBOR: the first three bits of an item.
const (
	majorUint   = 0
	majorNegint = 1
	majorMap    = 5
)

//go:wasmexport exec
func exec(_, size uint32) uint64 { return number(square(guest.Input(size))) }

//go:wasmexport aggregate
func aggregate(_, size uint32) uint64 {
	var outputs []struct {
		_      struct{} `cbor:",toarray"`
		ID     cbor.RawMessage
		Output uint64
	}
	if err := decoding.Unmarshal(guest.Input(size), &outputs); err != nil {
		return number(0, errNoInteger)
	}
	values := make([]uint64, len(outputs))
	for i, o := range outputs {
		values[i] = o.Output
	}
	return number(sum(values))
}

//go:wasmexport merge
func merge(_, size uint32) uint64 {
	var sums []uint64
	if err := decoding.Unmarshal(guest.Input(size), &sums); err != nil {
		return number(0, errNoInteger)
	}
	return number(sum(sums))
}

func square(chunk cbor.RawMessage) (uint64, error) {
	if chunk[0]>>5 == majorMap {
		var fields struct {
			N cbor.RawMessage `cbor:"n"`
		}
		if decoding.Unmarshal(chunk, &fields) != nil || fields.N == nil {
			return 0, errNoInteger
		}
		chunk = fields.N
	}
	n, err := magnitude(chunk)
	if err != nil {
		return 0, err
	}
	if n > math.MaxUint32 {
		return 0, errOverflow
	}
	return n * n, nil
}

func magnitude(item cbor.RawMessage) (uint64, error) {
	switch item[0] >> 5 {
	case majorUint:
		var n uint64
		err := decoding.Unmarshal(item, &n)
		return n, err
	case majorNegint:
		var n int64
		if decoding.Unmarshal(item, &n) != nil { // below -2^63
			return 0, errOverflow
		}
		return -uint64(n), nil
	default:
		return 0, errNoInteger
	}
}

func sum(values []uint64) (total uint64, err error) {
	for _, v := range values {
		var carry uint64
		if total, carry = bits.Add64(total, v, 0); carry != 0 {
			return 0, errOverflow
		}
	}
	return total, nil
}

// number returns n to the host, or the failure.
func number(n uint64, err error) uint64 {
	if err != nil {
		return guest.Fail(guest.Permanent, err.Error())
	}
	b, _ := cbor.Marshal(n) // integers always encode
	return guest.Result(b)
}

// init has the CBOR library prepare for the types in use. The host takes its
// snapshot afterwards, so that it is done once and not in each call.
func init() {
	if n, err := square(cbor.RawMessage{2}); err != nil || n != 4 {
		panic("2 * 2 is not 4")
	}
	if _, err := cbor.Marshal(uint64(4)); err != nil {
		panic(err)
	}
}

func main() {}
