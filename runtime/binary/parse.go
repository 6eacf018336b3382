// Package binary reads the structure of untrusted WebAssembly modules.
//
// A compiler trusts its input too much: a few bytes can make it allocate
// gigabytes, run for minutes or panic. [Parse] therefore reads the whole module
// first: every section, every index, every instruction and its nesting. It
// applies the limits of this package, and accepts only the features of
// WebAssembly 2.0 with extended constant expressions (Core Specification,
// section 5, and the extended-const proposal). It does not check the types of
// operands; an engine does that in linear time.
//
// Time and memory of Parse are linear in the size of the file, and it never
// panics. [Reader] is also meant for programs that rewrite code.
package binary

import (
	"fmt"
	"slices"
)

// maxProblems is the maximum number of problems listed for one module.
const maxProblems = 50

var sectionNames = [...]string{"custom", "type", "import", "function", "table", "memory", "global",
	"export", "start", "element", "code", "data", "data count", "tag"}

// order has the position of each section among the others. Custom sections may
// be anywhere.
var order = [...]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 10, 0}

// Parse reads a module. It returns up to 50 problems with their offsets, in the
// order of the file. If the structure is damaged, no problems after that point
// are found. A module with problems is incomplete and only good for showing it
// to people; its indices are not safe to use.
func Parse(wasm []byte) (*Module, []*Problem) {
	p := &parser{m: &Module{Size: len(wasm), Names: true}, dataCount: -1}
	if problem := sniff(wasm); problem != nil {
		return p.m, []*Problem{problem}
	}
	p.weigher.m = p.m
	p.c = cursor{b: wasm, pos: 8, end: len(wasm)}
	for p.c.err == nil && p.c.pos < len(wasm) {
		p.section()
	}
	if p.m.Whole = p.c.err == nil; p.m.Whole {
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
	last      int // position of the last section in order
	dataCount int // from the data count section; -1 = no such section
	defined   int // functions of the function section
	names     int // name sections seen
	locals    int // of all functions
	weigher   weigher
	declared  map[uint32]bool
	refFuncs  []Instr // of bodies, to compare with declared
	usesData  *int    // offset of the first memory.init or data.drop
	dataAt    int     // offset of the data section
	codeAt    int
	grows     map[uint32]int // tables that table.grow names, with the first offset
}

// problem records a problem after which the rest of the module can be read.
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
		p.c.failAt(start, "truncated: %s section of %d bytes, but only %d are left", sectionNames[id], size, p.c.left())
		return
	}
	s := Section{ID: id, Head: head, Start: start, End: start + int(size)}
	p.checkOrder(s)
	whole := p.c.end
	p.c.end = s.End
	p.contents(&s)
	if p.c.err == nil && p.c.pos != s.End {
		p.c.failAt(p.c.pos, "%d more bytes after the end of the %s section", s.End-p.c.pos, sectionNames[id])
	}
	p.c.end = whole
	p.m.Sections = append(p.m.Sections, s)
}

func (p *parser) checkOrder(s Section) {
	if s.ID == SectionCustom || s.ID == sectionTag {
		return
	}
	if position := order[s.ID]; position <= p.last {
		p.c.failAt(s.Head, "duplicate or misplaced %s section", sectionNames[s.ID])
	} else {
		p.last = position
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
		p.c.failAt(s.Head, "a tag section: exception handling is not supported: "+withoutExceptions)
	}
}

// finish does the checks that need the whole module.
func (p *parser) finish() {
	m := p.m
	if p.defined != len(m.Bodies) {
		p.problem(p.codeAt, "%d functions are declared, but %d have a body", p.defined, len(m.Bodies))
	}
	if p.dataCount >= 0 && p.dataCount != m.Data {
		p.problem(p.dataAt, "%d data segments, but the data count section says %d", m.Data, p.dataCount)
	}
	if p.usesData != nil && p.dataCount < 0 {
		p.problem(*p.usesData, "memory.init or data.drop without a data count section")
	}
	p.checkTables()
	for _, in := range p.refFuncs {
		if !p.declared[in.Index] {
			p.problem(in.Offset, "invalid ref.func of function %d: no export, element segment or global declares it", in.Index)
		}
	}
}

// checkTables limits the size that tables can grow to: the engine does not count
// it against the limit of memory.
func (p *parser) checkTables() {
	total := uint64(0)
	for i, t := range p.m.Tables {
		at, grows := p.grows[uint32(i)]
		switch {
		case !grows:
			total += uint64(t.Min)
		case !t.HasMax || t.Max > MaxTableSize:
			p.problem(at, "table.grow of table %d: the table needs a maximum of at most %d entries", i, MaxTableSize)
		default:
			total += uint64(t.Max)
		}
	}
	if total > MaxTableSize {
		p.problem(8, "too many table entries: all tables together can have %d, want at most %d", total, MaxTableSize)
	}
}

// index records a problem if an index is not below n.
func (p *parser) index(offset int, index uint32, n int, what string) bool {
	if uint64(index) < uint64(n) {
		return true
	}
	p.problem(offset, "unknown %s %d: the module has %d", what, index, n)
	return false
}

func (p *parser) declare(function uint32) {
	if p.declared == nil {
		p.declared = make(map[uint32]bool)
	}
	p.declared[function] = true
}
