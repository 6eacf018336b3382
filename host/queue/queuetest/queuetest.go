// Package queuetest tests implementations of [queue.Queue].
package queuetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
)

// Queue is a queue with the methods for its owner.
type Queue interface {
	queue.Queue
	// Fold adds a call of the fold.
	Fold(call int)
	// Stop ends all leases of chunks at the chunks that they have reached, and
	// gives out no more.
	Stop()
	// Close ends the queue.
	Close()
	// Drained is closed when no chunk is left and every lease is Done.
	Drained() <-chan struct{}
}

// Open returns a new queue of the chunks 0..total-1 for the holders 1..holders.
type Open func(t *testing.T, total, holders int, p queue.Policy) Queue

// Run tests a queue against the contract.
func Run(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, Open){
		"no chunks":                        noChunks,
		"every chunk once":                 everyChunkOnce,
		"returned chunks come again":       returned,
		"a lease that was returned unused": untouched,
		"stolen work is renewed away":      stolen,
		"retries wait":                     retries,
		"a failure for good":               failsForGood,
		"a retry comes after the return":   retryAfterReturn,
		"requeues are bounded":             requeues,
		"the fold goes first":              foldFirst,
		"the fold goes on after a stop":    foldAfterStop,
		"stop ends leases":                 stop,
		"renewals in advance":              renewedInAdvance,
		"close ends waiting":               closed,
		"the end of a context":             cancelled,
		"drained only when all is done":    drained,
		"holders that do all of it":        storm,
		"calls after the end do no harm":   afterTheEnd,
		"returning and done of old leases": twice,
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { test(t, open) }) })
	}
}

// lease returns the next lease of a holder, which must be available.
func lease(t *testing.T, q Queue, holder int) queue.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	l, err := q.Lease(ctx, holder)
	if err != nil {
		t.Fatalf("no lease: %v", err)
	}
	if l.Holder != holder || l.Number == 0 || l.Len() < 1 {
		t.Fatalf("lease %+v of holder %d", l, holder)
	}
	return l
}

// none checks that a holder gets no lease now.
func none(t *testing.T, q Queue, holder int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if l, err := q.Lease(ctx, holder); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("lease %+v, error %v", l, err)
	}
}

// do begins at most most chunks of a lease, and returns them.
func do(q Queue, l queue.Lease, most int) (done []int) {
	for i := l.From; i < l.From+most && q.Renew(l.ID, i, 1).Goes(i); i++ {
		done = append(done, i)
	}
	q.Progress(l.ID, queue.Progress{Finished: len(done), Attempts: len(done), Busy: time.Duration(len(done)) * time.Millisecond})
	return done
}

// finish executes a lease to its end.
func finish(q Queue, l queue.Lease) []int {
	done := do(q, l, l.Len())
	q.Return(l.ID, l.From+len(done))
	q.Done(l.ID)
	return done
}

func isDrained(q Queue) bool {
	select {
	case <-q.Drained():
		return true
	default:
		return false
	}
}

func noChunks(t *testing.T, open Open) {
	q := open(t, 0, 1, queue.Policy{})
	none(t, q, 1)
	if !isDrained(q) {
		t.Error("a queue of no chunks is not drained")
	}
}

func everyChunkOnce(t *testing.T, open Open) {
	const total = 1000
	q := open(t, total, 3, queue.Policy{})
	var seen []int
	for holder := 1; len(seen) < total; holder = holder%3 + 1 {
		seen = append(seen, finish(q, lease(t, q, holder))...)
	}
	if !slices.IsSorted(seen) || seen[total-1] != total-1 || !isDrained(q) {
		t.Errorf("%d chunks, drained %v", len(seen), isDrained(q))
	}
}

func returned(t *testing.T, open Open) {
	q := open(t, 10, 1, queue.Policy{})
	finish(q, lease(t, q, 1)) // a lease of one chunk that takes 1 ms
	l := lease(t, q, 1)
	if l.From != 1 || l.To != 10 {
		t.Fatalf("lease %+v", l)
	}
	do(q, l, 3)
	q.Return(l.ID, 3) // chunk 3 was begun, and then interrupted
	q.Done(l.ID)
	if l = lease(t, q, 1); l.From != 3 {
		t.Errorf("lease %+v after 3.. were returned", l)
	}
	if done := finish(q, l); len(done) != 7 || !isDrained(q) {
		t.Errorf("%v", done)
	}
}

func untouched(t *testing.T, open Open) {
	q := open(t, 2, 2, queue.Policy{})
	l := lease(t, q, 1)
	q.Return(l.ID, l.From)
	q.Done(l.ID)
	if again := lease(t, q, 2); again.Span != l.Span || again.ID == l.ID {
		t.Errorf("lease %+v, and then %+v", l, again)
	}
}

func stolen(t *testing.T, open Open) {
	q := open(t, 11, 2, queue.Policy{})
	finish(q, lease(t, q, 1))
	l := lease(t, q, 1) // all that is left
	first := do(q, l, 2)
	stolen := lease(t, q, 2)
	if stolen.To != 11 || stolen.From <= l.From+2 {
		t.Fatalf("stolen %+v of %+v", stolen, l)
	}
	for i := l.From + 2; i < stolen.From; i++ {
		if !q.Renew(l.ID, i, 1).Goes(i) {
			t.Errorf("chunk %d was not stolen, and is lost", i)
		}
		first = append(first, i)
	}
	if end := q.Renew(l.ID, stolen.From, 1).End; end != stolen.From {
		t.Errorf("the lease ends at %d, and %d was stolen", end, stolen.From)
	}
	q.Return(l.ID, stolen.From)
	q.Done(l.ID)
	if all := append(first, finish(q, stolen)...); len(all) != 10 || !slices.IsSorted(all) || !isDrained(q) {
		t.Errorf("%v", all)
	}
}

func retries(t *testing.T, open Open) {
	q := open(t, 1, 1, queue.Policy{Retries: 2, Backoff: time.Minute, BackoffMax: time.Hour})
	for attempt := 1; ; attempt++ {
		start := time.Now()
		l, err := q.Lease(t.Context(), 1)
		if err != nil || l.Span != (queue.Span{From: 0, To: 1}) {
			t.Fatalf("attempt %d: %+v, %v", attempt, l, err)
		}
		if waited := time.Since(start); attempt > 1 && waited < 10*time.Second {
			t.Errorf("attempt %d came after %v", attempt, waited)
		}
		q.Renew(l.ID, 0, 1)
		d := q.Failed(l.ID, 0, abi.Failf(abi.ClassTimeout, "late"))
		q.Return(l.ID, 1)
		q.Done(l.ID)
		if d.Attempt != attempt {
			t.Errorf("attempt %d is counted as %d", attempt, d.Attempt)
		}
		if attempt == 3 {
			if d.Verdict != queue.Fail || !isDrained(q) {
				t.Errorf("%+v, drained %v", d, isDrained(q))
			}
			return
		}
		if d.Verdict != queue.Retry || isDrained(q) {
			t.Fatalf("attempt %d: %+v, drained %v", attempt, d, isDrained(q))
		}
		none(t, q, 1)
	}
}

// A holder reports a failed attempt before the next one can begin; otherwise its
// events would be in the wrong order.
func retryAfterReturn(t *testing.T, open Open) {
	q := open(t, 1, 2, queue.Policy{Retries: 1})
	l := lease(t, q, 1)
	q.Renew(l.ID, 0, 1)
	q.Failed(l.ID, 0, abi.Failf(abi.ClassTimeout, "late"))
	none(t, q, 2)
	q.Return(l.ID, 1)
	if again := lease(t, q, 2); again.Span != l.Span {
		t.Errorf("lease %+v", again)
	}
}

func failsForGood(t *testing.T, open Open) {
	q := open(t, 3, 1, queue.Policy{Retries: 5})
	finish(q, lease(t, q, 1))
	l := lease(t, q, 1)
	q.Renew(l.ID, 1, 1)
	if d := q.Failed(l.ID, 1, abi.Failf(abi.ClassGuest, "no")); d.Verdict != queue.Fail || d.Attempt != 1 {
		t.Errorf("%+v", d)
	}
	q.Return(l.ID, 2)
	q.Done(l.ID)
	if done := finish(q, lease(t, q, 1)); !slices.Equal(done, []int{2}) || !isDrained(q) {
		t.Errorf("%v is done, drained %v", done, isDrained(q))
	}
}

func requeues(t *testing.T, open Open) {
	q := open(t, 1, 1, queue.Policy{MaxRequeues: 3})
	for n := 1; ; n++ {
		l := lease(t, q, 1)
		q.Renew(l.ID, 0, 1)
		d := q.Failed(l.ID, 0, abi.Failf(abi.ClassRequeued, "later"))
		q.Return(l.ID, 1)
		q.Done(l.ID)
		if n == 4 {
			if d.Verdict != queue.Fail {
				t.Errorf("requeue %d: %+v", n, d)
			}
			return
		}
		if d.Verdict != queue.Requeue {
			t.Fatalf("requeue %d: %+v", n, d)
		}
	}
}

func foldFirst(t *testing.T, open Open) {
	q := open(t, 5, 1, queue.Policy{})
	q.Fold(7)
	q.Fold(8)
	for _, call := range []int{7, 8} {
		l := lease(t, q, 1)
		if l.Kind != queue.Fold || l.From != call {
			t.Fatalf("lease %+v, want call %d", l, call)
		}
		q.Done(l.ID)
	}
	if l := lease(t, q, 1); l.Kind != queue.Chunks {
		t.Errorf("lease %+v", l)
	}
}

func foldAfterStop(t *testing.T, open Open) {
	q := open(t, 5, 1, queue.Policy{})
	q.Stop()
	none(t, q, 1)
	q.Fold(0)
	l := lease(t, q, 1)
	q.Done(l.ID)
	if l.Kind != queue.Fold || !isDrained(q) {
		t.Errorf("%+v", l)
	}
}

func stop(t *testing.T, open Open) {
	q := open(t, 100, 2, queue.Policy{Retries: 1})
	finish(q, lease(t, q, 1))
	l := lease(t, q, 1)
	do(q, l, 2)
	q.Stop()
	if q.Renew(l.ID, l.From+2, 1).Goes(l.From + 2) {
		t.Error("a lease goes on after the stop")
	}
	none(t, q, 2)
	if isDrained(q) {
		t.Error("drained before the lease is done")
	}
	q.Return(l.ID, l.From+2)
	none(t, q, 2)
	q.Done(l.ID)
	if !isDrained(q) {
		t.Error("not drained")
	}
}

// A holder that renewed for several chunks may begin them without another renewal,
// nobody else gets them, and a stop ends them if the holder renews again.
func renewedInAdvance(t *testing.T, open Open) {
	q := open(t, 100, 2, queue.Policy{})
	finish(q, lease(t, q, 1))
	l := lease(t, q, 1)
	r := q.Renew(l.ID, l.From, 4)
	if !r.Goes(l.From) || r.Next <= l.From || r.Next > l.From+4 || r.Next > r.End {
		t.Fatalf("%+v of %+v", r, l)
	}
	if again := q.Renew(l.ID, l.From+1, 1); again.Next != l.From+2 { // the others go back
		t.Errorf("%+v, want next %d", again, l.From+2)
	}
	q.Renew(l.ID, l.From+2, 4)
	q.Stop()
	if r := q.Renew(l.ID, l.From+3, 1); r.Goes(l.From + 3) {
		t.Errorf("%+v after the stop", r)
	}
	q.Return(l.ID, l.From+3)
	q.Done(l.ID)
	if !isDrained(q) {
		t.Error("not drained")
	}
}

func closed(t *testing.T, open Open) {
	q := open(t, 0, 2, queue.Policy{})
	done := make(chan error)
	for holder := 1; holder <= 2; holder++ {
		go func() {
			_, err := q.Lease(t.Context(), holder)
			done <- err
		}()
	}
	synctest.Wait()
	q.Close()
	for range 2 {
		if err := <-done; !errors.Is(err, queue.ErrDone) {
			t.Errorf("error %v", err)
		}
	}
}

func cancelled(t *testing.T, open Open) {
	q := open(t, 0, 1, queue.Policy{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := q.Lease(ctx, 1)
		done <- err
	}()
	synctest.Wait()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func drained(t *testing.T, open Open) {
	q := open(t, 2, 2, queue.Policy{})
	l, other := lease(t, q, 1), lease(t, q, 2)
	do(q, l, 1)
	q.Return(l.ID, 1)
	finish(q, other)
	if isDrained(q) {
		t.Error("drained before the output is stored")
	}
	q.Done(l.ID)
	if !isDrained(q) {
		t.Error("not drained")
	}
}

func afterTheEnd(t *testing.T, open Open) {
	q := open(t, 1, 1, queue.Policy{})
	finish(q, lease(t, q, 1))
	q.Stop()
	q.Stop()
	q.Close()
	q.Close()
	if _, err := q.Lease(t.Context(), 1); !errors.Is(err, queue.ErrDone) {
		t.Errorf("error %v", err)
	}
}

func twice(t *testing.T, open Open) {
	q := open(t, 3, 1, queue.Policy{})
	old := lease(t, q, 1)
	finish(q, old)
	l := lease(t, q, 1)
	q.Return(old.ID, old.From)
	q.Done(old.ID)
	done := do(q, l, 1)
	q.Return(l.ID, 2)
	next := lease(t, q, 1) // the returned chunks
	q.Return(l.ID, 2)
	q.Done(l.ID)
	if done = append(done, finish(q, next)...); !slices.Equal(done, []int{1, 2}) || !isDrained(q) {
		t.Errorf("%v is done, drained %v", done, isDrained(q))
	}
}

// storm has many holders that fail, return and finish at random: each chunk is
// finished once, and each call of the fold is given out once.
func storm(t *testing.T, open Open) {
	const total, holders, calls = 3000, 8, 20
	q := open(t, total, holders, queue.Policy{Retries: 1 << 30, Backoff: time.Millisecond, BackoffMax: time.Second, MaxRequeues: 1 << 30})
	var mu sync.Mutex
	var folded [calls]int
	var times [total]int
	var all sync.WaitGroup
	for holder := 1; holder <= holders; holder++ {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(holder), 1))
			for {
				l, err := q.Lease(t.Context(), holder)
				if err != nil {
					return
				}
				mu.Lock()
				if l.Kind == queue.Fold {
					folded[l.From]++
				}
				mu.Unlock()
				if l.Kind == queue.Chunks {
					next := l.From
					for ; next < l.To && q.Renew(l.ID, next, 1).Goes(next); next++ {
						time.Sleep(time.Duration(rnd.Int64N(int64(2 * time.Millisecond))))
						if rnd.IntN(10) == 0 {
							q.Failed(l.ID, next, abi.Failf([]abi.Class{abi.ClassHost, abi.ClassRequeued}[rnd.IntN(2)], "no"))
							next++
							break
						}
						if rnd.IntN(20) == 0 {
							break // interrupted
						}
						mu.Lock()
						times[next]++
						mu.Unlock()
						q.Progress(l.ID, queue.Progress{Finished: 1, Attempts: 1, Busy: time.Millisecond})
					}
					q.Return(l.ID, next)
				}
				q.Done(l.ID)
			}
		})
	}
	for call := range calls {
		time.Sleep(10 * time.Millisecond)
		q.Fold(call)
	}
	<-q.Drained()
	synctest.Wait()
	q.Close()
	all.Wait()
	for i, n := range times {
		if n != 1 {
			t.Fatalf("chunk %d was finished %d times", i, n)
		}
	}
	for i, n := range folded {
		if n != 1 {
			t.Errorf("call %d was made %d times", i, n)
		}
	}
}
