package runtime

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
	"github.com/wasm-jobs/wasm-jobs/runtime/linear"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

// RefusedError says why a module cannot be run: every reason that can be known
// at once, one line each, naming the thing and, where it has a place in the
// file, the byte.
type RefusedError struct {
	Problems []string
}

// Error returns all problems in one line.
func (e *RefusedError) Error() string {
	if len(e.Problems) == 1 {
		return "module refused: " + e.Problems[0]
	}
	return fmt.Sprintf("module refused for %d problems: %s", len(e.Problems), strings.Join(e.Problems, "; "))
}

// Description is what can be said about a module without compiling it. Of a
// refused module it holds what could be read.
type Description struct {
	SHA256    string        `json:"sha256"` // of the file, in hex
	Size      int           `json:"size"`   // of the file, in bytes
	Accepted  bool          `json:"accepted"`
	Problems  []string      `json:"problems"`          // why it is not accepted
	Command   bool          `json:"command,omitempty"` // it is a WASI command: _start and no exec
	Exports   []Item        `json:"exports"`
	Imports   []Item        `json:"imports"`
	Memory    *MemoryLimits `json:"memory,omitempty"`    // nil where there is none
	Functions int           `json:"functions"`           // imported ones are not counted
	CodeSize  int           `json:"code_size"`           // bytes of the code section
	DataSize  int           `json:"data_size"`           // bytes of the data section
	Names     bool          `json:"names"`               // stack traces show names of functions
	Producers []string      `json:"producers"`           // from the custom section of that name
	Isolation Isolation     `json:"isolation,omitempty"` // how its calls get fresh state; "" where refused
	Lasting   []string      `json:"lasting,omitempty"`   // why Isolation is instance: what no reset undoes
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

// maxPages is one below 2^16, for which compiled code sees a size of 0.
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

// Inspect describes a module and says whether [Runtime.Admit] would refuse it.
// It never compiles, and its time and memory are linear in len(wasm).
func Inspect(wasm []byte) *Description { return admitted(wasm, Options{}).Description }

// admission is what there is to know of a module to run it, or why it is refused.
type admission struct {
	Description *Description
	Globals     []rewrite.Global
	Stack       int64
	wasm        []byte // rewritten; nil where refused
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
		d.Accepted, d.Problems = false, []string{"it cannot be metered: " + err.Error()}
		return a
	}
	d.Isolation = IsolationReset
	for _, reason := range result.Lasting {
		d.Isolation, d.Lasting = IsolationInstance, append(d.Lasting, reason.String())
	}
	a.Globals, a.Stack, a.wasm = result.Globals, result.Stack, result.Wasm
	return a
}

// exportsFunction reports whether the module exports the function of that name,
// one of the ABI's.
func (d *Description) exportsFunction(name string) bool {
	return slices.ContainsFunc(d.Exports, func(e Item) bool { return e.Name == name && e.Type != "" })
}

// admit reads and checks a module.
func admit(wasm []byte) (*binary.Module, *Description) {
	m, problems := binary.Parse(wasm)
	sum := sha256.Sum256(wasm)
	d := &Description{SHA256: hex.EncodeToString(sum[:]), Size: len(wasm), Problems: []string{}}
	for _, p := range problems {
		d.Problems = append(d.Problems, p.Error())
	}
	// Indices are safe to follow only in a sound module.
	if len(problems) == 0 {
		d.fill(m)
		d.Problems = append(d.Problems, checkMemory(m)...)
		d.Problems = append(d.Problems, checkExports(m)...)
		d.Problems = append(d.Problems, checkImports(m)...)
	}
	d.Accepted = len(d.Problems) == 0
	return m, d
}

func (d *Description) fill(m *binary.Module) {
	d.Command = isCommand(m)
	d.Functions = len(m.Bodies)
	d.Names = m.Names && hasSection(m, "name")
	d.Producers = append([]string{}, m.Producers...)
	d.Exports, d.Imports = []Item{}, []Item{}
	for _, e := range m.Exports {
		item := Item{Name: e.Name, Kind: e.Kind.String()}
		if e.Kind == binary.KindFunc {
			item.Type = m.FuncType(e.Index).String()
		}
		d.Exports = append(d.Exports, item)
	}
	for _, i := range m.Imports {
		item := Item{Module: i.Module, Name: i.Name, Kind: i.Kind.String()}
		if i.Kind == binary.KindFunc {
			item.Type = m.Types[i.Type].String()
		}
		d.Imports = append(d.Imports, item)
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

func hasSection(m *binary.Module, name string) bool {
	return slices.ContainsFunc(m.Sections, func(s binary.Section) bool { return s.Name == name })
}

func checkMemory(m *binary.Module) (problems []string) {
	e, ok := m.Export(abi.ExportMemory)
	switch {
	case ok && e.Kind == binary.KindMemory:
	case ok:
		problems = append(problems, fmt.Sprintf("export %q is a %s, expected a memory", e.Name, e.Kind))
	case len(m.Memories) > 0:
		problems = append(problems, fmt.Sprintf("the memory is not exported: export it as %q", abi.ExportMemory))
	default:
		problems = append(problems, fmt.Sprintf("export %q is missing, expected a memory", abi.ExportMemory))
	}
	// Compiled code takes a memory of exactly 2^16 pages for an empty one.
	if len(m.Memories) > 0 && m.Memories[0].Min > maxPages {
		problems = append(problems, fmt.Sprintf("the memory has at least %d pages of 64 KiB, of which %d are allowed", m.Memories[0].Min, maxPages))
	}
	return problems
}

func checkExports(m *binary.Module) (problems []string) {
	command := isCommand(m)
	for _, want := range exported {
		e, ok := m.Export(want.name)
		switch {
		case !command && want.name == abi.ExportStart: // which nobody calls
		case !ok && needed(m, want.name, want.needed, command):
			problems = append(problems, fmt.Sprintf("export %q is missing, expected func %s", want.name, want.signature))
		case !ok:
		case e.Kind != binary.KindFunc:
			problems = append(problems, fmt.Sprintf("export %q is a %s, expected func %s", want.name, e.Kind, want.signature))
		case m.FuncType(e.Index).String() != want.signature:
			problems = append(problems, fmt.Sprintf("export %q has type %s, expected %s", want.name, m.FuncType(e.Index), want.signature))
		}
	}
	return problems
}

// needed reports whether a module must export a function: a command needs alloc
// only where it takes more than chunks.
func needed(m *binary.Module, name string, always, command bool) bool {
	if !command || name != abi.ExportAlloc {
		return always && !command
	}
	return slices.ContainsFunc([]string{abi.ExportAggregate, abi.ExportMerge, abi.ExportSetup}, func(name string) bool {
		_, ok := m.Export(name)
		return ok
	})
}

// maxImportProblems bounds the lines about imports: a module for browsers has
// hundreds that nobody serves.
const maxImportProblems = 50

func checkImports(m *binary.Module) (problems []string) {
	for i, imp := range m.Imports {
		if len(problems) == maxImportProblems {
			return append(problems, fmt.Sprintf("%d more imports were not checked", len(m.Imports)-i))
		}
		if problem := checkImport(m, imp); problem != "" {
			problems = append(problems, fmt.Sprintf("import %s.%s (%s): %s", quote(imp.Module), quote(imp.Name), imp.Kind, problem))
		}
	}
	return problems
}

func checkImport(m *binary.Module, imp binary.Import) string {
	served, known := imports[imp.Module]
	if !known {
		return fmt.Sprintf("only %s and %s are served", abi.WASIModule, abi.ImportModule)
	}
	want, known := served[imp.Name]
	if !known {
		return "not served; " + imp.Module + " has " + strings.Join(slices.Sorted(maps.Keys(served)), ", ")
	}
	if imp.Kind != binary.KindFunc {
		return "expected func " + want
	}
	if got := m.Types[imp.Type].String(); got != want {
		return fmt.Sprintf("has type %s, expected %s", got, want)
	}
	return ""
}

// quote shows a name of the guest's choice in one short line.
func quote(name string) string {
	const limit = 100
	if len(name) > limit {
		return fmt.Sprintf("%q...", cutText(name, limit))
	}
	return fmt.Sprintf("%q", name)
}
