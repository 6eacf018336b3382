package binary

import (
	"slices"
	"strings"
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

// readNames reads the name section and reports whether it is well-formed. If it
// is not, an engine may refuse the module, or allocate without limit.
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
			nameMap(&sub, func(name string) {
				p.m.CommandExports = p.m.CommandExports || strings.HasSuffix(name, ".command_export")
			})
		case 2:
			for range sub.count(MaxFunctions, 2, "functions") {
				sub.u32("a function index")
				nameMap(&sub, func(string) {})
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

// nameMap reads names by index. A name with control characters is an error,
// because stack traces show names.
func nameMap(c *cursor, see func(name string)) {
	for range c.count(MaxFunctions, 2, "names") {
		c.u32("an index")
		offset := c.pos
		name := c.name("a name")
		if c.err == nil && !printable(name) {
			c.failAt(offset, "control characters in a name")
		}
		if c.err != nil {
			return
		}
		see(name)
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

// producers reads the section "producers" (WebAssembly tool conventions). It
// returns the part that is readable and printable.
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
