package tracing

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/host/event"
)

// Flow makes the spans of one run of a flow, whose events it observes: one for the run, one
// for each state that was entered, until the end, and below it the leases and failed
// attempts. It is safe for concurrent use.
type Flow struct {
	tracer *Tracer
	ctx    context.Context
	run    trace.Span

	mu     sync.Mutex
	states map[string]*stateSpans
}

// stateSpans are the spans of a state.
type stateSpans struct {
	span  trace.Span
	inner *Job // of leases and attempts
}

// Flow begins the span of a run.
func (t *Tracer) Flow(name string) *Flow {
	f := &Flow{tracer: t, states: map[string]*stateSpans{}}
	f.ctx, f.run = t.tracer.Start(context.Background(), "flow", trace.WithAttributes(attribute.String("wasm_jobs.flow.run", clean(name))))
	return f
}

// Progress implements [event.Observer].
func (f *Flow) Progress(string, event.Counts) {}

// Wants implements [event.Observer].
func (f *Flow) Wants() event.Detail { return event.Attempts }

// Observe implements [event.Observer].
func (f *Flow) Observe(events []event.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range events {
		if e := &events[i]; e.State != "" {
			f.state(e.State, e.Time).inner.observe(e)
		}
	}
}

// state returns the spans of a state, which begin at a time unless they have begun. mu is
// held.
func (f *Flow) state(name string, at time.Time) *stateSpans {
	s := f.states[name]
	if s == nil {
		ctx, span := f.tracer.tracer.Start(f.ctx, "state", trace.WithTimestamp(at), trace.WithAttributes(attribute.String("wasm_jobs.state", name)))
		s = &stateSpans{span, newSpans(f.tracer, ctx)}
		f.states[name] = s
	}
	return s
}

// Report begins the spans of states that execute nothing, such as ends.
func (f *Flow) Report(r *flow.Report) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for i := range r.States {
		if s := &r.States[i]; s.Entered > 0 {
			f.state(s.Name, now)
		}
	}
}

// Finish ends the spans.
func (f *Flow) Finish(r *flow.Report, err error) {
	now := time.Now()
	if r != nil {
		f.Report(r)
		for i := range r.States {
			f.endState(&r.States[i], now)
		}
		f.run.SetAttributes(
			attribute.String("wasm_jobs.flow.state", r.State), attribute.Int("wasm_jobs.items.total", r.Items.Total),
			attribute.Int("wasm_jobs.items.ended", r.Items.Ended), attribute.Int("wasm_jobs.items.failed", r.Items.Failed),
		)
	}
	if err != nil {
		f.run.SetStatus(codes.Error, clean(err.Error()))
	}
	f.run.End(trace.WithTimestamp(now))
}

func (f *Flow) endState(s *flow.StateReport, now time.Time) {
	spans := f.states[s.Name]
	if spans == nil {
		return
	}
	spans.inner.endPhase(now)
	span := spans.span
	span.SetAttributes(attribute.Int("wasm_jobs.entered", s.Entered), attribute.Int("wasm_jobs.left", s.Left), attribute.Int("wasm_jobs.failed", s.Failed), attribute.Int("wasm_jobs.retries", s.Retries))
	if s.Failed > 0 {
		span.SetStatus(codes.Error, "items failed")
	}
	span.End(trace.WithTimestamp(now))
}
