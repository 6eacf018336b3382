// Package runtime runs guests: bytes in, bytes out.
//
// A module is admitted ([Inspect], [Runtime.Compile]), prepared for one job
// ([Module.Prepare]) and then called through borrowed instances ([Pool.Borrow],
// [Instance.Call]). Each call sees the state that the instance had right after
// _initialize and setup, whatever ran before and however it ended. Failures of
// a guest are returned as [*abi.Failure].
package runtime

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"reflect"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

// MeteringVersion is the version of the rules for rewriting modules. It is part
// of the key under which outputs are stored.
const MeteringVersion = rewrite.Version

// engineVersion is the version in go.mod. It is used in test binaries, which do
// not know the versions of their modules.
const engineVersion = "v1.12.0"

// EngineVersion returns the version of the engine that is linked into the
// program.
var EngineVersion = sync.OnceValue(func() string {
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return engineVersion
	}
	for _, d := range info.Deps {
		if d.Path == "github.com/tetratelabs/wazero" {
			if d.Replace != nil {
				d = d.Replace
			}
			if d.Version == "" { // replaced by a directory
				return "unknown"
			}
			return d.Version
		}
	}
	return engineVersion
})

// ErrClosed is returned after Close.
var ErrClosed = errors.New("the runtime is closed")

// Config configures a runtime. The zero Config compiles in memory.
type Config struct {
	// CacheDir stores admitted modules and compiled code between processes, up
	// to a gigabyte; "" means none. Anyone who can write to it can run code in
	// this process: it is created with mode 0700 and must not be shared. A
	// damaged cache is not used.
	CacheDir string
	// Interpreter runs guests on the engine's interpreter, which is about ten
	// times slower and shares no code generator with the compiler. It is a
	// second opinion. It fails at 2,000 nested calls, with class host.
	Interpreter bool
	// Auto starts large modules on the interpreter, which is ready after a tenth of
	// the time, and switches to the compiler between two calls when the compiler has
	// finished in the background. Results and fuel are those of the compiler: a call
	// that the interpreter cannot end in the same way is made again. It has no effect
	// with Interpreter or Tracer.
	Auto bool
	// AutoSize is the size of code in bytes from which Auto has an effect; 0 means
	// 256 KiB. Smaller modules compile in less than about 100 ms.
	AutoSize int
	// Compiling, unless nil, is called when the compiler starts on a module whose code
	// is not in CacheDir as far as is known, with the size of its file in bytes. Calls
	// may be concurrent with others of the runtime, and must not block.
	Compiling func(size int)
	// Tracer receives every call of a function while a guest runs; nil means
	// none. Code with tracing is compiled separately and is slower; its results
	// and fuel are the same.
	Tracer Tracer
}

// Runtime compiles modules and keeps them compiled. All methods are safe for
// concurrent use. Close must be called after every pool is closed.
type Runtime struct {
	config   Config
	trap     func() reflect.Type // of the engine's traps; determined at the first trap
	mu       sync.Mutex
	admitted moduleCache
	idle     idlers                  // of all pools
	engines  []wazero.Runtime        // created when needed; the first one uses the cache
	quick    wazero.Runtime          // the interpreter of Auto, created when needed
	cache    wazero.CompilationCache // nil without a directory, and before it is needed
	modules  map[variant]*Module     // nil after Close

	compiling chan struct{}   // has room for one running compilation
	running   context.Context // of compilations; ended by stop
	stop      context.CancelFunc
}

// variant identifies one compilation of a module.
type variant struct {
	digest  [sha256.Size]byte
	options Options
}

// Options change a module before it is compiled. Most users should use the zero
// Options.
type Options struct {
	// NoMetering compiles the guest's code without fuel and without limits of
	// time and depth. A guest that loops then blocks its worker forever, and
	// garbage collections wait until all running calls have returned.
	NoMetering bool
	// NativeNaNs keeps the bits of NaNs from the machine, which differ between
	// processor architectures. It is part of the key of outputs.
	NativeNaNs bool
}

// New returns a runtime. It ignores a cache directory that cannot be used.
func New(_ context.Context, config Config) (*Runtime, error) {
	r := &Runtime{config: config, modules: map[variant]*Module{}, compiling: make(chan struct{}, 1)}
	r.running, r.stop = context.WithCancel(context.Background())
	r.trap = sync.OnceValue(func() reflect.Type {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.engines) == 0 {
			return trapType(r.quick) // of the same type
		}
		return trapType(r.engines[0])
	})
	if r.config.AutoSize == 0 {
		r.config.AutoSize = defaultAutoSize
	}
	if config.CacheDir != "" && os.MkdirAll(config.CacheDir, 0o700) == nil {
		r.admitted = openAdmissions(config.CacheDir)
	} else {
		r.config.CacheDir = ""
	}
	return r, nil
}

// engine returns the engine that uses the cache. r.mu is held.
func (r *Runtime) engine(ctx context.Context) (wazero.Runtime, error) {
	if len(r.engines) > 0 {
		return r.engines[0], nil
	}
	if r.config.CacheDir != "" && r.cache == nil {
		if cache, err := wazero.NewCompilationCacheWithDir(r.config.CacheDir); err == nil {
			r.cache = cache
		}
	}
	engine, err := newEngine(ctx, &r.config, r.cache)
	if err != nil {
		return nil, err
	}
	r.engines = append(r.engines, engine)
	return engine, nil
}

// newEngine returns an engine with the imports of guests.
func newEngine(ctx context.Context, c *Config, cache wazero.CompilationCache) (wazero.Runtime, error) {
	config := wazero.NewRuntimeConfigCompiler()
	if c.Interpreter {
		config = wazero.NewRuntimeConfigInterpreter()
	}
	config = config.
		WithCoreFeatures(api.CoreFeaturesV2 | experimental.CoreFeaturesExtendedConst).
		WithMemoryLimitPages(maxPages).
		WithDebugInfoEnabled(true) // of rewritten modules, which have only a line table
	if cache != nil {
		config = config.WithCompilationCache(cache)
	}
	engine := wazero.NewRuntimeWithConfig(ctx, config)
	if err := serveImports(withTracer(ctx, c.Tracer), engine); err != nil {
		return nil, errors.Join(err, engine.Close(ctx))
	}
	return engine, nil
}

// Module is an admitted module. It is compiled when it is first needed.
type Module struct {
	runtime     *Runtime
	description *Description
	digest      [sha256.Size]byte
	options     Options
	globals     []rewrite.Global // to restore
	depth       int64            // initial depth of the stack; 0 without metering
	stacks      stackTable       // of failures

	code         atomic.Pointer[code] // nil before the first compilation
	interpreted  atomic.Int64         // fuel that calls on provisional code have used
	patience     int64                // fuel that they may use
	wasm         []byte               // rewritten; nil once compiled; like the field below, guarded by runtime.mu
	compilations [2]*compilation      // the running ones, by the engine that compiles; nil if none
}

// code is a module in the form of one engine.
type code struct {
	engine      wazero.Runtime
	compiled    wazero.CompiledModule
	interpreted bool
	provisional bool // until the compiler has finished
}

// Compile calls [Runtime.Admit] and [Module.Compile].
func (r *Runtime) Compile(ctx context.Context, wasm []byte, o Options) (*Module, error) {
	m, err := r.Admit(ctx, wasm, o)
	if err == nil {
		err = m.Compile(ctx)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Admit checks and rewrites a module, once for each digest and options. It does
// not keep wasm. The error is a *[RefusedError] if the module is invalid,
// except for type errors in its code, which only the engine finds; ctx's if ctx
// ended first; or [ErrClosed].
func (r *Runtime) Admit(ctx context.Context, wasm []byte, o Options) (*Module, error) {
	digest := sha256.Sum256(wasm)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.modules == nil {
		return nil, ErrClosed
	}
	if m := r.modules[variant{digest, o}]; m != nil {
		return m, nil
	}
	a := r.admitted.get(digest, o)
	if a == nil {
		if a = admitted(wasm, o); !a.Description.Accepted {
			return nil, &RefusedError{Problems: a.Description.Problems}
		}
		r.admitted.put(digest, o, a)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m := &Module{runtime: r, description: a.Description, digest: digest, options: o, globals: a.Globals, depth: a.Stack, wasm: a.wasm, patience: unitsPerByte * int64(a.Description.CodeSize)}
	r.modules[variant{digest, o}] = m
	return m, nil
}

// Close frees all modules. No call may be running. A compilation that all
// callers have left is cancelled, and Close waits for it. If ctx ends first,
// Close returns its error and frees nothing; only the end of the process frees
// the memory then.
func (r *Runtime) Close(ctx context.Context) error {
	r.mu.Lock()
	r.modules = nil
	r.stop()
	r.mu.Unlock()
	select {
	case r.compiling <- struct{}{}: // no more compilations can start
	default:
		select {
		case r.compiling <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer func() { <-r.compiling }()
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, engine := range r.engines {
		errs = append(errs, engine.Close(ctx))
	}
	r.engines = nil
	if r.quick != nil {
		errs = append(errs, r.quick.Close(ctx))
		r.quick = nil
	}
	if r.cache != nil {
		errs = append(errs, r.cache.Close(ctx))
		r.cache = nil
	}
	return errors.Join(errs...)
}

// Digest returns the SHA-256 of the module's file.
func (m *Module) Digest() [sha256.Size]byte { return m.digest }

// Exports reports whether the module exports the named function of the ABI.
func (m *Module) Exports(name string) bool { return m.description.exportsFunction(name) }

// Description returns the description of the module.
func (m *Module) Description() *Description { return m.description }
