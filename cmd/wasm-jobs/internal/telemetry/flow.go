package telemetry

import (
	"io"
	"sync/atomic"

	"github.com/wasm-jobs/wasm-jobs/flow"
)

// Flow has the numbers of one run of a flow. It is safe for concurrent use.
type Flow struct{ report atomic.Pointer[flow.Report] }

// Observe takes the numbers of a report, which must not change any more.
func (f *Flow) Observe(r *flow.Report) { f.report.Store(r) }

// Write writes the numbers of the last report.
func (f *Flow) Write(to io.Writer) {
	r := f.report.Load()
	if r == nil {
		return
	}
	w := NewWriter(to)
	for _, progress := range []struct {
		name string
		n    int
	}{{"live", r.Items.Live}, {"ended", r.Items.Ended}, {"failed", r.Items.Failed}, {"held", r.Items.Held}} {
		w.Put(Items, uint64(progress.n), "progress", progress.name)
	}
	var executing, waiting int
	for i := range r.States {
		s := &r.States[i]
		executing += s.Executing
		waiting += s.Waiting + s.Limited + s.Retrying
	}
	w.Put(Executing, uint64(executing))
	w.Put(QueueLength, uint64(waiting))
	w.Put(Instances, r.Instances.Created-r.Instances.Closed)
	writeStates(w, r.States)
}

// writeStates writes each name for all states, as the format asks.
func writeStates(w *Writer, states []flow.StateReport) {
	for i := range states {
		s := &states[i]
		for _, in := range []struct {
			name string
			n    int
		}{{"waiting", s.Waiting}, {"executing", s.Executing}, {"limited", s.Limited}, {"retrying", s.Retrying}} {
			w.Put(StateItems, uint64(in.n), "state", s.Name, "progress", in.name)
		}
	}
	for _, number := range []struct {
		name string
		of   func(*flow.StateReport) uint64
	}{
		{EnteredTotal, func(s *flow.StateReport) uint64 { return uint64(s.Entered) }},
		{LeftTotal, func(s *flow.StateReport) uint64 { return uint64(s.Left) }},
		{FailedTotal, func(s *flow.StateReport) uint64 { return uint64(s.Failed) }},
		{AttemptsTotal, func(s *flow.StateReport) uint64 { return uint64(s.Attempts) }},
		{RetriesTotal, func(s *flow.StateReport) uint64 { return uint64(s.Retries) }},
		{SlowedTotal, func(s *flow.StateReport) uint64 { return uint64(s.Slowed) }},
		{ReusedTotal, func(s *flow.StateReport) uint64 { return uint64(s.Reused) }},
		{FuelTotal, func(s *flow.StateReport) uint64 { return s.Fuel }},
	} {
		for i := range states {
			w.Put(number.name, number.of(&states[i]), "state", states[i].Name)
		}
	}
}
