// Package check looks for defects of a module, and calls it in many ways.
//
//	report, err := check.Run(ctx, wasm, check.Options{})
//	...
//	for _, p := range report.Probes {
//		fmt.Println(p.Name, p.Count, "of", p.Calls, "calls differ")
//	}
//
// A guest must be a pure function: for any order of calls, worker, instance, engine
// and process, the same chunk gives the same bytes with the same fuel. [Run] makes
// the same calls in all of these ways and compares the results. It also makes them
// in ways that a job never uses, to find out whether the guest depends on the
// protection of a job: whether it leaves state behind, draws random bytes, or makes
// NaNs with other bits.
//
// A report has values, and no text for people: a [Remark] has a kind, and the
// evidence for it.
package check

import (
	"context"
	"errors"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/guest"
	"github.com/wasm-jobs/wasm-jobs/host/guest/bench"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Options control the calls of a check. The zero Options call the module with the
// integers 0 to 19, without time limits.
type Options struct {
	Settings runtime.Settings // Isolation is ignored
	CacheDir string           // for compiled code, as in [runtime.Config]
	// Calls returns the calls of exec to make, at least one, for an accepted
	// module; nil means [Samples]. Its error ends the check.
	Calls func(ctx context.Context, d *runtime.Description) ([]Call, error)
	// Elsewhere returns the results of [MakeCalls] with the same module and options
	// in another process. If it is nil, that probe is left out. Its error ends the
	// check.
	Elsewhere func(ctx context.Context) ([]guest.CallResult, error)
}

// Report is the result of a check. For a refused module, only Description, Setting,
// Hints and Found are set.
type Report struct {
	Description *runtime.Description
	Setting     runtime.Setting // the setting that the module does not fit, if that is why it is refused
	Hints       []Remark        // possible improvements
	Found       []Remark        // capabilities and properties of the module that a job handles
	Chunks      *Chunks         // nil before the first call
	Probes      []*Probe        // in the order of their calls
	Cost        *Cost           // nil before the measurement
}

// Chunks summarizes the results of the first calls.
type Chunks struct {
	Count    int            // number of calls of exec
	Outputs  int            // number of calls of exec with an output
	Failures map[string]int // the other calls of exec, by class and message
	Folds    int            // number of calls of aggregate and merge
}

// Cost is the cost of a call on this machine.
type Cost struct {
	Compile float64     // in seconds; if the code was in the cache, the time to load it
	Call    string      // name of the measured call, the cheapest of exec; "" if none gave an output
	Times   bench.Times // of this call
	Memory  uint64      // bytes of linear memory after the call with the most
}

// Differences returns the number of calls that differ, in all probes.
func (r *Report) Differences() (n int) {
	for _, p := range r.Probes {
		n += p.Count
	}
	return n
}

// OK reports whether the module is accepted and no call differs.
func (r *Report) OK() bool { return r.Description.Accepted && r.Differences() == 0 }

// Run checks a module. The report about a refused module shows the refusal, which
// is not an error. Run returns after all calls have ended and all instances are
// closed.
//
// The error is a *[runtime.InitError] if _initialize or setup fails, [ErrNoCalls],
// a *[CountError], an error of o.Calls or o.Elsewhere, or from ctx.
func Run(ctx context.Context, wasm []byte, o Options) (*Report, error) {
	r := Lint(wasm)
	if !r.Description.Accepted {
		return r, nil
	}
	err := r.call(ctx, wasm, &o)
	if refused, ok := errors.AsType[*runtime.RefusedError](err); ok {
		r.Description.Accepted, r.Description.Problems, r.Setting = false, refused.Problems, refused.Setting
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// MakeCalls makes the calls of a check once, in order, including those of aggregate
// and merge, and returns their results: see Options.Elsewhere. The error is as for
// [Run], or a *[runtime.RefusedError].
func MakeCalls(ctx context.Context, wasm []byte, o Options) ([]guest.CallResult, error) {
	p, err := open(ctx, wasm, &o)
	if err != nil {
		return nil, err
	}
	defer p.close()
	_, results, err := p.first(ctx)
	return results, err
}

// call makes all calls in all ways.
func (r *Report) call(ctx context.Context, wasm []byte, o *Options) error {
	p, err := open(ctx, wasm, o)
	if err != nil {
		return err
	}
	defer p.close()
	execs, first, err := p.first(ctx)
	if err != nil {
		return err
	}
	r.describe(execs, first)
	if err := r.probeAll(ctx, wasm, p, first); err != nil {
		return err
	}
	r.checkOutputs(p.calls, first)
	if err := r.probeLarge(ctx, p); err != nil {
		return err
	}
	r.Cost, err = p.cost(ctx, first)
	return err
}

func (r *Report) describe(execs int, first []guest.CallResult) {
	r.Chunks = &Chunks{Count: execs, Folds: len(first) - execs, Failures: map[string]int{}}
	for _, result := range first[:execs] {
		if result.Failure == nil {
			r.Chunks.Outputs++
			continue
		}
		r.Chunks.Failures[result.Failure.Error()]++
	}
	if r.Chunks.Outputs == 0 {
		r.hint(Remark{Kind: NoOutputs})
	}
}

// Limits of the measurement of a call.
const (
	costTime   = 150 * time.Millisecond
	costRounds = 3
)

// cost measures the call of exec with the least fuel, which shows the cost of a
// reset best.
func (p *prober) cost(ctx context.Context, first []guest.CallResult) (*Cost, error) {
	cost := &Cost{Compile: p.compiled.Seconds()}
	call := -1
	for i := range first {
		result := &first[i]
		cost.Memory = max(cost.Memory, result.Memory)
		if result.Failure == nil && p.calls[i].Function == abi.ExportExec && (call < 0 || result.Fuel < first[call].Fuel) {
			call = i
		}
	}
	if call < 0 {
		return cost, nil
	}
	cost.Call = p.calls[call].Name
	calls, err := bench.MeasureCalls(ctx, p.module, repeated(p.calls[call].Input),
		bench.Options{Settings: p.settings, Time: costTime, Rounds: costRounds, OnlyOutputs: true})
	if _, failed := errors.AsType[*bench.NoOutputError](err); failed { // such as a timeout this time
		return cost, nil
	}
	if err != nil {
		return nil, err
	}
	cost.Times = calls.Times
	return cost, nil
}

// repeated is one chunk as [bench.Chunks] that are all the same.
type repeated []byte

// Len implements [bench.Chunks].
func (repeated) Len() int { return 256 }

// Read implements [bench.Chunks].
func (r repeated) Read(_ context.Context, from, to int, each func(i int, chunk []byte) error) error {
	for i := from; i < to; i++ {
		if err := each(i, r); err != nil {
			return err
		}
	}
	return nil
}
