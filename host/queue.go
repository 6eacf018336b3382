package host

import (
	"container/heap"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// lease is the right of one worker to run a range of chunks, by their index in
// id order. Its owner takes one after another from the front; the scheduler
// takes from the back, to give to idle workers or to end the lease.
type lease struct {
	from, to int
	since    time.Time
	cursor   atomic.Uint64 // next << 32 | end; chunks are below 2^32
}

func newLease(s span, now time.Time) *lease {
	l := &lease{from: s.from, to: s.to, since: now}
	l.cursor.Store(uint64(s.from)<<32 | uint64(s.to))
	return l
}

// take returns the next chunk. Only the owner calls it.
func (l *lease) take() (i int, ok bool) {
	for {
		v := l.cursor.Load()
		next, end := v>>32, v&0xffffffff
		if next >= end {
			return 0, false
		}
		if l.cursor.CompareAndSwap(v, (next+1)<<32|end) {
			return int(next), true
		}
	}
}

// rest returns what nobody has taken yet.
func (l *lease) rest() span {
	v := l.cursor.Load()
	return span{int(v >> 32), int(v & 0xffffffff)}
}

// cut takes the back of what is left, share parts of 2, from the lease: 2 is
// all of it. What it returns may be empty.
func (l *lease) cut(share int) span {
	for {
		v := l.cursor.Load()
		next, end := v>>32, v&0xffffffff
		if next >= end {
			return span{int(end), int(end)}
		}
		middle := end - ((end-next)*uint64(share)+1)/2
		if l.cursor.CompareAndSwap(v, next<<32|middle) {
			return span{int(middle), int(end)}
		}
	}
}

// span is a range of chunks, to is not in it.
type span struct{ from, to int }

func (s span) len() int { return s.to - s.from }

// history is what is known of a chunk that an attempt failed on.
type history struct {
	failures int // attempts that count
	requeues int
	last     *abi.Failure
	backoff  *backoff.ExponentialBackOff
}

// delay returns how long the next retry waits.
func (h *history) delay(p *RetryPolicy) time.Duration {
	if p.Backoff == 0 {
		return 0
	}
	if h.backoff == nil {
		h.backoff = backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(p.Backoff), backoff.WithMaxInterval(max(p.Backoff, p.BackoffMax)),
			backoff.WithMultiplier(2), backoff.WithMaxElapsedTime(0))
	}
	return min(h.backoff.NextBackOff(), h.backoff.MaxInterval) // its jitter goes beyond
}

// waiting is a chunk whose retry must not come before a time.
type waiting struct {
	chunk     int
	notBefore time.Time
}

// waitingHeap has the earliest first.
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

// queue holds the chunks that nobody has a lease on. One goroutine owns it.
type queue struct {
	spans   []span // taken from the last one
	waiting waitingHeap
}

func (q *queue) add(s span) {
	if s.len() > 0 {
		q.spans = append(q.spans, s)
	}
}

func (q *queue) delay(chunk int, notBefore time.Time) {
	heap.Push(&q.waiting, waiting{chunk, notBefore})
}

// next returns up to size chunks that may run now: retries that are due first.
func (q *queue) next(now time.Time, size int) (span, bool) {
	if len(q.waiting) > 0 && !q.waiting[0].notBefore.After(now) {
		w := heap.Pop(&q.waiting).(waiting)
		return span{w.chunk, w.chunk + 1}, true
	}
	last := len(q.spans) - 1
	if last < 0 {
		return span{}, false
	}
	s := &q.spans[last]
	taken := span{s.from, s.from + min(size, s.len())}
	if s.from = taken.to; s.len() == 0 {
		q.spans = q.spans[:last]
	}
	return taken, true
}

func (q *queue) empty() bool { return len(q.spans) == 0 && len(q.waiting) == 0 }
