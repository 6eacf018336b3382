package rewrite

import (
	"fmt"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
)

// Opcodes that only injected code uses.
const (
	opI64LtS binary.Op = 0x53
	opI64Or  binary.Op = 0x84
	opI64Add binary.Op = 0x7c
	opI64Sub binary.Op = 0x7d
	opI64Mul binary.Op = 0x7e
	opI64ShR binary.Op = 0x88 // unsigned
	opExtend binary.Op = 0xad // i64.extend_i32_u
	opI32Ne  binary.Op = 0x47
	opF32Ge  binary.Op = 0x60
	opF64Ge  binary.Op = 0x66
	opSelect binary.Op = 0x1b
	opF32x4  binary.Op = 0xfd41 // f32x4.eq
	opF64x2  binary.Op = 0xfd47 // f64x2.eq
	opChoose binary.Op = 0xfd52 // v128.bitselect

	emptyBlock = 0x40
)

// siteKind is what an insertion into the code of a body does.
type siteKind uint8

const (
	unneeded      siteKind = iota // nothing
	canonicalize                  // replaces a NaN on the operand stack by the canonical one
	chargeEntry                   // leaves fuel minus cost on the operand stack
	chargeLocal                   // subtracts the cost from the local
	chargeChecked                 // the same, and leaves the result on the operand stack
	chargeGlobal                  // subtracts the cost from the global
)

// site is a place in the rewritten code where something is inserted once it is
// known what: whether a NaN is observed, what the segment that starts there
// costs.
type site struct {
	pos  int
	what siteKind
	kind kind
	cost int64
}

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
	segment   int // site of the charge for the current segment
	inLocal   bool
	inGlobal  bool
	newLocals []binary.ValueType
	locals    uint32 // parameters and locals of the original
	scratch   [numScratch]uint32
	made      [numScratch]bool
	buf       []byte
}

// scratch locals, made where needed.
const (
	scratchFuel = iota
	scratchStack
	scratchLength
	scratchGrown
	scratchF32
	scratchF64
	scratchV128
	numScratch
)

var scratchTypes = [numScratch]binary.ValueType{binary.I64, binary.I64, binary.I32, binary.I32, binary.F32, binary.F64, binary.V128}

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

// assemble joins locals, code and what the sites insert.
func (e *emitter) assemble(b binary.Body) {
	src := source{e.module.wasm, b.Start}
	groups := src.u32()
	out := appendU32(e.buf[:0], groups+uint32(len(e.newLocals)))
	out = append(out, e.module.wasm[src.pos:b.Code]...)
	for _, t := range e.newLocals {
		out = append(out, 1, byte(t))
	}
	from := 0
	for i := range e.sites {
		s := &e.sites[i]
		out = append(out, e.code[from:s.pos]...)
		from = s.pos
		out = e.insert(out, s)
	}
	e.buf = append(out, e.code[from:]...)
}

func (e *emitter) insert(out []byte, s *site) []byte {
	switch s.what {
	case canonicalize:
		return e.canonical(out, s.kind)
	case chargeEntry:
		return charge(appendIndexed(out, binary.OpGlobalGet, e.module.fuel), s.cost)
	case chargeChecked:
		if s.cost == 0 {
			return appendIndexed(out, binary.OpLocalGet, e.scratch[scratchFuel])
		}
		out = charge(appendIndexed(out, binary.OpLocalGet, e.scratch[scratchFuel]), s.cost)
		return appendIndexed(out, binary.OpLocalTee, e.scratch[scratchFuel])
	case chargeLocal:
		if s.cost > 0 {
			out = charge(appendIndexed(out, binary.OpLocalGet, e.scratch[scratchFuel]), s.cost)
			out = appendIndexed(out, binary.OpLocalSet, e.scratch[scratchFuel])
		}
	case chargeGlobal:
		if s.cost > 0 {
			out = charge(appendIndexed(out, binary.OpGlobalGet, e.module.fuel), s.cost)
			out = appendIndexed(out, binary.OpGlobalSet, e.module.fuel)
		}
	}
	return out
}

func charge(out []byte, cost int64) []byte {
	if cost == 0 {
		return out
	}
	return appendOp(appendS64(appendOp(out, binary.OpI64Const), cost), opI64Sub)
}

// canonical replaces the value on the operand stack by the canonical NaN where
// it is one, lane by lane. The scalars are compared with >=, which is false for
// a NaN too, since the engine needs fewer instructions for it than for ==: 1.40x
// instead of 1.55x on testdata's nbody.
func (e *emitter) canonical(out []byte, k kind) []byte {
	local := e.scratch[scratchOf(k)]
	out = appendIndexed(out, binary.OpLocalTee, local)
	var equal binary.Op
	choose := opSelect
	switch k {
	case scalar32:
		out, equal = append(appendOp(out, binary.OpF32Const), nan32[:]...), opF32Ge
	case scalar64:
		out, equal = append(appendOp(out, binary.OpF64Const), nan64[:]...), opF64Ge
	case lanes32:
		out, equal, choose = appendLanes(out, nan32[:]), opF32x4, opChoose
	case lanes64:
		out, equal, choose = appendLanes(out, nan64[:]), opF64x2, opChoose
	}
	out = appendIndexed(out, binary.OpLocalGet, local)
	out = appendIndexed(out, binary.OpLocalGet, local)
	return appendOp(appendOp(out, equal), choose)
}

// The canonical NaNs (Core Specification, section 2.2.3), with the sign clear.
var (
	nan32 = [4]byte{0, 0, 0xc0, 0x7f}
	nan64 = [8]byte{0, 0, 0, 0, 0, 0, 0xf8, 0x7f}
)

func appendLanes(out, lane []byte) []byte {
	out = appendOp(out, binary.OpV128Const)
	for range 16 / len(lane) {
		out = append(out, lane...)
	}
	return out
}

func scratchOf(k kind) int {
	switch k {
	case scalar32:
		return scratchF32
	case scalar64:
		return scratchF64
	}
	return scratchV128
}

// local returns the index of a scratch local, which it makes at first use.
func (e *emitter) local(which int) uint32 {
	if !e.made[which] {
		e.made[which] = true
		e.scratch[which] = e.locals + uint32(len(e.newLocals))
		e.newLocals = append(e.newLocals, scratchTypes[which])
	}
	return e.scratch[which]
}

func (e *emitter) op(op binary.Op)                    { e.code = appendOp(e.code, op) }
func (e *emitter) indexed(op binary.Op, index uint32) { e.code = appendIndexed(e.code, op, index) }
func (e *emitter) scratched(op binary.Op, which int)  { e.indexed(op, e.local(which)) }
func (e *emitter) constant(op binary.Op, v int64)     { e.code = appendS64(appendOp(e.code, op), v) }
func (e *emitter) block(op binary.Op, types ...byte)  { e.code = append(appendOp(e.code, op), types...) }
func (e *emitter) raw(from, to int)                   { e.code = append(e.code, e.module.wasm[from:to]...) }

// copyTo copies the original up to the given offset.
func (e *emitter) copyTo(to int) {
	e.raw(e.from, to)
	e.from = to
}

// site marks this point of the code.
func (e *emitter) site(what siteKind, k kind) int {
	e.sites = append(e.sites, site{pos: len(e.code), what: what, kind: k})
	return len(e.sites) - 1
}

// prologue charges the first segment, and checks fuel and stack where the
// function makes calls: recursion and trees of calls come past it again and
// again, and between two checks only so many other functions are entered as
// the code of one has calls.
func (e *emitter) prologue() {
	if e.s.straight {
		e.segment = e.site(chargeGlobal, 0)
		return
	}
	e.inLocal, e.inGlobal = true, false
	e.segment = e.site(chargeEntry, 0)
	if e.s.leaf {
		e.scratched(binary.OpLocalSet, scratchFuel)
		return
	}
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
	e.constant(binary.OpI64Const, 0)
	e.op(opI64LtS)
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

func (e *emitter) spend(n int64) {
	if e.module.o.Metering {
		e.sites[e.segment].cost += n
	}
}

// needLocal makes the local current.
func (e *emitter) needLocal() {
	if e.module.o.Metering && !e.s.straight && !e.inLocal {
		e.indexed(binary.OpGlobalGet, e.module.fuel)
		e.scratched(binary.OpLocalSet, scratchFuel)
		e.inLocal = true
	}
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
		e.open(in)
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
	if flags&busy == 0 {
		e.raw(in.Offset, in.End)
		e.scratched(binary.OpLocalGet, scratchFuel)
		e.refillIfNegative(false)
		e.copyTo(in.End)
		e.scratched(binary.OpLocalGet, scratchFuel)
		e.constant(binary.OpI64Const, 0)
		e.op(opI64LtS)
		e.indexed(binary.OpBrIf, 1)
		f := e.open(in)
		f.level, f.wrapped = f.level+1, true
		e.newSegment()
		return
	}
	e.copyTo(in.End)
	e.open(in)
	e.segment = e.site(chargeChecked, 0)
	e.inGlobal = false
	e.refillIfNegative(false)
}

func (e *emitter) branchEnd(in binary.Instr) {
	e.copyTo(in.Offset)
	if !e.dead {
		e.needLocal()
	}
	e.otherwise()
	e.copyTo(in.End)
	e.inLocal, e.inGlobal = true, false
	e.newSegment()
}

func (e *emitter) end(in binary.Instr) {
	e.copyTo(in.Offset)
	f := e.top()
	joins := f.op == binary.OpIf || f.op == binary.OpElse
	joined := f.op == binary.OpIf
	switch {
	case f.number < 0:
		if !e.dead {
			e.needGlobal()
		}
	case f.op != binary.OpLoop && e.s.blocks[f.number]&targeted != 0:
		joins, joined = true, true
	}
	if joins && !e.dead {
		e.needLocal()
	}
	if f.wrapped {
		e.op(binary.OpEnd)
	}
	e.close(joined)
	e.copyTo(in.End)
	if joins && len(e.frames) > 0 {
		e.inLocal, e.inGlobal = true, false
		e.newSegment()
	}
}

func (e *emitter) branch(r *binary.Reader, in binary.Instr) {
	e.copyTo(in.Offset)
	switch in.Op {
	case binary.OpUnreachable:
		e.jump(0)
		return
	case binary.OpReturn:
		e.needGlobal()
		e.jump(e.frames[0].results)
		return
	case binary.OpBrTable:
		for label := range r.Targets(in) {
			e.ready(label)
		}
	default:
		e.ready(in.Index)
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

// ready makes current what the code at a label expects.
func (e *emitter) ready(label uint32) {
	if e.target(label).number < 0 {
		e.needGlobal()
	} else {
		e.needLocal()
	}
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
		e.inLocal = false
	}
	if in.Op == binary.OpCall {
		e.refer(in)
	}
	e.call(t)
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
	case binary.OpTableGrow, binary.OpTableFill, binary.OpTableCopy, binary.OpTableInit:
		e.constant(binary.OpI64Const, entryShift)
		e.op(opI64ShR)
	default:
		e.constant(binary.OpI64Const, byteShift)
		e.op(opI64ShR)
	}
}

// maxBody bounds a rewritten body, of which engines take time and memory that
// grow faster than it.
const maxBody = 4 * binary.MaxBodySize
