// Package binary reads the structure of WebAssembly modules that nobody has
// checked yet.
//
// A compiler trusts what it compiles more than it should: a few bytes can make
// one allocate gigabytes, run for minutes or panic. [Parse] therefore reads a
// module completely first: every section, every index, every instruction with
// its nesting. It holds the module to the limits of this package, and takes
// the features of WebAssembly 2.0 with extended constant expressions alone
// (Core Specification, section 5, and the extended-const proposal). It does
// not check the types of operands: an engine does, in linear time.
//
// Time and memory of Parse are linear in the size of the file, and it never
// panics. [Reader] serves rewriters of code as well.
package binary

import (
	"fmt"
	"slices"
)

// maxProblems bounds how many problems are listed for one module.
const maxProblems = 50

var sectionNames = [...]string{"custom", "type", "import", "function", "table", "memory", "global",
	"export", "start", "element", "code", "data", "data count", "tag"}

// order gives the place of each section among the others; custom ones stand
// anywhere.
var order = [...]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 10, 0}

// Parse reads a module. Where problems are found they come with their offsets,
// in the order of the file, at most 50: all that can be known at once, but
// after damage to the structure nothing more can be. The module is then what
// was read so far, for people to look at; its indices are only safe to follow
// where there are no problems.
func Parse(wasm []byte) (*Module, []*Problem) {
	p := &parser{m: &Module{Size: len(wasm), Names: true}, dataCount: -1}
	if problem := sniff(wasm); problem != nil {
		return p.m, []*Problem{problem}
	}
	p.c = cursor{b: wasm, pos: 8, end: len(wasm)}
	for p.c.err == nil && p.c.pos < len(wasm) {
		p.section()
	}
	if p.c.err == nil {
		p.finish()
	}
	if p.c.err != nil {
		p.problems = append(p.problems, p.c.err)
	}
	slices.SortStableFunc(p.problems, func(a, b *Problem) int { return a.Offset - b.Offset })
	return p.m, p.problems
}

type parser struct {
	c         cursor
	m         *Module
	problems  []*Problem
	last      int // place of the last section
	dataCount int // as the section says; -1 = no such section
	defined   int // functions of the function section
	names     int // name sections seen
	locals    int // of all functions
	declared  map[uint32]bool
	refFuncs  []Instr // of bodies, to compare with declared
	usesData  *int    // offset of the first memory.init or data.drop
	dataAt    int     // offset of the data section
	codeAt    int
	grows     map[uint32]int // tables that table.grow names, and where first
}

// problem notes what is wrong with a module whose structure can be read on.
func (p *parser) problem(offset int, format string, args ...any) {
	if len(p.problems) < maxProblems {
		p.problems = append(p.problems, &Problem{offset, fmt.Sprintf(format, args...)})
	}
}

func (p *parser) section() {
	head := p.c.pos
	id := p.c.byte("a section")
	size := p.c.u32("the size of a section")
	start := p.c.pos
	if p.c.err != nil {
		return
	}
	if int(id) >= len(sectionNames) {
		p.c.failAt(head, "unknown section %d", id)
		return
	}
	if uint64(size) > uint64(p.c.left()) {
		p.c.failAt(start, "truncated: %s section of %d bytes, and %d are left", sectionNames[id], size, p.c.left())
		return
	}
	s := Section{ID: id, Head: head, Start: start, End: start + int(size)}
	p.place(s)
	whole := p.c.end
	p.c.end = s.End
	p.contents(&s)
	if p.c.err == nil && p.c.pos != s.End {
		p.c.failAt(p.c.pos, "%d bytes more in the %s section than it says", s.End-p.c.pos, sectionNames[id])
	}
	p.c.end = whole
	p.m.Sections = append(p.m.Sections, s)
}

func (p *parser) place(s Section) {
	if s.ID == SectionCustom || s.ID == sectionTag {
		return
	}
	if place := order[s.ID]; place <= p.last {
		p.c.failAt(s.Head, "the %s section stands twice or in the wrong place", sectionNames[s.ID])
	} else {
		p.last = place
	}
}

func (p *parser) contents(s *Section) {
	switch s.ID {
	case SectionCustom:
		p.custom(s)
	case SectionType:
		p.types()
	case SectionImport:
		p.imports()
	case SectionFunction:
		p.functions()
	case SectionTable:
		p.tables()
	case SectionMemory:
		p.memories()
	case SectionGlobal:
		p.globals()
	case SectionExport:
		p.exports()
	case SectionStart:
		p.start()
	case SectionElement:
		p.elements()
	case SectionDataCount:
		p.dataCount = p.c.count(MaxDataSegments, 0, "data segments")
	case SectionCode:
		p.codeAt = s.Head
		p.code()
	case SectionData:
		p.dataAt = s.Head
		p.data()
	case sectionTag:
		p.c.failAt(s.Head, "a tag section: exception handling is not supported")
	}
}

// finish checks what needs the whole module.
func (p *parser) finish() {
	m := p.m
	if p.defined != len(m.Bodies) {
		p.problem(p.codeAt, "%d functions are declared, and %d have a body", p.defined, len(m.Bodies))
	}
	if p.dataCount >= 0 && p.dataCount != m.Data {
		p.problem(p.dataAt, "%d data segments, where the data count section says %d", m.Data, p.dataCount)
	}
	if p.usesData != nil && p.dataCount < 0 {
		p.problem(*p.usesData, "memory.init or data.drop without a data count section")
	}
	p.checkTables()
	for _, in := range p.refFuncs {
		if !p.declared[in.Index] {
			p.problem(in.Offset, "ref.func of function %d, which no export, element segment or global declares", in.Index)
		}
	}
}

// checkTables bounds what tables can grow to: the engine does not count them
// against the limit of memory.
func (p *parser) checkTables() {
	total := uint64(0)
	for i, t := range p.m.Tables {
		at, grows := p.grows[uint32(i)]
		switch {
		case !grows:
			total += uint64(t.Min)
		case !t.HasMax || t.Max > MaxTableSize:
			p.problem(at, "table.grow of table %d, which needs a maximum of at most %d entries", i, MaxTableSize)
		default:
			total += uint64(t.Max)
		}
	}
	if total > MaxTableSize {
		p.problem(8, "tables that can have %d entries together, of which %d are allowed", total, MaxTableSize)
	}
}

// index notes an index that is not below n.
func (p *parser) index(offset int, index uint32, n int, what string) bool {
	if uint64(index) < uint64(n) {
		return true
	}
	p.problem(offset, "%s %d, where there are %d", what, index, n)
	return false
}

func (p *parser) declare(function uint32) {
	if p.declared == nil {
		p.declared = make(map[uint32]bool)
	}
	p.declared[function] = true
}
