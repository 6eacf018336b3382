package runtime_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// growAndTell is code that grows the memory by 100 pages, and stores at 16
// whether that succeeded.
var growAndTell = slices.Concat([]byte{0x41, 16, 0x41}, sleb(100), []byte{0x40, 0, 0x41, 0x7f, 0x47, 0x3a, 0, 0})

// unlucky are guests that grow their memory in some step, and continue even if
// that fails. The output of each is 1 if the system has memory.
var unlucky = map[string]*guest{
	"exec":               {exec: slices.Concat(growAndTell, returnByte)},
	"exec, then a loop":  {exec: slices.Concat(growAndTell, loopIfNot, returnByte)},
	"exec, then a trap":  {exec: slices.Concat(growAndTell, []byte{0x41, 16, 0x2d, 0, 0, 0x45, 0x04, 0x40, 0x00, 0x0b}, returnByte)},
	"alloc":              {alloc: slices.Concat(growAndTell, []byte{0x41}, sleb(1024))},
	"alloc, which is 0":  {alloc: slices.Concat(growAndTell, []byte{0x41, 16, 0x2d, 0, 0, 0x41}, sleb(1024), []byte{0x6c})},
	abi.ExportInitialize: {bodies: []body{{kind: typeVoid, code: growAndTell}}, exports: [][]byte{wasmExport(abi.ExportInitialize, 0, 2)}},
	abi.ExportSetup:      {bodies: []body{{kind: typeExec, code: slices.Concat(growAndTell, returnByte)}}, exports: [][]byte{wasmExport(abi.ExportSetup, 0, 2)}},
	"a start function":   {bodies: []body{{kind: typeVoid, code: growAndTell}}, start: 2},
	"exec, then fail":    {imports: [][]byte{functionImport(abi.ImportModule, abi.ImportFail, typeNext)}, types: [][]byte{functionType([]byte{codeI32, codeI32, codeI32}, nil)}, exec: slices.Concat(growAndTell, []byte{0x41, 16, 0x2d, 0, 0, 0x45, 0x04, 0x40, 0x41, 0, 0x41, 0, 0x41, 0, 0x10, 0, 0x0b}, returnByte)},
	"exec, then an exit": {imports: [][]byte{functionImport(abi.WASIModule, "proc_exit", typeNext)}, types: [][]byte{functionType([]byte{codeI32}, nil)}, exec: slices.Concat(growAndTell, []byte{0x41, 16, 0x2d, 0, 0, 0x45, 0x04, 0x40, 0x41, 0, 0x10, 0, 0x0b}, returnByte)},
	"exec, out of fuel":  {exec: slices.Concat(growAndTell, []byte{0x41, 16, 0x2d, 0, 0, 0x45, 0x04, 0x40, 0x41, 0, 0x41, 0, 0x41}, sleb(65536), []byte{0xfc, 11, 0, 0x0b}, returnByte)},
}

// loopIfNot loops forever unless 1 is stored at 16.
var loopIfNot = []byte{0x03, 0x40, 0x41, 16, 0x2d, 0, 0, 0x45, 0x0d, 0, 0x0b}

var errNoMemory = errors.New("injected")

// oneCall prepares a guest and runs exec once.
func oneCall(t *testing.T, m *runtime.Module, s runtime.Settings) ([]byte, error) {
	t.Helper()
	p, err := m.Prepare(t.Context(), s)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	i := p.Borrow(nil)
	defer i.Release()
	out, _, err := i.Call(t.Context(), abi.ExportExec, []byte{0}, nil)
	return out, err
}

// TestFailuresOfTheSystemAreNeverTheGuests fails, one after the other, each
// system call for memory while an instance is created and called. The output is
// correct, or the failure has class host.
func TestFailuresOfTheSystemAreNeverTheGuests(t *testing.T) {
	right := []byte{1}
	for name, g := range unlucky {
		wasm := g.bytes()
		for _, config := range []runtime.Config{{}, {Interpreter: true}} {
			m, err := newRuntime(t, config).Compile(t.Context(), wasm, runtime.Options{})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, isolation := range []runtime.Isolation{runtime.IsolationReset, runtime.IsolationInstance} {
				s := runtime.Settings{Isolation: isolation, Timeout: time.Minute, Fuel: 1 << 21}
				failEachCall(t, fmt.Sprintf("%s, %s, interpreter %v", name, isolation, config.Interpreter), func() ([]byte, error) { return oneCall(t, m, s) }, right)
			}
		}
	}
}

func failEachCall(t *testing.T, name string, run func() ([]byte, error), right []byte) {
	t.Helper()
	at, calls, failed := -1, 0, ""
	defer runtime.FailMemory(func(call string) error {
		calls++
		if calls-1 != at {
			return nil
		}
		failed = call
		return errNoMemory
	})()
	if out, err := run(); err != nil || !bytes.Equal(out, right) {
		t.Fatalf("%s: output %x, %v", name, out, err)
	}
	refused := 0
	for n := range calls {
		at, calls, failed = n, 0, ""
		out, err := run()
		switch {
		case err == nil && bytes.Equal(out, right):
		case classOf(err) == abi.ClassHost && strings.Contains(err.Error(), "injected"):
			refused++
		default:
			t.Errorf("%s: call %d (%s) fails: output %x, %v, want %x or class host", name, n, failed, out, err, right)
		}
	}
	if refused == 0 {
		t.Errorf("%s: none of %d calls that failed had a consequence", name, calls)
	}
}

// TestSystemWithoutRoomForCode checks the panic of the engine when there is no
// memory for code: the module is not refused for it.
func TestSystemWithoutRoomForCode(t *testing.T) {
	if err := runtime.CompilerPanic(fmt.Errorf("mmap: %w", syscall.ENOMEM)); classOf(err) != abi.ClassHost {
		t.Errorf("%v, want class host", err)
	}
	if _, refused := errors.AsType[*runtime.RefusedError](runtime.CompilerPanic("index out of range")); !refused {
		t.Error("another panic is not a refusal")
	}
}
