package host

import (
	"context"
	"errors"
	"fmt"
	goruntime "runtime"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/lending"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// ErrClosed is returned after Close.
var ErrClosed = errors.New("the guest is closed")

// ErrInput is returned if the input of a call is not one CBOR item.
var ErrInput = errors.New("the input is not one CBOR item")

// Options configure a guest. The zero Options work.
type Options struct {
	// Settings apply to each call: context, seed, limits, and the inputs of a
	// WASI command. The zero Settings limit memory and output but not time: set
	// Timeout, or end the context of each call.
	Settings runtime.Settings
	Module   runtime.Options // how the module is compiled
	Workers  int             // maximum calls at once, each on its own instance, at most 4096; 0 = GOMAXPROCS
	// Engine compiles the module, once for each digest, and stays open. If it
	// is nil, the guest creates an engine and closes it; CacheDir is the
	// directory of compiled code of that engine, "" for none. See
	// [runtime.Config].
	Engine   Engine
	CacheDir string
	// Log receives the lines that the guest logs, in the goroutines of the
	// calls, so it must be safe for concurrent use; nil drops the lines.
	Log runtime.Log
}

func (o *Options) validate() error {
	var found []error
	check := checker("Options", &found)
	check(o.Workers >= 0 && o.Workers <= maxWorkers, "Workers is %d, want 0 to %d", o.Workers, maxWorkers)
	check(o.Engine == nil || o.CacheDir == "", "CacheDir and Options.Engine are set: want only one of them")
	(&Job{Options: o.Module, Settings: o.Settings}).checkSettings(check)
	return errors.Join(found...)
}

// maxWorkers bounds the workers of a guest: each of them has an instance, and
// Map has room for a few chunks of each.
const maxWorkers = 4096

// Guest is a module that is ready for calls: compiled, initialized and set up.
// All methods are safe for concurrent use.
type Guest struct {
	workers int
	pool    Pool
	lender  *lending.Lender[Instance]
	owned   Engine // closed with the guest; nil if the engine is shared

	closed   chan struct{} // closed when Close is done
	closeErr error         // set before closed
}

// Open compiles a module, initializes it and calls its setup. It does not keep
// the module's bytes. The caller must close the guest.
//
// The error is a *[runtime.RefusedError] if the module is invalid or does not
// fit the settings, a *[runtime.InitError] if _initialize or setup failed, and
// ctx's if ctx ended first. ctx has no effect on calls.
func Open(ctx context.Context, module []byte, o Options) (*Guest, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if o.Workers == 0 {
		o.Workers = goruntime.GOMAXPROCS(0)
	}
	g := &Guest{workers: o.Workers, closed: make(chan struct{})}
	if o.Engine == nil {
		r, err := runtime.New(ctx, runtime.Config{CacheDir: o.CacheDir})
		if err != nil {
			return nil, err
		}
		o.Engine = NewEngine(r)
		g.owned = o.Engine
	}
	if err := g.prepare(ctx, module, &o); err != nil {
		return nil, errors.Join(err, g.closeEngine())
	}
	return g, nil
}

func (g *Guest) prepare(ctx context.Context, wasm []byte, o *Options) error {
	m, err := o.Engine.Admit(ctx, wasm, o.Module)
	if err != nil {
		return err
	}
	if err := m.Fits(o.Settings); err != nil {
		return err
	}
	if err := m.Compile(ctx); err != nil {
		return err
	}
	if g.pool, err = m.Prepare(ctx, o.Settings); err != nil {
		return err
	}
	g.lender = lending.New(o.Workers, func() Instance { return g.pool.Borrow(o.Log) })
	return nil
}

// Call calls exec on fresh state with one CBOR item, which it only reads. It
// returns the output, one CBOR item that the caller owns. It makes one attempt:
// a failure is not retried.
//
// Call runs in the caller's goroutine. Up to Options.Workers calls run at once;
// others wait, and are served in order of arrival.
//
// The error is an *[abi.Failure] if the guest failed, ctx's if ctx ended first,
// [ErrInput] if in is not one CBOR item, and [ErrClosed] after Close.
func (g *Guest) Call(ctx context.Context, in []byte) (out []byte, err error) {
	if err := abi.CheckItem(in); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInput, err)
	}
	i, err := g.lender.Borrow(ctx)
	switch {
	case errors.Is(err, lending.ErrClosed):
		return nil, ErrClosed
	case err != nil:
		return nil, err
	}
	defer g.lender.GiveBack(i)
	out, _, err = i.Call(ctx, abi.ExportExec, in, nil)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Stats counts the guest's instances. Resets are counted when the guest is
// closed.
func (g *Guest) Stats() runtime.Stats { return g.pool.Stats() }

// Close waits for running calls and frees the guest. Waiting and later calls
// get [ErrClosed]. Close may be called more than once.
func (g *Guest) Close() error {
	if g.lender.Close(Instance.Release) {
		g.closeErr = errors.Join(g.pool.Close(), g.closeEngine())
		close(g.closed)
	}
	<-g.closed
	return g.closeErr
}

func (g *Guest) closeEngine() error {
	if g.owned == nil {
		return nil
	}
	return g.owned.Close(context.Background())
}
