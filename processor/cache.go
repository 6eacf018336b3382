package processor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// CacheOptions say how a [Cache] uses its store. The zero CacheOptions work.
type CacheOptions struct {
	// Store is asked before each execution, and gets each output; nil = no store:
	// then only equal requests in flight share an execution. The cache does not
	// close it.
	Store  store.Store
	Action store.Action
	// Strict answers a request with a *[StoreError] if its look-up fails, or under
	// Durable its put, instead of going on without the store.
	Strict bool
	// Durable delays an answer until the output is in the store. Otherwise, outputs
	// are put in batches after the answers, and the last ones are lost if the process
	// dies.
	Durable bool
	// Tell is called with each error of the store, Strict or not, by the goroutine
	// that met it; may be nil.
	Tell func(error)
}

// StoreError says that the store failed.
type StoreError struct{ Err error }

func (e *StoreError) Error() string { return fmt.Sprintf("the store: %v", e.Err) }
func (e *StoreError) Unwrap() error { return e.Err }

// CacheStats counts the work of a cache.
type CacheStats struct {
	Reused  uint64 // requests for which nothing was executed
	Lookups uint64 // look-ups that failed
	Puts    uint64 // outputs that were not put, dropped ones included
}

// Cache is an [Appender] that asks a store before it runs a request, and runs
// equal requests in flight once. Only outputs and failures of the guest are shared: if
// the request that runs ends for a reason of its own, such as its deadline, the next
// one runs. The caller must close it.
//
// If the store fails, the error is counted and passed to Tell, and the request is
// executed, unless Strict is set.
type Cache struct {
	next    Appender
	o       CacheOptions
	keep    *keeper // nil without a store
	reused  atomic.Uint64
	lookups atomic.Uint64

	seed    maphash.Seed
	mu      sync.Mutex
	flights map[uint64]flight // by the hash of the request, or the next free number
}

// flight is one execution, shared by all callers with an equal request.
type flight struct {
	in     []byte
	shared *shared // nil without followers
}

// shared is what the followers of a flight wait for.
type shared struct {
	done   chan struct{}
	result Result[[]byte] // valid once done is closed, as are the fields below
	err    error
	valid  bool // followers take result and err
}

// NewCache returns a cache in front of next.
func NewCache(next Appender, o CacheOptions) *Cache {
	c := &Cache{next: next, o: o, seed: maphash.MakeSeed(), flights: map[uint64]flight{}}
	if o.Store != nil {
		c.keep = newKeeper(o.Store, o.Action, c.tell)
	}
	return c
}

func (c *Cache) tell(err error) {
	if c.o.Tell != nil {
		c.o.Tell(err)
	}
}

// Stats returns the counts so far.
func (c *Cache) Stats() CacheStats {
	s := CacheStats{Reused: c.reused.Load(), Lookups: c.lookups.Load()}
	if c.keep != nil {
		s.Puts = c.keep.failed.Load()
	}
	return s
}

// Close waits until the remaining outputs are put. No request may be running.
func (c *Cache) Close() error {
	if c.keep != nil {
		c.keep.close()
	}
	return nil
}

// Run implements [Runner].
func (c *Cache) Run(ctx context.Context, in []byte) (Result[[]byte], error) {
	return c.Append(ctx, in, nil)
}

// Append implements [Appender].
func (c *Cache) Append(ctx context.Context, in, dst []byte) (Result[[]byte], error) {
	if err := abi.CheckItem(in); err != nil {
		return Result[[]byte]{}, fmt.Errorf("%w: %w", ErrInput, err)
	}
	for {
		f, key := c.board(in)
		if f == nil {
			return c.lead(ctx, key, in, dst)
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return Result[[]byte]{}, ctx.Err()
		}
		if f.valid {
			return c.follow(f, dst)
		}
	}
}

// board returns the flight that the caller follows; nil if there is none, and the caller
// must execute the request. key is then that of its flight.
func (c *Cache) board(in []byte) (f *shared, key uint64) {
	key = maphash.Bytes(c.seed, in) // a digest would take as long as the other work of the cache
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		found, ok := c.flights[key]
		switch {
		case !ok:
			c.flights[key] = flight{in: in}
			return nil, key
		case !bytes.Equal(found.in, in): // another request with this hash
			key++
			continue
		case found.shared == nil:
			found.shared = &shared{done: make(chan struct{})}
			c.flights[key] = found
		}
		return found.shared, key
	}
}

// lead runs a request, and ends its flight.
func (c *Cache) lead(ctx context.Context, key uint64, in, dst []byte) (result Result[[]byte], err error) {
	landed := false
	defer func() {
		if !landed { // the runner panicked
			c.land(key, Result[[]byte]{}, 0, ErrClosed)
		}
	}()
	result, err = c.run(ctx, in, dst)
	c.land(key, result, len(dst), err)
	landed = true
	return result, err
}

// land ends a flight. Followers get a copy of the output, which belongs to the
// leader's caller.
func (c *Cache) land(key uint64, result Result[[]byte], at int, err error) {
	c.mu.Lock()
	f := c.flights[key].shared
	delete(c.flights, key)
	c.mu.Unlock()
	if f == nil {
		return
	}
	_, failed := errors.AsType[*abi.Failure](err)
	if f.valid = err == nil || failed; f.valid {
		f.result, f.err = result, err
		if err == nil {
			f.result.Output = append([]byte(nil), result.Output[at:]...)
		}
	}
	close(f.done)
}

// follow returns the result of a flight that has ended.
func (c *Cache) follow(f *shared, dst []byte) (Result[[]byte], error) {
	c.reused.Add(1)
	if f.err != nil {
		return Result[[]byte]{}, f.err
	}
	return Result[[]byte]{append(dst, f.result.Output...), f.result.Fuel, true}, nil
}

// run takes the output from the store, or else executes the request and has the
// output put.
func (c *Cache) run(ctx context.Context, in, dst []byte) (result Result[[]byte], err error) {
	if c.keep == nil {
		return c.next.Append(ctx, in, dst)
	}
	digest := store.Digest(sha256.Sum256(in))
	result, found, err := c.lookUp(ctx, digest, dst)
	if found || err != nil {
		return result, err
	}
	if result, err = c.next.Append(ctx, in, dst); err != nil {
		return result, err
	}
	record := store.Record{Key: store.Key{Chunk: digest}, Value: store.Value{Output: result.Output[len(dst):], Fuel: result.Fuel}}
	if !c.o.Durable {
		c.keep.later(record)
		return result, nil
	}
	if err := c.keep.now(ctx, record); err != nil {
		switch {
		case ctx.Err() != nil:
			return Result[[]byte]{}, ctx.Err()
		case c.o.Strict:
			return Result[[]byte]{}, &StoreError{err}
		}
	}
	return result, nil
}

// lookUp asks the store. An error ends the request.
func (c *Cache) lookUp(ctx context.Context, digest store.Digest, dst []byte) (result Result[[]byte], found bool, err error) {
	err = c.o.Store.Get(ctx, c.o.Action, []store.Key{{Chunk: digest}}, func(_ int, v store.Value) error {
		result, found = Result[[]byte]{append(dst, v.Output...), v.Fuel, true}, true
		return nil
	})
	switch {
	case ctx.Err() != nil && !found:
		return result, false, ctx.Err()
	case err != nil:
		c.lookups.Add(1)
		c.tell(&StoreError{err})
		if c.o.Strict {
			return Result[[]byte]{}, false, &StoreError{err}
		}
		return Result[[]byte]{}, false, nil
	case found:
		c.reused.Add(1)
	}
	return result, found, nil
}
