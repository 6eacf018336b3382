package rewrite

import "github.com/wasm-jobs/wasm-jobs/runtime/binary"

// Opcodes without a name in package binary.
const (
	opI32Eqz binary.Op = 0x45
	opI32And binary.Op = 0x71
	opI32Or  binary.Op = 0x72
	opI64LtS binary.Op = 0x53
	opI64GeS binary.Op = 0x59
	opI64And binary.Op = 0x83
	opI64Or  binary.Op = 0x84
	opI64Add binary.Op = 0x7c
	opI64Sub binary.Op = 0x7d
	opI64Mul binary.Op = 0x7e
	opI64ShR binary.Op = 0x88 // unsigned
	opExtend binary.Op = 0xad // i64.extend_i32_u
	opI32Ne  binary.Op = 0x47
	opF32Ge  binary.Op = 0x60
	opF64Ge  binary.Op = 0x66
	opDrop   binary.Op = 0x1a
	opSelect binary.Op = 0x1b
	opF32x4  binary.Op = 0xfd41 // f32x4.eq
	opF64x2  binary.Op = 0xfd47 // f64x2.eq
	opChoose binary.Op = 0xfd52 // v128.bitselect

	emptyBlock = 0x40
)

// siteKind is the effect of an insertion into the code of a body.
type siteKind uint8

const (
	unneeded     siteKind = iota // nothing
	canonicalize                 // replaces a NaN on the operand stack by the canonical one
	chargeEntry                  // leaves fuel minus cost on the operand stack
	chargeLocal                  // subtracts the cost from the local
	chargeLoad                   // sets the local to the global minus the cost
	chargeGlobal                 // subtracts the cost from the global
)

// site is a position in the rewritten code with an insertion that is decided
// later: when it is known whether a NaN is observed, or how much the segment
// that starts there costs.
type site struct {
	pos  int
	what siteKind
	kind kind
	cost int64
	// counted is the part of the cost that emitter.unchecked has.
	counted int64
	// checked refills the fuel after the charge if it is negative.
	checked bool
	// shared means that the value is in a local, and also used elsewhere.
	shared bool
}

// Scratch locals, created when needed. All except the first two are unused
// between two instructions of the original.
const (
	scratchFuel = iota
	scratchStack
	scratchLength // also a condition, see faults.go
	scratchGrown
	scratchF32
	scratchF64
	scratchV128
	scratchDividend
	scratchDivisor
	numScratch
)

var scratchTypes = [numScratch]binary.ValueType{binary.I64, binary.I64, binary.I32, binary.I32, binary.F32, binary.F64, binary.V128, binary.I64, binary.I64}

// assemble joins locals, code and the insertions of the sites.
func (e *emitter) assemble(b binary.Body) {
	src := source{e.module.wasm, b.Start}
	groups := src.u32()
	out := appendU32(e.buf[:0], groups+uint32(len(e.newLocals)))
	out = append(out, e.module.wasm[src.pos:b.Code]...)
	for _, t := range e.newLocals {
		out = append(out, 1, byte(t))
	}
	from, marks := 0, e.marks()
	for i := range e.sites {
		s := &e.sites[i]
		marks = moveMarks(marks, s.pos, len(out)-from)
		out = append(out, e.code[from:s.pos]...)
		from = s.pos
		out = e.insert(out, s)
	}
	moveMarks(marks, len(e.code)+1, len(out)-from)
	e.buf = append(out, e.code[from:]...)
}

func (e *emitter) insert(out []byte, s *site) []byte {
	fuel := e.scratch[scratchFuel]
	switch s.what {
	case canonicalize:
		return e.canonical(out, s)
	case chargeEntry:
		return charge(appendIndexed(out, binary.OpGlobalGet, e.module.fuel), s.cost)
	case chargeLocal:
		return e.charged(out, s, binary.OpLocalGet, binary.OpLocalSet, fuel)
	case chargeLoad:
		out = charge(appendIndexed(out, binary.OpGlobalGet, e.module.fuel), s.cost)
		out = appendIndexed(out, binary.OpLocalSet, fuel)
		return e.charged(out, &site{checked: s.checked}, binary.OpLocalGet, binary.OpLocalSet, fuel)
	case chargeGlobal:
		return e.charged(out, s, binary.OpGlobalGet, binary.OpGlobalSet, e.module.fuel)
	}
	return out
}

// charged subtracts the cost from the local or global and checks it.
func (e *emitter) charged(out []byte, s *site, get, set binary.Op, index uint32) []byte {
	if s.cost > 0 {
		out = appendIndexed(charge(appendIndexed(out, get, index), s.cost), set, index)
	}
	if s.checked {
		out = appendNegative(appendIndexed(out, get, index))
		out = append(appendOp(out, binary.OpIf), emptyBlock)
		out = appendS64(appendOp(appendIndexed(out, get, index), binary.OpI64Const), 0)
		// If the global was current, it must be current again after the call.
		out = appendIndexed(appendIndexed(out, binary.OpCall, e.module.refill), set, index)
		out = appendOp(out, binary.OpEnd)
	}
	return out
}

// appendNegative replaces a number on the operand stack by whether it is
// negative.
func appendNegative(out []byte) []byte {
	return appendOp(appendS64(appendOp(out, binary.OpI64Const), 0), opI64LtS)
}

func charge(out []byte, cost int64) []byte {
	if cost == 0 {
		return out
	}
	return appendOp(appendS64(appendOp(out, binary.OpI64Const), cost), opI64Sub)
}

// local returns the index of a scratch local, and creates it at the first use.
func (e *emitter) local(which int) uint32 {
	if !e.made[which] {
		e.made[which] = true
		e.scratch[which] = uint32(len(e.types) + len(e.newLocals))
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
