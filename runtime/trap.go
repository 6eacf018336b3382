package runtime

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/tetratelabs/wazero"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime/linear"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
)

// unreachable is the smallest module that traps: its start function is one
// unreachable instruction.
var unreachable = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x04\x01\x60\x00\x00" + // type () -> ()
	"\x03\x02\x01\x00" + // function 0 of it
	"\x08\x01\x00" + // start
	"\x0a\x05\x01\x03\x00\x00\x0b") // body: unreachable, end

// trapType returns the type of the engine's traps, which has no public name, or
// nil where the engine does not trap.
func trapType(engine wazero.Runtime) (trap reflect.Type) {
	_, err := engine.InstantiateWithConfig(context.Background(), unreachable, wazero.NewModuleConfig().WithName(""))
	for ; err != nil; err = errors.Unwrap(err) {
		trap = reflect.TypeOf(err)
	}
	return trap
}

// failure says what became of a call that the engine ended with err.
func (m *Module) failure(err error, memory *linear.Memory, limit uint64) *abi.Failure {
	message, stack := splitTrap(err)
	for n := range stack {
		stack[n] = m.frame(stack[n])
	}
	if stop, ok := errors.AsType[*stopError](err); ok {
		switch f := stop.failure; {
		case f == nil:
			return abi.Failf(abi.ClassRequeued, "cancelled")
		case f.Class == abi.ClassTrap:
			return trapped(f.Message, stack, memory, limit)
		default:
			return f
		}
	}
	if exit, ok := errors.AsType[*wasi.ExitError](err); ok {
		return abi.Failf(abi.ClassExit, "the guest called proc_exit(%d)", exit.Code)
	}
	f := abi.Failf(abi.ClassHost, "%s", message)
	for e := err; e != nil; e = errors.Unwrap(e) {
		if reflect.TypeOf(e) != m.runtime.trap() {
			continue
		}
		// The interpreter's limit is none of the guest's.
		if message != stackOverflow || !m.runtime.config.Interpreter {
			return trapped(strings.TrimPrefix(firstLine(e), "wasm error: "), stack, memory, limit)
		}
		break
	}
	f.Stack = stack
	return f
}

func trapped(message string, stack []string, memory *linear.Memory, limit uint64) *abi.Failure {
	f := abi.Failf(abi.ClassTrap, "%s", message)
	if memory.Denied() {
		f = abi.Failf(abi.ClassMemory, "%s after a growth beyond the limit of %d bytes was denied", message, limit)
	}
	f.Stack = stack
	return f
}

// maxFrames bounds the stack of a failure: the innermost frames are kept.
const maxFrames = 64

// splitTrap takes the engine's text of an error apart: the first line, and the
// frames behind "wasm stack trace:".
func splitTrap(err error) (message string, stack []string) {
	text, trace, _ := strings.Cut(err.Error(), "\nwasm stack trace:\n")
	message = strings.TrimSuffix(strings.TrimPrefix(text, "wasm error: "), " (recovered by wazero)")
	for line := range strings.Lines(trace) {
		frame, isFrame := strings.CutPrefix(strings.TrimRight(line, "\n"), "\t")
		if !isFrame {
			break
		}
		if len(stack) == maxFrames {
			stack = append(stack, "...")
			break
		}
		stack = append(stack, cutText(strings.TrimPrefix(frame, "."), maxText))
	}
	message, _, _ = strings.Cut(message, "\n")
	return message, stack
}

// frame gives a function without a name, such as "$3(i32) i32", the index that
// it has in the file: metering imports one function more, before all that a
// module defines.
func (m *Module) frame(frame string) string {
	number, unnamed := strings.CutPrefix(frame, "$")
	number, signature, _ := strings.Cut(number, "(")
	index, err := strconv.Atoi(number)
	if !unnamed || err != nil || m.description.Names {
		return frame
	}
	return fmt.Sprintf("$%d(%s", m.original(index), signature)
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return cutText(line, maxText)
}
