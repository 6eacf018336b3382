package runtime

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Settings are what a job fixes for all its calls. Zero limits of bytes mean
// the default; a zero time is no limit.
type Settings struct {
	Context      []byte        // one CBOR item for setup; nil = null
	Seed         uint64        // of the guest's random bytes
	Memory       uint64        // bytes of linear memory; default 256 MiB
	MaxOutput    uint64        // bytes that exec may return; default 16 MiB
	MaxAggregate uint64        // bytes that aggregate or merge may return; default 256 MiB
	Timeout      time.Duration // of one exec
	FoldTimeout  time.Duration // of one _initialize, setup, aggregate or merge
}

// Defaults of [Settings].
const (
	DefaultMemory       = 256 << 20
	DefaultMaxOutput    = 16 << 20
	DefaultMaxAggregate = 256 << 20
)

func (s Settings) withDefaults() Settings {
	defaults := func(v *uint64, d uint64) {
		if *v == 0 {
			*v = d
		}
	}
	defaults(&s.Memory, DefaultMemory)
	defaults(&s.MaxOutput, DefaultMaxOutput)
	defaults(&s.MaxAggregate, DefaultMaxAggregate)
	if s.Context == nil {
		s.Context = abi.Null
	}
	return s
}

// Stats counts instances. Created equals Closed once the pool is closed.
type Stats struct {
	Created uint64 `json:"created"`
	Resets  uint64 `json:"resets"`
	Closed  uint64 `json:"closed"`
}

// Log receives a line that a guest logged, at a level of log/slog. It is
// called from the goroutine that called the guest.
type Log func(level int32, line string)

// Pool makes instances of one module for one job. Lease and Stats are safe for
// concurrent use.
type Pool struct {
	module   *Module
	settings Settings
	created  atomic.Uint64
	closed   atomic.Uint64
	mu       sync.Mutex
	spare    *instance // prepared and not yet used
}

// Prepare makes an instance, which runs _initialize and setup, to be used by
// the first call. The error is an *[InitError] for what the guest did, a
// *[RefusedError] where the module does not fit the settings, or ctx's.
func (m *Module) Prepare(ctx context.Context, s Settings) (*Pool, error) {
	s = s.withDefaults()
	if need := m.description.Memory.Min; need > s.Memory {
		return nil, &RefusedError{[]string{fmt.Sprintf("its memory has %d bytes at the start, and the limit is %d: --memory raises it", need, s.Memory)}}
	}
	if s.Context != nil && !m.setup && string(s.Context) != string(abi.Null) {
		return nil, &RefusedError{[]string{`a context is given, and the module has no export "setup"`}}
	}
	p := &Pool{module: m, settings: s}
	spare, err := p.make(ctx)
	if err != nil {
		if init, ok := errors.AsType[*InitError](err); ok {
			init.Instances = p.Stats()
		}
		return nil, err
	}
	p.spare = spare
	return p, nil
}

// Stats returns how many instances were made and closed so far.
func (p *Pool) Stats() Stats { return Stats{Created: p.created.Load(), Closed: p.closed.Load()} }

// Close closes what is not leased. Leases must have been released.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(p.spare)
	p.spare = nil
	return nil
}

// Instance is the right of one worker to call the guest; it is used by one
// goroutine at a time. Release it in the end.
type Instance struct {
	pool *Pool
	log  Log
}

// Lease returns an instance whose log lines go to log; nil drops them.
func (p *Pool) Lease(log Log) *Instance { return &Instance{p, log} }

// Release gives the instance back.
func (i *Instance) Release() {}

// Call runs exec, aggregate or merge on fresh state and appends the output,
// one CBOR item, to dst, which it returns also on error. input is only read.
// The error is an *[abi.Failure] for what the guest did, or ctx's where that
// ended first.
func (i *Instance) Call(ctx context.Context, function string, input, dst []byte) ([]byte, error) {
	p := i.pool
	inst, err := p.take(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return dst, ctx.Err()
		}
		return dst, abi.Failf(abi.ClassHost, "no instance could be made: %s", firstLine(err))
	}
	defer p.drop(inst)
	inst.log.start(i.log)
	defer inst.log.finish()
	timeout, limit := p.settings.FoldTimeout, p.settings.MaxAggregate
	if function == abi.ExportExec {
		timeout, limit = p.settings.Timeout, p.settings.MaxOutput
	}
	inst.clock.call()
	inst.random = random{phase: "call", seed: p.settings.Seed, input: input}
	step := inst.begin(ctx, timeout, function == abi.ExportExec)
	output, failure := inst.call(step, function, input)
	if failure == nil {
		output, failure = checked(output, limit)
	}
	if err := step.end(); err != nil {
		return dst, err
	}
	if failure != nil {
		return dst, failure
	}
	return append(dst, output...), nil
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

// take returns the spare instance or a new one.
func (p *Pool) take(ctx context.Context) (*instance, error) {
	p.mu.Lock()
	inst := p.spare
	p.spare = nil
	p.mu.Unlock()
	if inst != nil {
		return inst, nil
	}
	return p.make(ctx)
}

// drop closes an instance.
func (p *Pool) drop(inst *instance) {
	if inst == nil {
		return
	}
	if inst.module != nil {
		_ = inst.module.Close(context.Background()) // closing memory and nothing else cannot fail
	}
	p.closed.Add(1)
}

// instance is one instantiated module with the host's side of it.
type instance struct {
	session
	runtime *Runtime
	module  api.Module
}

// make instantiates the module, and runs _initialize and setup.
func (p *Pool) make(ctx context.Context) (*instance, error) {
	inst := &instance{runtime: p.module.runtime}
	inst.memory = &linearMemory{limit: min(p.settings.Memory, maxPages*pageSize)}
	inst.clock.prepare()
	inst.random = random{phase: "prepare", seed: p.settings.Seed, input: p.settings.Context}
	p.created.Add(1)
	if err := p.prepare(ctx, inst); err != nil {
		p.drop(inst)
		return nil, err
	}
	return inst, nil
}

func (p *Pool) prepare(ctx context.Context, inst *instance) error {
	step := inst.begin(ctx, p.settings.FoldTimeout, false)
	name := "instantiate"
	failure := inst.instantiate(step, p.module)
	if failure == nil && p.module.initialize {
		name = abi.ExportInitialize
		failure = inst.run(step, name)
	}
	if failure == nil && p.module.setup {
		name = abi.ExportSetup
		_, failure = inst.call(step, name, p.settings.Context)
	}
	if err := step.end(); err != nil {
		said, isFailure := errors.AsType[*abi.Failure](err)
		if !isFailure {
			return err
		}
		failure = said
	}
	if failure != nil {
		return &InitError{Step: name, Failure: failure}
	}
	return nil
}

func (i *instance) instantiate(ctx *step, m *Module) *abi.Failure {
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions().
		WithStdout(&i.log).WithStderr(&i.log).
		WithRandSource(&i.random).
		WithWalltime(i.clock.walltime, tickResolution).
		WithNanotime(i.clock.nanotime, tickResolution).
		WithNanosleep(i.clock.nanosleep)
	module, err := m.engine.InstantiateModule(experimental.WithMemoryAllocator(ctx, i.memory), m.compiled, config)
	if err != nil {
		return i.runtime.failure(err, i.memory)
	}
	i.module = module
	return nil
}

// tickResolution is what guests are told of their clocks' resolution.
const tickResolution = 1_000_000

// enter calls a function of the guest.
func (i *instance) enter(ctx *step, name string, stack []uint64) *abi.Failure {
	err := i.module.ExportedFunction(name).CallWithStack(ctx, stack)
	if err == nil {
		return nil
	}
	failure := i.runtime.failure(err, i.memory)
	if len(failure.Stack) == 0 {
		failure.Stack = []string{name} // all that is known of a stack overflow
	}
	return failure
}

// run calls a function without parameters and results.
func (i *instance) run(ctx *step, name string) *abi.Failure {
	return i.enter(ctx, name, nil)
}

// call passes input to a function and returns a view of what it gave back,
// which is valid until anything else runs in the instance.
func (i *instance) call(ctx *step, name string, input []byte) ([]byte, *abi.Failure) {
	ptr, failure := i.allocate(ctx, input)
	if failure != nil {
		return nil, failure
	}
	stack := [2]uint64{uint64(ptr), uint64(len(input))}
	if failure := i.enter(ctx, name, stack[:]); failure != nil {
		return nil, failure
	}
	at, size := abi.Unpack(stack[0])
	if name == abi.ExportSetup {
		return nil, nil
	}
	output, ok := i.module.Memory().Read(at, size)
	if !ok {
		return nil, abi.Failf(abi.ClassABI, "%s returned %d bytes at %d, outside its memory of %d bytes", name, size, at, i.module.Memory().Size())
	}
	return output, nil
}

// allocate asks the guest for room and fills it with input.
func (i *instance) allocate(ctx *step, input []byte) (ptr uint32, failure *abi.Failure) {
	if uint64(len(input)) > math.MaxUint32 {
		return 0, abi.Failf(abi.ClassMemory, "%d bytes do not fit into the address space of a guest", len(input))
	}
	stack := [1]uint64{uint64(len(input))}
	if failure := i.enter(ctx, abi.ExportAlloc, stack[:]); failure != nil {
		return 0, failure
	}
	ptr = uint32(stack[0])
	if ptr == 0 {
		return 0, abi.Failf(abi.ClassMemory, "alloc(%d) returned 0", len(input))
	}
	if !i.module.Memory().Write(ptr, input) {
		return 0, abi.Failf(abi.ClassABI, "alloc(%d) returned %d, outside its memory of %d bytes", len(input), ptr, i.module.Memory().Size())
	}
	return ptr, nil
}
