package flow

import (
	"math/bits"
	"time"
)

// meter holds the measurements of a lane.
type meter struct {
	running int // steps in leases
	why     cause
	since   time.Time // why
	held    [causes]time.Duration
	counts  struct{ attempts, retries, slowed, pauses, cut int }
	first   time.Time // when something ran first
	last    time.Time
}

// track notes that something ran or changed.
func (m *meter) track(now time.Time) {
	if m.first.IsZero() {
		m.first = now
	}
	m.last = now
}

// blocked notes why ready work is held up, from now on.
func (m *meter) blocked(now time.Time, why cause) {
	if m.why != none {
		m.held[m.why] += now.Sub(m.since)
	}
	m.why, m.since = why, now
}

// histogram counts durations in buckets that are at most an eighth wide.
type histogram struct {
	buckets [512]uint32
	count   int
	sum     time.Duration
	max     time.Duration
}

func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	h.buckets[bucketOf(d)]++
	h.count++
	h.sum += d
	h.max = max(h.max, d)
}

func bucketOf(d time.Duration) int {
	n := uint64(d)
	if n < 8 {
		return int(n)
	}
	shift := bits.Len64(n) - 4
	return min(shift*8+int(n>>shift), 511)
}

// quantile returns the upper bound of the bucket that contains the quantile.
func (h *histogram) quantile(q float64) time.Duration {
	want := int(q*float64(h.count)) + 1
	for i, n := range h.buckets {
		if want -= int(n); want <= 0 {
			return min(borderOf(i), h.max)
		}
	}
	return h.max
}

func borderOf(i int) time.Duration {
	if i < 16 {
		return time.Duration(i)
	}
	shift := i/8 - 1
	return time.Duration(uint64(i%8+8+1)<<shift) - 1
}
