package queue

import (
	"container/heap"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/event"
)

const (
	// leaseTime is the time that a lease should take: long enough that the cost of
	// giving it out does not matter, short enough for smooth progress.
	leaseTime = 20 * time.Millisecond
	// MaxLease is the limit of chunks in a lease: each lease is at most one commit
	// of a durable store.
	MaxLease    = 16_384
	probeLease  = 1 // while the cost of a chunk is unknown: it may be hours
	costHistory = 8 // number of reports over which the cost is averaged
)

// Memory is the queue of a job whose workers are goroutines of one process. Its
// leases end with the process.
type Memory struct {
	policy  Policy
	observe func([]event.Event) // may be nil
	cursors []cursor            // indexed by holder - 1
	drained chan struct{}
	halted  atomic.Bool // the same as stopped, for Renew

	mu        sync.Mutex // guards all fields below
	work      pending
	histories map[int]*chunkHistory
	leases    map[ID]*held // each until Done
	last      uint64       // the last ID
	cost      cost
	stopped   bool          // no more chunks are given out
	closed    bool          // no more work of any kind is given out
	wake      chan struct{} // closed when there may be work for waiting holders
	untold    []event.Event
}

// Memory passes the test suite of queues.
var _ Queue = (*Memory)(nil)

// held is a lease before Done.
type held struct {
	Lease
	begins bool      // true until Return: the holder's cursor belongs to this lease
	failed []waiting // chunks that go back to the queue with Return
}

// NewMemory returns the queue of the chunks 0..total-1, for holders from 1 to
// holders. observe, if not nil, receives the events of leases, on the goroutines
// that call the queue. When two calls overlap, their events may arrive in the other
// order.
func NewMemory(total, holders int, p Policy, observe func([]event.Event)) *Memory {
	m := &Memory{
		policy: p, observe: observe, cursors: make([]cursor, holders), drained: make(chan struct{}),
		histories: map[int]*chunkHistory{}, leases: map[ID]*held{}, wake: make(chan struct{}),
	}
	m.work.add(Span{0, total})
	m.settle()
	return m
}

// Lease implements [Queue].
func (m *Memory) Lease(ctx context.Context, holder int) (Lease, error) {
	for {
		l, retry, wake, err := m.try(holder)
		if err != nil || l.Number != 0 {
			return l, err
		}
		if err := waitFor(ctx, wake, retry); err != nil {
			return Lease{}, err
		}
	}
}

// waitFor returns when wake is closed, or at the time at if that is not zero.
func waitFor(ctx context.Context, wake <-chan struct{}, at time.Time) error {
	var due <-chan time.Time
	if !at.IsZero() {
		timer := time.NewTimer(time.Until(at))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-wake:
	case <-due:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// try gives out work, if there is any. Otherwise there may be work when wake is
// closed, or at the time of the next retry.
func (m *Memory) try(holder int) (l Lease, retry time.Time, wake <-chan struct{}, err error) {
	m.mu.Lock()
	defer m.unlock()
	now := time.Now()
	if call, ok := m.work.fold(); ok && !m.closed {
		return m.give(holder, Fold, Span{call, call + 1}, now), retry, nil, nil
	}
	if m.closed {
		return l, retry, nil, ErrDone
	}
	if !m.stopped {
		if s, ok := m.take(now); ok {
			return m.give(holder, Chunks, s, now), retry, nil, nil
		}
		retry = m.work.nextRetry()
	}
	return l, retry, m.wake, nil
}

// take takes chunks that may run now, or steals from a holder if none are pending.
func (m *Memory) take(now time.Time) (Span, bool) {
	if s, ok := m.work.next(now, m.cost.lease()); ok {
		return s, true
	}
	return m.steal()
}

// give makes a lease.
func (m *Memory) give(holder int, kind Kind, s Span, now time.Time) Lease {
	m.last++
	l := Lease{ID: ID{m.last, holder}, Kind: kind, Span: s, Since: now}
	m.leases[l.ID] = &held{Lease: l, begins: kind == Chunks}
	if kind == Chunks {
		m.cursors[holder-1].set(s)
		m.tell(event.KindLeased, l, s, "")
	}
	return l
}

// steal takes half of the chunks that the holder with the most chunks left has not
// begun.
func (m *Memory) steal() (Span, bool) {
	var most *held
	left := 0
	for _, h := range m.leases {
		if !h.begins {
			continue
		}
		if n := m.cursors[h.Holder-1].rest().Len(); n > left || n == left && most != nil && h.Number < most.Number {
			most, left = h, n
		}
	}
	if most == nil {
		return Span{}, false
	}
	s := m.cursors[most.Holder-1].split()
	if s.Len() == 0 {
		return s, false
	}
	m.tell(event.KindLeaseEnded, most.Lease, s, event.Stolen)
	return s, true
}

// Renew implements [Queue]. It takes no lock.
func (m *Memory) Renew(id ID, chunk, n int) Renewal {
	if m.halted.Load() { // chunks that were given in advance go back, too
		return Renewal{End: chunk, Next: chunk}
	}
	end := m.cursors[id.Holder-1].begin(chunk, n)
	return Renewal{End: end, Next: min(chunk+n, end)}
}

// Progress implements [Queue].
func (m *Memory) Progress(_ ID, p Progress) {
	m.mu.Lock()
	defer m.unlock()
	m.cost.add(p)
}

// Failed implements [Queue].
func (m *Memory) Failed(id ID, chunk int, f *abi.Failure) Decision {
	m.mu.Lock()
	defer m.unlock()
	h := m.histories[chunk]
	if h == nil {
		h = &chunkHistory{}
		m.histories[chunk] = h
	}
	d := h.decide(f, &m.policy)
	if d.Verdict == Fail {
		delete(m.histories, chunk)
		return d
	}
	d.NotBefore = time.Now().Add(h.wait(d.Verdict, &m.policy))
	if held := m.leases[id]; held != nil && held.begins {
		held.failed = append(held.failed, waiting{chunk, d.NotBefore})
	}
	return d
}

// Return implements [Queue].
func (m *Memory) Return(id ID, chunk int) {
	m.mu.Lock()
	defer m.unlock()
	h := m.leases[id]
	if h == nil || !h.begins {
		return
	}
	h.begins = false
	m.retry(h.failed)
	rest := Span{chunk, m.cursors[id.Holder-1].close()}
	why := event.Done
	switch {
	case m.stopped:
		why = event.Cancelled
	case rest.Len() > 0:
		why = event.Returned
		m.work.add(rest)
		m.wakeAll()
	}
	m.tell(event.KindLeaseEnded, h.Lease, h.Span, why)
}

// retry schedules the retry of chunks, each at its time.
func (m *Memory) retry(failed []waiting) {
	if len(failed) == 0 || m.stopped {
		return
	}
	for _, w := range failed {
		heap.Push(&m.work.waiting, w)
	}
	m.wakeAll()
}

// Done implements [Queue].
func (m *Memory) Done(id ID) {
	m.mu.Lock()
	defer m.unlock()
	delete(m.leases, id)
	m.settle()
}

// Fold adds a call of the fold, which is given out before any chunk.
func (m *Memory) Fold(call int) {
	m.mu.Lock()
	defer m.unlock()
	m.work.folds = append(m.work.folds, call)
	m.wakeAll()
}

// Stop ends all leases of chunks at the chunks that they have reached, and gives
// out no more. Calls of the fold go on.
func (m *Memory) Stop() {
	m.mu.Lock()
	defer m.unlock()
	if m.stopped {
		return
	}
	m.stopped = true
	m.halted.Store(true)
	m.work.spans, m.work.waiting = nil, nil
	for _, h := range m.leases {
		if h.begins {
			m.cursors[h.Holder-1].revoke()
		}
	}
	m.settle()
}

// Close ends the queue: holders that wait for work get [ErrDone]. Leases in
// progress may still be completed.
func (m *Memory) Close() {
	m.mu.Lock()
	defer m.unlock()
	m.closed = true
	m.wakeAll()
}

// Drained is closed when every chunk has an output or has failed, or, after
// Stop, when every lease of chunks is Done.
func (m *Memory) Drained() <-chan struct{} { return m.drained }

// Active returns the leases of chunks that have begun, or may begin, at least one
// chunk.
func (m *Memory) Active() (active []Active) {
	m.mu.Lock()
	defer m.unlock()
	for _, h := range m.leases {
		if !h.begins {
			continue
		}
		if s := m.cursors[h.Holder-1].rest(); s.To > h.From {
			active = append(active, Active{h.Holder, Span{h.From, s.To}, h.Since})
		}
	}
	return active
}

// settle closes drained if nothing is left.
func (m *Memory) settle() {
	if !m.work.empty() {
		return
	}
	for _, h := range m.leases {
		if h.Kind == Chunks {
			return
		}
	}
	select {
	case <-m.drained:
	default:
		close(m.drained)
	}
}

// wakeAll makes waiting holders look for work again.
func (m *Memory) wakeAll() {
	close(m.wake)
	m.wake = make(chan struct{})
}

// tell records an event of a span of a lease, if there is an observer.
func (m *Memory) tell(kind event.Kind, l Lease, s Span, why event.Why) {
	if m.observe == nil {
		return
	}
	m.untold = append(m.untold, event.Event{
		Time: time.Now(), Kind: kind, Worker: l.Holder,
		Lease: &event.Lease{From: s.From, To: s.To - 1, Since: l.Since, Why: why},
	})
}

// unlock ends a call, and then reports its events: the observer may take locks of
// its own, and call the queue.
func (m *Memory) unlock() {
	untold := m.untold
	m.untold = nil
	m.mu.Unlock()
	if len(untold) > 0 {
		m.observe(untold)
	}
}

// cost estimates the cost of a chunk, which determines the size of leases.
type cost struct {
	attempts, finished int
	each               time.Duration // moving average
}

func (c *cost) add(p Progress) {
	c.finished += p.Finished
	if p.Attempts == 0 {
		return
	}
	c.attempts += p.Attempts
	each := p.Busy / time.Duration(p.Attempts)
	if c.each == 0 {
		c.each = each
	}
	c.each += (each - c.each) / costHistory
}

// lease returns the number of chunks that the next lease should have.
func (c *cost) lease() int {
	switch {
	case c.attempts > 0:
		return max(1, int(min(MaxLease, leaseTime/max(c.each, 1))))
	case c.finished > 0: // all of them were reused
		return MaxLease
	}
	return probeLease
}

// cursor holds the rest of a holder's present lease. The holder takes chunks one
// after another from the front; the queue takes from the back, to give chunks to
// others or to end the lease.
type cursor struct {
	v atomic.Uint64 // next << 32 | end; chunks are below 2^32
	_ [56]byte      // Each holder's cursor has a cache line of its own, because it is written for each chunk or a few.
}

func (c *cursor) set(s Span) { c.v.Store(uint64(s.From)<<32 | uint64(s.To)) }

// rest returns the chunks that were not begun.
func (c *cursor) rest() Span {
	v := c.v.Load()
	return Span{int(v >> 32), int(v & 0xffffffff)}
}

// begin takes n chunks from the front, as far as the lease still has them, and
// returns the lease's end. Chunks that were taken before and are not among these go
// back.
func (c *cursor) begin(chunk, n int) (end int) {
	for {
		v := c.v.Load()
		end := v & 0xffffffff
		if uint64(chunk) >= end || c.v.CompareAndSwap(v, min(uint64(chunk+n), end)<<32|end) {
			return int(end)
		}
	}
}

// split takes the back half of the rest, at least one chunk if there is one.
func (c *cursor) split() Span { return c.cut(func(left uint64) uint64 { return (left + 1) / 2 }) }

// revoke takes the whole rest.
func (c *cursor) revoke() Span { return c.cut(func(left uint64) uint64 { return left }) }

func (c *cursor) cut(share func(left uint64) uint64) Span {
	for {
		v := c.v.Load()
		next, end := v>>32, v&0xffffffff
		if next >= end {
			return Span{int(end), int(end)}
		}
		middle := end - share(end-next)
		if c.v.CompareAndSwap(v, next<<32|middle) {
			return Span{int(middle), int(end)}
		}
	}
}

// close takes the whole rest, and returns the end of the lease.
func (c *cursor) close() (end int) {
	for {
		v := c.v.Load()
		end := v & 0xffffffff
		if c.v.CompareAndSwap(v, end<<32|end) {
			return int(end)
		}
	}
}

// pending is the work without a lease.
type pending struct {
	folds   []int  // calls, in order
	spans   []Span // taken from the end of the slice
	waiting waitingHeap
}

func (p *pending) add(s Span) {
	if s.Len() > 0 {
		p.spans = append(p.spans, s)
	}
}

func (p *pending) fold() (call int, ok bool) {
	if len(p.folds) == 0 {
		return 0, false
	}
	call, p.folds = p.folds[0], p.folds[1:]
	return call, true
}

// next returns up to size chunks that may run now; retries that are due come first.
func (p *pending) next(now time.Time, size int) (Span, bool) {
	if len(p.waiting) > 0 && !p.waiting[0].notBefore.After(now) {
		w := heap.Pop(&p.waiting).(waiting)
		return Span{w.chunk, w.chunk + 1}, true
	}
	last := len(p.spans) - 1
	if last < 0 {
		return Span{}, false
	}
	s := &p.spans[last]
	taken := Span{s.From, s.From + min(size, s.Len())}
	if s.From = taken.To; s.Len() == 0 {
		p.spans = p.spans[:last]
	}
	return taken, true
}

// nextRetry returns the time when the next retry is due, or zero if none waits.
func (p *pending) nextRetry() time.Time {
	if len(p.waiting) == 0 {
		return time.Time{}
	}
	return p.waiting[0].notBefore
}

func (p *pending) empty() bool { return len(p.spans) == 0 && len(p.waiting) == 0 }

// waiting is a chunk whose retry waits until a time.
type waiting struct {
	chunk     int
	notBefore time.Time
}

// waitingHeap is a heap with the earliest first.
type waitingHeap []waiting

func (h waitingHeap) Len() int           { return len(h) }
func (h waitingHeap) Less(i, j int) bool { return h[i].notBefore.Before(h[j].notBefore) }
func (h waitingHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements [heap.Interface].
func (h *waitingHeap) Push(x any) { *h = append(*h, x.(waiting)) }

// Pop implements [heap.Interface].
func (h *waitingHeap) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	*h = (*h)[:last]
	return w
}
