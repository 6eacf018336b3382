package runtime_test

import (
	"slices"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Indices of the types of every guest of newGuest.
const (
	typeAlloc = iota // (i32) -> i32
	typeExec         // (i32, i32) -> i64
	typeVoid         // () -> ()
	typeNext         // the first of guest.types
)

const (
	codeI32 = 0x7f
	codeI64 = 0x7e
)

// guest describes a module to build: one page of memory, alloc and exec, and
// all that is set here.
type guest struct {
	types    [][]byte // from typeNext on
	imports  [][]byte // of functions
	bodies   []body   // after alloc and exec
	exports  [][]byte
	start    int          // index of a function; 0 = none
	alloc    []byte       // instructions of alloc; nil = returns 1024
	exec     []byte       // of exec; nil = returns the byte at 16
	sections []rawSection // other sections, in the order of the file
	customs  [][]byte     // name and content
	command  bool         // does not export exec
}

// body describes a function.
type body struct {
	kind   int      // index of its type
	locals [][2]int // groups: how many of which type
	code   []byte   // without its end
}

type rawSection struct {
	id      byte
	content []byte
}

func leb(n int) (b []byte) {
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

func sleb(n int) (b []byte) {
	for ; n < -64 || n > 63; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n)&0x7f)
}

func vector(items ...[]byte) []byte {
	return append(leb(len(items)), slices.Concat(items...)...)
}

func wasmName(s string) []byte { return append(leb(len(s)), s...) }

func functionType(params, results []byte) []byte {
	return slices.Concat([]byte{0x60}, leb(len(params)), params, leb(len(results)), results)
}

func wasmExport(name string, kind byte, index int) []byte {
	return slices.Concat(wasmName(name), []byte{kind}, leb(index))
}

func functionImport(module, name string, kind int) []byte {
	return slices.Concat(wasmName(module), wasmName(name), []byte{0}, leb(kind))
}

func (b body) bytes() []byte {
	groups := leb(len(b.locals))
	for _, g := range b.locals {
		groups = append(append(groups, leb(g[0])...), byte(g[1]))
	}
	size := len(groups) + len(b.code) + 1
	return slices.Concat(leb(size), groups, b.code, []byte{0x0b})
}

// returnByte is the code of an exec that returns the byte at 16.
var returnByte = append([]byte{0x42}, sleb(16<<32|1)...)

// first is the index of the first of g.bodies.
func (g *guest) first() int { return len(g.imports) + 2 }

func (g *guest) bytes() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	put := func(id byte, content []byte) {
		for len(g.sections) > 0 && place(g.sections[0].id) < place(id) {
			s := g.sections[0]
			g.sections = g.sections[1:]
			out = slices.Concat(out, []byte{s.id}, leb(len(s.content)), s.content)
		}
		if content != nil {
			out = slices.Concat(out, []byte{id}, leb(len(content)), content)
		}
	}
	types := [][]byte{functionType([]byte{codeI32}, []byte{codeI32}), functionType([]byte{codeI32, codeI32}, []byte{codeI64}), functionType(nil, nil)}
	put(1, vector(append(types, g.types...)...))
	if len(g.imports) > 0 {
		put(2, vector(g.imports...))
	}
	alloc, exec := g.alloc, g.exec
	if alloc == nil {
		alloc = append([]byte{0x41}, sleb(1024)...)
	}
	if exec == nil {
		exec = returnByte
	}
	bodies := append([]body{{typeAlloc, nil, alloc}, {typeExec, nil, exec}}, g.bodies...)
	var kinds, codes [][]byte
	for _, b := range bodies {
		kinds, codes = append(kinds, leb(b.kind)), append(codes, b.bytes())
	}
	put(3, vector(kinds...))
	put(5, []byte{1, 0, 1})
	n := len(g.imports)
	exports := [][]byte{wasmExport(abi.ExportMemory, 2, 0), wasmExport(abi.ExportAlloc, 0, n), wasmExport(abi.ExportExec, 0, n+1)}
	if g.command {
		exports = exports[:1]
	}
	put(7, vector(append(exports, g.exports...)...))
	if g.start > 0 {
		put(8, leb(g.start))
	}
	put(10, vector(codes...))
	put(99, nil)
	for _, c := range g.customs {
		out = slices.Concat(out, []byte{0}, leb(len(c)), c)
	}
	return out
}

// place returns the position of a section among the others: the data count
// comes before the code.
func place(id byte) int {
	if id == 12 {
		return 19
	}
	return int(id) * 2
}
