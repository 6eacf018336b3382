package rewrite

import (
	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite/linetable"
)

// lines writes the line table of the rewritten code: debug information refers to
// addresses, and rewriting moves all of them. It is nil if the module has no table.
// Addresses count from the start of the code section, as in DWARF for WebAssembly.
type lines struct {
	from  *linetable.Table // of the original
	start int              // of the original's code section
	to    linetable.Writer
	marks []mark // of the present function
}

// mark is an instruction that a stack trace can name.
type mark struct {
	original int // in the file
	pos      int // in the rewritten code; after assemble, in the body
}

// newLines returns the lines of a module, or nil.
func newLines(wasm []byte, m *binary.Module) *lines {
	var s linetable.Sections
	at := map[string]*[]byte{".debug_line": &s.Line, ".debug_line_str": &s.LineStr, ".debug_str": &s.Str}
	for _, c := range m.Sections {
		if contents := at[c.Name]; contents != nil && c.ID == binary.SectionCustom && *contents == nil {
			*contents = wasm[c.Start:c.End]
		}
	}
	if len(s.Line) == 0 {
		return nil
	}
	l := &lines{from: linetable.Read(s)}
	if l.from.Empty() {
		return nil
	}
	l.start, _ = section(m, binary.SectionCode)
	return l
}

// mark notes an instruction, before anything is written for it.
func (e *emitter) mark(in binary.Instr) {
	if l := e.module.lines; l != nil && traceable(in.Op) {
		l.marks = append(l.marks, mark{in.Offset, len(e.code) + in.Offset - e.from})
	}
}

// traceable reports whether an instruction can be in a stack trace: it calls or may
// trap.
func traceable(op binary.Op) bool {
	switch {
	case op == binary.OpUnreachable, op == binary.OpCall, op == binary.OpCallIndirect:
	case 0x25 <= op && op <= 0x26: // tables
	case 0x28 <= op && op <= 0x40: // memory
	case 0x6d <= op && op <= 0x70, 0x7f <= op && op <= 0x82: // division
	case 0xa8 <= op && op <= 0xab, 0xae <= op && op <= 0xb1: // truncation
	case op > 0xff:
	default:
		return false
	}
	return true
}

// marks returns the marks of the present function.
func (e *emitter) marks() []mark {
	if e.module.lines == nil {
		return nil
	}
	return e.module.lines.marks
}

// moveMarks moves the marks before a position of the code, and returns the rest.
func moveMarks(marks []mark, until, by int) []mark {
	for len(marks) > 0 && marks[0].pos < until {
		marks[0].pos += by
		marks = marks[1:]
	}
	return marks
}

// body adds the lines of a body that starts at a position of the rewritten code
// section.
func (l *lines) body(b binary.Body, start int) {
	if l == nil {
		return
	}
	l.add(b.Code, start)
	for _, m := range l.marks {
		l.add(m.original, start+m.pos)
	}
}

func (l *lines) add(original, address int) {
	file, line, _ := l.from.Line(uint32(original - l.start))
	l.to.Add(uint32(address), file, line)
}

// sections appends the sections of the table for code of the given size.
func (l *lines) sections(out []byte, size int) []byte {
	if l == nil {
		return out
	}
	table := l.to.Finish(uint32(size))
	for _, s := range []struct {
		name     string
		contents []byte
	}{{".debug_abbrev", table.Abbrev}, {".debug_info", table.Info}, {".debug_line", table.Line}} {
		if len(s.contents) > 0 {
			out = appendSection(out, binary.SectionCustom, append(appendName(nil, s.name), s.contents...))
		}
	}
	return out
}
