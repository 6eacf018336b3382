package binary

import (
	"slices"
	"unicode"
)

func (p *parser) custom(s *Section) {
	s.Name = p.c.name("a custom section's name")
	s.Start = p.c.pos
	if p.c.err != nil {
		return
	}
	inner := cursor{b: p.c.b, pos: s.Start, end: s.End}
	switch s.Name {
	case "name":
		p.names++
		p.m.Names = p.m.Names && p.names == 1 && p.readNames(inner)
	case "producers":
		p.m.Producers = producers(inner)
	}
	p.c.pos = s.End
}

// readNames reads the name section and reports whether it is sound: an engine
// may refuse the module, or allocate without bound, where it is not.
func (p *parser) readNames(c cursor) bool {
	for c.err == nil && c.pos < c.end {
		id := c.byte("a subsection")
		size := c.u32("the size of a subsection")
		body := c.skip(uint64(size), "a subsection")
		if c.err != nil {
			return false
		}
		sub := cursor{b: body, end: len(body)}
		switch id {
		case 0:
			p.m.Name = sub.name("the module's name")
			if !printable(p.m.Name) {
				return false
			}
		case 1:
			nameMap(&sub)
		case 2:
			for range sub.count(MaxFunctions, 2, "functions") {
				sub.u32("a function index")
				nameMap(&sub)
			}
		default:
			continue
		}
		if sub.err != nil || sub.pos != sub.end {
			return false
		}
	}
	return c.err == nil
}

// nameMap reads names by index. One with control characters spoils it: names
// are shown in stack traces.
func nameMap(c *cursor) {
	for range c.count(MaxFunctions, 2, "names") {
		c.u32("an index")
		offset := c.pos
		if name := c.name("a name"); c.err == nil && !printable(name) {
			c.failAt(offset, "a name with control characters")
		}
		if c.err != nil {
			return
		}
	}
}

func printable(s string) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

const maxProducers = 32

// producers reads the section of that name (WebAssembly tool conventions), of
// which it returns what can be read and printed.
func producers(c cursor) (lines []string) {
	for range c.count(maxProducers, 2, "fields") {
		field := c.name("a field")
		for range c.count(maxProducers, 2, "values") {
			line := field + " " + c.name("a value")
			if version := c.name("a version"); version != "" {
				line += " " + version
			}
			if c.err != nil || len(lines) == maxProducers {
				return lines
			}
			if printable(line) && len(line) < 200 && !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
	}
	return lines
}
