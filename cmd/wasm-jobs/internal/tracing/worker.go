package tracing

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Worker makes the spans of a worker of a shared store: one for the time in which it works
// on a job without a pause, and below it the phases of each slot, with leases and failed
// attempts. It is safe for concurrent use.
type Worker struct {
	tracer *Tracer
	name   string

	mu   sync.Mutex
	jobs map[store.JobID]*worked
}

// worked is a job that slots work on.
type worked struct {
	ctx   context.Context
	span  trace.Span
	slots map[int]*Job
}

// Worker returns the spans of a worker with a name.
func (t *Tracer) Worker(name string) *Worker {
	return &Worker{tracer: t, name: clean(name), jobs: map[store.JobID]*worked{}}
}

// Observe makes the spans of a slot's events, as [cluster.Watcher] describes them.
func (w *Worker) Observe(id store.JobID, name string, events []event.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range events {
		w.observe(id, name, &events[i])
	}
}

// observe adds one event. mu is held.
func (w *Worker) observe(id store.JobID, name string, e *event.Event) {
	j := w.jobs[id]
	if j == nil {
		j = &worked{slots: map[int]*Job{}}
		j.ctx, j.span = w.tracer.tracer.Start(context.Background(), "job", trace.WithTimestamp(e.Time), trace.WithAttributes(
			attribute.String("wasm_jobs.job.id", journal.Name(id)), attribute.String("wasm_jobs.job.name", clean(name)), attribute.String("wasm_jobs.worker.name", w.name)))
		w.jobs[id] = j
	}
	s := j.slots[e.Worker]
	if s == nil {
		s = newSpans(w.tracer, j.ctx)
		j.slots[e.Worker] = s
	}
	if e.Kind != event.KindEnd {
		s.observe(e)
		return
	}
	s.endPhase(e.Time)
	delete(j.slots, e.Worker)
	if len(j.slots) == 0 {
		w.end(id, e.Time)
	}
}

// end ends the span of a job. mu is held.
func (w *Worker) end(id store.JobID, at time.Time) {
	w.jobs[id].span.End(trace.WithTimestamp(at))
	delete(w.jobs, id)
}
