package runtime_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// deepTrap returns a guest that traps in n nested frames, each with a name of
// the given length.
func deepTrap(n, length int) []byte {
	var names [][]byte
	g := &guest{exec: slices.Concat(op(opCall, 2), returnByte)}
	for i := range n {
		code := op(opCall, 2+i+1)
		if i == n-1 {
			code = []byte{0} // unreachable
		}
		g.bodies = append(g.bodies, body{kind: typeVoid, code: code})
		names = append(names, append(leb(2+i), wasmName(strings.Repeat("é", length/2))...))
	}
	content := vector(names...)
	g.customs = [][]byte{slices.Concat(wasmName("name"), []byte{1}, leb(len(content)), content)}
	return g.bytes()
}

// TestTextsOfFailuresAreBounded has guests that produce the longest possible
// texts: in one frame, in all frames, in messages, and on standard error before
// they trap.
func TestTextsOfFailuresAreBounded(t *testing.T) {
	const frame, all, message = 256, 4<<10 + 3, 4 << 10
	for _, test := range []struct {
		name   string
		wasm   []byte
		frames int // at least
	}{
		{"short names", deepTrap(20, 10), 20},
		{"long names", deepTrap(63, 4200), 15},
		{"one long name", deepTrap(1, 100_000), 1},
		{"many frames", deepTrap(500, 2), 20},
	} {
		i := prepare(t, test.wasm, runtime.Settings{}).Borrow(nil)
		_, _, err := i.Call(t.Context(), abi.ExportExec, []byte{0}, nil)
		i.Release()
		failure, _ := err.(*abi.Failure)
		if failure == nil || failure.Class != abi.ClassTrap || len(failure.Stack) < test.frames {
			t.Errorf("%s: %.200v with %d frames", test.name, err, len(failure.Stack))
			continue
		}
		sum := 0
		for _, f := range failure.Stack {
			sum += len(f)
			if len(f) > frame || !utf8.ValidString(f) {
				t.Errorf("%s: a frame of %d bytes: %.40q", test.name, len(f), f)
			}
		}
		if sum > all || len(failure.Message) > message {
			t.Errorf("%s: %d bytes of stack, %d of message", test.name, sum, len(failure.Message))
		}
	}
}

// TestEqualStacksShareMemory fails two calls at the same point.
func TestEqualStacksShareMemory(t *testing.T) {
	i := prepare(t, deepTrap(5, 10), runtime.Settings{}).Borrow(nil)
	defer i.Release()
	var stacks [2][]string
	for n := range stacks {
		_, _, err := i.Call(t.Context(), abi.ExportExec, []byte{0}, nil)
		stacks[n] = err.(*abi.Failure).Stack
	}
	if &stacks[0][0] != &stacks[1][0] {
		t.Error("two equal stacks are two")
	}
}

// TestMessageBehindWords checks a command that writes more to standard error
// than fits in a message, in bytes that are escaped.
func TestMessageBehindWords(t *testing.T) {
	const size = 60_000
	g := commandThatWrites(size)
	i := prepare(t, g, runtime.Settings{}).Borrow(nil)
	defer i.Release()
	_, _, err := i.Call(t.Context(), abi.ExportExec, []byte{0x40}, nil)
	failure, _ := err.(*abi.Failure)
	if failure == nil || failure.Class != abi.ClassTrap || len(failure.Message) > 4<<10 || !strings.Contains(failure.Message, "\\x01") {
		t.Errorf("%.300v", err)
	}
}

// commandThatWrites returns a command that writes size bytes 1 to standard
// error, and traps.
func commandThatWrites(size int) []byte {
	g := &guest{
		types:   [][]byte{functionType([]byte{codeI32, codeI32, codeI32, codeI32}, []byte{codeI32})},
		imports: [][]byte{functionImport(abi.WASIModule, "fd_write", typeNext)},
		command: true,
	}
	g.bodies = []body{{kind: typeVoid, code: slices.Concat(
		[]byte{opConst, 16, opConst, 1, opConst}, sleb(size), []byte{0xfc, 11, 0}, // fill
		[]byte{opConst, 0, opConst, 16, 0x36, 2, 0, opConst, 4, opConst}, sleb(size), []byte{0x36, 2, 0}, // iovec
		[]byte{opConst, 2, opConst, 0, opConst, 1, opConst, 8, opCall, 0, 0x00})}}
	g.exports = [][]byte{wasmExport(abi.ExportStart, 0, g.first())}
	return bytes.Clone(g.bytes())
}
