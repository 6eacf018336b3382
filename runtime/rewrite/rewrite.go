// Package rewrite changes modules so that a host can limit, repeat and reset
// them. It meters them, limits the depth of calls, makes the bits of NaNs
// independent of the machine, and exports the globals that a reset must
// restore.
//
// A rewritten module computes the same as the original (Core Specification,
// section 4), with the same fuel on every engine. METERING.md in this directory
// has the cost table and the duties of the host.
package rewrite

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
)

// Version is the version of the cost table, of the stack charges and of the
// choice of NaNs that become canonical: the results and costs of a module can
// only change with it.
const Version = 1

// Names of the additions to a module. Names that start with Module are
// reserved: a module that imports from it or exports such a name is refused.
const (
	// Module is the module that a metered module imports Yield from.
	Module = "wasm_jobs_meter"
	// Yield is the name of the function (fuel i64, stack i64) -> i64 that a
	// metered module calls when one of the two is negative.
	Yield = "yield"
	// FuelExport is the mutable i64 global with the remaining fuel.
	FuelExport = Module + ".fuel"
	// StackExport is the mutable i64 global with the stack that the callee may
	// use.
	StackExport = Module + ".stack"

	globalExport = Module + ".global."
)

// Injected are the names of the additions in the stack traces of a metered
// module with a name section: the import, and the functions at the end.
var Injected = []string{Module + "." + Yield, Module + ".refill", Module + ".fill", Module + ".copy"}

// DefaultStack is the number of slots of 8 bytes that calls may take together
// if Options.Stack is 0: 8 MiB. It is enough for 130,000 calls of a function of
// a few instructions, and far below the 50 MB at which the engine's own limit
// begins, which depends on the earlier calls of an instance.
const DefaultStack = 1 << 20

// The stack that a call takes: its parameters, locals and operands, the
// engine's data in each frame, and a slot for every two values that may need
// their own slot for the whole function: values stored in a local, results of
// calls, and operands without a register.
const (
	frameOverhead = 6
	valuesPerSlot = 2
	registers     = 8
)

// Units of fuel that an instruction costs by size, in addition to its own unit:
// one unit for 8 bytes of memory or for an entry of a table. METERING.md has
// the measurements.
const (
	byteShift    = 3
	unitsPerPage = 65536 >> byteShift // of memory that grew
)

// Options select the changes. The zero value makes NaNs canonical and exports
// globals.
type Options struct {
	// Metering adds fuel and the limit of the stack.
	Metering bool
	// NativeNaNs keeps the bits of NaNs from the machine.
	NativeNaNs bool
	// Stack is the limit of the stack in slots of 8 bytes; 0 is DefaultStack.
	Stack uint32
	// Arch is the architecture, as in GOARCH, that the engine compiles for. Code
	// that it compiles wrongly there is replaced. "" is the architecture of this
	// process. Results and costs do not depend on it.
	Arch string
}

// Result is a rewritten module.
type Result struct {
	Wasm []byte
	// Globals are the mutable globals of the original, which a reset must
	// restore, as exported by the rewritten module.
	Globals []Global
	// Stack is the value that the global StackExport must have at the start of
	// each call from the host; 0 without metering.
	Stack int64
	// NotResettable has the reasons why restoring memory and Globals does not
	// restore the state of an instance, at most one for each kind of change. If
	// it is empty, it does.
	NotResettable []Reason
	// Fixes is the [FixesVersion] that may have changed outputs of the module,
	// because the engine compiled part of it wrongly before; 0 if there is none.
	// It is the same on all architectures.
	Fixes int
}

// Global is an exported mutable global.
type Global struct {
	Export string
	Type   binary.ValueType
	index  uint32
}

// Reason is a change that cannot be undone, and its first position.
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

// Error reports why a module cannot be rewritten.
type Error struct {
	Function int // index in the original; -1 outside of functions
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
// gives one that an engine refuses. Time is linear in len(wasm). The result is
// at most 12 times as long plus a few hundred bytes, and plus a line table if the
// module has one: its debug information is dropped otherwise.
func Rewrite(wasm []byte, m *binary.Module, o Options) (*Result, error) {
	if err := checkNames(m); err != nil {
		return nil, err
	}
	if o.Stack == 0 {
		o.Stack = DefaultStack
	}
	if o.Arch == "" {
		o.Arch = runtime.GOARCH
	}
	w := &module{wasm: wasm, m: m, o: o, lasting: map[string]Reason{}, lines: newLines(wasm, m)}
	if err := w.scan(); err != nil {
		return nil, err
	}
	r := &Result{Globals: w.exported()}
	if o.Metering {
		r.Stack = int64(o.Stack)
	}
	r.NotResettable = w.reasons()
	var err error
	r.Wasm, err = w.write(r.Globals)
	r.Fixes = w.fixes
	return r, err
}

func checkNames(m *binary.Module) error {
	for _, i := range m.Imports {
		if i.Module == Module {
			return &Error{-1, i.Offset, fmt.Sprintf("import from the reserved module %q", i.Module)}
		}
	}
	for _, e := range m.Exports {
		if strings.HasPrefix(e.Name, Module) {
			return &Error{-1, e.Offset, fmt.Sprintf("export %q with the reserved prefix %q", e.Name, Module)}
		}
	}
	return nil
}
