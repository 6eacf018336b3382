package host

import (
	"context"
	"crypto/sha256"
	"iter"

	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/host/fold"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// finish computes the digest of the outputs and, if all are there, the
// aggregate.
func (x *execution) finish(ctx context.Context, res *Result, stream *fold.Stream, ended bool) error {
	x.tally.enter("fold", event.KindPhase)
	if !ended { // outputs are read anyway, but not folded
		ctx = context.WithoutCancel(ctx)
	}
	counts := x.tally.soFar()
	complete := ended && (counts.Succeeded == counts.Total || x.Partial) && x.mayFold()
	tree, aggregate, foldErr := x.gather(ctx, stream, complete)
	if tree == nil {
		return interrupted(ctx, foldErr)
	}
	if x.outputs.gathered != nil {
		x.tally.setFuel(x.outputs.fuel)
	}
	if err := x.Chunks.Unchanged(); err != nil {
		return err
	}
	count := int(tree.Len())
	if missing := counts.Succeeded - count; missing > 0 {
		if x.outputs.gathered == nil || !x.outputs.gathered.Some {
			return &StoreError{Err: &MissingError{missing}}
		}
		x.tally.setSucceeded(count)
	}
	res.root, res.hashed = tree.Root(), true
	// Stored outputs are counted by the bytes of their chunk: a chunk that failed counts
	// here if another one has the same bytes.
	all := count == counts.Total && counts.Succeeded == counts.Total
	if !ended || !all && !x.Partial || !x.mayFold() {
		return nil
	}
	err := foldErr
	switch {
	case err == nil && aggregate != nil:
		err = x.saveAggregate(ctx, res, aggregate)
	case err == nil:
		err = x.aggregate(ctx, res, count)
	}
	if err != nil || !all {
		return interrupted(ctx, err)
	}
	return x.markFinished(context.WithoutCancel(ctx), res)
}

// gather hashes the outputs. If they must be folded and are not yet, it folds
// them in the same pass. It reads outputs that the stream has not seen from the
// store. If they cannot be read, the tree is nil.
func (x *execution) gather(ctx context.Context, stream *fold.Stream, folds bool) (*merkle.Tree, []byte, error) {
	f := x.streamed()
	if f != nil && !folds {
		f.Cancel()
		f = nil
	}
	if f != nil {
		defer context.AfterFunc(ctx, f.Cancel)()
	}
	tree, next := stream.Seen()
	if next < x.Chunks.Len() {
		if err := x.recorder.Flush(); err != nil { // otherwise the outputs to be read may still be missing
			return nil, nil, x.storeError(err)
		}
	}
	x.outputs.fuel = 0
	for o, err := range x.outputs.from(ctx, next) {
		if err != nil {
			if f != nil {
				err = f.End(err)
			}
			return nil, nil, err
		}
		tree.AddEntry(o.ID, o.Output)
		if f != nil {
			f.Add(o.ID, o.Output)
			f.Wait(x.most())
		}
	}
	if f == nil {
		return tree, nil, nil
	}
	aggregate, err := f.Result()
	x.foldFuel += f.Fuel()
	return tree, aggregate, err
}

// aggregate makes the aggregate of the stored outputs, if the module has one,
// or loads it from the store.
func (x *execution) aggregate(ctx context.Context, res *Result, count int) error {
	if !x.aggregates() {
		return nil
	}
	if !x.Rerun {
		kept, err := x.load(ctx, foldAction(x.outputs.action), res.root)
		if err != nil {
			return err
		}
		res.Aggregate, x.foldFuel = kept.Output, kept.Fuel
		if kept.Output != nil {
			return nil
		}
	}
	aggregate, err := x.fold(ctx, x.outputs.all(ctx, 0, count))
	if err == nil {
		err = x.Chunks.Unchanged() // otherwise it would be stored under the digest of other chunks
	}
	if err != nil {
		return err
	}
	return x.saveAggregate(ctx, res, aggregate)
}

// fold folds outputs.
func (x *execution) fold(ctx context.Context, outputs iter.Seq2[Output, error]) ([]byte, error) {
	f := x.folding
	defer context.AfterFunc(ctx, f.Cancel)()
	for o, err := range outputs {
		if err != nil {
			return nil, f.End(err)
		}
		f.Add(o.ID, o.Output)
		f.Wait(x.most())
	}
	aggregate, err := f.Result()
	x.foldFuel += f.Fuel()
	return aggregate, err
}

// aggregates reports whether the outputs are folded into an aggregate.
func (x *execution) aggregates() bool { return x.Job.folds(x.module) }

// markFinished records that all chunks of this input have stored outputs.
func (x *execution) markFinished(ctx context.Context, res *Result) error {
	return x.save(ctx, endAction(x.outputs.action), x.Chunks.Digest(), store.Value{Output: res.root[:], Fuel: x.tally.outputFuel()})
}

// loadFinished loads the result from the store if the same job succeeded
// before. If the outputs are wanted, or are the result, all of them must still
// be there.
func (x *execution) loadFinished(ctx context.Context, res *Result) error {
	end, err := x.load(ctx, endAction(x.outputs.action), x.Chunks.Digest())
	if err != nil || len(end.Output) != sha256.Size {
		return err
	}
	root := [sha256.Size]byte(end.Output)
	folds := x.aggregates()
	if x.Outputs || !folds {
		there, err := x.root(ctx)
		if err != nil || there != root {
			return err
		}
	}
	if folds {
		aggregate, err := x.load(ctx, foldAction(x.outputs.action), root)
		if err != nil || aggregate.Output == nil {
			return err
		}
		res.Aggregate, x.foldFuel = aggregate.Output, aggregate.Fuel
	}
	res.root, res.hashed, res.finished = root, true, true
	if x.outputs.gathered != nil {
		x.tally.gather(x.outputs.gathered)
		x.tally.setFuel(end.Fuel)
		return nil
	}
	x.tally.reused(end.Fuel)
	return nil
}

// root hashes the stored outputs.
func (x *execution) root(ctx context.Context) (root [sha256.Size]byte, err error) {
	var tree merkle.Tree
	for o, err := range x.outputs.from(ctx, 0) {
		if err != nil {
			return root, err
		}
		tree.AddEntry(o.ID, o.Output)
	}
	return tree.Root(), nil
}

// load returns the stored value of a digest; without one, its output is nil.
func (x *execution) load(ctx context.Context, action store.Action, digest store.Digest) (kept store.Value, err error) {
	err = x.outputs.store.Get(ctx, action, []store.Key{{Chunk: digest}}, func(_ int, v store.Value) error {
		kept = store.Value{Output: append([]byte{}, v.Output...), Fuel: v.Fuel}
		return nil
	})
	if err != nil {
		return store.Value{}, &StoreError{Err: err}
	}
	return kept, nil
}

// saveAggregate stores an aggregate and sets it in the result.
func (x *execution) saveAggregate(ctx context.Context, res *Result, aggregate []byte) error {
	if err := x.save(ctx, foldAction(x.outputs.action), res.root, store.Value{Output: aggregate, Fuel: x.foldFuel}); err != nil {
		return err
	}
	res.Aggregate = aggregate
	return nil
}

func (x *execution) save(ctx context.Context, action store.Action, digest store.Digest, v store.Value) error {
	record := store.Record{Key: store.Key{Chunk: digest}, Value: v}
	if x.recorder.Keep(action, record) {
		return nil
	}
	if err := x.outputs.store.Put(ctx, action, []store.Record{record}); err != nil {
		return &StoreError{Err: err}
	}
	return nil
}
