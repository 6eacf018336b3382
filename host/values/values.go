// Package values encodes Go values as CBOR items for guests, and decodes outputs.
package values

import (
	"math"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Encode returns the item of a value in the deterministic encoding of RFC 8949,
// section 4.2.1: equal values give equal bytes. A nil slice or map is encoded as an
// empty one.
func Encode(v any) ([]byte, error) { return encoding.Marshal(v) }

// Decode decodes an item into v. The case of keys matters, keys without a field are
// ignored, and a duplicate key in a map is an error.
func Decode(item []byte, v any) error { return decoding.Unmarshal(item, v) }

var encoding = must(func() (cbor.EncMode, error) {
	o := cbor.CoreDetEncOptions()
	o.NilContainers = cbor.NilContainerAsEmpty // guests do not accept null for an array
	return o.EncMode()
}())

// The limits are the limits of outputs: each element takes at least one byte.
var decoding = must(cbor.DecOptions{
	DupMapKey:         cbor.DupMapKeyEnforcedAPF,
	FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	MaxArrayElements:  math.MaxInt32,
	MaxMapPairs:       math.MaxInt32,
	MaxNestedLevels:   abi.MaxDepth,
}.DecMode())

// must returns a mode. Its options are constants and known to be valid.
func must[T any](mode T, err error) T {
	if err != nil {
		panic(err)
	}
	return mode
}
