package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
	"github.com/wasm-jobs/wasm-jobs/host/worker"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

// held is the lease of a slot, as the heartbeat sees it.
type held struct {
	lease  postgres.Lease
	end    atomic.Int64
	done   atomic.Int64 // the chunk that runs
	cancel context.CancelFunc
}

// slot takes one lease after another. Only its own goroutine uses it, except for held.
type slot struct {
	*process
	number int
	seq    int64
	held   atomic.Pointer[held]
}

// serving is a slot while it serves one job: it is the queue and the keeper of one
// worker. The last put of a lease, its end and the next lease are one request.
type serving struct {
	*slot
	job   *job
	in    *input
	soft  context.Context
	hard  context.Context // of attempts; cancelled by a heartbeat that finds that the lease is over
	cut   context.CancelFunc
	given bool            // the first lease
	next  chan settled    // of Done, for Lease
	after *postgres.Lease // the lease that the slot continues with

	mu       sync.Mutex // of the fields below: two goroutines of a worker use them
	returned bool
	from     int // first chunk that is given back
	spans    []postgres.Span
	failures []postgres.Failure
	executed int
	busy     time.Duration
}

type settled struct {
	lease postgres.Lease
	err   error
}

// begin gives the slot a lease.
func (s *serving) begin(l postgres.Lease) {
	s.hold(l, s.cut)
	s.in.source = leaseSource{s.worker, l}
	s.mu.Lock()
	s.returned, s.from = false, l.First
	s.mu.Unlock()
	stintOf(s.slot, s.job).leased(l)
}

// Lease implements [queue.Queue].
func (s *serving) Lease(context.Context, int) (queue.Lease, error) {
	if s.given {
		r := <-s.next // Done was called or will be called
		if r.err != nil {
			s.fail(r.err)
			return queue.Lease{}, queue.ErrDone
		}
		if r.lease.Key == 0 || r.lease.Fold || r.lease.Calls || versionOf(r.lease) != s.job.version || s.soft.Err() != nil || s.hard.Err() != nil {
			s.after = &r.lease
			return queue.Lease{}, queue.ErrDone
		}
		s.begin(r.lease)
	}
	s.given = true
	l := s.held.Load().lease
	return queue.Lease{ID: queue.ID{Number: uint64(l.Key), Holder: 1}, Span: queue.Span{From: l.First, To: l.Last}, Since: time.Now(), Until: l.Until}, nil
}

// Renew implements [queue.Queue].
func (s *serving) Renew(_ queue.ID, chunk, _ int) queue.Renewal {
	h := s.held.Load()
	h.done.Store(int64(chunk))
	if h.lease.Announced && int64(chunk) < h.end.Load() {
		goes, err := s.worker.Announce(s.requests, h.lease, chunk)
		if err != nil {
			s.fail(err)
		}
		if !goes {
			h.end.Store(0)
		}
	}
	if s.soft.Err() != nil && chunk > h.lease.First {
		return queue.Renewal{}
	}
	end := int(h.end.Load())
	return queue.Renewal{End: end, Next: min(chunk+1, end)}
}

// Progress implements [queue.Queue].
func (s *serving) Progress(_ queue.ID, p queue.Progress) {
	s.job.measure(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.executed += p.Attempts
	s.busy += p.Busy
}

// Failed implements [queue.Queue]. The database decides about the chunk when the lease is
// settled.
func (s *serving) Failed(_ queue.ID, chunk int, f *abi.Failure) queue.Decision {
	now := time.Now()
	detail, err := json.Marshal(journal.FailedAttempt{Failure: *f, Worker: s.number, Host: s.Host, Start: now, End: now})
	if err != nil {
		panic(err) // it has only texts and numbers
	}
	failure := postgres.Failure{Chunk: chunk, Class: string(f.Class), Detail: detail}
	if len(f.Stack) > 0 {
		sum := sha256.Sum256([]byte(strings.Join(append([]string{string(f.Class), f.Message}, f.Stack...), "\x00")))
		failure.Trap = sum[:]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, failure)
	return queue.Decision{Verdict: queue.Retry, Attempt: 1, Failure: f}
}

// Return implements [queue.Queue].
func (s *serving) Return(_ queue.ID, chunk int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.returned, s.from = true, chunk
}

// Keep implements [worker.Keeper]. The last outputs of a lease wait for its end.
func (s *serving) Keep(_ context.Context, records []store.Record, span *worker.Span) error {
	if len(records) == 0 {
		return nil
	}
	kept := postgres.Span{First: span.First, Records: records, Detail: s.details(span)}
	s.mu.Lock()
	if s.returned {
		kept.Records = clone(records)
		s.spans = append(s.spans, kept)
		s.mu.Unlock()
		return nil
	}
	settlement := s.settlement()
	s.mu.Unlock()
	settlement.Spans = append(settlement.Spans, kept)
	settlement.Done = span.First + len(records)
	_, err := s.report(settlement)
	return err
}

// settlement takes the outputs and failures that were not sent to the database yet.
// mu is held.
func (s *serving) settlement() *postgres.Settlement {
	s.seq++
	t := &postgres.Settlement{
		Lease: s.held.Load().lease, Seq: s.seq, Spans: s.spans, Failures: s.failures, Executed: s.executed, Busy: s.busy, Only: s.Only,
	}
	s.spans, s.failures, s.executed, s.busy = nil, nil, 0, 0
	return t
}

// Done implements [queue.Queue].
func (s *serving) Done(queue.ID) {
	s.mu.Lock()
	t := s.settlement()
	t.Done, t.Ends = s.from, true
	s.mu.Unlock()
	t.Next, t.Want = s.soft.Err() == nil, s.wants()
	next, err := s.report(t)
	stintOf(s.slot, s.job).leaseEnded(s.held.Load(), t.Done, s.hard.Err() != nil)
	s.held.Store(nil)
	s.next <- settled{next, err}
}

// report reports to the database. A conflict breaks the job. A lease that is over is not
// an error: other workers have its chunks now.
func (s *serving) report(t *postgres.Settlement) (postgres.Lease, error) {
	next, err := s.worker.Settle(s.requests, t)
	if c, ok := errors.AsType[*store.ConflictError](err); ok {
		text := fmt.Sprintf("chunk %s: %v: the module is not deterministic, or a machine is faulty", s.chunkOf(t, c.Chunk), c)
		s.notice(text)
		if err := s.worker.Break(s.requests, t.Lease, "conflict", text); err != nil && !errors.Is(err, postgres.ErrNotHeld) {
			return next, err
		}
		t.Spans = nil
		next, err = s.worker.Settle(s.requests, t)
	}
	switch {
	case errors.Is(err, postgres.ErrNotHeld):
		if h := s.held.Load(); h != nil {
			h.end.Store(0)
		}
		err = nil
	case err == nil:
		stintOf(s.slot, s.job).stored(t.Spans)
	}
	return next, err
}

// chunkOf returns the id of a chunk of a lease.
func (s *serving) chunkOf(t *postgres.Settlement, chunk store.Digest) string {
	id := "?"
	_ = s.in.Read(s.requests, t.First, t.Last, func(i int, b []byte) error {
		if sha256.Sum256(b) == chunk {
			id = s.in.ID(i).String()
			return errFound
		}
		return nil
	})
	return id
}

var errFound = errors.New("found")

// details returns a function that makes the details of a part of a span.
func (s *serving) details(span *worker.Span) func(from, to int) []byte {
	times, began, first := append([]worker.Times{}, span.Times...), s.started.Add(span.Began), span.First
	return func(from, to int) []byte {
		detail := journal.AppendDetail(nil, s.number, began)
		last := span.Began
		if from > first {
			last = times[from-first].Start
			detail = journal.AppendDetail(nil, s.number, s.started.Add(last))
		}
		for _, t := range times[from-first : to-first] {
			detail = journal.AppendElapsed(detail, t.Start-last, t.End-t.Start)
			last = t.End
		}
		return detail
	}
}

// clone copies records into new memory.
func clone(records []store.Record) []store.Record {
	size := 0
	for i := range records {
		size += len(records[i].Order) + len(records[i].Output)
	}
	arena := make([]byte, 0, size)
	all := make([]store.Record, len(records))
	for i := range records {
		r := records[i]
		start := len(arena)
		arena = append(arena, r.Order...)
		middle := len(arena)
		arena = append(arena, r.Output...)
		r.Order, r.Output = arena[start:middle:middle], arena[middle:len(arena):len(arena)]
		all[i] = r
	}
	return all
}

// Attempted implements [worker.Reporter].
func (s *serving) Attempted(queue.Progress, int, []event.Event) {}

// reporter is a serving as a [worker.Reporter].
type reporter struct{ *serving }

// Failed implements [worker.Reporter].
func (r reporter) Failed(f worker.Failed) { stintOf(r.slot, r.job).failed(&f, r.in.ID(f.Chunk)) }

// Stored implements [worker.Reporter].
func (r reporter) Stored(b *worker.Batch, err error) {
	if err != nil {
		r.fail(err)
	}
	b.Free()
}

// Folded implements [worker.Reporter].
func (reporter) Folded(time.Duration) {}

// Broken implements [worker.Reporter]: chunks could not be read.
func (r reporter) Broken(err error) {
	if errors.Is(err, postgres.ErrNotHeld) {
		return
	}
	h := r.held.Load()
	if !errors.Is(err, errDamaged) {
		if h == nil || postgres.IsServer(err) {
			r.fail(err)
			return
		}
		r.notice(fmt.Sprintf("chunks cannot be read here; their job is tried again after %v: %v", r.putOff(h.lease.Job), err))
		h.end.Store(0)
		return
	}
	if h != nil {
		if err := r.worker.Break(r.requests, h.lease, "module", err.Error()); err != nil && !errors.Is(err, postgres.ErrNotHeld) {
			r.fail(err)
		}
	}
}

// serve executes a lease and those that follow it, until the next lease is of another
// job, which it returns, or there is none.
func (s *slot) serve(soft context.Context, j *job, l postgres.Lease) postgres.Lease {
	hard, cancel := context.WithCancel(s.hard)
	defer cancel()
	v := &serving{slot: s, job: j, in: j.input(leaseSource{s.worker, l}, s.Shared), soft: soft, hard: hard, cut: cancel, next: make(chan settled, 1)}
	v.begin(l)
	share := worker.NewSlots(1).Join()
	defer share.Leave()
	worker.Run(hard, hard, 1, &worker.Config{
		Queue: v, Input: measured{v.in, j}, Pool: j.pool, Action: j.record.Action, Keeper: v, Reporter: reporter{v}, Share: share,
		Timed: true, Started: s.started, FlushTime: flushTime,
	})
	s.held.Store(nil)
	if v.after == nil {
		return postgres.Lease{Slot: s.number}
	}
	return *v.after
}

// flushTime is the longest time that outputs wait to be put together with later ones.
const flushTime = 2 * time.Second

// measured is an input that measures the size of its chunks.
type measured struct {
	*input
	job *job
}

func (m measured) Read(ctx context.Context, from, to int, each func(i int, chunk []byte) error) error {
	size, count := 0, 0
	err := m.input.Read(ctx, from, to, func(i int, chunk []byte) error {
		size += len(chunk)
		count++
		return each(i, chunk)
	})
	m.job.sized(size, count)
	return err
}
