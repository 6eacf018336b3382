package profile

import "time"

// maxSlots is the number of intervals of a timeline. When a job outlasts them, each
// two are joined.
const maxSlots = 200

// firstInterval is the length of the intervals at the start of a job.
const firstInterval = 20 * time.Millisecond

// Timeline counts what happened in each interval of a job's execution, in bounded
// memory. All slices have the same length.
type Timeline struct {
	Interval  float64   `json:"interval"` // in seconds
	Succeeded []int     `json:"succeeded"`
	Failed    []int     `json:"failed"`  // chunks that failed and are not retried
	Retried   []int     `json:"retried"` // failed attempts whose chunk was tried again
	Busy      []float64 `json:"busy"`    // mean number of workers that executed a chunk
}

// timeline is a timeline that grows.
type timeline struct {
	interval time.Duration
	slots    []slot
}

type slot struct {
	succeeded, failed, retried int
	busy                       time.Duration
}

// at returns the slot of a time since the start.
func (t *timeline) at(when time.Duration) *slot {
	if t.interval == 0 {
		t.interval = firstInterval
	}
	when = max(when, 0)
	for when >= maxSlots*t.interval {
		t.join()
	}
	for len(t.slots) <= int(when/t.interval) {
		t.slots = append(t.slots, slot{})
	}
	return &t.slots[when/t.interval]
}

// join doubles the interval.
func (t *timeline) join() {
	t.interval *= 2
	for i := range t.slots {
		s := t.slots[i]
		if i%2 == 0 {
			t.slots[i/2] = s
			continue
		}
		to := &t.slots[i/2]
		to.succeeded += s.succeeded
		to.failed += s.failed
		to.retried += s.retried
		to.busy += s.busy
	}
	t.slots = t.slots[:(len(t.slots)+1)/2]
}

// worked notes that a worker executed chunks for a time that ended at a time since the
// start.
func (t *timeline) worked(end, busy time.Duration) {
	start := max(0, end-busy)
	t.at(end)
	for start < end {
		s := t.at(start)
		next := min(end, (start/t.interval+1)*t.interval)
		s.busy += next - start
		start = next
	}
}

// timeline returns the timeline up to a time since the start.
func (t *timeline) timeline(end time.Duration, workers int) *Timeline {
	t.at(max(end-1, 0))
	n := len(t.slots)
	out := &Timeline{
		Interval:  t.interval.Seconds(),
		Succeeded: make([]int, n), Failed: make([]int, n), Retried: make([]int, n), Busy: make([]float64, n),
	}
	for i, s := range t.slots {
		out.Succeeded[i], out.Failed[i], out.Retried[i] = s.succeeded, s.failed, s.retried
		length := t.interval
		if i == n-1 { // the last interval may have begun just now
			length = min(max(end-time.Duration(i)*t.interval, time.Millisecond), t.interval)
		}
		out.Busy[i] = min(rounded(s.busy.Seconds()/length.Seconds()), float64(workers))
	}
	return out
}
