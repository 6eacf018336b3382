package rewrite

import (
	"math"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
)

// blockFlags describe the reachable code of a block.
type blockFlags uint8

const (
	targeted blockFlags = 1 << iota // a branch leads to its label
	outer                           // a loop with targeted loops in it
)

// summary has the facts about a function that are needed before any is
// rewritten.
type summary struct {
	leaf     bool // makes no calls
	straight bool // one segment, without calls and bulk operations
	blocks   []blockFlags
	// floats is the kind of each local that only ever holds zero, numbers and
	// results of float arithmetic; nil if there is none.
	floats []kind
	// anded marks the locals that may hold a result of an and; nil if the
	// function has no and.
	anded []bool
	// unset marks the locals that are always 0, because no instruction sets them;
	// nil if the function has no and.
	unset []bool
	frame int64    // stack cost of a call
	units int64    // cost of executing each instruction once
	calls []uint32 // functions that are called; unknown for one that the code does not name
	// work is the maximum number of units between two checks of the fuel, those of
	// callees included. It is unbounded in a function that checks at its entry.
	work int64
}

// unknown is the callee of an indirect call.
const unknown = math.MaxUint32

// scanner makes the summaries of functions.
type scanner struct {
	machine
	wasm     []byte
	s        summary
	segments int
	bulk     bool
	params   int
	sets     []setState // of each local
	any      bool       // a local has been set to a native value
	ands     bool       // the function has an and
	slots    int        // of parameters and locals
	index    int        // of the function
	values   int        // values that may need their own slot in the frame
	lasting  map[string]Reason
}

type setState struct {
	kind  kind
	mixed bool
	anded bool
	set   bool
}

func newScanner(m *binary.Module, wasm []byte) *scanner {
	s := &scanner{wasm: wasm}
	s.machine = machine{m: m, observe: func(operand) {}}
	return s
}

// function returns the summary of the function with the given body.
func (s *scanner) function(body int) (summary, error) {
	index := s.m.ImportedFunctions + body
	b, t := s.m.Bodies[body], s.m.FuncType(uint32(index))
	s.start(t)
	s.s, s.segments, s.bulk, s.any, s.ands = summary{leaf: true}, 0, false, false, false
	s.params, s.index, s.values = len(t.Params), index, 0
	s.locals(b, t)
	r := binary.NewReader(s.wasm, b.Code, b.End)
	for r.More() {
		in := r.Next()
		s.s.units++
		if s.instruction(r, in); s.broken {
			return summary{}, &Error{Function: index, Offset: in.Offset, Reason: "a type error: too few operands"}
		}
	}
	if p := r.Err(); p != nil {
		return summary{}, &Error{Function: index, Offset: p.Offset, Reason: p.Reason}
	}
	s.s.straight = s.s.leaf && s.segments == 0 && !s.bulk
	s.s.floats, s.s.anded, s.s.unset = s.floats(), s.anded(), s.unset()
	s.s.frame = int64(frameOverhead + s.slots + s.height + s.values/valuesPerSlot)
	return s.s, nil
}

// locals counts the slots of 8 bytes of parameters and locals.
func (s *scanner) locals(b binary.Body, t binary.FuncType) {
	s.slots = len(t.Params) + b.Locals
	for _, p := range t.Params {
		if p == binary.V128 {
			s.slots++
		}
	}
	src := source{s.wasm, b.Start}
	for range src.u32() {
		n := int(src.u32())
		if binary.ValueType(src.byte()) == binary.V128 {
			s.slots += n
		}
	}
	if n := len(t.Params) + b.Locals; cap(s.sets) < n {
		s.sets = make([]setState, n)
	} else {
		s.sets = s.sets[:n]
		clear(s.sets)
	}
}

// floats returns the kinds of the locals that hold results of arithmetic.
func (s *scanner) floats() (kinds []kind) {
	if !s.any {
		return nil
	}
	for i, set := range s.sets[s.params:] {
		if set.kind.native() && !set.mixed {
			if kinds == nil {
				kinds = make([]kind, len(s.sets))
			}
			kinds[s.params+i] = set.kind
		}
	}
	return kinds
}

// anded returns the locals that may hold a result of an and.
func (s *scanner) anded() (locals []bool) {
	if !s.ands {
		return nil
	}
	locals = make([]bool, len(s.sets))
	for i, set := range s.sets {
		locals[i] = set.anded
	}
	return locals
}

// unset returns the locals that are always 0.
func (s *scanner) unset() (locals []bool) {
	if !s.ands {
		return nil
	}
	locals = make([]bool, len(s.sets))
	for i, set := range s.sets {
		locals[i] = i >= s.params && !set.set
	}
	return locals
}

func (s *scanner) instruction(r *binary.Reader, in binary.Instr) {
	if s.dead && s.skip(in.Op) {
		return
	}
	switch in.Op {
	case binary.OpBlock, binary.OpLoop:
		s.open(in)
		s.s.blocks = append(s.s.blocks, 0)
	case binary.OpIf:
		s.open(in)
		s.s.blocks = append(s.s.blocks, 0)
		s.segments++
	case binary.OpElse:
		s.otherwise()
	case binary.OpEnd:
		s.end()
	case binary.OpBr, binary.OpBrIf, binary.OpBrTable, binary.OpReturn, binary.OpUnreachable:
		s.branch(r, in)
	case binary.OpCall:
		s.makesCall(in, in.Index)
		s.call(s.m.FuncType(in.Index))
	case binary.OpCallIndirect:
		s.makesCall(in, unknown)
		s.use(1, fixed)
		s.call(s.m.Types[in.Index])
	default:
		s.value(in)
	}
}

func (s *scanner) makesCall(in binary.Instr, callee uint32) {
	s.values++
	s.s.leaf = false
	if !isLast(s.wasm, in) {
		s.s.calls = append(s.s.calls, callee)
	}
}

// markOuter marks the open loops as ones around a loop. The loops around a marked
// one are marked.
func (s *scanner) markOuter() {
	for i := len(s.frames) - 1; i > 0; i-- {
		if f := s.frames[i]; f.op == binary.OpLoop {
			if s.s.blocks[f.number]&outer != 0 {
				return
			}
			s.s.blocks[f.number] |= outer
		}
	}
}

func (s *scanner) end() {
	f := s.top()
	joined := f.op == binary.OpIf
	if f.number >= 0 && s.s.blocks[f.number]&targeted != 0 {
		if f.op == binary.OpLoop {
			// Branches to a loop are known only at its end.
			inner := s.frames
			s.frames = s.frames[:len(s.frames)-1]
			s.markOuter()
			s.frames = inner
		} else {
			joined = true
		}
	}
	s.close(joined)
}

func (s *scanner) branch(r *binary.Reader, in binary.Instr) {
	switch in.Op {
	case binary.OpBr:
		s.mark(in.Index)
		s.jump(s.target(in.Index).arity())
	case binary.OpBrIf:
		s.segments++
		s.mark(in.Index)
		s.use(1, fixed)
		s.pass(s.target(in.Index).arity())
	case binary.OpBrTable:
		s.segments++
		for label := range r.Targets(in) {
			s.mark(label)
		}
		s.use(1, fixed)
		s.jump(s.target(in.Index).arity())
	case binary.OpReturn:
		s.jump(len(s.frames[0].results))
	default:
		s.jump(0)
	}
}

func (s *scanner) mark(label uint32) {
	if f := s.target(label); f.number >= 0 {
		s.s.blocks[f.number] |= targeted
		s.segments++
	}
}

func (s *scanner) value(in binary.Instr) {
	switch in.Op {
	case binary.OpLocalSet:
		s.values++
		s.set(in.Index, s.pop())
	case binary.OpLocalTee:
		s.values++
		o := s.pop()
		s.set(in.Index, o)
		s.push(o)
	case binary.OpF32Const, binary.OpF64Const, binary.OpV128Const:
		s.push(constant(s.wasm[in.Offset:in.End], in))
	default:
		s.lasts(in)
		if isBulk(in.Op) {
			s.bulk = true
		}
		s.ands = s.ands || in.Op == opI32And || in.Op == opI64And
		s.plain(effectOf(in.Op), 0)
		if len(s.stack) > registers {
			s.values++
		}
	}
}

func (s *scanner) set(local uint32, o operand) {
	set := &s.sets[local]
	set.set = true
	set.anded = set.anded || o.from == anywhere || o.from == anded
	switch {
	case o.kind == fixed, set.kind != fixed && o.kind.native() && set.kind != o.kind:
		set.mixed = true
	case o.kind.native():
		set.kind = o.kind
		s.any = true
	}
}

// lasts records an instruction that changes state that a reset does not
// restore. The contents of a segment matter only if the module copies from it.
func (s *scanner) lasts(in binary.Instr) {
	name, ok := lasting[in.Op]
	if !ok {
		return
	}
	if _, seen := s.lasting[name]; !seen {
		s.lasting[name] = Reason{name, s.index, in.Offset}
	}
}

var lasting = map[binary.Op]string{
	binary.OpTableSet:  "table.set",
	binary.OpTableFill: "table.fill",
	binary.OpTableCopy: "table.copy",
	binary.OpTableInit: "table.init",
	binary.OpTableGrow: "table.grow",
	binary.OpElemDrop:  "elem.drop",
	binary.OpDataDrop:  "data.drop",
}

// isBulk reports whether the time of an instruction depends on an operand.
func isBulk(op binary.Op) bool {
	switch op {
	case binary.OpMemoryInit, binary.OpMemoryCopy, binary.OpMemoryFill, binary.OpMemoryGrow,
		binary.OpTableInit, binary.OpTableCopy, binary.OpTableGrow, binary.OpTableFill:
		return true
	}
	return false
}
