package vectors

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/guest"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Tester calls a module with vectors, one after another. It may be used by one
// goroutine at a time. It holds the instances for one context and seed, those of
// the last vector.
type Tester struct {
	module   *runtime.Module
	settings runtime.Settings
	pool     *runtime.Pool // nil before the first vector
	context  []byte
	seed     uint64
}

// NewTester returns a tester of a module. The context and the seed of the settings
// are ignored: vectors have their own.
func NewTester(m *runtime.Module, s runtime.Settings) *Tester {
	return &Tester{module: m, settings: s}
}

// Close closes the instances. The module stays open.
func (t *Tester) Close() error {
	if t.pool == nil {
		return nil
	}
	pool := t.pool
	t.pool = nil
	return pool.Close()
}

// MissingExportError reports a vector that needs a function that the module does
// not export.
type MissingExportError struct{ Vector, Function string }

// Error names the vector and the function.
func (e *MissingExportError) Error() string {
	return fmt.Sprintf("vector %q needs %s, which the module does not export", e.Vector, e.Function)
}

// InputError reports that the chunks of a vector cannot be the chunks of a job: two
// have the same id, or an id is invalid.
type InputError struct {
	Vector string
	Err    error
}

// Error names the vector.
func (e *InputError) Error() string { return fmt.Sprintf("vector %q: %v", e.Vector, e.Err) }

// Unwrap returns the reason.
func (e *InputError) Unwrap() error { return e.Err }

// Try makes the calls of a vector and returns the result of the last one. Failures
// of the guest, including those of _initialize and setup, are in the result. If the
// vector has several chunks, the message of a chunk's failure names its id.
//
// The error is a *[MissingExportError], an *[InputError], a *[runtime.RefusedError]
// if the module does not fit the settings or a context, or from ctx.
func (t *Tester) Try(ctx context.Context, v *Vector) (guest.CallResult, error) {
	if v.function != abi.ExportExec && !t.module.Exports(v.function) {
		return guest.CallResult{}, &MissingExportError{v.Name, v.function}
	}
	pool, err := t.poolFor(ctx, v)
	if failure, ok := errors.AsType[*abi.Failure](err); ok { // of _initialize or setup
		return guest.CallResult{Done: true, Failure: failure}, nil
	}
	if err != nil {
		return guest.CallResult{}, err
	}
	instance := pool.Borrow(nil)
	defer instance.Release()
	switch {
	case v.Chunk != nil:
		return guest.Call(ctx, instance, abi.ExportExec, v.inputs[0])
	case v.Merge != nil:
		return guest.Call(ctx, instance, abi.ExportMerge, guest.MergeInput(v.inputs))
	case v.Aggregate != nil:
		return guest.Call(ctx, instance, abi.ExportAggregate, guest.AggregateInput(v.IDs, v.inputs))
	}
	return v.job(ctx, instance)
}

// poolFor returns the instances for a vector's context and seed. If the last
// vector's are different, they are closed: there may be as many as vectors, each
// with a memory.
func (t *Tester) poolFor(ctx context.Context, v *Vector) (*runtime.Pool, error) {
	if t.pool != nil && v.seed == t.seed && bytes.Equal(v.context, t.context) {
		return t.pool, nil
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	settings := t.settings
	settings.Context, settings.Seed = v.context, v.seed
	pool, err := t.module.Prepare(ctx, settings)
	if err != nil {
		return nil, err
	}
	t.pool, t.context, t.seed = pool, v.context, v.seed
	return pool, nil
}

// job calls exec for each chunk, in id order, and then aggregate.
func (v *Vector) job(ctx context.Context, instance *runtime.Instance) (guest.CallResult, error) {
	ids, chunks, err := inOrder(v.inputs)
	if err != nil {
		return guest.CallResult{}, &InputError{v.Name, err}
	}
	var outputs [][]byte
	for i, chunk := range chunks {
		result, err := guest.Call(ctx, instance, abi.ExportExec, chunk)
		if err != nil {
			return result, err
		}
		if f := result.Failure; f != nil {
			result.Failure = abi.Failf(f.Class, "chunk %v: %s", ids[i], f.Message)
			return result, nil
		}
		outputs = append(outputs, result.Output)
	}
	return guest.Call(ctx, instance, abi.ExportAggregate, guest.AggregateInput(ids, outputs))
}

// inOrder returns ids and chunks in id order. An id is the value of the default
// key, or the position.
func inOrder(items [][]byte) (ids []abi.ID, inOrder [][]byte, err error) {
	type chunk struct {
		id   abi.ID
		item []byte
	}
	var all []chunk
	for i, item := range items {
		id, ok, err := abi.FindID(item, chunks.DefaultIDKey)
		if err != nil {
			return nil, nil, fmt.Errorf("chunk %d: %w", i, err)
		}
		if !ok {
			id = abi.IntID(uint64(i))
		}
		all = append(all, chunk{id, item})
	}
	slices.SortStableFunc(all, func(a, b chunk) int { return a.id.Compare(b.id) })
	for i, c := range all {
		if i > 0 && c.id == ids[i-1] {
			return nil, nil, fmt.Errorf("duplicate id %v", c.id)
		}
		ids, inOrder = append(ids, c.id), append(inOrder, c.item)
	}
	return ids, inOrder, nil
}
