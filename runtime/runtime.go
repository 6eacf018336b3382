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
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

// MeteringVersion is that of how modules are rewritten. It is part of the key
// under which outputs are stored.
const MeteringVersion = rewrite.Version

// ErrClosed is returned after Close.
var ErrClosed = errors.New("the runtime is closed")

// Config says how modules are compiled. The zero Config compiles in memory.
type Config struct {
	// CacheDir keeps compiled code between processes; empty means none. Who
	// can write to it can run code in this process: it is made with mode 0700
	// and must not be shared with others. A damaged cache is not used.
	CacheDir string
	// Interpreter runs guests on the engine's interpreter, which is slower by a
	// factor of ten and shares no code generator with the compiler: a second
	// opinion. It ends at 2,000 nested calls, with class host.
	Interpreter bool
}

// Runtime compiles modules and keeps them compiled. All methods are safe for
// concurrent use; Close must come after every pool is closed.
type Runtime struct {
	config  Config
	engines []wazero.Runtime        // the first uses the cache
	cache   wazero.CompilationCache // nil without a directory
	trap    func() reflect.Type     // of the engine's traps; found out at the first one
	mu      sync.Mutex
	modules map[variant]*Module // nil after Close
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
func New(ctx context.Context, config Config) (*Runtime, error) {
	r := &Runtime{config: config, modules: map[variant]*Module{}}
	if config.CacheDir != "" && os.MkdirAll(config.CacheDir, 0o700) == nil {
		if cache, err := wazero.NewCompilationCacheWithDir(config.CacheDir); err == nil {
			r.cache = cache
		}
	}
	engine, err := newEngine(ctx, config.Interpreter, r.cache)
	if err != nil {
		return nil, errors.Join(err, r.Close(ctx))
	}
	r.engines = append(r.engines, engine)
	r.trap = sync.OnceValue(func() reflect.Type { return trapType(engine) })
	return r, nil
}

// newEngine returns an engine that serves the imports of guests.
func newEngine(ctx context.Context, interpreter bool, cache wazero.CompilationCache) (wazero.Runtime, error) {
	config := wazero.NewRuntimeConfigCompiler()
	if interpreter {
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
	if err := serveImports(ctx, engine); err != nil {
		return nil, errors.Join(err, engine.Close(ctx))
	}
	return engine, nil
}

// Module is an admitted and compiled module.
type Module struct {
	runtime     *Runtime
	engine      wazero.Runtime
	description *Description
	digest      [sha256.Size]byte
	compiled    wazero.CompiledModule
	globals     []rewrite.Global // to restore
	depth       int64            // of the stack with which calls begin; 0 without metering
	initialize  bool
	setup       bool
}

// Compile admits, rewrites and compiles a module, once for each digest and
// options. wasm is not kept. The error is a *[RefusedError] for what is wrong
// with the module, ctx's where that ended first, or [ErrClosed].
func (r *Runtime) Compile(ctx context.Context, wasm []byte, o Options) (*Module, error) {
	digest := sha256.Sum256(wasm)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.modules == nil {
		return nil, ErrClosed
	}
	if m := r.modules[variant{digest, o}]; m != nil {
		return m, nil
	}
	parsed, d := admit(wasm)
	var rewritten *rewrite.Result
	if d.Accepted {
		rewritten = d.rewrite(wasm, parsed, o)
	}
	if !d.Accepted {
		return nil, &RefusedError{d.Problems}
	}
	engine, compiled, err := r.compile(ctx, rewritten.Wasm)
	if err != nil {
		return nil, err
	}
	m := &Module{
		runtime: r, engine: engine, description: d, digest: digest, compiled: compiled,
		globals: rewritten.Globals, depth: rewritten.Stack,
		initialize: d.exports[abi.ExportInitialize],
		setup:      d.exports[abi.ExportSetup],
	}
	r.modules[variant{digest, o}] = m
	return m, nil
}

// compile takes an error of the compilation cache, which would come again
// however often it is asked, for a reason to throw the cache away and do
// without it this once.
func (r *Runtime) compile(ctx context.Context, wasm []byte) (wazero.Runtime, wazero.CompiledModule, error) {
	// A single worker would not see the end of ctx.
	ctx = experimental.WithCompilationWorkers(ctx, max(2, goruntime.GOMAXPROCS(0)))
	engine := r.engines[0]
	compiled, err := compileSafely(ctx, engine, wasm)
	if err == nil || r.cache == nil || ctx.Err() != nil {
		return engine, compiled, err
	}
	engine, engineErr := newEngine(ctx, r.config.Interpreter, nil)
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

// forgetCache removes the files that the engine wrote into the cache directory,
// and leaves it the directories, which it only makes at the start.
func (r *Runtime) forgetCache() {
	written, _ := fs.Glob(os.DirFS(r.config.CacheDir), "wazero-*/*") // a pattern that is ours alone
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
func (m *Module) Exports(name string) bool { return m.description.exports[name] }

// Description says what the module is.
func (m *Module) Description() *Description { return m.description }
