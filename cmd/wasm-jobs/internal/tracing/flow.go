package tracing

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/wasm-jobs/wasm-jobs/flow"
)

// Flow makes the spans of one run of a flow: one for the run, and one for each state that
// was entered, from the report that shows it first until the end. Its methods are called
// one at a time.
type Flow struct {
	tracer *Tracer
	ctx    context.Context
	run    trace.Span
	states map[string]trace.Span
}

// Flow begins the span of a run.
func (t *Tracer) Flow(name string) *Flow {
	f := &Flow{tracer: t, states: map[string]trace.Span{}}
	f.ctx, f.run = t.tracer.Start(context.Background(), "flow", trace.WithAttributes(attribute.String("wasm_jobs.flow.run", clean(name))))
	return f
}

// Observe begins the spans of states.
func (f *Flow) Observe(r *flow.Report) {
	for i := range r.States {
		if s := &r.States[i]; s.Entered > 0 && f.states[s.Name] == nil {
			_, f.states[s.Name] = f.tracer.tracer.Start(f.ctx, "state", trace.WithAttributes(attribute.String("wasm_jobs.state", s.Name)))
		}
	}
}

// Finish ends the spans.
func (f *Flow) Finish(r *flow.Report, err error) {
	now := time.Now()
	if r != nil {
		f.Observe(r)
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
	span := f.states[s.Name]
	if span == nil {
		return
	}
	span.SetAttributes(attribute.Int("wasm_jobs.entered", s.Entered), attribute.Int("wasm_jobs.left", s.Left), attribute.Int("wasm_jobs.failed", s.Failed), attribute.Int("wasm_jobs.retries", s.Retries))
	if s.Failed > 0 {
		span.SetStatus(codes.Error, "items failed")
	}
	span.End(trace.WithTimestamp(now))
}
