// Package guest makes single calls of a guest, and returns their results.
//
// The tools for authors of guests, [check], [vectors] and [bench], are built on it.
// They have no job, store or coordinator, but one module, one [runtime.Pool], and
// one call after another.
//
//	instance := pool.Borrow(nil)
//	defer instance.Release()
//	result, err := guest.Call(ctx, instance, abi.ExportExec, chunk)
//
// [check]: https://pkg.go.dev/github.com/wasm-jobs/wasm-jobs/host/guest/check
// [vectors]: https://pkg.go.dev/github.com/wasm-jobs/wasm-jobs/host/guest/vectors
// [bench]: https://pkg.go.dev/github.com/wasm-jobs/wasm-jobs/host/guest/bench
package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// CallResult is the result of one call. Its JSON has the digest of the output and
// not the output, so that the calls of two processes can be compared.
type CallResult struct {
	Output  []byte       `json:"-"`                // one CBOR item, which the caller owns; nil if the call failed, or if only its digest is known
	SHA256  string       `json:"sha256,omitempty"` // of the output, in hex; "" if the call failed
	Failure *abi.Failure `json:"failure,omitempty"`
	Fuel    uint64       `json:"fuel"` // of a successful call, including its alloc; 0 without metering
	Memory  uint64       `json:"-"`    // bytes of linear memory at the end; 0 if unknown
	Done    bool         `json:"done"` // false if the call was not made
}

// Call calls exec, aggregate or merge, which the module must export, on fresh
// state. A failure of the guest is in the result; the error is from ctx.
func Call(ctx context.Context, instance *runtime.Instance, function string, input []byte) (CallResult, error) {
	output, fuel, err := instance.Call(ctx, function, input, nil)
	result := CallResult{Done: true, Fuel: fuel, Memory: instance.MemorySize()}
	if err != nil {
		failure, ok := errors.AsType[*abi.Failure](err)
		if !ok {
			return CallResult{}, err
		}
		result.Failure = failure
		return result, nil
	}
	digest := sha256.Sum256(output)
	result.Output, result.SHA256 = output, hex.EncodeToString(digest[:])
	return result, nil
}

// Comparable reports whether a second call must have the same result. It is false
// for calls that were not made, and for failures that do not depend only on the
// guest: timeouts, and failures of the host.
func (r *CallResult) Comparable() bool {
	return r.Done && (r.Failure == nil || r.Failure.Class != abi.ClassTimeout && r.Failure.Class != abi.ClassHost)
}

// Same reports whether two calls returned the same bytes with the same fuel, or
// failed with the same class and message.
func (r *CallResult) Same(other *CallResult) bool {
	if r.Failure != nil && other.Failure != nil {
		return r.Failure.Class == other.Failure.Class && r.Failure.Message == other.Failure.Message
	}
	return r.Failure == nil && other.Failure == nil && r.SHA256 == other.SHA256 && r.Fuel == other.Fuel
}

// AggregateInput returns the input of aggregate for outputs and their ids, in id
// order. Without ids, an output's id is its position.
func AggregateInput(ids []abi.ID, outputs [][]byte) []byte {
	b := abi.AppendHead(nil, abi.MajorArray, uint64(len(outputs)))
	for i, output := range outputs {
		id := abi.IntID(uint64(i))
		if ids != nil {
			id = ids[i]
		}
		b = abi.AppendEntry(b, id, output)
	}
	return b
}

// MergeInput returns the input of merge for results of aggregate.
func MergeInput(results [][]byte) []byte {
	return append(abi.AppendHead(nil, abi.MajorArray, uint64(len(results))), bytes.Join(results, nil)...)
}
