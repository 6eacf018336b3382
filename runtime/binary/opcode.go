package binary

import "fmt"

// Op is the code of an instruction: the opcode byte, or prefix<<8 | number after
// the prefixes 0xFC and 0xFD.
type Op uint16

// Opcodes that readers and rewriters of code treat specially.
const (
	OpUnreachable  Op = 0x00
	OpNop          Op = 0x01
	OpBlock        Op = 0x02
	OpLoop         Op = 0x03
	OpIf           Op = 0x04
	OpElse         Op = 0x05
	OpEnd          Op = 0x0b
	OpBr           Op = 0x0c
	OpBrIf         Op = 0x0d
	OpBrTable      Op = 0x0e
	OpReturn       Op = 0x0f
	OpCall         Op = 0x10
	OpCallIndirect Op = 0x11
	OpSelectType   Op = 0x1c
	OpLocalGet     Op = 0x20
	OpLocalSet     Op = 0x21
	OpLocalTee     Op = 0x22
	OpGlobalGet    Op = 0x23
	OpGlobalSet    Op = 0x24
	OpTableGet     Op = 0x25
	OpTableSet     Op = 0x26
	OpMemorySize   Op = 0x3f
	OpMemoryGrow   Op = 0x40
	OpI32Const     Op = 0x41
	OpI64Const     Op = 0x42
	OpF32Const     Op = 0x43
	OpF64Const     Op = 0x44
	OpRefNull      Op = 0xd0
	OpRefFunc      Op = 0xd2
	OpMemoryInit   Op = 0xfc08
	OpDataDrop     Op = 0xfc09
	OpMemoryCopy   Op = 0xfc0a
	OpMemoryFill   Op = 0xfc0b
	OpTableInit    Op = 0xfc0c
	OpElemDrop     Op = 0xfc0d
	OpTableCopy    Op = 0xfc0e
	OpTableGrow    Op = 0xfc0f
	OpTableSize    Op = 0xfc10
	OpTableFill    Op = 0xfc11
	OpV128Const    Op = 0xfd0c
	OpI8x16Shuffle Op = 0xfd0d
)

// immediate is the form of the immediates of an opcode.
type immediate uint8

const (
	immUnknown  immediate = iota // not an instruction of WebAssembly 2.0
	immNone                      //
	immBlock                     // block type
	immLabel                     // label
	immTargets                   // vector of labels, label
	immFunc                      // function
	immIndirect                  // type, table
	immTypes                     // vector of value types
	immLocal                     // local
	immGlobal                    // global
	immTable                     // table
	immMemArg                    // alignment, offset
	immMemory                    // memory, a zero byte
	immI32                       // signed number
	immI64                       // signed number
	immF32                       // 4 bytes
	immF64                       // 8 bytes
	immRef                       // reference type
	immDataMem                   // data segment, memory
	immData                      // data segment
	immMemories                  // memory, memory
	immElemTab                   // element segment, table
	immElem                      // element segment
	immTables                    // table, table
	immV128                      // 16 bytes
	immLanes                     // 16 lanes below 32
	immLane                      // lane
	immMemLane                   // alignment, offset, lane
)

// plain, misc and vector have the form of the immediates of each instruction of
// WebAssembly 2.0 (Core Specification, section 5.4): misc after 0xFC and vector
// after 0xFD.
var (
	plain  = plainForms()
	misc   = miscForms()
	vector = vectorForms()
)

func setForms(forms []immediate, form immediate, from, to int) {
	for op := from; op <= to; op++ {
		forms[op] = form
	}
}

func plainForms() (f [256]immediate) {
	setForms(f[:], immNone, 0x00, 0x01)
	setForms(f[:], immBlock, 0x02, 0x04)
	f[0x05], f[0x0b], f[0x0f], f[0x1a], f[0x1b], f[0xd1] = immNone, immNone, immNone, immNone, immNone, immNone
	f[0x0c], f[0x0d], f[0x0e] = immLabel, immLabel, immTargets
	f[0x10], f[0x11], f[0x1c] = immFunc, immIndirect, immTypes
	setForms(f[:], immLocal, 0x20, 0x22)
	setForms(f[:], immGlobal, 0x23, 0x24)
	setForms(f[:], immTable, 0x25, 0x26)
	setForms(f[:], immMemArg, 0x28, 0x3e)
	setForms(f[:], immMemory, 0x3f, 0x40)
	f[0x41], f[0x42], f[0x43], f[0x44] = immI32, immI64, immF32, immF64
	setForms(f[:], immNone, 0x45, 0xc4)
	f[0xd0], f[0xd2] = immRef, immFunc
	return f
}

func miscForms() (f [18]immediate) {
	setForms(f[:], immNone, 0, 7)
	f[8], f[9], f[10], f[11] = immDataMem, immData, immMemories, immMemory
	f[12], f[13], f[14] = immElemTab, immElem, immTables
	setForms(f[:], immTable, 15, 17)
	return f
}

func vectorForms() (f [256]immediate) {
	setForms(f[:], immNone, 0x0e, 0xff)
	setForms(f[:], immMemArg, 0x00, 0x0b)
	f[0x0c], f[0x0d] = immV128, immLanes
	setForms(f[:], immLane, 0x15, 0x22)
	setForms(f[:], immMemLane, 0x54, 0x5b)
	setForms(f[:], immMemArg, 0x5c, 0x5d)
	for _, op := range []int{0x9a, 0xa2, 0xa5, 0xa6, 0xaf, 0xb0, 0xb2, 0xb3, 0xb4, 0xbb, 0xc2, 0xc5, 0xc6, 0xcf, 0xd0, 0xd2, 0xd3, 0xd4, 0xe2, 0xee} {
		f[op] = immUnknown
	}
	return f
}

// lanes returns the number of lanes for an instruction after 0xFD with a lane as
// immediate.
func lanes(number uint32) byte {
	switch {
	case number <= 0x17:
		return 16
	case number <= 0x1a:
		return 8
	case number <= 0x1c, number == 0x1f, number == 0x20:
		return 4
	case number <= 0x22:
		return 2
	default: // loads and stores of one lane: of 8, 16, 32 and 64 bits
		return 16 >> ((number - 0x54) % 4)
	}
}

// alignment returns the maximum exponent of the alignment of a load or store:
// the alignment of its natural size.
func alignment(op Op) uint32 {
	switch op {
	case 0x2c, 0x2d, 0x30, 0x31, 0x3a, 0x3c, 0xfd07, 0xfd54, 0xfd58:
		return 0
	case 0x2e, 0x2f, 0x32, 0x33, 0x3b, 0x3d, 0xfd08, 0xfd55, 0xfd59:
		return 1
	case 0x28, 0x2a, 0x34, 0x35, 0x36, 0x38, 0x3e, 0xfd09, 0xfd56, 0xfd5a, 0xfd5c:
		return 2
	case 0xfd00, 0xfd0b:
		return 4
	default:
		return 3
	}
}

// Compiler options that turn unsupported features off.
const (
	withoutThreads    = "build without -pthread and with -mno-atomics (Rust: the target wasm32-wasip1, and -C target-feature=-atomics)"
	withoutExceptions = "build without -fwasm-exceptions and -mllvm -wasm-enable-sjlj, with -fno-exceptions (Rust: -C panic=abort; Emscripten: without -sSUPPORT_LONGJMP=wasm)"
	withoutReferences = "build with -mno-gc (wasm-opt: without --enable-gc and --enable-typed-function-references); Kotlin, Dart and Java have no other way"
	withoutMemory64   = "build with --target=wasm32 instead of wasm64 (Emscripten: without -sMEMORY64)"
	withoutMemories   = "build with -mno-multimemory (wasm-opt: --multi-memory-lowering)"
)

// unsupported describes an instruction that is not supported. It names the
// proposal of the instruction if that is known.
func unsupported(prefix byte, number uint32) string {
	switch {
	case prefix == 0xfe:
		return "unsupported atomic instruction (threads): " + withoutThreads
	case prefix == 0xfb:
		return "unsupported instruction of the garbage collection proposal: " + withoutReferences
	case prefix == 0xfd && number >= 0x100 && number <= 0x12f:
		return "unsupported relaxed SIMD instruction (its results differ between machines): build with -mno-relaxed-simd"
	case prefix == 0xfc || prefix == 0xfd:
		return fmt.Sprintf("unknown instruction 0x%02x %d", prefix, number)
	}
	switch number {
	case 0x06, 0x07, 0x08, 0x09, 0x0a, 0x18, 0x19, 0x1f:
		return fmt.Sprintf("unsupported instruction 0x%02x of exception handling: %s", number, withoutExceptions)
	case 0x12, 0x13:
		return fmt.Sprintf("unsupported tail call (0x%02x): build with -mno-tail-call", number)
	case 0x14, 0x15, 0xd3, 0xd4, 0xd5, 0xd6:
		return fmt.Sprintf("unsupported instruction 0x%02x of typed references: %s", number, withoutReferences)
	}
	return fmt.Sprintf("unknown instruction 0x%02x", number)
}
