package binary

func (p *parser) valueTypes(limit int, what string) []ValueType {
	n := p.c.count(limit, 1, what)
	if n == 0 {
		return nil
	}
	types := make([]ValueType, n)
	for i := range types {
		types[i] = p.valueType(what)
	}
	return types
}

func (p *parser) valueType(what string) ValueType {
	offset := p.c.pos
	t := ValueType(p.c.byte("a value type"))
	if p.c.err == nil && !t.valid() {
		p.c.failAt(offset, "%s of type %s", what, badType(byte(t)))
	}
	return t
}

func (p *parser) types() {
	n := p.c.count(MaxTypes, 3, "types")
	for range n {
		offset := p.c.pos
		form := p.c.byte("a type")
		if p.c.err == nil && form != 0x60 {
			p.c.failAt(offset, "unsupported type of form 0x%02x (garbage collection): want a function type: %s", form, withoutReferences)
		}
		t := FuncType{p.valueTypes(MaxParams, "parameters"), p.valueTypes(MaxReturns, "results")}
		if p.c.err != nil {
			return
		}
		p.m.Types = append(p.m.Types, t)
	}
}

func (p *parser) imports() {
	n := p.c.count(MaxImports, 4, "imports")
	for range n {
		i := Import{Offset: p.c.pos, Module: p.c.name("an import's module"), Name: p.c.name("an import's name")}
		i.Kind = Kind(p.c.byte("the kind of an import"))
		p.importType(&i)
		if p.c.err != nil {
			return
		}
		p.m.Imports = append(p.m.Imports, i)
	}
	p.m.ImportedFunctions, p.m.ImportedGlobals = len(p.m.Functions), len(p.m.Globals)
}

func (p *parser) importType(i *Import) {
	switch i.Kind {
	case KindFunc:
		i.Type = p.c.u32("a type index")
		if p.c.err == nil && p.index(i.Offset, i.Type, len(p.m.Types), "type") {
			p.m.Functions = append(p.m.Functions, i.Type)
		}
	case KindTable:
		i.Table = p.table()
		p.m.Tables = append(p.m.Tables, i.Table)
	case KindMemory:
		i.Memory = p.memory()
		p.m.Memories = append(p.m.Memories, i.Memory)
	case KindGlobal:
		i.Global = p.globalType()
		p.m.Globals = append(p.m.Globals, i.Global)
	case kindTag:
		p.c.failAt(i.Offset, "an imported tag: exception handling is not supported: "+withoutExceptions)
	default:
		p.c.failAt(i.Offset, "an import of unknown kind 0x%02x", byte(i.Kind))
	}
}

func (p *parser) functions() {
	n := p.c.count(MaxFunctions-len(p.m.Functions), 1, "functions")
	p.defined = n
	for range n {
		offset := p.c.pos
		t := p.c.u32("a type index")
		if p.c.err != nil {
			return
		}
		p.index(offset, t, len(p.m.Types), "type")
		p.m.Functions = append(p.m.Functions, t)
	}
}

// limits reads the limits of a table or memory.
func (p *parser) limits(what string) (l Limits) {
	offset := p.c.pos
	flags := p.c.byte("limits")
	switch {
	case p.c.err != nil:
		return l
	case flags&2 != 0:
		p.c.failAt(offset, "a shared %s: threads are not supported: %s", what, withoutThreads)
	case flags&4 != 0:
		p.c.failAt(offset, "unsupported %s with 64-bit addresses (memory64): %s", what, withoutMemory64)
	case flags > 1:
		p.c.failAt(offset, "limits of unknown form 0x%02x", flags)
	}
	l.Min = p.c.u32("a minimum")
	if l.HasMax = flags&1 != 0; l.HasMax {
		l.Max = p.c.u32("a maximum")
		if p.c.err == nil && l.Max < l.Min {
			p.problem(offset, "invalid limits of a %s: the minimum %d is above the maximum %d", what, l.Min, l.Max)
		}
	}
	return l
}

func (p *parser) table() (t Table) {
	offset := p.c.pos
	if p.c.pos < p.c.end && p.c.b[p.c.pos] == 0x40 {
		p.c.failAt(offset, "unsupported table with an initial value (typed references): "+withoutReferences)
	}
	t.Type = p.valueType("a table")
	if p.c.err == nil && !t.Type.IsRef() {
		p.c.failAt(offset, "invalid type %s of a table: want a reference type", t.Type)
	}
	t.Limits = p.limits("table")
	if p.c.err == nil && t.Min > MaxTableSize {
		p.problem(offset, "too large: a table of %d entries, want at most %d", t.Min, MaxTableSize)
	}
	return t
}

func (p *parser) tables() {
	for range p.c.count(MaxTables-len(p.m.Tables), 3, "tables") {
		t := p.table()
		if p.c.err != nil {
			return
		}
		p.m.Tables = append(p.m.Tables, t)
	}
}

func (p *parser) memory() Limits {
	offset := p.c.pos
	l := p.limits("memory")
	if p.c.err == nil && (l.Min > MaxMemoryPages || l.HasMax && l.Max > MaxMemoryPages) {
		p.problem(offset, "too large: a memory of more than %d pages", MaxMemoryPages)
	}
	if len(p.m.Memories) > 0 {
		p.problem(offset, "a second memory: several memories are not supported: %s", withoutMemories)
	}
	return l
}

func (p *parser) memories() {
	for range p.c.count(MaxImports, 2, "memories") {
		l := p.memory()
		if p.c.err != nil {
			return
		}
		p.m.Memories = append(p.m.Memories, l)
	}
}

func (p *parser) globalType() (g Global) {
	g.Type = p.valueType("a global")
	offset := p.c.pos
	mutable := p.c.byte("the mutability of a global")
	if p.c.err == nil && mutable > 1 {
		p.c.failAt(offset, "invalid mutability 0x%02x of a global: want 0 or 1", mutable)
	}
	g.Mutable = mutable == 1
	return g
}

func (p *parser) globals() {
	for range p.c.count(MaxGlobals-len(p.m.Globals), 4, "globals") {
		g := p.globalType()
		p.constant()
		if p.c.err != nil {
			return
		}
		p.m.Globals = append(p.m.Globals, g)
	}
}

// constant reads a constant expression: the instructions of Core Specification,
// section 3.3.10, and of extended-const.
func (p *parser) constant() {
	r := Reader{p.c}
	for r.c.err == nil {
		in := r.Next()
		if r.c.err != nil || in.Op == OpEnd {
			break
		}
		switch in.Op {
		case OpGlobalGet:
			p.index(in.Offset, in.Index, len(p.m.Globals), "global")
		case OpRefFunc:
			p.index(in.Offset, in.Index, len(p.m.Functions), "function")
			p.declare(in.Index)
		case OpI32Const, OpI64Const, OpF32Const, OpF64Const, OpRefNull, OpV128Const,
			0x6a, 0x6b, 0x6c, 0x7c, 0x7d, 0x7e: // add, sub and mul of i32 and i64
		default:
			r.c.failAt(in.Offset, "instruction 0x%02x is not allowed in a constant expression", int(in.Op))
		}
	}
	p.c = r.c
}

func (p *parser) exports() {
	n := p.c.count(MaxExports, 3, "exports")
	seen := make(map[string]bool, n)
	for range n {
		e := Export{Offset: p.c.pos, Name: p.c.name("an export's name")}
		e.Kind = Kind(p.c.byte("the kind of an export"))
		e.Index = p.c.u32("an index")
		if p.c.err != nil {
			return
		}
		if seen[e.Name] {
			p.problem(e.Offset, "duplicate export %q", e.Name)
		}
		seen[e.Name] = true
		if p.exported(e) {
			p.m.Exports = append(p.m.Exports, e)
		}
	}
}

func (p *parser) exported(e Export) bool {
	switch e.Kind {
	case KindFunc:
		p.declare(e.Index)
		return p.index(e.Offset, e.Index, len(p.m.Functions), "function")
	case KindTable:
		return p.index(e.Offset, e.Index, len(p.m.Tables), "table")
	case KindMemory:
		return p.index(e.Offset, e.Index, len(p.m.Memories), "memory")
	case KindGlobal:
		return p.index(e.Offset, e.Index, len(p.m.Globals), "global")
	case kindTag:
		p.c.failAt(e.Offset, "an exported tag: exception handling is not supported: "+withoutExceptions)
	default:
		p.c.failAt(e.Offset, "an export of unknown kind 0x%02x", byte(e.Kind))
	}
	return false
}

func (p *parser) start() {
	offset := p.c.pos
	index := p.c.u32("a function index")
	if p.c.err != nil || !p.index(offset, index, len(p.m.Functions), "function") {
		return
	}
	p.m.Start = &index
	if t := p.m.Functions[index]; int(t) < len(p.m.Types) && p.m.Types[t].String() != "() -> ()" {
		p.problem(offset, "the start function has type %s, want () -> ()", p.m.Types[t])
	}
}

// elements reads the eight forms of element segments. Bit 0 is set for passive
// and declarative segments, bit 1 for an explicit table or a declarative segment,
// and bit 2 for expressions instead of indices.
func (p *parser) elements() {
	p.m.Elements = p.c.count(MaxElements, 2, "element segments")
	for range p.m.Elements {
		offset := p.c.pos
		form := p.c.u32("the form of an element segment")
		if p.c.err == nil && form > 7 {
			p.c.failAt(offset, "an element segment of unknown form %d", form)
		}
		if p.c.err != nil {
			return
		}
		p.elementHead(offset, form)
		p.elementEntries(form&4 != 0)
	}
}

func (p *parser) elementHead(offset int, form uint32) {
	table := uint32(0)
	if form&1 == 0 {
		if form&2 != 0 {
			table = p.c.u32("a table index")
		}
		p.constant()
		if p.c.err == nil {
			p.index(offset, table, len(p.m.Tables), "table")
		}
	}
	if form&3 == 0 {
		return
	}
	at := p.c.pos
	if form&4 == 0 {
		if kind := p.c.byte("the kind of elements"); kind != 0 {
			p.c.failAt(at, "elements of unknown kind 0x%02x", kind)
		}
	} else if t := p.valueType("elements"); p.c.err == nil && !t.IsRef() {
		p.c.failAt(at, "invalid type %s of elements: want a reference type", t)
	}
}

func (p *parser) elementEntries(expressions bool) {
	n := p.c.count(MaxElementEntries-p.m.Entries, 1, "elements")
	p.m.Entries += n
	for range n {
		if expressions {
			p.constant()
		} else {
			offset := p.c.pos
			index := p.c.u32("a function index")
			if p.c.err == nil && p.index(offset, index, len(p.m.Functions), "function") {
				p.declare(index)
			}
		}
		if p.c.err != nil {
			return
		}
	}
}

func (p *parser) data() {
	p.m.Data = p.c.count(MaxDataSegments, 2, "data segments")
	for range p.m.Data {
		offset := p.c.pos
		form := p.c.u32("the form of a data segment")
		switch {
		case p.c.err != nil:
		case form > 2:
			p.c.failAt(offset, "a data segment of unknown form %d", form)
		case form == 2:
			if memory := p.c.u32("a memory index"); memory != 0 {
				p.c.failAt(offset, "a data segment of memory %d: several memories are not supported: %s", memory, withoutMemories)
			}
		}
		if form != 1 {
			p.constant()
			p.needsMemory(offset)
		}
		p.c.skip(uint64(p.c.u32("the size of a data segment")), "a data segment")
		if p.c.err != nil {
			return
		}
	}
}

func (p *parser) needsMemory(offset int) {
	if p.c.err == nil && len(p.m.Memories) == 0 {
		p.problem(offset, "a data segment or instruction needs a memory, but there is none")
	}
}
