package rewrite

import "github.com/wasm-jobs/wasm-jobs/runtime/binary"

// A fill or copy cannot be interrupted, and where it is the first to touch its
// memory takes as long as the system takes for the pages: 1 GiB took 0.2 to 8
// seconds. What is larger than a piece is therefore done in pieces, with a call
// of yield behind each, all but the last by a function injected for it. The
// instruction itself does the last, so that a trap is its own: where it would
// be out of bounds, and must not have written anything, the function does
// nothing.
//
// memory.init needs none of it: its source is in the module, whose size is
// bounded.

// piece is the most bytes that are filled or copied without a look at the
// clock: some 0.1 ms where they are new.
const piece = 1 << 20

const (
	opI32GtU binary.Op = 0x4b
	opI32LeU binary.Op = 0x4d
	opI32Add binary.Op = 0x6a
	opI32Sub binary.Op = 0x6b
	opI64GtU binary.Op = 0x56
	opI64Shl binary.Op = 0x86
)

// hasPieces reports whether fill and copy are injected.
func (w *module) hasPieces() bool { return w.o.Metering && len(w.m.Memories) > 0 }

// pieceTypes are those of the functions, (operands, fuel) -> (operands, fuel),
// and of the block around their call.
var pieceTypes = [][]byte{
	append(append([]byte{0x60, 4}, operands4...), append([]byte{4}, operands4...)...),
	append(append([]byte{0x60, 3}, operands4[:3]...), append([]byte{3}, operands4[:3]...)...),
}

var operands4 = []byte{byte(binary.I32), byte(binary.I32), byte(binary.I32), byte(binary.I64)}

func (w *module) pieceType() uint32 { return w.newType() + 1 }

// pieces does all but the last piece of a fill or copy whose operands are on
// the stack, and whose length is in a scratch local.
func (e *emitter) pieces(op binary.Op) {
	function := e.module.refill + 1
	switch op {
	case binary.OpMemoryFill:
	case binary.OpMemoryCopy:
		function++
	default:
		return
	}
	e.scratched(binary.OpLocalGet, scratchLength)
	e.constant(binary.OpI32Const, piece)
	e.op(opI32GtU)
	e.op(binary.OpIf)
	e.code = appendS64(e.code, int64(e.module.pieceType()+1))
	e.scratched(binary.OpLocalGet, scratchFuel)
	e.indexed(binary.OpCall, function)
	e.scratched(binary.OpLocalSet, scratchFuel)
	e.op(binary.OpEnd)
}

// Parameters of the injected functions.
const (
	argTo     = 0
	argValue  = 1 // of a fill
	argFrom   = 1 // of a copy
	argLength = 2
	argFuel   = 3
)

// code is that of an injected function.
type code []byte

func (c *code) op(op binary.Op)    { *c = appendOp(*c, op) }
func (c *code) block(op binary.Op) { *c = append(appendOp(*c, op), emptyBlock) }
func (c *code) get(local uint32)   { *c = appendIndexed(*c, binary.OpLocalGet, local) }
func (c *code) set(local uint32)   { *c = appendIndexed(*c, binary.OpLocalSet, local) }
func (c *code) i32(n int64)        { *c = appendS64(appendOp(*c, binary.OpI32Const), n) }
func (c *code) branchIf()          { *c = appendIndexed(*c, binary.OpBrIf, 0) }

// move adds a piece to a local, or subtracts it.
func (c *code) move(op binary.Op, local uint32) {
	c.get(local)
	c.i32(piece)
	c.op(op)
	c.set(local)
}

// leaveOutside leaves the innermost block where the bytes from a local on are
// not all in memory.
func (c *code) leaveOutside(from uint32) {
	c.get(from)
	c.op(opExtend)
	c.get(argLength)
	c.op(opExtend)
	c.op(opI64Add)
	c.op(binary.OpMemorySize)
	*c = append(*c, 0)
	c.op(opExtend)
	*c = appendS64(appendOp(*c, binary.OpI64Const), 16)
	c.op(opI64Shl)
	c.op(opI64GtU)
	c.branchIf()
}

// again calls yield, and starts the loop again while more than a piece is left.
func (c *code) again(refill uint32) {
	c.get(argFuel)
	*c = appendS64(appendOp(*c, binary.OpI64Const), 0)
	*c = appendIndexed(*c, binary.OpCall, refill)
	c.set(argFuel)
	c.get(argLength)
	c.i32(piece)
	c.op(opI32GtU)
	c.branchIf()
	c.op(binary.OpEnd)
}

// finish returns what is left to do.
func (c *code) finish() []byte {
	for local := range uint32(4) {
		c.get(local)
	}
	c.op(binary.OpEnd)
	return *c
}

func (w *module) fillBody() []byte {
	c := code{0}
	c.block(binary.OpBlock)
	c.leaveOutside(argTo)
	c.block(binary.OpLoop)
	c.get(argTo)
	c.get(argValue)
	c.i32(piece)
	c.op(binary.OpMemoryFill)
	c = append(c, 0)
	c.move(opI32Add, argTo)
	c.move(opI32Sub, argLength)
	c.again(w.refill)
	c.op(binary.OpEnd)
	return c.finish()
}

// copyBody copies from the start or from the end, whichever reads what
// overlaps before it is written.
func (w *module) copyBody() []byte {
	c := code{0}
	c.block(binary.OpBlock)
	c.leaveOutside(argTo)
	c.leaveOutside(argFrom)
	c.get(argTo)
	c.get(argFrom)
	c.op(opI32LeU)
	c.block(binary.OpIf)

	c.block(binary.OpLoop)
	c.get(argTo)
	c.get(argFrom)
	c.i32(piece)
	c.op(binary.OpMemoryCopy)
	c = append(c, 0, 0)
	c.move(opI32Add, argTo)
	c.move(opI32Add, argFrom)
	c.move(opI32Sub, argLength)
	c.again(w.refill)

	c.op(binary.OpElse)

	c.block(binary.OpLoop)
	c.move(opI32Sub, argLength)
	for _, from := range []uint32{argTo, argFrom} {
		c.get(from)
		c.get(argLength)
		c.op(opI32Add)
	}
	c.i32(piece)
	c.op(binary.OpMemoryCopy)
	c = append(c, 0, 0)
	c.again(w.refill)

	c.op(binary.OpEnd)
	c.op(binary.OpEnd)
	return c.finish()
}
