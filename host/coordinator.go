package host

import (
	"context"
	"errors"
	"fmt"
	goruntime "runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Config says with what a coordinator runs jobs. The zero Config works.
type Config struct {
	Workers  int         // attempts at once; 0 = GOMAXPROCS
	Store    store.Store // of outputs, and of jobs where it is a store.Jobs; nil = one in memory for each Run
	CacheDir string      // of compiled code; "" = none; see [runtime.Config]
	Engine   Engine      // nil = a runtime of the coordinator's own
	Observer Observer    // nil = nobody listens
}

// Coordinator runs jobs. It is safe for concurrent use.
type Coordinator struct {
	config Config
	owned  bool // the engine is closed with the coordinator
}

// New returns a coordinator.
func New(ctx context.Context, config Config) (*Coordinator, error) {
	if config.Workers < 0 {
		return nil, fmt.Errorf("host: Config.Workers is %d, expected 0 or more", config.Workers)
	}
	if config.Workers == 0 {
		config.Workers = goruntime.GOMAXPROCS(0)
	}
	c := &Coordinator{config: config}
	if config.Engine == nil {
		r, err := runtime.New(ctx, runtime.Config{CacheDir: config.CacheDir})
		if err != nil {
			return nil, err
		}
		c.config.Engine, c.owned = NewEngine(r), true
	}
	return c, nil
}

// Close frees the engine. No Run may be going on. The store stays open.
func (c *Coordinator) Close(ctx context.Context) error {
	if !c.owned {
		return nil
	}
	return c.config.Engine.Close(ctx)
}

// Run runs a job. Chunks that failed are data in the result and no error; the
// aggregate is then not made, unless the job is Partial.
//
// The end of ctx cancels running attempts; job.Stop ends the job softly. Both
// give [ErrInterrupted] with a result that holds what was finished. Other
// errors are *[runtime.RefusedError], *[runtime.InitError] and [ErrOtherJob],
// before anything ran, *[chunks.InputError] where the chunk file changed,
// *[FoldError], *[StoreError], and *[DifferenceError] where the job is to be
// verified. The result is nil where the job or its module is refused.
//
// Run returns after all its goroutines have ended and its instances are closed.
func (c *Coordinator) Run(ctx context.Context, job *Job) (*Result, error) {
	if err := job.validate(); err != nil {
		return nil, err
	}
	r := &run{
		Job: job, config: &c.config, store: c.config.Store,
		results: make(chan result), histories: map[int]*history{},
		started: time.Now(), counts: Counts{Total: job.Chunks.Len()},
	}
	r.observed = c.config.Observer != nil && c.config.Observer.Wants()
	if r.store == nil {
		r.store = struct{ store.Store }{store.NewMemory()} // without records, which nobody could read
	}
	return r.run(ctx)
}

// run is one Run of one job. Its fields belong to the goroutine of Run, which
// is the scheduler; workers read those above the line, which do not change
// while they run.
type run struct {
	*Job
	config   *Config
	store    store.Store
	action   store.Action
	lookup   bool      // the store may hold outputs of the action
	records  *recorder // nil where the store keeps none
	observed bool
	module   Module // compiled from Job.Module
	pool     Pool
	second   *second      // nil where no chunk is executed twice
	results  chan result  // from workers
	storing  atomic.Int64 // batches whose result was not taken in yet

	started   time.Time
	queue     queue
	histories map[int]*history
	idle      []*worker
	active    map[*worker]*lease
	stream    *stream
	folds     []foldCall // of the stream, that wait for a worker
	folding   int        // workers that make one
	counts    Counts
	attempts  int
	retries   int
	verified  int
	isolation Isolation
	fuel      uint64        // of the calls that gave outputs
	foldFuel  uint64        // of those that gave the aggregate
	cost      time.Duration // of an attempt, moving average
	failures  []ChunkFailure
	stopping  bool
	stopped   error // why the job ends early; nil with stopping for MaxFailures
	phases    Phases
	phase     string
	phaseAt   time.Time
}

// clock returns the time since the run started: half the price of time.Now,
// which tiny chunks would notice.
func (r *run) clock() time.Duration { return time.Since(r.started) }

func (r *run) run(ctx context.Context) (*Result, error) {
	res := &Result{run: r}
	err := r.untilStop(ctx, func(ctx context.Context) error { return r.prepare(ctx, res) })
	_, refused := errors.AsType[*runtime.RefusedError](err)
	if refused = refused || errors.Is(err, ErrOtherJob); refused && r.records == nil {
		return nil, err
	}
	if err == nil && !res.finished {
		r.stream = r.newStream(ctx)
		err = r.execute(ctx)
		if err == nil || errors.Is(err, ErrInterrupted) {
			ended := err == nil
			err = errors.Join(err, r.untilStop(ctx, func(ctx context.Context) error { return r.finish(ctx, res, ended) }))
		}
	}
	r.stream.cancel()
	if r.pool != nil {
		err = errors.Join(err, r.pool.Close(), r.second.close())
	}
	res.Report = r.report(res, err)
	if recordErr := r.records.end(context.WithoutCancel(ctx), &res.Report); recordErr != nil {
		err = errors.Join(err, recordErr)
		res.Report.State, res.Report.Error = r.state(err), reason(err)
	}
	r.enter("", KindEnd)
	if refused { // by the engine, which came to the code only after the record had begun
		return nil, err
	}
	return res, err
}

// untilStop calls f with a context that ends also when the job is stopped.
func (r *run) untilStop(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() {
		select {
		case <-r.Stop:
			cancel()
		case <-ctx.Done():
		}
	})
	defer watcher.Wait()
	defer cancel()
	return f(ctx)
}

// prepare compiles the module and makes the first instance, unless the job's
// result is in the store.
func (r *run) prepare(ctx context.Context, res *Result) (err error) {
	r.enter("compile", KindPhase)
	if r.module = r.Admitted; r.module == nil {
		if r.module, err = r.config.Engine.Admit(ctx, r.Job.Module, r.Options); err != nil {
			return interrupted(ctx, err)
		}
	}
	if err := r.module.Fits(r.Settings); err != nil {
		return err
	}
	r.action = r.Job.action(r.module.Digest())
	if err := r.begin(ctx); err != nil {
		return interrupted(ctx, err)
	}
	if err := r.recall(ctx, res); err != nil || res.finished {
		return interrupted(ctx, err)
	}
	if err := r.lookAhead(ctx); err != nil {
		return interrupted(ctx, err)
	}
	if err := r.module.Compile(ctx); err != nil {
		return interrupted(ctx, err)
	}
	r.enter("prepare", KindPhase)
	if r.pool, err = r.module.Prepare(ctx, r.Settings); err != nil {
		return interrupted(ctx, err)
	}
	r.noteIsolation()
	if err := r.prepareSecond(ctx); err != nil {
		return interrupted(ctx, err)
	}
	return nil
}

// lookAhead finds out whether the store has any outputs of the action.
func (r *run) lookAhead(ctx context.Context) error {
	for _, err := range r.store.All(ctx, r.action) {
		if err != nil {
			return &StoreError{err}
		}
		r.lookup = true
		return r.records.recall(ctx)
	}
	return nil
}

// noteIsolation says how calls get fresh state, and why it is the dear way.
func (r *run) noteIsolation() {
	r.isolation.Mode = r.pool.Isolation()
	if d := r.module.Description(); d != nil {
		r.isolation.Reasons = d.Lasting
	}
	if !r.observed {
		return
	}
	message := string(r.isolation.Mode)
	if len(r.isolation.Reasons) > 0 {
		message += ": " + strings.Join(r.isolation.Reasons, "; ")
	}
	r.config.Observer.Observe([]Event{{Time: time.Now(), Kind: KindIsolation, Message: message}})
}

// interrupted replaces err where ctx's end is behind it.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ErrInterrupted
	}
	return err
}

// enter begins a phase and tells the observer.
func (r *run) enter(phase string, kind Kind) {
	now := time.Now()
	r.phases.add(r.phase, now.Sub(r.phaseAt))
	r.phase, r.phaseAt = phase, now
	if r.config.Observer == nil {
		return
	}
	r.config.Observer.Progress(phase, r.counts)
	if r.observed {
		counts := r.counts
		r.config.Observer.Observe([]Event{{Time: now, Kind: kind, Message: phase, Counts: &counts}})
	}
}

// execute runs all chunks. It starts the workers and waits for them.
func (r *run) execute(ctx context.Context) error {
	r.enter("execute", KindPhase)
	hard, cancel := context.WithCancel(ctx)
	defer cancel()
	var workers sync.WaitGroup
	r.active = map[*worker]*lease{}
	r.queue.add(span{0, r.counts.Total})
	var all []*worker
	for i := range min(r.config.Workers, max(r.counts.Total, 1)) {
		w := newWorker(i+1, r)
		all = append(all, w)
		workers.Go(func() { w.work(hard) })
		workers.Go(func() { w.keep(hard) })
	}
	r.idle = append(r.idle, all...)
	workers.Go(func() { r.stream.work(r) })
	r.schedule(hard, cancel)
	r.stream.later = r.folds
	r.stream.wait()
	for _, w := range all {
		close(w.tasks)
	}
	workers.Wait()
	return r.stopped
}

// schedule gives out leases until everything is done or the job is stopped.
func (r *run) schedule(ctx context.Context, cancel context.CancelFunc) {
	stop, done := r.Stop, ctx.Done()
	var grace <-chan time.Time
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		r.dispatch(time.Now(), timer)
		r.records.at(r.active)
		if len(r.active) == 0 && r.folding == 0 && r.storing.Load() == 0 && (r.stopping || r.queue.empty()) {
			return
		}
		select {
		case res := <-r.results:
			r.settle(ctx, res)
		case c := <-r.stream.calls:
			r.folds = append(r.folds, c)
		case <-timer.C:
		case <-stop:
			stop = nil
			r.stop(ErrInterrupted)
			graceTimer := time.NewTimer(r.Grace)
			defer graceTimer.Stop()
			grace = graceTimer.C
		case <-grace:
			cancel()
		case <-done:
			done = nil
			r.stop(ErrInterrupted)
		}
	}
}

// stop ends all leases: no new attempts. An error after an interruption is no
// less of one: what was finished may not be kept.
func (r *run) stop(why error) {
	switch {
	case r.stopped == nil:
		r.stopped = why
	case errors.Is(r.stopped, ErrInterrupted) && !errors.Is(why, ErrInterrupted):
		r.stopped = errors.Join(r.stopped, why)
	}
	r.stopping = true
	for _, l := range r.active {
		l.cut(2)
	}
	if why != nil {
		r.stream.cancel()
	}
}

// dispatch gives work to idle workers, and sets the timer to the next retry
// where one waits for it: else the next report of a worker comes first.
func (r *run) dispatch(now time.Time, timer *time.Timer) {
	for !r.stopping && len(r.idle) > 0 {
		if len(r.folds) > 0 { // first: they hold memory
			r.assign(task{fold: &r.folds[0]})
			r.folds = r.folds[1:]
			r.folding++
			continue
		}
		s, ok := r.queue.next(now, r.batch())
		if !ok {
			s, ok = r.steal()
		}
		if !ok {
			break
		}
		l := newLease(s, now)
		r.active[r.assign(task{lease: l})] = l
	}
	if len(r.queue.waiting) > 0 && len(r.idle) > 0 && !r.stopping {
		timer.Reset(max(0, r.queue.waiting[0].notBefore.Sub(now)))
	}
}

// assign gives a task to an idle worker.
func (r *run) assign(t task) *worker {
	last := len(r.idle) - 1
	w := r.idle[last]
	r.idle = r.idle[:last]
	w.tasks <- t // does not wait: an idle worker has none
	return w
}

const (
	// leaseTime is how long a batch should take: long enough that handing it
	// out does not count, short enough for smooth progress.
	leaseTime   = 20 * time.Millisecond
	maxBatch    = 16_384 // each is at most one commit of a durable store
	probeBatch  = 1      // while the cost of a chunk is not known: it may be hours
	costHistory = 8      // reports over which the cost is averaged
)

// batch returns how many chunks the next lease should have.
func (r *run) batch() int {
	size := probeBatch
	if r.attempts > 0 {
		size = int(min(maxBatch, leaseTime/max(r.cost, 1)))
	} else if r.counts.Succeeded > 0 {
		size = maxBatch // all reused so far
	}
	return max(1, size)
}

// steal takes work from the worker that has most of it left.
func (r *run) steal() (span, bool) {
	var most *lease
	for _, l := range r.active {
		if most == nil || l.rest().len() > most.rest().len() {
			most = l
		}
	}
	if most == nil {
		return span{}, false
	}
	s := most.cut(1)
	return s, s.len() > 0
}

// settle takes in what a worker reports.
func (r *run) settle(ctx context.Context, res result) {
	if n := res.ran; n > 0 {
		r.attempts += n
		cost := res.busy / time.Duration(n)
		if r.cost == 0 {
			r.cost = cost
		}
		r.cost += (cost - r.cost) / costHistory
	}
	r.verified += res.verified
	switch {
	case res.batch != nil:
		res.events = r.stored(res)
	case res.folded:
		r.folding--
		r.phases.FoldCalls += res.busy.Seconds()
		r.idle = append(r.idle, res.worker)
	case res.failed != nil:
		e := r.judge(res)
		r.records.attempt(context.WithoutCancel(ctx), res.chunk, &e, res.began, e.Time)
		res.events = append(res.events, e)
	case res.unended:
		r.attempts--
		r.queue.add(span{res.chunk, res.chunk + 1})
	}
	if err := errors.Join(res.err, r.records.failure()); err != nil {
		r.stop(err)
	}
	if res.over {
		r.queue.add(r.active[res.worker].rest())
		delete(r.active, res.worker)
		r.idle = append(r.idle, res.worker)
	}
	if r.config.Observer != nil {
		r.config.Observer.Progress(r.phase, r.counts)
		if r.observed && len(res.events) > 0 {
			r.config.Observer.Observe(res.events)
		}
	}
}

// stored takes in a batch that was stored, or could not be.
func (r *run) stored(res result) []Event {
	b := res.batch
	events := b.events
	if res.err == nil {
		r.counts.Succeeded += b.done + b.reused
		r.counts.Reused += b.reused
		r.fuel += b.fuel
	} else {
		events = nil
	}
	r.storing.Add(-1)
	if res.err == nil && !r.lookup {
		r.stream.in <- b // has room
	} else {
		b.giveBack()
	}
	return events
}

// judge decides what becomes of a chunk that an attempt failed on.
func (r *run) judge(res result) Event {
	h := r.histories[res.chunk]
	if h == nil {
		h = &history{}
		r.histories[res.chunk] = h
	}
	f, now := res.failed, time.Now()
	id := r.Chunks.ID(res.chunk)
	e := Event{Time: now, Kind: KindRetry, ID: &id, Worker: res.worker.id, Failure: f}
	var wait time.Duration
	failed := f
	if f.Class == abi.ClassRequeued {
		e.Kind = KindRequeue
		h.requeues++
		if h.requeues > r.Retry.MaxRequeues {
			failed = abi.Failf(f.Class, "returned to the queue %d times: %s", h.requeues, f.Message)
		} else {
			failed, wait = nil, r.Retry.Backoff
		}
	} else {
		h.failures++
		switch {
		case !r.Retry.retries(f.Class):
		case !r.Retry.Deterministic && f.SameTrap(h.last):
			failed = &abi.Failure{Class: f.Class, Stack: f.Stack, Message: f.Message + " (the same twice: deterministic)"}
		case h.failures <= r.Retry.Retries:
			failed, wait = nil, h.delay(&r.Retry)
			r.retries++
		}
		h.last = f
	}
	e.Attempt = h.failures + h.requeues
	if failed == nil {
		notBefore := now.Add(wait)
		e.NotBefore = &notBefore
		r.queue.delay(res.chunk, notBefore)
		return e
	}
	e.Kind, e.Failure = KindFailed, failed
	delete(r.histories, res.chunk)
	r.failures = append(r.failures, ChunkFailure{
		ID: id, Failure: *failed, Attempts: e.Attempt, Index: res.chunk, Last: f,
	})
	r.counts.Failed++
	if r.MaxFailures != nil && r.counts.Failed > *r.MaxFailures {
		r.stop(nil)
	}
	return e
}
