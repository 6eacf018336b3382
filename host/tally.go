package host

import (
	"sync"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/host/profile"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
	"github.com/wasm-jobs/wasm-jobs/host/worker"
)

// tally counts the reports of the workers of one job, and informs the observer.
// It is safe for concurrent use.
type tally struct {
	input    Input
	observer event.Observer // nil = none
	detail   event.Detail
	profile  *profile.Recorder // nil before the execution
	started  time.Time

	mu       sync.Mutex // guards all below, and calls of the observer
	phase    string
	phaseAt  time.Time
	phases   Phases
	counts   event.Counts
	work     Work
	failures failures
	fuel     uint64 // of the calls that gave outputs
}

func newTally(input Input, observer event.Observer) *tally {
	t := &tally{input: input, started: time.Now(), counts: event.Counts{Total: input.Len()}}
	t.add(observer)
	return t
}

// add adds an observer, unless it is nil. Workers must not run yet.
func (t *tally) add(o event.Observer) {
	t.observer = event.Multi(t.observer, o)
	if t.observer != nil {
		t.detail = t.observer.Wants()
	}
}

// enter begins a phase.
func (t *tally) enter(phase string, kind event.Kind) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.phases.add(t.phase, now.Sub(t.phaseAt))
	t.phase, t.phaseAt = phase, now
	counts := t.counts
	t.tell([]event.Event{{Time: now, Kind: kind, Message: phase, Counts: &counts}})
}

// observe passes on events that do not change the counts.
func (t *tally) observe(events []event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tellEvents(events)
}

// tell reports progress and events to the observer. mu is held.
func (t *tally) tell(events []event.Event) {
	if t.observer != nil {
		t.observer.Progress(t.phase, t.counts)
		t.tellEvents(events)
	}
}

func (t *tally) tellEvents(events []event.Event) {
	if t.observer != nil && t.detail > event.ProgressOnly && len(events) > 0 {
		t.observer.Observe(events)
	}
}

func (t *tally) attempted(p queue.Progress, rechecked int, events []event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.work.Attempts += p.Attempts
	t.work.Verified += rechecked
	t.tell(events)
}

// stored counts the chunks of a stored batch.
func (t *tally) stored(b *worker.Batch) {
	t.measure(b)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.Succeeded += b.Finished
	t.counts.Reused += b.Reused
	t.fuel += b.Fuel
	t.tell(b.Events)
}

// measure adds the measurements of a stored batch to the profile.
func (t *tally) measure(b *worker.Batch) {
	var busy time.Duration
	for _, c := range b.Calls {
		busy += max(c.Took, 0)
	}
	end := time.Now()
	if len(b.Calls) > 0 {
		end = t.started.Add(b.Until)
	}
	t.profile.Finished(end, b.Finished, busy)
	t.profile.Batch(&profile.Batch{
		Worker: b.Worker, Len: b.Len(), Fuel: b.FuelOf, Size: b.SizeOf,
		Runs: len(b.Alike), Alike: func(i int) profile.Alike { return profile.Alike(b.Alike[i]) },
		Calls: len(b.Calls), Call: func(i int) profile.Calls { return profile.Calls(b.Calls[i]) },
		ID: func(i int) abi.ID { return t.input.ID(b.IndexOf(i)) },
	})
}

// reused counts all chunks of a job as reused, because its result came from the
// store, and reports each.
func (t *tally) reused(fuel uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.Succeeded, t.counts.Reused, t.fuel = t.counts.Total, t.counts.Total, fuel
	for from := 0; from < t.counts.Total && t.detail >= event.Chunks; from += queue.MaxLease {
		to := min(from+queue.MaxLease, t.counts.Total)
		events := make([]event.Event, 0, to-from)
		for i := from; i < to; i++ {
			id := t.input.ID(i)
			events = append(events, event.Event{Time: time.Now(), Kind: event.KindReused, ID: &id, Chunk: i})
		}
		t.tellEvents(events)
	}
}

// failed counts a failed attempt, and returns the number of failed chunks.
func (t *tally) failed(f *worker.Failed) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	id, d := t.input.ID(f.Chunk), &f.Decision
	e := event.Event{
		Time: f.End, ID: &id, Chunk: f.Chunk, Worker: f.Worker, Attempt: d.Attempt, Failure: d.Failure,
		Duration: f.End.Sub(f.Start), Fuel: f.Last.Fuel, FuelAtLeast: f.Last.FuelAtLeast(),
	}
	switch d.Verdict {
	case queue.Retry:
		e.Kind, e.NotBefore = event.KindRetry, &d.NotBefore
		t.work.Retries++
	case queue.Requeue:
		e.Kind, e.NotBefore = event.KindRequeue, &d.NotBefore
	case queue.Fail:
		e.Kind = event.KindFailed
		t.counts.Failed++
		t.failures.add(id, f)
	}
	t.profile.Failed(f.End, d.Verdict == queue.Fail, profile.Slow{
		ID: id, Duration: e.Duration, Fuel: f.Last.Fuel, FuelAtLeast: e.FuelAtLeast, Worker: f.Worker, Class: f.Last.Class,
	})
	t.tell([]event.Event{e})
	return t.counts.Failed
}

func (t *tally) folded(busy time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.phase == "execute" {
		t.phases.FoldCalls += busy.Seconds()
	}
	t.tell(nil)
}

// soFar returns the counts.
func (t *tally) soFar() event.Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts
}

// outputFuel returns the fuel of the calls that gave outputs.
func (t *tally) outputFuel() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.fuel
}

// gather counts what others did.
func (t *tally) gather(g *Gathered) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.Succeeded, t.counts.Reused, t.counts.Failed = g.Succeeded, g.Reused, len(g.Failed)
	t.work.Attempts = g.Attempts
	for _, f := range g.Failed {
		t.failures.add(t.input.ID(f.Chunk), &worker.Failed{
			Chunk: f.Chunk, Last: f.Failure, Decision: queue.Decision{Attempt: f.Attempts, Failure: f.Failure},
		})
	}
}

// setSucceeded sets how many outputs there are.
func (t *tally) setSucceeded(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.Succeeded = n
}

// setFuel sets what the calls used that gave the outputs, which are read.
func (t *tally) setFuel(fuel uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fuel = fuel
}
