package host

import (
	"context"
	"errors"
	"fmt"
	goruntime "runtime"

	"github.com/wasm-jobs/wasm-jobs/host/worker"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Config configures a coordinator. The zero Config works.
type Config struct {
	Workers int         // maximum attempts at once, over all jobs; 0 = GOMAXPROCS
	Store   store.Store // outputs; nil = a store in memory for each Run
	// Journal keeps records of jobs; nil = none. It must belong to Store,
	// because an output and its record are written in one commit.
	Journal  store.Journal
	CacheDir string   // compiled code; "" = none; see [runtime.Config]
	Engine   Engine   // nil = a runtime that the coordinator creates and closes
	Observer Observer // nil = none
}

// Coordinator runs jobs. It is safe for concurrent use.
type Coordinator struct {
	config Config
	slots  *worker.Slots // shared by all jobs
	owned  bool          // Close closes the engine
}

// New returns a coordinator.
func New(ctx context.Context, config Config) (*Coordinator, error) {
	if config.Workers < 0 {
		return nil, fmt.Errorf("host: Config.Workers is %d, want 0 or more", config.Workers)
	}
	if config.Journal != nil && config.Store == nil {
		return nil, errors.New("host: Config.Journal is set without Config.Store: want the store that the journal belongs to")
	}
	if config.Workers == 0 {
		config.Workers = goruntime.GOMAXPROCS(0)
	}
	c := &Coordinator{config: config, slots: worker.NewSlots(config.Workers)}
	if config.Engine == nil {
		r, err := runtime.New(ctx, runtime.Config{CacheDir: config.CacheDir})
		if err != nil {
			return nil, err
		}
		c.config.Engine, c.owned = NewEngine(r), true
	}
	return c, nil
}

// Close frees the engine. No Run may be active. The store stays open.
func (c *Coordinator) Close(ctx context.Context) error {
	if !c.owned {
		return nil
	}
	return c.config.Engine.Close(ctx)
}

// Run runs a job. Failed chunks are part of the result and not an error. If
// chunks failed, no aggregate is made, unless the job is Partial.
//
// If ctx ends, running attempts are cancelled; job.Stop ends the job softly.
// Both give [ErrInterrupted] with a result that holds all finished work; after
// the end of ctx, the error is also ctx's. Jobs that run at once share the
// workers fairly.
//
// Other errors are *[runtime.RefusedError], *[runtime.InitError] and
// [ErrOtherJob], before anything ran, *[chunks.InputError] if the chunk file
// changed, *[FoldError], *[StoreError], and *[DifferenceError] if a chunk gave
// two results under [Job.Recheck]. If the job or its module is refused, the
// result is nil.
//
// Run returns after all its goroutines have ended and its instances are closed.
func (c *Coordinator) Run(ctx context.Context, job *Job) (*Result, error) {
	return c.run(ctx, job, nil)
}

func (c *Coordinator) run(ctx context.Context, job *Job, g *Gathered) (*Result, error) {
	if err := job.validate(); err != nil {
		return nil, err
	}
	x := &execution{
		Job: job, config: &c.config, slots: c.slots, tally: newTally(job.Chunks, c.config.Observer),
		outputs: outputReader{input: job.Chunks, store: c.config.Store, gathered: g},
	}
	x.started = x.tally.started
	if x.outputs.store == nil {
		x.outputs.store = store.NewMemoryFor(job.Chunks.Len())
	}
	return x.run(ctx)
}
