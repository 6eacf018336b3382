package rewrite

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
)

// order is the order in the file of the sections that are always processed.
var order = []byte{
	binary.SectionType, binary.SectionImport, binary.SectionFunction, binary.SectionTable,
	binary.SectionMemory, binary.SectionGlobal, binary.SectionExport, binary.SectionStart,
	binary.SectionElement, binary.SectionDataCount, binary.SectionCode, binary.SectionData,
}

// module is a module that is being rewritten. Metering adds one imported
// function after the imported ones, up to three functions and types at the end,
// and two globals.
type module struct {
	wasm      []byte
	m         *binary.Module
	o         Options
	functions []summary // of the bodies
	data      []segment // replaces the original ones, unless nil
	lasting   map[string]Reason
	lines     *lines // nil if the module has no line table

	fixes       int    // of Result
	fuel, stack uint32 // indices of the injected globals
	refill      uint32 // of the injected function; fill and copy follow it
	spare       int    // compiler's work that is left for branches
}

// fixed notes that a fault which version avoids first may have changed outputs.
func (w *module) fixed(version int) { w.fixes = max(w.fixes, version) }

// scan summarizes all functions.
func (w *module) scan() error {
	s := newScanner(w.m, w.wasm)
	s.lasting = w.lasting
	w.functions = make([]summary, len(w.m.Bodies))
	for i := range w.m.Bodies {
		var err error
		if w.functions[i], err = s.function(i); err != nil {
			return err
		}
	}
	for i := range w.functions {
		w.weigh(&w.functions[i], 0)
	}
	w.data = joinData(w.wasm, w.m)
	w.fuel = uint32(len(w.m.Globals))
	w.stack = w.fuel + 1
	w.refill = uint32(len(w.m.Functions)) + 1
	w.spare = binary.JoinTime(len(w.wasm))
	return nil
}

// function returns the new index of a function.
func (w *module) function(index uint32) uint32 {
	if w.o.Metering && index >= uint32(w.m.ImportedFunctions) {
		return index + 1
	}
	return index
}

// body returns the summary of a function, or nil if it is imported or unknown.
func (w *module) body(index uint32) *summary {
	if index == unknown {
		return nil
	}
	if body := int(index) - w.m.ImportedFunctions; body >= 0 {
		return &w.functions[body]
	}
	return nil
}

// exported returns the mutable globals that can be restored.
func (w *module) exported() (globals []Global) {
	for i, g := range w.m.Globals {
		switch {
		case !g.Mutable:
		case i < w.m.ImportedGlobals:
			w.last("imported mutable global", -1, 0)
		case g.Type == binary.V128 || g.Type.IsRef():
			w.last("mutable global of type "+g.Type.String(), -1, 0)
		default:
			globals = append(globals, Global{fmt.Sprint(globalExport, i), g.Type, uint32(i)})
		}
	}
	return globals
}

func (w *module) last(what string, function, offset int) {
	if _, seen := w.lasting[what]; !seen {
		w.lasting[what] = Reason{what, function, offset}
	}
}

func (w *module) reasons() (all []Reason) {
	for _, r := range w.lasting {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Reason) int {
		if a.Offset != b.Offset {
			return a.Offset - b.Offset
		}
		return strings.Compare(a.What, b.What)
	})
	return all
}

// write returns the rewritten module.
func (w *module) write(globals []Global) ([]byte, error) {
	out := make([]byte, 0, len(w.wasm)*2+512)
	out = append(out, w.wasm[:8]...)
	size := 0 // of the code
	for _, id := range order {
		start, end := section(w.m, id)
		if start == end && !w.adds(id, globals) {
			continue
		}
		contents, err := w.contents(id, start, end, globals)
		if err != nil {
			return nil, err
		}
		if id == binary.SectionCode {
			size = len(contents)
		}
		out = appendSection(out, id, contents)
	}
	return w.lines.sections(w.custom(out), size), nil
}

// section returns the position of the contents of a section. If there is none,
// start is end.
func section(m *binary.Module, id byte) (start, end int) {
	for _, s := range m.Sections {
		if s.ID == id {
			return s.Start, s.End
		}
	}
	return 0, 0
}

// adds reports whether a section gets additions.
func (w *module) adds(id byte, globals []Global) bool {
	switch id {
	case binary.SectionType, binary.SectionImport, binary.SectionFunction, binary.SectionGlobal, binary.SectionCode:
		return w.o.Metering
	case binary.SectionExport:
		return w.o.Metering || len(globals) > 0
	}
	return false
}

func (w *module) contents(id byte, start, end int, globals []Global) ([]byte, error) {
	src := source{w.wasm, start}
	switch id {
	case binary.SectionExport:
		return w.exports(globals), nil
	case binary.SectionCode:
		return w.code(start, end)
	case binary.SectionDataCount:
		if w.data != nil {
			return appendU32(nil, uint32(len(w.data))), nil
		}
	case binary.SectionData:
		if w.data != nil {
			return w.dataSegments(), nil
		}
	}
	if !w.o.Metering {
		return w.wasm[start:end], nil
	}
	switch id {
	case binary.SectionType:
		return w.extend(start, end, w.types()...), nil
	case binary.SectionImport:
		entry := append(appendName(appendName(nil, Module), Yield), byte(binary.KindFunc))
		return w.extend(start, end, appendU32(entry, w.newType())), nil
	case binary.SectionFunction:
		added := [][]byte{appendU32(nil, w.newType())}
		if w.hasPieces() {
			added = append(added, appendU32(nil, w.pieceType()), appendU32(nil, w.pieceType()))
		}
		return w.extend(start, end, added...), nil
	case binary.SectionGlobal:
		return w.globals(start, end), nil
	case binary.SectionStart:
		return appendU32(nil, w.function(src.u32())), nil
	case binary.SectionElement:
		return w.elements(start), nil
	}
	return w.wasm[start:end], nil
}

// newType returns the index of the type of yield and of the function that calls
// it.
func (w *module) newType() uint32 { return uint32(len(w.m.Types)) }

func (w *module) types() [][]byte {
	types := [][]byte{{0x60, 2, byte(binary.I64), byte(binary.I64), 1, byte(binary.I64)}}
	if w.hasPieces() {
		types = append(types, pieceTypes...)
	}
	return types
}

// extend returns a vector with more entries.
func (w *module) extend(start, end int, entries ...[]byte) []byte {
	n := uint32(0)
	if start < end {
		src := source{w.wasm, start}
		n, start = src.u32(), src.pos
	}
	out := make([]byte, 0, end-start+64)
	out = appendU32(out, n+uint32(len(entries)))
	out = append(out, w.wasm[start:end]...)
	for _, e := range entries {
		out = append(out, e...)
	}
	return out
}

// globals adds the globals for fuel and stack.
func (w *module) globals(start, end int) []byte {
	src := source{w.wasm, start}
	n := uint32(0)
	if start < end {
		n = src.u32()
	}
	out := appendU32(nil, n+2)
	for range n {
		out = append(out, src.byte(), src.byte())
		out = w.expression(out, &src)
	}
	for _, v := range []int64{0, int64(w.o.Stack)} {
		out = append(out, byte(binary.I64), 1, byte(binary.OpI64Const))
		out = append(appendS64(out, v), byte(binary.OpEnd))
	}
	return out
}

// expression copies a constant expression.
func (w *module) expression(out []byte, src *source) []byte {
	r := binary.NewReader(w.wasm, src.pos, len(w.wasm))
	for r.More() {
		in := r.Next()
		if in.Op == binary.OpRefFunc {
			out = appendIndexed(out, in.Op, w.function(in.Index))
		} else {
			out = append(out, w.wasm[in.Offset:in.End]...)
		}
		if src.pos = in.End; in.Op == binary.OpEnd {
			break
		}
	}
	return out
}

func (w *module) exports(globals []Global) []byte {
	n := len(w.m.Exports) + len(globals)
	if w.o.Metering {
		n += 2
	}
	out := appendU32(nil, uint32(n))
	export := func(name string, kind binary.Kind, index uint32) {
		out = appendU32(append(appendName(out, name), byte(kind)), index)
	}
	for _, e := range w.m.Exports {
		if e.Kind == binary.KindFunc {
			e.Index = w.function(e.Index)
		}
		export(e.Name, e.Kind, e.Index)
	}
	for _, g := range globals {
		export(g.Export, binary.KindGlobal, g.index)
	}
	if w.o.Metering {
		export(FuelExport, binary.KindGlobal, w.fuel)
		export(StackExport, binary.KindGlobal, w.stack)
	}
	return out
}

// elements rewrites the element segments, in their eight forms: bit 0 means
// passive or declarative, bit 1 an explicit table or declarative, bit 2
// expressions instead of indices.
func (w *module) elements(start int) []byte {
	src := source{w.wasm, start}
	n := src.u32()
	out := appendU32(nil, n)
	for range n {
		form := src.u32()
		out = appendU32(out, form)
		if form&1 == 0 {
			if form&2 != 0 {
				out = appendU32(out, src.u32())
			}
			out = w.expression(out, &src)
		}
		if form&3 != 0 {
			out = append(out, src.byte())
		}
		entries := src.u32()
		out = appendU32(out, entries)
		for range entries {
			if form&4 != 0 {
				out = w.expression(out, &src)
			} else {
				out = appendU32(out, w.function(src.u32()))
			}
		}
	}
	return out
}

func (w *module) code(start, end int) ([]byte, error) {
	injected := w.injected()
	out := appendU32(make([]byte, 0, 2*(end-start)+256), uint32(len(w.m.Bodies)+len(injected)))
	e := newEmitter(w)
	for i := range w.m.Bodies {
		var err error
		if out, err = e.function(out, i); err != nil {
			return nil, err
		}
	}
	for _, body := range injected {
		out = append(appendU32(out, uint32(len(body))), body...)
	}
	return out, nil
}

// injected returns the bodies of the functions at the end.
func (w *module) injected() (bodies [][]byte) {
	if w.o.Metering {
		bodies = append(bodies, w.refillBody())
	}
	if w.hasPieces() {
		bodies = append(bodies, w.fillBody(), w.copyBody())
	}
	return bodies
}

// refillBody is the function (fuel, stack) -> fuel that calls yield. It changes
// the global by the same amount as the fuel: the granted fuel minus the global
// is still the fuel that was used at the last update of the global.
func (w *module) refillBody() []byte {
	const fuel, stack, result = 0, 1, 2
	b := []byte{1, 1, byte(binary.I64)}
	b = appendIndexed(b, binary.OpLocalGet, fuel)
	b = appendIndexed(b, binary.OpLocalGet, stack)
	b = appendIndexed(b, binary.OpCall, uint32(w.m.ImportedFunctions))
	b = appendIndexed(b, binary.OpLocalTee, result)
	b = appendIndexed(b, binary.OpGlobalGet, w.fuel)
	b = appendIndexed(b, binary.OpLocalGet, result)
	b = appendIndexed(b, binary.OpLocalGet, fuel)
	b = appendOp(appendOp(b, opI64Sub), opI64Add)
	b = appendIndexed(b, binary.OpGlobalSet, w.fuel)
	return appendOp(b, binary.OpEnd)
}

// custom appends the custom sections that an engine reads or that people want
// to see. All others are dropped: most refer to code that has moved. Of debug
// information, only the line table is written again.
func (w *module) custom(out []byte) []byte {
	for _, s := range w.m.Sections {
		if s.ID != binary.SectionCustom {
			continue
		}
		contents := w.wasm[s.Start:s.End]
		switch {
		case s.Name == "name" && w.m.Names:
			contents = w.names(contents)
		case s.Name == "producers", s.Name == "target_features":
		default:
			continue
		}
		out = appendSection(out, binary.SectionCustom, append(appendName(nil, s.Name), contents...))
	}
	return out
}

// names shifts the indices in a name section, and gives every function a name:
// a function without one gets its index in the original, because an engine
// would show the new index. It keeps subsections that do not refer to
// functions, and otherwise only names of functions and locals.
func (w *module) names(contents []byte) []byte {
	const module, functions, locals, labels = 0, 1, 2, 3
	var head, named, tail []byte
	for src := (source{contents, 0}); src.pos < len(contents); {
		switch id, sub := src.byte(), src.bytes(); id {
		case module:
			head = appendSection(head, id, sub)
		case functions:
			named = sub
		case locals:
			tail = appendSection(tail, id, w.localNames(sub))
		case labels:
		default:
			tail = appendSection(tail, id, sub)
		}
	}
	return append(appendSection(head, functions, w.functionNames(named)), tail...)
}

// functionNames names all functions, including the injected ones.
func (w *module) functionNames(sub []byte) []byte {
	names := make([]string, len(w.m.Functions))
	if src := (source{sub, 0}); len(sub) > 0 {
		for range src.u32() {
			index, name := src.u32(), string(src.bytes())
			if index < uint32(len(names)) {
				names[index] = name
			}
		}
	}
	for i := range names {
		if names[i] == "" {
			names[i] = "$" + strconv.Itoa(i)
		}
	}
	all := names
	if w.o.Metering {
		injected := Injected[1:]
		if !w.hasPieces() {
			injected = injected[:1]
		}
		all = slices.Concat(names[:w.m.ImportedFunctions], Injected[:1], names[w.m.ImportedFunctions:], injected)
	}
	out := appendU32(make([]byte, 0, len(sub)+8*len(all)), uint32(len(all)))
	for i, name := range all {
		out = appendName(appendU32(out, uint32(i)), name)
	}
	return out
}

func (w *module) localNames(sub []byte) []byte {
	src := source{sub, 0}
	n := src.u32()
	out := appendU32(make([]byte, 0, len(sub)+16), n)
	for range n {
		out = appendU32(out, w.function(src.u32()))
		names := src.u32()
		out = appendU32(out, names)
		for range names {
			out = appendU32(out, src.u32())
			out = appendName(out, string(src.bytes()))
		}
	}
	return out
}
