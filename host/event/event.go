// Package event defines the events of a job and the interface of their observers.
//
// An [Observer] receives progress after each batch, and single events if it wants
// them. Events of single chunks have a cost, so an observer declares the detail
// that it wants; without an observer no events are made.
//
//	type printer struct{}
//
//	func (printer) Progress(phase string, c event.Counts) { fmt.Println(phase, c.Succeeded, "of", c.Total) }
//	func (printer) Wants() event.Detail                   { return event.ProgressOnly }
//	func (printer) Observe([]event.Event)                 {}
package event

import (
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Kind is the kind of an event.
type Kind string

// The kinds of events.
const (
	KindPhase      Kind = "phase"       // Message is the name of the phase that begins: compile, prepare, execute, fold
	KindIsolation  Kind = "isolation"   // Message tells how calls get fresh state, and why
	KindLeased     Kind = "leased"      // a worker has the chunks From..To
	KindLeaseEnded Kind = "lease_ended" // the worker begins no more of From..To; Why is the reason
	KindSucceeded  Kind = "succeeded"   // a chunk's output is stored
	KindReused     Kind = "reused"      // a chunk's output was already stored
	KindRetry      Kind = "retry"       // an attempt failed; the next begins at NotBefore or later
	KindRequeue    Kind = "requeue"     // an attempt was returned to the queue without counting
	KindFailed     Kind = "failed"      // a chunk failed and is not retried
	KindRouted     Kind = "routed"      // a flow's step failed for good, and its item takes the route of its state
	KindMended     Kind = "mended"      // the chunks From..To of a shared job are pending again: their outputs were missing
	KindLost       Kind = "lost"        // the worker of a shared job's chunk died or vanished
	KindLog        Kind = "log"         // a line that the guest logged
	KindEnd        Kind = "end"         // the job is over
)

// Event is one event of a job. Fields that do not apply are zero.
type Event struct {
	Time      time.Time     `json:"time"`
	Kind      Kind          `json:"event"`
	ID        *abi.ID       `json:"id,omitempty"`          // of the chunk; nil if the event is not about one
	State     string        `json:"state,omitempty"`       // of a flow's step
	Worker    int           `json:"worker,omitempty"`      // from 1; 0 means none
	Attempt   int           `json:"attempt,omitempty"`     // from 1
	Failure   *abi.Failure  `json:"failure,omitempty"`     //
	NotBefore *time.Time    `json:"not_before,omitempty"`  //
	Level     int32         `json:"level,omitempty"`       // of a log line, as in log/slog
	Message   string        `json:"message,omitempty"`     //
	Counts    *Counts       `json:"chunks,omitempty"`      // of KindPhase and KindEnd
	Duration  time.Duration `json:"duration_ns,omitempty"` // of the attempt that ended at Time; 0 if the output was reused
	Fuel      uint64        `json:"fuel,omitempty"`        // of the call that gave the output, or of the failed one, if known
	// FuelAtLeast tells that Fuel is a lower bound; see [abi.Failure].
	FuelAtLeast bool   `json:"fuel_at_least,omitempty"`
	Size        int    `json:"size,omitempty"`  // of the output, in bytes
	Lease       *Lease `json:"lease,omitempty"` // of KindLeased and KindLeaseEnded
	Holder      string `json:"-"`               // name of the worker, of a lease of a shared job; see [Event.Plain]
	Chunk       int    `json:"-"`               // the index in id order, of an event with an ID
	Output      []byte `json:"-"`               // of KindSucceeded, for observers that want [Outputs] and may keep it
}

// sharedLease is the JSON form of an event about a lease of a shared job.
type sharedLease struct {
	Time   time.Time `json:"time"`
	Kind   Kind      `json:"event"`
	From   *int      `json:"from,omitempty"`
	To     *int      `json:"to,omitempty"`
	Chunk  *int      `json:"chunk,omitempty"`
	Worker string    `json:"worker,omitempty"`
	Why    Why       `json:"why,omitempty"`
}

// Plain returns the value that is the JSON form of the event. Workers of a shared job have
// names instead of numbers.
func (e *Event) Plain() any {
	if e.Lease == nil || e.Holder == "" && e.Kind != KindMended {
		return e
	}
	plain := &sharedLease{Time: e.Time, Kind: e.Kind, Worker: e.Holder, Why: e.Lease.Why}
	if plain.From, plain.To = &e.Lease.From, &e.Lease.To; e.Kind == KindLost {
		plain.From, plain.To, plain.Chunk = nil, nil, &e.Lease.From
	}
	return plain
}

// Lease is a range of chunks by their index in id order, both ends included.
type Lease struct {
	From  int       `json:"from"`
	To    int       `json:"to"`
	Since time.Time `json:"since"`
	Why   Why       `json:"why,omitempty"` // the reason of its end
}

// Why is the reason why a lease ended.
type Why string

// The reasons.
const (
	Done      Why = "done"
	Returned  Why = "returned"  // a part of it went back to the queue, because an attempt failed
	Stolen    Why = "stolen"    // a part of it went to another worker
	Cancelled Why = "cancelled" // the job was stopped
	Expired   Why = "expired"   // its worker died or vanished
)

// Counts is the progress of a job. Succeeded includes Reused.
type Counts struct {
	Total     int `json:"total"`
	Succeeded int `json:"succeeded"`
	Reused    int `json:"reused"`
	Failed    int `json:"failed"`
}

// Detail is the amount of detail that an observer wants. Each level includes the
// ones before it.
type Detail int

// The levels of detail.
const (
	ProgressOnly Detail = iota // Observe is not called
	Attempts                   // phases, leases, failed attempts: a few for each batch
	Chunks                     // each chunk, and the log lines of guests
	Outputs                    // each chunk with a copy of its output
)

// Observer receives the events of a job. Its methods are called one at a time, and
// the job waits for them. Their arguments are valid until they return; copies of
// events may be kept.
type Observer interface {
	// Progress is called after each batch, and when a phase begins.
	Progress(phase string, counts Counts)
	// Wants is called before the job begins.
	Wants() Detail
	// Observe receives events in batches, never an empty one.
	Observe(events []Event)
}

// Multi passes events to several observers, in order, each with the detail that it
// wants. Nil observers are left out; if none remains, Multi returns nil.
func Multi(observers ...Observer) Observer {
	var m multi
	for _, o := range observers {
		if o == nil {
			continue
		}
		detail := o.Wants()
		m.all = append(m.all, told{o, detail})
		m.detail = max(m.detail, detail)
	}
	if len(m.all) == 0 {
		return nil
	}
	return &m
}

type multi struct {
	all    []told
	detail Detail
}

type told struct {
	Observer
	detail Detail
}

func (m *multi) Wants() Detail { return m.detail }

func (m *multi) Progress(phase string, counts Counts) {
	for _, o := range m.all {
		o.Progress(phase, counts)
	}
}

func (m *multi) Observe(events []Event) {
	for _, o := range m.all {
		if wanted := atMost(events, o.detail, m.detail); len(wanted) > 0 {
			o.Observe(wanted)
		}
	}
}

// atMost returns the events up to a detail; these are all of them if they were made
// for it.
func atMost(events []Event, detail, made Detail) (wanted []Event) {
	if detail >= min(made, Chunks) {
		return events
	}
	for _, e := range events {
		if DetailOf(e.Kind) <= detail {
			wanted = append(wanted, e)
		}
	}
	return wanted
}

// DetailOf returns the lowest detail that has events of a kind.
func DetailOf(kind Kind) Detail {
	switch kind {
	case KindSucceeded, KindReused, KindLog:
		return Chunks
	}
	return Attempts
}
