// Package wasi serves wasi_snapshot_preview1 to guests that must not see the
// machine they run on.
//
// Nothing real reaches a guest: no clock, no entropy, no environment, no network,
// no other process, and of files only what a [Tree] holds. What a guest observes through these functions
// is a function of the [Config] and the [Call] that its [State] was made and
// reset with, and of the calls it made since; a reset state cannot be told from
// a new one.
//
// No call blocks, and none allocates once its state has seen a call of its
// kind. Work that grows with what a guest asks for is bounded, and announced
// in pieces through [Config.Charge], so that a metered runtime can end a flood
// of it. Every address is checked before it is used. Apart from an [ExitError],
// no argument of a guest makes a function panic.
//
// The names, layouts and numbers are those of the witx files of
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

// Config is what a [State] keeps over all calls. Its zero value works.
type Config struct {
	// Args and Env are the arguments and the environment, as "KEY=value", of a
	// WASI command. Guests of all other kinds have none.
	Args, Env *Strings
	// Dirs are opened in advance, as descriptors 3 and following, to be read.
	Dirs []Dir

	// Charge, unless nil, is told of work before it is done: of how many bytes
	// are about to be read, written, hashed or made, at most 64 KiB at a time.
	// The sum is the same for the same calls. It counts what a guest can make
	// large, not the few bytes of a result of fixed size. It may panic to end
	// the call; the state is then fit for Reset.
	Charge func(units uint64)
}

// Call is what one call of a guest is about.
type Call struct {
	// Phase names the kind of call. Calls that differ in it get different
	// random bytes from the same seed and input.
	Phase string
	// Preparing tells that this is not a call but what precedes all calls: its
	// clocks start, and stay, before those of any call.
	Preparing bool
	Seed      uint64
	// Input keys the random bytes, with Phase and Seed. It is the caller's, who
	// must not change it before the next Reset.
	Input []byte

	// Stdin is what the guest reads from its standard input; nil is empty. It
	// is the caller's, as Input is.
	Stdin []byte
	// Stdout and Stderr take what the guest writes; nil discards it. They get
	// views of the guest's memory of at most 64 KiB, valid only in Write. An
	// error, or a short write, gives the guest a short write, or EIO where
	// nothing was written. What they return must depend on nothing but what was
	// written. A writer may panic to end the call.
	Stdout, Stderr io.Writer
}

// State is the host's side of WASI for one instance. It is used by one
// goroutine at a time.
type State struct {
	Config
	call   Call
	clock  clock
	random random
	files  []file
	read   int // of call.Stdin

	// Kept to save allocations; what they hold means nothing between calls.
	spans         []span
	subscriptions []subscription
}

// New returns a state that is reset to the zero Call.
func New(c Config) *State {
	s := &State{Config: c}
	s.Reset(Call{})
	return s
}

// Reset makes s what a new state would be, for the given call. It takes the
// same short time whatever went before and does not allocate. No function may
// be running on s.
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

// piece is the most work, in bytes, between two charges: some 0.1 ms where it
// is slowest, in hashing and in making random bytes.
const piece = 64 << 10

func (s *State) charge(bytes int) {
	if s.Charge != nil {
		s.Charge(uint64(bytes))
	}
}

// ExitError is what proc_exit panics, and proc_raise: the guest ended itself.
// The instance stays open, and can be reset and called again. Code 0 is what
// the guest calls success.
type ExitError struct {
	Code uint32
}

// Error names the code.
func (e *ExitError) Error() string { return fmt.Sprintf("guest exited with code %d", e.Code) }

// Find returns the state of the instance that calls, which is never nil. ctx is
// what the guest was called with; m is the instance. It runs in every call: a
// type assertion on a context of the caller's own takes 2 ns, Value on it 6, a
// sync.Map 10, a map under a lock 22.
type Find func(ctx context.Context, m api.Module) *State

// Instantiate makes the functions of this package importable by the modules of
// r, as the module wasi_snapshot_preview1.
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

// memoryOf returns the memory of m, which has no bytes where m has none: the
// engine then returns an interface that holds a nil pointer.
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
