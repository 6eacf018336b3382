package binary

func (p *parser) code() {
	n := p.c.count(MaxFunctions, 3, "function bodies")
	whole := p.c.end
	for i := range n {
		b := Body{Offset: p.c.pos}
		size := p.c.u32("the size of a function body")
		b.Start = p.c.pos
		switch {
		case p.c.err != nil:
			return
		case size > MaxBodySize:
			p.c.failAt(b.Offset, "too large: a function body of %d bytes, want at most %d", size, MaxBodySize)
			return
		case int(size) > whole-p.c.pos:
			p.c.failAt(b.Offset, "truncated: a function body of %d bytes, but only %d are left", size, whole-p.c.pos)
			return
		}
		b.End = p.c.pos + int(size)
		p.c.end = b.End
		p.body(&b, p.m.ImportedFunctions+i)
		p.c.end = whole
		if p.c.err != nil {
			return
		}
		p.m.Bodies = append(p.m.Bodies, b)
	}
}

func (p *parser) body(b *Body, function int) {
	var t FuncType
	if function < len(p.m.Functions) && int(p.m.Functions[function]) < len(p.m.Types) {
		t = p.m.FuncType(uint32(function))
	}
	p.localTypes(b, len(t.Params))
	if p.c.err != nil {
		return
	}
	b.Code = p.c.pos
	s := scan{p: p, r: Reader{p.c}, body: b, locals: len(t.Params) + b.Locals}
	p.weigher.start(t, b.Locals)
	s.run()
	p.c = s.r.c
	if problem := p.weigher.finish(function); problem != "" {
		p.c.failAt(b.Offset, "%s", problem)
	}
}

// localTypes reads the vector of locals. It is compressed: 5 bytes can declare
// 2^32 locals.
func (p *parser) localTypes(b *Body, params int) {
	n := p.c.count(MaxLocals, 2, "groups of locals")
	total := uint64(params)
	for range n {
		count := p.c.u32("the number of locals")
		p.valueType("locals")
		total += uint64(count)
		if p.c.err != nil {
			return
		}
	}
	if total > MaxLocals {
		p.c.failAt(b.Start, "too many locals in one function: %d, want at most %d", total, MaxLocals)
		return
	}
	b.Locals = int(total) - params
	if p.locals += int(total); p.locals > MaxTotalLocals {
		p.c.failAt(b.Start, "too many locals in all functions: want at most %d", MaxTotalLocals)
	}
}

// scan reads the instructions of one body.
type scan struct {
	p      *parser
	r      Reader
	body   *Body
	locals int
	blocks []Op // open blocks, without the function itself
	work   int  // sum of the depths of all blocks
}

func (s *scan) run() {
	closed := false
	for s.r.More() && !closed {
		in := s.r.Next()
		if s.r.c.err != nil {
			return
		}
		s.p.weigher.instruction(in)
		closed = s.instruction(in)
	}
	switch c := &s.r.c; {
	case c.err != nil:
	case !closed:
		c.failAt(c.pos, "truncated: a function body without its end")
	case c.pos != c.end:
		c.failAt(c.pos, "%d more bytes after the end of a function", c.left())
	}
}

// instruction checks one instruction and reports whether it ends the function.
func (s *scan) instruction(in Instr) (closed bool) {
	switch in.Op {
	case OpBlock, OpLoop, OpIf:
		s.open(in)
	case OpElse:
		if n := len(s.blocks); n == 0 || s.blocks[n-1] != OpIf {
			s.r.c.failAt(in.Offset, "else without if")
			return false
		}
		s.blocks[len(s.blocks)-1] = OpElse
	case OpEnd:
		if len(s.blocks) == 0 {
			return true
		}
		s.blocks = s.blocks[:len(s.blocks)-1]
	case OpBr, OpBrIf:
		s.label(in, in.Index)
	case OpBrTable:
		s.brTable(in)
	default:
		s.indices(in)
	}
	return false
}

func (s *scan) open(in Instr) {
	s.blocks = append(s.blocks, in.Op)
	depth := len(s.blocks)
	s.work += depth
	s.body.MaxNesting = max(s.body.MaxNesting, depth)
	if in.Block >= 0 {
		s.p.index(in.Offset, in.Index, len(s.p.m.Types), "type")
	}
	if depth > MaxNesting {
		s.r.c.failAt(in.Offset, "too many levels of blocks: want at most %d", MaxNesting)
	} else if s.work > MaxNestingWork {
		s.r.c.failAt(in.Offset, "too many deeply nested blocks in one function")
	}
}

func (s *scan) label(in Instr, label uint32) bool {
	return s.p.index(in.Offset, label, len(s.blocks)+1, "label")
}

func (s *scan) brTable(in Instr) {
	if s.body.BrTargets += in.Targets; s.body.BrTargets > MaxBodyTargets {
		s.r.c.failAt(in.Offset, "too many br_table targets in one function: want at most %d", MaxBodyTargets)
		return
	}
	for label := range s.r.Targets(in) {
		if !s.label(in, label) {
			return
		}
	}
}

func (s *scan) indices(in Instr) {
	p, m := s.p, s.p.m
	switch in.Op {
	case OpCall:
		p.index(in.Offset, in.Index, len(m.Functions), "function")
	case OpRefFunc:
		if p.index(in.Offset, in.Index, len(m.Functions), "function") && len(p.refFuncs) < MaxFunctions {
			p.refFuncs = append(p.refFuncs, in)
		}
	case OpCallIndirect:
		p.index(in.Offset, in.Index, len(m.Types), "type")
		p.index(in.Offset, in.Index2, len(m.Tables), "table")
	case OpLocalGet, OpLocalSet, OpLocalTee:
		p.index(in.Offset, in.Index, s.locals, "local")
	case OpGlobalGet, OpGlobalSet:
		if p.index(in.Offset, in.Index, len(m.Globals), "global") && in.Op == OpGlobalSet && !m.Globals[in.Index].Mutable {
			p.problem(in.Offset, "invalid global.set of global %d: the global is not mutable", in.Index)
		}
	case OpTableGet, OpTableSet, OpTableGrow, OpTableSize, OpTableFill:
		s.tables(in)
	case OpTableCopy:
		p.index(in.Offset, in.Index, len(m.Tables), "table")
		p.index(in.Offset, in.Index2, len(m.Tables), "table")
	case OpTableInit:
		p.index(in.Offset, in.Index, m.Elements, "element segment")
		p.index(in.Offset, in.Index2, len(m.Tables), "table")
	case OpElemDrop:
		p.index(in.Offset, in.Index, m.Elements, "element segment")
	default:
		s.memory(in)
	}
}

func (s *scan) tables(in Instr) {
	if !s.p.index(in.Offset, in.Index, len(s.p.m.Tables), "table") || in.Op != OpTableGrow {
		return
	}
	if s.p.grows == nil {
		s.p.grows = make(map[uint32]int)
	}
	if _, seen := s.p.grows[in.Index]; !seen {
		s.p.grows[in.Index] = in.Offset
	}
}

func (s *scan) memory(in Instr) {
	p := s.p
	switch {
	case in.Op == OpMemoryInit, in.Op == OpDataDrop:
		p.m.NamesData = true
		if p.usesData == nil {
			offset := in.Offset
			p.usesData = &offset
		}
		if p.dataCount >= 0 {
			p.index(in.Offset, in.Index, p.dataCount, "data segment")
		}
		if in.Op == OpMemoryInit {
			p.needsMemory(in.Offset)
		}
	case usesMemory(in.Op):
		p.needsMemory(in.Offset)
	}
}

func usesMemory(op Op) bool {
	return op >= 0x28 && op <= OpMemoryGrow || op == OpMemoryCopy || op == OpMemoryFill ||
		op>>8 == 0xfd && (vector[op&0xff] == immMemArg || vector[op&0xff] == immMemLane)
}
