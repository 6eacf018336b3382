package rewrite

import "github.com/wasm-jobs/wasm-jobs/runtime/binary"

// A fill or copy cannot be interrupted. If it is the first to touch its memory,
// it takes as long as the system needs for the pages: 1 GiB took 0.2 to 8
// seconds. Operations larger than a piece are therefore done in pieces, with a
// call of yield after each. An injected function does all pieces except the
// last. The instruction itself does the last one, so that a trap is its own. If
// it would be out of bounds, and must not write anything, the function does
// nothing.
//
// memory.init does not need this: its source is in the module, whose size is
// bounded. Tables do not need it either, because they are small.

// piece is the maximum number of bytes that are filled or copied without a
// check of the clock: about 0.1 ms if they are new.
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

// pieceTypes are the types of the functions, (operands, fuel) -> (operands,
// fuel), and of the block around their call.
var pieceTypes = [][]byte{
	append(append([]byte{0x60, 4}, operands4...), append([]byte{4}, operands4...)...),
	append(append([]byte{0x60, 3}, operands4[:3]...), append([]byte{3}, operands4[:3]...)...),
}

var operands4 = []byte{byte(binary.I32), byte(binary.I32), byte(binary.I32), byte(binary.I64)}

func (w *module) pieceType() uint32 { return w.newType() + 1 }

// pieces does all pieces except the last of a fill or copy whose operands are
// on the stack, and whose length is in a scratch local. The injected function
// charges all of it: the length becomes 0.
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
	e.constant(binary.OpI32Const, 0)
	e.scratched(binary.OpLocalSet, scratchLength)
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

// code is the code of an injected function.
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

// leaveOutside leaves the innermost block unless all bytes from the address in
// a local on are in memory.
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

// charge charges the fuel for all bytes before any is written.
func (c *code) charge(refill uint32) {
	c.get(argFuel)
	c.get(argLength)
	c.op(opExtend)
	*c = appendS64(appendOp(*c, binary.OpI64Const), byteShift)
	c.op(opI64ShR)
	c.op(opI64Sub)
	*c = appendIndexed(*c, binary.OpLocalTee, argFuel)
	*c = appendNegative(*c)
	c.block(binary.OpIf)
	c.refill(refill)
	c.op(binary.OpEnd)
}

// refill calls yield.
func (c *code) refill(refill uint32) {
	c.get(argFuel)
	*c = appendS64(appendOp(*c, binary.OpI64Const), 0)
	*c = appendIndexed(*c, binary.OpCall, refill)
	c.set(argFuel)
}

// again calls yield, and repeats the loop while more than a piece is left.
func (c *code) again(refill uint32) {
	c.refill(refill)
	c.get(argLength)
	c.i32(piece)
	c.op(opI32GtU)
	c.branchIf()
	c.op(binary.OpEnd)
}

// finish returns the remaining operands.
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
	c.charge(w.refill)
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

// copyBody copies from the start or from the end, so that overlapping bytes are
// read before they are written.
func (w *module) copyBody() []byte {
	c := code{0}
	c.block(binary.OpBlock)
	c.leaveOutside(argTo)
	c.leaveOutside(argFrom)
	c.charge(w.refill)
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
