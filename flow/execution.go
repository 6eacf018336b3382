package flow

import (
	"context"
	"errors"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// execution is one run of a flow in this process. It belongs to the goroutine of
// Run.
type execution struct {
	Run
	config   Config
	plan     *plan
	started  time.Time
	held     []bool // states that hold the items that reach them
	store    store.Store
	ownStore *store.Memory // closed at the end; nil = none
	replay   *replay
	walk     *walk
	before   totals // of the walk, when something had to be executed
	live     *live  // nil if nothing had to be executed
	record   *record
	folding  *folding // of the result; nil = not begun
	output   []byte
	foldFuel uint64
	folds    runtime.Stats // of the instances that folded the result
}

func (x *execution) closeStore() {
	if x.ownStore != nil {
		x.ownStore.Close()
	}
}

// run walks through the known steps, executes the others, and walks to the end.
func (x *execution) run(ctx context.Context) error {
	x.observe()
	defer x.observe()
	defer func() { x.folding.cancel() }()
	done, err := x.walk.run(ctx)
	if err == nil && x.replay.stale != nil {
		err = x.replay.stale
	}
	if err != nil {
		return interruptedBy(ctx, err)
	}
	if !done {
		err := x.execute(ctx)
		x.replay.rerun = false // what is stored now is of this run
		if err != nil && x.live != nil && x.live.follow.broken() {
			return err
		}
		if err != nil {
			return errors.Join(interruptedBy(ctx, err), x.survey(ctx))
		}
		if x.live.holding > 0 {
			return x.survey(ctx)
		}
	}
	return interruptedBy(ctx, x.finish(ctx, !done))
}

// survey gives the sink the items that ended or failed, if the run did not complete.
func (x *execution) survey(ctx context.Context) error {
	if x.Sink == nil && x.Effects == nil {
		return nil
	}
	rest := newWalk(x.replay, x.walk.bounds, x.Sink)
	rest.made = x.Effects
	rest.final, rest.open, rest.next = true, true, x.walk.next
	_, err := rest.run(context.WithoutCancel(ctx))
	return err
}

// interruptedBy returns ErrInterrupted for an error that is ctx's.
func interruptedBy(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return ErrInterrupted
	}
	return err
}

// execute moves all items as far as they go.
func (x *execution) execute(ctx context.Context) error {
	x.observePhase(event.KindPhase, "execute")
	l, err := newLive(ctx, x)
	if err != nil {
		return err
	}
	x.live, x.before = l, x.walk.sum()
	return l.run(ctx)
}

// finish walks to the end, and folds the ended items. If executed is set, steps were
// executed, and the fold is most likely not known: it has begun, or it begins at once
// unless the walk has committed items before.
func (x *execution) finish(ctx context.Context, executed bool) error {
	if m := x.resultModule(); m != nil && executed && x.walk.next == 0 && x.folding == nil {
		x.folding = newFolding(ctx, m, x.config.Workers)
		x.walk.folding = x.folding
	}
	if x.folding != nil {
		x.folding.async = false
	}
	done, err := x.walkOn(ctx)
	x.walk.folding = nil
	if err == nil && !done {
		err = &StoreError{errors.New("a stored output is missing")}
	}
	if err == nil {
		err = x.Input.Unchanged()
	}
	if err != nil || x.walk.failed > 0 && !x.Partial || x.resultModule() == nil {
		return err
	}
	return x.fold(ctx, x.folding)
}

// walkOn is the last walk. If a follower has gone a part of its way, the totals are those
// of the execution: the walk sees only the rest.
func (x *execution) walkOn(ctx context.Context) (done bool, err error) {
	x.walk.final, x.walk.open = true, false
	if x.live == nil || x.live.follow == nil {
		return x.walk.run(ctx)
	}
	if err = x.live.follow.commit(x.Input.Len()); err == nil {
		done, err = x.walk.run(ctx)
	}
	x.walk.totals = x.before.sum()
	x.walk.totals.add(x.live.machine, 0)
	return done, err
}

// resultModule returns the module that makes the result; nil if none does.
func (x *execution) resultModule() *Module {
	if x.plan.result < 0 {
		return nil
	}
	m, _ := x.plan.states[x.plan.result].Fold.(*Module)
	return m
}

// fold folds the ended items, or takes the result from the store.
func (x *execution) fold(ctx context.Context, f *folding) error {
	m, root := x.resultModule(), x.walk.digests.ends[x.plan.result].Root()
	var known store.Value
	var err error
	if !x.Rerun {
		known, err = x.replay.lookFold(ctx, m, root)
	}
	if err != nil || known.Output != nil {
		x.output, x.foldFuel = known.Output, known.Fuel
		return err
	}
	if f == nil {
		f = newFolding(ctx, m, x.config.Workers)
		again := newWalk(x.replay, x.walk.bounds, nil)
		x.folding = f // run ends it
		again.final, again.folding = true, f
		if _, err := again.run(ctx); err != nil {
			return err
		}
	}
	v, err := f.result()
	addStats(&x.folds, f.instances)
	if err != nil {
		return x.foldError(ctx, x.plan.states[x.plan.result].Name, err)
	}
	x.output, x.foldFuel = v.Output, v.Fuel
	return keepFold(ctx, x.store, m, root, v)
}

func (x *execution) foldError(ctx context.Context, state string, err error) error {
	if ctx.Err() != nil {
		return ErrInterrupted
	}
	return &FoldError{state, err}
}

func keepFold(ctx context.Context, s store.Store, m Folder, root store.Digest, v store.Value) error {
	err := s.Put(ctx, foldAction(m), []store.Record{{Key: store.Key{Chunk: root}, Value: v}})
	if err != nil {
		return &StoreError{err}
	}
	return nil
}
