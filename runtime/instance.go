package runtime

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime/linear"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
)

// instance is one instantiated module with the host's side of it.
type instance struct {
	session
	of      *Module
	limit   uint64     // of memory, in bytes
	module  api.Module // nil where instantiation failed
	exports map[string]api.Function
	alloc   api.Function // of exports, as is exec: what each call needs
	exec    api.Function
	globals []api.MutableGlobal // of of.globals
	dirty   bool                // a call has run since the last reset
	broken  bool                // not to be used again

	out    commandOutput // these three of commands only
	errors commandErrors
	joined []byte // the content of a chunk that comes in parts
}

// snapshot is the state right after _initialize and setup.
type snapshot struct {
	image   *linear.Image
	globals []uint64
}

// newInstance instantiates a module. The error is ctx's or an *[InitError].
func newInstance(ctx context.Context, m *Module, s *Settings) (*instance, error) {
	memory, err := linear.New(linear.Options{Limit: min(s.Memory, linear.MaxLimit)})
	if err != nil {
		return nil, &InitError{Step: "instantiate", Failure: abi.Failf(abi.ClassHost, "%v", err)}
	}
	if need := m.description.Memory.Min; memory.Reallocate(need) == nil { // the engine would panic
		memory.Free()
		return nil, &InitError{Step: "instantiate", Failure: abi.Failf(abi.ClassHost, "the system has no memory of %d bytes", need)}
	}
	i := &instance{of: m, limit: s.Memory}
	i.memory = memory
	var config wasi.Config
	if m.description.Command {
		if config, err = s.Command.config(); err != nil {
			memory.Free()
			return nil, &InitError{Step: "instantiate", Failure: abi.Failf(abi.ClassHost, "%v", err)}
		}
	}
	config.Charge = i.charge
	i.wasi = wasi.New(config)
	i.prepareWASI(s)
	i.start(ctx, 0, s.FoldTimeout, false)
	step := i.context(ctx)
	i.module, err = m.engine.InstantiateModule(experimental.WithMemoryAllocator(step, memory), m.compiled,
		wazero.NewModuleConfig().WithName("").WithStartFunctions())
	failure := i.failed // what a start function may have said
	if err != nil {
		failure = i.classify(m.failure(err, memory, i.limit), i.used())
	}
	if failure != nil {
		i.close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &InitError{Step: "instantiate", Failure: failure}
	}
	i.bind()
	return i, nil
}

func (i *instance) prepareWASI(s *Settings) {
	i.wasi.Reset(wasi.Call{Phase: "prepare", Preparing: true, Seed: s.Seed, Input: s.Context, Stdout: &i.log, Stderr: &i.log})
}

// bind looks up the exports that calls need: each look-up makes a new stack.
func (i *instance) bind() {
	i.attach(i.module, i.of.depth)
	i.exports = map[string]api.Function{}
	for _, e := range exported {
		if f := i.module.ExportedFunction(e.name); f != nil {
			i.exports[e.name] = f
		}
	}
	i.alloc, i.exec = i.exports[abi.ExportAlloc], i.exports[abi.ExportExec]
	for _, g := range i.of.globals {
		if mutable, ok := i.module.ExportedGlobal(g.Export).(api.MutableGlobal); ok {
			i.globals = append(i.globals, mutable)
		}
	}
}

// close frees the instance. No call may be running.
func (i *instance) close() {
	if i.module != nil {
		_ = i.module.Close(context.Background()) // closing memory and nothing else cannot fail
	}
	i.memory.Free() // closing did it, unless instantiation failed
}

// prepare runs _initialize and setup.
func (i *instance) prepare(ctx context.Context, s *Settings) error {
	for _, name := range []string{abi.ExportInitialize, abi.ExportSetup} {
		if i.exports[name] == nil {
			continue
		}
		i.start(ctx, 0, s.FoldTimeout, false)
		var failure *abi.Failure
		if name == abi.ExportSetup {
			_, failure = i.pass(ctx, name, s.Context)
		} else {
			_, failure = i.enter(ctx, name, 0, 0)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if failure = i.classify(failure, i.used()); failure != nil {
			return &InitError{Step: name, Failure: failure}
		}
	}
	i.log.finish()
	return nil
}

// snapshot takes the state to which reset goes back, from now on, in this
// instance and in those that adopt it.
func (i *instance) snapshot() (*snapshot, error) {
	image, err := i.memory.Snapshot()
	if err != nil {
		return nil, err
	}
	s := &snapshot{image: image}
	for _, g := range i.globals {
		s.globals = append(s.globals, g.Get())
	}
	if err := i.adopt(s); err != nil {
		image.Close()
		return nil, err
	}
	return s, nil
}

// adopt makes the instance's state that of s.
func (i *instance) adopt(s *snapshot) error {
	if err := i.memory.Attach(s.image, i.module.Memory()); err != nil {
		return err
	}
	i.restoreGlobals(s)
	return nil
}

func (i *instance) restoreGlobals(s *snapshot) {
	for n, g := range i.globals {
		g.Set(s.globals[n])
	}
}

// reset makes the instance's state that of s again.
func (i *instance) reset(s *snapshot) error {
	if err := i.memory.Reset(i.module.Memory()); err != nil {
		return err
	}
	i.restoreGlobals(s)
	i.dirty = false
	return nil
}

// call runs exec, which of a command is _start, aggregate or merge, and returns a view of the output, which
// is valid until anything else runs in the instance, and the fuel it took.
func (i *instance) call(ctx context.Context, s *Settings, function string, input []byte, log Log) ([]byte, uint64, error) {
	budget, timeout, limit := uint64(0), s.FoldTimeout, s.MaxAggregate
	if function == abi.ExportExec {
		budget, timeout, limit = s.Fuel, s.Timeout, s.MaxOutput
	}
	i.dirty = true
	i.log.start(log)
	i.start(ctx, budget, timeout, function == abi.ExportExec)
	var output []byte
	var failure *abi.Failure
	if function == abi.ExportExec && i.of.description.Command {
		output, failure = i.command(ctx, s, input)
	} else {
		i.wasi.Reset(wasi.Call{Phase: "call", Seed: s.Seed, Input: input, Stdout: &i.log, Stderr: &i.log})
		output, failure = i.pass(ctx, function, input)
	}
	i.log.finish()
	if failure == nil {
		output, failure = checked(output, limit)
	}
	if ctx.Err() != nil {
		return nil, 0, ctx.Err()
	}
	used := i.used()
	if failure = i.classify(failure, used); failure != nil {
		failure.Fuel = uint64(used)
		return nil, 0, failure
	}
	return output, uint64(used), nil
}

// classify says why a step that has used some fuel failed: having used too much
// goes before what the guest said, and that before how it ended.
func (i *instance) classify(failure *abi.Failure, used int64) *abi.Failure {
	switch {
	case used > i.budget:
		return outOfFuel(i.budget)
	case i.failed != nil:
		return i.failed
	case failure == nil && i.fuel == nil && i.late():
		return i.timedOut()
	}
	return failure
}

func checked(output []byte, limit uint64) ([]byte, *abi.Failure) {
	if uint64(len(output)) > limit {
		return nil, abi.Failf(abi.ClassABI, "the output has %d bytes, and the limit is %d", len(output), limit)
	}
	if err := abi.CheckItem(output); err != nil {
		return nil, abi.Failf(abi.ClassABI, "the output is not one CBOR item: %v", err)
	}
	return output, nil
}

// enter calls a function of the guest, of at most two parameters and one
// result.
func (i *instance) enter(ctx context.Context, name string, first, second uint64) (uint64, *abi.Failure) {
	if err := i.invoke(ctx, name, first, second); err != nil {
		return 0, i.failureOf(name, err)
	}
	return i.stack[0], nil
}

// invoke is enter, with the engine's error and the result in i.stack.
func (i *instance) invoke(ctx context.Context, name string, first, second uint64) error {
	i.meter.enter()
	i.stack = [2]uint64{first, second}
	return i.export(name).CallWithStack(i.context(ctx), i.stack[:])
}

// export returns an export. Tiny calls would notice the look-up in the map.
func (i *instance) export(name string) api.Function {
	switch name {
	case abi.ExportAlloc:
		return i.alloc
	case abi.ExportExec:
		return i.exec
	}
	return i.exports[name]
}

// failureOf says what became of a call that the engine ended with err, and
// whether the instance can be used again.
func (i *instance) failureOf(name string, err error) *abi.Failure {
	failure := i.of.failure(err, i.memory, i.limit)
	overflow := strings.HasPrefix(failure.Message, stackOverflow)
	if failure.Class == abi.ClassHost || overflow {
		i.broken = true // whatever is left of it, the deep stack among it, goes
	}
	if overflow && len(failure.Stack) == 0 {
		failure.Stack = []string{name} // all that is known of an overflow of the engine's
	}
	return failure
}

// stackOverflow begins the message of a trap for too deep calls.
const stackOverflow = "stack overflow"

// pass gives input to a function and returns a view of what it gave back.
func (i *instance) pass(ctx context.Context, name string, input []byte) ([]byte, *abi.Failure) {
	ptr, failure := i.allocate(ctx, input)
	if failure != nil {
		return nil, failure
	}
	result, failure := i.enter(ctx, name, uint64(ptr), uint64(len(input)))
	if failure != nil {
		return nil, failure
	}
	if name == abi.ExportSetup {
		return nil, nil
	}
	at, size := abi.Unpack(result)
	output, ok := i.module.Memory().Read(at, size)
	if !ok {
		return nil, abi.Failf(abi.ClassABI, "%s returned %d bytes at %d, outside its memory of %d bytes", name, size, at, i.module.Memory().Size())
	}
	return output, nil
}

// allocate asks the guest for room and fills it with input.
func (i *instance) allocate(ctx context.Context, input []byte) (ptr uint32, failure *abi.Failure) {
	if uint64(len(input)) > math.MaxUint32 {
		return 0, abi.Failf(abi.ClassMemory, "%d bytes do not fit into the address space of a guest", len(input))
	}
	result, failure := i.enter(ctx, abi.ExportAlloc, uint64(len(input)), 0)
	if failure != nil {
		return 0, failure
	}
	ptr = uint32(result)
	if ptr == 0 {
		return 0, abi.Failf(abi.ClassMemory, "alloc(%d) returned 0", len(input))
	}
	if !i.module.Memory().Write(ptr, input) {
		return 0, abi.Failf(abi.ClassABI, "alloc(%d) returned %d, outside its memory of %d bytes", len(input), ptr, i.module.Memory().Size())
	}
	return ptr, nil
}

// InitError says that an instance could not be made: _initialize or setup
// failed.
type InitError struct {
	Step      string // the export, or "instantiate"
	Failure   *abi.Failure
	Instances Stats // of the attempt
}

func (e *InitError) Error() string { return fmt.Sprintf("%s failed: %v", e.Step, e.Failure) }

// Unwrap returns the failure.
func (e *InitError) Unwrap() error { return e.Failure }

// hostFailure makes an error of making an instance a failure of one call.
func hostFailure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	why := firstLine(err)
	if init, ok := errors.AsType[*InitError](err); ok && init.Failure.Class == abi.ClassHost {
		why = init.Failure.Message
	}
	return abi.Failf(abi.ClassHost, "no instance could be made: %s", why)
}
