package tracing

import (
	"context"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/event"
)

// Job makes the spans of one job, whose events it observes. Its methods are called one at a
// time, as those of an observer are.
type Job struct {
	tracer *Tracer
	ctx    context.Context // of the job's span
	job    trace.Span
	phase  trace.Span // nil = none
	inside context.Context
	leases map[int]*lease // by worker
}

// lease is an open span.
type lease struct {
	ctx  context.Context
	span trace.Span
}

// Job begins the span of a job.
func (t *Tracer) Job(name string) *Job {
	ctx, span := t.tracer.Start(context.Background(), "job", trace.WithAttributes(attribute.String("wasm_jobs.job.name", clean(name))))
	j := newSpans(t, ctx)
	j.job = span
	return j
}

// newSpans returns the spans below the one of ctx, which is the caller's.
func newSpans(t *Tracer, ctx context.Context) *Job {
	return &Job{tracer: t, ctx: ctx, inside: ctx, leases: map[int]*lease{}}
}

// Progress implements [event.Observer].
func (j *Job) Progress(string, event.Counts) {}

// Wants implements [event.Observer].
func (j *Job) Wants() event.Detail { return event.Attempts }

// Observe implements [event.Observer].
func (j *Job) Observe(events []event.Event) {
	for i := range events {
		j.observe(&events[i])
	}
}

func (j *Job) observe(e *event.Event) {
	switch e.Kind {
	case event.KindPhase:
		j.begin(e.Message, e.Time)
	case event.KindLeased:
		j.leased(e)
	case event.KindLeaseEnded:
		if e.Lease != nil && e.Lease.Why != event.Stolen { // a stolen part leaves the rest
			j.endLease(e.Worker, string(e.Lease.Why), e.Time)
		}
	case event.KindRetry, event.KindFailed, event.KindRequeue, event.KindRouted, event.KindLost:
		j.attempt(e)
	}
}

// begin ends the phase before and begins the next one.
func (j *Job) begin(name string, at time.Time) {
	j.endPhase(at)
	j.inside, j.phase = j.tracer.tracer.Start(j.ctx, name, trace.WithTimestamp(at))
}

// endPhase ends the open leases, and the phase.
func (j *Job) endPhase(at time.Time) {
	for worker := range j.leases {
		j.endLease(worker, string(event.Done), at)
	}
	if j.phase != nil {
		j.phase.End(trace.WithTimestamp(at))
	}
	j.phase, j.inside = nil, j.ctx
}

func (j *Job) leased(e *event.Event) {
	j.endLease(e.Worker, string(event.Done), e.Time)
	l := &lease{}
	since := e.Time
	attributes := []attribute.KeyValue{attribute.Int("wasm_jobs.worker", e.Worker)}
	if e.Lease != nil {
		attributes = append(attributes, attribute.Int("wasm_jobs.lease.from", e.Lease.From), attribute.Int("wasm_jobs.lease.to", e.Lease.To))
		if !e.Lease.Since.IsZero() {
			since = e.Lease.Since
		}
	}
	l.ctx, l.span = j.tracer.tracer.Start(j.inside, "lease", trace.WithTimestamp(since), trace.WithAttributes(attributes...))
	j.leases[e.Worker] = l
}

func (j *Job) endLease(worker int, why string, at time.Time) {
	if l := j.leases[worker]; l != nil {
		delete(j.leases, worker)
		l.span.SetAttributes(attribute.String("wasm_jobs.lease.why", why))
		l.span.End(trace.WithTimestamp(at))
	}
}

// attempt makes the span of a failed attempt, below the lease of its worker.
func (j *Job) attempt(e *event.Event) {
	parent := j.inside
	if l := j.leases[e.Worker]; l != nil {
		parent = l.ctx
	}
	attributes := []attribute.KeyValue{attribute.Int("wasm_jobs.attempt", e.Attempt), attribute.String("wasm_jobs.outcome", string(e.Kind))}
	if e.ID != nil {
		attributes = append(attributes, attribute.String("wasm_jobs.chunk", clean(e.ID.String())))
	}
	f := e.Failure
	if f == nil {
		f = &abi.Failure{}
	}
	attributes = append(attributes, attribute.String("wasm_jobs.class", string(f.Class)))
	_, s := j.tracer.tracer.Start(parent, "attempt", trace.WithTimestamp(e.Time.Add(-e.Duration)), trace.WithAttributes(attributes...))
	s.SetStatus(codes.Error, clean(f.Message))
	s.End(trace.WithTimestamp(e.Time))
}

// Finish ends the spans of the job. r is nil if the job has no report.
func (j *Job) Finish(r *host.Report, err error) {
	now := time.Now()
	j.endPhase(now)
	if r != nil {
		j.job.SetAttributes(
			attribute.String("wasm_jobs.job.id", r.Job), attribute.String("wasm_jobs.job.state", r.State), attribute.String("wasm_jobs.module.sha256", r.Module.SHA256),
			attribute.Int("wasm_jobs.chunks.total", r.Chunks.Total), attribute.Int("wasm_jobs.chunks.succeeded", r.Chunks.Succeeded),
			attribute.Int("wasm_jobs.chunks.reused", r.Chunks.Reused), attribute.Int("wasm_jobs.chunks.failed", r.Chunks.Failed),
		)
	}
	switch {
	case err != nil:
		j.job.SetStatus(codes.Error, clean(err.Error()))
	case r != nil && r.Chunks.Failed > 0:
		j.job.SetStatus(codes.Error, "chunks failed")
	}
	j.job.End(trace.WithTimestamp(now))
}

// clean returns a text of a guest or a file as valid UTF-8, bounded.
func clean(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "\ufffd")
}
