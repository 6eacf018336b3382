package worker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Item is a chunk to execute.
type Item struct {
	Index  int // in id order
	Chunk  []byte
	Digest store.Digest // of Chunk
}

// Output describes the output of an item.
type Output struct {
	Fuel   uint64 // of the call that gave the output
	Reused bool   // the store had the output, and nothing was executed
}

// Executor runs one item at a time, on fresh state. An Executor belongs to one
// worker.
type Executor interface {
	// Exec appends the output to dst, unless it is Reused, and returns dst. The error
	// is an *[abi.Failure] for a failure of the guest, a *[DifferenceError], or from
	// ctx.
	Exec(ctx context.Context, item *Item, dst []byte) ([]byte, Output, error)
}

// Pool lends instances of one module.
type Pool interface {
	// Borrow returns an instance whose log lines go to log; nil drops them.
	Borrow(log runtime.Log) Instance
}

// Instance calls the guest, on fresh state each time. It is used by one
// goroutine at a time.
type Instance interface {
	// Call appends the output to dst and returns it, with the fuel of the call. A
	// failure of the guest is an *abi.Failure; any other error is from ctx.
	Call(ctx context.Context, function string, input, dst []byte) (output []byte, fuel uint64, err error)
	Release()
}

// guest executes items on the instance that the worker has borrowed.
type guest struct{ Instance }

func (g *guest) Exec(ctx context.Context, item *Item, dst []byte) ([]byte, Output, error) {
	dst, fuel, err := g.Call(ctx, abi.ExportExec, item.Chunk, dst)
	return dst, Output{Fuel: fuel}, err
}

// cached is an executor that looks in the store first.
type cached struct {
	next   Executor
	store  store.Store
	action store.Action
	input  Input
	span   queue.Span // the span that was looked up
	keys   []store.Key
	orders []byte // order keys of keys
	found  []stored
}

type stored struct {
	there bool
	fuel  uint64
}

// load asks the store which chunks of a span it has. The order keys tell the store
// their most likely location.
func (c *cached) load(ctx context.Context, s queue.Span) error {
	c.span, c.keys, c.orders, c.found = s, c.keys[:0], c.orders[:0], c.found[:0]
	err := c.input.Read(ctx, s.From, s.To, func(i int, chunk []byte) error {
		start := len(c.orders)
		c.orders = c.input.ID(i).AppendOrderKey(c.orders)
		c.keys = append(c.keys, store.Key{Chunk: sha256.Sum256(chunk), Order: c.orders[start:]})
		return nil
	})
	if err != nil {
		return err
	}
	c.found = append(c.found, make([]stored, len(c.keys))...)
	err = c.store.Get(ctx, c.action, c.keys, func(i int, v store.Value) error {
		c.found[i] = stored{true, v.Fuel}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		return &StoreError{err}
	}
	return err
}

// digest returns the digest of a chunk of the span.
func (c *cached) digest(i int) store.Digest { return c.keys[i-c.span.From].Chunk }

// has reports whether the output of a chunk of the span is stored.
func (c *cached) has(i int) bool { return c.found[i-c.span.From].there }

func (c *cached) Exec(ctx context.Context, item *Item, dst []byte) ([]byte, Output, error) {
	if c.has(item.Index) {
		return dst, Output{Fuel: c.found[item.Index-c.span.From].fuel, Reused: true}, nil
	}
	return c.next.Exec(ctx, item, dst)
}

// Recheck selects the items that are executed a second time, and the pool for that.
type Recheck struct {
	Pool   Pool
	Chosen func(chunk store.Digest) bool
}

// DifferenceError reports that two executions of a chunk had different results. The
// output was not stored.
type DifferenceError struct {
	ID            abi.ID
	First, Second []byte // outputs; Second is nil if Failure is not
	Fuel          [2]uint64
	Failure       *abi.Failure // of the second execution
}

func (e *DifferenceError) Error() string {
	what := "gave two outputs"
	switch {
	case e.Failure != nil:
		what = fmt.Sprintf("gave an output, and then failed: %v", e.Failure)
	case bytes.Equal(e.First, e.Second):
		what = fmt.Sprintf("used fuel %d, and then %d", e.Fuel[0], e.Fuel[1])
	}
	return fmt.Sprintf("chunk %v was executed twice and %s: the output is not determined by the chunk, an engine has a defect, or this machine is broken", e.ID, what)
}

// rechecker executes selected items twice and compares the results.
type rechecker struct {
	next Executor
	*Recheck
	id     func(i int) abi.ID
	second Instance // nil until it is needed
	output []byte   // of second
	count  int      // number of items whose second execution confirmed the first
}

func (r *rechecker) Exec(ctx context.Context, item *Item, dst []byte) ([]byte, Output, error) {
	first, out, err := r.next.Exec(ctx, item, dst)
	if err != nil || out.Reused || !r.Chosen(item.Digest) {
		return first, out, err
	}
	return first, out, r.compare(ctx, item, first[len(dst):], out.Fuel)
}

// compare executes an item a second time. Any error except ctx.Err() is a
// *[DifferenceError].
func (r *rechecker) compare(ctx context.Context, item *Item, output []byte, fuel uint64) (err error) {
	if r.second == nil {
		r.second = r.Pool.Borrow(nil)
	}
	var used uint64
	r.output, used, err = r.second.Call(ctx, abi.ExportExec, item.Chunk, r.output[:0])
	if err != nil && ctx.Err() != nil {
		return err
	}
	if err == nil && used == fuel && bytes.Equal(output, r.output) {
		r.count++
		return nil
	}
	e := &DifferenceError{ID: r.id(item.Index), First: bytes.Clone(output), Fuel: [2]uint64{fuel, used}}
	switch failure, failed := errors.AsType[*abi.Failure](err); {
	case failed:
		e.Failure = failure
	case err != nil:
		e.Failure = abi.Failf(abi.ClassHost, "%v", err)
	default:
		e.Second = bytes.Clone(r.output)
	}
	return e
}

// release returns the second instance, if one was borrowed.
func (r *rechecker) release() {
	if r != nil && r.second != nil {
		r.second.Release()
		r.second = nil
	}
}
