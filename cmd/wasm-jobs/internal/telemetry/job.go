package telemetry

import (
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/VictoriaMetrics/metrics"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/event"
)

// Job has the numbers of one job, whose events it observes. It is safe for concurrent use.
type Job struct {
	seconds *metrics.PrometheusHistogram
	times   *metrics.Set // of seconds

	mu        sync.Mutex
	phase     string
	counts    event.Counts
	leases    map[int]bool // by worker
	failed    map[abi.Class]uint64
	attempts  uint64
	retries   uint64
	requeued  uint64
	fuel      uint64
	instances uint64
}

// NewJob returns the numbers of a job that has not begun.
func NewJob() *Job {
	metrics.ExposeMetadata(true)
	j := &Job{times: metrics.NewSet(), leases: map[int]bool{}, failed: map[abi.Class]uint64{}}
	j.seconds = j.times.NewPrometheusHistogramExt(ChunkSeconds, Buckets())
	return j
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
		j.seconds.Update(e.Duration.Seconds())
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
	w := &writer{w: to}
	c := &j.counts
	executing := min(len(j.leases), max(0, c.Total-c.Succeeded-c.Failed))
	w.put(Chunks, uint64(c.Total))
	w.put(SucceededTotal, uint64(c.Succeeded))
	w.put(ReusedTotal, uint64(c.Reused))
	for _, class := range slices.Sorted(maps.Keys(j.failed)) {
		w.put(FailedTotal, j.failed[class], "class", string(class))
	}
	w.put(AttemptsTotal, j.attempts)
	w.put(RetriesTotal, j.retries)
	w.put(RequeuedTotal, j.requeued)
	w.put(FuelTotal, j.fuel)
	w.put(Executing, uint64(executing))
	w.put(QueueLength, uint64(max(0, c.Total-c.Succeeded-c.Failed-executing)))
	w.put(Instances, j.instances)
	if j.phase != "" {
		w.put(Phase, 1, "phase", j.phase)
	}
	j.times.WritePrometheus(to)
}
