package host

import (
	"context"
	"crypto/sha256"

	"github.com/wasm-jobs/wasm-jobs/host/worker"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Engine admits modules. It is safe for concurrent use.
type Engine interface {
	// Admit checks a module. It may be called again for the same module. It
	// does not keep wasm.
	Admit(ctx context.Context, wasm []byte, o runtime.Options) (Module, error)
	// Close must be called after every pool is closed.
	Close(ctx context.Context) error
}

// Module is an admitted module.
type Module interface {
	Digest() [sha256.Size]byte
	// Exports reports whether the module exports a function of the ABI.
	Exports(function string) bool
	// Description describes the module; nil if that is not known.
	Description() *runtime.Description
	// Fits returns a *[runtime.RefusedError] if the module does not fit the
	// settings.
	Fits(s runtime.Settings) error
	// Compile compiles the module if that was not done before.
	Compile(ctx context.Context) error
	// Prepare runs _initialize and setup of the compiled module.
	Prepare(ctx context.Context, s runtime.Settings) (Pool, error)
}

// Pool lends instances of one module, prepared for one job. It is safe for
// concurrent use.
type Pool interface {
	Borrow(log runtime.Log) Instance
	// Isolation reports how calls get fresh state.
	Isolation() runtime.Isolation
	Stats() runtime.Stats
	// Close must be called after every instance is released.
	Close() error
}

// Instance calls the guest, on fresh state each time. Only one goroutine may
// use it at a time.
type Instance = worker.Instance

// NewEngine returns an engine over a runtime. Closing the engine closes the
// runtime.
func NewEngine(r *runtime.Runtime) Engine { return engine{r} }

type engine struct{ *runtime.Runtime }

func (e engine) Admit(ctx context.Context, wasm []byte, o runtime.Options) (Module, error) {
	m, err := e.Runtime.Admit(ctx, wasm, o)
	if err != nil {
		return nil, err
	}
	return module{m}, nil
}

type module struct{ *runtime.Module }

func (m module) Prepare(ctx context.Context, s runtime.Settings) (Pool, error) {
	p, err := m.Module.Prepare(ctx, s)
	if err != nil {
		return nil, err
	}
	return pool{p}, nil
}

type pool struct{ *runtime.Pool }

func (p pool) Borrow(log runtime.Log) Instance { return p.Pool.Borrow(log) }
