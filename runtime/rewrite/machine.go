package rewrite

import (
	"math"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
)

// operand is a value on the operand stack, as far as the rewriter follows it.
type operand struct {
	kind kind
	site int // of the code that made it, where kind is native
}

// frame is an open block; the outermost is the function.
type frame struct {
	op              binary.Op
	number          int // of the block within the function, -1 for the function
	height          int // of the operand stack below its parameters
	params, results int
	level           int  // labels open in the rewritten code, its own counted
	joined          bool // code reached the end of the first branch of an if
	wrapped         bool // a loop with another around it

	// Units spent since the last check, see [emitter.unchecked]: at most so many
	// where a branch leads to the label, and where an if began.
	branched, began int64
}

func (f *frame) arity() int {
	if f.op == binary.OpLoop {
		return f.params
	}
	return f.results
}

// machine follows the operands and blocks through one function body without
// knowing their types. In code that cannot be reached it only counts blocks.
type machine struct {
	m       *binary.Module
	stack   []operand
	frames  []frame
	blocks  int // opened in live code
	dead    bool
	skipped int // blocks open in dead code
	height  int // greatest height of the stack
	broken  bool

	// observe is called for each operand whose bits matter.
	observe func(operand)
}

func (v *machine) start(t binary.FuncType) {
	*v = machine{m: v.m, stack: v.stack[:0], frames: v.frames[:0], observe: v.observe}
	v.frames = append(v.frames, frame{op: binary.OpBlock, number: -1, results: len(t.Results)})
}

func (v *machine) top() *frame { return &v.frames[len(v.frames)-1] }

// target returns the frame of a label.
func (v *machine) target(label uint32) *frame { return &v.frames[len(v.frames)-1-int(label)] }

func (v *machine) push(o operand) {
	v.stack = append(v.stack, o)
	v.height = max(v.height, len(v.stack))
}

func (v *machine) pushFixed(n int) {
	for range n {
		v.push(operand{})
	}
}

// pop takes an operand. A module with none left has a type error: broken.
func (v *machine) pop() (o operand) {
	if n := len(v.stack); n > v.top().height {
		o = v.stack[n-1]
		v.stack = v.stack[:n-1]
	} else {
		v.broken = true
	}
	return o
}

// use pops n operands; the bits of those that are not of the kind blind matter.
func (v *machine) use(n int, blind kind) {
	for range n {
		if o := v.pop(); o.kind.native() && o.kind != blind {
			v.observe(o)
		}
	}
}

// pass marks the n topmost operands as used, and leaves them.
func (v *machine) pass(n int) {
	v.use(n, fixed)
	v.pushFixed(n)
}

func (v *machine) blockType(in binary.Instr) (params, results int) {
	switch {
	case in.Block >= 0:
		t := v.m.Types[in.Index]
		return len(t.Params), len(t.Results)
	case in.Block != -64:
		return 0, 1
	}
	return 0, 0
}

// open enters a block, loop or if in live code.
func (v *machine) open(in binary.Instr) *frame {
	if in.Op == binary.OpIf {
		v.use(1, fixed)
	}
	params, results := v.blockType(in)
	v.use(params, fixed)
	v.frames = append(v.frames, frame{op: in.Op, number: v.blocks, height: len(v.stack),
		params: params, results: results, level: v.top().level + 1})
	v.blocks++
	v.pushFixed(params)
	return v.top()
}

// otherwise passes an else. It reports whether the code before it ends there.
func (v *machine) otherwise() (live bool) {
	live = !v.dead
	f := v.top()
	if live {
		v.use(f.results, fixed)
	}
	v.stack = v.stack[:f.height]
	f.op, f.joined, v.dead = binary.OpElse, live, false
	v.pushFixed(f.params)
	return live
}

// close passes the end of a block that was opened in live code. joined says
// that the code behind it can be reached otherwise than through its end.
func (v *machine) close(joined bool) frame {
	f := *v.top()
	if !v.dead {
		v.use(f.results, fixed)
	}
	v.stack = v.stack[:f.height]
	v.frames = v.frames[:len(v.frames)-1]
	if v.dead = v.dead && !joined && !f.joined; !v.dead && len(v.frames) > 0 {
		v.pushFixed(f.results)
	}
	return f
}

// jump passes an unconditional branch that gives n operands along.
func (v *machine) jump(n int) {
	v.use(n, fixed)
	v.stack = v.stack[:v.top().height]
	v.dead, v.skipped = true, 0
}

// call passes a call of a function of type t.
func (v *machine) call(t binary.FuncType) {
	v.use(len(t.Params), fixed)
	v.pushFixed(len(t.Results))
}

// plain passes an instruction without effect on control, variables apart.
func (v *machine) plain(e effect, site int) {
	v.use(int(e.pop), e.blind)
	if e.push > 0 {
		v.push(operand{e.makes, site})
	}
}

// skip passes an instruction in dead code and reports whether it belongs to
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

// constant returns the operand of f32.const, f64.const and v128.const.
func constant(raw []byte, op binary.Op) operand {
	switch op {
	case binary.OpF32Const:
		bits := uint32(raw[1]) | uint32(raw[2])<<8 | uint32(raw[3])<<16 | uint32(raw[4])<<24
		if f := math.Float32frombits(bits); f == f {
			return operand{kind: noNaN}
		}
	case binary.OpF64Const:
		if raw[8]&0x7f != 0x7f || raw[7]>>4 != 0xf {
			return operand{kind: noNaN}
		}
	case binary.OpV128Const:
		for _, b := range raw[2:] {
			if b != 0 {
				return operand{}
			}
		}
		return operand{kind: noNaN}
	}
	return operand{}
}
