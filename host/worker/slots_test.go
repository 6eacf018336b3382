package worker

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// leases has n goroutines of a job that take slots for some time each, until a
// given time.
func leases(all *sync.WaitGroup, s *Slots, n int, until time.Time, took func() time.Duration, running *atomic.Int32, most int32) *time.Duration {
	share := s.Join()
	var mu sync.Mutex
	sum := new(time.Duration)
	var jobs sync.WaitGroup
	for range n {
		jobs.Go(func() {
			for time.Now().Before(until) {
				if share.Acquire(context.Background()) != nil {
					panic("no slot")
				}
				if running.Add(1) > most {
					panic("too many run at once")
				}
				d := took()
				time.Sleep(d)
				running.Add(-1)
				share.Release()
				mu.Lock()
				*sum += d
				mu.Unlock()
			}
		})
	}
	all.Go(func() {
		jobs.Wait()
		share.Leave()
	})
	return sum
}

// TestSlotsAreShared has jobs with leases of different lengths on 2 slots: each
// gets its part of the time, and at most 2 leases run at once.
func TestSlotsAreShared(t *testing.T) {
	for name, lengths := range map[string][]time.Duration{
		"alike":            {20 * time.Millisecond, 20 * time.Millisecond},
		"short and long":   {time.Millisecond, 50 * time.Millisecond},
		"short and longer": {time.Millisecond, 300 * time.Millisecond},
		"three":            {5 * time.Millisecond, 20 * time.Millisecond, 80 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewSlots(2)
				var all sync.WaitGroup
				var running atomic.Int32
				var sums []*time.Duration
				for _, length := range lengths {
					took := func() time.Duration { return length/2 + rand.N(length) }
					sums = append(sums, leases(&all, s, 2, time.Now().Add(time.Minute), took, &running, 2))
				}
				all.Wait()
				var whole time.Duration
				for _, sum := range sums {
					whole += *sum
				}
				if whole < 115*time.Second {
					t.Errorf("2 slots worked %v in a minute", whole)
				}
				for i, sum := range sums {
					if share := sum.Seconds() / whole.Seconds() * float64(len(sums)); share < 0.8 || share > 1.2 {
						t.Errorf("job %d of %v had %.2f of its part", i, lengths, share)
					}
				}
				if s.free != 2 || len(s.shares) != 0 {
					t.Errorf("%d slots are free, %d shares are left", s.free, len(s.shares))
				}
			})
		})
	}
}

// A job that joins later begins level with the others: they do not wait until it
// has had as much time.
func TestLateJobBeginsLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSlots(1)
		var all sync.WaitGroup
		var running atomic.Int32
		took := func() time.Duration { return 20 * time.Millisecond }
		leases(&all, s, 2, time.Now().Add(2*time.Minute), took, &running, 1)
		time.Sleep(time.Minute)
		late := leases(&all, s, 2, time.Now().Add(time.Minute), took, &running, 1)
		all.Wait()
		if part := *late; part < 25*time.Second || part > 35*time.Second {
			t.Errorf("the late job had %v of its minute", part)
		}
	})
}

func TestAcquireEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSlots(1)
		a, b := s.Join(), s.Join()
		if err := a.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Acquire(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		a.Release()
		if err := a.Acquire(t.Context()); err != nil {
			t.Errorf("the slot is lost: %v", err)
		}
		a.Release()
	})
}

// If the context of a waiting job ends just when it is given a slot, the slot goes
// to the next.
func TestSlotGivenTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSlots(1)
		share := s.Join()
		for range 100 { // either may be seen first
			if err := share.Acquire(t.Context()); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- share.Acquire(ctx) }()
			synctest.Wait()
			cancel()
			share.Release()
			if err := <-done; err == nil {
				share.Release()
			}
			if s.free != 1 {
				t.Fatal("the slot is lost")
			}
		}
	})
}

// TestAcquireRaces ends contexts while slots are given: no slot is lost.
func TestAcquireRaces(t *testing.T) {
	s := NewSlots(3)
	var all sync.WaitGroup
	for range 4 {
		share := s.Join()
		for range 4 {
			all.Go(func() {
				for range 200 {
					ctx, cancel := context.WithCancel(t.Context())
					go cancel()
					if share.Acquire(ctx) == nil {
						share.Release()
					}
					cancel()
				}
			})
		}
	}
	all.Wait()
	if s.free != 3 {
		t.Errorf("%d slots of 3 are free", s.free)
	}
}
