package worker

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Slots limits the number of leases that run at once in several jobs, and divides
// the time of the workers fairly between them: a free slot goes to the job that has
// had the least time. A Slots is safe for concurrent use.
type Slots struct {
	mu     sync.Mutex
	free   int
	shares []*Share // of the jobs in progress
}

// NewSlots returns n slots.
func NewSlots(n int) *Slots { return &Slots{free: n} }

// Share is one job's share of the slots. It is safe for concurrent use.
type Share struct {
	slots   *Slots
	waiting []chan struct{} // in order; a channel is closed to give a slot
	running int
	starts  time.Duration // sum of the start times of running slots, on the clock below
	used    time.Duration // time used by slots that have ended
	clock   time.Time
}

// Join returns a share for one more job. It begins level with the job that has had
// the least time, so that it neither waits for the others nor makes them wait. Call
// Leave when the job ends.
func (s *Slots) Join() *Share {
	s.mu.Lock()
	defer s.mu.Unlock()
	share := &Share{slots: s, clock: time.Now()}
	for i, other := range s.shares {
		if had := other.had(); i == 0 || had < share.used {
			share.used = had
		}
	}
	s.shares = append(s.shares, share)
	return share
}

// Leave ends a share that has no slot.
func (s *Share) Leave() {
	s.slots.mu.Lock()
	defer s.slots.mu.Unlock()
	s.slots.shares = slices.DeleteFunc(s.slots.shares, func(o *Share) bool { return o == s })
}

// Acquire waits for a slot. The error is from ctx.
func (s *Share) Acquire(ctx context.Context) error {
	s.slots.mu.Lock()
	if s.slots.free > 0 {
		s.slots.free--
		s.begin()
		s.slots.mu.Unlock()
		return nil
	}
	given := make(chan struct{})
	s.waiting = append(s.waiting, given)
	s.slots.mu.Unlock()
	select {
	case <-given:
		return nil
	case <-ctx.Done():
	}
	s.slots.mu.Lock()
	defer s.slots.mu.Unlock()
	if i := slices.Index(s.waiting, given); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
	} else { // a slot was given meanwhile
		s.end()
	}
	return ctx.Err()
}

// Release gives a slot back.
func (s *Share) Release() {
	s.slots.mu.Lock()
	defer s.slots.mu.Unlock()
	s.end()
}

// had returns the time that the share has had up to now.
func (s *Share) had() time.Duration {
	return s.used + time.Duration(s.running)*time.Since(s.clock) - s.starts
}

func (s *Share) begin() {
	s.running++
	s.starts += time.Since(s.clock)
}

// end gives the slot to the waiting job that has had the least time.
func (s *Share) end() {
	s.leaveSlot()
	var next *Share
	for _, other := range s.slots.shares {
		if len(other.waiting) > 0 && (next == nil || other.had() < next.had()) {
			next = other
		}
	}
	if next == nil {
		s.slots.free++
		return
	}
	next.begin()
	close(next.waiting[0])
	next.waiting = next.waiting[1:]
}

// leaveSlot moves the average time of a running slot from the running sum to the
// used time. It makes no difference to the total which of the running slots ends.
func (s *Share) leaveSlot() {
	mean := s.starts / time.Duration(s.running)
	s.used += time.Since(s.clock) - mean
	s.starts -= mean
	s.running--
}
