package cluster

import (
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/host/worker"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

// Watcher hears of the work of a worker. Several goroutines call its methods at once, and
// wait for them.
type Watcher interface {
	// Observe receives the events of one slot, whose number they have, on one job:
	// phases, leases and failed attempts. [event.KindEnd] is the last one; later events
	// of the slot begin with a phase again. A failed attempt is a [event.KindRetry]: only
	// the database knows whether it is the last one.
	Observe(job store.JobID, name string, events []event.Event)
	// Stored hears that the worker has put outputs, and the fuel that they took. The result
	// of a fold is not an output, but has fuel.
	Stored(outputs int, fuel uint64)
}

// stint is the work of a slot on one job. Its watcher may be nil.
type stint struct {
	watcher Watcher
	job     *job
	slot    int
}

func stintOf(s *slot, j *job) stint { return stint{s.Watcher, j, s.number} }

func (s stint) tell(e event.Event) {
	if s.watcher == nil {
		return
	}
	if e.Worker = s.slot; e.Time.IsZero() {
		e.Time = time.Now()
	}
	s.watcher.Observe(s.job.record.ID, s.job.Name, []event.Event{e})
}

// begin tells that work begins. It was asked for at a time, and the module was made ready
// until now if fresh is set.
func (s stint) begin(l postgres.Lease, asked time.Time, fresh bool) {
	if fresh {
		s.tell(event.Event{Kind: event.KindPhase, Message: "prepare", Time: asked})
	}
	phase := "execute"
	if l.Fold || l.Calls {
		phase = "fold"
	}
	s.tell(event.Event{Kind: event.KindPhase, Message: phase})
}

func (s stint) end() { s.tell(event.Event{Kind: event.KindEnd}) }

func (s stint) leased(l postgres.Lease) {
	s.tell(event.Event{Kind: event.KindLeased, Lease: leaseOf(l, "")})
}

// leaseEnded tells that a lease is over. Its chunks from done on were not begun.
func (s stint) leaseEnded(h *held, done int, cancelled bool) {
	why := event.Done
	switch {
	case h.end.Load() == 0:
		why = event.Expired
	case cancelled:
		why = event.Cancelled
	case done < h.lease.Last:
		why = event.Returned
	}
	s.tell(event.Event{Kind: event.KindLeaseEnded, Lease: leaseOf(h.lease, why)})
}

func (s stint) failed(f *worker.Failed, id abi.ID) {
	s.tell(event.Event{Kind: event.KindRetry, Time: f.End, ID: &id, Chunk: f.Chunk, Failure: f.Last, Duration: f.End.Sub(f.Start), Fuel: f.Last.Fuel})
}

// stored tells which outputs were put.
func (s stint) stored(spans []postgres.Span) {
	if s.watcher == nil {
		return
	}
	outputs, fuel := 0, uint64(0)
	for _, span := range spans {
		outputs += len(span.Records)
		for i := range span.Records {
			fuel += span.Records[i].Fuel
		}
	}
	if outputs > 0 {
		s.watcher.Stored(outputs, fuel)
	}
}

// folded tells of the fuel of a fold. result may be nil.
func (s stint) folded(result *host.Result) {
	if s.watcher != nil && result != nil && result.Report.FoldFuel > 0 {
		s.watcher.Stored(0, result.Report.FoldFuel)
	}
}

func leaseOf(l postgres.Lease, why event.Why) *event.Lease {
	return &event.Lease{From: l.First, To: l.Last - 1, Why: why}
}
