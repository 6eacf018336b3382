package runtime_test

import (
	"math"
	"slices"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// autoPool returns a pool of a module that starts on the interpreter, whatever its
// size.
func autoPool(t *testing.T, wasm []byte, s runtime.Settings) (*runtime.Module, *runtime.Pool) {
	t.Helper()
	m, err := newRuntime(t, runtime.Config{Auto: true, AutoSize: 1}).Compile(t.Context(), wasm, runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	runtime.SetPatience(m, math.MaxInt64)
	p, err := m.Prepare(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return m, p
}

// TestAutoSwitches makes the same calls while the module is interpreted, and, from
// each call on, when it is compiled. All must end as they do on the compiler alone.
func TestAutoSwitches(t *testing.T) {
	wasm := faulty(t)
	for _, isolation := range []runtime.Isolation{runtime.IsolationReset, runtime.IsolationInstance} {
		t.Run(string(isolation), func(t *testing.T) {
			s := settings
			s.Isolation = isolation
			reset, _, fresh := pools(t, runtime.Config{}, wasm)
			compiled := map[runtime.Isolation]*runtime.Instance{runtime.IsolationReset: reset, runtime.IsolationInstance: fresh}[isolation]
			held := make(chan struct{})
			defer runtime.HoldCompilations(func() { <-held })()
			m, p := autoPool(t, wasm, s)
			instance := p.Borrow(nil)
			defer instance.Release()
			all := faultyChunks()
			chunks := slices.DeleteFunc(slices.Clone(all), func(c []byte) bool { return string(c) == string(request("stack")) }) // too deep for the interpreter
			for n, chunk := range slices.Concat(chunks, all) {
				if n == len(chunks) {
					if !runtime.IsInterpreted(m) {
						t.Fatal("the first half was not interpreted")
					}
					close(held)
					if err := m.Finish(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				want := outcome(t, compiled, abi.ExportExec, chunk)
				if got := outcome(t, instance, abi.ExportExec, chunk); got != want {
					t.Errorf("call %d, %q: %s, and compiled %s", n, chunk, got, want)
				}
				if n >= len(chunks) && instance.Interprets() {
					t.Fatalf("call %d is interpreted, although the compiler has finished", n)
				}
			}
		})
	}
}

// TestAutoDepth makes a call that is too deep for the interpreter, but not for the
// compiler: it must be made again.
func TestAutoDepth(t *testing.T) {
	m, p := autoPool(t, recursive(), runtime.Settings{})
	instance := p.Borrow(nil)
	defer instance.Release()
	chunk := append(abi.AppendHead(nil, abi.MajorBytes, 5000), make([]byte, 5000)...)
	if _, fuel, err := instance.Call(t.Context(), abi.ExportExec, chunk, nil); err != nil || fuel == 0 {
		t.Errorf("%d, %v", fuel, err)
	}
	if runtime.IsInterpreted(m) {
		t.Error("the interpreter is said to reach a depth of 5,000")
	}
}

// TestAutoTime makes a call that the interpreter does not end in time. Whether the
// compiler would is for the compiler to show.
func TestAutoTime(t *testing.T) {
	m, p := autoPool(t, faulty(t), runtime.Settings{Timeout: 1, FoldTimeout: 1 << 40})
	instance := p.Borrow(nil)
	defer instance.Release()
	if _, _, err := instance.Call(t.Context(), abi.ExportExec, request("loop"), nil); classOf(err) != abi.ClassTimeout {
		t.Error(err)
	}
	if runtime.IsInterpreted(m) {
		t.Error("the interpreter alone decided on a timeout")
	}
}

// TestAutoPatience makes calls until the compiler is worth it. A call that is too
// expensive for the interpreter ends there too.
func TestAutoPatience(t *testing.T) {
	for name, patience := range map[string]int64{"between calls": 100, "in a call": 1_000_000} {
		t.Run(name, func(t *testing.T) {
			m, p := autoPool(t, faulty(t), settings)
			runtime.SetPatience(m, patience)
			instance := p.Borrow(nil)
			defer instance.Release()
			for range 2 {
				if _, _, err := instance.Call(t.Context(), abi.ExportExec, request("loop"), nil); classOf(err) != abi.ClassFuel {
					t.Error(err)
				}
			}
			if runtime.IsInterpreted(m) {
				t.Error("the module is still interpreted")
			}
		})
	}
}

// TestAutoLogs checks that a call that is made again logs only what is new.
func TestAutoLogs(t *testing.T) {
	var lines []string
	log := runtime.After(func(_ int32, line string) { lines = append(lines, line) }, 2)
	for _, line := range []string{"a", "b", "c"} {
		log(0, line)
	}
	if !slices.Equal(lines, []string{"c"}) {
		t.Errorf("logged %q", lines)
	}
	if runtime.After(nil, 1) != nil {
		t.Error("a call without a log got one")
	}
}

// TestAutoCached checks that a module whose code is in the cache starts compiled, and
// that an unmetered one does.
func TestAutoCached(t *testing.T) {
	config := runtime.Config{Auto: true, AutoSize: 1, CacheDir: t.TempDir()}
	for n, o := range []runtime.Options{{}, {}, {NoMetering: true}} {
		m, err := newRuntime(t, config).Compile(t.Context(), faulty(t), o)
		if err != nil {
			t.Fatal(err)
		}
		if runtime.IsInterpreted(m) != (n == 0) {
			t.Errorf("run %d: interpreted %v", n, runtime.IsInterpreted(m))
		}
		if err := m.Finish(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCompiling checks that compilations are announced, and neither those whose result
// is in the cache nor those for the interpreter.
func TestCompiling(t *testing.T) {
	dir, wasm := t.TempDir(), faulty(t)
	for n, c := range []struct {
		config runtime.Config
		want   []int
	}{
		{runtime.Config{CacheDir: dir, Interpreter: true}, nil},
		{runtime.Config{CacheDir: dir}, []int{len(wasm)}},
		{runtime.Config{CacheDir: dir}, nil},
		{runtime.Config{}, []int{len(wasm)}},
		{runtime.Config{Auto: true, AutoSize: 1}, []int{len(wasm)}},
	} {
		var got []int
		c.config.Compiling = func(size int) { got = append(got, size) }
		m, err := newRuntime(t, c.config).Compile(t.Context(), wasm, runtime.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if runtime.IsInterpreted(m) && len(got) > 0 {
			t.Errorf("%d: announced before the compiler starts", n)
		}
		if err := m.Finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%d: announced %v, want %v", n, got, c.want)
		}
	}
}
