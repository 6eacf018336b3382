package flow

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/worker"
	"github.com/wasm-jobs/wasm-jobs/store"
)

const (
	// keepTime and keepBytes bound the outputs that are held before they are stored. Twice the
	// bytes are held if the store is slower. A batch of as many is stored at once.
	keepTime  = 100 * time.Millisecond
	keepBytes = 1 << 20
	// keptRecord is the size of a record without its output.
	keptRecord = 96
)

// keeping stores outputs of pure steps behind the workers: one commit has the outputs of
// many leases, and of all states. The items move on meanwhile. A crash loses at most the
// outputs of keepTime; their steps are executed again, and give the same outputs.
// Therefore it serves only flows without effects, whose journal has nothing that must not
// be durable before the outputs are. It is safe for concurrent use.
type keeping struct {
	store   store.Store
	actions []store.Action // by state
	wake    chan struct{}  // capacity 1: something is held
	hurry   chan struct{}  // capacity 1: enough is held
	ended   chan struct{}
	broke   chan error // capacity 1: the first error

	mu     sync.Mutex
	room   sync.Cond
	held   []heldOutputs // by state
	bytes  int           // of them
	closed bool
	err    error // nothing more is stored
}

// heldOutputs are outputs of one state that are to be stored.
type heldOutputs struct {
	records []store.Record
	batches []int          // where those of each batch begin
	bytes   []byte         // of records: orders and outputs
	ordered []store.Record // memory for sorted
}

// newKeeping starts the goroutine that stores. It ends with close.
func newKeeping(ctx context.Context, s store.Store, p *plan) *keeping {
	k := &keeping{
		store: s, wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1), ended: make(chan struct{}), broke: make(chan error, 1),
		held: make([]heldOutputs, len(p.states)), actions: make([]store.Action, len(p.states)),
	}
	for i := range p.states {
		k.actions[i] = p.states[i].action
	}
	k.room.L = &k.mu
	go func() {
		defer close(k.ended)
		k.work(context.WithoutCancel(ctx))
	}()
	return k
}

// close stores the held outputs, and returns the first error unless broken gave it.
func (k *keeping) close() error {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	signal(k.wake)
	signal(k.hurry)
	<-k.ended
	select {
	case err := <-k.broke:
		return err
	default:
		return nil
	}
}

// broken returns a channel of the first error.
func (k *keeping) broken() <-chan error {
	if k == nil {
		return nil
	}
	return k.broke
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// keptState is the keeper of one state.
type keptState struct {
	*keeping
	state  int
	action store.Action
}

// Keep implements [worker.Keeper]. It waits if the store is slower than the workers.
func (k keptState) Keep(ctx context.Context, records []store.Record, s *worker.Span) error {
	size := 0
	for i := range records {
		size += len(records[i].Output)
	}
	if size >= keepBytes {
		return outputs{k.store, k.action}.Keep(ctx, records, s)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.bytes >= 2*keepBytes && k.err == nil {
		k.room.Wait()
	}
	if k.err != nil || len(records) == 0 {
		return nil // the error has been reported
	}
	h, before := &k.held[k.state], k.bytes
	h.batches = append(h.batches, len(h.records))
	for i := range records {
		k.bytes += h.add(&records[i])
	}
	if before == 0 {
		signal(k.wake)
	}
	if k.bytes >= keepBytes {
		signal(k.hurry)
	}
	return nil
}

// add copies a record, and returns its size.
func (h *heldOutputs) add(r *store.Record) int {
	size := len(r.Order) + len(r.Output)
	h.bytes = slices.Grow(h.bytes, size)
	from, middle := len(h.bytes), len(h.bytes)+len(r.Order)
	h.bytes = append(append(h.bytes, r.Order...), r.Output...)
	c := *r
	c.Order, c.Output = h.bytes[from:middle:middle], h.bytes[middle:len(h.bytes):len(h.bytes)]
	h.records = append(h.records, c)
	return size + keptRecord
}

// work stores until close is called or the store fails.
func (k *keeping) work(ctx context.Context) {
	timer := time.NewTimer(keepTime)
	defer timer.Stop()
	for spare := make([]heldOutputs, len(k.held)); ; {
		<-k.wake
		timer.Reset(keepTime)
		select {
		case <-k.hurry:
		case <-timer.C:
		}
		var last bool
		spare, last = k.exchange(spare)
		if err := k.put(ctx, spare); err != nil {
			k.fail(err)
			return
		}
		if last {
			return
		}
	}
}

// exchange returns the held outputs. The next ones are held in the memory of spare.
func (k *keeping) exchange(spare []heldOutputs) (full []heldOutputs, last bool) {
	for i := range spare {
		clear(spare[i].records)
		spare[i].records, spare[i].batches, spare[i].bytes = spare[i].records[:0], spare[i].batches[:0], spare[i].bytes[:0]
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	full, k.held, k.bytes = k.held, spare, 0
	select {
	case <-k.hurry: // it was about these
	default:
	}
	k.room.Broadcast()
	return full, k.closed
}

// put stores outputs of all states. The store makes one commit of those that come at once.
func (k *keeping) put(ctx context.Context, full []heldOutputs) error {
	var all sync.WaitGroup
	errs := make([]error, len(full))
	for i := range full {
		if h := &full[i]; len(h.records) > 0 {
			all.Go(func() { errs[i] = h.put(ctx, k.store, k.actions[i]) })
		}
	}
	all.Wait()
	return errors.Join(errs...)
}

func (h *heldOutputs) put(ctx context.Context, s store.Store, action store.Action) error {
	records := h.sorted()
	err := s.Put(ctx, action, records)
	c, conflict := errors.AsType[*store.ConflictError](err)
	if !conflict {
		return err
	}
	i := slices.IndexFunc(records, func(r store.Record) bool { return r.Chunk == c.Chunk })
	id, _ := abi.ParseOrderKey(records[i].Order)
	return worker.NamedConflict(id, c)
}

// sorted returns the records in the order of their keys. Each batch mostly is in order,
// and no other is between its first and its last: that is cheaper than sorting records.
func (h *heldOutputs) sorted() []store.Record {
	batches := make([][]store.Record, len(h.batches))
	for i, from := range h.batches {
		to := len(h.records)
		if i+1 < len(h.batches) {
			to = h.batches[i+1]
		}
		batches[i] = h.records[from:to]
	}
	slices.SortFunc(batches, func(a, b []store.Record) int { return a[0].Compare(b[0].Key) })
	h.ordered = h.ordered[:0]
	for _, b := range batches {
		h.ordered = append(h.ordered, b...)
	}
	records := h.ordered
	if compare := func(a, b store.Record) int { return a.Compare(b.Key) }; !slices.IsSortedFunc(records, compare) {
		slices.SortFunc(records, compare)
	}
	return records
}

// fail reports the error of the store.
func (k *keeping) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err, k.held, k.bytes = err, nil, 0
	k.room.Broadcast()
	k.broke <- err
}
