package telemetry

import "time"

// bounds are the upper bounds of the buckets of times.
var bounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	1 * time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	1 * time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second,
}

// Histogram counts times by buckets from 100 µs to 30 s. Its zero value is empty. Its owner
// has the lock.
type Histogram struct {
	counts [len(bounds) + 1]uint64 // of each bucket; the last has no bound
	sum    time.Duration
}

// Add counts a time. Negative ones count as 0.
func (h *Histogram) Add(d time.Duration) { h.AddAll(d, 1) }

// AddAll counts n equal times.
func (h *Histogram) AddAll(d time.Duration, n int) {
	d = max(0, d)
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	h.counts[i] += uint64(n)
	h.sum += d * time.Duration(n)
}
