package runtime

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime/linear"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
)

// instance is one instantiated module with the host's state for it.
type instance struct {
	session
	of      *Module
	code    *code
	limit   uint64     // of memory, in bytes
	module  api.Module // nil if instantiation failed
	exports map[string]api.Function
	alloc   api.Function // like exec, one of exports: every call needs it
	exec    api.Function
	globals []api.MutableGlobal // values of of.globals
	dirty   bool                // a call has run since the last reset
	broken  bool                // must not be used again
	calls   uint                // so far

	out    commandOutput // this and the next two fields are only for commands
	errors commandErrors
	joined []byte // the content of a chunk that comes in parts
}

// snapshot is the state right after _initialize and setup.
type snapshot struct {
	image   *linear.Image
	globals []uint64
}

// memoryFault is the [linear.Options.Fault] of all memories. Tests set it.
var memoryFault func(call string) error

// newInstance instantiates a module. The error is ctx's or an *[InitError].
func newInstance(ctx context.Context, m *Module, s *Settings) (*instance, error) {
	memory, err := linear.New(linear.Options{Limit: min(s.Memory, linear.MaxLimit), Fault: memoryFault})
	if err != nil {
		return nil, &InitError{Step: "instantiate", Failure: abi.Failf(abi.ClassHost, "%v", err)}
	}
	if need := m.description.Memory.Min; memory.Reallocate(need) == nil { // otherwise the engine would panic
		memory.Free()
		return nil, &InitError{Step: "instantiate", Failure: abi.Failf(abi.ClassHost, "the system has no memory of %d bytes: %v", need, memory.Failed())}
	}
	i := &instance{of: m, code: m.code.Load(), limit: s.Memory}
	if i.code.provisional {
		i.outgrown = m.outgrown
	}
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
	i.module, err = i.code.engine.InstantiateModule(experimental.WithMemoryAllocator(step, memory), i.code.compiled,
		wazero.NewModuleConfig().WithName("").WithStartFunctions())
	failure := i.failed // a message of a start function
	if err != nil {
		failure = m.failure(err, i)
	}
	if err != nil || memory.Failed() != nil {
		failure = i.classify(failure, i.used())
	}
	if failure != nil {
		i.close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if i.outgrew(failure) {
			return nil, errOutgrown
		}
		return nil, &InitError{Step: "instantiate", Failure: i.explained(failure)}
	}
	i.bind(s)
	return i, nil
}

func (i *instance) prepareWASI(s *Settings) {
	i.wasi.Reset(wasi.Call{Phase: "prepare", Preparing: true, Seed: s.Seed, Input: s.Context, Stdout: &i.log, Stderr: &i.log})
}

// bind looks up the exports that calls need. Each look-up creates a new stack.
func (i *instance) bind(s *Settings) {
	i.attach(i.module, int64(s.Stack/stackSlot))
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
		_ = i.module.Close(context.Background()) // closing cannot fail, because there is only memory to free
	}
	i.memory.Free() // already freed by Close, unless instantiation failed
}

// prepare runs _initialize and setup.
func (i *instance) prepare(ctx context.Context, s *Settings) error {
	for _, name := range []string{abi.ExportInitialize, abi.ExportSetup} {
		if i.exports[name] == nil {
			continue
		}
		i.log.start(nil)
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
			if i.outgrew(failure) {
				return errOutgrown
			}
			i.log.complete()
			return &InitError{Step: name, Failure: i.explained(failure)}
		}
	}
	i.log.finish()
	return nil
}

// snapshot takes the state to which reset returns from now on, in this instance
// and in those that adopt it.
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

// adopt puts the instance into the state s.
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

// reset returns the instance to the state s.
func (i *instance) reset(s *snapshot) error {
	if err := i.memory.Reset(i.module.Memory()); err != nil {
		return err
	}
	i.restoreGlobals(s)
	i.dirty = false
	return nil
}

// call runs exec, which is _start for a command, aggregate or merge. It returns
// a view of the output, which is valid until anything else runs in the
// instance, and the fuel that was used.
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
	if i.code.provisional {
		i.of.interpreted.Add(used)
	}
	if failure = i.classify(failure, used); failure != nil {
		if i.outgrew(failure) {
			return nil, 0, errOutgrown
		}
		failure.Fuel = uint64(used)
		return nil, 0, i.explained(failure)
	}
	return output, uint64(used), nil
}

// classify returns the failure of a step that has used some fuel. A failure of
// the system comes first, because everything after it, including the fuel,
// depends on the machine. Next comes a budget that was exceeded, then a failure
// that the guest reported, and then the way in which the call ended. A call that is
// made again has no other failure.
func (i *instance) classify(failure *abi.Failure, used int64) *abi.Failure {
	switch {
	case i.memory.Failed() != nil:
		i.broken = true // its memory returns to the system, which needs it
		return i.systemFailure()
	case failure != nil && i.outgrew(failure): // what the guest said meanwhile, it says again
		return failure
	case used > i.budget:
		return outOfFuel(i.budget)
	case i.failed != nil:
		return i.failed
	case failure == nil && i.fuel == nil && i.late():
		return i.timedOut()
	}
	return failure
}

// explained adds the last words of the guest to the failure of a call.
func (i *instance) explained(f *abi.Failure) *abi.Failure {
	f.Message = cutText(f.Message, maxText)
	f.Logs = i.log.words.last()
	return f
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

// enter calls a function of the guest, with at most two parameters and one
// result.
func (i *instance) enter(ctx context.Context, name string, first, second uint64) (uint64, *abi.Failure) {
	if err := i.invoke(ctx, name, first, second); err != nil {
		return 0, i.failureOf(name, err)
	}
	return i.stack[0], nil
}

// invoke is enter, with the engine's error, and the result in i.stack.
func (i *instance) invoke(ctx context.Context, name string, first, second uint64) error {
	i.meter.enter()
	i.stack = [2]uint64{first, second}
	return i.export(name).CallWithStack(i.context(ctx), i.stack[:])
}

// export returns an export. The look-up in a map would be noticeable in tiny
// calls.
func (i *instance) export(name string) api.Function {
	switch name {
	case abi.ExportAlloc:
		return i.alloc
	case abi.ExportExec:
		return i.exec
	}
	return i.exports[name]
}

// failureOf returns the failure of a call that the engine ended with err, and
// marks the instance if it cannot be used again.
func (i *instance) failureOf(name string, err error) *abi.Failure {
	i.log.complete()
	failure := i.of.failure(err, i)
	overflow := strings.HasPrefix(failure.Message, stackOverflow)
	if failure.Class == abi.ClassHost || overflow {
		i.broken = true // everything is dropped, including the deep stack
	}
	if overflow && len(failure.Stack) == 0 {
		failure.Stack = []string{name} // the engine reports nothing else about its overflow
	}
	return failure
}

// stackOverflow is the start of the message of a trap for too deep calls.
const stackOverflow = "stack overflow"

// pass passes input to a function and returns a view of its output.
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

// allocate allocates memory in the guest and copies input to it.
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

// InitError is returned if an instance could not be created: a step such as
// _initialize or setup failed.
type InitError struct {
	Step      string // the export, "compile", "instantiate" or "snapshot"
	Failure   *abi.Failure
	Instances Stats // of the attempt
}

// HostFailed reports whether the host could not create the instance: no
// function of the guest was called, or none had failed.
func (e *InitError) HostFailed() bool {
	return e.Failure.Class == abi.ClassHost && slices.Contains([]string{"compile", "instantiate", "snapshot"}, e.Step)
}

func (e *InitError) Error() string { return fmt.Sprintf("%s failed: %v", e.Step, e.Failure) }

// Unwrap returns the failure.
func (e *InitError) Unwrap() error { return e.Failure }

// hostFailure turns an error of creating an instance into a failure of one
// call.
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
