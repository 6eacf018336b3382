package rewrite

import "github.com/wasm-jobs/wasm-jobs/runtime/binary"

// EngineVersion is the engine version of the faults in this file.
const EngineVersion = "v1.12.0"

// FixesVersion counts the extensions of the list of known faults. A module whose
// outputs a fault may have changed has the version that first avoided the fault
// ([Result.Fixes]).
const FixesVersion = 2

// Fault is something that the engine compiles wrongly, and that is therefore
// written in another way before it reaches it. What it costs is not charged:
// the fuel is that of the original.
type Fault struct {
	Name   string
	Arch   string // on which it was observed, as in GOARCH; "" for all
	Remedy string
	// Everywhere applies the remedy on all architectures: if its cost is not
	// measurable, it is better to have the same module everywhere.
	Everywhere bool
}

// Faults returns the known faults of [EngineVersion]. ENGINE_FAULTS.md explains
// each of them, and a test of the same name checks that its code does not reach
// the engine.
func Faults() []Fault {
	return []Fault{
		{"zero-against-and", "", "what an and made gets an or with 0 before it is compared with a constant 0 on its left", true},
		{"lost-select", "amd64", "the first operand of a select of floats or vectors is made again", true},
		{"stale-copysign", "amd64", "the first operand is made again", true},
		{"stale-bitselect", "amd64", "the second operand is made again", true},
		{"stale-multiplication", "amd64", "both operands of i64x2.mul are made again", true},
		{"stale-minimum", "amd64", "the second operand of min and max of vectors is made again", true},
		{"stale-conversion", "amd64", "the operand of f64x2.convert_low_i32x4_u is made again", true},
		{"stale-count", "amd64", "the operand of i8x16.popcnt is made again", true},
		{"lost-replace-lane", "amd64", "the float that f64x2.replace_lane 0 takes is made again", true},
		{"half-reload", "amd64", "the operand of a conversion from u64 to a float is made again", true},
		{"and-against-zero", "arm64", "a 0 gets an or with 0 before what an and made is compared with it, both without signs", false},
		{"stale-remainder", "arm64", "x % y becomes x - x/y*y", false},
	}
}

const (
	opI32Eq        binary.Op = 0x46
	opI64Eq        binary.Op = 0x51
	opI32RemS      binary.Op = 0x6f
	opI32RemU      binary.Op = 0x70
	opI64RemS      binary.Op = 0x81
	opI64RemU      binary.Op = 0x82
	opF32Copysign  binary.Op = 0x98
	opF64Copysign  binary.Op = 0xa6
	opF32ConvertU  binary.Op = 0xb5   // f32.convert_i64_u
	opF64ConvertU  binary.Op = 0xba   // f64.convert_i64_u
	opF32Bits      binary.Op = 0xbc   // i32.reinterpret_f32
	opF64Bits      binary.Op = 0xbd   // i64.reinterpret_f64
	opF32OfBits    binary.Op = 0xbe   // f32.reinterpret_i32
	opF64OfBits    binary.Op = 0xbf   // f64.reinterpret_i64
	opF64x2Replace binary.Op = 0xfd22 // f64x2.replace_lane
	opI8x16Count   binary.Op = 0xfd62 // i8x16.popcnt
	opF64x2Convert binary.Op = 0xfdff // f64x2.convert_low_i32x4_u
	opV128Or       binary.Op = 0xfd50
	opI64x2Mul     binary.Op = 0xfdd5
)

// avoidFaults writes the code that is needed before an instruction, or instead
// of it, so that the engine compiles it correctly. The operands are still on
// the stack.
func (e *emitter) avoidFaults(in binary.Instr) {
	switch op := in.Op; op {
	case opSelect, binary.OpSelectType:
		e.again(in, 2)
	case opF32Copysign, opF64Copysign, opChoose:
		e.again(in, 1)
	case opI64x2Mul:
		e.again(in, 1)
		e.again(in, 0)
	case opF32ConvertU, opF64ConvertU, opI8x16Count, opF64x2Convert:
		e.again(in, 0)
	case opF64x2Replace:
		if e.module.wasm[in.End-1] == 0 {
			e.again(in, 0)
		}
	case opI32RemS, opI32RemU, opI64RemS, opI64RemU:
		e.remainder(in)
	default:
		if isVectorMinMax(op) {
			e.again(in, 0)
		} else if isOrdered(op) {
			e.notAnded(in)
		}
	}
}

// isVectorMinMax reports whether op is min or max of floats, lane by lane.
func isVectorMinMax(op binary.Op) bool {
	return op == 0xfde8 || op == 0xfde9 || op == 0xfdf4 || op == 0xfdf5
}

// isOrdered reports whether op compares the order of two integers.
func isOrdered(op binary.Op) bool { return op >= 0x48 && op <= 0x4f || op >= 0x53 && op <= 0x5a }

// isUnsigned reports whether such a comparison is unsigned. Every second one
// is; the first one is signed for both i32 and i64.
func isUnsigned(op binary.Op) bool { return (op < 0x50) == (op&1 == 1) }

// notAnded prevents the engine from combining an and with a comparison of its
// result with a constant 0. Origins of values are known only roughly; a
// possible case is treated like a certain one. After the or there is neither an
// and nor a constant on the right, the top of the stack.
func (e *emitter) notAnded(in binary.Instr) {
	left, right := e.below(1).from, e.below(0).from
	wrong := left.mayBeZero() && right.mayBeAnded()
	if e.module.o.Arch == "arm64" && isUnsigned(in.Op) {
		wrong = wrong || left.mayBeAnded() && right.mayBeZero()
	}
	if e.s.anded != nil && right.mayBeAnded() && e.isZero(e.below(1)) {
		e.module.fixed(1)
	}
	if e.s.anded != nil && wrong {
		e.copyTo(in.Offset)
		e.remake(e.below(0).typ)
	}
}

// isZero reports whether the engine knows an operand as the constant 0, for
// certain: a constant that stands there, or a local that nothing sets.
func (e *emitter) isZero(o operand) bool { return o.from == zero || o.unset }

func (o origin) mayBeZero() bool  { return o == zero || o == anywhere || o == variable }
func (o origin) mayBeAnded() bool { return o == anded || o == anywhere }

// again recomputes the operand n below the topmost one with an instruction that
// does not change it, unless an instruction computed it only for this use. If a
// value is also used elsewhere, its register may be one that the engine needs
// for a result that it has started to compute.
func (e *emitter) again(in binary.Instr, n int) {
	o := e.below(n)
	if o.from != anywhere && o.from != variable || !remakes(in.Op, o.typ) {
		return
	}
	e.module.fixed(firstVersion(in.Op))
	e.copyTo(in.Offset)
	for i := range n {
		e.scratched(binary.OpLocalSet, e.shelf(i))
	}
	e.remake(o.typ)
	for i := n - 1; i >= 0; i-- {
		e.scratched(binary.OpLocalGet, e.shelf(i))
	}
}

// firstVersion returns the first FixesVersion that avoids the fault of an instruction.
func firstVersion(op binary.Op) int {
	if op == opI8x16Count || op == opF64x2Convert {
		return 2
	}
	return 1
}

// remakes reports whether an operand of type t must be recomputed: a select of
// integers is compiled correctly.
func remakes(op binary.Op, t binary.ValueType) bool {
	switch t {
	case binary.F32, binary.F64, binary.V128:
		return true
	}
	return t == binary.I64 && (op == opF32ConvertU || op == opF64ConvertU)
}

// shelf returns the scratch local for the operand n below the topmost one.
func (e *emitter) shelf(n int) int {
	switch e.below(n).typ {
	case binary.F32:
		return scratchF32
	case binary.F64:
		return scratchF64
	case binary.V128:
		return scratchV128
	}
	return scratchLength
}

// remake replaces the topmost operand by an equal value.
func (e *emitter) remake(t binary.ValueType) {
	switch t {
	case binary.I32:
		e.constant(binary.OpI32Const, 0)
		e.op(opI32Or)
	case binary.I64:
		e.constant(binary.OpI64Const, 0)
		e.op(opI64Or)
	case binary.F32:
		e.op(opF32Bits)
		e.op(opF32OfBits)
	case binary.F64:
		e.op(opF64Bits)
		e.op(opF64OfBits)
	case binary.V128:
		e.code = append(appendOp(e.code, binary.OpV128Const), make([]byte, 16)...)
		e.op(opV128Or)
	}
}

// division has the parts of a remainder, for one type of integers.
type division struct {
	dividend, divisor       int // scratch locals
	constant                binary.Op
	equal, divide, mul, sub binary.Op
}

var divisions = map[binary.Op]division{
	opI32RemS: {scratchLength, scratchGrown, binary.OpI32Const, opI32Eq, 0x6d, 0x6c, opI32Sub},
	opI32RemU: {scratchLength, scratchGrown, binary.OpI32Const, opI32Eq, 0x6e, 0x6c, opI32Sub},
	opI64RemS: {scratchDividend, scratchDivisor, binary.OpI64Const, opI64Eq, 0x7f, opI64Mul, opI64Sub},
	opI64RemU: {scratchDividend, scratchDivisor, binary.OpI64Const, opI64Eq, 0x80, opI64Mul, opI64Sub},
}

// remainder writes x - x/y*y instead of x % y. For signed integers, a y of -1
// becomes 1, which also has the remainder 0 and never overflows.
func (e *emitter) remainder(in binary.Instr) {
	if e.module.o.Arch != "arm64" {
		return
	}
	d := divisions[in.Op]
	e.copyTo(in.Offset)
	e.scratched(binary.OpLocalSet, d.divisor)
	if in.Op == opI32RemS || in.Op == opI64RemS {
		e.constant(d.constant, 1)
		e.scratched(binary.OpLocalGet, d.divisor)
		e.scratched(binary.OpLocalGet, d.divisor)
		e.constant(d.constant, -1)
		e.op(d.equal)
		e.op(opSelect)
		e.scratched(binary.OpLocalSet, d.divisor)
	}
	e.scratched(binary.OpLocalTee, d.dividend)
	e.scratched(binary.OpLocalGet, d.dividend)
	e.scratched(binary.OpLocalGet, d.divisor)
	e.op(d.divide)
	e.scratched(binary.OpLocalGet, d.divisor)
	e.op(d.mul)
	e.op(d.sub)
	e.from = in.End
}
