package host

import (
	"context"
	"fmt"
	"iter"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/values"
)

// TypedGuest calls a guest with Go values, encoded by
// github.com/fxamacker/cbor/v2: cbor or json tags name the fields.
//
// Inputs have the deterministic encoding of RFC 8949, section 4.2.1, so that
// equal values are equal bytes; a nil slice or map is encoded as an empty one.
// When an output is decoded, the case of keys matters, keys without a field in
// Out are ignored, and a duplicate key is an error.
//
// TypedGuest has the methods of Guest; only Call, Map and MapOrdered are typed:
//
//	guest := host.TypedGuest[Request, Reply]{opened}
type TypedGuest[In, Out any] struct{ *Guest }

// TypedOutput is the output of one chunk as a Go value.
type TypedOutput[Out any] struct {
	ID     abi.ID
	Output Out
}

// Call is [Guest.Call] with a Go value as input and output. The error may also
// wrap one of package cbor, if in cannot be encoded or the output does not fit
// Out.
func (g TypedGuest[In, Out]) Call(ctx context.Context, in In) (Out, error) {
	var out, none Out
	chunk, err := values.Encode(in)
	if err != nil {
		return none, fmt.Errorf("cannot encode the input: %w", err)
	}
	output, err := g.Guest.Call(ctx, chunk)
	if err != nil {
		return none, err
	}
	if err := values.Decode(output, &out); err != nil {
		return none, fmt.Errorf("the output does not fit %T: %w", out, err)
	}
	return out, nil
}

// Map is [Guest.Map] with Go values as inputs and outputs. An input is encoded
// after seq has gone on: its contents must not be changed. A value that cannot
// be encoded, or an output that does not fit, is a *[ChunkError], and the
// sequence goes on.
func (g TypedGuest[In, Out]) Map(ctx context.Context, seq iter.Seq2[In, error]) iter.Seq2[TypedOutput[Out], error] {
	return outputsOf(ctx, g.workers, false, seq, g.Call)
}

// MapOrdered is Map with the outputs in the order of their inputs.
func (g TypedGuest[In, Out]) MapOrdered(ctx context.Context, seq iter.Seq2[In, error]) iter.Seq2[TypedOutput[Out], error] {
	return outputsOf(ctx, g.workers, true, seq, g.Call)
}
