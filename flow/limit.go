package flow

import (
	"time"

	"golang.org/x/time/rate"
)

// Limit bounds the rate at which steps begin, and how many run at once, in all
// states that share it. A retry counts like a first attempt. The zero Limit limits
// nothing.
type Limit struct {
	Rate        float64 // steps a second; 0 = any
	Burst       int     // steps that may be begun at once; 0 = 1
	Concurrency int     // steps that run at once; 0 = any
	// Auto finds the concurrency: it grows with success, and is halved when a step is
	// told to slow down or runs out of time, between 1 and 256. It excludes
	// Concurrency.
	Auto bool
	// Adaptive halves the rate when a step is told to slow down, and raises it
	// again on success, between Min (0 = a hundredth of Rate) and Max (0 = Rate).
	Adaptive bool
	Min, Max float64
	// Key is a key of the data's top level: each of its values has a limit of its
	// own. "" = all items share one.
	Key string
}

// cause is the reason why ready work does not begin.
type cause uint8

const (
	none cause = iota
	workers
	concurrency
	rated
	slowed
	causes int = iota
)

func (c cause) String() string {
	return [...]string{"", "workers", "concurrency", "rate", "slow-down"}[c]
}

// limiter is a limit in use. It belongs to the [gate], whose lock is held.
type limiter struct {
	Limit
	buckets map[string]*bucket
	used    uint64 // a clock for the buckets
}

// bucket is a limit for one key.
type bucket struct {
	tokens  *rate.Limiter // nil = any rate
	running int
	window  congestion // of Auto
	paused  time.Time  // nothing is begun before
	slowed  time.Time  // when the rate was halved last
	grown   time.Time  // when it grew last, or began
	used    uint64
}

// maxKeys bounds the keys of a limit that are kept. The least recently used key
// that is not in use makes room for a new one.
const maxKeys = 10_000

// coalesce is the time after a slow-down in which further ones count as the same.
const coalesce = 500 * time.Millisecond

func newLimiter(l Limit) *limiter {
	if l.Burst == 0 {
		l.Burst = 1
	}
	if l.Min == 0 {
		l.Min = l.Rate / 100
	}
	if l.Max == 0 {
		l.Max = l.Rate
	}
	return &limiter{Limit: l, buckets: map[string]*bucket{}}
}

// single reports whether steps pass one by one.
func (l *limiter) single() bool { return l.Rate > 0 || l.Key != "" }

func (l *limiter) bucket(key string) *bucket {
	l.used++
	b := l.buckets[key]
	if b == nil {
		l.evict()
		b = &bucket{window: newCongestion()}
		if l.Rate > 0 {
			b.tokens = rate.NewLimiter(rate.Limit(l.Rate), l.Burst)
		}
		l.buckets[key] = b
	}
	b.used = l.used
	return b
}

func (l *limiter) evict() {
	if len(l.buckets) < maxKeys {
		return
	}
	oldest, at := "", l.used+1
	for key, b := range l.buckets {
		if b.running == 0 && b.used < at {
			oldest, at = key, b.used
		}
	}
	delete(l.buckets, oldest)
}

// take takes the right to one step. If it cannot, it returns the cause and, if only
// time is missing, when to ask again.
func (l *limiter) take(now time.Time, key string) (cause, time.Time) {
	b := l.bucket(key)
	switch {
	case now.Before(b.paused):
		return slowed, b.paused
	case l.Concurrency > 0 && b.running >= l.Concurrency, l.Auto && !b.window.allows(b.running):
		return concurrency, time.Time{}
	}
	if b.tokens != nil {
		r := b.tokens.ReserveN(now, 1)
		if wait := r.DelayFrom(now); wait > 0 {
			r.CancelAt(now)
			return rated, now.Add(wait)
		}
	}
	b.running++
	return none, time.Time{}
}

// give ends a step that was begun.
func (l *limiter) give(key string) {
	if b := l.buckets[key]; b != nil {
		b.running--
	}
}

// slow handles a slow-down until the given time.
func (l *limiter) slow(now, until time.Time, key string) {
	b := l.bucket(key)
	l.congested(now, b)
	if until.After(b.paused) {
		b.paused = until
	}
	if !l.Adaptive || b.tokens == nil || now.Sub(b.slowed) < coalesce {
		return
	}
	b.slowed, b.grown = now, now
	b.tokens.SetLimitAt(now, rate.Limit(max(float64(b.tokens.Limit())/2, l.Min)))
}

// grow handles a success.
func (l *limiter) grow(now time.Time, key string) {
	b := l.buckets[key]
	if l.Auto && b != nil {
		b.window.grow()
	}
	if !l.Adaptive || b == nil || b.tokens == nil {
		return
	}
	if b.grown.IsZero() {
		b.grown = now
	}
	if now.Sub(b.grown) < time.Second {
		return
	}
	b.grown = now
	r := float64(b.tokens.Limit())
	b.tokens.SetLimitAt(now, rate.Limit(min(max(r+1, r*1.05), l.Max)))
}

// adapts reports whether successes change the limit.
func (l *limiter) adapts() bool { return l.Adaptive || l.Auto }

// timedOut handles a step that ran out of time.
func (l *limiter) timedOut(now time.Time, key string) { l.congested(now, l.bucket(key)) }

func (l *limiter) congested(now time.Time, b *bucket) {
	if l.Auto {
		b.window.halve(now)
	}
}

// concurrency returns the current concurrency of the key that was used last.
func (l *limiter) concurrency() (n int) {
	if !l.Auto {
		return l.Concurrency
	}
	var latest uint64
	for _, b := range l.buckets {
		if b.used >= latest {
			n, latest = b.window.most(), b.used
		}
	}
	return n
}

// rate returns the current rate of the key that was used last.
func (l *limiter) rate() (r float64) {
	var latest uint64
	for _, b := range l.buckets {
		if b.tokens != nil && b.used >= latest {
			r, latest = float64(b.tokens.Limit()), b.used
		}
	}
	return r
}
