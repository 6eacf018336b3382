package host

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"

	"github.com/wasm-jobs/wasm-jobs/host/outputs"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Output is the output of one chunk.
type Output = outputs.Output

// outputBatch is the number of outputs in one request to the store.
const outputBatch = 1024

// outputReader reads the outputs of a job from its store.
type outputReader struct {
	input  Input
	store  store.Store
	action store.Action
	fuel   uint64 // of the outputs that were read
	// gathered says that others put them there; nil = this run does.
	gathered *Gathered
}

// errLeft ends a read whose consumer has left.
var errLeft = errors.New("left")

// given yields the outputs that others give, of the chunks from an index on.
func (o *outputReader) given(ctx context.Context, first int) iter.Seq2[Output, error] {
	return func(yield func(Output, error) bool) {
		i := first
		for v, err := range o.gathered.Outputs(ctx, first) {
			if err != nil {
				if ctx.Err() == nil {
					err = &StoreError{Err: err}
				}
				yield(Output{}, err)
				return
			}
			o.fuel += v.Fuel
			if !yield(Output{ID: o.input.ID(i), Output: v.Output}, nil) {
				return
			}
			i++
		}
	}
}

// from yields the existing outputs of the chunks from an index on.
func (o *outputReader) from(ctx context.Context, first int) iter.Seq2[Output, error] {
	if o.gathered != nil && o.gathered.Outputs != nil {
		return o.given(ctx, first)
	}
	return func(yield func(Output, error) bool) {
		var keys []store.Key
		var orders []byte
		left := false
		for from, total := first, o.input.Len(); from < total && !left; from += outputBatch {
			keys, orders = keys[:0], orders[:0]
			err := o.input.Read(ctx, from, min(from+outputBatch, total), func(i int, chunk []byte) error {
				start := len(orders)
				orders = o.input.ID(i).AppendOrderKey(orders) // the most likely position in the store
				keys = append(keys, store.Key{Chunk: sha256.Sum256(chunk), Order: orders[start:]})
				return nil
			})
			if err == nil {
				err = o.get(ctx, keys, func(i int, output []byte) error {
					if !yield(Output{ID: o.input.ID(from + i), Output: output}, nil) {
						left = true
						return errLeft
					}
					return nil
				})
			}
			if err != nil && !left {
				yield(Output{}, err)
				return
			}
		}
	}
}

func (o *outputReader) get(ctx context.Context, keys []store.Key, each func(i int, output []byte) error) error {
	err := o.store.Get(ctx, o.action, keys, func(i int, v store.Value) error {
		o.fuel += v.Fuel
		return each(i, v.Output)
	})
	if err != nil && ctx.Err() == nil {
		return &StoreError{Err: err}
	}
	return err
}

// all yields the existing outputs of the chunks from an index on, and an error
// if there are fewer than count.
func (o *outputReader) all(ctx context.Context, first, count int) iter.Seq2[Output, error] {
	return func(yield func(Output, error) bool) {
		for output, err := range o.from(ctx, first) {
			count--
			if !yield(output, err) || err != nil {
				return
			}
		}
		if count > 0 {
			yield(Output{}, &StoreError{Err: &MissingError{count}})
		}
	}
}

// MissingError is returned if stored outputs are missing.
type MissingError struct{ Count int }

func (e *MissingError) Error() string {
	return fmt.Sprintf("%d stored outputs are missing: run the job again", e.Count)
}
