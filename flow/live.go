package flow

import (
	"container/heap"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
	"github.com/wasm-jobs/wasm-jobs/host/worker"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// live executes the steps that are not known. Its fields belong to the goroutine of
// run, except the channels and the gate. The lane and the workers of a state start
// with the first step that it has to execute.
type live struct {
	*execution
	machine *machine
	gate    *gate
	lanes   []*lane // by state; nil before the first step
	times   []times // by state
	pools   []Pool
	keeping *keeping  // nil if each batch is a commit of its own
	follow  *follower // nil if the last walk looks all steps up
	limits  map[string]*limiter

	results chan result
	folded  chan foldedChildren
	working sync.WaitGroup // workers
	folders sync.WaitGroup
	joins   joinPools
	hard    context.Context // ends running attempts
	cut     context.CancelFunc

	probed, nothing []bool // by state: the store was asked, and had no output

	nextRoot  int
	waits     waits
	holding   int // items that are held
	uncertain int // of those held: an effect may have been made
	failures  []failedStep
	err       error // ends the run
	stopped   bool
	seen      time.Time    // by the observer
	detail    event.Detail // of the events
	created   runtime.Stats
}

// times are the times that steps of a state waited and took.
type times struct{ wait, execute histogram }

// result is a worker's report about a step.
type result struct {
	lane   *lane
	batch  *worker.Batch
	failed *worker.Failed
	events []event.Event
	err    error
}

// foldedChildren is a module's aggregate of children.
type foldedChildren struct {
	join *join
	v    store.Value
	err  error
}

// waits are items, ordered by the end of their wait.
type waits []*item

func (w waits) Len() int           { return len(w) }
func (w waits) Less(i, j int) bool { return w[i].due < w[j].due }
func (w waits) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }
func (w *waits) Push(x any)        { *w = append(*w, x.(*item)) }
func (w *waits) Pop() any {
	last := len(*w) - 1
	x := (*w)[last]
	(*w)[last] = nil
	*w = (*w)[:last]
	return x
}

func newLive(ctx context.Context, x *execution) (*live, error) {
	n := len(x.plan.states)
	l := &live{
		execution: x, machine: newMachine(x.replay, x.Bounds, nil), gate: newGate(x.config.Workers),
		probed: make([]bool, n), nothing: make([]bool, n), lanes: make([]*lane, n), times: make([]times, n), limits: map[string]*limiter{},
		joins: newJoinPools(x.config.Workers), results: make(chan result, 4*x.config.Workers), folded: make(chan foldedChildren), nextRoot: x.walk.next,
	}
	l.hard, l.cut = context.WithCancel(ctx)
	l.machine.witness = l.failing()
	if l.Events != nil {
		l.detail = l.Events.Wants()
	}
	if x.plan.pure() {
		l.hasten(ctx)
	}
	for name, limit := range x.Flow.Limits {
		l.limits[name] = newLimiter(limit)
	}
	return l, nil
}

// hasten prepares the run of a flow without effects.
func (l *live) hasten(ctx context.Context) {
	if l.config.Store != nil && l.detail < event.Chunks { // steps that are told of are durable
		l.keeping = newKeeping(ctx, l.store, l.plan)
	}
	if l.Rerun { // a failure that is stored counts more than one of now
		return
	}
	l.follow = newFollower(l.walk, l.machine)
	l.machine.witness = l.follow
	if m := l.resultModule(); m != nil && l.walk.next == 0 {
		l.folding = newFolding(ctx, m, l.config.Workers)
		l.folding.async, l.walk.folding = true, l.folding
	}
}

// run executes until no item moves any more, and ends all that it started.
func (l *live) run(ctx context.Context) error {
	defer l.cut()
	for l.step(ctx) {
		select {
		case r := <-l.results:
			l.take(ctx, r)
		case f := <-l.folded:
			l.takeFolded(ctx, f)
		case err := <-l.keeping.broken():
			l.stop(&StoreError{err})
		case <-l.nextWait():
		case <-l.Stop:
			l.stop(ErrInterrupted)
		case <-ctx.Done():
			l.stop(ErrInterrupted)
		}
	}
	l.close(ctx)
	return l.err
}

// stop ends the run: no further attempt begins.
func (l *live) stop(err error) {
	if l.err == nil {
		l.err = err
	}
	if !l.stopped {
		l.stopped = true
		l.gate.stopping.Store(true)
		l.gate.close()
	}
}

// step does all that can be done without waiting, and reports whether there is
// something to wait for.
func (l *live) step(ctx context.Context) bool {
	for !l.stopped {
		l.drain(ctx)
		if err := l.advance(ctx); err != nil {
			l.stop(err)
			break
		}
		if l.machine.nFresh > 0 || len(l.machine.folds) > 0 {
			continue
		}
		if err := l.follow.commit(l.nextRoot); err != nil {
			l.stop(err)
			break
		}
		if more, err := l.admit(ctx); err != nil {
			l.stop(err)
		} else if !more {
			break
		}
	}
	l.tell()
	if l.stopped {
		return l.drainStopped(ctx)
	}
	return l.machine.moving > l.holding
}

// drainStopped handles the reports of workers until they have ended: running
// attempts get the grace, and finished steps are kept.
func (l *live) drainStopped(ctx context.Context) bool {
	done := make(chan struct{})
	go func() {
		l.working.Wait()
		l.folders.Wait()
		close(done)
	}()
	timer := time.NewTimer(l.Grace)
	defer timer.Stop()
	ended, after := ctx.Done(), context.WithoutCancel(ctx)
	for {
		select {
		case r := <-l.results:
			l.take(after, r)
		case <-l.folded:
		case <-timer.C:
			l.cut()
		case <-ended:
			ended = nil
			l.cut()
		case <-done:
			l.drain(after) // what the last workers left
			if err := l.takeFailures(after); err != nil && !errors.Is(err, ErrTooManyFailures) {
				l.err = errors.Join(l.err, err)
			}
			return false
		}
	}
}

// drain handles the reports that workers have sent, without waiting.
func (l *live) drain(ctx context.Context) {
	for {
		select {
		case r := <-l.results:
			l.take(ctx, r)
		default:
			return
		}
	}
}

// admit lets more items move, and reports whether it did.
func (l *live) admit(ctx context.Context) (bool, error) {
	room := l.Live + l.holding
	if l.machine.moving >= room {
		return false, nil
	}
	if len(l.machine.emissions) > 0 {
		l.machine.release(room)
		return true, nil
	}
	if l.nextRoot >= l.Input.Len() {
		return false, nil
	}
	size := 0
	to := min(l.nextRoot+room-l.machine.moving, l.nextRoot+windowRoots, l.Input.Len())
	err := l.Input.Read(ctx, l.nextRoot, to, func(i int, chunk []byte) error {
		l.follow.begin(i)
		l.machine.addRoot(i, chunk)
		l.nextRoot = i + 1
		if size += len(chunk); size > windowBytes {
			return errFull
		}
		return nil
	})
	if err == nil && l.machine.overflow {
		err = ErrTooManyItems
	}
	if errors.Is(err, errFull) {
		err = nil
	}
	return true, err
}

// advance records failures, moves items whose steps are known, and has the other
// steps executed.
func (l *live) advance(ctx context.Context) error {
	if err := l.takeFailures(ctx); err != nil {
		return err
	}
	waiting, err := l.replay.resumeKnown(ctx, l.machine)
	if err != nil {
		return err
	}
	for _, j := range waiting {
		l.foldChildren(j)
	}
	l.wake(time.Now())
	for {
		s, items := l.machine.take(lookUps)
		if s == nil {
			return nil
		}
		if err := l.place(ctx, s, items); err != nil {
			return err
		}
		if l.machine.overflow {
			return ErrTooManyItems
		}
	}
}

// place moves, queues, delays or holds items that entered a state.
func (l *live) place(ctx context.Context, s *state, items []*item) error {
	if items = l.replay.redirect(l.machine, s, items); len(items) == 0 {
		return nil
	}
	if l.held[s.index] {
		l.holding += len(items)
		return nil
	}
	ready, waiting, err := l.replay.passed(ctx, l.machine, s, items)
	if err == nil && len(waiting) > 0 {
		err = l.replay.keepDue(ctx, s, waiting)
		for _, it := range waiting {
			heap.Push(&l.waits, it)
		}
	}
	if err != nil || len(ready) == 0 {
		return err
	}
	rest, err := ready, l.probe(ctx, s)
	if err == nil && !l.nothing[s.index] {
		rest, err = l.replay.look(ctx, l.machine, s, ready)
	}
	if err == nil && len(rest) > 0 && len(s.on) > 0 && l.replay.generation > 1 && !(l.Rerun && s.pure) {
		rest, err = l.replay.lookFailed(ctx, l.machine, s, rest, kindRoute, 0)
	}
	if err == nil {
		var uncertain []*item
		rest, uncertain, err = l.replay.lookUncertain(ctx, s, rest)
		l.holding += len(uncertain)
		l.uncertain += len(uncertain)
	}
	switch {
	case err != nil:
		return err
	case l.replay.stale != nil:
		return l.replay.stale
	case len(rest) == 0:
		return nil
	case l.Given != nil && !s.pure:
		return missingEffect(rest[0].id(l.Input), s)
	}
	lane, err := l.lane(s)
	if err != nil {
		return err
	}
	lane.push(time.Now(), rest)
	return nil
}

// probe finds out whether the store had any output of a pure state when its first
// step came. If it had none, outputs of the state are not looked up during the run:
// any that appear were made by this run.
func (l *live) probe(ctx context.Context, s *state) error {
	if l.probed[s.index] || !s.pure {
		return nil
	}
	l.probed[s.index], l.nothing[s.index] = true, true
	for _, err := range l.store.All(ctx, s.action) {
		l.nothing[s.index] = false
		if err != nil {
			return &StoreError{err}
		}
		break
	}
	return nil
}

// wake moves the items whose wait is over.
func (l *live) wake(now time.Time) {
	for len(l.waits) > 0 && l.waits[0].due <= now.UnixMilli() {
		it := heap.Pop(&l.waits).(*item)
		it.delay = 0
		s := &l.plan.states[it.state]
		if s.Exec == nil {
			l.machine.advance(it, it.data, 0, false)
			continue
		}
		l.machine.fresh[s.index] = append(l.machine.fresh[s.index], it)
		l.machine.nFresh++
	}
}

func (l *live) nextWait() <-chan time.Time {
	if len(l.waits) == 0 {
		return nil
	}
	return time.After(time.Until(time.UnixMilli(l.waits[0].due)))
}

// lane returns the lane of a state, and starts its workers the first time.
func (l *live) lane(s *state) (*lane, error) {
	if l.lanes[s.index] != nil {
		return l.lanes[s.index], nil
	}
	pool, err := s.Exec.Open(l.hard)
	if err != nil {
		return nil, err
	}
	l.pools = append(l.pools, pool)
	limit := l.limits[s.Limit]
	if s.Limit == "" && s.Own != (Limit{}) {
		limit = newLimiter(s.Own)
	}
	ln := newLane(s, l.Input, l.holders(s, limit), limit)
	ln.key = l.replay.effectKey
	ln.bounds, ln.started = l.MaxRetryAfter, l.started
	if l.detail >= event.Attempts {
		ln.tell = func(e event.Event) { l.results <- result{lane: ln, events: []event.Event{e}} }
	}
	l.lanes[s.index] = ln
	l.gate.add(ln)
	c := &worker.Config{
		Queue: ln, Input: ln, Pool: pool, Keeper: outputs{l.store, s.action}, Reporter: told{l, ln},
		Share: worker.NewSlots(ln.holders).Join(), Detail: l.detail, Timed: true, Started: l.started,
	}
	if c.Recheck, err = l.recheck(s); err != nil {
		return nil, err
	}
	switch {
	case !s.pure:
		c.Pool, c.Keeper = l.effectPool(s, pool), effects{l.replay.journal, ln}
	case l.keeping != nil:
		c.Keeper = keptState{l.keeping, s.index, s.action}
	}
	l.working.Go(func() { worker.Run(l.hard, l.hard, ln.holders, c) })
	return ln, nil
}

// effectPool returns the pool that makes the effects of a state.
func (l *live) effectPool(s *state, pool Pool) effectPool {
	p := effectPool{Pool: pool, broken: func(err error) { l.results <- result{err: err} }}
	if s.Hold {
		p.holds = l.replay.holds
	}
	return p
}

// effectHolders is the number of effects of a state that run at once without a
// limit.
const effectHolders = 32

// holders returns the number of workers of a state.
func (l *live) holders(s *state, limit *limiter) int {
	n := l.config.Workers
	switch {
	case !s.pure && limit != nil && limit.Auto:
		return maxAuto
	case !s.pure:
		n = effectHolders
	}
	if limit != nil && limit.Concurrency > 0 && (limit.Key == "" || limit.Concurrency > n) {
		if !s.pure || limit.Concurrency < n {
			n = limit.Concurrency
		}
	}
	return min(n, 1024)
}

// told receives the reports of the workers of a lane.
type told struct {
	*live
	lane *lane
}

// Attempted implements [worker.Reporter].
func (t told) Attempted(_ queue.Progress, _ int, events []event.Event) {
	if len(events) > 0 {
		t.results <- result{lane: t.lane, events: events}
	}
}

// Failed implements [worker.Reporter].
func (t told) Failed(f worker.Failed) {
	if f.Decision.Verdict == queue.Fail {
		t.results <- result{lane: t.lane, failed: &f}
	}
}

// Stored implements [worker.Reporter].
func (t told) Stored(b *worker.Batch, err error) {
	t.results <- result{lane: t.lane, batch: b, err: err}
}

// Folded implements [worker.Reporter].
func (told) Folded(time.Duration) {}

// Broken implements [worker.Reporter].
func (t told) Broken(err error) { t.results <- result{lane: t.lane, err: err} }

// take handles the report of a worker.
func (l *live) take(ctx context.Context, r result) {
	switch {
	case r.err != nil:
		if r.batch != nil {
			r.batch.Free()
		}
		l.stop(endedBy(r.err))
	case len(r.events) > 0:
		l.observeSteps(r.lane.state, r.events)
	case r.failed != nil:
		it := r.lane.finished(r.failed.Chunk, 1, false)[0]
		l.times[r.lane.state.index].execute.add(r.failed.End.Sub(r.failed.Start))
		l.observeSteps(r.lane.state, []event.Event{l.forGood(it, r.failed)})
		l.failures = append(l.failures, failedStep{it, r.lane.state, failure{*r.failed.Decision.Failure, r.failed.Decision.Attempt}})
	case r.batch.Len() == 0:
		r.batch.Free()
	default:
		l.takeBatch(r.lane, r.batch)
	}
}

// endedBy returns the error of a run for an error of a worker.
func endedBy(err error) error {
	if differs, ok := errors.AsType[*worker.DifferenceError](err); ok {
		return differs
	}
	return &StoreError{err}
}

func (l *live) takeBatch(ln *lane, b *worker.Batch) {
	l.observeSteps(ln.state, b.Events)
	t := &l.times[ln.state.index]
	for i, it := range ln.finished(b.First(), b.Len(), true) {
		at := b.Span.Times[i]
		t.execute.add(at.End - at.Start)
		t.wait.add(at.Start - it.since)
		l.machine.sum, l.machine.summed = b.DigestOf(i), ln.state.pure
		l.machine.advance(it, b.Output(i), b.FuelOf(i), false)
	}
	l.machine.summed = false
	b.Free()
}

// takeFailures records the steps that failed, and then fails or routes their
// items.
func (l *live) takeFailures(ctx context.Context) error {
	if len(l.failures) == 0 {
		return nil
	}
	if err := l.replay.keepFailures(ctx, l.failures); err != nil {
		return &StoreError{err}
	}
	for i := range l.failures {
		f := l.failures[i] // a copy: a follower keeps the failure, and the list is used again
		f.it.tries = nil
		l.machine.fail(f.it, &f.Failure)
	}
	l.failures = l.failures[:0]
	if l.MaxFailures != nil && l.machine.failed > *l.MaxFailures {
		return ErrTooManyFailures
	}
	return nil
}

// joinPools are the pools of the modules that fold children. They belong to the
// goroutine of run.
type joinPools struct {
	pools map[*Module]*foldPool
	slots chan struct{} // of their calls
	folds chan struct{} // of folds that have begun
}

func newJoinPools(workers int) joinPools {
	return joinPools{map[*Module]*foldPool{}, make(chan struct{}, workers), make(chan struct{}, workers)}
}

func (p *joinPools) of(ctx context.Context, m *Module) *foldPool {
	if p.pools[m] == nil {
		p.pools[m] = newFoldPool(ctx, m, p.slots)
	}
	return p.pools[m]
}

// foldChildren folds the children of a join, in a goroutine of its own. As many folds
// run at once as there are workers.
func (l *live) foldChildren(j *join) {
	m := j.from.Children.Fold.(*Module)
	pool := l.joins.of(l.hard, m)
	l.folders.Go(func() {
		select {
		case l.joins.folds <- struct{}{}:
			defer func() { <-l.joins.folds }()
		case <-l.hard.Done():
			return
		}
		if l.gate.stopping.Load() {
			return
		}
		f := pool.begin(l.hard)
		root := j.root(l.Input)
		for i := range j.ended.len() {
			e := j.ended.at(i)
			f.add(e.child.id(l.Input), j.arena[e.from:e.to])
		}
		v, err := f.result()
		if err == nil {
			err = keepFold(l.hard, l.store, m, root, v)
		}
		select {
		case l.folded <- foldedChildren{j, v, err}:
		case <-l.hard.Done():
		}
	})
}

func (l *live) takeFolded(ctx context.Context, f foldedChildren) {
	if f.err != nil {
		l.stop(l.foldError(ctx, f.join.from.Name, f.err))
		return
	}
	l.machine.resume(f.join, l.Input, f.v.Output)
}

// close ends the workers, and closes their pools. The last events of workers, which have
// nothing to do any more, may still come.
func (l *live) close(ctx context.Context) {
	l.gate.close()
	ended := make(chan struct{})
	go func() {
		l.working.Wait()
		close(ended)
	}()
	for waiting := true; waiting; {
		select {
		case r := <-l.results:
			l.take(ctx, r)
		case <-ended:
			waiting = false
		}
	}
	l.drain(ctx)
	l.folders.Wait()
	if err := l.keeping.close(); err != nil {
		l.err = errors.Join(l.err, &StoreError{err})
	}
	for _, p := range l.pools {
		if err := p.Close(); err != nil && l.err == nil {
			l.err = err
		}
		addStats(&l.created, p.Stats())
	}
	for _, p := range l.joins.pools {
		addStats(&l.created, p.close())
	}
}

func missingEffect(id abi.ID, s *state) error {
	return &MissingEffectError{id, s.Name}
}

// outputs keeps the outputs of pure steps like outputs of chunks.
type outputs struct {
	store  store.Store
	action store.Action
}

// Keep implements [worker.Keeper].
func (o outputs) Keep(ctx context.Context, records []store.Record, _ *worker.Span) error {
	if len(records) == 0 {
		return nil
	}
	return o.store.Put(ctx, o.action, records)
}

// effects keeps the results of effects in the journal.
type effects struct {
	*journal
	lane *lane
}

// Keep implements [worker.Keeper].
func (e effects) Keep(ctx context.Context, records []store.Record, s *worker.Span) error {
	kept, made := make([]store.Record, len(records)), make([]store.Record, len(records))
	for i := range records {
		key, data := Effect(e.lane.chunkAt(s.First + i))
		kept[i] = store.Record{
			Key:   store.Key{Chunk: key, Order: records[i].Order},
			Value: store.Value{Output: effectRecord(data, records[i].Output)},
		}
		made[i] = madeRecord(key, records[i].Order)
	}
	if err := e.put(ctx, kindEffect, kept); err != nil {
		return err
	}
	return e.put(ctx, kindIntent, made)
}
