package runtime

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/tetratelabs/wazero"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

const (
	defaultAutoSize = 256 << 10
	// unitsPerByte is the fuel for each byte of code that calls on the interpreter may
	// use, which then have taken a tenth of the time that compiling takes: 4 MB
	// compile in 2 s of processor time, the interpreter executes 150 million units a
	// second, and the compiler's code 2,000 million. Most runs of a module that is
	// being written need less; all others are a tenth slower than without Auto.
	unitsPerByte = 8
	// eager is the part of that fuel after which the compiler starts.
	eager = 4
)

// startsQuickly reports whether a module starts on the interpreter. A module without
// metering does not: its calls could not be ended.
func (m *Module) startsQuickly() bool {
	c := &m.runtime.config
	return c.Auto && !c.Interpreter && c.Tracer == nil && m.depth != 0 && m.description.CodeSize >= c.AutoSize &&
		!m.runtime.admitted.isCompiled(m.digest, m.options)
}

// Finish waits until the compiler has finished the module, and starts it if it does
// not run. Calls of a module that began on the interpreter switch after it. The error
// is as for [Module.Compile].
func (m *Module) Finish(ctx context.Context) error { return m.compileFor(ctx, full) }

// engineOf returns the engine of a tier. r.mu is held.
func (r *Runtime) engineOf(ctx context.Context, t tier) (engine wazero.Runtime, err error) {
	if t == full {
		return r.engine(ctx)
	}
	if r.quick == nil {
		config := r.config
		config.Interpreter = true
		r.quick, err = newEngine(ctx, &config, nil)
	}
	return r.quick, err
}

// errOutgrown is the error of a call on the interpreter that must be made again by
// the compiler: it was too slow or too deep, or the compiler has finished meanwhile.
var errOutgrown = errors.New("outgrown")

// outgrownFailure ends a call on the interpreter, because the compiler has finished.
var outgrownFailure = abi.Failf(abi.ClassHost, "outgrown")

// outgrown reports whether a call on the interpreter that has used some fuel should be
// made again: the compiler has finished, or it is time to wait for it.
func (m *Module) outgrown(used int64) bool {
	return !m.code.Load().provisional || m.interpreted.Load()+used > m.patience
}

// advance starts the compiler, or waits for it, if calls on the interpreter have used
// so much fuel that it pays.
func (p *Pool) advance(ctx context.Context) error {
	m := p.module
	if !m.code.Load().provisional {
		return nil
	}
	switch used := m.interpreted.Load(); {
	case used > m.patience:
		return m.compileFor(ctx, full)
	case used > m.patience/eager:
		p.boost.start(m)
	}
	return nil
}

// outgrew reports whether a failure is due to the provisional engine. Calls that fail
// in this way may succeed on the compiler, which is faster and goes deeper.
func (i *instance) outgrew(f *abi.Failure) bool {
	return i.code.provisional &&
		(f == outgrownFailure || f.Class == abi.ClassTimeout || f.Class == abi.ClassHost && strings.HasPrefix(f.Message, stackOverflow))
}

// after returns a log that drops lines which an earlier attempt at the same call has
// logged: a guest logs the same lines again.
func after(log Log, lines int) Log {
	if log == nil {
		return nil
	}
	return func(level int32, line string) {
		if lines--; lines < 0 {
			log(level, line)
		}
	}
}

// boost lets the compiler work in the background. It ends with the pool. Its zero
// value works.
type boost struct {
	once    sync.Once
	stop    context.CancelFunc // nil before start
	running sync.WaitGroup
}

func (b *boost) start(m *Module) {
	b.once.Do(func() {
		ctx, cancel := context.WithCancel(context.Background())
		b.stop = cancel
		b.running.Go(func() { _ = m.compileFor(ctx, full) }) // a call that needs the compiler reports its error
	})
}

// end stops the compiler, unless others wait for it. start must not be called again.
func (b *boost) end() {
	if b.stop != nil {
		b.stop()
		b.running.Wait()
	}
}
