package runtime

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

// Settings are fixed for all calls of a job. A zero limit of bytes means the
// default; other zeros mean no limit.
type Settings struct {
	Context      []byte        // one CBOR item for setup; nil = null
	Seed         uint64        // of the guest's random bytes
	Memory       uint64        // bytes of linear memory; default 256 MiB
	Stack        uint64        // bytes that nested calls may take, as counted by metering (METERING.md); default 8 MiB; no effect with NoMetering
	MaxOutput    uint64        // bytes that exec may return; default 16 MiB
	MaxAggregate uint64        // bytes that aggregate or merge may return; default 256 MiB
	Fuel         uint64        // units that one exec, with its alloc, may use; no effect with NoMetering
	Timeout      time.Duration // of one exec
	FoldTimeout  time.Duration // of one _initialize, setup, aggregate or merge
	Isolation    Isolation     // "" = reset if the module allows it
	Command      Command       // of WASI commands
}

// Isolation is how a call gets fresh state.
type Isolation string

// The kinds of isolation. The first two differ only in cost.
const (
	// IsolationReset resets an instance to its snapshot before each call.
	IsolationReset Isolation = "reset"
	// IsolationInstance creates a new instance for each call.
	IsolationInstance Isolation = "instance"
	// IsolationNone starts each call in the state left by the last one, unless
	// that failed. Outputs may then depend on earlier calls. It is for
	// measuring the cost of the others; package host rejects it.
	IsolationNone Isolation = "none"
)

// Defaults of [Settings].
const (
	DefaultMemory       = 256 << 20
	DefaultStack        = rewrite.DefaultStack * stackSlot
	DefaultMaxOutput    = 16 << 20
	DefaultMaxAggregate = 256 << 20
)

// Bounds of Settings.Stack.
const (
	// stackSlot is the unit in which the depth of calls is counted, in bytes.
	stackSlot = 8
	// MinStack is enough for a few calls.
	MinStack = 4 << 10
	// MaxStack keeps the native stack, which is up to 3.1 times as large, below
	// 50 MB. The engine's own limit begins there, and depends on the earlier
	// calls of an instance.
	MaxStack = 16 << 20
)

func (s Settings) withDefaults() Settings {
	defaults := func(v *uint64, d uint64) {
		if *v == 0 {
			*v = d
		}
	}
	defaults(&s.Memory, DefaultMemory)
	defaults(&s.Stack, DefaultStack)
	defaults(&s.MaxOutput, DefaultMaxOutput)
	defaults(&s.MaxAggregate, DefaultMaxAggregate)
	if len(s.Context) == 0 {
		s.Context = abi.Null
	}
	return s
}

// Stats counts instances. Created equals Closed once the pool is closed.
type Stats struct {
	Created uint64 `json:"created"`
	Resets  uint64 `json:"resets"`
	Closed  uint64 `json:"closed"`
	Memory  uint64 `json:"memory"` // the largest linear memory of a call, in bytes
}

// Log receives a line that a guest logged, at a level of log/slog. It is called
// in the goroutine of the call.
type Log func(level int32, line string)

// Pool creates instances of one module for one job. Borrow, Isolation and Stats
// are safe for concurrent use.
type Pool struct {
	module   *Module
	settings Settings
	snapshot *snapshot // nil if each call gets a new instance
	created  atomic.Uint64
	resets   atomic.Uint64
	closed   atomic.Uint64
	mu       sync.Mutex
	idle     []*list.Element // instances that are not borrowed; guarded by runtime.idle
	memory   uint64          // the largest, of instances that were released
	times    samples         // of instances that were released
	boost    boost
}

// Fits returns a *[RefusedError] if the module does not fit the settings.
func (m *Module) Fits(s Settings) error {
	s = s.withDefaults()
	if need := m.description.Memory.Min; need > s.Memory {
		return refusedFor(SettingMemory, fmt.Sprintf("its memory has %d bytes at the start, more than the limit of %d: %s raises it", need, s.Memory, SettingMemory))
	}
	if s.Stack < MinStack || s.Stack > MaxStack {
		return refusedFor(SettingStack, fmt.Sprintf("invalid stack of %d bytes: want %s from %d to %d", s.Stack, SettingStack, MinStack, MaxStack))
	}
	if err := m.fitsCommand(&s.Command); err != nil {
		return err
	}
	if string(s.Context) != string(abi.Null) && !m.Exports(abi.ExportSetup) {
		return refusedFor(SettingContext, `a context is given, but the module does not export "setup"`)
	}
	return nil
}

// Prepare compiles the module if that was not done before, creates an instance,
// runs its _initialize and setup, and takes a snapshot of it. The error is an
// *[InitError] if the guest failed, a *[RefusedError] if the module does not
// fit the settings, or ctx's.
func (m *Module) Prepare(ctx context.Context, s Settings) (*Pool, error) {
	if err := m.Fits(s); err != nil {
		return nil, err
	}
	compile := m.Compile
	if s.Isolation == IsolationNone { // a switch would lose the state
		compile = func(ctx context.Context) error { return m.compileFor(ctx, full) }
	}
	if err := compile(ctx); err != nil {
		return nil, err
	}
	s = s.withDefaults()
	p := &Pool{module: m, settings: s}
	first, err := p.fresh(ctx)
	if err == nil && p.Isolation() != IsolationInstance {
		if p.snapshot, err = first.snapshot(); err != nil {
			p.drop(first)
			err = &InitError{Step: "snapshot", Failure: abi.Failf(abi.ClassHost, "%v", err)}
		}
	}
	if err != nil {
		if init, ok := errors.AsType[*InitError](err); ok {
			init.Instances = p.Stats()
		}
		return nil, err
	}
	p.module.runtime.idle.put(p, first)
	return p, nil
}

// Isolation returns how calls get fresh state: as in the settings, but always
// with a new instance if the module has effects that a reset does not undo.
func (p *Pool) Isolation() Isolation {
	able := p.module.description.Isolation
	command := p.module.description.Command && p.settings.Isolation == IsolationNone // a program starts only once
	if p.settings.Isolation == "" || able == IsolationInstance || command {
		return able
	}
	return p.settings.Isolation
}

// Stats returns the number of instances that were created, reset and closed so
// far. Resets and memory are counted when the instance is released.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{Created: p.created.Load(), Resets: p.resets.Load(), Closed: p.closed.Load(), Memory: p.memory}
}

// Times returns averages over a sample of the calls so far; they are zero without
// calls. Calls are counted when the instance is released.
func (p *Pool) Times() Times {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.times.averages()
}

// Close closes all instances. They must have been released.
func (p *Pool) Close() error {
	p.boost.end()
	p.module.runtime.idle.empty(p)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.snapshot != nil {
		p.snapshot.image.Close()
	}
	return nil
}

// Instance allows one worker to call the guest. It must be used by one
// goroutine at a time, and released in the end.
type Instance struct {
	pool   *Pool
	log    Log
	ended  func(memory []byte)
	held   *instance // nil before the first call, and after it broke
	resets uint64    // not yet counted in the pool
	memory uint64    // the largest of a call, in bytes
	last   uint64    // of the last call
	times  samples   // not yet counted in the pool
	_      [8]byte   // keeps other workers off the cache line that each call writes
}

// Borrow returns an instance whose log lines go to log; nil drops them.
func (p *Pool) Borrow(log Log) *Instance {
	p.module.runtime.idle.borrow(1)
	return &Instance{pool: p, log: log}
}

// Release returns the instance to the pool.
func (i *Instance) Release() {
	i.pool.resets.Add(i.resets)
	i.resets = 0
	i.pool.mu.Lock()
	i.pool.memory = max(i.pool.memory, i.memory)
	i.pool.times.add(&i.times)
	i.pool.mu.Unlock()
	i.times = samples{}
	held := i.held
	i.held = nil
	i.pool.module.runtime.idle.borrow(-1)
	if held != nil {
		i.pool.module.runtime.idle.put(i.pool, held)
	}
}

// Call runs exec, aggregate or merge, which the module must export, on fresh
// state; for a WASI command, exec is its _start. It appends the output, one
// CBOR item, to dst, and returns dst also on error. fuel is the fuel of a
// successful call, with its alloc. Call only reads input.
//
// The error is an *[abi.Failure] if the guest failed, or ctx's if ctx ended
// first.
func (i *Instance) Call(ctx context.Context, function string, input, dst []byte) (output []byte, fuel uint64, err error) {
	output, fuel, lines, err := i.call(ctx, function, input, dst, i.log)
	if err == errOutgrown {
		if err = i.pool.module.compileFor(ctx, full); err != nil {
			return dst, 0, hostFailure(ctx, err)
		}
		output, fuel, _, err = i.call(ctx, function, input, dst, after(i.log, lines))
	}
	return output, fuel, err
}

// call is Call on the present engine. lines is the number of lines that went to log.
func (i *Instance) call(ctx context.Context, function string, input, dst []byte, log Log) (output []byte, fuel uint64, lines int, err error) {
	watch := i.held.watch()
	inst, err := i.fresh(ctx)
	if err != nil {
		return dst, 0, 0, hostFailure(ctx, err)
	}
	watch.reset()
	view, fuel, err := inst.call(ctx, &i.pool.settings, function, input, log)
	watch.called(&i.times)
	i.last = uint64(inst.module.Memory().Size())
	i.memory = max(i.memory, i.last)
	if i.ended != nil && err != errOutgrown {
		if memory, ok := inst.module.Memory().Read(0, uint32(i.last)); ok {
			i.ended(memory)
		}
	}
	if err == nil {
		dst = append(dst, view...)
		inst.dirty = i.pool.Isolation() != IsolationNone
	}
	lines = inst.log.lines
	if inst.broken || i.pool.snapshot == nil {
		i.pool.drop(inst)
		i.held = nil
	}
	return dst, fuel, lines, err
}

// MemorySize returns the size in bytes of the linear memory at the end of the
// last call; 0 before the first.
func (i *Instance) MemorySize() uint64 { return i.last }

// OnReturn calls f with the linear memory at the end of each later call,
// however it ends. The memory is valid until f returns.
func (i *Instance) OnReturn(f func(memory []byte)) { i.ended = f }

// fresh returns the held instance, in the state of the snapshot.
func (i *Instance) fresh(ctx context.Context) (*instance, error) {
	if err := i.pool.advance(ctx); err != nil {
		return nil, err
	}
	if i.held == nil {
		i.held = i.pool.take()
	}
	for i.held != nil && i.held.code != i.pool.module.code.Load() { // the compiler has finished
		i.pool.drop(i.held)
		i.held = i.pool.take()
	}
	if i.held != nil && i.held.dirty {
		if i.held.reset(i.pool.snapshot) == nil {
			i.resets++ // a shared counter would make workers wait for each other
		} else { // it cannot be reset, so a new one replaces it
			i.pool.drop(i.held)
			i.held = nil
		}
	}
	var err error
	if i.held == nil {
		i.held, err = i.pool.another(ctx)
	}
	return i.held, err
}

// take returns an idle instance, or nil.
func (p *Pool) take() *instance { return p.module.runtime.idle.take(p) }

// another returns a further instance: a clone of the snapshot, if there is one.
func (p *Pool) another(ctx context.Context) (*instance, error) {
	if p.snapshot == nil {
		return p.fresh(ctx)
	}
	i, err := p.instantiate(ctx)
	if err != nil {
		return nil, err
	}
	if err := i.adopt(p.snapshot); err != nil {
		p.drop(i)
		return nil, err
	}
	return i, nil
}

// fresh creates an instance and runs its _initialize and setup.
func (p *Pool) fresh(ctx context.Context) (*instance, error) {
	i, err := p.instantiate(ctx)
	if err != nil {
		return nil, err
	}
	if err = i.prepare(ctx, &p.settings); err == nil {
		return i, nil
	}
	p.drop(i)
	if err != errOutgrown {
		return nil, err
	}
	if err := p.module.compileFor(ctx, full); err != nil {
		return nil, err
	}
	return p.fresh(ctx)
}

func (p *Pool) instantiate(ctx context.Context) (*instance, error) {
	p.created.Add(1)
	i, err := newInstance(ctx, p.module, &p.settings)
	if err == nil {
		return i, nil
	}
	p.closed.Add(1)
	if err != errOutgrown {
		return nil, err
	}
	if err := p.module.compileFor(ctx, full); err != nil {
		return nil, err
	}
	return p.instantiate(ctx)
}

// drop closes an instance.
func (p *Pool) drop(i *instance) {
	i.close()
	p.closed.Add(1)
}
