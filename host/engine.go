package host

import (
	"context"
	"crypto/sha256"

	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Engine admits modules. It is safe for concurrent use.
type Engine interface {
	// Admit checks a module, which it may be asked of again. It does not keep wasm.
	Admit(ctx context.Context, wasm []byte, o runtime.Options) (Module, error)
	// Close comes after every pool is closed.
	Close(ctx context.Context) error
}

// Module is an admitted module.
type Module interface {
	Digest() [sha256.Size]byte
	// Exports reports whether the module exports a function of the ABI.
	Exports(function string) bool
	// Description says what the module is; nil where that is not known.
	Description() *runtime.Description
	// Fits returns a *[runtime.RefusedError] where the module does not fit the
	// settings.
	Fits(s runtime.Settings) error
	// Compile compiles the module, unless it was done before.
	Compile(ctx context.Context) error
	// Prepare runs _initialize and setup, of the compiled module.
	Prepare(ctx context.Context, s runtime.Settings) (Pool, error)
}

// Pool leases instances of one module, prepared for one job. It is safe for
// concurrent use.
type Pool interface {
	Lease(log runtime.Log) Instance
	// Isolation is how calls get fresh state.
	Isolation() runtime.Isolation
	Stats() runtime.Stats
	// Close comes after every instance is released.
	Close() error
}

// Instance calls the guest, on fresh state each time. It is used by one
// goroutine at a time.
type Instance interface {
	// Call appends the output to dst and returns it, with the fuel that the
	// call used. What the guest did wrong is an *abi.Failure; any other error is
	// that of ctx.
	Call(ctx context.Context, function string, input, dst []byte) (output []byte, fuel uint64, err error)
	Release()
}

// NewEngine returns the engine over a runtime, which it closes with itself.
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

func (p pool) Lease(log runtime.Log) Instance { return p.Pool.Lease(log) }
