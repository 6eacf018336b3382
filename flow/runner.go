package flow

import (
	"context"
	"errors"
	"fmt"
	goruntime "runtime"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Config configures a Runner. The zero Config works.
type Config struct {
	Workers int         // steps of modules at once, in one run; 0 = GOMAXPROCS
	Store   store.Store // of outputs and of the run's journal; nil = one in memory for each run
	// Records keeps the start, progress and end of runs; nil = they are not kept. It
	// belongs to Store.
	Records store.Journal
}

// Runner runs flows. It is safe for concurrent use.
type Runner struct{ config Config }

// NewRunner returns a runner.
func NewRunner(c Config) *Runner {
	if c.Workers == 0 {
		c.Workers = goruntime.GOMAXPROCS(0)
	}
	return &Runner{c}
}

// Run is a request to run one flow over one input, under a name. The zero values of
// its settings are usable.
type Run struct {
	Name   string // "" = the flow's
	Flow   *Flow
	Input  Input
	Sink   Sink // receives the items that ended or failed, in item order; may be nil
	Bounds Bounds
	Live   int // items in flight; 0 = 10,000
	// StopAt names states: items that reach them are held, and not executed.
	StopAt        []string
	MaxFailures   *int // the run stops early once more items have failed; nil = never
	MaxRetryAfter time.Duration
	OnChanged     OnChanged
	// Given are results of effects. If it is not nil, no effect is made, and a
	// missing result is an error, a *[MissingEffectError].
	Given *GivenEffects
	// Effects receives the decisions of persons and then the results of effects, in item
	// order, when the run has ended, as [ReadEffects] reads them. It may be nil.
	Effects func(leaf []byte) error
	// Stop ends the run softly when it is closed: no attempt begins, and running
	// ones get Grace. It may be nil.
	Stop  <-chan struct{}
	Grace time.Duration
	// Observe receives the progress of the run at its start and end, and at most ten
	// times a second in between, from one goroutine at a time. It may be nil.
	Observe func(*Report)
	// Events receives the events of the steps that are executed, each with the item's
	// id and the state, and those of leases, with the state. The numbers of a lease are of
	// the order in which items came to the state. Its Progress is not called. It may be nil.
	Events event.Observer
	// Rerun executes the steps of modules and pure functions even if their outputs are
	// stored. A different output is a *[store.ConflictError] in a *[StoreError]. Effects
	// are not made again.
	Rerun bool
	// Recheck has steps executed twice; nil = none.
	Recheck *Recheck
	// Partial folds the items that ended even if others failed.
	Partial bool
	// Settings are settings of modules that the definition does not have. They are
	// recorded in the receipt.
	Settings ReceiptSettings
	// Damaged reports whether the store dropped the record with a key because it is
	// damaged. The effect is then held as uncertain. It may be nil.
	Damaged func(key store.Digest) bool
	// Spec is recorded with the run. It is JSON, and only the caller reads it.
	Spec []byte
}

var (
	// ErrInterrupted reports that the run was stopped before its end. Finished steps
	// are kept, and running the same flow under the same name continues.
	ErrInterrupted = errors.New("the run was interrupted")
	// ErrTooManyItems reports that a run has more items than Bounds.MaxItems.
	ErrTooManyItems = errors.New("the run has too many items")
	// ErrTooManyFailures reports that the run was stopped because more than
	// Run.MaxFailures items failed.
	ErrTooManyFailures = errors.New("too many items failed")
)

// Result is the result of a run.
type Result struct {
	Report  Report
	Receipt *Receipt // nil unless the run succeeded
	// Output is the result of the fold; nil if the flow has no fold, or the run did
	// not come to its end.
	Output []byte
}

// FoldError reports that the fold of an end, or of children, failed.
type FoldError struct {
	State string
	Err   error
}

func (e *FoldError) Error() string { return "fold of state " + e.State + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *FoldError) Unwrap() error { return e.Err }

// Run runs a flow. Failed items are part of the result; they are not an error.
//
// The end of ctx cuts running attempts off; Stop ends the run softly. Both give
// [ErrInterrupted]. Other errors are *[runtime.InitError] if a module cannot be
// prepared, *[FoldError], *[StoreError], *[ChangedError], *[MissingEffectError] and
// *[worker.DifferenceError], [ErrTooManyItems], each with a result that has the progress
// of the run, and
// errors of the flow and of the sink. Run returns after all its goroutines have
// ended and its instances are closed.
func (r *Runner) Run(ctx context.Context, asked *Run) (*Result, error) {
	x, err := r.newExecution(asked)
	if err != nil {
		return nil, err
	}
	defer x.closeStore()
	if err := x.begin(ctx); err != nil {
		return nil, err
	}
	runErr := x.replay.load(ctx)
	if runErr == nil {
		runErr = x.replay.redrives.tell(x.Effects)
	}
	if runErr == nil {
		runErr = x.run(ctx)
	}
	res := x.result(runErr)
	x.observePhase(event.KindEnd, res.Report.State)
	if err := x.end(ctx, &res.Report); err != nil {
		runErr = errors.Join(runErr, err)
	}
	if _, changed := errors.AsType[*ChangedError](runErr); changed && x.live == nil {
		return nil, runErr // nothing was executed
	}
	return res, runErr
}

// newExecution resolves a request.
func (r *Runner) newExecution(asked *Run) (*execution, error) {
	p, err := asked.Flow.compile()
	if err != nil {
		return nil, err
	}
	x := &execution{Run: *asked, config: r.config, plan: p, started: time.Now(), held: make([]bool, len(p.states))}
	if x.Name == "" {
		x.Name = x.Flow.Name
	}
	if x.Live == 0 {
		x.Live = 10_000
	}
	if x.MaxRetryAfter == 0 {
		x.MaxRetryAfter = time.Hour
	}
	for _, name := range x.StopAt {
		i, known := x.Flow.index()[name]
		if !known || p.states[i].isEnd() {
			return nil, errors.New("flow: Run.StopAt: unknown state " + name + ": want a state that is not an end")
		}
		x.held[i] = true
	}
	x.store = r.config.Store
	if x.store == nil {
		memory := store.NewMemory()
		x.store, x.ownStore = memory, memory
	}
	j := &journal{store: x.store, run: IDOf(x.Name), generation: 1, roots: x.Input}
	x.replay = &replay{journal: j, plan: p, changed: x.OnChanged, holds: newHolds(j), damaged: x.Damaged, given: x.Given, rerun: x.Rerun}
	x.walk = newWalk(x.replay, x.Bounds.withDefaults(), x.Sink)
	x.walk.made = x.Effects
	return x, nil
}

// MissingEffectError reports that Run.Given lacks the result of an effect.
type MissingEffectError struct {
	ID    abi.ID
	State string
}

func (e *MissingEffectError) Error() string {
	return fmt.Sprintf("the journal of effects has no result for item %v in state %s", e.ID, e.State)
}
