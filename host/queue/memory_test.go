package queue

import (
	"container/heap"
	"sync"
	"testing"
	"time"
)

func cursorOf(s Span) *cursor {
	c := new(cursor)
	c.set(s)
	return c
}

func TestCut(t *testing.T) {
	const split, revoke = false, true
	for _, tt := range []struct {
		lease     Span
		all       bool
		cut, rest Span
	}{
		{Span{0, 0}, split, Span{0, 0}, Span{0, 0}},
		{Span{0, 0}, revoke, Span{0, 0}, Span{0, 0}},
		{Span{0, 1}, split, Span{0, 1}, Span{0, 0}},
		{Span{0, 1}, revoke, Span{0, 1}, Span{0, 0}},
		{Span{5, 7}, split, Span{6, 7}, Span{5, 6}},
		{Span{5, 8}, split, Span{6, 8}, Span{5, 6}},
		{Span{5, 8}, revoke, Span{5, 8}, Span{5, 5}},
		{Span{0, 100}, revoke, Span{0, 100}, Span{0, 0}},
		{Span{1<<32 - 3, 1<<32 - 1}, split, Span{1<<32 - 2, 1<<32 - 1}, Span{1<<32 - 3, 1<<32 - 2}},
	} {
		c := cursorOf(tt.lease)
		cut := c.split
		if tt.all {
			cut = c.revoke
		}
		if got := cut(); got != tt.cut {
			t.Errorf("cut of %v (all %v) = %v, want %v", tt.lease, tt.all, got, tt.cut)
		}
		if got := c.rest(); got != tt.rest {
			t.Errorf("rest after the cut of %v (all %v) = %v, want %v", tt.lease, tt.all, got, tt.rest)
		}
	}
}

// TestLeaseRace has one holder that begins chunks and others that cut its lease:
// together they get every chunk exactly once.
func TestLeaseRace(t *testing.T) {
	const size, cutters, from = 200, 3, 7
	for round := range 300 {
		c := cursorOf(Span{from, from + size})
		seen := make([][]int, cutters+1)
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := from; i < c.begin(i, 1); i++ {
				seen[cutters] = append(seen[cutters], i)
			}
		})
		for s := range cutters {
			wg.Go(func() {
				for range 3 {
					cut := c.split
					if (round+s)%4 == 0 {
						cut = c.revoke
					}
					for s2, i := cut(), 0; i < s2.Len(); i++ {
						seen[s] = append(seen[s], s2.From+i)
					}
				}
			})
		}
		wg.Wait()
		if n := c.rest().Len(); n != 0 {
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

func TestPendingOrder(t *testing.T) {
	var p pending
	now := time.Now()
	p.add(Span{3, 3})
	if _, ok := p.next(now, 1); ok || !p.empty() {
		t.Fatal("an empty span is pending")
	}
	p.add(Span{0, 10})
	heap.Push(&p.waiting, waiting{12, now.Add(2 * time.Second)})
	heap.Push(&p.waiting, waiting{11, now.Add(time.Second)})
	for _, tt := range []struct {
		at   time.Duration
		want Span
		ok   bool
	}{
		{0, Span{0, 4}, true},
		{time.Second, Span{11, 12}, true}, // due, and before all others
		{time.Second, Span{4, 8}, true},
		{time.Second, Span{8, 10}, true},
		{time.Second, Span{}, false},
		{2 * time.Second, Span{12, 13}, true},
	} {
		if got, ok := p.next(now.Add(tt.at), 4); got != tt.want || ok != tt.ok {
			t.Errorf("next at %v = %v, %v, want %v, %v", tt.at, got, ok, tt.want, tt.ok)
		}
	}
	if !p.empty() {
		t.Error("something is pending")
	}
}

func TestLeaseSize(t *testing.T) {
	for name, tt := range map[string]struct {
		told []Progress
		want int
	}{
		"nothing is known":  {nil, 1},
		"all were reused":   {[]Progress{{Finished: 1}}, MaxLease},
		"one took 1 ms":     {[]Progress{{Attempts: 1, Busy: time.Millisecond}}, 20},
		"one took an hour":  {[]Progress{{Attempts: 1, Busy: time.Hour}}, 1},
		"they take 1 us":    {[]Progress{{Attempts: 1000, Busy: time.Millisecond}}, MaxLease},
		"they take no time": {[]Progress{{Attempts: 1000}}, MaxLease},
		"it became faster":  {[]Progress{{Attempts: 1, Busy: 8 * time.Millisecond}, {Attempts: 1}}, 2},
	} {
		var c cost
		for _, p := range tt.told {
			c.add(p)
		}
		if got := c.lease(); got != tt.want {
			t.Errorf("%s: a lease of %d, want %d", name, got, tt.want)
		}
	}
}
