package host

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/jobs"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
	"github.com/wasm-jobs/wasm-jobs/store"
)

const (
	// flushBytes and flushTime bound what a worker holds that is not stored.
	flushBytes = 4 << 20
	flushTime  = 100 * time.Millisecond
)

// result is what a worker tells the scheduler: of the attempts that it made, or
// of a batch that was stored.
type result struct {
	worker *worker
	// over says that the lease is given back; what is left of it goes back to
	// the queue.
	over     bool
	ran      int           // attempts
	verified int           // of them were made twice
	busy     time.Duration // of attempts, or of the call of the fold
	failed   *abi.Failure  // of chunk; at most one, the last of its lease
	chunk    int
	began    time.Time // the attempt that failed
	unended  bool      // the attempt on chunk was cut off by the end of the context
	err      error     // the job cannot go on
	events   []Event
	batch    *batch // was stored, or with err was not
	folded   bool   // a call of the fold was made
}

// task is what a worker does next: one of its fields is set.
type task struct {
	lease *lease
	fold  *foldCall
}

// batch is what a worker finished and has stored together. While it is stored,
// the worker fills another one.
type batch struct {
	done, reused int    // chunks
	fuel         uint64 // of the calls that gave their outputs
	events       []Event
	arena        []byte // outputs and order keys
	pending      []pendingRecord
	records      []store.Record
	finished     finished
	span         merkle.Span   // of its outputs, once stored, where they are streamed
	home         chan<- *batch // where it goes when it is empty
}

func newBatch(home chan<- *batch) *batch { return &batch{home: home} }

// giveBack makes the batch an empty one, which its worker may fill again.
// Events belong to who was told of them.
func (b *batch) giveBack() {
	b.done, b.reused, b.fuel, b.events = 0, 0, 0, nil
	b.arena, b.pending, b.finished.chunks = b.arena[:0], b.pending[:0], b.finished.chunks[:0]
	b.home <- b // has room
}

// worker runs leases on one instance. Its fields belong to its goroutine,
// apart from id and the channels.
type worker struct {
	id       int
	job      *run
	tasks    chan task   // sent and closed by the scheduler
	full     chan *batch // to be stored; sent and closed by the worker
	empty    chan *batch // to be filled; has room for all there are
	instance Instance
	checker  Instance // of run.second; nil before it is needed
	checked  []byte   // what it gave
	found    []known  // chunks of the lease
	keys     []store.Key
	orders   []byte // of keys
	batch    *batch // that is filled
	result   result
	flushed  time.Duration // when, on the clock of job
	ended    time.Duration // the last attempt, or the lease began
	chunk    int           // that runs now
	folding  bool          // and no chunk runs
}

// batches is how many a worker has: one to fill and one to store.
const batches = 2

func newWorker(id int, r *run) *worker {
	w := &worker{id: id, job: r, tasks: make(chan task, 1), full: make(chan *batch), empty: make(chan *batch, batches)}
	for range batches {
		w.empty <- newBatch(w.empty)
	}
	return w
}

// known is what the store has of a chunk.
type known struct {
	stored bool
	fuel   uint64
}

// finished is the span of chunks that a batch has.
type finished struct {
	first  int
	chunks []store.Digest // none where nothing is recorded
	detail []byte
	last   time.Duration // end of the last attempt, on the clock of run
}

// pendingRecord says where a record's bytes stand in the arena.
type pendingRecord struct {
	index              int // of the chunk
	chunk              store.Digest
	fuel               uint64
	start, middle, end int // order key, output
}

// work does tasks until there are no more.
func (w *worker) work(ctx context.Context) {
	w.instance = w.job.pool.Lease(w.log)
	defer w.instance.Release()
	defer func() {
		if w.checker != nil {
			w.checker.Release()
		}
	}()
	defer close(w.full)
	w.batch = <-w.empty
	for t := range w.tasks {
		if t.fold != nil {
			start := time.Now()
			w.folding = true
			t.fold.make(w.instance)
			w.folding = false
			w.job.results <- result{worker: w, folded: true, busy: time.Since(start)}
			continue
		}
		w.flushed = w.job.clock()
		w.ended = w.flushed
		err := w.run(ctx, t.lease)
		if !errors.Is(err, errLeaseOver) {
			w.result.err = interrupted(ctx, err)
		}
		w.flush()
		w.report(true)
	}
}

// report tells the scheduler of the attempts.
func (w *worker) report(over bool) {
	w.result.worker, w.result.over = w, over
	w.job.results <- w.result
	w.result = result{}
}

// flush hands the batch over to be stored, and takes an empty one.
func (w *worker) flush() {
	if w.batch.done+w.batch.reused == 0 {
		return
	}
	w.job.storing.Add(1)
	w.full <- w.batch
	w.batch = <-w.empty
}

// keep stores batches, and only then reports them. An attempt that was cut off
// by the context does not keep finished ones from being stored.
func (w *worker) keep(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	for b := range w.full {
		err := b.put(ctx, w.job)
		if err == nil && !w.job.lookup {
			b.hash(w.job)
		}
		w.job.results <- result{worker: w, batch: b, err: err}
	}
}

// errLeaseOver ends a lease early: a chunk failed, or the rest was taken.
var errLeaseOver = errors.New("lease over")

func (w *worker) run(ctx context.Context, l *lease) error {
	s := l.rest()
	if s.len() <= 0 {
		return nil
	}
	w.found = w.found[:0]
	if w.job.lookup {
		if err := w.lookUp(ctx, s); err != nil {
			return err
		}
	}
	return w.job.Chunks.Read(ctx, s.from, s.to, func(i int, chunk []byte) error {
		if taken, ok := l.take(); !ok || taken != i {
			return errLeaseOver
		}
		switch {
		case w.job.lookup && w.found[i-s.from].stored:
			w.reuse(i, w.keys[i-s.from].Chunk, w.found[i-s.from].fuel)
			return nil
		case w.job.Redrive != nil && !w.job.Redrive.Only.Has(w.job.Chunks.ID(i)):
			w.flush() // the span ends
			return nil
		}
		return w.exec(ctx, i, chunk)
	})
}

// lookUp asks the store which chunks of the lease it has. Their orders say
// where it most likely has them.
func (w *worker) lookUp(ctx context.Context, s span) error {
	w.keys, w.orders = w.keys[:0], w.orders[:0]
	err := w.job.Chunks.Read(ctx, s.from, s.to, func(i int, chunk []byte) error {
		start := len(w.orders)
		w.orders = w.job.Chunks.ID(i).AppendOrderKey(w.orders)
		w.keys = append(w.keys, store.Key{Chunk: sha256.Sum256(chunk), Order: w.orders[start:]})
		return nil
	})
	if err != nil {
		return err
	}
	w.found = append(w.found, make([]known, len(w.keys))...)
	err = w.job.store.Get(ctx, w.job.action, w.keys, func(i int, v store.Value) error {
		w.found[i] = known{true, v.Fuel}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		return &StoreError{err}
	}
	return err
}

// reuse counts a chunk whose output the store has.
func (w *worker) reuse(i int, chunk store.Digest, fuel uint64) {
	w.batch.reused++
	w.batch.fuel += fuel
	w.event(&w.batch.events, Event{Kind: KindReused}, i)
	w.note(i, chunk, reused, reused)
}

// reused stands for the times of an attempt where there was none.
const reused = -1

// note adds a chunk to the span that is finished, of which it is the next one,
// with the times of the attempt on the clock of the run.
func (w *worker) note(i int, chunk store.Digest, start, end time.Duration) {
	if w.job.records == nil {
		return
	}
	f := &w.batch.finished
	if len(f.chunks) == 0 {
		f.first, f.last = i, start
		if start == reused {
			f.last = w.job.clock()
		}
		f.detail = jobs.AppendDetail(f.detail[:0], w.id, w.job.started.Add(f.last))
	}
	f.chunks = append(f.chunks, chunk)
	if start == reused {
		f.detail = jobs.AppendElapsed(f.detail, 0, -1)
		return
	}
	f.detail = jobs.AppendElapsed(f.detail, start-f.last, end-start)
	f.last = end
}

func (w *worker) exec(ctx context.Context, i int, chunk []byte) error {
	w.chunk = i
	b := w.batch
	start := len(b.arena)
	b.arena = w.job.Chunks.ID(i).AppendOrderKey(b.arena)
	middle := len(b.arena)
	before := w.ended
	if w.job.records != nil { // else what comes between two attempts may count as the second's
		before = w.job.clock()
	}
	arena, fuel, err := w.instance.Call(ctx, abi.ExportExec, chunk, b.arena)
	now := w.job.clock()
	w.result.busy += now - before
	w.ended = now
	w.result.ran++
	if err != nil {
		b.arena = b.arena[:start]
		w.result.began = w.job.started.Add(before)
		return w.fail(ctx, i, err)
	}
	digest := store.Digest(sha256.Sum256(chunk))
	if w.job.second.has(digest) {
		if err := w.again(ctx, i, chunk, arena[middle:], fuel); err != nil {
			b.arena = arena[:start]
			return w.differs(ctx, i, err)
		}
	}
	b.arena = arena
	b.pending = append(b.pending, pendingRecord{i, digest, fuel, start, middle, len(b.arena)})
	b.done++
	b.fuel += fuel
	w.note(i, digest, before, now)
	w.event(&b.events, Event{Kind: KindSucceeded}, i)
	if len(b.arena) >= flushBytes || now-w.flushed >= flushTime {
		w.flush()
		w.report(false)
		w.flushed = now
	}
	return nil
}

// differs ends a lease on a chunk whose second execution did not confirm the
// first: for good, or where ctx ended, for this time.
func (w *worker) differs(ctx context.Context, i int, err error) error {
	if _, differ := errors.AsType[*DifferenceError](err); differ {
		return err
	}
	return w.fail(ctx, i, err)
}

func (w *worker) fail(ctx context.Context, i int, err error) error {
	w.result.chunk = i
	if failure, ok := errors.AsType[*abi.Failure](err); ok {
		w.result.failed = failure
		return errLeaseOver
	}
	if ctx.Err() != nil {
		w.result.unended = true
		return errLeaseOver
	}
	w.result.failed = abi.Failf(abi.ClassHost, "%v", err)
	return errLeaseOver
}

func (b *batch) put(ctx context.Context, r *run) error {
	span := store.Span{First: b.finished.first, Chunks: b.finished.chunks, Detail: b.finished.detail}
	if len(b.pending) == 0 && !r.records.needs(spanOf(&span)) {
		return nil
	}
	b.records = b.records[:0]
	for _, p := range b.pending {
		b.records = append(b.records, store.Record{
			Key:   store.Key{Chunk: p.chunk, Order: b.arena[p.start:p.middle]},
			Value: store.Value{Output: b.arena[p.middle:p.end], Fuel: p.fuel},
		})
	}
	var err error
	if r.records != nil {
		err = r.records.finish(ctx, r.action, b.records, span)
	} else {
		err = r.store.Put(ctx, r.action, b.records)
	}
	if err != nil {
		err = b.refused(r, err)
	}
	return err
}

// hash hashes the outputs, which are of consecutive chunks.
func (b *batch) hash(r *run) {
	b.span.Reset(uint64(b.pending[0].index))
	for _, p := range b.pending {
		b.span.AddEntry(r.Chunks.ID(p.index), b.arena[p.middle:p.end])
	}
}

// refused says why a batch was not stored. Of conflicts it names the first,
// with its chunk: there may be thousands, and one is enough.
func (b *batch) refused(r *run, err error) error {
	if c, ok := errors.AsType[*store.ConflictError](err); ok {
		i := slices.IndexFunc(b.pending, func(p pendingRecord) bool { return p.chunk == c.Chunk })
		err = fmt.Errorf("chunk %v: %w: the module is no function of its chunk, or a machine is broken", r.Chunks.ID(b.pending[i].index), c)
	}
	return &StoreError{err}
}

// event notes an event of a chunk, where somebody listens.
func (w *worker) event(to *[]Event, e Event, chunk int) {
	if !w.job.observed {
		return
	}
	id := w.job.Chunks.ID(chunk)
	e.Time, e.ID, e.Worker = time.Now(), &id, w.id
	*to = append(*to, e)
}

func (w *worker) log(level int32, line string) {
	if w.folding {
		return
	}
	w.event(&w.result.events, Event{Kind: KindLog, Level: level, Message: line}, w.chunk)
}
