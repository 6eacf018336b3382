// Package bench measures the cost of a module on this machine: to compile, to
// instantiate, to reset and to call it. It also measures the speed of whole jobs
// with more and more workers.
//
//	calls, err := bench.MeasureCalls(ctx, module, file, bench.Options{Time: time.Second})
//	...
//	fmt.Printf("a call takes %.0f ns, including %.0f for the reset\n", 1e9*calls.Reset, 1e9*calls.ResetCost())
//
// [Run] measures all of it. Whole jobs need a coordinator, which this package does
// not import: the caller gives a [Job].
//
// All times are in seconds, and medians of rounds. Within a round, the alternatives
// take turns, so that a machine that becomes slower affects all of them.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"slices"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Chunks are the inputs of the module's calls, such as a [chunks.File].
//
// [chunks.File]: https://pkg.go.dev/github.com/wasm-jobs/wasm-jobs/host/chunks#File
type Chunks interface {
	// Len returns the number of chunks, at least one.
	Len() int
	// Read calls each for the chunks from..to-1, in order, until each returns an
	// error. A chunk may be used until each returns.
	Read(ctx context.Context, from, to int, each func(i int, chunk []byte) error) error
}

// Options control the measurements and their duration. The zero Options are the
// defaults of the command, without jobs.
type Options struct {
	Settings runtime.Settings // Isolation is ignored
	Time     time.Duration    // approximate duration of each measurement; 0 means a second
	Rounds   int              // number of rounds for a median; 0 means 5
	// OnlyOutputs ends a round at the first call that fails, which does not count.
	// Otherwise failed calls count like others.
	OnlyOutputs bool

	// Job measures whole jobs, with 1, 2, 4 and so on up to Workers workers; nil
	// measures none. If Workers is 0, it is GOMAXPROCS.
	Job     Job
	Workers int
	// Step, if not nil, is called before each step of [Run]; workers is the number
	// of workers for [Jobs].
	Step func(s Step, workers int)
}

func (o Options) withDefaults() Options {
	if o.Time == 0 {
		o.Time = time.Second
	}
	if o.Rounds == 0 {
		o.Rounds = 5
	}
	if o.Workers == 0 {
		o.Workers = goruntime.GOMAXPROCS(0)
	}
	if o.Step == nil {
		o.Step = func(Step, int) {}
	}
	return o
}

// Step is a part of the work of [Run].
type Step string

// The steps, in their order.
const (
	Compiling Step = "compiling"
	Calling   Step = "calls"
	Jobs      Step = "jobs" // with a number of workers
)

// Report is the result of [Run]. Times are in seconds.
type Report struct {
	Module    *runtime.Description `json:"module"`
	Chunks    int                  `json:"chunks"`
	Failed    int                  `json:"failed"`            // number of failed calls among those made one by one
	Failure   *abi.Failure         `json:"failure,omitempty"` // of the first failed call
	Isolation runtime.Isolation    `json:"isolation"`
	Compile   Compile              `json:"compile"`
	Prepare   float64              `json:"prepare"`  // the first instance, with _initialize and setup, and its snapshot
	Instance  float64              `json:"instance"` // additional time of a call on a new instance
	Reset     float64              `json:"reset"`
	Call      float64              `json:"call"` // of exec, including its alloc
	Fuel      Fuel                 `json:"fuel"`
	Memory    uint64               `json:"memory"` // the largest memory of a guest in a job, in bytes
	Peak      uint64               `json:"peak"`   // of this process, in bytes; 0 means unknown; the caller fills it in
	Scale     []Rate               `json:"scale"`  // by number of workers
}

// Compile is the time to compile a module.
type Compile struct {
	Cold float64 `json:"cold"` // without a cache
	Warm float64 `json:"warm"` // from the cache
}

// Fuel is the fuel of successful calls.
type Fuel struct {
	Min    uint64 `json:"min"`
	Median uint64 `json:"median"`
	Max    uint64 `json:"max"`
}

// ErrNoChunks reports that there are no chunks to call the module with.
var ErrNoChunks = errors.New("no chunks: want at least one")

// NoOutputError reports that every call failed, so that there is nothing to
// measure.
type NoOutputError struct{ Failure *abi.Failure } // of the first call

// Error includes the first failure.
func (e *NoOutputError) Error() string { return fmt.Sprintf("no chunk succeeds: %v", e.Failure) }

// Unwrap returns the first failure.
func (e *NoOutputError) Unwrap() error { return e.Failure }

// Run measures compiling, calls, and jobs if o.Job is not nil. It keeps a cache and
// the chunks of jobs, up to 256 MiB, in a temporary directory that it removes
// before it returns.
//
// The error is [ErrNoChunks], a *[NoOutputError], a *[runtime.RefusedError] or a
// *[runtime.InitError], an error of the chunks or of the job, or from ctx.
func Run(ctx context.Context, wasm []byte, chunks Chunks, o Options) (_ *Report, err error) {
	if chunks.Len() == 0 {
		return nil, ErrNoChunks
	}
	dir, err := os.MkdirTemp("", "wasm-jobs-bench-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r := &Report{Chunks: chunks.Len()}
	b := &run{Options: o.withDefaults(), wasm: wasm, chunks: chunks, dir: dir, report: r}
	return r, b.all(ctx)
}

// run is one measurement of a module.
type run struct {
	Options
	wasm   []byte
	chunks Chunks
	dir    string // of the cache, which is empty at the start
	report *Report
}

func (b *run) all(ctx context.Context) error {
	b.Step(Compiling, 0)
	modules, module, err := b.compile(ctx)
	if err != nil {
		return err
	}
	defer modules.Close(context.WithoutCancel(ctx))
	b.Step(Calling, 0)
	calls, err := MeasureCalls(ctx, module, b.chunks, b.Options)
	if err != nil {
		return err
	}
	b.report.add(calls, module.Description())
	if b.Job == nil {
		return nil
	}
	return b.jobs(ctx, modules, module)
}

// compile compiles the module without the cache and with it, and returns the last
// runtime.
func (b *run) compile(ctx context.Context) (*runtime.Runtime, *runtime.Module, error) {
	modules, module, took, err := b.compileOnce(ctx)
	b.report.Compile.Cold = took
	var times []float64
	for n := 0; n < b.Rounds && err == nil; n++ {
		if err = modules.Close(ctx); err != nil {
			break
		}
		modules, module, took, err = b.compileOnce(ctx)
		times = append(times, took)
	}
	b.report.Compile.Warm = median(times)
	return modules, module, err
}

func (b *run) compileOnce(ctx context.Context) (r *runtime.Runtime, m *runtime.Module, took float64, err error) {
	if r, err = runtime.New(ctx, runtime.Config{CacheDir: b.dir}); err != nil {
		return nil, nil, 0, err
	}
	start := time.Now()
	if m, err = r.Compile(ctx, b.wasm, runtime.Options{}); err != nil {
		return nil, nil, 0, errors.Join(err, r.Close(context.WithoutCancel(ctx)))
	}
	return r, m, time.Since(start).Seconds(), nil
}

// add adds the cost of calls.
func (r *Report) add(c *Calls, d *runtime.Description) {
	r.Module, r.Failed, r.Failure, r.Isolation, r.Prepare, r.Fuel = d, c.Failed, c.Failure, c.Isolation, c.Prepare, c.Fuel
	switch {
	case c.Kept > 0:
		r.Call, r.Reset, r.Instance = c.Kept, c.ResetCost(), c.InstanceCost()
	default: // state cannot be kept
		r.Call, r.Instance = c.Reset, c.InstanceCost()
	}
}

// median returns the middle value, or 0 if there is none.
func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}
