// Package linetable reads and writes line tables: which line of which source
// file an address of code comes from (DWARF 5, section 6.2; versions 2 to 5).
//
// The tables come from guests, so nothing in them is trusted: a damaged or
// excessive table gives fewer lines, never an error and never more than a fixed
// amount of memory. The package debug/dwarf builds the full path of every file
// while it reads, which lets a table of a few megabytes ask for terabytes.
package linetable

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a table.
const (
	maxSize  = 16 << 20 // bytes of the section of lines
	maxRows  = 2 << 20
	maxFiles = 1 << 16 // of a unit, and directories
	maxName  = 200     // bytes of the name of a file
	maxText  = 4 << 10 // bytes of a part of a name
	maxKnown = 4096    // names that a table remembers
)

// Sections are the contents of the sections that a table is made of. Only Line is
// needed; the others hold names for version 5.
type Sections struct{ Line, LineStr, Str []byte }

// Table maps addresses to lines. It refers to the sections that it was read from.
//
// A Table is used by one goroutine at a time.
type Table struct {
	rows  []row // by address
	units []unit
	known map[uint64]string // names by unit and file
}

// row says that the code from its address on comes from a line. The code after a
// row with line 0 comes from nowhere.
type row struct{ address, unit, file, line uint32 }

// Read reads a table. It never fails: what cannot be read is left out.
func Read(s Sections) *Table {
	t := &Table{}
	if len(s.Line) > maxSize {
		return t
	}
	for in := (reader{b: s.Line}); len(in.b) > 0 && !in.bad; {
		body, wide := in.unit()
		u := unit{sections: s}
		program := reader{b: body, wide: wide}
		if !in.bad && u.header(&program) {
			t.units = append(t.units, u)
			if !t.run(&u, program) {
				return &Table{}
			}
		}
	}
	slices.SortStableFunc(t.rows, func(a, b row) int { return cmp.Compare(a.address, b.address) })
	return t
}

// Empty reports whether the table has no lines.
func (t *Table) Empty() bool { return len(t.rows) == 0 }

// Line returns the line of an address. The name of the file has at most 200 bytes,
// all of them printable. ok is false if the line is not known.
func (t *Table) Line(address uint32) (file string, line uint32, ok bool) {
	at, found := slices.BinarySearchFunc(t.rows, address, func(r row, a uint32) int { return cmp.Compare(r.address, a) })
	switch {
	case found:
		for at+1 < len(t.rows) && t.rows[at+1].address == address { // the last one counts: a sequence may end where another begins
			at++
		}
	case at == 0:
		return "", 0, false
	default:
		at--
	}
	r := t.rows[at]
	if r.line == 0 {
		return "", 0, false
	}
	file = t.name(r.unit, r.file)
	return file, r.line, file != ""
}

func (t *Table) name(unit, file uint32) string {
	key := uint64(unit)<<32 | uint64(file)
	name, ok := t.known[key]
	if !ok {
		if t.known == nil || len(t.known) == maxKnown {
			t.known = map[uint64]string{}
		}
		name = printable(t.units[unit].name(int(file)))
		t.known[key] = name
	}
	return name
}

// printable shortens a name at its start, and replaces what cannot be printed.
func printable(name string) string {
	if len(name) > maxName {
		name = "..." + name[len(name)-maxName+len("..."):]
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, name)
}

// reader reads numbers and strings. After a read beyond the end, bad is set and all
// results are zero.
type reader struct {
	b    []byte
	wide bool // offsets have 8 bytes
	bad  bool
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) fixed(n int) (v uint64) {
	var whole [8]byte
	copy(whole[:n], r.bytes(uint64(n)))
	return binary.LittleEndian.Uint64(whole[:])
}

func (r *reader) byte() byte { return byte(r.fixed(1)) }

func (r *reader) offset() uint64 {
	if r.wide {
		return r.fixed(8)
	}
	return r.fixed(4)
}

// uleb reads a number of variable length; bits beyond 64 are dropped.
func (r *reader) uleb() (v uint64) {
	for shift := 0; ; shift += 7 {
		b := r.byte()
		if shift < 64 {
			v |= uint64(b&0x7f) << shift
		}
		if b < 0x80 {
			return v
		}
	}
}

func (r *reader) sleb() (v int64) {
	for shift := 0; ; shift += 7 {
		b := r.byte()
		if shift < 64 {
			v |= int64(b&0x7f) << shift
		}
		if b < 0x80 {
			if b&0x40 != 0 && shift+7 < 64 {
				v |= -1 << (shift + 7)
			}
			return v
		}
	}
}

// text reads a string that ends with a zero, and returns its start.
func (r *reader) text() string {
	end := bytes.IndexByte(r.b, 0)
	if end < 0 {
		r.b, r.bad = nil, true
		return ""
	}
	return string(r.bytes(uint64(end) + 1)[:min(end, maxText)])
}

// unit reads the length of a unit, and the unit.
func (r *reader) unit() (body []byte, wide bool) {
	const escape = 0xffffffff
	size := r.fixed(4)
	if size == escape {
		size, wide = r.fixed(8), true
	}
	return r.bytes(size), wide
}

// unit is the header of a unit.
type unit struct {
	sections    Sections
	version     uint64
	minimum     uint64 // length of an instruction
	lineBase    int8
	lineRange   byte
	operands    []byte // number of operands, by opcode from 1
	directories entries
	files       entries
}

// entries are the directories or files of a unit.
type entries struct {
	in     reader  // at the first one
	starts []int32 // of each, in the bytes of in
	format []field // of version 5
}

// at returns a reader at the entry with an index.
func (e *entries) at(index int) (r reader, ok bool) {
	if index < 0 || index >= len(e.starts) {
		return r, false
	}
	r = e.in
	r.bytes(uint64(e.starts[index]))
	return r, true
}

// add notes that an entry starts at the position of r, and reports whether there is
// room for more.
func (e *entries) add(r *reader) bool {
	e.starts = append(e.starts, int32(len(e.in.b)-len(r.b)))
	return len(e.starts) < maxFiles
}

// field is a field of the entry of a directory or a file in version 5.
type field struct{ content, form uint64 }

// header reads a header up to the program, which is then what is left in r. It
// reports whether the unit can be read.
func (u *unit) header(r *reader) bool {
	if u.version = r.fixed(2); u.version < 2 || u.version > 5 {
		return false
	}
	if u.version == 5 {
		r.bytes(2) // sizes of addresses and segments
	}
	head := reader{b: r.bytes(r.offset()), wide: r.wide}
	u.minimum = uint64(head.byte())
	if u.version >= 4 {
		head.byte() // operations in an instruction
	}
	head.byte() // whether rows are statements
	u.lineBase, u.lineRange = int8(head.byte()), head.byte()
	opcodes := head.byte()
	u.operands = head.bytes(uint64(max(opcodes, 1)) - 1)
	if u.version == 5 {
		u.directories, u.files = head.entries(u), head.entries(u)
	} else {
		u.directories, u.files = head.lists()
	}
	return !r.bad && u.lineRange > 0
}

// lists reads the directories and files of versions before 5: texts, and texts with
// three numbers, both up to an empty text.
func (r *reader) lists() (directories, files entries) {
	for all := []*entries{&directories, &files}; len(all) > 0; all = all[1:] {
		all[0].in = *r
		for more := true; more && !r.bad; {
			start := *r
			if r.text() == "" {
				break
			}
			if len(all) == 1 {
				r.uleb()
				r.uleb()
				r.uleb()
			}
			more = all[0].add(&start)
		}
	}
	return directories, files
}

// entries reads the entries of version 5, after their description.
func (r *reader) entries(u *unit) (e entries) {
	for range r.byte() {
		e.format = append(e.format, field{r.uleb(), r.uleb()})
	}
	count := r.uleb()
	e.in = *r
	for i := uint64(0); i < count && !r.bad && len(e.format) > 0; i++ {
		if !e.add(r) {
			break
		}
		for _, f := range e.format {
			r.value(f.form, u)
		}
	}
	return e
}

// Forms of values (section 7.5.6).
const (
	formBlock   = 0x09
	formData1   = 0x0b
	formData2   = 0x05
	formData4   = 0x06
	formData8   = 0x07
	formData16  = 0x1e
	formString  = 0x08
	formUdata   = 0x0f
	formStrp    = 0x0e
	formLineStr = 0x1f
)

// value reads a value. Only one of the results is meaningful.
func (r *reader) value(form uint64, u *unit) (text string, number uint64) {
	switch form {
	case formString:
		return r.text(), 0
	case formLineStr:
		return textAt(u.sections.LineStr, r.offset()), 0
	case formStrp:
		return textAt(u.sections.Str, r.offset()), 0
	case formUdata:
		return "", r.uleb()
	case formData1:
		return "", r.fixed(1)
	case formData2:
		return "", r.fixed(2)
	case formData4:
		return "", r.fixed(4)
	case formData8:
		return "", r.fixed(8)
	case formData16:
		r.bytes(16)
	case formBlock:
		r.bytes(r.uleb())
	default:
		r.bad = true
	}
	return "", 0
}

// textAt returns the start of a string, as long as a name may need.
func textAt(section []byte, at uint64) string {
	if at >= uint64(len(section)) {
		return ""
	}
	section = section[at:]
	section = section[:min(len(section), maxText)]
	if end := bytes.IndexByte(section, 0); end >= 0 {
		section = section[:end]
	}
	return string(section)
}

// name returns the name of a file: relative to the directory of the compilation,
// if the compiler wrote it so.
func (u *unit) name(file int) string {
	if u.version < 5 {
		file-- // files are counted from 1
	}
	r, ok := u.files.at(file)
	if !ok {
		return ""
	}
	name, dir := u.entry(&r, u.files.format)
	if dir == 0 || dir > maxFiles || path.IsAbs(name) {
		return name
	}
	if u.version < 5 {
		dir--
	}
	if r, ok = u.directories.at(int(dir)); !ok {
		return name
	}
	in, _ := u.entry(&r, u.directories.format)
	return path.Join(in, name)
}

// entry returns the name of an entry and, of a file, the number of its directory.
func (u *unit) entry(r *reader, format []field) (name string, dir uint64) {
	const contentPath, contentDirectory = 1, 2
	if u.version < 5 {
		return r.text(), r.uleb() // for a directory, the number has no meaning
	}
	for _, f := range format {
		text, number := r.value(f.form, u)
		switch f.content {
		case contentPath:
			name = text
		case contentDirectory:
			dir = number
		}
	}
	return name, dir
}

// Opcodes of a program (section 6.2.5).
const (
	opExtended      = 0
	opCopy          = 1
	opAdvancePC     = 2
	opAdvanceLine   = 3
	opSetFile       = 4
	opConstAddPC    = 8
	opFixedAdvance  = 9
	opEndSequence   = 1 // extended
	opSetAddress    = 2 // extended
	firstFile       = 1
	adjustedMaximum = 255
)

// state is the state of a program.
type state struct{ address, file, line uint64 }

// run adds the rows of a unit's program, and reports whether they fit.
func (t *Table) run(u *unit, r reader) bool {
	s := state{file: firstFile, line: 1}
	dead := false // the linker has removed the code of the sequence
	for len(r.b) > 0 && !r.bad {
		op := r.byte()
		emit, end := false, false
		switch {
		case int(op) > len(u.operands):
			s.special(u, op)
			emit = true
		case op == opExtended:
			if end = s.extended(&r, &dead); end {
				emit = true
			}
		default:
			emit = s.standard(u, &r, op)
		}
		if emit && !dead && s.address < 1<<32 {
			if len(t.rows) == maxRows {
				return false
			}
			t.rows = append(t.rows, s.row(len(t.units)-1, end))
		}
		if end {
			s, dead = state{file: firstFile, line: 1}, false
		}
	}
	return true
}

func (s *state) row(unit int, end bool) row {
	if end || s.line >= 1<<31 {
		return row{address: uint32(s.address)}
	}
	return row{uint32(s.address), uint32(unit), uint32(min(s.file, maxRows)), uint32(s.line)}
}

func (s *state) special(u *unit, op byte) {
	adjusted := op - byte(len(u.operands)) - 1
	s.address += u.minimum * uint64(adjusted/u.lineRange)
	s.line += uint64(int64(u.lineBase) + int64(adjusted%u.lineRange))
}

// extended executes an extended instruction, and reports whether it ends the
// sequence.
func (s *state) extended(r *reader, dead *bool) (end bool) {
	args := reader{b: r.bytes(r.uleb())}
	switch args.byte() {
	case opEndSequence:
		return true
	case opSetAddress:
		s.address = args.fixed(min(len(args.b), 8))
		*dead = s.address == 0 || s.address >= 1<<32-2 // see LLVM's D81784
	}
	return false
}

// standard executes a standard instruction, and reports whether it makes a row.
func (s *state) standard(u *unit, r *reader, op byte) (emit bool) {
	switch op {
	case opCopy:
		return true
	case opAdvancePC:
		s.address += u.minimum * r.uleb()
	case opAdvanceLine:
		s.line += uint64(r.sleb())
	case opSetFile:
		s.file = r.uleb()
	case opConstAddPC:
		adjusted := adjustedMaximum - byte(len(u.operands)) - 1
		s.address += u.minimum * uint64(adjusted/u.lineRange)
	case opFixedAdvance:
		s.address += r.fixed(2)
	default:
		for range u.operands[op-1] {
			r.uleb()
		}
	}
	return false
}
