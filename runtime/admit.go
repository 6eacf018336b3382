package runtime

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
	"github.com/wasm-jobs/wasm-jobs/runtime/linear"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

// RefusedError reports why a module cannot be run: all reasons that can be
// found at once, one line each. Each names the part of the module and, if it
// has a position in the file, the byte.
type RefusedError struct {
	Problems []string
	// Setting is the setting that the module does not fit. The only problem
	// then names it if another value helps. It is "" if the module itself is
	// invalid.
	Setting Setting
}

// refusedFor returns the error for a module that does not fit a setting.
func refusedFor(s Setting, problem string) *RefusedError {
	return &RefusedError{Problems: []string{problem}, Setting: s}
}

// Error returns all problems in one line.
func (e *RefusedError) Error() string {
	if len(e.Problems) == 1 {
		return "module refused: " + e.Problems[0]
	}
	return fmt.Sprintf("module refused for %d problems: %s", len(e.Problems), strings.Join(e.Problems, "; "))
}

// Description describes a module without compiling it. For a refused module, it
// has the parts that could be read: Exports and Imports are nil if they could
// not be read.
type Description struct {
	SHA256        string        `json:"sha256"` // of the file, in hex
	Size          int           `json:"size"`   // of the file, in bytes
	Accepted      bool          `json:"accepted"`
	Problems      []string      `json:"problems"`          // why it is refused
	Notes         []string      `json:"notes"`             // possible mistakes, also of accepted modules
	Command       bool          `json:"command,omitempty"` // a WASI command: exports _start and no exec
	Exports       []Item        `json:"exports"`
	Imports       []Item        `json:"imports"`
	Memory        *MemoryLimits `json:"memory,omitempty"`    // nil if there is none
	Functions     int           `json:"functions"`           // without imported ones
	CodeSize      int           `json:"code_size"`           // bytes of the code section
	DataSize      int           `json:"data_size"`           // bytes of the data section
	Names         bool          `json:"names"`               // stack traces show function names
	Producers     []string      `json:"producers"`           // from the custom section of that name
	Isolation     Isolation     `json:"isolation,omitempty"` // how calls get fresh state; "" if refused
	NotResettable []string      `json:"lasting,omitempty"`   // why Isolation is instance: effects that a reset does not undo
	// EngineFixes is the version of the fixes of the engine's compiler that may
	// have changed outputs of the module; 0 if there is none. It depends on
	// Options.NativeNaNs.
	EngineFixes int `json:"engine_fixes,omitempty"`
}

// Item is one export or import.
type Item struct {
	Module string `json:"module,omitempty"` // of an import
	Name   string `json:"name"`
	Kind   string `json:"kind"`           // func, table, memory or global
	Type   string `json:"type,omitempty"` // of a func, as in "(i32, i32) -> i64"
}

// MemoryLimits are the limits that a module declares for its memory, in bytes.
type MemoryLimits struct {
	Min uint64 `json:"min"`
	Max uint64 `json:"max,omitempty"` // 0 = none
}

const pageSize = linear.PageSize

// maxPages is one less than 2^16: compiled code sees 2^16 pages as a size of 0.
const maxPages = linear.MaxLimit / pageSize

// exported are the functions of the guest ABI, version 1, with their types.
var exported = []struct {
	name, signature string
	needed          bool
}{
	{abi.ExportAlloc, "(i32) -> i32", true},
	{abi.ExportExec, "(i32, i32) -> i64", true},
	{abi.ExportAggregate, "(i32, i32) -> i64", false},
	{abi.ExportMerge, "(i32, i32) -> i64", false},
	{abi.ExportSetup, "(i32, i32) -> i64", false},
	{abi.ExportInitialize, "() -> ()", false},
	{abi.ExportStart, "() -> ()", false},
}

// Inspect describes a module and reports whether [Runtime.Admit] would refuse
// it. It never compiles. Its time and memory are linear in len(wasm).
func Inspect(wasm []byte) *Description { return admitted(wasm, Options{}).Description }

// EngineFixes returns the EngineFixes of a module's description, without
// keeping the module; 0 if it is refused. Its time is linear in len(wasm).
func EngineFixes(wasm []byte, o Options) int { return admitted(wasm, o).Description.EngineFixes }

// admission has everything that is needed to run a module, or the reasons for
// its refusal.
type admission struct {
	Description *Description
	Globals     []rewrite.Global
	Stack       int64
	wasm        []byte // rewritten; nil if refused
}

// admitted admits and rewrites a module.
func admitted(wasm []byte, o Options) *admission {
	m, d := admit(wasm)
	a := &admission{Description: d}
	if !d.Accepted {
		return a
	}
	if !m.Names {
		wasm = m.WithoutNames(wasm)
		m, _ = binary.Parse(wasm)
	}
	result, err := rewrite.Rewrite(wasm, m, rewrite.Options{Metering: !o.NoMetering, NativeNaNs: o.NativeNaNs})
	if err != nil {
		d.Accepted, d.Problems = false, []string{"cannot meter the module: " + err.Error()}
		return a
	}
	d.Isolation = IsolationReset
	for _, reason := range result.NotResettable {
		d.Isolation, d.NotResettable = IsolationInstance, append(d.NotResettable, reason.String())
	}
	a.Globals, a.Stack, a.wasm = result.Globals, result.Stack, result.Wasm
	d.EngineFixes = result.Fixes
	return a
}

// exportsFunction reports whether the module exports the named function of the
// ABI.
func (d *Description) exportsFunction(name string) bool {
	return slices.ContainsFunc(d.Exports, func(e Item) bool { return e.Name == name && e.Type != "" })
}

// admit reads and checks a module.
func admit(wasm []byte) (*binary.Module, *Description) {
	m, problems := binary.Parse(wasm)
	sum := sha256.Sum256(wasm)
	d := &Description{SHA256: hex.EncodeToString(sum[:]), Size: len(wasm), Problems: []string{}, Notes: []string{}}
	for _, p := range problems {
		d.Problems = append(d.Problems, p.Error())
	}
	d.fill(m)
	// Indices are safe to follow only in a valid module.
	switch {
	case m.Whole && isObject(m):
		d.Problems = []string{objectFile}
	case len(problems) == 0:
		d.Problems = append(d.Problems, checkMemory(m)...)
		d.Problems = append(d.Problems, checkExports(m)...)
		d.Problems = append(d.Problems, checkImports(m)...)
	default:
		d.Problems = append(d.Problems, foreignImports(m)...)
	}
	d.Accepted = len(d.Problems) == 0
	return m, d
}

func (d *Description) fill(m *binary.Module) {
	d.Functions = len(m.Bodies)
	d.Names = m.Names && hasSection(m, "name")
	d.Producers = append([]string{}, m.Producers...)
	if m.Reached(binary.SectionExport) {
		d.Command = isCommand(m)
		d.Notes = append(d.Notes, notes(m)...)
		d.Exports = []Item{}
		for _, e := range m.Exports {
			d.Exports = append(d.Exports, Item{Name: e.Name, Kind: e.Kind.String(), Type: typeOf(m, e)})
		}
	}
	if m.Reached(binary.SectionImport) {
		d.Imports = []Item{}
		for _, i := range m.Imports {
			item := Item{Module: i.Module, Name: i.Name, Kind: i.Kind.String()}
			if i.Kind == binary.KindFunc && int(i.Type) < len(m.Types) {
				item.Type = m.Types[i.Type].String()
			}
			d.Imports = append(d.Imports, item)
		}
	}
	for _, s := range m.Sections {
		switch s.ID {
		case binary.SectionCode:
			d.CodeSize = s.End - s.Start
		case binary.SectionData:
			d.DataSize = s.End - s.Start
		}
	}
	if len(m.Memories) > 0 {
		memory := m.Memories[0]
		d.Memory = &MemoryLimits{Min: uint64(memory.Min) * pageSize}
		if memory.HasMax {
			d.Memory.Max = uint64(memory.Max) * pageSize
		}
	}
}

// typeOf returns the type of an exported function, even of an invalid module,
// and "" for other exports.
func typeOf(m *binary.Module, e binary.Export) string {
	if e.Kind != binary.KindFunc || int(e.Index) >= len(m.Functions) || int(m.Functions[e.Index]) >= len(m.Types) {
		return ""
	}
	return m.FuncType(e.Index).String()
}

func hasSection(m *binary.Module, name string) bool {
	return slices.ContainsFunc(m.Sections, func(s binary.Section) bool { return s.Name == name })
}

func checkMemory(m *binary.Module) (problems []string) {
	e, ok := m.Export(abi.ExportMemory)
	switch {
	case ok && e.Kind == binary.KindMemory:
	case ok:
		problems = append(problems, fmt.Sprintf("export %q is a %s: want a memory", e.Name, e.Kind))
	case len(m.Memories) > 0:
		problems = append(problems, fmt.Sprintf("the memory is not exported: export it as %q", abi.ExportMemory))
	default:
		problems = append(problems, fmt.Sprintf("missing export %q: want a memory", abi.ExportMemory))
	}
	// Compiled code treats a memory of exactly 2^16 pages as empty.
	if len(m.Memories) > 0 && m.Memories[0].Min > maxPages {
		problems = append(problems, fmt.Sprintf("the memory is too large: at least %d pages of 64 KiB, more than the limit of %d", m.Memories[0].Min, maxPages))
	}
	return problems
}

func checkExports(m *binary.Module) (problems []string) {
	command := isCommand(m)
	for _, want := range exported {
		e, ok := m.Export(want.name)
		switch {
		case !command && want.name == abi.ExportStart: // nobody calls it
		case !ok && needed(m, want.name, want.needed, command):
			problems = append(problems, fmt.Sprintf("missing export %q: want func %s", want.name, want.signature))
		case !ok:
		case e.Kind != binary.KindFunc:
			problems = append(problems, fmt.Sprintf("export %q is a %s: want func %s", want.name, e.Kind, want.signature))
		case m.FuncType(e.Index).String() != want.signature:
			problems = append(problems, fmt.Sprintf("export %q has type %s: want %s", want.name, m.FuncType(e.Index), want.signature))
		}
	}
	return problems
}

// needed reports whether a module must export a function. A command needs alloc
// only if it has functions other than _start.
func needed(m *binary.Module, name string, always, command bool) bool {
	if !command || name != abi.ExportAlloc {
		return always && !command
	}
	return slices.ContainsFunc([]string{abi.ExportAggregate, abi.ExportMerge, abi.ExportSetup}, func(name string) bool {
		_, ok := m.Export(name)
		return ok
	})
}

// quote returns a name from the guest as one short line.
func quote(name string) string {
	const limit = 100
	if len(name) > limit {
		return fmt.Sprintf("%q...", cutText(name, limit))
	}
	return fmt.Sprintf("%q", name)
}
