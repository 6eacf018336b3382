package processor

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	goruntime "runtime"
	"sync"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/action"
	"github.com/wasm-jobs/wasm-jobs/host/lending"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Options say how a module is opened. The zero Options work.
type Options struct {
	Settings runtime.Settings // of each call
	Module   runtime.Options  // how the module is compiled
	Workers  int              // calls that run at once, each on an instance; 0 = GOMAXPROCS
	// Runtime compiles the module, and the module does not close it. If it is nil,
	// the module makes a runtime and closes it; CacheDir is then its directory of
	// compiled code, "" = none.
	Runtime  *runtime.Runtime
	CacheDir string
	Log      runtime.Log // safe for concurrent use; nil drops the lines
}

func (o *Options) validate() error {
	switch {
	case o.Workers < 0:
		return fmt.Errorf("processor: Options.Workers is %d, want 0 or more", o.Workers)
	case o.Runtime != nil && o.CacheDir != "":
		return errors.New("processor: Options.CacheDir is set, and so is Options.Runtime, which has its own: want one of them")
	case o.Settings.Isolation == runtime.IsolationNone: // its outputs are not a function of their requests
		return errors.New("processor: Options.Settings.Isolation is none, which is for measuring: leave it empty")
	}
	if len(o.Settings.Context) > 0 {
		if err := abi.CheckItem(o.Settings.Context); err != nil {
			return fmt.Errorf("processor: Options.Settings.Context is not one CBOR item: %w", err)
		}
	}
	return nil
}

// Module is a module that is ready to run requests: compiled, initialized and set
// up. All methods are safe for concurrent use.
type Module struct {
	of     *runtime.Module
	action store.Action
	pool   *runtime.Pool
	lender *lending.Lender[*runtime.Instance]
	limit  time.Duration
	owned  *runtime.Runtime // closed with the module; nil if it is shared
	close  func() error
}

// Open compiles a module, initializes it and calls its setup. wasm is not kept.
// The caller must close the module.
//
// The error is a *[runtime.RefusedError] if the module is invalid or does not fit the
// settings, a *[runtime.InitError] if _initialize or setup failed, or ctx's if ctx
// ended first. ctx has no effect on calls.
func Open(ctx context.Context, wasm []byte, o Options) (*Module, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if o.Workers == 0 {
		o.Workers = goruntime.GOMAXPROCS(0)
	}
	m := &Module{limit: o.Settings.Timeout}
	m.close = sync.OnceValue(m.free)
	if o.Runtime == nil {
		r, err := runtime.New(ctx, runtime.Config{CacheDir: o.CacheDir})
		if err != nil {
			return nil, err
		}
		o.Runtime, m.owned = r, r
	}
	if err := m.prepare(ctx, wasm, &o); err != nil {
		return nil, errors.Join(err, m.closeRuntime())
	}
	return m, nil
}

func (m *Module) prepare(ctx context.Context, wasm []byte, o *Options) (err error) {
	if m.of, err = o.Runtime.Admit(ctx, wasm, o.Module); err != nil {
		return err
	}
	if m.pool, err = m.of.Prepare(ctx, o.Settings); err != nil {
		return err
	}
	m.action = action.Of(m.of.Digest(), m.of.Description().EngineFixes, o.Module, &o.Settings)
	m.lender = lending.New(o.Workers, func() *runtime.Instance { return m.pool.Borrow(o.Log) })
	return nil
}

// Run calls exec with one CBOR item on fresh state, in the caller's goroutine. At
// most Options.Workers calls run at once; others wait, and run in order of arrival. The
// output belongs to the caller.
//
// The error is an *[abi.Failure] if the guest failed, ctx's if ctx ended first,
// [ErrInput], or [ErrClosed] after Close.
func (m *Module) Run(ctx context.Context, in []byte) (Result[[]byte], error) {
	return m.Append(ctx, in, nil)
}

// Append implements [Appender].
func (m *Module) Append(ctx context.Context, in, dst []byte) (result Result[[]byte], err error) {
	if err := abi.CheckItem(in); err != nil {
		return result, fmt.Errorf("%w: %w", ErrInput, err)
	}
	i, err := m.lender.Borrow(ctx)
	if err != nil {
		return result, closedError(err)
	}
	defer m.lender.GiveBack(i)
	return call(ctx, i, in, dst)
}

// call calls exec.
func call(ctx context.Context, i *runtime.Instance, in, dst []byte) (result Result[[]byte], err error) {
	result.Output, result.Fuel, err = i.Call(ctx, abi.ExportExec, in, dst)
	if err != nil {
		return Result[[]byte]{}, err
	}
	return result, nil
}

// Turn implements [Turner]: the turn is an instance.
func (m *Module) Turn(ctx context.Context) (Turn, error) {
	i, err := m.lender.Borrow(ctx)
	if err != nil {
		return nil, closedError(err)
	}
	return &moduleTurn{m, i}, nil
}

// moduleTurn is a borrowed instance.
type moduleTurn struct {
	of       *Module
	instance *runtime.Instance
}

func (t *moduleTurn) Append(ctx context.Context, in, dst []byte) (result Result[[]byte], err error) {
	if err := abi.CheckItem(in); err != nil {
		return result, fmt.Errorf("%w: %w", ErrInput, err)
	}
	if err := ctx.Err(); err != nil {
		return result, err
	}
	return call(ctx, t.instance, in, dst)
}

func (t *moduleTurn) End() { t.of.lender.GiveBack(t.instance) }

// Action returns the key under which a store keeps the outputs of the module with
// its settings. A job has the same key.
func (m *Module) Action() store.Action { return m.action }

// Digest returns the SHA-256 of the module's file.
func (m *Module) Digest() [sha256.Size]byte { return m.of.Digest() }

// Timeout returns Options.Settings.Timeout, the time limit of a call; 0 = no limit.
func (m *Module) Timeout() time.Duration { return m.limit }

// Description returns the description of the module.
func (m *Module) Description() *runtime.Description { return m.of.Description() }

// Stats returns counts of the module's instances. Resets are counted when the module
// is closed.
func (m *Module) Stats() runtime.Stats { return m.pool.Stats() }

// Close waits for the running calls, and frees the module. Waiting and later calls
// return [ErrClosed]. Close may be called more than once.
func (m *Module) Close() error { return m.close() }

func (m *Module) free() error {
	m.lender.Close((*runtime.Instance).Release)
	return errors.Join(m.pool.Close(), m.closeRuntime())
}

func (m *Module) closeRuntime() error {
	if m.owned == nil {
		return nil
	}
	return m.owned.Close(context.Background())
}
