// Package worker executes the leases of a queue: it looks up outputs in the store,
// executes the other chunks, stores their outputs, and only then reports them.
//
// A worker knows neither the job nor other workers. A [Config] gives it the queue
// of leases, the executor of items, the keeper of outputs and the receiver of
// reports. Several jobs share the [Slots] of a coordinator.
package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Input provides the chunks. It is safe for concurrent use.
type Input interface {
	ID(i int) abi.ID
	// Read calls each with the chunks from..to-1, in order. A chunk is valid until
	// each returns. An error of each ends Read and is returned.
	Read(ctx context.Context, from, to int, each func(i int, chunk []byte) error) error
}

// Reporter receives the reports of workers. Its methods may be called at once by
// several workers, which wait for them.
type Reporter interface {
	// Attempted reports attempts with any result, the number of items that were
	// executed twice, and log lines of the guest.
	Attempted(p queue.Progress, rechecked int, events []event.Event)
	// Failed reports a failed attempt, with the decision about its chunk.
	Failed(f Failed)
	// Stored receives a batch that was stored or, if err is not nil, was not. The
	// receiver frees it.
	Stored(b *Batch, err error)
	// Folded reports the duration of a call of the fold.
	Folded(busy time.Duration)
	// Broken reports that the job cannot go on.
	Broken(err error)
}

// Failed is a failed attempt.
type Failed struct {
	Worker     int
	Chunk      int // in id order
	Last       *abi.Failure
	Decision   queue.Decision
	Start, End time.Time
}

// Folder makes calls of the fold.
type Folder interface {
	// Call makes the call with the given number on an instance. It keeps the error.
	Call(call int, instance Instance)
}

// Config describes the work of the workers of one job.
type Config struct {
	Queue    queue.Queue
	Input    Input
	Pool     Pool
	Store    store.Store // asked for outputs of Action first; nil means none
	Action   store.Action
	Recheck  *Recheck // nil means that no item is executed twice
	Keeper   Keeper
	Fold     Folder // nil means that the queue has no calls of the fold
	Reporter Reporter
	Share    *Share
	Only     func(i int) bool // selects the chunks to execute; nil means all
	Detail   event.Detail     // of the events
	Timed    bool             // fill in Batch.Span
	Started  time.Time        // start of the job
	// Served, if it is not nil, hears how long a worker served a lease, and how long of
	// that it waited for the store; and Batch.Calls is filled in.
	Served func(worker int, took, waited time.Duration)
	// FlushTime is the time after which finished outputs are stored, even if they are
	// few; 0 means 100 ms.
	FlushTime time.Duration
}

// Run starts n workers, with the numbers 1..n, and returns when they and their
// goroutines have ended. That is when the queue has no more work, or when soft has
// ended and running attempts have finished. The end of ctx, the parent of soft,
// interrupts running attempts.
func Run(ctx, soft context.Context, n int, c *Config) {
	if c.FlushTime == 0 {
		own := *c
		own.FlushTime = flushTime
		c = &own
	}
	free := make(chan *Batch, 2*batches*n)
	for range batches * n {
		free <- &Batch{free: free, workers: n}
	}
	var all sync.WaitGroup
	for id := 1; id <= n; id++ {
		w := newWorker(id, c, free)
		all.Go(func() { w.work(ctx, soft) })
		all.Go(func() { w.keep(ctx) })
	}
	all.Wait()
}

// batches is the number of batches for each worker: one to fill and one to store.
const batches = 2

// worker runs leases. Its fields except id, config and the channels belong to the
// goroutine of work.
type worker struct {
	*Config
	id       int
	full     chan handover // batches to store; sent and closed by the worker
	free     chan *Batch
	executor Executor
	cached   *cached    // nil if there is no store to look in
	recheck  *rechecker // nil if no item is executed twice
	guest    guest
	batch    *Batch // the batch to fill
	progress queue.Progress
	events   []event.Event
	flushed  time.Duration // time of the last flush, on the clock of the job
	ended    time.Duration // end of the last attempt or group, or start of the lease
	item     Item          // the present item
	granted  int           // the first chunk that needs a renewal of the lease
	short    bool          // the last call was short
	folding  bool          // a call of the fold runs instead of an item
	waited   time.Duration // for the store, in this lease
	hasher   merkle.Hasher
}

// handover is a message to the storing half of a worker.
type handover struct {
	batch *Batch   // nil means nothing to store
	done  queue.ID // the lease that ends with it; zero means that the lease goes on
}

func newWorker(id int, c *Config, free chan *Batch) *worker {
	w := &worker{Config: c, id: id, full: make(chan handover), free: free}
	w.executor = &w.guest
	if c.Recheck != nil {
		w.recheck = &rechecker{next: w.executor, Recheck: c.Recheck, id: c.Input.ID}
		w.executor = w.recheck
	}
	if c.Store != nil {
		w.cached = &cached{next: w.executor, store: c.Store, action: c.Action, input: c.Input}
		w.executor = w.cached
	}
	w.batch = w.another()
	return w
}

// another waits for an empty batch. Batches are limited in number and reused,
// because their memory has grown to the size needed.
func (w *worker) another() *Batch {
	b := <-w.free
	b.Worker, b.Span.Worker = w.id, w.id
	return b
}

// work runs leases until there are no more.
func (w *worker) work(ctx, soft context.Context) {
	defer close(w.full)
	log := w.log
	for {
		l, err := w.Queue.Lease(soft, w.id)
		if err != nil {
			return
		}
		if err := w.Share.Acquire(soft); err != nil {
			w.leave(l)
			return
		}
		w.guest.Instance = w.Pool.Borrow(log)
		if l.Kind == queue.Fold {
			w.fold(l)
		} else {
			w.serve(ctx, l)
		}
	}
}

// leave gives back a lease without beginning any of it.
func (w *worker) leave(l queue.Lease) {
	if l.Kind == queue.Chunks {
		w.Queue.Return(l.ID, l.From)
	}
	w.Queue.Done(l.ID)
}

func (w *worker) fold(l queue.Lease) {
	start := time.Now()
	w.folding = true
	w.Fold.Call(l.From, w.guest.Instance)
	w.folding = false
	w.release()
	w.Queue.Done(l.ID)
	w.Reporter.Folded(time.Since(start))
}

// serve executes a lease, hands over finished chunks to be stored, and gives the
// rest back.
func (w *worker) serve(ctx context.Context, l queue.Lease) {
	w.flushed = w.clock()
	w.ended, w.waited = w.flushed, 0
	start := w.flushed
	next, err := w.execute(ctx, l)
	w.release()
	if err != nil {
		w.Reporter.Broken(err)
	}
	w.report(l)
	w.Queue.Return(l.ID, next)
	w.handOver(l.ID)
	if w.Served != nil {
		w.Served(w.id, w.clock()-start, w.waited)
	}
}

// release returns the instances that executed a lease. It must come before the
// report that the lease is over, whose receivers may need them.
func (w *worker) release() {
	w.guest.Release()
	w.recheck.release()
	w.Share.Release()
}

// clock returns the time since the job started: it costs half of time.Now, which
// matters for tiny chunks.
func (w *worker) clock() time.Duration { return time.Since(w.Started) }

// flush reports, and hands the batch over to be stored.
func (w *worker) flush(l queue.Lease) {
	w.report(l)
	w.handOver(queue.ID{})
}

// report reports the attempts.
func (w *worker) report(l queue.Lease) {
	if w.progress != (queue.Progress{}) {
		w.Queue.Progress(l.ID, w.progress)
	}
	if w.progress.Attempts > 0 || len(w.events) > 0 {
		w.Reporter.Attempted(w.progress, w.rechecked(), w.events)
		w.events = nil
	}
	w.progress = queue.Progress{}
}

// handOver hands the batch over unless it is empty, and takes an empty one. done is
// the lease, if it ends with the batch.
func (w *worker) handOver(done queue.ID) {
	h := handover{done: done}
	if w.batch.Finished > 0 {
		h.batch = w.batch
		w.batch = nil
	}
	if h == (handover{}) {
		return
	}
	start := w.clock()
	w.full <- h
	if w.batch == nil {
		w.batch = w.another()
	}
	w.waited += w.clock() - start
}

func (w *worker) rechecked() (n int) {
	if w.recheck != nil {
		n, w.recheck.count = w.recheck.count, 0
	}
	return n
}

// keep stores batches, and only then reports them and the end of their leases. It
// stores finished outputs even after ctx has interrupted an attempt.
func (w *worker) keep(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	for h := range w.full {
		if h.batch != nil {
			w.Reporter.Stored(h.batch, h.batch.put(ctx, w.Keeper, w.Input.ID))
		}
		if h.done != (queue.ID{}) {
			w.Queue.Done(h.done)
		}
	}
}

// errLeaseOver ends a lease early, after a failed chunk or when the rest was taken
// away.
var errLeaseOver = errors.New("lease over")

// execute executes the chunks of a lease, and returns the first chunk that was not
// reached or was interrupted. An error means that the job cannot go on.
func (w *worker) execute(ctx context.Context, l queue.Lease) (next int, err error) {
	next = l.From
	begun := w.Queue.Renew(l.ID, next, 1)
	if !begun.Goes(next) {
		return next, nil
	}
	w.granted = begun.Next
	if w.cached != nil {
		if err := w.cached.load(ctx, queue.Span{From: next, To: begun.End}); err != nil {
			return next, unlessEnded(ctx, err)
		}
	}
	err = w.Input.Read(ctx, next, begun.End, func(i int, chunk []byte) error {
		if i >= w.granted && !w.renew(l, i) {
			return errLeaseOver
		}
		next = i + 1
		if w.Only != nil && !w.Only(i) && (w.cached == nil || !w.cached.has(i)) {
			w.flush(l) // The span ends here.
			return nil
		}
		cutOff, err := w.exec(ctx, l, i, chunk)
		if cutOff {
			next = i
		}
		return err
	})
	if errors.Is(err, errLeaseOver) {
		err = nil
	}
	return next, unlessEnded(ctx, err)
}

const (
	// group is the number of short calls between two renewals of a lease and, if
	// nobody needs the times of attempts, between two looks at the clock. Each takes
	// 25 ns, which is 2 % of a call that does nothing.
	group = 32
	// shortFuel is the most fuel of a short call: about a microsecond of computing, and
	// at most 40 calls of the host. shortTime is the most time of one or of a group.
	shortFuel = 4 << 10
	shortTime = 100 * time.Microsecond
)

// renew renews the lease before chunk i. It reports whether the worker may begin it.
func (w *worker) renew(l queue.Lease, i int) bool {
	n := 1
	if w.short {
		n = group
	}
	r := w.Queue.Renew(l.ID, i, n)
	w.granted = r.Next
	return r.Goes(i)
}

// called notes whether the call for chunk i was short. The chunk after a call that was
// not needs a renewal, since others may want the chunks after it.
func (w *worker) called(i int, short bool) {
	w.short = short
	if !short {
		w.granted = i + 1
	}
}

// unlessEnded returns err, or nil if the end of ctx is its cause.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// exec executes one chunk. cutOff reports that the attempt does not count.
func (w *worker) exec(ctx context.Context, l queue.Lease, i int, chunk []byte) (cutOff bool, err error) {
	w.item.Index, w.item.Chunk = i, chunk
	if w.cached != nil {
		w.item.Digest = w.cached.digest(i)
	} else {
		w.item.Digest = w.hasher.Sum256(chunk)
	}
	b := w.batch
	start := len(b.arena)
	b.arena = w.Input.ID(i).AppendOrderKey(b.arena)
	middle := len(b.arena)
	before := w.ended
	if w.Timed { // otherwise the time between two attempts may count as part of the second
		before = w.clock()
	}
	arena, out, err := w.executor.Exec(ctx, &w.item, b.arena)
	switch {
	case err == nil && out.Reused:
		b.arena = b.arena[:start]
		w.reuse(out.Fuel)
		return false, nil
	case err != nil:
		b.arena = b.arena[:start]
		return w.failed(ctx, l, err, before)
	}
	b.arena = arena
	b.add(i, &w.item.Digest, out.Fuel, start, middle)
	w.progress.Attempts++
	w.progress.Finished++
	w.called(i, 0 < out.Fuel && out.Fuel < shortFuel) // it is 0 without metering
	if i+1 < w.granted && !w.Timed && w.Detail < event.Chunks && len(b.arena) < flushBytes {
		return false, nil // the clock is read at the end of the group
	}
	w.finished(l, before, out.Fuel, b.arena[middle:])
	return false, nil
}

// finished reads the clock after a call that gave an output, records the call, and
// flushes if it is time.
func (w *worker) finished(l queue.Lease, before time.Duration, fuel uint64, output []byte) {
	now := w.clock()
	w.progress.Busy += now - before
	w.ended = now
	w.called(w.item.Index, w.short && now-before < shortTime)
	w.note(Times{before, now})
	if w.Served != nil {
		w.batch.measured(now, now-before, w.memory())
	}
	if w.Detail >= event.Chunks {
		e := event.Event{Time: w.Started.Add(now), Kind: event.KindSucceeded, Duration: now - before, Fuel: fuel, Size: len(output)}
		w.tell(&e, output)
	}
	if len(w.batch.arena) >= flushBytes || now-w.flushed >= w.FlushTime {
		w.flush(l)
		w.flushed = now
	}
}

// memory returns the size of the instance's memory at the end of the last call, in
// bytes; 0 = unknown.
func (w *worker) memory() uint64 {
	if i, ok := w.guest.Instance.(interface{ MemorySize() uint64 }); ok {
		return i.MemorySize()
	}
	return 0
}

// reuse counts the item, whose output is in the store.
func (w *worker) reuse(fuel uint64) {
	b := w.batch
	b.Finished++
	b.Reused++
	b.Fuel += fuel
	w.progress.Finished++
	w.note(Times{NoTime, NoTime})
	if w.Detail >= event.Chunks {
		w.tell(&event.Event{Kind: event.KindReused, Fuel: fuel}, nil)
	}
}

// note adds the item to the finished span; it is the next one in it.
func (w *worker) note(t Times) {
	if !w.Timed {
		return
	}
	s := &w.batch.Span
	if len(s.Digests) == 0 {
		s.First, s.Began = w.item.Index, t.Start
		if t.Start == NoTime {
			s.Began = w.clock()
		}
	}
	s.Digests = append(s.Digests, w.item.Digest)
	s.Times = append(s.Times, t)
}

// failed ends a lease at an item whose attempt failed or was interrupted, or whose
// second execution did not confirm the first.
func (w *worker) failed(ctx context.Context, l queue.Lease, err error, before time.Duration) (cutOff bool, _ error) {
	now := w.clock()
	w.progress.Busy += now - before
	w.ended = now
	if w.Served != nil {
		w.batch.unmeasured()
	}
	failure, ok := errors.AsType[*abi.Failure](err)
	_, differ := errors.AsType[*DifferenceError](err)
	switch {
	case differ:
		w.progress.Attempts++
		return false, err
	case !ok && ctx.Err() != nil:
		return true, errLeaseOver
	case !ok:
		failure = abi.Failf(abi.ClassHost, "%v", err)
	}
	w.progress.Attempts++
	f := Failed{
		Worker: w.id, Chunk: w.item.Index, Last: failure, Decision: w.Queue.Failed(l.ID, w.item.Index, failure),
		Start: w.Started.Add(before), End: time.Now(),
	}
	w.Reporter.Failed(f)
	return false, errLeaseOver
}

// tell records an event of the item.
func (w *worker) tell(e *event.Event, output []byte) {
	if w.Detail >= event.Outputs && output != nil {
		e.Output = append([]byte{}, output...)
	}
	w.about(e)
	w.batch.Events = append(w.batch.Events, *e)
}

// about fills in the item of an event, and the time if it has none.
func (w *worker) about(e *event.Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	id := w.Input.ID(w.item.Index)
	e.ID, e.Chunk, e.Worker = &id, w.item.Index, w.id
}

// log receives a log line of the guest.
func (w *worker) log(level int32, line string) {
	if w.folding || w.Detail < event.Chunks {
		return
	}
	e := event.Event{Kind: event.KindLog, Level: level, Message: line}
	w.about(&e)
	w.events = append(w.events, e)
}
