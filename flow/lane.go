package flow

import (
	"container/heap"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// lane is the work of one state: the queue and the input of its workers. To them,
// the steps to make are chunks, numbered in the order in which they arrived. A lane
// belongs to its gate, whose lock guards its fields.
type lane struct {
	gate     *gate
	state    *state
	roots    Input
	started  time.Time                             // of the run
	bounds   time.Duration                         // the longest pause after a slow-down
	key      func(it *item, s *state) store.Digest // of an effect
	tell     func(e event.Event)                   // receives leases, and attempts that are made again; may be nil
	computes bool                                  // it takes slots of workers
	holders  int
	limit    *limiter // nil = none

	base     int // number of items[0]
	gone     int // leading items that were taken out
	items    []*item
	ready    []queue.Span // empty if the limit has a key
	keys     keyed        // of the ready items, if it has
	nReady   int
	gathered time.Time // when a lease was begun, or the first ready item came
	retries  retries
	waiters  []chan grant
	leases   map[queue.ID]held
	unsaved  map[queue.ID]string // keys of the limits of leases that were returned, until their results are stored
	ends     []atomic.Int64      // of the lease that a holder has begun, by holder - 1

	attempts int // by workers, with their time
	busy     time.Duration
	meter
}

// grant is a lease on its way to a holder.
type grant struct {
	span   queue.Span
	number uint64
	key    string // of the limit
}

// held is a lease that is not returned yet.
type held struct {
	span queue.Span
	key  string
}

// retry is an item that waits for another attempt.
type retry struct {
	at time.Time
	it *item
}

type retries []retry

func (r retries) Len() int           { return len(r) }
func (r retries) Less(i, j int) bool { return r[i].at.Before(r[j].at) }
func (r retries) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }
func (r *retries) Push(x any)        { *r = append(*r, x.(retry)) }
func (r *retries) Pop() any {
	last := len(*r) - 1
	x := (*r)[last]
	(*r)[last] = retry{}
	*r = (*r)[:last]
	return x
}

func newLane(s *state, roots Input, holders int, limit *limiter) *lane {
	return &lane{
		state: s, roots: roots, holders: holders, limit: limit, computes: s.pure,
		leases: map[queue.ID]held{}, unsaved: map[queue.ID]string{}, ends: make([]atomic.Int64, holders),
	}
}

// push adds items that are to be executed.
func (l *lane) push(now time.Time, items []*item) {
	l.gate.mu.Lock()
	defer l.gate.mu.Unlock()
	for _, it := range items {
		it.since = now.Sub(l.started)
	}
	l.append(items...)
	l.gate.dispatch(now)
}

func (l *lane) append(items ...*item) {
	from := l.base + len(l.items)
	if l.nReady == 0 && len(items) > 0 {
		l.gathered = l.started.Add(items[0].since)
	}
	l.items = append(l.items, items...)
	l.nReady += len(items)
	if l.byKey() {
		for i, it := range items {
			l.keys.push(keyOf(it.data, l.limit.Key), from+i, false)
		}
		return
	}
	if n := len(l.ready); n > 0 && l.ready[n-1].To == from {
		l.ready[n-1].To += len(items)
		return
	}
	l.ready = append(l.ready, queue.Span{From: from, To: from + len(items)})
}

// byKey reports whether the limit has a key.
func (l *lane) byKey() bool { return l.limit != nil && l.limit.Key != "" }

// item returns the item with a number, which must be in the lane.
func (l *lane) item(number int) *item { return l.items[number-l.base] }

// takeOut removes an item whose step is over, or waits.
func (l *lane) takeOut(number int) *item {
	it := l.items[number-l.base]
	l.items[number-l.base] = nil
	for l.gone < len(l.items) && l.items[l.gone] == nil {
		l.gone++
	}
	if l.gone > 1024 || l.gone == len(l.items) {
		l.items = l.items[l.gone:] // the prefix is freed when the slice grows
		l.base += l.gone
		l.gone = 0
	}
	return it
}

// take takes up to n items from a span of ready items.
func (l *lane) take(i, n int) queue.Span {
	s := l.ready[i]
	s.To = min(s.To, s.From+n)
	l.nReady -= s.Len()
	if l.ready[i].From = s.To; l.ready[i].Len() == 0 {
		l.ready = slices.Delete(l.ready, i, i+1)
	}
	return s
}

func (l *lane) wakeRetries(now time.Time) {
	for len(l.retries) > 0 && !l.retries[0].at.After(now) {
		it := heap.Pop(&l.retries).(retry).it
		it.since = now.Sub(l.started)
		l.append(it)
	}
}

func (l *lane) nextRetry() (at time.Time) {
	if len(l.retries) > 0 {
		at = l.retries[0].at
	}
	return at
}

// Lease implements [queue.Queue].
func (l *lane) Lease(ctx context.Context, holder int) (queue.Lease, error) {
	w := make(chan grant, 1)
	l.gate.mu.Lock()
	if l.gate.closed {
		l.gate.mu.Unlock()
		return queue.Lease{}, queue.ErrDone
	}
	l.waiters = append(l.waiters, w)
	l.gate.dispatch(time.Now())
	l.gate.mu.Unlock()
	select {
	case g, ok := <-w:
		return l.granted(g, ok, holder)
	case <-ctx.Done():
	}
	l.gate.mu.Lock()
	i := slices.Index(l.waiters, w)
	if i >= 0 {
		l.waiters = slices.Delete(l.waiters, i, i+1)
	}
	l.gate.mu.Unlock()
	if i >= 0 {
		return queue.Lease{}, ctx.Err()
	}
	g, ok := <-w
	return l.granted(g, ok, holder)
}

func (l *lane) granted(g grant, ok bool, holder int) (queue.Lease, error) {
	if !ok {
		return queue.Lease{}, queue.ErrDone
	}
	id := queue.ID{Number: g.number, Holder: holder}
	l.ends[holder-1].Store(int64(g.span.To))
	l.gate.mu.Lock()
	l.leases[id] = held{g.span, g.key}
	l.gate.mu.Unlock()
	given := queue.Lease{ID: id, Kind: queue.Chunks, Span: g.span, Since: time.Now()}
	if l.tell != nil {
		l.tell(leased(&given))
	}
	return given, nil
}

// Renew implements [queue.Queue]. It takes no lock.
func (l *lane) Renew(id queue.ID, chunk, _ int) queue.Renewal {
	if l.gate.stopping.Load() {
		return queue.Renewal{End: chunk, Next: chunk}
	}
	end := int(l.ends[id.Holder-1].Load())
	return queue.Renewal{End: end, Next: min(chunk+1, end)}
}

// Progress implements [queue.Queue].
func (l *lane) Progress(_ queue.ID, p queue.Progress) {
	l.gate.mu.Lock()
	defer l.gate.mu.Unlock()
	l.attempts += p.Attempts
	l.busy += p.Busy
	l.counts.attempts += p.Attempts
}

// Failed implements [queue.Queue].
func (l *lane) Failed(id queue.ID, chunk int, f *abi.Failure) queue.Decision {
	d, of := l.failed(id, chunk, f)
	if d.Verdict != queue.Fail && l.tell != nil {
		l.tell(again(of.id(l.roots), id.Holder, &d))
	}
	return d
}

// failed is Failed, and returns the name of the item.
func (l *lane) failed(id queue.ID, chunk int, f *abi.Failure) (queue.Decision, *name) {
	l.gate.mu.Lock()
	defer l.gate.mu.Unlock()
	now := time.Now()
	it := l.item(chunk)
	if it.tries == nil {
		it.tries = &queue.Tries{}
	}
	var d queue.Decision
	if after, told := slowDownOf(f); told {
		d = l.slowDown(now, id, it, f, after)
	} else {
		d = it.tries.Decide(now, f, &l.state.Retry)
		if f.Class == abi.ClassTimeout && l.limit != nil {
			l.limit.timedOut(now, l.leases[id].key)
		}
	}
	if d.Verdict == queue.Fail {
		return d, it.name
	}
	l.counts.retries++
	l.takeOut(chunk)
	l.running--
	l.track(now)
	heap.Push(&l.retries, retry{d.NotBefore, it})
	return d, it.name
}

// slowDown handles a slow-down of a step, which is not a failure.
func (l *lane) slowDown(now time.Time, id queue.ID, it *item, f *abi.Failure, after time.Duration) queue.Decision {
	l.counts.slowed++
	if after > l.bounds {
		after = l.bounds
		l.counts.cut++
	}
	d := queue.Decision{Verdict: queue.Requeue, Failure: f, NotBefore: now.Add(after)}
	if after == 0 {
		d.NotBefore = now.Add(l.state.Retry.Backoff)
	}
	if l.limit != nil {
		l.counts.pauses++
		l.limit.slow(now, now.Add(after), l.leases[id].key)
	}
	return d
}

// Return implements [queue.Queue].
func (l *lane) Return(id queue.ID, chunk int) {
	h := l.giveBack(id, chunk)
	if l.tell != nil {
		l.tell(leaseEnded(id.Holder, h.span, chunk, l.gate.stopping.Load()))
	}
}

// giveBack ends a lease, whose items from chunk on are ready again.
func (l *lane) giveBack(id queue.ID, chunk int) held {
	l.gate.mu.Lock()
	defer l.gate.mu.Unlock()
	h := l.leases[id]
	delete(l.leases, id)
	if s := (queue.Span{From: chunk, To: h.span.To}); s.Len() > 0 {
		l.putBack(s, h.key)
	}
	now := time.Now()
	if l.computes {
		l.gate.free++
	}
	if l.limit != nil {
		l.unsaved[id] = h.key
		if l.state.pure {
			l.giveLimit(id)
		}
	}
	l.track(now)
	l.gate.dispatch(now)
	return h
}

// giveLimit gives the limit back that a lease has taken. For an effect, that is when its
// result is stored: no more effects than the limit allows can be made twice after a crash.
func (l *lane) giveLimit(id queue.ID) {
	key := l.unsaved[id]
	delete(l.unsaved, id)
	l.limit.give(key)
	l.gate.wakeKey(l.limit, key)
}

// putBack makes the items of a lease ready again, before all others.
func (l *lane) putBack(s queue.Span, key string) {
	l.nReady += s.Len()
	l.running -= s.Len()
	if !l.byKey() {
		l.ready = slices.Insert(l.ready, 0, s)
		return
	}
	for number := s.To - 1; number >= s.From; number-- {
		l.keys.push(key, number, true)
	}
}

// Done implements [queue.Queue].
func (l *lane) Done(id queue.ID) {
	l.gate.mu.Lock()
	defer l.gate.mu.Unlock()
	if _, waits := l.unsaved[id]; !waits {
		return
	}
	l.giveLimit(id)
	now := time.Now()
	l.track(now)
	l.gate.dispatch(now)
}

// ID implements [worker.Input].
func (l *lane) ID(number int) abi.ID {
	l.gate.mu.Lock()
	it := l.item(number)
	l.gate.mu.Unlock()
	return it.id(l.roots)
}

// Read implements [worker.Input].
func (l *lane) Read(_ context.Context, from, to int, each func(i int, chunk []byte) error) error {
	l.gate.mu.Lock()
	items := slices.Clone(l.items[from-l.base : to-l.base])
	l.gate.mu.Unlock()
	for i, it := range items {
		if err := each(from+i, l.chunk(it)); err != nil {
			return err
		}
	}
	return nil
}

// chunk returns the input of the executor: the data, with the key of the step if it
// is an effect.
func (l *lane) chunk(it *item) []byte {
	if l.state.pure {
		return it.data
	}
	return appendEffect(nil, l.key(it, l.state), it.data)
}

// chunkAt is chunk for the item with a number.
func (l *lane) chunkAt(number int) []byte {
	l.gate.mu.Lock()
	it := l.item(number)
	l.gate.mu.Unlock()
	return l.chunk(it)
}

// finished removes the items whose steps are over, and returns them.
func (l *lane) finished(first, n int, succeeded bool) []*item {
	l.gate.mu.Lock()
	defer l.gate.mu.Unlock()
	items := make([]*item, n)
	for i := range items {
		items[i] = l.takeOut(first + i)
	}
	now := time.Now()
	l.running -= n
	if succeeded && l.limit != nil && l.limit.adapts() {
		for _, it := range items {
			l.limit.grow(now, keyOf(it.data, l.limit.Key))
		}
		l.gate.dispatch(now)
	}
	l.track(now)
	return items
}
