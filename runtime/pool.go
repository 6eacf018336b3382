package runtime

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Settings are what a job fixes for all its calls. Zero limits of bytes mean
// the default; other zeros are no limit.
type Settings struct {
	Context      []byte        // one CBOR item for setup; nil = null
	Seed         uint64        // of the guest's random bytes
	Memory       uint64        // bytes of linear memory; default 256 MiB
	MaxOutput    uint64        // bytes that exec may return; default 16 MiB
	MaxAggregate uint64        // bytes that aggregate or merge may return; default 256 MiB
	Fuel         uint64        // units that one exec, with its alloc, may use; without effect under NoMetering
	Timeout      time.Duration // of one exec
	FoldTimeout  time.Duration // of one _initialize, setup, aggregate or merge
	Isolation    Isolation     // "" = reset where the module allows it
	Command      Command       // of WASI commands
}

// Isolation is how a call gets fresh state.
type Isolation string

// The ways to isolate calls. The first two differ in cost alone.
const (
	// IsolationReset takes an instance back to its snapshot before each call.
	IsolationReset Isolation = "reset"
	// IsolationInstance makes a new instance for each call.
	IsolationInstance Isolation = "instance"
	// IsolationNone leaves a call the state of the one before it, unless that
	// failed. Outputs may then depend on what ran before: it is there to measure
	// what the others cost, and package host refuses it.
	IsolationNone Isolation = "none"
)

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
	Memory  uint64 `json:"memory"` // the largest linear memory that a call had, in bytes
}

// Log receives a line that a guest logged, at a level of log/slog. It is
// called from the goroutine that called the guest.
type Log func(level int32, line string)

// Pool makes instances of one module for one job. Lease, Isolation and Stats
// are safe for concurrent use.
type Pool struct {
	module   *Module
	settings Settings
	snapshot *snapshot // nil where each call gets a new instance
	created  atomic.Uint64
	resets   atomic.Uint64
	closed   atomic.Uint64
	mu       sync.Mutex
	free     []*instance // prepared, and not leased
	memory   uint64      // the largest, of leases that were released
}

// Fits returns a *[RefusedError] where the module does not fit the settings.
func (m *Module) Fits(s Settings) error {
	s = s.withDefaults()
	if need := m.description.Memory.Min; need > s.Memory {
		return &RefusedError{[]string{fmt.Sprintf("its memory has %d bytes at the start, and the limit is %d: --memory raises it", need, s.Memory)}}
	}
	if err := m.fitsCommand(&s.Command); err != nil {
		return err
	}
	if string(s.Context) != string(abi.Null) && !m.Exports(abi.ExportSetup) {
		return &RefusedError{[]string{`a context is given, and the module has no export "setup"`}}
	}
	return nil
}

// Prepare compiles the module, where that was not done, and makes an instance, which runs _initialize and setup, and takes the
// snapshot of it. The error is an *[InitError] for what the guest did, a
// *[RefusedError] where the module does not fit the settings, or ctx's.
func (m *Module) Prepare(ctx context.Context, s Settings) (*Pool, error) {
	if err := m.Fits(s); err != nil {
		return nil, err
	}
	if err := m.Compile(ctx); err != nil {
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
	p.free = append(p.free, first)
	return p, nil
}

// Isolation returns how calls get fresh state: as the settings say, but always
// by a new instance where the module does what no reset undoes.
func (p *Pool) Isolation() Isolation {
	able := p.module.description.Isolation
	command := p.module.description.Command && p.settings.Isolation == IsolationNone // a program starts once
	if p.settings.Isolation == "" || able == IsolationInstance || command {
		return able
	}
	return p.settings.Isolation
}

// Stats returns how many instances were made, reset and closed so far. Resets
// and memory count once their lease is released.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{Created: p.created.Load(), Resets: p.resets.Load(), Closed: p.closed.Load(), Memory: p.memory}
}

// Close closes all instances. Leases must have been released.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range p.free {
		p.drop(i)
	}
	p.free = nil
	if p.snapshot != nil {
		p.snapshot.image.Close()
	}
	return nil
}

// Instance is the right of one worker to call the guest; it is used by one
// goroutine at a time. Release it in the end.
type Instance struct {
	pool   *Pool
	log    Log
	ended  func(memory []byte)
	held   *instance // nil before the first call, and where it broke
	resets uint64    // that the pool does not count yet
	memory uint64    // the largest that a call had, in bytes
	last   uint64    // that of the last call
	_      [8]byte   // no other worker's on the cache line that each call writes
}

// Lease returns an instance whose log lines go to log; nil drops them.
func (p *Pool) Lease(log Log) *Instance { return &Instance{pool: p, log: log} }

// Release gives the instance back.
func (i *Instance) Release() {
	i.pool.resets.Add(i.resets)
	i.resets = 0
	i.pool.mu.Lock()
	defer i.pool.mu.Unlock()
	i.pool.memory = max(i.pool.memory, i.memory)
	if i.held == nil {
		return
	}
	i.pool.free = append(i.pool.free, i.held)
	i.held = nil
}

// Call runs exec, aggregate or merge, which the module must export, on fresh
// state, where exec of a WASI command is its _start, and appends the output, one CBOR item, to dst, which it returns also on
// error. fuel is what a call that succeeded has used, with its alloc. input is
// only read.
//
// The error is an *[abi.Failure] for what the guest did, or ctx's where that
// ended first.
func (i *Instance) Call(ctx context.Context, function string, input, dst []byte) (output []byte, fuel uint64, err error) {
	inst, err := i.fresh(ctx)
	if err != nil {
		return dst, 0, hostFailure(ctx, err)
	}
	view, fuel, err := inst.call(ctx, &i.pool.settings, function, input, i.log)
	i.last = uint64(inst.module.Memory().Size())
	i.memory = max(i.memory, i.last)
	if i.ended != nil {
		if memory, ok := inst.module.Memory().Read(0, uint32(i.last)); ok {
			i.ended(memory)
		}
	}
	if err == nil {
		dst = append(dst, view...)
		inst.dirty = i.pool.Isolation() != IsolationNone
	}
	if inst.broken || i.pool.snapshot == nil {
		i.pool.drop(inst)
		i.held = nil
	}
	return dst, fuel, err
}

// MemorySize returns the bytes of linear memory that the last call ended with; 0
// before the first.
func (i *Instance) MemorySize() uint64 { return i.last }

// AtEnd has f see the linear memory with which each call from now on ends,
// however it does. f may read it until it returns.
func (i *Instance) AtEnd(f func(memory []byte)) { i.ended = f }

// fresh returns the instance that is held, in the state of the snapshot.
func (i *Instance) fresh(ctx context.Context) (*instance, error) {
	if i.held == nil {
		i.held = i.pool.take()
	}
	if i.held != nil && i.held.dirty {
		if i.held.reset(i.pool.snapshot) == nil {
			i.resets++ // workers that share a counter wait for each other
		} else { // it cannot go back, so a new one takes its place
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

// take returns an instance that nobody has leased, or nil.
func (p *Pool) take() *instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.free) - 1
	if last < 0 {
		return nil
	}
	i := p.free[last]
	p.free = p.free[:last]
	return i
}

// another returns a further instance: a clone of the snapshot, where there is
// one.
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

// fresh makes an instance that has run _initialize and setup itself.
func (p *Pool) fresh(ctx context.Context) (*instance, error) {
	i, err := p.instantiate(ctx)
	if err != nil {
		return nil, err
	}
	if err := i.prepare(ctx, &p.settings); err != nil {
		p.drop(i)
		return nil, err
	}
	return i, nil
}

func (p *Pool) instantiate(ctx context.Context) (*instance, error) {
	p.created.Add(1)
	i, err := newInstance(ctx, p.module, &p.settings)
	if err != nil {
		p.closed.Add(1)
	}
	return i, err
}

// drop closes an instance.
func (p *Pool) drop(i *instance) {
	i.close()
	p.closed.Add(1)
}
