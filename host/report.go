package host

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/host/profile"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// ChunkFailure is a chunk that failed permanently.
type ChunkFailure struct {
	ID abi.ID `json:"id"`
	abi.Failure
	Attempts int `json:"attempts"`
	Index    int `json:"-"` // of the chunk in id order
	// Shortened means that the text of Failure or Last is incomplete: it has no
	// stack, and only the start of a long message. Equal texts use memory once;
	// all texts of a job together are limited to 8 MiB. Logs are left out before
	// anything is shortened.
	Shortened bool `json:"-"`
	// Last is the error of the last attempt, with its fuel and without the
	// host's additions to the message. It may be whole if Failure is not.
	Last *abi.Failure `json:"-"`
	// LastShortened means that the text of Last is incomplete.
	LastShortened bool `json:"-"`
}

// Phases are the durations of the phases, in seconds.
type Phases struct {
	Scan    float64 `json:"scan"` // of the chunk file; see [About.Scanned]
	Compile float64 `json:"compile"`
	Prepare float64 `json:"prepare"`
	Execute float64 `json:"execute"`
	Fold    float64 `json:"fold"`
	// FoldCalls is the time that workers spent folding while chunks were
	// executed. It is part of Execute times workers, and of no other phase.
	FoldCalls float64 `json:"fold_calls"`
}

func (p *Phases) add(phase string, d time.Duration) {
	switch phase {
	case "compile":
		p.Compile += d.Seconds()
	case "prepare":
		p.Prepare += d.Seconds()
	case "execute":
		p.Execute += d.Seconds()
	case "fold":
		p.Fold += d.Seconds()
	}
}

// Report describes a finished run, as JSON for other programs.
type Report struct {
	Job   string `json:"job,omitempty"` // id in the store; empty if the store keeps no records
	State string `json:"state"`         // a state of package journal
	Cause
	Module struct {
		Path   string `json:"path,omitempty"` // as given; set by the caller that read the file
		SHA256 string `json:"sha256"`
	} `json:"module"`
	Chunks Counts `json:"chunks"`
	Work
	Fuel      uint64        `json:"fuel"` // of the calls that produced the outputs and the aggregate
	Isolation Isolation     `json:"isolation"`
	Instances runtime.Stats `json:"instances"`
	ChunkFailures
	Digests Digests `json:"digests"`
	Phases  Phases  `json:"phases"`
	Workers int     `json:"workers"`
	OfCaller
	Interrupted bool `json:"interrupted"`
}

// OfCaller are the parts of a report that the caller of a job knows, and sets.
type OfCaller struct {
	Store   *StoreReport `json:"store,omitempty"`   // of a durable store
	Skipped *int         `json:"skipped,omitempty"` // malformed records of the input that were passed over; nil if none may be
}

// Cause is why a job did not succeed.
type Cause struct {
	Error    string `json:"error,omitempty"`
	BrokenBy string `json:"broken_by,omitempty"` // init, fold, store, difference or input, if the state is broken
}

// SharedReport describes how workers shared a job.
type SharedReport struct {
	Priority       int            `json:"priority"`
	MaxConcurrency int            `json:"max_concurrency"`
	Executions     int64          `json:"executions"` // attempts whose end was reported
	Leases         LeaseReport    `json:"leases"`
	Mended         int64          `json:"mended"` // spans that were derived again from the outputs
	WorkerList     []WorkerReport `json:"worker_list"`
	Upload         UploadReport   `json:"upload"`
}

// LeaseReport counts leases by their end.
type LeaseReport struct {
	Granted    int64 `json:"granted"`
	Expired    int64 `json:"expired"`
	Returned   int64 `json:"returned"`
	Stolen     int64 `json:"stolen"`
	Duplicated int64 `json:"duplicated"`
	Late       int64 `json:"late"`
}

// WorkerReport describes a worker.
type WorkerReport struct {
	Name    string  `json:"name"`
	App     string  `json:"app"`
	Host    string  `json:"host"`
	Chunks  int64   `json:"chunks"`
	Seconds float64 `json:"seconds"`
	Lost    int64   `json:"lost"` // leases
}

// UploadReport counts bytes of an input.
type UploadReport struct {
	Bytes   int64 `json:"bytes"`
	Skipped int64 `json:"skipped"` // already stored
}

// ChunkFailures are the failed chunks of a job.
type ChunkFailures struct {
	Failures []ChunkFailure `json:"failures"` // in id order
	// FailuresShortened is the number of Failures that are Shortened: the text
	// of guests in a report is limited to about 16 MiB.
	FailuresShortened int `json:"failures_shortened,omitempty"`
}

// Work counts executions.
type Work struct {
	Attempts int `json:"attempts"`
	Retries  int `json:"retries"`
	Verified int `json:"verified,omitempty"` // chunks that were executed twice, with equal outputs
	// FoldFuel is the part of Report.Fuel that produced the aggregate.
	FoldFuel uint64 `json:"-"`
	// Profile has the measurements of the chunks that were executed; nil if none was.
	Profile       *profile.Profile `json:"profile,omitempty"`
	*SharedReport                  // of a job with shared workers; set by the caller that asked the store
}

// Isolation describes how calls got fresh state.
type Isolation struct {
	Mode runtime.Isolation `json:"mode"`
	// Reasons list the effects of the module that a reset does not undo.
	Reasons []string `json:"reasons,omitempty"`
}

// StoreReport is the cost of the job in a durable store.
type StoreReport struct {
	Path    string `json:"path"`
	Kind    string `json:"kind,omitempty"`   // postgres; "" = a directory
	Server  string `json:"server,omitempty"` // kind of database
	Schema  int    `json:"schema,omitempty"` // version of its schema
	Puts    int64  `json:"puts"`             // batches
	Commits int64  `json:"commits"`          // durable transactions
	Syncs   int64  `json:"syncs"`            // fsyncs
	Bytes   int64  `json:"bytes"`            // of outputs
}

// Digests are "sha256:" and 64 hex digits, or empty if there is no value.
type Digests struct {
	Module    string `json:"module"`
	Input     string `json:"input"`
	Outputs   string `json:"outputs,omitempty"`
	Aggregate string `json:"aggregate,omitempty"`
}

func digest(sum [sha256.Size]byte) string { return "sha256:" + hex.EncodeToString(sum[:]) }

// reportOf returns the report of a finished job.
func reportOf(x *execution, res *Result, err error) (r Report) {
	x.tally.into(&r)
	sum := sha256.Sum256(x.Module)
	if x.module != nil {
		sum = x.module.Digest()
	}
	r.Module.SHA256 = hex.EncodeToString(sum[:])
	r.FoldFuel = x.foldFuel
	r.Fuel += x.foldFuel
	r.Profile = x.profileOf(&r.Phases)
	r.State, r.Cause = state(&r.Chunks, err), Cause{reason(err), brokenBy(err)}
	if id := x.recorder.Job(); id != (store.JobID{}) {
		r.Job = journal.Name(id)
	}
	r.Isolation, r.Instances = x.isolation, instancesOf(err, x.pool, x.rechecker)
	r.Phases.Scan = x.Scanned.Seconds()
	r.Workers, r.Interrupted = x.config.Workers, errors.Is(err, ErrInterrupted)
	r.Digests = Digests{Module: digest(sum), Input: digest(x.Chunks.Digest())}
	if res.hashed {
		r.Digests.Outputs = digest(res.root)
	}
	if res.Aggregate != nil {
		r.Digests.Aggregate = digest(sha256.Sum256(res.Aggregate))
	}
	return r
}

// into writes the counts into a report, after counting has ended.
func (t *tally) into(r *Report) {
	t.phases.add(t.phase, time.Since(t.phaseAt))
	t.phase = ""
	r.Chunks, r.Work, r.Fuel, r.Phases = t.counts, t.work, t.fuel, t.phases
	r.Failures, r.FailuresShortened = t.failures.report()
}

// instancesOf returns the number of instances in the pools that are not nil. If
// the first instance failed, there may be no pool.
func instancesOf(err error, pools ...Pool) (sum runtime.Stats) {
	if init, failed := errors.AsType[*runtime.InitError](err); failed && pools[0] == nil {
		return init.Instances
	}
	for _, p := range pools {
		if p == nil {
			continue
		}
		s := p.Stats()
		sum.Created += s.Created
		sum.Resets += s.Resets
		sum.Closed += s.Closed
		sum.Memory = max(sum.Memory, s.Memory)
	}
	return sum
}

// state returns the state of a run that has ended.
func state(c *event.Counts, err error) string {
	switch {
	case errors.Is(err, ErrInterrupted):
		return journal.Interrupted
	case err != nil:
		return journal.Errored
	case c.Succeeded < c.Total:
		return journal.Failed
	}
	return journal.Succeeded
}

// brokenBy returns what ended a run, "" if it was interrupted or has ended well.
func brokenBy(err error) string {
	_, init := errors.AsType[*runtime.InitError](err)
	_, folds := errors.AsType[*FoldError](err)
	_, differs := errors.AsType[*DifferenceError](err)
	_, input := errors.AsType[*chunks.InputError](err)
	switch {
	case err == nil || errors.Is(err, ErrInterrupted):
		return ""
	case init:
		return "init"
	case folds:
		return "fold"
	case differs:
		return "difference"
	case input:
		return "input"
	}
	return "store"
}

// reason returns the error of a run as one line.
func reason(err error) string {
	if err == nil {
		return ""
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}

// recorded returns the report as it is stored, without its failures, which are
// noted one by one.
func recorded(r *Report) []byte {
	short := *r
	short.Failures = nil
	b, err := json.Marshal(&short)
	if err != nil {
		panic(err) // only texts and numbers
	}
	return b
}
