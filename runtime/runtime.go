// Package runtime runs guests: bytes in, bytes out.
//
// A module is admitted ([Inspect], [Runtime.Compile]), prepared for one job
// ([Module.Prepare]) and then called through leased instances
// ([Pool.Lease], [Instance.Call]). Each call sees the state that the instance
// had right after _initialize and setup, whatever ran before and however it
// ended. What a guest does wrong comes back as an [*abi.Failure].
package runtime

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	goruntime "runtime"
	"runtime/debug"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

// MeteringVersion is that of how modules are rewritten. It is part of the key
// under which outputs are stored.
const MeteringVersion = rewrite.Version

// engineVersion is that of go.mod. It stands in for what a test binary does not
// know of itself.
const engineVersion = "v1.12.0"

// EngineVersion returns the version of the engine that the program is built
// with.
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
			if d.Version == "" { // a directory
				return "unknown"
			}
			return d.Version
		}
	}
	return engineVersion
})

// ErrClosed is returned after Close.
var ErrClosed = errors.New("the runtime is closed")

// Config says how modules are compiled. The zero Config compiles in memory.
type Config struct {
	// CacheDir keeps admitted modules and compiled code between processes, up to
	// a gigabyte; empty means none. Who can write to it can run code in this
	// process: it is made with mode 0700 and must not be shared with others. A
	// damaged cache is not used.
	CacheDir string
	// Interpreter runs guests on the engine's interpreter, which is slower by a
	// factor of ten and shares no code generator with the compiler: a second
	// opinion. It ends at 2,000 nested calls, with class host.
	Interpreter bool
	// Calls is told of every call of a function while a guest runs; nil tells
	// nobody. Code that tells is compiled apart from other, and is slower; what it
	// computes and costs in fuel is the same.
	Calls Calls
}

// Runtime compiles modules and keeps them compiled. All methods are safe for
// concurrent use; Close must come after every pool is closed.
type Runtime struct {
	config   Config
	trap     func() reflect.Type // of the engine's traps; found out at the first one
	mu       sync.Mutex
	admitted admissions
	engines  []wazero.Runtime        // made when they are needed; the first uses the cache
	cache    wazero.CompilationCache // nil without a directory, and before it is needed
	modules  map[variant]*Module     // nil after Close
}

// variant is one way to compile a module.
type variant struct {
	digest  [sha256.Size]byte
	options Options
}

// Options say how a module is changed before it is compiled. The zero Options
// are what users should have.
type Options struct {
	// NoMetering compiles the guest's code without fuel and limits of time and
	// depth: a guest that loops then holds its worker for ever, and any collection
	// of Go's garbage waits until all running calls have returned.
	NoMetering bool
	// NativeNaNs leaves the bits of NaNs as the machine makes them, which differ
	// between kinds of processors. It is part of the key of outputs.
	NativeNaNs bool
}

// New returns a runtime. A cache directory that cannot be used is left out.
func New(_ context.Context, config Config) (*Runtime, error) {
	r := &Runtime{config: config, modules: map[variant]*Module{}}
	r.trap = sync.OnceValue(func() reflect.Type {
		r.mu.Lock()
		defer r.mu.Unlock()
		return trapType(r.engines[0])
	})
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

// newEngine returns an engine that serves the imports of guests.
func newEngine(ctx context.Context, c *Config, cache wazero.CompilationCache) (wazero.Runtime, error) {
	config := wazero.NewRuntimeConfigCompiler()
	if c.Interpreter {
		config = wazero.NewRuntimeConfigInterpreter()
	}
	config = config.
		WithCoreFeatures(api.CoreFeaturesV2 | experimental.CoreFeaturesExtendedConst).
		WithMemoryLimitPages(maxPages).
		WithDebugInfoEnabled(false)
	if cache != nil {
		config = config.WithCompilationCache(cache)
	}
	engine := wazero.NewRuntimeWithConfig(ctx, config)
	if err := serveImports(withCalls(ctx, c.Calls), engine); err != nil {
		return nil, errors.Join(err, engine.Close(ctx))
	}
	return engine, nil
}

// Module is an admitted module, which is compiled when it is first needed.
type Module struct {
	runtime     *Runtime
	description *Description
	digest      [sha256.Size]byte
	globals     []rewrite.Global // to restore
	depth       int64            // of the stack with which calls begin; 0 without metering

	wasm     []byte // rewritten; nil once compiled; of runtime.mu, as what follows
	engine   wazero.Runtime
	compiled wazero.CompiledModule
}

// Compile is [Runtime.Admit] and [Module.Compile].
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

// Admit checks and rewrites a module, once for each digest and options. wasm is
// not kept. The error is a *[RefusedError] for what is wrong with the module,
// but for type errors in its code, which only the engine finds, ctx's where that
// ended first, or [ErrClosed].
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
			return nil, &RefusedError{a.Description.Problems}
		}
		r.admitted.put(digest, o, a)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m := &Module{runtime: r, description: a.Description, digest: digest, globals: a.Globals, depth: a.Stack, wasm: a.wasm}
	r.modules[variant{digest, o}] = m
	return m, nil
}

// Compile compiles the module, unless it was done before. The error is a
// *[RefusedError], ctx's where that ended first, or [ErrClosed].
func (m *Module) Compile(ctx context.Context) error {
	r := m.runtime
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.modules == nil:
		return ErrClosed
	case m.compiled != nil:
		return nil
	}
	engine, compiled, err := r.compile(m.withCalls(ctx), m.wasm)
	if err != nil {
		return err
	}
	m.engine, m.compiled, m.wasm = engine, compiled, nil
	return nil
}

// compile takes an error of the compilation cache, which would come again
// however often it is asked, for a reason to throw the cache away and do
// without it this once. r.mu is held.
func (r *Runtime) compile(ctx context.Context, wasm []byte) (wazero.Runtime, wazero.CompiledModule, error) {
	engine, err := r.engine(ctx)
	if err != nil {
		return nil, nil, err
	}
	// A single worker would not see the end of ctx.
	ctx = experimental.WithCompilationWorkers(ctx, max(2, goruntime.GOMAXPROCS(0)))
	compiled, err := compileSafely(ctx, engine, wasm)
	if err == nil || r.cache == nil || ctx.Err() != nil {
		return engine, compiled, err
	}
	engine, engineErr := newEngine(ctx, &r.config, nil)
	if engineErr != nil {
		return nil, nil, engineErr
	}
	if compiled, err = compileSafely(ctx, engine, wasm); err != nil {
		return nil, nil, errors.Join(err, engine.Close(ctx))
	}
	r.engines = append(r.engines, engine)
	r.forgetCache()
	return engine, compiled, nil
}

// enginePattern is where the engine keeps compiled code in the cache directory.
const enginePattern = "wazero-*/*"

// forgetCache removes the files that the engine wrote into the cache directory,
// and leaves it the directories, which it only makes at the start.
func (r *Runtime) forgetCache() {
	written, _ := fs.Glob(os.DirFS(r.config.CacheDir), enginePattern)
	for _, file := range written {
		_ = os.Remove(filepath.Join(r.config.CacheDir, file)) // what stays is replaced or thrown away the next time
	}
}

// compileSafely makes of a panic of the compiler a refusal. The error is that
// or ctx's.
func compileSafely(ctx context.Context, engine wazero.Runtime, wasm []byte) (compiled wazero.CompiledModule, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &RefusedError{[]string{fmt.Sprintf("the compiler broke: %.200v", p)}}
		}
	}()
	compiled, err = engine.CompileModule(ctx, wasm)
	switch {
	case err == nil:
		return compiled, nil
	case ctx.Err() != nil: // the module is not to blame
		return nil, ctx.Err()
	}
	return nil, &RefusedError{[]string{firstLine(err)}}
}

// Close frees all modules. No call may be running.
func (r *Runtime) Close(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.modules = nil
	var errs []error
	for _, engine := range r.engines {
		errs = append(errs, engine.Close(ctx))
	}
	r.engines = nil
	if r.cache != nil {
		errs = append(errs, r.cache.Close(ctx))
		r.cache = nil
	}
	return errors.Join(errs...)
}

// Digest returns the SHA-256 of the module's file.
func (m *Module) Digest() [sha256.Size]byte { return m.digest }

// Exports reports whether the module exports the function of that name, one
// of the ABI's.
func (m *Module) Exports(name string) bool { return m.description.exportsFunction(name) }

// Description says what the module is.
func (m *Module) Description() *Description { return m.description }
