package flow

import (
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
	"github.com/wasm-jobs/wasm-jobs/host/worker"
)

// observeSteps passes on the events of steps in a state.
func (x *execution) observeSteps(s *state, events []event.Event) {
	if x.Events == nil || len(events) == 0 {
		return
	}
	for i := range events {
		events[i].State = s.Name
	}
	x.Events.Observe(events)
}

// observePhase tells that a phase begins or, with [event.KindEnd], that the run is over.
func (x *execution) observePhase(kind event.Kind, message string) {
	if x.Events != nil && x.Events.Wants() >= event.Attempts {
		x.Events.Observe([]event.Event{{Time: time.Now(), Kind: kind, Message: message}})
	}
}

// again is the event of an attempt that failed and is made again.
func again(id abi.ID, holder int, d *queue.Decision) event.Event {
	e := event.Event{
		Time: time.Now(), Kind: event.KindRetry, ID: &id, Worker: holder, Attempt: d.Attempt, Failure: d.Failure, NotBefore: &d.NotBefore,
	}
	if d.Verdict == queue.Requeue {
		e.Kind = event.KindRequeue
	}
	return e
}

// leased is the event of a lease. Its numbers are of the order in which items came to the
// state, which means nothing outside.
func leased(l *queue.Lease) event.Event {
	return event.Event{Time: l.Since, Kind: event.KindLeased, Worker: l.Holder, Lease: &event.Lease{From: l.From, To: l.To - 1, Since: l.Since}}
}

// leaseEnded is the event of a lease that ended before it reached chunk.
func leaseEnded(holder int, s queue.Span, chunk int, stopping bool) event.Event {
	why := event.Done
	switch {
	case stopping:
		why = event.Cancelled
	case chunk < s.To:
		why = event.Returned
	}
	return event.Event{Time: time.Now(), Kind: event.KindLeaseEnded, Worker: holder, Lease: &event.Lease{From: s.From, To: s.To - 1, Why: why}}
}

// forGood is the event of a step that failed and is not made again.
func (l *live) forGood(it *item, f *worker.Failed) event.Event {
	id := it.id(l.Input)
	e := event.Event{
		Time: f.End, Kind: event.KindFailed, ID: &id, Worker: f.Worker, Attempt: f.Decision.Attempt, Failure: f.Decision.Failure, Duration: f.End.Sub(f.Start),
	}
	if _, routed := l.plan.states[it.state].routeOf(f.Decision.Failure.Class); routed {
		e.Kind = event.KindRouted
		return e
	}
	it.told = true
	return e
}

// failing returns the witness that tells of items that fail by the rules of the flow,
// such as an invalid move. It is nil if nobody asks.
func (l *live) failing() witness {
	if l.Events == nil || l.Events.Wants() < event.Attempts {
		return nil
	}
	return ruled{l}
}

// ruled is the witness of an execution.
type ruled struct{ *live }

func (ruled) stepped(*item, *state, []byte, []byte, uint64) {}
func (ruled) gaveUp(*item, *state, *abi.Failure)            {}
func (ruled) emitted(*item, int)                            {}
func (ruled) ended(*item, *state)                           {}

// failed implements [witness]. Failures of executors have been told.
func (r ruled) failed(it *item, s *state, f *abi.Failure) {
	if it.told {
		return
	}
	id := it.id(r.Input)
	r.observeSteps(s, []event.Event{{Time: time.Now(), Kind: event.KindFailed, ID: &id, Failure: f}})
}
