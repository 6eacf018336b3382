package runtime

import "time"

// Times are averages of one call.
type Times struct {
	Reset time.Duration // the return of the instance to the fresh state
	Guest time.Duration // a call of at most 100 us in the guest; longer ones are left out
}

const (
	// allSampled is the number of first calls of an instance that are all measured, and
	// oneSampled the number of later calls of which one is: reading the clock three
	// times takes 3 % of a call that does nothing.
	allSampled = 16
	oneSampled = 64
	// longSample is the time of a call that is left out of the average.
	longSample = 100 * time.Microsecond
)

// samples sums up sampled calls.
type samples struct {
	resets, guests int
	reset, guest   time.Duration
}

func (s *samples) add(other *samples) {
	s.resets += other.resets
	s.guests += other.guests
	s.reset += other.reset
	s.guest += other.guest
}

func (s *samples) averages() (t Times) {
	if s.resets > 0 {
		t.Reset = s.reset / time.Duration(s.resets)
	}
	if s.guests > 0 {
		t.Guest = s.guest / time.Duration(s.guests)
	}
	return t
}

// stopwatch measures one call, unless it is zero.
type stopwatch struct{ start, fresh time.Time }

// watch starts a measurement if the next call of the instance is to be sampled. The
// first call of an instance, which has no reset, is not.
func (i *instance) watch() (w stopwatch) {
	if i == nil {
		return w
	}
	i.calls++
	if i.calls <= allSampled || i.calls%oneSampled == 0 {
		w.start = time.Now()
	}
	return w
}

// reset notes that the instance is fresh.
func (w *stopwatch) reset() {
	if !w.start.IsZero() {
		w.fresh = time.Now()
	}
}

// called notes that the call has ended.
func (w *stopwatch) called(s *samples) {
	if w.start.IsZero() {
		return
	}
	s.resets++
	s.reset += w.fresh.Sub(w.start)
	if took := time.Since(w.fresh); took <= longSample {
		s.guests++
		s.guest += took
	}
}
