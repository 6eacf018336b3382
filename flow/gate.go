package flow

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host/queue"
)

// gate decides which state's work begins next: it gives the slots of the workers to
// the lanes that are nearest to an end, and enforces the limit of each. It owns all
// lanes under one lock, and calls no other code while it holds the lock. It is safe
// for concurrent use.
type gate struct {
	stopping atomic.Bool // no attempt is begun any more

	mu     sync.Mutex
	lanes  []*lane // nearest to an end first
	slots  int     // of workers
	free   int     // of them
	closed bool
	last   uint64 // lease
	timer  *time.Timer
	due    time.Time // of the timer; zero = none
}

func newGate(slots int) *gate { return &gate{slots: slots, free: slots} }

// add adds a lane.
func (g *gate) add(l *lane) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l.gate = g
	at, _ := slices.BinarySearchFunc(g.lanes, l, func(a, b *lane) int {
		if a.state.distance <= b.state.distance {
			return -1
		}
		return 1
	})
	g.lanes = slices.Insert(g.lanes, at, l)
}

// close ends the work: callers that wait for work get [queue.ErrDone].
func (g *gate) close() {
	g.stopping.Store(true)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	if g.timer != nil {
		g.timer.Stop()
	}
	for _, l := range g.lanes {
		for _, w := range l.waiters {
			close(w)
		}
		l.waiters = nil
	}
}

// dispatch gives out the work that may begin. mu is held.
func (g *gate) dispatch(now time.Time) {
	if g.closed || g.stopping.Load() {
		return
	}
	var next time.Time
	for _, l := range g.lanes {
		next = earliest(next, l.dispatch(now))
	}
	g.wakeAt(now, next)
}

// wakeKey has all lanes under a limit ask for a step of a key again. mu is held.
func (g *gate) wakeKey(limit *limiter, key string) {
	for _, l := range g.lanes {
		if l.limit == limit {
			l.keys.wake(key)
		}
	}
}

// earliest returns the earlier of two times; a zero time means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// wakeAt has dispatch called again at a time. mu is held.
func (g *gate) wakeAt(now, at time.Time) {
	if at.IsZero() || at.Equal(g.due) {
		return
	}
	g.due = at
	if g.timer == nil {
		g.timer = time.AfterFunc(at.Sub(now), g.tick)
		return
	}
	g.timer.Reset(at.Sub(now))
}

func (g *gate) tick() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.due = time.Time{}
	g.dispatch(time.Now())
}

// leaseTime is the intended duration of a lease of small steps.
const leaseTime = 20 * time.Millisecond

// dispatch begins leases of a lane, and returns when there may be more to begin
// if nothing else happens.
func (l *lane) dispatch(now time.Time) time.Time {
	l.wakeRetries(now)
	next := l.nextRetry()
	for len(l.waiters) > 0 && l.nReady > 0 {
		if at := l.gathers(now); !at.IsZero() {
			next = earliest(next, at)
			break
		}
		why, at := l.begin(now)
		if why != none {
			l.blocked(now, why)
			return earliest(next, at)
		}
	}
	if l.nReady > 0 { // each of its workers is busy
		l.blocked(now, l.busyCause())
	} else {
		l.blocked(now, none)
	}
	return next
}

// gathering is how long small steps wait for more to share a lease with, if other
// steps run meanwhile.
const gathering = 5 * time.Millisecond

// gathers returns the time until which a lane waits for more work, because a small
// lease is a small commit. It is zero if the lane need not wait.
func (l *lane) gathers(now time.Time) time.Time {
	if !l.computes || l.limit != nil || l.nReady >= min(l.target(), 1024)/2 || l.gate.free == l.gate.slots {
		return time.Time{}
	}
	if at := l.gathered.Add(gathering); at.After(now) {
		return at
	}
	return time.Time{}
}

// busyCause returns why a lane waits if only its workers hold it up.
func (l *lane) busyCause() cause {
	if l.holders < l.gate.slots || !l.computes {
		return concurrency
	}
	return workers
}

// begin begins one lease, or returns why it cannot.
func (l *lane) begin(now time.Time) (cause, time.Time) {
	if l.computes && l.gate.free == 0 {
		return workers, time.Time{}
	}
	s, key, why, at := l.pick(now)
	if why != none {
		return why, at
	}
	if l.computes {
		l.gate.free--
	}
	l.gate.last++
	w := l.waiters[0]
	l.waiters = slices.Delete(l.waiters, 0, 1)
	l.running += s.Len()
	l.gathered = now
	l.track(now)
	w <- grant{span: s, number: l.gate.last, key: key}
	return none, time.Time{}
}

// pick takes ready work, within the limits.
func (l *lane) pick(now time.Time) (s queue.Span, key string, why cause, at time.Time) {
	if l.limit == nil {
		return l.take(0, l.size()), "", none, at
	}
	if l.limit.Key == "" {
		if why, at = l.limit.take(now, ""); why != none {
			return s, "", why, at
		}
		n := 1
		if !l.limit.single() && l.computes {
			n = l.size()
		}
		return l.take(0, n), "", none, at
	}
	return l.pickByKey(now)
}

// pickByKey takes one item, of the first key in order of arrival whose limit allows a
// step.
func (l *lane) pickByKey(now time.Time) (s queue.Span, key string, why cause, at time.Time) {
	for i, q := range l.keys.order {
		if q.why == none || !q.until.IsZero() && !now.Before(q.until) {
			q.why, q.until = l.limit.take(now, q.key)
		}
		if q.why != none {
			why, at = q.why, earliest(at, q.until)
			continue
		}
		number := l.keys.take(i)
		l.nReady--
		return queue.Span{From: number, To: number + 1}, q.key, none, time.Time{}
	}
	return s, "", why, at
}

// target returns the number of steps that take leaseTime.
func (l *lane) target() int {
	if l.attempts == 0 {
		return 1
	}
	return max(1, min(int(leaseTime*time.Duration(l.attempts)/max(l.busy, 1)), 4096))
}

// size returns the number of steps of a lease: as many as take leaseTime, but few
// enough to leave work for the other workers.
func (l *lane) size() int {
	return max(1, min(l.target(), (l.nReady+l.gate.slots-1)/l.gate.slots))
}
