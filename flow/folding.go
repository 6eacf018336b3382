package flow

import (
	"context"
	"sync"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/fold"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// folding folds entries with a module. Its calls run in goroutines of their own,
// for which result and cancel wait. A nil folding has nothing to end.
type folding struct {
	pool  *foldPool
	fold  *fold.Fold
	calls sync.WaitGroup
	own   bool // the pool is closed with the folding
	async bool // add does not wait for calls
	// instances counts those of its own pool, after the end.
	instances runtime.Stats
}

// foldPool lends instances for the folds of one module. It is safe for concurrent use.
type foldPool struct {
	ctx    context.Context
	module *Module
	slots  chan struct{} // of calls that run; pools may share it
	open   sync.Once
	pool   *runtime.Pool
	err    error
}

func newFoldPool(ctx context.Context, m *Module, slots chan struct{}) *foldPool {
	return &foldPool{ctx: ctx, module: m, slots: slots}
}

// prepare opens the pool the first time.
func (p *foldPool) prepare() error {
	p.open.Do(func() { p.pool, p.err = p.module.Prepare(p.ctx, p.module.Settings) })
	return p.err
}

// close closes the pool after its last fold, and returns the numbers of its instances.
func (p *foldPool) close() (s runtime.Stats) {
	if p.pool != nil {
		p.pool.Close()
		s, p.pool = p.pool.Stats(), nil
	}
	return s
}

func newFolding(ctx context.Context, m *Module, workers int) *folding {
	f := newFoldPool(ctx, m, make(chan struct{}, workers)).begin(ctx)
	f.own = true
	return f
}

// begin begins a fold.
func (p *foldPool) begin(ctx context.Context) *folding {
	f := &folding{pool: p}
	f.fold = fold.New(ctx, p.module.Exports(abi.ExportMerge), f.ready)
	return f
}

// ready makes a call as soon as a slot is free.
func (f *folding) ready(call int) {
	f.calls.Go(func() {
		f.pool.slots <- struct{}{}
		defer func() { <-f.pool.slots }()
		if f.pool.prepare() != nil {
			f.fold.Cancel()
			return
		}
		instance := f.pool.pool.Borrow(nil)
		defer instance.Release()
		f.fold.Call(call, instance)
	})
}

// add adds an entry, which must be the next in item order.
func (f *folding) add(id abi.ID, data []byte) {
	if f.fold.Add(id, data); !f.async {
		f.fold.Wait(cap(f.pool.slots))
	}
}

// busy reports whether add would wait if it were not async. A nil folding is not busy.
func (f *folding) busy() bool { return f != nil && f.fold.Busy(cap(f.pool.slots)) }

// result returns the module's aggregate, and ends the folding.
func (f *folding) result() (v store.Value, err error) {
	v.Output, err = f.fold.Result()
	v.Fuel = f.fold.Fuel()
	f.cancel()
	if f.pool.err != nil {
		err = f.pool.err
	}
	return v, err
}

// cancel ends the folding.
func (f *folding) cancel() {
	if f == nil {
		return
	}
	f.fold.Cancel()
	f.calls.Wait()
	if f.own {
		addStats(&f.instances, f.pool.close())
	}
}

func addStats(sum *runtime.Stats, s runtime.Stats) {
	sum.Created += s.Created
	sum.Resets += s.Resets
	sum.Closed += s.Closed
	sum.Memory = max(sum.Memory, s.Memory)
}
