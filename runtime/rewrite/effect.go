package rewrite

import "github.com/wasm-jobs/wasm-jobs/runtime/binary"

// kind describes which NaNs of a value may have bits that the machine chose:
// those of a scalar, or of the lanes of a vector.
type kind uint8

const (
	fixed kind = iota // none: the program chose the bits
	noNaN             // none, because the value is not a NaN
	scalar32
	scalar64
	lanes32
	lanes64
)

// native reports whether the machine may have chosen the bits of a NaN.
func (k kind) native() bool { return k >= scalar32 }

// effect describes the effect of an instruction on the operand stack.
type effect struct {
	pop, push uint8
	blind     kind // operands of this kind are read independently of the bits of NaNs
	makes     kind // of the result
	from      origin
	typ       binary.ValueType // of the result, if it is the same for all positions of the instruction
}

// plain, misc and vector are the effects of instructions whose operands do not
// depend on their position, by opcode or by the number after 0xFC and 0xFD.
var (
	plain  = plainEffects()
	misc   = miscEffects()
	vector = vectorEffects()
)

func effectOf(op binary.Op) effect {
	switch op >> 8 {
	case 0xfc:
		return misc[op&0xff]
	case 0xfd:
		return vector[op&0xff]
	}
	return plain[op]
}

func fill(table []effect, e effect, from, to int) {
	for op := from; op <= to; op++ {
		table[op] = e
	}
}

func plainEffects() []effect {
	t := make([]effect, 256)
	unary, binary, push := effect{pop: 1, push: 1}, effect{pop: 2, push: 1}, effect{push: 1}
	t[0x1a], t[0x1b], t[0x1c] = effect{pop: 1}, effect{pop: 3, push: 1}, effect{pop: 3, push: 1}
	t[0x20], t[0x21], t[0x22], t[0x23], t[0x24] = push, effect{pop: 1}, unary, push, effect{pop: 1}
	t[0x25], t[0x26] = unary, effect{pop: 2}
	fill(t, unary, 0x28, 0x35)
	fill(t, effect{pop: 2}, 0x36, 0x3e)
	t[0x3f], t[0x40], t[0x41], t[0x42], t[0x43], t[0x44] = push, unary, push, push, push, push
	fill(t, binary, 0x45, 0xa6)
	for _, op := range []int{0x45, 0x50, 0x67, 0x68, 0x69, 0x79, 0x7a, 0x7b, 0x8b, 0x8c, 0x99, 0x9a} {
		t[op] = unary
	}
	fill(t, effect{pop: 2, push: 1, blind: scalar32}, 0x5b, 0x60)                  // comparisons
	fill(t, effect{pop: 2, push: 1, blind: scalar64}, 0x61, 0x66)                  //
	fill(t, effect{pop: 1, push: 1, blind: scalar32, makes: scalar32}, 0x8d, 0x91) // ceil, floor, trunc, nearest, sqrt
	fill(t, effect{pop: 2, push: 1, blind: scalar32, makes: scalar32}, 0x92, 0x97) // add, sub, mul, div, min, max
	fill(t, effect{pop: 1, push: 1, blind: scalar64, makes: scalar64}, 0x9b, 0x9f)
	fill(t, effect{pop: 2, push: 1, blind: scalar64, makes: scalar64}, 0xa0, 0xa5)
	conversions(t)
	t[0xd0], t[0xd1], t[0xd2] = push, unary, push
	setTypes(t, plainTypes)
	t[opI32And].from, t[opI64And].from = anded, anded
	// For the engine, a shift by a constant 0 is its operand.
	for _, op := range []int{0x20, 0x23, 0x25, 0x74, 0x75, 0x76, 0x86, 0x87, 0x88} {
		t[op].from = anywhere
	}
	return t
}

// typed are instructions whose results are of one type, by the first and last
// code of each run.
type typed struct {
	typ  binary.ValueType
	runs []int
}

var plainTypes = []typed{
	{binary.I32, []int{0x28, 0x28, 0x2c, 0x2f, 0x3f, 0x41, 0x45, 0x78, 0xa7, 0xab, 0xbc, 0xbc, 0xc0, 0xc1, 0xd1, 0xd1}},
	{binary.I64, []int{0x29, 0x29, 0x30, 0x35, 0x42, 0x42, 0x79, 0x8a, 0xac, 0xb1, 0xbd, 0xbd, 0xc2, 0xc4}},
	{binary.F32, []int{0x2a, 0x2a, 0x43, 0x43, 0x8b, 0x98, 0xb2, 0xb6, 0xbe, 0xbe}},
	{binary.F64, []int{0x2b, 0x2b, 0x44, 0x44, 0x99, 0xa6, 0xb7, 0xbb, 0xbf, 0xbf}},
}

// setTypes sets the types of results. The instructions compute them, unless the
// caller sets another origin.
func setTypes(t []effect, types []typed) {
	for _, of := range types {
		for i := 0; i < len(of.runs); i += 2 {
			for op := of.runs[i]; op <= of.runs[i+1]; op++ {
				t[op].typ, t[op].from = of.typ, computed
			}
		}
	}
}

func conversions(t []effect) {
	fill(t, effect{pop: 1, push: 1}, 0xa7, 0xc4)
	for _, op := range []int{0xa8, 0xae} { // to integers
		fill(t, effect{pop: 1, push: 1, blind: scalar32}, op, op+1)
		fill(t, effect{pop: 1, push: 1, blind: scalar64}, op+2, op+3)
	}
	fill(t, effect{pop: 1, push: 1, makes: noNaN}, 0xb2, 0xba)          // from integers
	t[0xb6] = effect{pop: 1, push: 1, blind: scalar64, makes: scalar32} // f32.demote_f64
	t[0xbb] = effect{pop: 1, push: 1, blind: scalar32, makes: scalar64} // f64.promote_f32
}

func miscEffects() []effect {
	t := make([]effect, 256)
	for _, op := range []int{0, 4} {
		fill(t, effect{pop: 1, push: 1, blind: scalar32}, op, op+1)
		fill(t, effect{pop: 1, push: 1, blind: scalar64}, op+2, op+3)
	}
	for _, op := range []int{0x08, 0x0a, 0x0b, 0x0c, 0x0e, 0x11} {
		t[op] = effect{pop: 3}
	}
	t[0x0f], t[0x10] = effect{pop: 2, push: 1}, effect{push: 1}
	setTypes(t, []typed{{binary.I32, []int{0, 3, 0x0f, 0x10}}, {binary.I64, []int{4, 7}}})
	return t
}

// vectorUnary lists the instructions after 0xFD with one operand and one
// result, among ones with two operands and one result.
var vectorUnary = []int{0x15, 0x16, 0x18, 0x19, 0x1b, 0x1d, 0x1f, 0x21, 0x4d, 0x53, 0x5c, 0x5d,
	0x60, 0x61, 0x62, 0x63, 0x64, 0x7c, 0x7d, 0x7e, 0x7f, 0x80, 0x81, 0x83, 0x84, 0x87, 0x88, 0x89, 0x8a,
	0xa0, 0xa1, 0xa3, 0xa4, 0xa7, 0xa8, 0xa9, 0xaa, 0xc0, 0xc1, 0xc3, 0xc4, 0xc7, 0xc8, 0xc9, 0xca,
	0xe0, 0xe1, 0xec, 0xed, 0xfa, 0xfb, 0xfe, 0xff}

func vectorEffects() []effect {
	t := make([]effect, 256)
	fill(t, effect{pop: 2, push: 1}, 0x00, 0xff)
	fill(t, effect{pop: 1, push: 1}, 0x00, 0x0a)
	t[0x0b], t[0x0c], t[0x52] = effect{pop: 2}, effect{push: 1}, effect{pop: 3, push: 1}
	fill(t, effect{pop: 1, push: 1}, 0x0f, 0x14)
	fill(t, effect{pop: 2}, 0x58, 0x5b)
	for _, op := range vectorUnary {
		t[op] = effect{pop: 1, push: 1}
	}
	fill(t, effect{pop: 2, push: 1, blind: lanes32}, 0x41, 0x46)
	fill(t, effect{pop: 2, push: 1, blind: lanes64}, 0x47, 0x4c)
	t[0x5e], t[0x5f] = effect{pop: 1, push: 1, blind: lanes64, makes: lanes32}, effect{pop: 1, push: 1, blind: lanes32, makes: lanes64}
	fill(t, effect{pop: 1, push: 1, blind: lanes32, makes: lanes32}, 0x67, 0x6a)
	for _, op := range []int{0x74, 0x75, 0x7a, 0x94, 0xef} {
		t[op] = effect{pop: 1, push: 1, blind: lanes64, makes: lanes64}
	}
	t[0xe3] = effect{pop: 1, push: 1, blind: lanes32, makes: lanes32}
	fill(t, effect{pop: 2, push: 1, blind: lanes32, makes: lanes32}, 0xe4, 0xe9)
	fill(t, effect{pop: 2, push: 1, blind: lanes64, makes: lanes64}, 0xf0, 0xf5)
	fill(t, effect{pop: 1, push: 1, blind: lanes32}, 0xf8, 0xf9)
	fill(t, effect{pop: 1, push: 1, blind: lanes64}, 0xfc, 0xfd)
	setTypes(t, []typed{
		{binary.V128, []int{0x00, 0xff}},
		{binary.I32, []int{0x15, 0x16, 0x18, 0x19, 0x1b, 0x1b, 0x53, 0x53, 0x63, 0x64, 0x83, 0x84, 0xa3, 0xa4, 0xc3, 0xc4}},
		{binary.I64, []int{0x1d, 0x1d}}, {binary.F32, []int{0x1f, 0x1f}}, {binary.F64, []int{0x21, 0x21}},
	})
	return t
}
