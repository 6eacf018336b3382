package rewrite

import (
	"fmt"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
)

// emitter rewrites function bodies.
//
// Fuel is counted in a local of each function, which engines keep in a
// register. The global is updated before calls and exits, and read after calls.
// inLocal and inGlobal report which of the two is current at this point. The
// local is current wherever code joins.
type emitter struct {
	machine
	module    *module
	s         *summary
	code      []byte // rewritten, without the insertions of sites
	from      int    // start of the part of the original that is not yet copied
	sites     []site
	segment   int   // site of the charge for the current segment; -1 between two
	resumed   bool  // the current segment is one that ended before
	unchecked int64 // maximum units spent since the last check of the fuel
	limit     int64 // of unchecked
	inLocal   bool
	inGlobal  bool
	newLocals []binary.ValueType
	types     []binary.ValueType // of the parameters and locals of the original
	scratch   [numScratch]uint32
	made      [numScratch]bool
	branches  bool // make scalars canonical, see [emitter.affordsBranches]
	buf       []byte
	history   history
}

func newEmitter(m *module) *emitter {
	e := &emitter{module: m}
	e.machine = machine{m: m.m, observe: func(o operand) {
		e.sites[o.site].what = canonicalize
		e.local(scratchOf(o.kind))
	}}
	return e
}

// function appends the rewritten body, with its size, to out.
func (e *emitter) function(out []byte, body int) ([]byte, error) {
	index := e.m.ImportedFunctions + body
	b, t := e.m.Bodies[body], e.m.FuncType(uint32(index))
	e.start(t)
	e.s = &e.module.functions[body]
	e.code, e.sites, e.newLocals, e.made = e.code[:0], e.sites[:0], e.newLocals[:0], [numScratch]bool{}
	if l := e.module.lines; l != nil {
		l.marks = l.marks[:0]
	}
	e.from, e.types = b.Code, appendLocals(append(e.types[:0], t.Params...), e.module.wasm, b)
	if e.module.o.Metering {
		e.prologue()
	}
	r := binary.NewReader(e.module.wasm, b.Code, b.End)
	for r.More() {
		e.instruction(r, r.Next())
	}
	e.copyTo(b.End)
	e.branches = e.affordsBranches(b)
	e.assemble(b)
	if len(e.buf) > maxBody {
		return out, &Error{Function: index, Offset: b.Offset, Reason: fmt.Sprintf("too large: the function grows to %d bytes, more than the limit of %d", len(e.buf), maxBody)}
	}
	out = appendU32(out, uint32(len(e.buf)))
	e.module.lines.body(b, len(out))
	return append(out, e.buf...), nil
}

// appendLocals appends the types of the locals of a body.
func appendLocals(types []binary.ValueType, wasm []byte, b binary.Body) []binary.ValueType {
	src := source{wasm, b.Start}
	for range src.u32() {
		n := int(src.u32())
		t := binary.ValueType(src.byte())
		for range n {
			types = append(types, t)
		}
	}
	return types
}

// The limits of the units that one call of a function may spend between two
// checks of the fuel, in functions without and with calls. The segment that
// starts with the check is not included. They matter if many calls return one
// after the other without a check in between: the calls that DefaultStack
// allows then spend about 10^8 units, which takes tenths of a second.
const (
	leafLimit   = 512
	callerLimit = 2048
)

// prologue charges the first segment. If the function makes calls, it also
// checks fuel and stack: recursion and trees of calls pass this check
// repeatedly.
func (e *emitter) prologue() {
	e.unchecked, e.limit = 0, leafLimit
	e.inLocal, e.inGlobal = false, true
	if e.s.leaf {
		e.segment = e.site(chargeGlobal, 0)
		if !e.s.straight {
			e.needLocal()
		}
		return
	}
	e.inLocal, e.inGlobal = true, false
	e.segment = e.site(chargeEntry, 0)
	if e.s.light() {
		e.lightEntry()
		return
	}
	e.limit = callerLimit
	e.scratched(binary.OpLocalTee, scratchFuel)
	e.takeStack()
	e.op(opI64Or)
	e.refillIfNegative(true)
}

// takeStack leaves the stack that remains for callees on the operand stack.
func (e *emitter) takeStack() {
	e.indexed(binary.OpGlobalGet, e.module.stack)
	e.constant(binary.OpI64Const, e.s.frame)
	e.op(opI64Sub)
	e.scratched(binary.OpLocalTee, scratchStack)
}

// lightEntry checks only the stack. Nothing is live after a call that does not
// return, so the engine keeps nothing in memory for it.
func (e *emitter) lightEntry() {
	e.scratched(binary.OpLocalSet, scratchFuel)
	e.takeStack()
	e.code = appendNegative(e.code)
	e.block(binary.OpIf, emptyBlock)
	e.scratched(binary.OpLocalGet, scratchFuel)
	e.scratched(binary.OpLocalGet, scratchStack)
	e.indexed(binary.OpCall, e.module.refill)
	e.op(binary.OpUnreachable)
	e.op(binary.OpEnd)
}

// refillIfNegative pops a number from the operand stack and refills if it is
// negative.
func (e *emitter) refillIfNegative(entry bool) {
	e.code = appendNegative(e.code)
	e.block(binary.OpIf, emptyBlock)
	e.refill(entry)
	e.op(binary.OpEnd)
}

// refill calls yield. At the entry of a function it also passes the stack.
func (e *emitter) refill(entry bool) {
	e.scratched(binary.OpLocalGet, scratchFuel)
	if entry {
		e.scratched(binary.OpLocalGet, scratchStack)
	} else {
		e.constant(binary.OpI64Const, 0)
	}
	e.indexed(binary.OpCall, e.module.refill)
	e.scratched(binary.OpLocalSet, scratchFuel)
}

// newSegment starts a segment at a point at which the local is current.
func (e *emitter) newSegment() {
	if e.module.o.Metering && !e.dead {
		e.segment = e.site(chargeLocal, 0)
		e.inGlobal = false
	}
}

// endSegment decides whether the segment that ends here checks the fuel at its
// start.
func (e *emitter) endSegment() {
	if !e.module.o.Metering || e.segment < 0 {
		return
	}
	s, resumed := &e.sites[e.segment], e.resumed
	e.segment, e.resumed = -1, false
	e.unchecked += s.cost - s.counted
	s.counted = s.cost
	switch {
	case !resumed && (s.checked || s.what == chargeEntry && !e.s.light()):
		e.unchecked = 0
	case e.unchecked <= e.limit:
	case resumed: // the check is before what came between
		s.checked, e.unchecked = true, e.limit
	default:
		s.checked, e.unchecked = true, 0
	}
}

func (e *emitter) spend(n int64) {
	if e.module.o.Metering {
		e.sites[e.segment].cost += n
	}
}

// needLocal makes the local current.
func (e *emitter) needLocal() {
	if !e.module.o.Metering || e.s.straight || e.inLocal {
		return
	}
	e.inLocal = true
	if e.segment >= 0 && e.sites[e.segment].what == chargeGlobal {
		// Only the global was current at the start of the segment.
		e.sites[e.segment].what = chargeLoad
		e.local(scratchFuel)
		e.inGlobal = false
		return
	}
	e.indexed(binary.OpGlobalGet, e.module.fuel)
	e.scratched(binary.OpLocalSet, scratchFuel)
}

// needGlobal makes the global current.
func (e *emitter) needGlobal() {
	if e.module.o.Metering && !e.s.straight && !e.inGlobal {
		e.scratched(binary.OpLocalGet, scratchFuel)
		e.indexed(binary.OpGlobalSet, e.module.fuel)
		e.inGlobal = true
	}
}

func (e *emitter) instruction(r *binary.Reader, in binary.Instr) {
	e.mark(in)
	e.history.follow(in)
	if e.dead {
		depth := e.skipped
		if e.skip(in.Op) {
			e.deadCode(r, in, depth)
			return
		}
	}
	if in.Op != binary.OpEnd && in.Op != binary.OpElse {
		e.spend(1)
	}
	switch in.Op {
	case binary.OpBlock:
		e.open(in).before = e.segment
	case binary.OpLoop:
		e.leave(0)
		e.loop(in)
		e.enterHead()
	case binary.OpIf:
		e.copyTo(in.Offset)
		e.needLocal()
		e.copyTo(in.End)
		before := e.segment
		e.endSegment()
		f := e.open(in)
		f.began, f.before = e.unchecked, before
		e.newSegment()
	case binary.OpElse:
		e.branchEnd(in)
	case binary.OpEnd:
		e.end(in)
	case binary.OpBr, binary.OpBrIf, binary.OpBrTable, binary.OpReturn, binary.OpUnreachable:
		e.branch(r, in)
	case binary.OpCall, binary.OpCallIndirect:
		e.calls(in)
	default:
		e.value(in)
	}
}

// deadCode copies an instruction that is never reached. An engine still checks
// its indices and labels.
func (e *emitter) deadCode(r *binary.Reader, in binary.Instr, depth int) {
	switch in.Op {
	case binary.OpBr, binary.OpBrIf, binary.OpBrTable:
		e.relabel(r, in, uint32(depth))
	case binary.OpCall, binary.OpRefFunc:
		e.refer(in)
	}
}

// refer replaces the index of a function.
func (e *emitter) refer(in binary.Instr) {
	if shifted := e.module.function(in.Index); shifted != in.Index {
		e.copyTo(in.Offset)
		e.indexed(in.Op, shifted)
		e.from = in.End
	}
}

// label returns the label in the rewritten code that corresponds to label in
// the original. skipped is the number of open blocks that the machine does not
// know.
func (e *emitter) label(label, skipped uint32) uint32 {
	if label < skipped {
		return label
	}
	return skipped + uint32(e.top().level-e.target(label-skipped).level)
}

func (e *emitter) relabel(r *binary.Reader, in binary.Instr, skipped uint32) {
	e.copyTo(in.Offset)
	e.op(in.Op)
	if in.Op == binary.OpBrTable {
		e.code = appendU32(e.code, uint32(in.Targets))
		for label := range r.Targets(in) {
			e.code = appendU32(e.code, e.label(label, skipped))
		}
	} else {
		e.code = appendU32(e.code, e.label(in.Index, skipped))
	}
	e.from = in.End
}

// loop enters a loop. If branches lead back to it, it checks the fuel in each
// iteration. A call in a loop makes the engine keep everything that is live in
// the loop in memory, so the call that refills the fuel is outside the loop. Only
// loops around others have it at their head: they repeat less often, and the
// blocks and loops that keep it outside would multiply the depth of code that is
// nested, and with it the time to compile.
func (e *emitter) loop(in binary.Instr) {
	flags := e.s.blocks[e.blocks]
	if !e.module.o.Metering || flags&targeted == 0 {
		e.open(in)
		return
	}
	e.copyTo(in.Offset)
	e.needLocal()
	e.endSegment()
	switch {
	case flags&outer != 0:
		e.copyTo(in.End)
		e.open(in)
		e.newSegment()
		e.sites[e.segment].checked = true
	case len(e.blockType(in).Params) == 0:
		e.checkedBack(in)
	default:
		e.checkedHead(in)
	}
}

// checkedHead enters a loop that checks the fuel at its head. To refill, it
// leaves the loop for a second one around it, with the parameters of the loop.
func (e *emitter) checkedHead(in binary.Instr) {
	e.raw(in.Offset, in.End)
	e.scratched(binary.OpLocalGet, scratchFuel)
	e.refillIfNegative(false)
	e.copyTo(in.End)
	e.scratched(binary.OpLocalGet, scratchFuel)
	e.code = appendNegative(e.code)
	e.indexed(binary.OpBrIf, 1)
	f := e.open(in)
	f.level, f.wrapped = f.level+1, true
	e.unchecked = 0
	e.newSegment()
}

// Labels around a loop that checks the fuel before branches back to it, counted
// from its own label.
const (
	toRefill = 1 // the end of the block around the loop
	around   = 3 // blocks and loops
)

// checkedBack enters a loop that checks the fuel before each branch back to it,
// and leaves it to refill:
//
//	block
//	  loop
//	    block
//	      loop ... end
//	      br 2
//	    end
//	    refill
//	    br 0
//	  end
//	end
//
// A check at the head costs more: the engine compares and branches in one
// instruction only if the branch does not lead to a loop.
func (e *emitter) checkedBack(in binary.Instr) {
	typ := e.module.wasm[in.Offset+1 : in.End]
	e.block(binary.OpBlock, typ...)
	e.block(binary.OpLoop, typ...)
	e.block(binary.OpBlock, emptyBlock)
	e.copyTo(in.End)
	f := e.open(in)
	f.level, f.checksBack = f.level+around, true
	e.newSegment()
}

// closeBack writes the code after such a loop. Its last end is the end of the
// loop.
func (e *emitter) closeBack() {
	e.op(binary.OpEnd)
	e.indexed(binary.OpBr, 2)
	e.op(binary.OpEnd)
	e.refill(false)
	e.indexed(binary.OpBr, 0)
	e.op(binary.OpEnd)
}

// back writes a branch to a loop that checks the fuel there, or a branch that
// the engine combines with the comparison before it: br_if to a loop is split
// into two blocks, as if there were code in between.
func (e *emitter) back(in binary.Instr, f *frame) {
	e.copyTo(in.Offset)
	label := e.label(in.Index, 0)
	if in.Op == binary.OpBrIf {
		e.block(binary.OpIf, emptyBlock)
		label++
	}
	if f.checksBack {
		// The branch that is taken comes first: the engine keeps the order.
		e.scratched(binary.OpLocalGet, scratchFuel)
		e.constant(binary.OpI64Const, 0)
		e.op(opI64GeS)
		e.block(binary.OpIf, emptyBlock)
		e.indexed(binary.OpBr, label+1)
		e.op(binary.OpEnd)
		label += toRefill
	}
	e.indexed(binary.OpBr, label)
	if in.Op == binary.OpBrIf {
		e.op(binary.OpEnd)
	}
	e.from = in.End
}

func (e *emitter) branchEnd(in binary.Instr) {
	e.copyTo(in.Offset)
	f := e.top()
	if !e.dead {
		e.needLocal()
		e.endSegment()
		f.branched = max(f.branched, e.unchecked)
	}
	e.otherwise()
	e.copyTo(in.End)
	e.unchecked = f.began
	e.inLocal, e.inGlobal = true, false
	e.newSegment()
}

func (e *emitter) end(in binary.Instr) {
	e.copyTo(in.Offset)
	if e.top().number < 0 {
		if !e.dead {
			e.needGlobal()
			e.endSegment()
		}
		e.close(false)
		return
	}
	f := e.top()
	joined := f.op == binary.OpIf || f.op != binary.OpLoop && e.s.blocks[f.number]&targeted != 0
	joins := joined || f.op == binary.OpElse
	if joins && !e.dead {
		e.needLocal()
		e.endSegment()
	} else if e.dead {
		e.unchecked = 0
	}
	if f.wrapped {
		e.op(binary.OpEnd)
	} else if f.checksBack {
		e.closeBack()
	}
	closed := e.close(joined)
	e.leave(closed.leaves)
	e.copyTo(in.End)
	if joins {
		e.unchecked = max(e.unchecked, closed.branched)
		if closed.op == binary.OpIf {
			e.unchecked = max(e.unchecked, closed.began)
		}
		e.inLocal, e.inGlobal = true, false
		e.join(closed)
	}
}

// join continues after a block. If the block can only be left at its end, the
// code after it is executed whenever the code before it is, unless a trap comes
// first, and is charged together with that code.
func (e *emitter) join(f frame) {
	if e.dead || !e.module.o.Metering || f.leaves < len(e.frames) || e.unchecked > e.limit {
		e.newSegment()
		return
	}
	e.segment, e.resumed = f.before, true
}

// leave notes that the code of the open blocks above a depth is not always
// followed by the code after them, or that the fuel is read in it.
func (e *emitter) leave(depth int) {
	f := e.top()
	f.leaves = min(f.leaves, depth)
}

func (e *emitter) branch(r *binary.Reader, in binary.Instr) {
	e.copyTo(in.Offset)
	switch in.Op {
	case binary.OpUnreachable:
		e.endSegment()
		e.jump(0)
		return
	case binary.OpReturn:
		e.leave(0)
		e.needGlobal()
		e.endSegment()
		e.jump(len(e.frames[0].results))
		return
	case binary.OpBrTable:
		for label := range r.Targets(in) {
			e.leave(len(e.frames) - 1 - int(label))
			e.ready(label, false)
		}
		for label := range r.Targets(in) {
			e.ready(label, true)
		}
		e.leaveHead(r, in)
		e.endSegment()
		for label := range r.Targets(in) {
			e.reaches(label)
		}
	default:
		if in.Op == binary.OpBr {
			in.Index = e.shortcut(in)
		}
		e.leave(len(e.frames) - 1 - int(in.Index))
		e.ready(in.Index, e.target(in.Index).number < 0)
		e.endSegment()
		e.reaches(in.Index)
	}
	e.branchTo(r, in)
	arity := e.target(in.Index).arity()
	if in.Op != binary.OpBr {
		e.use(1, fixed)
	}
	if in.Op == binary.OpBrIf {
		e.needLocal()
		e.pass(arity)
		e.newSegment()
		return
	}
	e.jump(arity)
}

// branchTo writes a branch, preceded by the checks of its target loops.
func (e *emitter) branchTo(r *binary.Reader, in binary.Instr) {
	f := e.target(in.Index)
	switch {
	case !e.module.o.Metering:
	case in.Op == binary.OpBrTable:
		if e.checksBack(r, in) {
			e.scratched(binary.OpLocalGet, scratchFuel)
			e.refillIfNegative(false)
		}
	case f.checksBack, in.Op == binary.OpBrIf && f.op == binary.OpLoop && f.arity() == 0:
		e.back(in, f)
		return
	}
	e.relabel(r, in, 0)
}

// checksBack reports whether a table of labels has a loop that checks the fuel
// before branches back to it.
func (e *emitter) checksBack(r *binary.Reader, in binary.Instr) bool {
	for label := range r.Targets(in) {
		if e.target(label).checksBack {
			return true
		}
	}
	return false
}

// ready makes current what the code at a label expects: the global at the end
// of the function, otherwise the local. In a table of labels, those that expect
// the local come first, because making it current may leave the global
// outdated.
func (e *emitter) ready(label uint32, ends bool) {
	if end := e.target(label).number < 0; end && ends {
		e.needGlobal()
	} else if !end && !ends {
		e.needLocal()
	}
}

// reaches records the unchecked units at the target of a branch.
func (e *emitter) reaches(label uint32) {
	f := e.target(label)
	f.branched = max(f.branched, e.unchecked)
}

func (e *emitter) calls(in binary.Instr) {
	var t binary.FuncType
	var callee *summary
	if in.Op == binary.OpCall {
		t, callee = e.m.FuncType(in.Index), e.module.body(in.Index)
	} else {
		t = e.m.Types[in.Index]
		e.use(1, fixed)
	}
	if e.module.o.Metering {
		e.leave(0)
		e.copyTo(in.Offset)
		e.needGlobal()
		if e.s.light() && isLast(e.module.wasm, in) {
			e.checkBeforeCall()
		}
		if callee == nil || !callee.leaf {
			e.scratched(binary.OpLocalGet, scratchStack)
			e.indexed(binary.OpGlobalSet, e.module.stack)
		}
		e.endSegment()
	}
	if in.Op == binary.OpCall {
		e.refer(in)
	}
	e.call(t)
	if e.module.o.Metering {
		e.copyTo(in.End)
		e.called(callee)
		if in.Op == binary.OpCallIndirect {
			e.unchecked += lightLimit // of a callee that makes no calls, or is light
		}
	}
}

// called starts a segment after a call. Its code is charged when the call has
// returned. Otherwise a deep recursion could charge all of it on the way down,
// and spend it on the way up without a check.
func (e *emitter) called(callee *summary) {
	switch {
	case callee == nil:
	case callee.work <= lightLimit:
		e.unchecked += callee.work
	default:
		e.unchecked = 0 // the callee has checked at its entry
	}
	e.segment = e.site(chargeGlobal, 0)
	e.inLocal, e.inGlobal = false, true
}

// checkBeforeCall refills if the global, which is current, is negative.
func (e *emitter) checkBeforeCall() {
	get, set, index := binary.OpGlobalGet, binary.OpGlobalSet, e.module.fuel
	if e.inLocal {
		get, set, index = binary.OpLocalGet, binary.OpLocalSet, e.local(scratchFuel)
	}
	e.code = e.charged(e.code, &site{checked: true}, get, set, index)
}

func (e *emitter) value(in binary.Instr) {
	switch in.Op {
	case binary.OpLocalGet:
		e.result(in, operand{kind: e.floatLocal(in.Index), from: e.originOf(in.Index), typ: e.types[in.Index], unset: e.s.unset != nil && e.s.unset[in.Index]})
	case binary.OpLocalSet:
		e.setLocal(in.Index)
	case binary.OpLocalTee:
		o := e.setLocal(in.Index)
		if !o.kind.native() || e.floatLocal(in.Index) == fixed {
			o.kind = fixed
		}
		o.from = e.originOf(in.Index)
		e.push(o)
	case binary.OpGlobalGet:
		e.push(operand{typ: e.m.Globals[in.Index].Type})
	case binary.OpRefFunc:
		e.refer(in)
		e.push(operand{})
	case binary.OpI32Const, binary.OpI64Const:
		e.push(constant(e.module.wasm[in.Offset:in.End], in))
	case opDrop:
		e.pop()
	default:
		e.operation(in)
	}
}

// operation processes an instruction whose operands do not depend on its
// position.
func (e *emitter) operation(in binary.Instr) {
	f := effectOf(in.Op)
	switch {
	case e.module.o.Metering && isBulk(in.Op):
		e.bulk(in)
		return
	case in.Op == opSelect || in.Op == binary.OpSelectType:
		f.typ, f.from = e.below(2).typ, computed
	}
	e.avoidFaults(in)
	if e.use(int(f.pop), f.blind); f.push > 0 {
		e.result(in, operand{kind: f.makes, from: f.from, typ: f.typ})
	}
}

// result pushes the result of an instruction.
func (e *emitter) result(in binary.Instr, o operand) {
	if e.module.o.NativeNaNs {
		o.kind = fixed
	}
	if o.kind.native() {
		e.copyTo(in.End)
		o.site = e.site(unneeded, o.kind)
		e.sites[o.site].shared = in.Op == binary.OpLocalGet
	}
	e.push(o)
}

func (e *emitter) floatLocal(index uint32) kind {
	if e.s.floats == nil {
		return fixed
	}
	return e.s.floats[index]
}

// originOf returns the known origin of the value of a local.
func (e *emitter) originOf(local uint32) origin {
	if e.s.anded == nil || e.s.anded[local] {
		return anywhere
	}
	return variable
}

// setLocal pops the value of a local. A local that holds only results of
// arithmetic is made canonical when it is read.
func (e *emitter) setLocal(index uint32) operand {
	o := e.pop()
	if o.kind.native() && e.floatLocal(index) == fixed {
		e.observe(o)
		o.kind = fixed
	}
	return o
}

// bulk charges an instruction by size after it has run: if it traps, it has
// done nothing, and if its size is small, no check is needed before. Large
// operations are done in pieces, and charged before the first piece.
func (e *emitter) bulk(in binary.Instr) {
	e.leave(0)
	f := effectOf(in.Op)
	e.use(int(f.pop), fixed)
	e.copyTo(in.Offset)
	e.needLocal()
	e.scratched(binary.OpLocalTee, scratchLength)
	e.pieces(in.Op)
	e.copyTo(in.End)
	grows := in.Op == binary.OpMemoryGrow || in.Op == binary.OpTableGrow
	if grows {
		e.scratched(binary.OpLocalTee, scratchGrown)
	}
	e.scratched(binary.OpLocalGet, scratchFuel)
	e.scratched(binary.OpLocalGet, scratchLength)
	e.op(opExtend)
	e.units(in.Op)
	if grows {
		e.scratched(binary.OpLocalGet, scratchGrown)
		e.constant(binary.OpI32Const, -1)
		e.op(opI32Ne)
		e.op(opExtend)
		e.op(opI64Mul)
	}
	e.op(opI64Sub)
	e.scratched(binary.OpLocalTee, scratchFuel)
	e.inGlobal = false
	e.refillIfNegative(false)
	if f.push > 0 {
		e.push(operand{from: f.from, typ: f.typ})
	}
}

// units converts a number of bytes, entries or pages to units of fuel.
func (e *emitter) units(op binary.Op) {
	switch op {
	case binary.OpMemoryGrow:
		e.constant(binary.OpI64Const, unitsPerPage)
		e.op(opI64Mul)
	case binary.OpMemoryFill, binary.OpMemoryCopy, binary.OpMemoryInit:
		e.constant(binary.OpI64Const, byteShift)
		e.op(opI64ShR)
	}
}

// maxBody bounds a rewritten body, because the time and memory of engines grow
// faster than its size.
const maxBody = 4 * binary.MaxBodySize
