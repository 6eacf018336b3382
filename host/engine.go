package host

import (
	"context"
	"crypto/sha256"

	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Engine compiles modules. It is safe for concurrent use.
type Engine interface {
	// Compile admits and compiles a module. It does not keep wasm.
	Compile(ctx context.Context, wasm []byte, o runtime.Options) (Module, error)
	// Close comes after every pool is closed.
	Close(ctx context.Context) error
}

// Module is a compiled module.
type Module interface {
	Digest() [sha256.Size]byte
	// Exports reports whether the module exports a function of the ABI.
	Exports(function string) bool
	// Description says what the module is; nil where that is not known.
	Description() *runtime.Description
	// Prepare runs _initialize and setup.
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

func (e engine) Compile(ctx context.Context, wasm []byte, o runtime.Options) (Module, error) {
	m, err := e.Runtime.Compile(ctx, wasm, o)
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
