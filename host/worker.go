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
	"github.com/wasm-jobs/wasm-jobs/store"
)

const (
	// flushBytes and flushTime bound what a worker holds that is not stored.
	flushBytes = 4 << 20
	flushTime  = 100 * time.Millisecond
)

// result is what a worker tells the scheduler. over says that the lease is
// given back; what is left of it goes back to the queue.
type result struct {
	worker  *worker
	over    bool
	ran     int // attempts
	reused  int
	done    int    // attempts that gave an output, now stored
	fuel    uint64 // of those
	busy    time.Duration
	failed  *abi.Failure // of chunk; at most one, the last of its lease
	chunk   int
	began   time.Time // the attempt that failed
	events  []Event
	err     error // the job cannot go on
	unended bool  // the attempt on chunk was cut off by the end of the context
}

// worker runs leases on one instance. Its fields belong to its goroutine,
// apart from id and leases.
type worker struct {
	id       int
	job      *run
	leases   chan *lease // sent and closed by the scheduler
	instance Instance
	found    []known // chunks of the lease
	keys     []store.Key
	orders   []byte // of keys
	arena    []byte // outputs and order keys that are not stored yet
	pending  []pendingRecord
	records  []store.Record
	finished finished
	result   result
	flushed  time.Time
	chunk    int // that runs now
}

// known is what the store has of a chunk.
type known struct {
	stored bool
	fuel   uint64
}

// finished is the span of chunks that have outputs and are not reported yet.
type finished struct {
	first  int
	chunks []store.Digest // none where nothing is recorded
	detail []byte
	last   time.Time // end of the last attempt
}

// pendingRecord says where a record's bytes stand in the arena.
type pendingRecord struct {
	index              int // of the chunk
	chunk              store.Digest
	fuel               uint64
	start, middle, end int // order key, output
}

// work runs leases until there are no more.
func (w *worker) work(ctx context.Context) {
	w.instance = w.job.pool.Lease(w.log)
	defer w.instance.Release()
	for l := range w.leases {
		w.flushed = time.Now()
		err := w.run(ctx, l)
		if !errors.Is(err, errLeaseOver) {
			w.result.err = interrupted(ctx, err)
		}
		w.flush(ctx, true)
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
			if len(w.pending) > 0 || len(w.finished.chunks) > 0 {
				w.flush(ctx, false) // the span ends
			}
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
	w.result.reused++
	w.result.fuel += fuel
	w.event(Event{Kind: KindReused}, i)
	w.note(i, chunk, time.Time{}, time.Time{})
}

// note adds a chunk to the span that is finished, of which it is the next one.
// Without times, its output was there.
func (w *worker) note(i int, chunk store.Digest, start, end time.Time) {
	if w.job.records == nil {
		return
	}
	f := &w.finished
	if len(f.chunks) == 0 {
		f.first, f.last = i, start
		if start.IsZero() {
			f.last = time.Now()
		}
		f.detail = jobs.AppendDetail(f.detail[:0], w.id, f.last)
	}
	f.chunks = append(f.chunks, chunk)
	if start.IsZero() {
		f.detail = jobs.AppendElapsed(f.detail, 0, -1)
		return
	}
	f.detail = jobs.AppendElapsed(f.detail, start.Sub(f.last), end.Sub(start))
	f.last = end
}

func (w *worker) exec(ctx context.Context, i int, chunk []byte) error {
	w.chunk = i
	start := len(w.arena)
	w.arena = w.job.Chunks.ID(i).AppendOrderKey(w.arena)
	middle := len(w.arena)
	before := time.Now()
	arena, fuel, err := w.instance.Call(ctx, abi.ExportExec, chunk, w.arena)
	now := time.Now()
	w.result.busy += now.Sub(before)
	w.result.ran++
	if err != nil {
		w.arena = w.arena[:start]
		w.result.began = before
		return w.fail(ctx, i, err)
	}
	w.arena = arena
	digest := store.Digest(sha256.Sum256(chunk))
	w.pending = append(w.pending, pendingRecord{i, digest, fuel, start, middle, len(w.arena)})
	w.note(i, digest, before, now)
	w.result.done++
	w.result.fuel += fuel
	w.event(Event{Kind: KindSucceeded}, i)
	if len(w.arena) >= flushBytes || now.Sub(w.flushed) >= flushTime {
		w.flush(ctx, false)
		w.flushed = now
	}
	return nil
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

// flush stores what is pending, and only then reports it. An attempt that was
// cut off by the context does not keep finished ones from being stored.
func (w *worker) flush(ctx context.Context, over bool) {
	if err := w.put(context.WithoutCancel(ctx)); err != nil {
		w.result.done, w.result.reused, w.result.fuel, w.result.err = 0, 0, 0, err
		w.result.events = slices.DeleteFunc(w.result.events, func(e Event) bool { return e.Kind == KindSucceeded || e.Kind == KindReused })
	}
	w.result.worker, w.result.over = w, over
	w.job.results <- w.result
	w.result = result{}
}

func (w *worker) put(ctx context.Context) error {
	span := store.Span{First: w.finished.first, Chunks: w.finished.chunks, Detail: w.finished.detail}
	w.finished.chunks = w.finished.chunks[:0]
	if len(w.pending) == 0 && !w.job.records.needs(spanOf(&span)) {
		return nil
	}
	w.records = w.records[:0]
	for _, p := range w.pending {
		w.records = append(w.records, store.Record{
			Key:   store.Key{Chunk: p.chunk, Order: w.arena[p.start:p.middle]},
			Value: store.Value{Output: w.arena[p.middle:p.end], Fuel: p.fuel},
		})
	}
	var err error
	if w.job.records != nil {
		err = w.job.records.finish(ctx, w.job.action, w.records, span)
	} else {
		err = w.job.store.Put(ctx, w.job.action, w.records)
	}
	if err != nil {
		err = w.refused(err)
	}
	w.pending, w.arena = w.pending[:0], w.arena[:0]
	return err
}

// refused says why pending outputs were not stored. Of conflicts it names the
// first, with its chunk: there may be thousands, and one is enough.
func (w *worker) refused(err error) error {
	if c, ok := errors.AsType[*store.ConflictError](err); ok {
		i := slices.IndexFunc(w.pending, func(p pendingRecord) bool { return p.chunk == c.Chunk })
		err = fmt.Errorf("chunk %v: %w: the module is no function of its chunk, or a machine is broken", w.job.Chunks.ID(w.pending[i].index), c)
	}
	return &StoreError{err}
}

// event notes an event of a chunk, where somebody listens.
func (w *worker) event(e Event, chunk int) {
	if !w.job.observed {
		return
	}
	id := w.job.Chunks.ID(chunk)
	e.Time, e.ID, e.Worker = time.Now(), &id, w.id
	w.result.events = append(w.result.events, e)
}

func (w *worker) log(level int32, line string) {
	w.event(Event{Kind: KindLog, Level: level, Message: line}, w.chunk)
}
