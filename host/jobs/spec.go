// Package jobs says what is written down of jobs in a [store.Jobs], and reads
// it: how far a job is, how each chunk fared, and what its outputs are. Nothing
// of it needs the module, the chunk file or the process that ran the job.
package jobs

import (
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Spec is what was submitted: the JSON of [store.Job.Spec]. Digests are
// "sha256:" and 64 hex digits.
type Spec struct {
	Name     string            `json:"name"`
	Meta     map[string]string `json:"meta,omitempty"`
	Module   Source            `json:"module"`
	Chunks   Source            `json:"chunks"` // Digest is the input digest
	Total    int               `json:"total"`
	Context  string            `json:"context,omitempty"` // digest
	Settings Settings          `json:"settings"`
	// Command is how whoever submitted the job would do so again, in words of
	// its own.
	Command json.RawMessage `json:"command,omitempty"`
}

// Source is a file and what it held.
type Source struct {
	Path   string `json:"path,omitempty"` // "" where it is not known or was a pipe
	Digest string `json:"digest"`
}

// Settings are those that change an output or decide whether there is one.
// Sizes are in bytes; limits of 0 are none.
type Settings struct {
	Seed         uint64        `json:"seed"`
	Memory       uint64        `json:"memory"`
	NativeNaNs   bool          `json:"native_nans,omitempty"`
	NoMetering   bool          `json:"no_metering,omitempty"`
	Fuel         uint64        `json:"fuel"`
	Timeout      time.Duration `json:"timeout_ns"`
	FoldTimeout  time.Duration `json:"fold_timeout_ns"`
	MaxOutput    uint64        `json:"max_output"`
	MaxAggregate uint64        `json:"max_aggregate"`
	Isolation    string        `json:"isolation"`
	Retries      int           `json:"retries"`
	RetryOn      []abi.Class   `json:"retry_on"`
	MaxRequeues  int           `json:"max_requeues"`
	Command      *Command      `json:"command,omitempty"` // nil where a WASI command has chunks alone
}

// Command is what a WASI command gets beside its chunks.
type Command struct {
	Args  []string `json:"args,omitempty"`
	Env   []string `json:"env,omitempty"`
	Stdin string   `json:"stdin"`
	Dirs  []Dir    `json:"dirs,omitempty"`
}

// Dir is a directory that guests read, under their name for it.
type Dir struct {
	Guest  string `json:"guest"`
	Digest string `json:"digest"`
	Files  int    `json:"files"`
	Bytes  int64  `json:"bytes"`
}

// Process is where a run goes on: the JSON of [store.Run.Info].
type Process struct {
	Host    string `json:"host"`
	PID     int    `json:"pid"`
	Workers int    `json:"workers"`
}

// Lease is a range of chunks that a worker is at: [store.Run.Active] is the
// JSON of a list of them. From and To count chunks in id order; To is not in it.
type Lease struct {
	Worker int       `json:"worker"`
	From   int       `json:"from"`
	To     int       `json:"to"`
	Since  time.Time `json:"since"`
}

// Failed is an attempt that failed: the JSON of [store.Attempt.Detail].
type Failed struct {
	abi.Failure
	Attempt int       `json:"attempt"` // from 1 in each run
	Worker  int       `json:"worker"`
	Start   time.Time `json:"start"`
	End     time.Time `json:"end"`
}

// The states of a run, and of a job as its last run left it.
const (
	Running     = "running"
	Died        = "died"        // its process gave no end, and no sign of life
	Succeeded   = "succeeded"   // every chunk has an output, and the result was made
	Incomplete  = "failed"      // some chunks have none
	Interrupted = "interrupted" // by a signal or the end of a context
	Broken      = "broken"      // the fold or the store failed
)

// report is what is read of [store.Run.Report], which is host's report.
type report struct {
	State   string `json:"state"`
	Error   string `json:"error"`
	Digests struct {
		Outputs string `json:"outputs"`
	} `json:"digests"`
}

// Name returns a job's id in hex.
func Name(id store.JobID) string { return hex.EncodeToString(id[:]) }
