package rewrite

import (
	"fmt"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
)

// emitter rewrites function bodies.
//
// Fuel is counted in a local of each function, which engines keep in a
// register; the global is brought up to date before calls and exits, and read
// after calls. inLocal and inGlobal say which of the two is current at this
// point. Wherever code joins, the local is.
type emitter struct {
	machine
	module    *module
	s         *summary
	code      []byte // rewritten, without what sites insert
	from      int    // what of the original is not yet copied
	sites     []site
	segment   int   // site of the charge for the current segment; -1 between two
	unchecked int64 // units spent since the last check of the fuel, at most
	limit     int64 // of unchecked
	inLocal   bool
	inGlobal  bool
	newLocals []binary.ValueType
	locals    uint32 // parameters and locals of the original
	scratch   [numScratch]uint32
	made      [numScratch]bool
	buf       []byte
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
	e.from, e.locals = b.Code, uint32(len(t.Params)+b.Locals)
	if e.module.o.Metering {
		e.prologue()
	}
	r := binary.NewReader(e.module.wasm, b.Code, b.End)
	for r.More() {
		e.instruction(r, r.Next())
	}
	e.copyTo(b.End)
	e.assemble(b)
	if len(e.buf) > maxBody {
		return out, &Error{Function: index, Offset: b.Offset, Reason: fmt.Sprintf("a function that grows to %d bytes, of which %d are allowed", len(e.buf), maxBody)}
	}
	return append(appendU32(out, uint32(len(e.buf))), e.buf...), nil
}

// The limits of what one call of a function may spend between two checks of
// the fuel, in functions without and with calls, apart from the segment that
// begins with the check. They matter where many calls return one after the
// other, without a check in between: the calls that DefaultStack allows spend
// some 10^8 units then, which takes tenths of a second.
const (
	leafLimit   = 512
	callerLimit = 128
	callUnits   = 32 // that a call is taken to have spent since the last check
)

// prologue charges the first segment, and checks fuel and stack where the
// function makes calls: recursion and trees of calls come past it again and
// again.
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
	e.limit = callerLimit
	e.inLocal, e.inGlobal = true, false
	e.segment = e.site(chargeEntry, 0)
	e.scratched(binary.OpLocalTee, scratchFuel)
	e.indexed(binary.OpGlobalGet, e.module.stack)
	e.constant(binary.OpI64Const, e.s.frame)
	e.op(opI64Sub)
	e.scratched(binary.OpLocalTee, scratchStack)
	e.op(opI64Or)
	e.refillIfNegative(true)
}

// refillIfNegative takes a number from the operand stack.
func (e *emitter) refillIfNegative(entry bool) {
	e.code = appendNegative(e.code)
	e.block(binary.OpIf, emptyBlock)
	e.scratched(binary.OpLocalGet, scratchFuel)
	if entry {
		e.scratched(binary.OpLocalGet, scratchStack)
	} else {
		e.constant(binary.OpI64Const, 0)
	}
	e.indexed(binary.OpCall, e.module.refill)
	e.scratched(binary.OpLocalSet, scratchFuel)
	e.op(binary.OpEnd)
}

// newSegment starts a segment at a point where the local is current.
func (e *emitter) newSegment() {
	if e.module.o.Metering && !e.dead {
		e.segment = e.site(chargeLocal, 0)
		e.inGlobal = false
	}
}

// endSegment decides whether the segment that ends here checks the fuel, at
// its start.
func (e *emitter) endSegment() {
	if !e.module.o.Metering || e.segment < 0 {
		return
	}
	s := &e.sites[e.segment]
	e.segment = -1
	e.unchecked += s.cost
	if s.what == chargeEntry || s.checked {
		e.unchecked = 0
	} else if e.unchecked > e.limit {
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
		// The segment began where only the global was current.
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
		e.open(in)
	case binary.OpLoop:
		e.loop(in)
	case binary.OpIf:
		e.copyTo(in.Offset)
		e.needLocal()
		e.copyTo(in.End)
		e.endSegment()
		e.open(in).began = e.unchecked
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

// deadCode copies an instruction that is never reached: an engine still checks
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

// label returns the label in the rewritten code that means what label means in
// the original, where skipped blocks are open that the machine does not know.
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

// loop enters a loop. One that a branch leads back to checks the fuel, each
// time around. A call in a loop makes the engine keep everything that lives
// through the loop in memory; where the loop makes no calls itself, the call
// that refills the fuel therefore stands outside it, in a second loop around
// the first.
func (e *emitter) loop(in binary.Instr) {
	flags := e.s.blocks[e.blocks]
	if !e.module.o.Metering || flags&targeted == 0 {
		e.open(in)
		return
	}
	e.copyTo(in.Offset)
	e.needLocal()
	e.endSegment()
	if flags&busy == 0 {
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
		return
	}
	e.copyTo(in.End)
	e.open(in)
	e.newSegment()
	e.sites[e.segment].checked = true
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
	}
	closed := e.close(joined)
	e.copyTo(in.End)
	if joins {
		e.unchecked = max(e.unchecked, closed.branched)
		if closed.op == binary.OpIf {
			e.unchecked = max(e.unchecked, closed.began)
		}
		e.inLocal, e.inGlobal = true, false
		e.newSegment()
	}
}

func (e *emitter) branch(r *binary.Reader, in binary.Instr) {
	e.copyTo(in.Offset)
	switch in.Op {
	case binary.OpUnreachable:
		e.endSegment()
		e.jump(0)
		return
	case binary.OpReturn:
		e.needGlobal()
		e.endSegment()
		e.jump(e.frames[0].results)
		return
	case binary.OpBrTable:
		for label := range r.Targets(in) {
			e.ready(label, false)
		}
		for label := range r.Targets(in) {
			e.ready(label, true)
		}
		e.endSegment()
		for label := range r.Targets(in) {
			e.reaches(label)
		}
	default:
		e.ready(in.Index, e.target(in.Index).number < 0)
		e.endSegment()
		e.reaches(in.Index)
	}
	e.relabel(r, in, 0)
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

// ready makes current what the code at a label expects: the global at the end
// of the function, else the local. Of a table of labels, those that expect the
// local come first: what makes it current may leave the global behind.
func (e *emitter) ready(label uint32, ends bool) {
	if end := e.target(label).number < 0; end && ends {
		e.needGlobal()
	} else if !end && !ends {
		e.needLocal()
	}
}

// reaches notes what is unchecked where a branch leads.
func (e *emitter) reaches(label uint32) {
	f := e.target(label)
	f.branched = max(f.branched, e.unchecked)
}

func (e *emitter) calls(in binary.Instr) {
	var t binary.FuncType
	leaf := false
	if in.Op == binary.OpCall {
		t, leaf = e.m.FuncType(in.Index), e.module.isLeaf(in.Index)
	} else {
		t = e.m.Types[in.Index]
		e.use(1, fixed)
	}
	if e.module.o.Metering {
		e.copyTo(in.Offset)
		e.needGlobal()
		if !leaf {
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
		// What follows is charged when the call has returned: otherwise a
		// deep recursion could charge it all on the way down, and spend it on
		// the way up without a check.
		e.copyTo(in.End)
		e.unchecked += callUnits
		e.segment = e.site(chargeGlobal, 0)
		e.inLocal, e.inGlobal = false, true
	}
}

func (e *emitter) value(in binary.Instr) {
	switch in.Op {
	case binary.OpLocalGet:
		e.getLocal(in)
	case binary.OpLocalSet:
		e.setLocal(in.Index)
	case binary.OpLocalTee:
		if o := e.setLocal(in.Index); o.kind.native() && e.floatLocal(in.Index) != fixed {
			e.push(o)
		} else {
			e.pushFixed(1)
		}
	case binary.OpRefFunc:
		e.refer(in)
		e.pushFixed(1)
	case opDrop:
		e.pop()
	default:
		if e.module.o.Metering && isBulk(in.Op) {
			e.bulk(in)
			return
		}
		f := effectOf(in.Op)
		if e.use(int(f.pop), f.blind); f.push > 0 {
			e.result(in, f.makes)
		}
	}
}

// result pushes what an instruction made.
func (e *emitter) result(in binary.Instr, k kind) {
	o := operand{kind: k}
	if e.module.o.NativeNaNs {
		o.kind = fixed
	}
	if o.kind.native() {
		e.copyTo(in.End)
		o.site = e.site(unneeded, k)
	}
	e.push(o)
}

func (e *emitter) floatLocal(index uint32) kind {
	if e.s.floats == nil {
		return fixed
	}
	return e.s.floats[index]
}

func (e *emitter) getLocal(in binary.Instr) { e.result(in, e.floatLocal(in.Index)) }

// setLocal takes the value of a local from the operand stack. A local that
// only holds results of arithmetic is made canonical where it is read.
func (e *emitter) setLocal(index uint32) operand {
	o := e.pop()
	if o.kind.native() && e.floatLocal(index) == fixed {
		e.observe(o)
		o.kind = fixed
	}
	return o
}

// bulk charges an instruction by the size of what it does, before it runs;
// growing is charged behind it, where it succeeded.
func (e *emitter) bulk(in binary.Instr) {
	f := effectOf(in.Op)
	e.use(int(f.pop), fixed)
	e.copyTo(in.Offset)
	e.needLocal()
	e.scratched(binary.OpLocalTee, scratchLength)
	grows := in.Op == binary.OpMemoryGrow || in.Op == binary.OpTableGrow
	if grows {
		e.copyTo(in.End)
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
	if !grows {
		e.pieces(in.Op)
		e.copyTo(in.End)
	}
	e.pushFixed(int(f.push))
}

// units turns a number of bytes, entries or pages into units of fuel.
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

// maxBody bounds a rewritten body, of which engines take time and memory that
// grow faster than it.
const maxBody = 4 * binary.MaxBodySize
