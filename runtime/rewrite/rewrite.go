// Package rewrite changes modules so that a host can bound, repeat and reset
// what they do: it meters them, limits how deep calls go, makes the bits of
// NaNs independent of the machine, and exports the globals that a reset must
// restore.
//
// A rewritten module computes what the original computes (Core Specification,
// section 4), on every engine with the same fuel. METERING.md in this
// directory has the cost table and what the host must do.
package rewrite

import (
	"fmt"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
)

// Version is the version of the cost table, of where stack is charged and of
// which NaNs become canonical: what a module computes and costs can only
// change with it.
const Version = 1

// Names of what is added to a module. Everything that begins with Module is
// reserved: a module that imports from it or exports such a name is refused.
const (
	// Module is the module that a metered module imports Yield from.
	Module = "wasm_jobs_meter"
	// Yield is the name of the function (fuel i64, stack i64) -> i64 that a
	// metered module calls when one of the two is negative.
	Yield = "yield"
	// FuelExport is the mutable i64 global with what is left of the fuel.
	FuelExport = Module + ".fuel"
	// StackExport is the mutable i64 global with the stack left to the callee.
	StackExport = Module + ".stack"

	globalExport = Module + ".global."
)

// DefaultStack is how many slots of 8 bytes calls may take together where
// Options.Stack is 0: 8 MiB. That is 130,000 calls of a function of a few
// instructions, and stays far below the 50 MB at which the engine's own limit
// begins, which depends on what an instance did before.
const DefaultStack = 1 << 20

// What a call takes of the stack: its parameters, locals and operands, what the
// engine keeps in each frame, and a slot for every two values that may have one
// of their own for the whole function: what is stored in a local, what a call
// returns, and operands for which there is no register.
const (
	frameOverhead = 6
	valuesPerSlot = 2
	registers     = 8
)

// Units of fuel that an instruction costs by size, in addition to its own one:
// a unit for 8 bytes of memory or for an entry of a table. METERING.md has the
// measurements.
const (
	byteShift    = 3
	unitsPerPage = 65536 >> byteShift // of memory that grew
)

// Options say what to change. The zero value makes NaNs canonical and exports
// globals.
type Options struct {
	// Metering adds fuel and the limit of the stack.
	Metering bool
	// NativeNaNs leaves the bits of NaNs as the machine makes them.
	NativeNaNs bool
	// Stack is the limit of the stack in slots of 8 bytes; 0 is DefaultStack.
	Stack uint32
}

// Result is a rewritten module.
type Result struct {
	Wasm []byte
	// Globals are the mutable globals of the original, which a reset must
	// restore, as they are exported by the rewritten module.
	Globals []Global
	// Stack is the value of the global StackExport with which each call from
	// the host must begin; 0 without metering.
	Stack int64
	// Lasting are the reasons why restoring memory and Globals does not bring
	// an instance back to its state: at most one for each kind of change.
	// Where there is none, it does.
	Lasting []Reason
}

// Global is an exported mutable global.
type Global struct {
	Export string
	Type   binary.ValueType
	index  uint32
}

// Reason is one change that cannot be undone, and where it is first made.
type Reason struct {
	What     string // an instruction, such as "table.set", or a kind of global
	Function int    // index in the original; -1 for a global
	Offset   int    // in the original; 0 for a global
}

// String returns the reason and its place, in one line.
func (r Reason) String() string {
	if r.Function < 0 {
		return r.What
	}
	return fmt.Sprintf("%s in function %d (at byte %d)", r.What, r.Function, r.Offset)
}

// Error says why a module cannot be rewritten.
type Error struct {
	Function int // index in the original; -1 where it is none
	Offset   int // of the byte in the original
	Reason   string
}

// Error returns the reason and its place, in one line.
func (e *Error) Error() string {
	if e.Function < 0 {
		return fmt.Sprintf("%s (at byte %d)", e.Reason, e.Offset)
	}
	return fmt.Sprintf("function %d: %s (at byte %d)", e.Function, e.Reason, e.Offset)
}

// Rewrite returns a changed copy of wasm, a module that [binary.Parse] read as
// m without a problem. Errors are of type *[Error].
//
// Types are not checked: a module whose code has type errors is refused, or
// gives one that an engine refuses. Time is linear in len(wasm), and the
// result is at most 12 times as long, and some hundred bytes.
func Rewrite(wasm []byte, m *binary.Module, o Options) (*Result, error) {
	if err := checkNames(m); err != nil {
		return nil, err
	}
	if o.Stack == 0 {
		o.Stack = DefaultStack
	}
	w := &module{wasm: wasm, m: m, o: o, lasting: map[string]Reason{}}
	if err := w.scan(); err != nil {
		return nil, err
	}
	r := &Result{Globals: w.exported()}
	if o.Metering {
		r.Stack = int64(o.Stack)
	}
	r.Lasting = w.reasons()
	var err error
	r.Wasm, err = w.write(r.Globals)
	return r, err
}

func checkNames(m *binary.Module) error {
	for _, i := range m.Imports {
		if i.Module == Module {
			return &Error{-1, i.Offset, fmt.Sprintf("import from module %q, which is reserved", i.Module)}
		}
	}
	for _, e := range m.Exports {
		if strings.HasPrefix(e.Name, Module) {
			return &Error{-1, e.Offset, fmt.Sprintf("export %q, of which the beginning %q is reserved", e.Name, Module)}
		}
	}
	return nil
}
