package bench

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Times are the durations of one call, in seconds, by the way it gets its state.
type Times struct {
	Reset float64 // after a reset, or on a new instance if the module does not allow resets, as in a job
	Kept  float64 // in the state that the previous call left; 0 if state cannot be kept: without resets, and for a WASI command
	New   float64 // on a new instance; 0 if Reset is that already
}

// ResetCost is the time of a call's reset, or 0 if it is unknown.
func (t Times) ResetCost() float64 {
	if t.Kept == 0 {
		return 0
	}
	return max(0, t.Reset-t.Kept)
}

// InstanceCost is the time of a new instance in place of the reset. A WASI command
// cannot do without the reset; for it, the cost is the additional time. It is 0 if
// it is unknown.
func (t Times) InstanceCost() float64 {
	if t.Kept == 0 && t.New > 0 {
		return max(0, t.New-t.Reset)
	}
	return max(0, t.New-t.Kept)
}

// Calls is the cost of calls of exec, one after another on one instance.
type Calls struct {
	Times
	Isolation runtime.Isolation // the isolation of calls in a job
	Prepare   float64           // the first instance, with _initialize and setup, and its snapshot; in seconds
	Fuel      Fuel
	Failed    int          // number of chunks
	Failure   *abi.Failure // of the first failed call
}

// MeasureCalls calls as many chunks as possible in o.Time/2, to find those that
// fail and the fuel that they use; if all of these fail, it goes on to the first
// chunk with an output among the first 256. It then calls chunks from the first on for
// o.Time, in each of the ways of [Times]. o.Job, o.Workers and o.Step are ignored.
//
// The error is [ErrNoChunks], a *[NoOutputError], a *[runtime.RefusedError] or a
// *[runtime.InitError], an error of the chunks, or from ctx.
func MeasureCalls(ctx context.Context, m *runtime.Module, chunks Chunks, o Options) (*Calls, error) {
	if chunks.Len() == 0 {
		return nil, ErrNoChunks
	}
	o = o.withDefaults()
	c := make([]*caller, 3)
	for i := range c {
		c[i] = &caller{Options: o, chunks: chunks}
		defer c[i].close()
	}
	reset, kept, renewed := c[0], c[1], c[2]
	calls := &Calls{}
	if err := calls.prepare(ctx, m, reset, kept, renewed); err != nil {
		return nil, err
	}
	if err := reset.survey(ctx, calls); err != nil {
		return nil, err
	}
	if calls.Isolation == runtime.IsolationInstance {
		c = c[:1]
	} else if m.Description().Command {
		c = []*caller{reset, renewed}
	}
	if err := rounds(ctx, c, o); err != nil {
		return nil, err
	}
	calls.Times = Times{median(reset.times), median(kept.times), median(renewed.times)}
	return calls, nil
}

// prepare gives each caller an instance with its kind of isolation.
func (c *Calls) prepare(ctx context.Context, m *runtime.Module, reset, kept, renewed *caller) error {
	var times []float64
	for _, x := range []struct {
		caller    *caller
		isolation runtime.Isolation
	}{{reset, runtime.IsolationReset}, {kept, runtime.IsolationNone}, {renewed, runtime.IsolationInstance}} {
		took, err := x.caller.prepare(ctx, m, x.isolation)
		if err != nil {
			return err
		}
		times = append(times, took)
	}
	c.Prepare, c.Isolation = median(times), reset.pool.Isolation()
	return nil
}

// rounds lets callers take turns.
func rounds(ctx context.Context, callers []*caller, o Options) error {
	for range o.Rounds {
		for _, c := range callers {
			if _, err := c.round(ctx, o.Time/time.Duration(o.Rounds*len(callers))); err != nil {
				return err
			}
		}
	}
	return nil
}

// caller calls one instance with one chunk after another.
type caller struct {
	Options
	chunks   Chunks
	pool     *runtime.Pool     // nil before prepare
	instance *runtime.Instance // nil before prepare
	times    []float64         // duration of a call, one for each round
	next     int               // next chunk
	output   []byte
}

// prepare returns the time to prepare the first instance.
func (c *caller) prepare(ctx context.Context, m *runtime.Module, isolation runtime.Isolation) (took float64, err error) {
	settings := c.Settings
	settings.Isolation = isolation
	start := time.Now()
	if c.pool, err = m.Prepare(ctx, settings); err != nil {
		return 0, err
	}
	c.instance = c.pool.Borrow(nil)
	return time.Since(start).Seconds(), nil
}

func (c *caller) close() {
	if c.pool != nil {
		c.instance.Release()
		_ = c.pool.Close() // Closing cannot fail.
	}
}

// surveyed is the number of chunks that are called, however long they take, if none
// of them has an output.
const surveyed = 256

// survey calls as many chunks as there is time for, and records fuel and failures.
func (c *caller) survey(ctx context.Context, calls *Calls) error {
	var fuels []uint64
	count := func(fuel uint64, failure *abi.Failure) bool {
		if failure == nil {
			fuels = append(fuels, fuel)
		} else if calls.Failed++; calls.Failure == nil {
			calls.Failure = failure
		}
		return true
	}
	_, err := c.some(ctx, c.Time/2, c.chunks.Len(), count)
	for err == nil && len(fuels) == 0 && c.next < min(surveyed, c.chunks.Len()) {
		_, err = c.some(ctx, 0, 1, count)
	}
	if err != nil {
		return err
	}
	if len(fuels) == 0 {
		return &NoOutputError{calls.Failure}
	}
	slices.Sort(fuels)
	calls.Fuel = Fuel{fuels[0], fuels[len(fuels)/2], fuels[len(fuels)-1]}
	return nil
}

// round calls chunks for some time, from the first one on, and returns the time of
// one call; 0 if no call counts.
func (c *caller) round(ctx context.Context, d time.Duration) (took float64, err error) {
	c.next = 0
	start := time.Now()
	n, err := c.some(ctx, d, 1<<30, func(_ uint64, failure *abi.Failure) bool { return failure == nil || !c.OnlyOutputs })
	if n > 0 {
		took = time.Since(start).Seconds() / float64(n)
		c.times = append(c.times, took)
	}
	return took, err
}

// errEnough ends the reading of chunks.
var errEnough = errors.New("enough")

// some calls at least one chunk and at most most, until the time is over or counts
// returns false. It returns the number of calls that count.
func (c *caller) some(ctx context.Context, d time.Duration, most int, counts func(fuel uint64, failure *abi.Failure) bool) (n int, err error) {
	const atOnce = 256 // number of chunks that are read at once
	end := time.Now().Add(d)
	done := false
	each := func(_ int, chunk []byte) error {
		if n > 0 && (n == most || time.Now().After(end)) {
			return errEnough
		}
		fuel, failure, err := c.call(ctx, chunk)
		if err != nil {
			return err
		}
		if !counts(fuel, failure) {
			done = true
			return errEnough
		}
		n++
		c.next++
		return nil
	}
	for !done && n < most && (n == 0 || time.Now().Before(end)) {
		from := c.next % c.chunks.Len()
		err := c.chunks.Read(ctx, from, min(from+atOnce, c.chunks.Len()), each)
		if err != nil && !errors.Is(err, errEnough) {
			return n, err
		}
	}
	return n, nil
}

// call calls exec. The error is from ctx.
func (c *caller) call(ctx context.Context, chunk []byte) (fuel uint64, failure *abi.Failure, err error) {
	c.output, fuel, err = c.instance.Call(ctx, abi.ExportExec, chunk, c.output[:0])
	if failure, ok := errors.AsType[*abi.Failure](err); ok {
		return fuel, failure, nil
	}
	return fuel, nil, err
}
