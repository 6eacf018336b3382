package telemetry

import (
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/event"
)

// Job has the numbers of one job, whose events it observes. It is safe for concurrent use.
type Job struct {
	mu        sync.Mutex // of all
	phase     string
	counts    event.Counts
	leases    map[int]bool // by worker
	failed    map[abi.Class]uint64
	attempts  uint64
	retries   uint64
	requeued  uint64
	fuel      uint64
	instances uint64
	seconds   Histogram
}

// NewJob returns the numbers of a job that has not begun.
func NewJob() *Job {
	return &Job{leases: map[int]bool{}, failed: map[abi.Class]uint64{}}
}

// Progress implements [event.Observer].
func (j *Job) Progress(phase string, counts event.Counts) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.phase, j.counts = phase, counts
}

// Wants implements [event.Observer]. Fuel and times are in the events of chunks.
func (j *Job) Wants() event.Detail { return event.Chunks }

// Observe implements [event.Observer].
func (j *Job) Observe(events []event.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range events {
		j.count(&events[i])
	}
}

// count adds one event. mu is held.
func (j *Job) count(e *event.Event) {
	switch e.Kind {
	case event.KindLeased:
		j.leases[e.Worker] = true
	case event.KindLeaseEnded:
		if e.Lease == nil || e.Lease.Why != event.Stolen { // a stolen part leaves the rest of the lease
			delete(j.leases, e.Worker)
		}
	case event.KindSucceeded:
		j.attempts++
		j.fuel += e.Fuel
		j.seconds.Add(e.Duration)
	case event.KindRetry:
		j.attempts++
		j.retries++
	case event.KindRequeue:
		j.attempts++
		j.requeued++
	case event.KindFailed:
		j.attempts++
		if e.Failure != nil {
			j.failed[e.Failure.Class]++
		}
	}
}

// Finish replaces the numbers by those of the report, which include the fold.
func (j *Job) Finish(r *host.Report) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.phase, j.counts = "end", r.Chunks
	j.attempts, j.retries, j.fuel = uint64(r.Attempts), uint64(r.Retries), r.Fuel
	j.instances = r.Instances.Created - r.Instances.Closed
	clear(j.leases)
}

// Write writes the numbers.
func (j *Job) Write(to io.Writer) {
	j.mu.Lock()
	defer j.mu.Unlock()
	w := NewWriter(to)
	c := &j.counts
	executing := min(len(j.leases), max(0, c.Total-c.Succeeded-c.Failed))
	w.Put(Chunks, uint64(c.Total))
	w.Put(SucceededTotal, uint64(c.Succeeded))
	w.Put(ReusedTotal, uint64(c.Reused))
	for _, class := range slices.Sorted(maps.Keys(j.failed)) {
		w.Put(FailedTotal, j.failed[class], "class", string(class))
	}
	w.Put(AttemptsTotal, j.attempts)
	w.Put(RetriesTotal, j.retries)
	w.Put(RequeuedTotal, j.requeued)
	w.Put(FuelTotal, j.fuel)
	w.Put(Executing, uint64(executing))
	w.Put(QueueLength, uint64(max(0, c.Total-c.Succeeded-c.Failed-executing)))
	w.Put(Instances, j.instances)
	if j.phase != "" {
		w.Put(Phase, 1, "phase", j.phase)
	}
	w.PutTimes(ChunkSeconds, &j.seconds)
}
