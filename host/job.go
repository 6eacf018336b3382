// Package host runs jobs: one pure function, a WebAssembly module, over many
// chunks.
//
// A [Coordinator] leases batches of chunks to workers, keeps each output in a
// store before it counts, retries what failed by its class, and folds the
// outputs in id order into one result. The result's bytes do not depend on the
// number of workers, on retries or on the order of completion.
package host

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Job is one module over one set of chunks, with the settings that can change
// a result. A Job is not changed by running it.
type Job struct {
	// Name, Meta, ModulePath, ChunksPath and Command are recorded with the job,
	// and change nothing else. A job without a name has some digits of its
	// module's digest. Command is JSON; the paths and it say how the job would
	// be submitted again.
	Name                   string
	Meta                   map[string]string
	ModulePath, ChunksPath string
	Command                []byte

	Module   []byte          // the file
	Admitted Module          // what the engine's Admit gave for Module and Options; nil = it will be asked
	Chunks   *chunks.File    // stays open while the [Result] is in use
	Options  runtime.Options // of compiling
	Settings runtime.Settings
	Retry    RetryPolicy
	// MaxFailures stops the job early once more chunks than this have failed;
	// nil is no limit.
	MaxFailures *int
	// Outputs says that Result.Outputs will be asked for. Without it, a job that
	// was finished before and has an aggregate is taken from the store without
	// looking at its outputs again.
	Outputs bool
	// Verify executes some chunks twice; nil none.
	Verify *Verify
	// Redrive runs some chunks of a recorded job again; nil runs all.
	Redrive *Redrive
	// NoFold leaves aggregate out: the outputs are the result.
	NoFold bool
	// Partial calls aggregate with the outputs there are where chunks failed.
	Partial bool
	// Stop ends the job softly when it is closed: no new attempts, and running
	// ones get Grace. nil never does.
	Stop  <-chan struct{}
	Grace time.Duration
}

// Redrive says that a job is one that the store has a record of, and that of its
// chunks without an output those with an id in Only alone are run.
type Redrive struct {
	Job  store.JobID
	Only abi.IDSet
}

// ErrOtherJob says that a job is not the one to be redriven: another module,
// other chunks, or a setting that can change an output. Nothing was run.
var ErrOtherJob = errors.New("this is another job")

func (j *Job) validate() error {
	switch {
	case len(j.Module) == 0:
		return errors.New("host: Job.Module is empty")
	case j.Chunks == nil:
		return errors.New("host: Job.Chunks is nil")
	case j.MaxFailures != nil && *j.MaxFailures < 0:
		return fmt.Errorf("host: Job.MaxFailures is %d, expected 0 or more", *j.MaxFailures)
	case j.Verify != nil && !(j.Verify.Share > 0 && j.Verify.Share <= 1):
		return fmt.Errorf("host: Job.Verify.Share is %v, expected more than 0 and at most 1", j.Verify.Share)
	case j.Retry.Backoff < 0 || j.Retry.BackoffMax < 0:
		return errors.New("host: Job.Retry has a negative time")
	case j.Settings.Isolation == runtime.IsolationNone: // its outputs are not a function of their chunks
		return errors.New("host: Job.Settings.Isolation is none, which is for measuring: leave it empty")
	}
	if len(j.Settings.Context) > 0 {
		if err := abi.CheckItem(j.Settings.Context); err != nil {
			return fmt.Errorf("host: Job.Settings.Context is not one CBOR item: %w", err)
		}
	}
	return nil
}

// action is the key of the job's outputs: the digest of everything beside the
// chunk that can change one. Limits of time, of fuel and of the output's size
// only decide whether there is one.
func (j *Job) action(module [sha256.Size]byte) store.Action {
	h := sha256.New()
	fmt.Fprintf(h, "wasm-jobs action 1\nabi %d\nmodule %x\n", abi.Version, module)
	s := j.ReceiptSettings()
	if s.NaNs == receipt.NativeNaNs {
		fmt.Fprintln(h, "native NaNs")
	}
	if !s.Metering { // nor is what the outputs cost known
		fmt.Fprintln(h, "no metering")
	} else {
		fmt.Fprintf(h, "metering %d\n", runtime.MeteringVersion)
	}
	context := sha256.Sum256(abi.Null)
	if s.Context != nil {
		context = *s.Context
	}
	fmt.Fprintf(h, "context %x\nseed %d\nmemory %d\n", context, s.Seed, s.Memory)
	writeCommand(h, &s)
	return store.Action(h.Sum(nil))
}

// foldAction is the key of the job's aggregates, by the digest of their outputs.
func foldAction(action store.Action) store.Action { return derived(action, "fold") }

// endAction is the key of what is known of jobs that succeeded as a whole, by
// their input digest.
func endAction(action store.Action) store.Action { return derived(action, "end") }

func derived(action store.Action, what string) store.Action {
	return store.Action(sha256.Sum256(append(action[:], what...)))
}

// RetryPolicy says which failures are tried again, and when.
type RetryPolicy struct {
	// Retries is how many come after the first attempt at most.
	Retries int
	// Classes are those that are retried; nil means [DefaultRetryClasses].
	Classes []abi.Class
	// Backoff is the time before the first retry, which doubles up to
	// BackoffMax, with jitter. A waiting retry holds no worker.
	Backoff, BackoffMax time.Duration
	// MaxRequeues is how often a chunk may return to the queue uncounted.
	MaxRequeues int
	// Deterministic retries a chunk also after two attempts ended in the same
	// trap, which for a hermetic guest proves that a third would too.
	Deterministic bool
}

// DefaultRetry returns the policy of the command line.
func DefaultRetry() RetryPolicy {
	return RetryPolicy{Retries: 3, Backoff: 50 * time.Millisecond, BackoffMax: 5 * time.Second, MaxRequeues: 100}
}

// DefaultRetryClasses are retried unless a policy names others.
func DefaultRetryClasses() []abi.Class {
	return []abi.Class{abi.ClassTrap, abi.ClassMemory, abi.ClassTimeout, abi.ClassGuestRetryable, abi.ClassHost}
}

func (p *RetryPolicy) retries(c abi.Class) bool {
	if p.Classes == nil {
		return slices.Contains(DefaultRetryClasses(), c)
	}
	return slices.Contains(p.Classes, c)
}

// ErrInterrupted says that the job was stopped before its end. What was
// finished is kept.
var ErrInterrupted = errors.New("the job was interrupted")

// StoreError says that the store failed: nothing can be kept any more.
type StoreError struct{ Err error }

func (e *StoreError) Error() string { return "the store failed: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *StoreError) Unwrap() error { return e.Err }

// FoldError says that aggregate or merge failed.
type FoldError struct {
	Step    string // the export
	Failure *abi.Failure
}

func (e *FoldError) Error() string { return fmt.Sprintf("%s failed: %v", e.Step, e.Failure) }

// Unwrap returns the failure.
func (e *FoldError) Unwrap() error { return e.Failure }
