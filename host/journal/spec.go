// Package journal defines the records of jobs in a [store.Journal], and reads them:
// the progress of a job, the attempts at each chunk, and its outputs. It needs
// neither the module nor the chunk file nor the process that ran the job.
package journal

import (
	"encoding/hex"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Spec is the specification of a job: the JSON of [store.JobRecord.Spec].
type Spec = spec.Spec

// Process is the process of a run: the JSON of [store.Run.Info].
type Process struct {
	Host    string `json:"host"`
	PID     int    `json:"pid"`
	Workers int    `json:"workers"`
	Rerun   bool   `json:"rerun,omitempty"` // chunks with a stored output are executed too
}

// Lease is the range of chunks From..To-1 that a worker executes, counted in id
// order. [store.Run.Active] is the JSON of a list of leases.
type Lease struct {
	Worker int       `json:"worker"`
	From   int       `json:"from"`
	To     int       `json:"to"`
	Since  time.Time `json:"since"`
}

// FailedAttempt is a failed attempt: the JSON of [store.Attempt.Detail].
type FailedAttempt struct {
	abi.Failure
	Attempt int       `json:"attempt"` // from 1 in each run
	Worker  int       `json:"worker"`
	Host    string    `json:"host,omitempty"` // if it may differ from the host of the run
	Start   time.Time `json:"start"`
	End     time.Time `json:"end"`
	// Fuel is that of the failure, which its own form leaves out.
	Fuel uint64 `json:"fuel,omitempty"`
}

// The states of a run. A job has the state of its last run.
const (
	Running     = "running"
	Crashed     = "died"        // its process recorded no end, and gives no sign of life
	Succeeded   = "succeeded"   // every chunk has an output, and the result was made
	Failed      = "failed"      // some chunks have no output
	Interrupted = "interrupted" // by a signal or the end of a context
	Errored     = "broken"      // the fold or the store failed
)

// report holds the fields that are read from [store.Run.Report], which is the
// report of package host.
type report struct {
	State   string `json:"state"`
	Error   string `json:"error"`
	By      string `json:"broken_by"`
	Digests struct {
		Outputs string `json:"outputs"`
	} `json:"digests"`
}

// ParseName is the inverse of [Name].
func ParseName(name string) (id store.JobID, ok bool) {
	b, err := hex.DecodeString(name)
	if err != nil || len(b) != len(id) {
		return id, false
	}
	return store.JobID(b), true
}

// Name returns a job's id in hex.
func Name(id store.JobID) string { return hex.EncodeToString(id[:]) }
