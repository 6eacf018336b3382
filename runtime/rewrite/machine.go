package rewrite

import (
	"math"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
)

// operand is a value on the operand stack, as far as the rewriter tracks it.
type operand struct {
	kind kind
	from origin
	typ  binary.ValueType
	site int // of the code that made it, if kind is native

	unset bool // a local that nothing sets
}

// origin is the origin of a value, as far as it matters for the engine's code
// (faults.go).
type origin uint8

const (
	anywhere origin = iota // a block, a global, or an unknown local
	variable               // a local that never holds the result of an and
	computed               // an instruction computed it only for this use
	anded                  // like computed, by an and
	zero                   // the constant 0 of an integer type
)

// frame is an open block. The outermost one is the function.
type frame struct {
	op              binary.Op
	number          int // of the block within the function, -1 for the function
	height          int // of the operand stack below its parameters
	params, results []binary.ValueType
	level           int  // labels open in the rewritten code, including its own
	joined          bool // code reached the end of the first branch of an if
	wrapped         bool // a loop with another around it
	checksBack      bool // a loop that checks the fuel before branches back to it

	// Maximum units spent since the last check, see [emitter.unchecked]: when a
	// branch leads to the label, and when an if began.
	branched, began int64

	before int // site of the charge for the code before a block or if
	leaves int // minimum depth of the blocks to whose end its code leads, see [emitter.leave]

	dispatch *dispatch // of a loop that begins with one
}

func (f *frame) arity() int {
	if f.op == binary.OpLoop {
		return len(f.params)
	}
	return len(f.results)
}

// machine tracks the operands and blocks of one function body without knowing
// types. In unreachable code it only counts blocks.
type machine struct {
	m       *binary.Module
	stack   []operand
	frames  []frame
	blocks  int // opened in live code
	dead    bool
	skipped int // blocks open in dead code
	height  int // maximum height of the stack
	depth   int // maximum number of open blocks
	broken  bool

	// observe is called for each operand whose bits matter.
	observe func(operand)
}

func (v *machine) start(t binary.FuncType) {
	*v = machine{m: v.m, stack: v.stack[:0], frames: v.frames[:0], observe: v.observe}
	v.frames = append(v.frames, frame{op: binary.OpBlock, number: -1, results: t.Results})
}

func (v *machine) top() *frame { return &v.frames[len(v.frames)-1] }

// target returns the frame of a label.
func (v *machine) target(label uint32) *frame { return &v.frames[len(v.frames)-1-int(label)] }

func (v *machine) push(o operand) {
	v.stack = append(v.stack, o)
	v.height = max(v.height, len(v.stack))
}

func (v *machine) pushTypes(types []binary.ValueType, from origin) {
	for _, t := range types {
		v.push(operand{typ: t, from: from})
	}
}

// pop pops an operand. If there is none, the module has a type error: broken.
func (v *machine) pop() (o operand) {
	if n := len(v.stack); n > v.top().height {
		o = v.stack[n-1]
		v.stack = v.stack[:n-1]
	} else {
		v.broken = true
	}
	return o
}

// use pops n operands. Bits of operands that are not of kind blind matter.
func (v *machine) use(n int, blind kind) {
	for range n {
		if o := v.pop(); o.kind.native() && o.kind != blind {
			v.observe(o)
		}
	}
}

// pass marks the n topmost operands as used, and does not pop them.
func (v *machine) pass(n int) {
	first := len(v.stack) - n
	if first < v.top().height {
		v.broken = true
		return
	}
	for i := first; i < len(v.stack); i++ {
		o := &v.stack[i]
		if o.kind.native() {
			v.observe(*o)
		}
		o.kind, o.from = fixed, anywhere
	}
}

func (v *machine) blockType(in binary.Instr) binary.FuncType {
	switch {
	case in.Block >= 0:
		return v.m.Types[in.Index]
	case in.Block != -64:
		t := in.Block + 128
		return binary.FuncType{Results: codes[t : t+1 : t+1]}
	}
	return binary.FuncType{}
}

// codes has each code at its own place: a part of it is a list of one type.
var codes = func() (codes [128]binary.ValueType) {
	for t := range codes {
		codes[t] = binary.ValueType(t)
	}
	return codes
}()

// below returns the operand n below the topmost one.
func (v *machine) below(n int) operand {
	if at := len(v.stack) - 1 - n; at >= v.top().height {
		return v.stack[at]
	}
	return operand{}
}

// open enters a block, loop or if in live code.
func (v *machine) open(in binary.Instr) *frame {
	if in.Op == binary.OpIf {
		v.use(1, fixed)
	}
	t := v.blockType(in)
	v.use(len(t.Params), fixed)
	v.frames = append(v.frames, frame{op: in.Op, number: v.blocks, height: len(v.stack),
		params: t.Params, results: t.Results, level: v.top().level + 1, leaves: math.MaxInt})
	v.blocks++
	v.depth = max(v.depth, len(v.frames))
	v.pushTypes(t.Params, anywhere)
	return v.top()
}

// otherwise processes an else. It reports whether the code before it ends
// there.
func (v *machine) otherwise() (live bool) {
	live = !v.dead
	f := v.top()
	if live {
		v.use(len(f.results), fixed)
	}
	v.stack = v.stack[:f.height]
	f.op, f.joined, v.dead = binary.OpElse, live, false
	v.pushTypes(f.params, anywhere)
	return live
}

// close processes the end of a block that was opened in live code. If joined is
// set, the code after it can be reached in another way than through its end.
func (v *machine) close(joined bool) frame {
	f := *v.top()
	if !v.dead {
		v.use(len(f.results), fixed)
	}
	v.stack = v.stack[:f.height]
	v.frames = v.frames[:len(v.frames)-1]
	if v.dead = v.dead && !joined && !f.joined; !v.dead && len(v.frames) > 0 {
		v.pushTypes(f.results, anywhere)
	}
	return f
}

// jump processes an unconditional branch that passes n operands.
func (v *machine) jump(n int) {
	v.use(n, fixed)
	v.stack = v.stack[:v.top().height]
	v.dead, v.skipped = true, 0
}

// call processes a call of a function of type t.
func (v *machine) call(t binary.FuncType) {
	v.use(len(t.Params), fixed)
	v.pushTypes(t.Results, computed)
}

// plain processes an instruction without effect on control, except for
// variables.
func (v *machine) plain(e effect, site int) {
	v.use(int(e.pop), e.blind)
	if e.push > 0 {
		v.push(operand{kind: e.makes, from: e.from, typ: e.typ, site: site})
	}
}

// skip processes an instruction in dead code and reports whether it belongs to
// the dead code: the else or end that closes it does not.
func (v *machine) skip(op binary.Op) bool {
	switch op {
	case binary.OpBlock, binary.OpLoop, binary.OpIf:
		v.skipped++
	case binary.OpElse:
		return v.skipped > 0
	case binary.OpEnd:
		if v.skipped == 0 {
			return false
		}
		v.skipped--
	}
	return true
}

// constant returns the operand of an instruction that pushes a constant.
func constant(raw []byte, in binary.Instr) operand {
	o := operand{from: computed, typ: effectOf(in.Op).typ}
	switch in.Op {
	case binary.OpI32Const, binary.OpI64Const:
		if in.Value == 0 {
			o.from = zero
		}
	case binary.OpF32Const:
		bits := uint32(raw[1]) | uint32(raw[2])<<8 | uint32(raw[3])<<16 | uint32(raw[4])<<24
		if f := math.Float32frombits(bits); f == f {
			o.kind = noNaN
		}
	case binary.OpF64Const:
		if raw[8]&0x7f != 0x7f || raw[7]>>4 != 0xf {
			o.kind = noNaN
		}
	case binary.OpV128Const:
		o.kind = noNaN
		for _, b := range raw[2:] {
			if b != 0 {
				o.kind = fixed
			}
		}
	}
	return o
}
