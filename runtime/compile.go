package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"syscall"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// compilation is a running compilation. It has its own goroutine, because the
// engine only checks the context between functions, and one function can take
// seconds. All callers of [Module.Compile] wait for it together.
type compilation struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiting int   // callers; guarded by runtime.mu
	err     error // set before done
}

// errAbandoned is the error of a compilation that all callers have left.
var errAbandoned = errors.New("compilation abandoned")

// tier is the engine that compiles a module.
type tier int

const (
	full  tier = iota // the engine of the configuration
	quick             // the interpreter, until the other has finished
)

// Compile compiles the module if that was not done before. It returns when ctx
// ends, although the engine may go on for a few seconds; later callers then
// wait for that compilation, and so does [Runtime.Close]. The error is a
// *[RefusedError], ctx's if ctx ended first, [ErrClosed], or an *[InitError] of
// class host if the system had no memory or no descriptors for it.
//
// With [Config.Auto], a large module is ready as soon as the interpreter is.
func (m *Module) Compile(ctx context.Context) error {
	if m.startsQuickly() {
		return m.compileFor(ctx, quick)
	}
	return m.compileFor(ctx, full)
}

func (m *Module) compileFor(ctx context.Context, t tier) error {
	for {
		c, err := m.join(ctx, t)
		if c == nil {
			return err
		}
		select {
		case <-c.done:
			m.leave(c)
			if c.err != errAbandoned || m.runtime.closed() {
				return c.err
			}
		case <-ctx.Done():
			m.leave(c)
			return ctx.Err()
		}
	}
}

// join returns the compilation to wait for, and starts it if none runs. If
// there is nothing to wait for, it returns nil and the result.
func (m *Module) join(ctx context.Context, t tier) (*compilation, error) {
	r := m.runtime
	r.mu.Lock()
	defer r.mu.Unlock()
	code := m.code.Load()
	switch {
	case r.modules == nil:
		return nil, ErrClosed
	case code != nil && (t == quick || !code.provisional):
		return nil, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	if m.compilations[t] == nil {
		m.start(t)
	}
	c := m.compilations[t]
	c.waiting++
	return c, nil
}

// leave stops waiting for c. The last caller cancels it.
func (m *Module) leave(c *compilation) {
	m.runtime.mu.Lock()
	defer m.runtime.mu.Unlock()
	if c.waiting--; c.waiting == 0 {
		c.cancel()
	}
}

// compileHook, unless nil, is called before the engine compiles. Tests set it.
var compileHook func()

// start starts the compilation of m. It ends by itself or when the runtime is
// closed. r.mu is held.
func (m *Module) start(t tier) {
	r, wasm := m.runtime, m.wasm
	ctx, cancel := context.WithCancel(r.running)
	c := &compilation{done: make(chan struct{}), cancel: cancel}
	m.compilations[t] = c
	go func() {
		defer close(c.done)
		defer cancel()
		select {
		case r.compiling <- struct{}{}:
			defer func() { <-r.compiling }()
		case <-ctx.Done():
			m.finish(c, t, nil, errAbandoned)
			return
		}
		if t == full {
			m.announce()
		}
		code, err := r.compile(m.withTracer(ctx), wasm, t)
		if err != nil && ctx.Err() != nil {
			err = errAbandoned
		}
		m.finish(c, t, code, err)
	}()
}

// announce says that the compiler starts.
func (m *Module) announce() {
	if compileHook != nil {
		compileHook()
	}
	if c := &m.runtime.config; c.Compiling != nil && !c.Interpreter && !m.runtime.admitted.isCompiled(m.digest, m.options) {
		c.Compiling(m.description.Size)
	}
}

// finish stores the result of a compilation.
func (m *Module) finish(c *compilation, t tier, code *code, err error) {
	r := m.runtime
	r.mu.Lock()
	defer r.mu.Unlock()
	m.compilations[t] = nil
	switch {
	case r.modules == nil:
		c.err = ErrClosed
	case err != nil:
		c.err = err
	case t == full:
		m.code.Store(code)
		m.wasm = nil
		// Neither the interpreter's code nor code with tracing is what others need.
		if r.cache != nil && code.engine == r.engines[0] && !r.config.Interpreter && r.config.Tracer == nil {
			r.admitted.markCompiled(m.digest, m.options)
		}
	case m.code.Load() == nil:
		m.code.Store(code)
	}
}

func (r *Runtime) closed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.modules == nil
}

// compile compiles a module. If the compilation cache fails, which would be
// repeated each time, it clears the cache and compiles without it this time.
// Only one compile runs at a time.
func (r *Runtime) compile(ctx context.Context, wasm []byte, t tier) (*code, error) {
	r.mu.Lock()
	engine, err := r.engineOf(ctx, t)
	cached := r.cache != nil && t == full
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	// A single worker would not notice the end of ctx.
	ctx = experimental.WithCompilationWorkers(ctx, max(2, goruntime.GOMAXPROCS(0)))
	compiled, err := compileSafely(ctx, engine, wasm)
	if err != nil && cached && ctx.Err() == nil {
		engine, compiled, err = r.compileUncached(ctx, wasm)
	}
	if err != nil {
		return nil, err
	}
	return &code{engine: engine, compiled: compiled, interpreted: t == quick || r.config.Interpreter, provisional: t == quick}, nil
}

// compileUncached compiles with a new engine that does not use the cache.
func (r *Runtime) compileUncached(ctx context.Context, wasm []byte) (wazero.Runtime, wazero.CompiledModule, error) {
	engine, err := newEngine(ctx, &r.config, nil)
	if err != nil {
		return nil, nil, err
	}
	compiled, err := compileSafely(ctx, engine, wasm)
	if err != nil {
		return nil, nil, errors.Join(err, engine.Close(ctx))
	}
	r.mu.Lock()
	r.engines = append(r.engines, engine)
	r.mu.Unlock()
	r.forgetCache()
	return engine, compiled, nil
}

// enginePattern matches the engine's compiled code in the cache directory.
const enginePattern = "wazero-*/*"

// forgetCache removes the engine's files from the cache directory. It keeps the
// directories, because the engine creates them only at its start.
func (r *Runtime) forgetCache() {
	written, _ := fs.Glob(os.DirFS(r.config.CacheDir), enginePattern)
	marks, _ := fs.Glob(os.DirFS(r.config.CacheDir), compiledDir+"/*")
	for _, file := range append(written, marks...) {
		_ = os.Remove(filepath.Join(r.config.CacheDir, file)) // remaining files are replaced or removed next time
	}
}

// compileSafely turns a panic of the compiler into an error: a refusal, ctx's
// error or the result of [systemError].
func compileSafely(ctx context.Context, engine wazero.Runtime, wasm []byte) (compiled wazero.CompiledModule, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = compilerPanic(p)
		}
	}()
	compiled, err = engine.CompileModule(ctx, wasm)
	switch {
	case err == nil:
		return compiled, nil
	case ctx.Err() != nil: // the module did not cause it
		return nil, ctx.Err()
	}
	if failed := systemError(err); failed != nil {
		return nil, failed
	}
	return nil, &RefusedError{Problems: []string{firstLine(err)}}
}

func compilerPanic(p any) error {
	if err, ok := p.(error); ok {
		if failed := systemError(err); failed != nil {
			return failed
		}
	}
	return &RefusedError{Problems: []string{fmt.Sprintf("the compiler broke: %.200v", p)}}
}

// systemError returns an *[InitError] of class host if err is an error of the
// system, such as a lack of memory for code, that no module causes; otherwise
// nil.
func systemError(err error) error {
	if _, ok := errors.AsType[syscall.Errno](err); !ok {
		return nil
	}
	return &InitError{Step: "compile", Failure: abi.Failf(abi.ClassHost, "%s", firstLine(err))}
}
