package host

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// The bounds of a group of outputs or partial aggregates, where the module can
// merge: a group is closed before the element that would make it exceed one of
// them, and has one element at least, for merge two. Which elements form a
// group therefore depends on ids and outputs alone. They are part of the
// guest ABI (abi/ABI.md): other bounds can give other results.
const (
	groupCount = 10_000
	groupBytes = 8 << 20
)

// finish computes the outputs' digest and, where complete, the aggregate.
func (r *run) finish(ctx context.Context, res *Result, ended bool) error {
	r.enter("fold", KindPhase)
	if !ended { // what is there is read in any case, and folded in none
		ctx = context.WithoutCancel(ctx)
	}
	tree, aggregate, foldErr := r.gather(ctx, res, ended)
	if tree == nil {
		return interrupted(ctx, foldErr)
	}
	if err := r.Chunks.Unchanged(); err != nil {
		return err
	}
	count := int(tree.Len())
	if count < r.counts.Succeeded {
		return &StoreError{fmt.Errorf("%d outputs that were stored are missing: run the job again", r.counts.Succeeded-count)}
	}
	res.outputs, res.hashed = tree.Root(), true
	all := count == r.counts.Total
	if !ended || !all && !r.Partial {
		return nil
	}
	err := foldErr
	switch {
	case err == nil && aggregate != nil:
		err = r.keep(ctx, res, aggregate)
	case err == nil:
		err = r.aggregated(ctx, res)
	}
	if err != nil || !all {
		return interrupted(ctx, err)
	}
	return r.remember(context.WithoutCancel(ctx), res)
}

// gather hashes the outputs, and folds them in the same pass where that is to
// be done and cannot have been done before. The tree is nil where the outputs
// could not be read.
func (r *run) gather(ctx context.Context, res *Result, ended bool) (tree *merkle.Tree, aggregate []byte, err error) {
	complete := r.counts.Succeeded == r.counts.Total || r.Partial
	if !ended || !complete || r.lookup || !r.module.Exports(abi.ExportAggregate) {
		tree, err = res.tree(ctx)
		return tree, nil, err
	}
	tree = new(merkle.Tree)
	aggregate, err = r.fold(ctx, res.hashing(ctx, tree))
	if err != nil { // perhaps before all were read; the digest is reported in any case
		var readErr error
		if tree, readErr = res.tree(context.WithoutCancel(ctx)); readErr != nil {
			return nil, nil, readErr
		}
	}
	return tree, aggregate, err
}

// tree hashes the outputs that the store has.
func (res *Result) tree(ctx context.Context) (*merkle.Tree, error) {
	tree := new(merkle.Tree)
	for _, err := range res.hashing(ctx, tree) {
		if err != nil {
			return nil, err
		}
	}
	return tree, nil
}

// hashing yields the outputs, each after it was added to the tree.
func (res *Result) hashing(ctx context.Context, tree *merkle.Tree) iter.Seq2[Output, error] {
	return func(yield func(Output, error) bool) {
		for o, err := range res.Outputs(ctx) {
			if err == nil {
				tree.AddEntry(o.ID, o.Output)
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

// remember notes that all chunks of this input have their outputs stored.
func (r *run) remember(ctx context.Context, res *Result) error {
	record := store.Record{
		Key:   store.Key{Chunk: r.Chunks.Digest()},
		Value: store.Value{Output: res.outputs[:], Fuel: r.fuel},
	}
	if err := r.store.Put(ctx, endAction(r.action), []store.Record{record}); err != nil {
		return &StoreError{err}
	}
	return nil
}

// recall takes the result from the store, where the same job succeeded before.
// A job whose outputs are wanted, or are its result, must still have all of
// them.
func (r *run) recall(ctx context.Context, res *Result) error {
	end, err := r.kept(ctx, endAction(r.action), r.Chunks.Digest())
	if err != nil || len(end.Output) != len(res.outputs) {
		return err
	}
	outputs := [sha256.Size]byte(end.Output)
	folds := r.module.Exports(abi.ExportAggregate)
	if r.Outputs || !folds {
		tree, err := res.tree(ctx)
		if err != nil || tree.Root() != outputs {
			return err
		}
	}
	if folds {
		aggregate, err := r.kept(ctx, foldAction(r.action), outputs)
		if err != nil || aggregate.Output == nil {
			return err
		}
		res.Aggregate, r.foldFuel = aggregate.Output, aggregate.Fuel
	}
	r.fuel = end.Fuel
	res.outputs, res.hashed, res.finished = outputs, true, true
	r.counts.Succeeded, r.counts.Reused = r.counts.Total, r.counts.Total
	r.reportReuse()
	return nil
}

// reportReuse tells the observer that every chunk was reused.
func (r *run) reportReuse() {
	if !r.observed {
		return
	}
	events := make([]Event, 0, maxBatch)
	for i := range r.counts.Total {
		id := r.Chunks.ID(i)
		events = append(events, Event{Time: time.Now(), Kind: KindReused, ID: &id})
		if len(events) == maxBatch || i == r.counts.Total-1 {
			r.config.Observer.Observe(events)
			events = make([]Event, 0, maxBatch)
		}
	}
}

// aggregated makes the aggregate, where the module has one.
func (r *run) aggregated(ctx context.Context, res *Result) error {
	if !r.module.Exports(abi.ExportAggregate) {
		return nil
	}
	kept, err := r.kept(ctx, foldAction(r.action), res.outputs)
	if err != nil {
		return err
	}
	res.Aggregate, r.foldFuel = kept.Output, kept.Fuel
	if kept.Output != nil {
		return nil
	}
	aggregate, err := r.fold(ctx, res.Outputs(ctx))
	if err == nil {
		err = r.Chunks.Unchanged() // else it would be kept for outputs that it is not made of
	}
	if err != nil {
		return err
	}
	return r.keep(ctx, res, aggregate)
}

// kept returns what the store has under a digest; its output is nil where there
// is nothing.
func (r *run) kept(ctx context.Context, action store.Action, digest store.Digest) (kept store.Value, err error) {
	err = r.store.Get(ctx, action, []store.Key{{Chunk: digest}}, func(_ int, v store.Value) error {
		kept = store.Value{Output: append([]byte{}, v.Output...), Fuel: v.Fuel}
		return nil
	})
	if err != nil {
		return store.Value{}, &StoreError{err}
	}
	return kept, nil
}

// keep takes an aggregate for the result, and stores it.
func (r *run) keep(ctx context.Context, res *Result, aggregate []byte) error {
	record := store.Record{
		Key:   store.Key{Chunk: res.outputs},
		Value: store.Value{Output: aggregate, Fuel: r.foldFuel},
	}
	if err := r.store.Put(ctx, foldAction(r.action), []store.Record{record}); err != nil {
		return &StoreError{err}
	}
	res.Aggregate = aggregate
	return nil
}

// fold calls aggregate, and merge where there are several groups.
func (r *run) fold(ctx context.Context, outputs iter.Seq2[Output, error]) ([]byte, error) {
	f := &folder{run: r, function: abi.ExportAggregate, groups: r.module.Exports(abi.ExportMerge), least: 1}
	f.start(ctx)
	for o, err := range outputs {
		if err == nil {
			err = f.ctx.Err() // a call failed
		}
		if err != nil {
			return nil, f.end(err)
		}
		f.entry = abi.AppendEntry(f.entry[:0], o.ID, o.Output)
		f.add(f.entry)
	}
	f.close()
	if err := f.end(nil); err != nil {
		return nil, err
	}
	for len(f.partials) > 1 {
		next := &folder{run: r, function: abi.ExportMerge, groups: true, least: 2}
		next.start(ctx)
		for _, p := range f.partials {
			next.add(p)
		}
		next.close()
		if err := next.end(nil); err != nil {
			return nil, err
		}
		f = next
	}
	return f.partials[0], nil
}

// folder makes groups of elements, each a CBOR item, and calls a function of
// the guest for each group, on as many instances as the job has workers.
type folder struct {
	run      *run
	function string
	groups   bool // several groups are allowed
	least    int  // elements of a group before its bytes count

	ctx      context.Context
	cancel   context.CancelFunc
	slots    chan struct{} // one for each call that may run
	calls    sync.WaitGroup
	mu       sync.Mutex
	partials [][]byte // one for each group; mu, while calls run
	err      error    // the first, by time; mu
	fuel     uint64   // of all calls; mu

	entry    []byte
	elements []byte // of the open group, behind room for the array's head
	count    int    // of the open group
	made     int    // groups so far
}

// headRoom is the size of the longest head of an array.
const headRoom = 9

func (f *folder) start(ctx context.Context) {
	f.ctx, f.cancel = context.WithCancel(ctx)
	f.slots = make(chan struct{}, f.run.config.Workers)
}

// add puts an element into the open group, or closes that before.
func (f *folder) add(element []byte) {
	full := f.count >= groupCount || len(f.elements)-headRoom+len(element) > groupBytes
	if f.groups && f.count >= f.least && full {
		f.flush()
	}
	if f.count == 0 {
		f.elements = append(f.elements[:0], make([]byte, headRoom)...)
	}
	f.elements = append(f.elements, element...)
	f.count++
}

// close calls the function for the last group. With merge, a last group of one
// partial aggregate is passed on as it is.
func (f *folder) close() {
	switch {
	case f.count == 1 && f.function == abi.ExportMerge:
		f.mu.Lock()
		f.partials = append(f.partials, append([]byte{}, f.elements[headRoom:]...))
		f.mu.Unlock()
	case f.count > 0 || f.made == 0:
		f.flush()
	}
}

// flush calls the function for the open group and begins a new one.
func (f *folder) flush() {
	if f.count == 0 {
		f.elements = make([]byte, headRoom)
	}
	head := abi.AppendHead(nil, abi.MajorArray, uint64(f.count))
	input := f.elements[headRoom-len(head):]
	copy(input, head)
	group := f.made
	f.made++
	f.mu.Lock()
	f.partials = append(f.partials, nil)
	f.mu.Unlock()
	f.elements, f.count = nil, 0
	f.slots <- struct{}{}
	f.calls.Go(func() {
		defer func() { <-f.slots }()
		f.call(group, input)
	})
}

func (f *folder) call(group int, input []byte) {
	instance := f.run.pool.Lease(nil)
	defer instance.Release()
	output, fuel, err := instance.Call(f.ctx, f.function, input, nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.partials[group] = output
	f.fuel += fuel
	if failure, ok := errors.AsType[*abi.Failure](err); ok {
		err = &FoldError{f.function, failure}
	}
	if err != nil && f.err == nil {
		f.err = err
		f.cancel()
	}
}

// end waits for the calls and returns the first error.
func (f *folder) end(err error) error {
	f.mu.Lock()
	if f.err == nil {
		f.err = err
	}
	f.mu.Unlock()
	if err != nil {
		f.cancel()
	}
	f.calls.Wait()
	f.cancel()
	f.run.foldFuel += f.fuel
	return f.err
}
