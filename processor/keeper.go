package processor

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Bounds of outputs that wait to be put.
const (
	// gatherTime is how long outputs are gathered if no caller waits for them.
	gatherTime = 10 * time.Millisecond
	// maxUnput is the limit of outputs that wait to be put, in bytes; more are dropped,
	// except for a single one. Each record counts unputSize bytes in addition. A caller
	// that waits may give up, and its output still waits.
	maxUnput  = 64 << 20
	unputSize = 200
)

// errDropped is reported for an output that is dropped because the store is too slow.
var errDropped = errors.New("an output was not kept: outputs come faster than the store takes them")

// keeper puts outputs in batches: the next batch fills while one is put. It is safe
// for concurrent use.
type keeper struct {
	store  store.Store
	action store.Action
	tell   func(error)
	failed atomic.Uint64
	hurry  chan struct{} // closed when batches must be put without waiting for more

	mu      sync.Mutex // guards the fields below
	next    batch
	urgent  chan struct{} // has room for one: a caller waits for the next batch
	running bool          // a goroutine puts batches
	ended   *sync.Cond    // of running
	puts    uint64        // records so far; gives records their order
}

// batch is the records of one Put.
type batch struct {
	records []store.Record
	bytes   int
	waiting []chan error // of the callers that wait for it, each with room for one
}

func newKeeper(s store.Store, a store.Action, tell func(error)) *keeper {
	k := &keeper{store: s, action: a, tell: tell, hurry: make(chan struct{}), urgent: make(chan struct{}, 1)}
	k.ended = sync.NewCond(&k.mu)
	return k
}

// later has a record put soon.
func (k *keeper) later(r store.Record) { _ = k.add(r, nil) } // the error was told

// now has a record put, and waits for it. The error is the store's, ctx's or errDropped.
func (k *keeper) now(ctx context.Context, r store.Record) error {
	done := make(chan error, 1)
	if err := k.add(r, done); err != nil {
		return err
	}
	select {
	case k.urgent <- struct{}{}:
	default:
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// add adds a record, whose output is copied, to the next batch. done, if not nil, gets the
// result of its put. The error is errDropped, after it was counted and told.
func (k *keeper) add(r store.Record, done chan error) error {
	k.mu.Lock()
	if len(k.next.records) > 0 && k.next.bytes+len(r.Output)+unputSize > maxUnput {
		k.mu.Unlock()
		k.failed.Add(1)
		k.tell(&StoreError{errDropped})
		return errDropped
	}
	defer k.mu.Unlock()
	if done != nil {
		k.next.waiting = append(k.next.waiting, done)
	}
	r.Output = bytes.Clone(r.Output)
	r.Order = abi.IntID(k.puts).AppendOrderKey(nil)
	k.puts++
	k.next.records = append(k.next.records, r)
	k.next.bytes += len(r.Output) + unputSize
	if !k.running {
		k.running = true
		go k.put() // until no record is left; close waits for it
	}
	return nil
}

// put puts batches until no record is left.
func (k *keeper) put() {
	for {
		k.gather()
		k.mu.Lock()
		b := k.next
		k.next = batch{}
		if len(b.records) == 0 {
			k.running = false
			k.ended.Broadcast()
			k.mu.Unlock()
			return
		}
		k.mu.Unlock()
		err := k.store.Put(context.Background(), k.action, b.records)
		if err != nil {
			k.failed.Add(uint64(len(b.records)))
			k.tell(&StoreError{err})
		}
		for _, done := range b.waiting {
			done <- err
		}
	}
}

// gather waits for more records, unless a caller waits already.
func (k *keeper) gather() {
	timer := time.NewTimer(gatherTime)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-k.urgent:
	case <-k.hurry:
	}
}

// close waits until all records are put. No more may be added.
func (k *keeper) close() {
	close(k.hurry)
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.running {
		k.ended.Wait()
	}
}
