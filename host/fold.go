package host

import (
	"context"
	"crypto/sha256"
	"errors"
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
	if missing := r.counts.Succeeded - count; missing > 0 {
		return &StoreError{missingError(missing)}
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
// be done and cannot have been done before: those that the stream has not seen
// are read from the store. The tree is nil where they could not be.
func (r *run) gather(ctx context.Context, res *Result, ended bool) (*merkle.Tree, []byte, error) {
	s := r.stream
	f := s.folder
	if complete := r.counts.Succeeded == r.counts.Total || r.Partial; f != nil && !(ended && complete) {
		f.cancel()
		f = nil
	}
	if f != nil {
		defer context.AfterFunc(ctx, f.cancel)()
		f.submit = f.spawn
		for _, c := range s.later {
			f.spawn(c)
		}
	}
	for o, err := range res.outputsFrom(ctx, s.next) {
		if err != nil {
			return nil, nil, f.end(err)
		}
		s.tree.AddEntry(o.ID, o.Output)
		f.addEntry(o.ID, o.Output)
	}
	if f == nil {
		return &s.tree, nil, nil
	}
	aggregate, err := f.result(ctx)
	return &s.tree, aggregate, err
}

// tree hashes the outputs that the store has.
func (res *Result) tree(ctx context.Context) (*merkle.Tree, error) {
	tree := new(merkle.Tree)
	for o, err := range res.Outputs(ctx) {
		if err != nil {
			return nil, err
		}
		tree.AddEntry(o.ID, o.Output)
	}
	return tree, nil
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
	folds := r.aggregates()
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

// aggregates reports whether the outputs are folded into an aggregate.
func (r *run) aggregates() bool { return r.module.Exports(abi.ExportAggregate) && !r.NoFold }

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
	if !r.aggregates() {
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
	f := r.newFolder(ctx)
	f.submit = f.spawn
	for o, err := range outputs {
		if err == nil {
			err = f.ctx.Err() // a call failed
		}
		if err != nil {
			return nil, f.end(err)
		}
		f.addEntry(o.ID, o.Output)
	}
	return f.result(ctx)
}

// newFolder returns the folder of outputs.
func (r *run) newFolder(ctx context.Context) *folder {
	f := &folder{run: r, function: abi.ExportAggregate, groups: r.module.Exports(abi.ExportMerge), least: 1}
	f.start(ctx)
	return f
}

// result closes the folder of outputs and merges the partial aggregates.
func (f *folder) result(ctx context.Context) ([]byte, error) {
	f.close()
	if err := f.end(nil); err != nil {
		return nil, err
	}
	for len(f.partials) > 1 {
		next := &folder{run: f.run, function: abi.ExportMerge, groups: true, least: 2}
		next.start(ctx)
		next.submit = next.spawn
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

// folder makes groups of elements, each a CBOR item, and has a function of the
// guest called for each group. Its methods are called one at a time, but for
// foldCall.make; on a nil folder, those of adding and ending do nothing.
type folder struct {
	run      *run
	function string
	groups   bool           // several groups are allowed
	least    int            // elements of a group before its bytes count
	submit   func(foldCall) // sees to it that a call is made

	ctx      context.Context
	cancel   context.CancelFunc
	slots    chan struct{} // one for each call that spawn may have running
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

// foldCall is a call of the guest for one group.
type foldCall struct {
	of    *folder
	group int
	input []byte
}

// headRoom is the size of the longest head of an array.
const headRoom = 9

func (f *folder) start(ctx context.Context) {
	f.ctx, f.cancel = context.WithCancel(ctx)
	f.slots = make(chan struct{}, f.run.config.Workers)
}

// addEntry adds the element [id, output], unless a call failed.
func (f *folder) addEntry(id abi.ID, output []byte) {
	if f == nil || f.ctx.Err() != nil {
		return
	}
	f.entry = abi.AppendEntry(f.entry[:0], id, output)
	f.add(f.entry)
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

// flush has the function called for the open group, and begins a new one.
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
	f.submit(foldCall{f, group, input})
}

// spawn makes a call on an instance and a goroutine of its own, as soon as
// fewer than the job has workers are running.
func (f *folder) spawn(c foldCall) {
	f.slots <- struct{}{}
	f.calls.Go(func() {
		defer func() { <-f.slots }()
		instance := f.run.pool.Lease(nil)
		defer instance.Release()
		c.make(instance)
	})
}

// make calls the guest. It is safe for concurrent use, on one instance each.
func (c foldCall) make(instance Instance) {
	f := c.of
	output, fuel, err := instance.Call(f.ctx, f.function, c.input, nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.partials[c.group] = output
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
	if f == nil {
		return err
	}
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
