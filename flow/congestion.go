package flow

import "time"

// maxAuto bounds a concurrency that is found.
const maxAuto = 256

// congestion is a concurrency that adapts as the congestion window of TCP does (RFC 5681):
// until something goes wrong it grows by one with each success, later by one in as many
// successes as it allows steps; a slow-down halves it.
type congestion struct {
	size   float64
	wanted bool      // more steps were ready than it allows, since it grew
	halved time.Time // the last time; zero = never
}

// newCongestion begins with 4 steps, as TCP does with about 4 segments.
func newCongestion() congestion { return congestion{size: 4} }

func (w *congestion) most() int { return int(w.size) }

// allows reports whether one more step may run.
func (w *congestion) allows(running int) bool {
	w.wanted = w.wanted || running >= w.most()
	return running < w.most()
}

// grow handles a success. A window that is not used to the full does not grow.
func (w *congestion) grow() {
	if !w.wanted {
		return
	}
	by, before := 1.0, w.most()
	if !w.halved.IsZero() {
		by = 1 / w.size
	}
	w.size = min(w.size+by, maxAuto)
	w.wanted = w.most() == before
}

// halve handles a slow-down. Further ones within 500 ms count as the same.
func (w *congestion) halve(now time.Time) {
	if w.halved.IsZero() || now.Sub(w.halved) >= coalesce {
		w.size, w.halved, w.wanted = max(w.size/2, 1), now, false
	}
}
