// Package wasi implements wasi_snapshot_preview1 for guests that must not see their
// machine.
//
// Nothing real reaches a guest: no clock, no entropy, no environment, no network,
// no other process, and no files except those in a [Tree]. The results of these
// functions depend only on the [Config] and the [Call] that the [State] was made
// and reset with, and on the calls since then. A reset state cannot be told from a
// new one.
//
// No call blocks, and a call allocates only the first time that its state sees a
// call of its kind. Work that grows with the guest's arguments is bounded, and
// reported in pieces through [Config.Charge] before it is done, so that a metered
// runtime can stop a guest that asks for too much. Every address is checked before
// it is used. Apart from an [ExitError], no argument of a guest makes a function
// panic.
//
// The names, layouts and numbers come from the witx files of
// wasi_snapshot_preview1 (WebAssembly/WASI, legacy/preview1).
package wasi

import (
	"context"
	"fmt"
	"io"
	"reflect"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Config is the part of a [State] that stays the same for all calls. Its zero value
// works.
type Config struct {
	// Args and Env are the arguments and the environment, as "KEY=value", of a
	// WASI command. Other guests have none.
	Args, Env *Strings
	// Dirs are open for reading from the start, as descriptors 3 and up.
	Dirs []Dir

	// Charge, if not nil, is called before work is done, with the number of bytes
	// that are about to be read, written, hashed or made, at most 64 KiB at a time.
	// The sum is the same for the same calls. It counts only sizes that a guest can
	// choose, not the few bytes of a result of fixed size. Charge may panic to end
	// the call; Reset then makes the state usable again.
	Charge func(units uint64)
}

// Call describes one call of a guest.
type Call struct {
	// Phase names the kind of call. Calls with different phases get different
	// random bytes from the same seed and input.
	Phase string
	// Preparing is set before all calls, for preparing the instance: its clocks
	// stay before the start of any call.
	Preparing bool
	Seed      uint64
	// Input keys the random bytes, with Phase and Seed. The caller owns it and must
	// not change it before the next Reset.
	Input []byte

	// Stdin is the standard input of the guest; nil is empty. The caller owns it,
	// like Input.
	Stdin []byte
	// Stdout and Stderr get the bytes that the guest writes; if nil, they are
	// discarded. Write gets views of the guest's memory of at most 64 KiB, which
	// are valid only until it returns. After an error or a short write, the guest
	// sees a short write, or EIO if nothing was written. The results of Write must
	// depend only on the bytes written. A writer may panic to end the call.
	Stdout, Stderr io.Writer
}

// State is the host's side of WASI for one instance. Only one goroutine at a time
// may use it.
type State struct {
	Config
	call   Call
	clock  clock
	random random
	files  []file
	read   int // of call.Stdin

	// Kept to save allocations; the content has no meaning between calls.
	spans         []span
	subscriptions []subscription
}

// New returns a state that is reset to the zero Call.
func New(c Config) *State {
	s := &State{Config: c}
	s.Reset(Call{})
	return s
}

// Reset makes s equal to a new state, for the given call. It takes the same short
// time after any call and does not allocate. No function may be running on s.
func (s *State) Reset(c Call) {
	s.call = c
	s.clock.reset(c.Preparing)
	s.random.keyed = false
	s.files = append(s.files[:0], file{stream: stdin}, file{stream: stdout}, file{stream: stderr})
	for i := range s.Dirs {
		s.files = append(s.files, file{stream: directory, preopen: true, dir: uint32(i) + 1, node: s.Dirs[i].Tree.root})
	}
	s.read = 0
}

// piece is the maximum work between two charges, in bytes: about 0.1 ms in the
// slowest cases, hashing and making random bytes.
const piece = 64 << 10

func (s *State) charge(bytes int) {
	if s.Charge != nil {
		s.Charge(uint64(bytes))
	}
}

// ExitError is the panic value of proc_exit and proc_raise: the guest ended itself.
// The instance stays open, and can be reset and called again. By convention, code 0
// means success.
type ExitError struct {
	Code uint32
}

// Error returns a message with the code.
func (e *ExitError) Error() string { return fmt.Sprintf("guest exited with code %d", e.Code) }

// Find returns the state of the instance that calls, which is never nil. ctx is the
// context that the guest was called with, and m is the instance. It runs in every
// call: a type assertion on a context type of the caller takes 2 ns, Value of it 6,
// a sync.Map 10, and a map under a lock 22.
type Find func(ctx context.Context, m api.Module) *State

// Instantiate makes the functions of this package importable by modules of r, as
// the module wasi_snapshot_preview1.
func Instantiate(ctx context.Context, r wazero.Runtime, find Find) error {
	b := r.NewHostModuleBuilder(abi.WASIModule)
	for _, f := range functions {
		params, results := valueTypes(f.signature)
		b.NewFunctionBuilder().WithGoModuleFunction(serve(f.call, find), params, results).WithName(f.name).Export(f.name)
	}
	_, err := b.Instantiate(ctx)
	return err
}

func serve(call function, find Find) api.GoModuleFunc {
	return func(ctx context.Context, m api.Module, stack []uint64) {
		stack[0] = uint64(call(find(ctx, m), memoryOf(m), stack))
	}
}

// memoryOf returns the memory of m, or one without bytes if m has none: the engine
// then returns an interface that holds a nil pointer.
func memoryOf(m api.Module) api.Memory {
	memory := m.Memory()
	if reflect.ValueOf(memory).IsNil() {
		return noMemory{}
	}
	return memory
}

// noMemory refuses every access. Its other methods are never called.
type noMemory struct{ api.Memory }

func (noMemory) Read(uint32, uint32) ([]byte, bool) { return nil, false }
