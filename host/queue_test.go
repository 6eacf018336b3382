package host

import (
	"sync"
	"testing"
	"time"
)

func TestCut(t *testing.T) {
	for _, tt := range []struct {
		from, to, share int
		cut, rest       span
	}{
		{0, 0, 1, span{0, 0}, span{0, 0}},
		{0, 0, 2, span{0, 0}, span{0, 0}},
		{0, 1, 1, span{0, 1}, span{0, 0}},
		{0, 1, 2, span{0, 1}, span{0, 0}},
		{5, 7, 1, span{6, 7}, span{5, 6}},
		{5, 8, 1, span{6, 8}, span{5, 6}},
		{5, 8, 2, span{5, 8}, span{5, 5}},
		{0, 100, 2, span{0, 100}, span{0, 0}},
		{1<<32 - 3, 1<<32 - 1, 1, span{1<<32 - 2, 1<<32 - 1}, span{1<<32 - 3, 1<<32 - 2}},
	} {
		l := newLease(span{tt.from, tt.to}, time.Time{})
		if got := l.cut(tt.share); got != tt.cut {
			t.Errorf("cut(%d) of %d..%d = %v, want %v", tt.share, tt.from, tt.to, got, tt.cut)
		}
		if got := l.rest(); got != tt.rest {
			t.Errorf("rest after cut(%d) of %d..%d = %v, want %v", tt.share, tt.from, tt.to, got, tt.rest)
		}
	}
}

// TestLeaseRace has an owner that takes and schedulers that cut: together they
// get every chunk exactly once.
func TestLeaseRace(t *testing.T) {
	const size, schedulers, from = 200, 3, 7
	for round := range 300 {
		l := newLease(span{from, from + size}, time.Time{})
		seen := make([][]int, schedulers+1)
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				i, ok := l.take()
				if !ok {
					return
				}
				seen[schedulers] = append(seen[schedulers], i)
			}
		})
		for s := range schedulers {
			wg.Go(func() {
				for range 3 {
					share := 1
					if (round+s)%4 == 0 {
						share = 2
					}
					for c, i := l.cut(share), 0; i < c.len(); i++ {
						seen[s] = append(seen[s], c.from+i)
					}
				}
			})
		}
		wg.Wait()
		if n := l.rest().len(); n != 0 {
			t.Fatalf("%d chunks are left", n)
		}
		var times [size]int
		for _, indexes := range seen {
			for _, i := range indexes {
				times[i-from]++
			}
		}
		for i, n := range times {
			if n != 1 {
				t.Fatalf("chunk %d was given out %d times", from+i, n)
			}
		}
	}
}

func TestQueueOrder(t *testing.T) {
	var q queue
	now := time.Now()
	q.add(span{3, 3})
	if _, ok := q.next(now, 1); ok || !q.empty() {
		t.Fatal("an empty span is in the queue")
	}
	q.add(span{0, 10})
	q.delay(12, now.Add(2*time.Second))
	q.delay(11, now.Add(time.Second))
	for _, tt := range []struct {
		at   time.Duration
		want span
		ok   bool
	}{
		{0, span{0, 4}, true},
		{time.Second, span{11, 12}, true}, // due, and before anything else
		{time.Second, span{4, 8}, true},
		{time.Second, span{8, 10}, true},
		{time.Second, span{}, false},
		{2 * time.Second, span{12, 13}, true},
	} {
		if got, ok := q.next(now.Add(tt.at), 4); got != tt.want || ok != tt.ok {
			t.Errorf("next at %v = %v, %v, want %v, %v", tt.at, got, ok, tt.want, tt.ok)
		}
	}
	if !q.empty() {
		t.Error("the queue is not empty")
	}
}

// Jitter does not make a delay longer than the longest.
func TestDelayIsBounded(t *testing.T) {
	policy := RetryPolicy{Backoff: time.Second, BackoffMax: 2 * time.Second}
	for range 20 {
		var h history
		for range 5 {
			if d := h.delay(&policy); d <= 0 || d > policy.BackoffMax {
				t.Fatalf("a delay of %v", d)
			}
		}
	}
}
