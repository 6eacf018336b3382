package host

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/host/fold"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
	"github.com/wasm-jobs/wasm-jobs/host/worker"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Job is one module over one set of chunks, with the settings that can change a
// result. Running a Job does not change it.
type Job struct {
	About
	Reading

	Module   []byte          // the file
	Admitted Module          // result of the engine's Admit for Module and Options; nil = the coordinator calls it
	Chunks   Input           // must stay open while the [Result] is in use
	Options  runtime.Options // of the compiler
	Settings runtime.Settings
	Retry    RetryPolicy
	// MaxFailures stops the job early once more chunks than this have failed;
	// nil is no limit.
	MaxFailures *int
	// Recheck executes some chunks a second time; nil = none.
	Recheck *Recheck
	// Redrive runs some chunks of a recorded job again; nil = all.
	Redrive *Redrive
	// NoFold skips aggregate: the outputs are the result.
	NoFold bool
	// Partial calls aggregate with the existing outputs even if chunks failed.
	Partial bool
	// Stop ends the job softly when it is closed: no new attempts start, and
	// running ones get Grace to finish. nil never does.
	Stop  <-chan struct{}
	Grace time.Duration
}

// About is recorded with a job and has no other effect.
type About struct {
	Name     string // "" = the first digits of the module's digest
	Meta     map[string]string
	Priority int
	// ModulePath, ChunksPath and Sources record where the job's parts are, for
	// a later run. Without Sources, the chunks are in a chunk file at
	// ChunksPath.
	ModulePath, ChunksPath string
	Sources                *spec.Sources
	// Scanned is the time that the caller spent on reading the chunks before the run.
	Scanned time.Duration
}

// Reading configures how outputs are read. The zero Reading is for callers that
// only want the aggregate, and takes stored outputs.
type Reading struct {
	// Rerun executes all chunks and the fold even if the store has their outputs. A
	// different output is a conflict.
	Rerun bool
	// Outputs announces a call of Result.Outputs. Without it, the result of a
	// finished job with an aggregate is loaded from the store without a check
	// that its outputs are still there.
	Outputs bool
	// Early, if it is not nil, gets outputs in id order while others are still
	// executed: the stored outputs of the longest run of finished chunks from
	// the first one on. Result.Rest has all other outputs; these are all
	// outputs if the store may have had some before. Early is called by one
	// goroutine at a time, before Run returns. Workers wait for it, and it must
	// not keep the output.
	Early func(Output)
}

// Redrive requires that the store has a record of the job, and runs only chunks
// that have no output and whose id is in Only.
type Redrive struct {
	Job  store.JobID
	Only abi.IDSet
}

// ErrOtherJob is returned if a job is not the one to be redriven: it has
// another module, other chunks, or a different setting that can change an
// output. Nothing was run.
var ErrOtherJob = errors.New("this is another job")

// validate returns all problems.
func (j *Job) validate() error {
	var found []error
	check := checker("Job", &found)
	check(len(j.Module) > 0, "Module is empty")
	check(j.Chunks != nil, "Chunks is nil")
	if r := j.Recheck; r != nil {
		check(r.Share > 0 && r.Share <= 1, "Recheck.Share is %v, want more than 0 and at most 1", r.Share)
	}
	j.checkSettings(check)
	return errors.Join(found...)
}

// checker returns a function that appends to found the problems of the fields
// of a struct.
func checker(owner string, found *[]error) func(ok bool, format string, args ...any) {
	return func(ok bool, format string, args ...any) {
		if !ok {
			*found = append(*found, fmt.Errorf("host: "+owner+"."+format, args...))
		}
	}
}

// checkSettings checks everything that does not depend on the module and its
// chunks.
func (j *Job) checkSettings(check func(ok bool, format string, args ...any)) {
	settings := j.settings()
	settings.Command = nil // the module decides which commands fit it
	for _, err := range []error{settings.Validate(), j.Sources.Validate()} {
		if invalid, ok := errors.AsType[*spec.InvalidError](err); ok {
			for _, p := range invalid.Problems {
				check(false, "%s %s", fieldOf(p.Field), p.Reason)
			}
		}
	}
	if len(j.Settings.Context) > 0 {
		err := abi.CheckItem(j.Settings.Context)
		check(err == nil, "Settings.Context is not one CBOR item: %w", err)
	}
}

// folds reports whether the outputs of a module are folded into an aggregate.
func (j *Job) folds(m Module) bool { return m.Exports(abi.ExportAggregate) && !j.NoFold }

// fieldOf returns the field of a [Job] that corresponds to a field of its spec.
func fieldOf(field string) string {
	if rest, ok := strings.CutPrefix(field, "Limits."); ok {
		return "Settings." + rest
	}
	if field == "Isolation" {
		return "Settings." + field
	}
	return field
}

// foldAction is the key of the job's aggregates, which are stored by the digest
// of their outputs.
func foldAction(action store.Action) store.Action { return derived(action, "fold") }

// DerivedActions are the actions under which a run stores results that it
// derives from the outputs of an action: see [store.JobRecord].
func DerivedActions(action store.Action) []store.Action {
	return []store.Action{foldAction(action), endAction(action)}
}

// endAction is the key under which the success of whole jobs is stored, by
// their input digest.
func endAction(action store.Action) store.Action { return derived(action, "end") }

func derived(action store.Action, what string) store.Action {
	return store.Action(sha256.Sum256(append(action[:], what...)))
}

// RetryPolicy defines which failures are retried, and when.
type RetryPolicy = queue.Policy

// DefaultRetry returns the default policy of the command line.
func DefaultRetry() RetryPolicy { return queue.DefaultPolicy() }

// DefaultRetryClasses are retried unless a policy names other classes.
func DefaultRetryClasses() []abi.Class { return queue.DefaultClasses() }

// ErrInterrupted is returned if the job was stopped before its end. All
// finished work is stored.
var ErrInterrupted = errors.New("the job was interrupted")

// Errors of a run.
type (
	// StoreError means that the store failed: nothing more can be stored.
	StoreError = worker.StoreError
	// FoldError means that aggregate or merge failed.
	FoldError = fold.Error
	// DifferenceError means that two executions of a chunk had different
	// results.
	DifferenceError = worker.DifferenceError
)

// Types of observers.
type (
	Event    = event.Event
	Observer = event.Observer
	Counts   = event.Counts
)
