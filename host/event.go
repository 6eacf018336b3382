package host

import (
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Kind says what happened.
type Kind string

// The kinds of events.
const (
	KindPhase     Kind = "phase"     // Message names the phase that begins: compile, prepare, execute, fold
	KindIsolation Kind = "isolation" // Message says how calls get fresh state, and why
	KindSucceeded Kind = "succeeded" // a chunk's output is stored
	KindReused    Kind = "reused"    // a chunk's output was already stored
	KindRetry     Kind = "retry"     // an attempt failed; another comes at NotBefore
	KindRequeue   Kind = "requeue"   // an attempt was returned to the queue without counting
	KindFailed    Kind = "failed"    // a chunk failed for good
	KindLog       Kind = "log"       // a line that the guest logged
	KindEnd       Kind = "end"       // the job is over
)

// Event is one thing that happened in a job.
type Event struct {
	Time      time.Time    `json:"time"`
	Kind      Kind         `json:"event"`
	ID        *abi.ID      `json:"id,omitempty"`      // of the chunk; nil where none is meant
	Worker    int          `json:"worker,omitempty"`  // from 1; 0 = none
	Attempt   int          `json:"attempt,omitempty"` // from 1
	Failure   *abi.Failure `json:"failure,omitempty"`
	NotBefore *time.Time   `json:"not_before,omitempty"`
	Level     int32        `json:"level,omitempty"` // of a log line, as in log/slog
	Message   string       `json:"message,omitempty"`
	Counts    *Counts      `json:"chunks,omitempty"` // of KindPhase and KindEnd
}

// Counts says how far a job is. Succeeded includes Reused.
type Counts struct {
	Total     int `json:"total"`
	Succeeded int `json:"succeeded"`
	Reused    int `json:"reused"`
	Failed    int `json:"failed"`
}

// Observer is told what happens in a job. Its methods are called one at a
// time, from one goroutine, which waits for them; what they are given may be
// used until they return, and events for longer.
type Observer interface {
	// Progress is called after each batch, and when a phase begins.
	Progress(phase string, counts Counts)
	// Wants reports whether Observe is to be called at all: events of single
	// chunks cost something.
	Wants() bool
	// Observe is given events in batches.
	Observe(events []Event)
}
