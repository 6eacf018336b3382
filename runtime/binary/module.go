package binary

import (
	"fmt"
	"slices"
)

// ValueType is the type of a value, by its code in the binary format.
type ValueType byte

// The types of WebAssembly 2.0.
const (
	I32       ValueType = 0x7f
	I64       ValueType = 0x7e
	F32       ValueType = 0x7d
	F64       ValueType = 0x7c
	V128      ValueType = 0x7b
	FuncRef   ValueType = 0x70
	ExternRef ValueType = 0x6f
)

// IsRef reports whether t is a reference type.
func (t ValueType) IsRef() bool { return t == FuncRef || t == ExternRef }

func (t ValueType) valid() bool { return t >= V128 && t <= I32 || t.IsRef() }

// String returns the name of the type in the text format.
func (t ValueType) String() string {
	switch t {
	case I32:
		return "i32"
	case I64:
		return "i64"
	case F32:
		return "f32"
	case F64:
		return "f64"
	case V128:
		return "v128"
	case FuncRef:
		return "funcref"
	case ExternRef:
		return "externref"
	}
	return fmt.Sprintf("0x%02x", byte(t))
}

// badType describes a byte that is not a supported value type.
func badType(b byte) string {
	switch {
	case b == 0x69:
		return "exnref (exception handling), which is not supported: " + withoutExceptions
	case b == 0x63, b == 0x64, b >= 0x65 && b <= 0x74 && !ValueType(b).IsRef():
		return fmt.Sprintf("0x%02x (typed references or garbage collection), which is not supported: %s", b, withoutReferences)
	}
	return fmt.Sprintf("0x%02x, want a value type", b)
}

// Kind is the kind of an import or export.
type Kind byte

// The kinds of imports and exports.
const (
	KindFunc   Kind = 0
	KindTable  Kind = 1
	KindMemory Kind = 2
	KindGlobal Kind = 3
	kindTag    Kind = 4
)

// String returns the word in the text format.
func (k Kind) String() string {
	if k <= kindTag {
		return [...]string{"func", "table", "memory", "global", "tag"}[k]
	}
	return fmt.Sprintf("kind 0x%02x", byte(k))
}

// FuncType is the type of a function.
type FuncType struct {
	Params, Results []ValueType
}

// String returns the type as in "(i32, i32) -> i64".
func (t FuncType) String() string { return tuple(t.Params) + " -> " + results(t.Results) }

func results(types []ValueType) string {
	if len(types) == 1 {
		return types[0].String()
	}
	return tuple(types)
}

// shownTypes is the number of types that a text names. No supported function has
// more (path_open of WASI has nine), so equal texts are equal types.
const shownTypes = 16

func tuple(types []ValueType) string {
	s := "("
	for i, t := range types {
		if i == shownTypes {
			return s + fmt.Sprintf(", and %d more)", len(types)-i)
		}
		if i > 0 {
			s += ", "
		}
		s += t.String()
	}
	return s + ")"
}

// Limits are the sizes of a table, in entries, or of a memory, in pages of
// 64 KiB.
type Limits struct {
	Min    uint32
	Max    uint32 // meaningless if HasMax is false
	HasMax bool
}

// Table is the type of a table.
type Table struct {
	Type ValueType
	Limits
}

// Global is the type of a global.
type Global struct {
	Type    ValueType
	Mutable bool
}

// Import is one import. Type is the index of a function's type; Kind says which
// of Type, Table, Memory and Global is set.
type Import struct {
	Module, Name string
	Kind         Kind
	Offset       int
	Type         uint32
	Table        Table
	Memory       Limits
	Global       Global
}

// Export is one export. Imports come first in its index.
type Export struct {
	Name   string
	Kind   Kind
	Index  uint32
	Offset int
}

// The ids of the sections.
const (
	SectionCustom byte = iota
	SectionType
	SectionImport
	SectionFunction
	SectionTable
	SectionMemory
	SectionGlobal
	SectionExport
	SectionStart
	SectionElement
	SectionCode
	SectionData
	SectionDataCount
	sectionTag
)

// Section is one section in the file.
type Section struct {
	ID         byte
	Name       string // of a custom section
	Head       int    // offset of its id
	Start, End int    // of its contents; in a custom section after the name
}

// Body is one function body in the file.
type Body struct {
	Offset     int // of its size
	Start      int // of the vector of locals
	Code, End  int // of the instructions
	Locals     int // declared locals, without parameters
	BrTargets  int // of all br_table instructions together
	MaxNesting int // levels of blocks
}

// Module is the structure of a module. It shares no memory with the file.
// Types, functions and so on are in the order of their indices; Functions,
// Tables, Memories and Globals begin with the imported ones.
type Module struct {
	Size      int
	Whole     bool // all sections were read
	Sections  []Section
	Types     []FuncType
	Imports   []Import
	Functions []uint32 // index of the type of each
	Tables    []Table
	Memories  []Limits
	Globals   []Global
	Exports   []Export
	Start     *uint32
	Bodies    []Body
	Data      int  // number of data segments
	NamesData bool // an instruction (memory.init or data.drop) names a data segment
	Elements  int  // number of element segments
	Entries   int  // of all element segments together

	ImportedFunctions int
	ImportedGlobals   int

	// Name is the module's name from the name section, or "" if it has none.
	Name string
	// Names reports whether an engine can read the name section, or there is
	// none. If it is false, pass [Module.WithoutNames] to the engine.
	Names bool
	// CommandExports reports whether the name section has a function
	// NAME.command_export, the wrapper that a linker puts around an export of a
	// command.
	CommandExports bool
	// Producers is the custom section "producers" as text, with lines such as
	// "language Rust", "processed-by clang 19.1".
	Producers []string
}

// Reached reports whether the section with that id was read completely, or a
// section that comes after it.
func (m *Module) Reached(id byte) bool {
	return m.Whole || slices.ContainsFunc(m.Sections, func(s Section) bool {
		return s.ID != SectionCustom && s.ID < sectionTag && order[s.ID] > order[id]
	})
}

// FuncType returns the type of the function with the given index, which must be
// in range. All indices in a parsed module are.
func (m *Module) FuncType(index uint32) FuncType { return m.Types[m.Functions[index]] }

// Export returns the export with that name.
func (m *Module) Export(name string) (Export, bool) {
	for _, e := range m.Exports {
		if e.Name == name {
			return e, true
		}
	}
	return Export{}, false
}

// WithoutNames returns a copy of wasm, the bytes that m was parsed from, without
// its name sections. They do not affect execution, and a malformed name section
// is not an error of the module (Core Specification, section 7.4).
func (m *Module) WithoutNames(wasm []byte) []byte {
	out := make([]byte, 0, len(wasm))
	from := 0
	for _, s := range m.Sections {
		if s.ID == SectionCustom && s.Name == "name" {
			out = append(out, wasm[from:s.Head]...)
			from = s.End
		}
	}
	return append(out, wasm[from:]...)
}
