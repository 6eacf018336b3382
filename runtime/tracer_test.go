package runtime_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
)

// callRecorder records calls as lines.
type callRecorder struct{ lines []string }

func (r *callRecorder) Enter(f *runtime.Function, arguments []uint64) {
	r.lines = append(r.lines, fmt.Sprint("enter ", f.Index, f.Module, f.Name, arguments))
}

func (r *callRecorder) Leave(f *runtime.Function, results []uint64, returned bool) {
	r.lines = append(r.lines, fmt.Sprint("leave ", f.Index, f.Module, f.Name, results, returned))
}

func recordedCalls(t *testing.T, wasm, chunk []byte, interpreter bool, o runtime.Options) []string {
	t.Helper()
	recorder := &callRecorder{}
	m, err := newRuntime(t, runtime.Config{Interpreter: interpreter, Tracer: recorder}).Compile(t.Context(), wasm, o)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := m.Prepare(t.Context(), runtime.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	recorder.lines = nil
	instance := pool.Borrow(nil)
	defer instance.Release()
	_, _, err = instance.Call(t.Context(), abi.ExportExec, chunk, nil)
	return append(recorder.lines, fmt.Sprint(err))
}

// TestCallsAreTold checks that the reported calls are the same on both engines,
// and with and without metering, which changes the indices of functions and
// adds some.
func TestCallsAreTold(t *testing.T) {
	for _, do := range []string{"ok", "permanent", "trap", "random", "exit"} {
		t.Run(do, func(t *testing.T) {
			chunk, err := cbor.Marshal(map[string]any{"do": do})
			if err != nil {
				t.Fatal(err)
			}
			want := recordedCalls(t, faulty(t), chunk, false, runtime.Options{NoMetering: true})
			checkExported(t, want, faulty(t))
			for _, interpreter := range []bool{false, true} {
				got := recordedCalls(t, faulty(t), chunk, interpreter, runtime.Options{})
				if !slices.Equal(withoutImportsThatFail(got), withoutImportsThatFail(want)) {
					t.Errorf("interpreter %t: got\n%s\nwant\n%s", interpreter, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			}
		})
	}
}

// withoutImportsThatFail removes the lines that only one of the engines
// reports: that an imported function did not return.
func withoutImportsThatFail(lines []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool {
		return strings.HasPrefix(line, "leave -1") && strings.HasSuffix(line, "false")
	})
}

func checkExported(t *testing.T, lines []string, wasm []byte) {
	t.Helper()
	m, problems := binary.Parse(wasm)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, name := range []string{abi.ExportAlloc, abi.ExportExec} {
		e, _ := m.Export(name)
		want := fmt.Sprint("enter ", int(e.Index), name)
		if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, want) }) {
			t.Errorf("no line begins with %q:\n%s", want, strings.Join(lines, "\n"))
		}
	}
}

// TestImportIndex compares ImportIndex with the imports of the module.
func TestImportIndex(t *testing.T) {
	m, _ := binary.Parse(faulty(t))
	d := runtime.Inspect(faulty(t))
	for i, imported := range m.Imports { // all are functions
		if got := d.ImportIndex(imported.Module, imported.Name); got != i {
			t.Errorf("%s.%s has index %d, want %d", imported.Module, imported.Name, got, i)
		}
	}
	if got := d.ImportIndex("env", "nothing"); got != -1 || len(m.Imports) == 0 {
		t.Errorf("a function that is not imported has index %d", got)
	}
}

// TestAtEnd checks the memory at the end of a call that fails.
func TestAtEnd(t *testing.T) {
	pool := prepare(t, faulty(t), runtime.Settings{})
	instance := pool.Borrow(nil)
	defer instance.Release()
	var sizes []int
	instance.OnReturn(func(memory []byte) { sizes = append(sizes, len(memory)) })
	for _, do := range []string{"trap", "dirty"} {
		chunk, err := cbor.Marshal(map[string]any{"do": do})
		if err != nil {
			t.Fatal(err)
		}
		_, _, _ = instance.Call(t.Context(), abi.ExportExec, chunk, nil)
	}
	if len(sizes) != 2 || sizes[0] == 0 || sizes[1] <= sizes[0] {
		t.Errorf("saw memories of %v bytes, want the memory at the trap and a larger one", sizes)
	}
}
