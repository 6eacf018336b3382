package processor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
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

	mu   sync.Mutex
	few  [4]flight          // those that have an id: most caches need no allocation
	many map[string]*flight // by id, if there are more
}

// flight is one execution, shared by all callers with an equal request.
type flight struct {
	id     []byte  // see flightID
	shared *shared // nil without followers
}

// shared is the result of a flight, for its followers.
type shared struct {
	done   chan struct{}
	result Result[[]byte] // valid once done is closed, as are the fields below
	err    error
	valid  bool // followers take result and err
}

// NewCache returns a cache in front of next.
func NewCache(next Appender, o CacheOptions) *Cache {
	c := &Cache{next: next, o: o, many: map[string]*flight{}}
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
	id := flightID(in)
	for {
		own, f := c.board(id)
		if own != nil {
			return c.lead(ctx, own, in, dst)
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

// smallRequest is the size up to which requests are compared with each other.
const smallRequest = 4 << 10

// flightID returns the same bytes for equal requests only: a small request itself, and
// otherwise its digest, after a byte with which no item begins.
func flightID(in []byte) []byte {
	if len(in) <= smallRequest {
		return in
	}
	digest := sha256.Sum256(in)
	return append([]byte{0xff}, digest[:]...)
}

// board returns the flight of a request that the caller must execute, or else the one that
// it follows.
func (c *Cache) board(id []byte) (own *flight, follows *shared) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.few {
		switch f := &c.few[i]; {
		case f.id == nil:
			own = f
		case bytes.Equal(f.id, id):
			return nil, f.follow()
		}
	}
	if f := c.many[string(id)]; f != nil {
		return nil, f.follow()
	}
	if own == nil {
		own = &flight{}
		c.many[string(id)] = own
	}
	own.id = id
	return own, nil
}

// follow returns the result that a follower waits for. Cache.mu is held.
func (f *flight) follow() *shared {
	if f.shared == nil {
		f.shared = &shared{done: make(chan struct{})}
	}
	return f.shared
}

// end ends a flight. It returns the result for its followers; nil if it has none.
func (c *Cache) end(own *flight) *shared {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.many) > 0 && c.many[string(own.id)] == own {
		delete(c.many, string(own.id))
	}
	f := own.shared
	*own = flight{}
	return f
}

// lead runs a request, and ends its flight.
func (c *Cache) lead(ctx context.Context, own *flight, in, dst []byte) (result Result[[]byte], err error) {
	landed := false
	defer func() {
		if !landed { // the runner panicked
			c.land(own, Result[[]byte]{}, 0, ErrClosed)
		}
	}()
	result, err = c.run(ctx, in, dst)
	c.land(own, result, len(dst), err)
	landed = true
	return result, err
}

// land ends a flight. Followers get a copy of the output, which belongs to the
// leader's caller.
func (c *Cache) land(own *flight, result Result[[]byte], at int, err error) {
	f := c.end(own)
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
