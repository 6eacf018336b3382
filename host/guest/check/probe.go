package check

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/guest"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Probe is one way in which all calls were made, and its differences from the first
// way.
type Probe struct {
	Name        string // such as "in reverse order"
	Calls       int
	Skipped     int          // number of calls not made because of the time limit, or whose failure depends on time or on the engine
	Count       int          // number of calls that differ
	Differences []Difference // the first of these, at most three
}

// Difference is a call with another result than the first time.
type Difference struct {
	Call       string // name of the call
	First, Now guest.CallResult
}

// maxDifferences is the number of differences that are kept for a probe.
const maxDifferences = 3

// compare returns the differences of other from base.
func compare(name string, calls []Call, base, other []guest.CallResult) *Probe {
	p := &Probe{Name: name, Calls: len(calls)}
	for i := range calls {
		a, b := &base[i], &other[i]
		if !a.Comparable() || !b.Comparable() {
			p.Skipped++
			continue
		}
		if a.Same(b) {
			continue
		}
		if p.Count++; p.Count <= maxDifferences {
			p.Differences = append(p.Differences, Difference{calls[i].Name, *a, *b})
		}
	}
	return p
}

// prober makes calls of one module.
type prober struct {
	options  *Options
	settings runtime.Settings
	compiler *runtime.Runtime
	module   *runtime.Module
	compiled time.Duration // time to compile module
	calls    []Call
}

// open compiles the module.
func open(ctx context.Context, wasm []byte, o *Options) (*prober, error) {
	compiler, err := runtime.New(ctx, runtime.Config{CacheDir: o.CacheDir})
	if err != nil {
		return nil, err
	}
	start := time.Now()
	module, err := compiler.Compile(ctx, wasm, runtime.Options{})
	if err != nil {
		return nil, errors.Join(err, compiler.Close(context.WithoutCancel(ctx)))
	}
	return &prober{options: o, settings: o.Settings, compiler: compiler, module: module, compiled: time.Since(start)}, nil
}

func (p *prober) close() { _ = p.compiler.Close(context.Background()) }

// first makes the calls for the first time: those of exec, and those of aggregate
// and merge on their outputs. It returns the number of calls of exec, and all
// results.
func (p *prober) first(ctx context.Context) (execs int, results []guest.CallResult, err error) {
	source := p.options.Calls
	if source == nil {
		source = Samples
	}
	if p.calls, err = source(ctx, p.module.Description()); err != nil {
		return 0, nil, err
	}
	if len(p.calls) == 0 {
		return 0, nil, ErrNoCalls
	}
	if results, err = p.run(ctx, variant{}); err != nil {
		return 0, nil, err
	}
	execs = len(p.calls)
	if !p.module.Exports(abi.ExportAggregate) {
		return execs, results, nil
	}
	folded, err := p.more(ctx, folds(results))
	if err != nil {
		return 0, nil, err
	}
	results = append(results, folded...)
	if !p.module.Exports(abi.ExportMerge) {
		return execs, results, nil
	}
	merged, err := p.more(ctx, merge(folded))
	return execs, append(results, merged...), err
}

// more makes calls and adds them to the calls that all variants make.
func (p *prober) more(ctx context.Context, calls []Call) ([]guest.CallResult, error) {
	if len(calls) == 0 {
		return nil, nil
	}
	results, err := p.with(calls).run(ctx, variant{})
	p.calls = append(p.calls, calls...)
	return results, err
}

// with returns a prober with other calls.
func (p *prober) with(calls []Call) *prober {
	other := *p
	other.calls = calls
	return &other
}

// variant is a way to make the calls.
type variant struct {
	name      string
	module    *runtime.Module // nil means the prober's module
	isolation runtime.Isolation
	seed      uint64                          // added to the seed of the settings
	order     []int                           // of calls; nil means as listed
	workers   int                             // 0 means 1
	limit     time.Duration                   // no call begins after it; 0 means none
	midway    func(ctx context.Context) error // called after half of the calls
}

// run makes all calls. Failures of the guest are in the results; a call that was
// not made because of the time limit is not Done.
func (p *prober) run(ctx context.Context, v variant) ([]guest.CallResult, error) {
	if v.module == nil {
		v.module = p.module
	}
	settings := p.settings
	settings.Isolation, settings.Seed = v.isolation, settings.Seed+v.seed
	pool, err := v.module.Prepare(ctx, settings)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	if v.order == nil {
		v.order = inOrder(len(p.calls))
	}
	results := make([]guest.CallResult, len(p.calls))
	queue := &queue{order: v.order, limit: v.limit, start: time.Now()}
	if v.midway == nil {
		v.midway = func(context.Context) error { return nil }
	}
	return results, parallel(max(v.workers, 1), func() error {
		instance := pool.Borrow(nil)
		defer instance.Release()
		for i, ok := queue.next(); ok; i, ok = queue.next() {
			result, err := guest.Call(ctx, instance, p.calls[i].Function, p.calls[i].Input)
			if results[i] = result; err != nil {
				return err
			}
			if i == len(p.calls)/2 {
				if err := v.midway(ctx); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// queue gives each call to one worker, until the time limit.
type queue struct {
	order []int
	limit time.Duration // 0 means none
	start time.Time
	taken atomic.Int64
}

func (q *queue) next() (call int, ok bool) {
	n := int(q.taken.Add(1)) - 1
	if n >= len(q.order) || q.limit > 0 && time.Since(q.start) > q.limit {
		return 0, false
	}
	return q.order[n], true
}

// parallel runs work n times at once, and waits for all.
func parallel(n int, work func() error) error {
	if n == 1 {
		return work()
	}
	errs := make([]error, n)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { errs[i] = work() })
	}
	wait.Wait()
	return errors.Join(errs...)
}

func inOrder(n int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	return order
}

func reversed(n int) []int {
	order := inOrder(n)
	slices.Reverse(order)
	return order
}

// shuffled returns the same order each time.
func shuffled(n int) []int { return rand.New(rand.NewPCG(1, 2)).Perm(n) }

// Limits of a probe.
const (
	slowProbe    = 10 * time.Second // no call of a slow probe begins after it
	probeWorkers = 4
)

// probeAll makes the calls in all other ways.
func (r *Report) probeAll(ctx context.Context, wasm []byte, p *prober, first []guest.CallResult) error {
	interpreter, err := runtime.New(ctx, runtime.Config{Interpreter: true})
	if err != nil {
		return err
	}
	defer interpreter.Close(context.WithoutCancel(ctx))
	interpreted, err := interpreter.Compile(ctx, wasm, runtime.Options{})
	if err != nil {
		return err
	}
	switching, err := runtime.New(ctx, runtime.Config{Auto: true, AutoSize: 1})
	if err != nil {
		return err
	}
	defer switching.Close(context.WithoutCancel(ctx))
	switched, err := switching.Compile(ctx, wasm, runtime.Options{})
	if err != nil {
		return err
	}
	n := len(p.calls)
	for _, v := range []variant{
		{name: "the same again"},
		{name: "in reverse order", order: reversed(n)},
		{name: "in another order", order: shuffled(n)},
		{name: fmt.Sprintf("by %d workers", probeWorkers), order: shuffled(n), workers: probeWorkers},
		{name: "on a new instance for each call", isolation: runtime.IsolationInstance, limit: slowProbe},
		{name: "on the interpreter", module: interpreted, limit: slowProbe},
		{name: "on the interpreter, and then compiled", module: switched, midway: switched.Finish, limit: slowProbe},
	} {
		results, err := p.run(ctx, v)
		if err != nil {
			return err
		}
		r.Probes = append(r.Probes, compare(v.name, p.calls, first, results))
	}
	if err := r.probeElsewhere(ctx, p, first); err != nil {
		return err
	}
	return r.probeImpurity(ctx, wasm, p, first, interpreter)
}

// CountError reports that another process made other calls, because the module or
// the chunks are being changed.
type CountError struct{ Here, Elsewhere int } // calls

// Error has both counts.
func (e *CountError) Error() string {
	return fmt.Sprintf("another process made %d calls, and this one %d: the module or the chunks are being changed", e.Elsewhere, e.Here)
}

func (r *Report) probeElsewhere(ctx context.Context, p *prober, first []guest.CallResult) error {
	if p.options.Elsewhere == nil {
		return nil
	}
	results, err := p.options.Elsewhere(ctx)
	if err != nil {
		return err
	}
	if len(results) != len(p.calls) {
		return &CountError{len(p.calls), len(results)}
	}
	r.Probes = append(r.Probes, compare("in another process", p.calls, first, results))
	return nil
}

// probeImpurity makes the calls in ways that a job never uses, to find out how the
// module behaves there.
func (r *Report) probeImpurity(ctx context.Context, wasm []byte, p *prober, first []guest.CallResult, interpreter *runtime.Runtime) error {
	if r.Description.Isolation != runtime.IsolationInstance {
		left, err := p.run(ctx, variant{isolation: runtime.IsolationNone})
		if err != nil {
			return err
		}
		r.foundBy(LeavesState, compare("without fresh state", p.calls, first, left))
	}
	seeded, err := p.run(ctx, variant{seed: 1})
	if err != nil {
		return err
	}
	r.foundBy(UsesRandom, compare("with another seed", p.calls, first, seeded))
	native, err := interpreter.Compile(ctx, wasm, runtime.Options{NativeNaNs: true})
	if err != nil {
		return err
	}
	nans, err := p.run(ctx, variant{module: native, limit: slowProbe})
	if err != nil {
		return err
	}
	for i := range nans { // Without canonical NaNs, calls take less fuel.
		nans[i].Fuel = first[i].Fuel
	}
	r.foundBy(MakesNaNs, compare("with the machine's NaNs", p.calls, first, nans))
	return nil
}

// foundBy adds a finding if its probe differs.
func (r *Report) foundBy(kind Kind, p *Probe) {
	if p.Count > 0 {
		r.Found = append(r.Found, Remark{Kind: kind, Probe: p})
	}
}

// largeChunk is a size for which a guest should at least have room, in bytes.
const largeChunk = 1 << 20

// probeLarge passes a long byte string. A guest may refuse it, but should have room
// for it.
func (r *Report) probeLarge(ctx context.Context, p *prober) error {
	chunk := append(abi.AppendHead(nil, abi.MajorBytes, largeChunk), make([]byte, largeChunk)...)
	results, err := p.with([]Call{{"a chunk of 1 MiB", abi.ExportExec, chunk}}).run(ctx, variant{})
	if err != nil {
		return err
	}
	f := results[0].Failure
	if f != nil && slices.Contains([]abi.Class{abi.ClassMemory, abi.ClassABI, abi.ClassTrap}, f.Class) {
		r.hint(Remark{Kind: LargeChunkFails, Failure: f})
	}
	return nil
}
