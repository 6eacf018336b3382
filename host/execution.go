package host

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/host/fold"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
	"github.com/wasm-jobs/wasm-jobs/host/profile"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
	"github.com/wasm-jobs/wasm-jobs/host/worker"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// execution connects the parts that run one job. It holds the state that they
// share; each part owns the rest. It belongs to the goroutine of Run; workers
// read only fields that were set before they started.
type execution struct {
	*Job
	config    *Config
	slots     *worker.Slots
	started   time.Time
	tally     *tally
	outputs   outputReader
	lookup    bool // the store may hold outputs of the action
	module    Module
	pool      Pool
	rechecker Pool // nil if no chunk is rechecked
	isolation Isolation
	recorder  *journal.Recorder
	queue     atomic.Pointer[queue.Memory] // nil before execute
	folding   *fold.Fold                   // nil if outputs are not folded as they arrive
	foldFuel  uint64
}

// run runs the job. If the job or its module is refused, the result is nil.
func (x *execution) run(ctx context.Context) (*Result, error) {
	res := &Result{outputs: &x.outputs, job: x.Job}
	err := x.withSoftStop(ctx, func(ctx context.Context) error { return interrupted(ctx, x.prepare(ctx, res)) })
	refused := isRefusal(err)
	if refused && x.recorder == nil {
		if closing := x.close(); closing != nil {
			err = errors.Join(err, closing)
		}
		x.tally.enter("", event.KindEnd)
		return nil, err
	}
	if err == nil && !res.finished {
		err = x.execute(ctx, res)
	}
	err = errors.Join(x.conclude(ctx, err), x.close())
	res.Report = reportOf(x, res, err)
	err = x.recordEnd(context.WithoutCancel(ctx), res, err)
	x.tally.enter("", event.KindEnd)
	if refused { // by the engine, which saw the code only after the record was started
		return nil, err
	}
	return res, err
}

// recordEnd records how the run ended. If that fails, the run has ended with
// that error.
func (x *execution) recordEnd(ctx context.Context, res *Result, err error) error {
	recordErr := x.recorder.End(ctx, recorded(&res.Report))
	if recordErr == nil {
		return err
	}
	err = errors.Join(err, x.storeError(recordErr))
	res.Report.State, res.Report.Cause = state(&res.Report.Chunks, err), Cause{reason(err), brokenBy(err)}
	x.recorder.Amend(ctx, recorded(&res.Report)) // its error adds nothing
	return err
}

// storeError returns a *StoreError for an error of the journal. A conflict
// includes its chunk.
func (x *execution) storeError(err error) error {
	c, ok := errors.AsType[*store.ConflictError](err)
	if !ok {
		return &StoreError{Err: err}
	}
	read := x.Chunks.Read(context.Background(), 0, x.Chunks.Len(), func(i int, chunk []byte) error {
		if sha256.Sum256(chunk) != c.Chunk {
			return nil
		}
		err = worker.NamedConflict(x.Chunks.ID(i), c)
		return errLeft
	})
	if read != nil && !errors.Is(read, errLeft) {
		err = errors.Join(err, read)
	}
	return &StoreError{Err: err}
}

func isRefusal(err error) bool {
	_, refused := errors.AsType[*runtime.RefusedError](err)
	return refused || errors.Is(err, ErrOtherJob)
}

// close closes the pools.
func (x *execution) close() error {
	var errs []error
	for _, p := range []Pool{x.pool, x.rechecker} {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	return errors.Join(errs...)
}

// withSoftStop calls f with a context that also ends when the job is stopped.
func (x *execution) withSoftStop(ctx context.Context, f func(context.Context) error) error {
	soft, cancel := context.WithCancelCause(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() {
		select {
		case <-x.Stop:
			cancel(ErrInterrupted)
		case <-soft.Done():
		}
	})
	defer watcher.Wait()
	defer cancel(nil)
	return f(soft)
}

// interrupted replaces an error that was caused by the end of ctx: after a stop
// by [ErrInterrupted], otherwise by an error that is also ctx's.
func interrupted(ctx context.Context, err error) error {
	switch {
	case err == nil || ctx.Err() == nil:
		return err
	case errors.Is(context.Cause(ctx), ErrInterrupted):
		return ErrInterrupted
	}
	return interruption{ctx.Err()}
}

// interruption is [ErrInterrupted], caused by the end of a context.
type interruption struct{ cause error }

func (interruption) Error() string { return ErrInterrupted.Error() }

// Is reports whether target is [ErrInterrupted].
func (interruption) Is(target error) bool { return target == ErrInterrupted }

// Unwrap returns the error of the context.
func (i interruption) Unwrap() error { return i.cause }

// prepare compiles the module and makes the first instance, unless the store
// already has the job's result.
func (x *execution) prepare(ctx context.Context, res *Result) (err error) {
	x.tally.enter("compile", event.KindPhase)
	if x.module = x.Admitted; x.module == nil {
		m, err := x.config.Engine.Admit(ctx, x.Module, x.Options)
		if err != nil {
			return err
		}
		x.module = m
	}
	if err := x.module.Fits(x.Settings); err != nil {
		return err
	}
	res.module = x.module
	x.outputs.action = x.Job.action(x.module.Digest(), fixesOf(x.module))
	if err := x.begin(ctx); err != nil {
		return err
	}
	if !x.Rerun {
		if err := x.loadFinished(ctx, res); err != nil || res.finished {
			return err
		}
	}
	if !x.calls() {
		return nil
	}
	if err := x.probeStore(ctx); err != nil {
		return err
	}
	if err := x.module.Compile(ctx); err != nil {
		return err
	}
	x.tally.enter("prepare", event.KindPhase)
	if x.pool, err = x.module.Prepare(ctx, x.Settings); err != nil {
		return err
	}
	x.noteIsolation()
	if x.Recheck != nil {
		x.rechecker, err = x.Recheck.prepare(ctx, x.Job, x.module)
	}
	return err
}

// begin records the run. For a redrive, it checks that the job is Job.Redrive.
func (x *execution) begin(ctx context.Context) (err error) {
	id, recorded := store.JobID(spec.IDOf(x.outputs.action, x.Chunks.Digest())), x.config.Journal != nil
	switch {
	case x.Redrive != nil && (!recorded || id != x.Redrive.Job):
		return fmt.Errorf("%w: want job %s, got job %s%s", ErrOtherJob, journal.Name(x.Redrive.Job)[:12], journal.Name(id)[:12], x.beforeFixes())
	case !recorded:
		return nil
	}
	asked, err := json.Marshal(x.specOf(x.module.Digest(), fixesOf(x.module)))
	if err != nil {
		return err
	}
	name, _ := os.Hostname() // the name may be missing
	total := x.Chunks.Len()
	x.recorder, err = journal.Begin(ctx, x.config.Journal, store.JobRecord{
		ID: id, Action: x.outputs.action, Derived: DerivedActions(x.outputs.action),
		Input: x.Chunks.Digest(), Total: total, Spec: asked,
	}, journal.EncodeIDs(total, x.Chunks.ID), journal.Process{Host: name, PID: os.Getpid(), Workers: x.config.Workers, Rerun: x.Job.Rerun}, x.active, x.tally.detail < event.Chunks)
	if err != nil {
		return &StoreError{Err: err}
	}
	x.tally.add(x.recorder)
	return nil
}

// beforeFixes returns a note if the job to be redriven is this one before a fix
// of the engine that affects its module; otherwise "".
func (x *execution) beforeFixes() string {
	for fixes := range fixesOf(x.module) {
		if store.JobID(spec.IDOf(x.Job.action(x.module.Digest(), fixes), x.Chunks.Digest())) == x.Redrive.Job {
			return "; the engine may have compiled its module wrongly then: run it as a new job"
		}
	}
	return ""
}

// active returns the active leases.
func (x *execution) active() (leases []journal.Lease) {
	q := x.queue.Load()
	if q == nil {
		return nil
	}
	for _, a := range q.Active() {
		leases = append(leases, journal.Lease{Worker: a.Holder, From: a.From, To: a.To, Since: a.Since})
	}
	return leases
}

// probeStore checks if the store has any outputs of the action.
func (x *execution) probeStore(ctx context.Context) error {
	if x.outputs.gathered != nil {
		return nil
	}
	for _, err := range x.outputs.store.All(ctx, x.outputs.action) {
		if err == nil {
			x.lookup = true
			// The job relies on outputs of others from now on: its record keeps them.
			if err = x.recorder.Flush(); err == nil {
				err = x.recorder.Recall(ctx)
			}
		}
		if err != nil {
			return &StoreError{Err: err}
		}
		return nil
	}
	return nil
}

// noteIsolation reports how calls get fresh state, and, if that is expensive,
// why.
func (x *execution) noteIsolation() {
	x.isolation.Mode = x.pool.Isolation()
	if d := x.module.Description(); d != nil {
		x.isolation.Reasons = d.NotResettable
	}
	message := string(x.isolation.Mode)
	if len(x.isolation.Reasons) > 0 {
		message += ": " + strings.Join(x.isolation.Reasons, "; ")
	}
	x.tally.observe([]event.Event{{Time: time.Now(), Kind: event.KindIsolation, Message: message}})
}

// execute runs all chunks and folds their outputs.
func (x *execution) execute(ctx context.Context, res *Result) error {
	x.tally.profile = profile.NewRecorder(time.Now())
	x.tally.enter("execute", event.KindPhase)
	if x.outputs.gathered != nil {
		x.tally.gather(x.outputs.gathered)
	}
	hard, cancel := context.WithCancel(ctx)
	defer cancel()
	soft, leave := context.WithCancel(hard)
	defer leave()
	n := x.most()
	e := &earlyEnd{execution: x, leave: leave}
	q := queue.NewMemory(x.toExecute(), n, x.Retry, x.leases())
	e.queue = q
	x.queue.Store(q)
	if x.aggregates() && x.calls() {
		x.folding = fold.New(hard, x.module.Exports(abi.ExportMerge), q.Fold)
		defer x.folding.Cancel()
	}
	stream := fold.NewStream(2*n, x.streamed(), x.early())
	share := x.slots.Join()
	defer share.Leave()

	var streaming, working sync.WaitGroup
	streaming.Go(stream.Run)
	working.Go(func() {
		worker.Run(hard, soft, n, x.workers(&reporter{x, e, stream}, share))
	})
	e.wait(ctx, cancel)
	stream.Close() // all batches are stored
	streaming.Wait()
	if x.Early != nil {
		_, res.early = stream.Seen()
	}
	err := e.reason()
	if err == nil || errors.Is(err, ErrInterrupted) {
		done := err == nil
		finishErr := x.withSoftStop(ctx, func(ctx context.Context) error { return x.finish(ctx, res, stream, done) })
		if ctx.Err() != nil && errors.Is(finishErr, ctx.Err()) { // of the fold, whose context may end first
			finishErr = interrupted(ctx, finishErr)
		}
		err = errors.Join(err, finishErr)
	}
	q.Close()
	leave()
	working.Wait()
	return err
}

// most returns the maximum number of workers of the job: more workers than
// chunks would be idle. Everything that costs memory for each worker is sized
// by it.
func (x *execution) most() int { return min(x.config.Workers, max(x.Chunks.Len(), 1)) }

// leases returns the observer of leases, or nil if nobody listens.
func (x *execution) leases() func([]event.Event) {
	if x.tally.detail == event.ProgressOnly {
		return nil
	}
	return x.tally.observe
}

// streamed returns the fold that the stream feeds. It is nil if the store may
// hold outputs, because those do not come through the stream.
func (x *execution) streamed() *fold.Fold {
	if x.lookup {
		return nil
	}
	return x.folding
}

// early returns the function that receives outputs while others are executed,
// or nil.
func (x *execution) early() func(abi.ID, []byte) {
	if x.Early == nil {
		return nil
	}
	return func(id abi.ID, output []byte) { x.Early(Output{ID: id, Output: output}) }
}

// workers returns the configuration of the job's workers.
func (x *execution) workers(r *reporter, share *worker.Share) *worker.Config {
	c := &worker.Config{
		Queue: r.end.queue, Input: x.Chunks, Pool: x.pool, Action: x.outputs.action, Keeper: &storing{x.outputs.store, x.outputs.action},
		Fold: r, Reporter: r, Share: share, Detail: x.tally.detail, Timed: x.recorder != nil, Started: x.started,
	}
	if x.lookup && !x.Rerun {
		c.Store = x.outputs.store
	}
	if x.recorder != nil {
		c.Keeper = &recording{recorder: x.recorder, action: x.outputs.action, started: x.started}
	}
	if x.rechecker != nil {
		c.Recheck = x.Recheck.by(x.rechecker, x.Settings.Seed)
	}
	c.Served = func(worker int, took, waited time.Duration) {
		x.tally.profile.Lease(worker, profile.Lease{Total: took, Store: waited})
	}
	if x.Redrive != nil {
		c.Only = func(i int) bool { return x.Redrive.Only.Has(x.Chunks.ID(i)) }
	}
	return c
}

// reporter receives the reports of workers.
type reporter struct {
	*execution
	end    *earlyEnd
	stream *fold.Stream
}

// Attempted implements [worker.Reporter].
func (r *reporter) Attempted(p queue.Progress, rechecked int, events []event.Event) {
	r.tally.attempted(p, rechecked, events)
}

// Failed implements [worker.Reporter].
func (r *reporter) Failed(f worker.Failed) {
	failed := r.tally.failed(&f)
	if r.MaxFailures != nil && failed > *r.MaxFailures {
		r.end.queue.Stop()
	}
}

// Stored implements [worker.Reporter].
func (r *reporter) Stored(b *worker.Batch, err error) {
	if err != nil {
		r.end.stop(err)
		b.Free()
		return
	}
	r.tally.stored(b)
	if r.lookup {
		b.Free()
		return
	}
	r.stream.Put(newStreamed(b, r.Chunks))
}

// Folded implements [worker.Reporter].
func (r *reporter) Folded(busy time.Duration) { r.tally.folded(busy) }

// Broken implements [worker.Reporter].
func (r *reporter) Broken(err error) { r.end.stop(err) }

// Call implements [worker.Folder].
func (r *reporter) Call(call int, instance Instance) { r.folding.Call(call, instance) }

// streamed is a batch on its way through the stream.
type streamed struct {
	*worker.Batch
	input Input
	span  merkle.Span
}

// newStreamed hashes the outputs of a batch of consecutive chunks.
func newStreamed(b *worker.Batch, input Input) *streamed {
	s := &streamed{Batch: b, input: input}
	first := b.First()
	s.span.Reset(uint64(first))
	for i := range b.Len() {
		s.span.AddEntry(input.ID(first+i), b.Output(i))
	}
	return s
}

// Each implements [fold.Batch].
func (s *streamed) Each(f func(id abi.ID, output []byte)) {
	first := s.First()
	for i := range s.Len() {
		f(s.input.ID(first+i), s.Output(i))
	}
}

// Span implements [fold.Batch].
func (s *streamed) Span() *merkle.Span { return &s.span }

// earlyEnd decides if and why a job ends early. It is safe for concurrent use.
type earlyEnd struct {
	*execution
	queue *queue.Memory
	leave context.CancelFunc // releases workers that wait

	mu  sync.Mutex
	why error // nil while the job runs
}

// stop ends all leases: it allows no new attempts, and no calls of the fold. An
// error after an interruption is still kept, because it can mean that finished
// work was not stored.
func (e *earlyEnd) stop(why error) {
	e.mu.Lock()
	switch {
	case e.why == nil:
		e.why = why
	case errors.Is(e.why, ErrInterrupted) && !errors.Is(why, ErrInterrupted):
		e.why = errors.Join(e.why, why)
	}
	e.mu.Unlock()
	e.queue.Stop()
	if e.folding != nil {
		e.folding.Cancel()
	}
	e.leave()
}

func (e *earlyEnd) reason() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.why
}

// wait waits until every chunk has an output or has failed, or until the job is
// stopped and every lease has ended. cut cancels running attempts.
func (e *earlyEnd) wait(ctx context.Context, cut context.CancelFunc) {
	stop, done := e.Stop, ctx.Done()
	var grace <-chan time.Time
	for {
		select {
		case <-e.queue.Drained():
			return
		case <-stop:
			stop = nil
			e.stop(ErrInterrupted)
			timer := time.NewTimer(e.Grace)
			defer timer.Stop()
			grace = timer.C
		case <-grace:
			cut()
		case <-done:
			done = nil
			e.stop(interruption{ctx.Err()})
		case err := <-e.recorder.Broken():
			e.stop(e.storeError(err))
		}
	}
}

// toExecute returns how many chunks are executed here.
func (x *execution) toExecute() int {
	if x.outputs.gathered != nil {
		return 0
	}
	return x.Chunks.Len()
}

// calls reports whether guests are called.
func (x *execution) calls() bool {
	g := x.outputs.gathered
	return g == nil || x.mayFold() && g.Succeeded == x.Chunks.Len() && x.aggregates()
}

// profileOf returns the measurements of the execution, or nil if nothing was executed.
func (x *execution) profileOf(p *Phases) *profile.Profile {
	if x.tally.profile == nil || x.outputs.gathered != nil {
		return nil
	}
	var each profile.Sampled
	if t, ok := x.pool.(interface{ Times() runtime.Times }); ok {
		each = profile.Sampled(t.Times())
	}
	took := time.Duration(p.Execute * float64(time.Second))
	return x.tally.profile.Profile(x.most(), took, time.Duration(p.FoldCalls*float64(time.Second)), each)
}

// mayFold reports whether outputs may be folded.
func (x *execution) mayFold() bool {
	return x.outputs.gathered == nil || x.outputs.gathered.Fold && x.outputs.gathered.Err == nil
}

// conclude gives a job that others broke their error, once its outputs are read.
func (x *execution) conclude(ctx context.Context, err error) error {
	if x.outputs.gathered == nil || err != nil || ctx.Err() != nil {
		return err
	}
	return x.outputs.gathered.Err
}
