package runtime_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
	"github.com/wasm-jobs/wasm-jobs/runtime/linear"
)

func wasmFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "testdata", "wasm", name+".wasm"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func faulty(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("../guest-examples/faulty/c/faulty.wasm")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newRuntime(t testing.TB, config runtime.Config) *runtime.Runtime {
	t.Helper()
	r, err := runtime.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(t.Context()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return r
}

func prepare(t testing.TB, wasm []byte, s runtime.Settings) *runtime.Pool {
	t.Helper()
	m, err := newRuntime(t, runtime.Config{}).Compile(t.Context(), wasm, runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Prepare(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if s := p.Stats(); s.Created != s.Closed {
			t.Errorf("%d instances created, %d closed", s.Created, s.Closed)
		}
	})
	return p
}

// request returns the chunk {"do": what} for the guest faulty.
func request(what string) []byte {
	return abi.AppendText(abi.AppendText([]byte{0xa1}, "do"), what)
}

func TestEveryProblemIsNamedAtOnce(t *testing.T) {
	for _, test := range []struct {
		name string
		wasm []byte
		want []string
	}{
		{"empty", nil, []string{"the file is empty"}},
		{"text", []byte("(module)"), []string{"text format: run wat2wasm"}},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), []string{"a WebAssembly component"}},
		{"no exports", []byte("\x00asm\x01\x00\x00\x00"), []string{`missing export "memory"`, `missing export "alloc"`, `missing export "exec"`}},
		{"unknown imports", wasmFile(t, "unknown-imports"), []string{"import "}},
		{"wrong types", wasmFile(t, "wrong-types"), []string{`export "alloc"`, `export "exec"`}},
		{"memory is not exported", wasmFile(t, "no-memory-export"), []string{`export it as "memory"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := newRuntime(t, runtime.Config{}).Compile(t.Context(), test.wasm, runtime.Options{})
			refused, ok := errors.AsType[*runtime.RefusedError](err)
			if !ok {
				t.Fatalf("error %v, want a refusal", err)
			}
			for _, want := range test.want {
				if !strings.Contains(refused.Error(), want) {
					t.Errorf("missing %q in: %v", want, refused)
				}
			}
			if strings.Contains(refused.Error(), "\n") {
				t.Errorf("more than one line: %q", refused)
			}
		})
	}
}

// TestDamagedModules cuts a module at every byte and flips bits in it. Each
// result is refused or runs, and nothing panics.
func TestDamagedModules(t *testing.T) {
	wasm := wasmFile(t, "echo-aggregate")
	r := newRuntime(t, runtime.Config{})
	for n := range wasm {
		_, err := r.Compile(t.Context(), wasm[:n], runtime.Options{})
		if _, refused := errors.AsType[*runtime.RefusedError](err); !refused && !bytes.Contains(wasm[n:], []byte("name")) {
			t.Errorf("cut at byte %d: %v", n, err)
		}
	}
	for bit := range len(wasm) * 8 {
		damaged := bytes.Clone(wasm)
		damaged[bit/8] ^= 1 << (bit % 8)
		m, err := r.Compile(t.Context(), damaged, runtime.Options{})
		if _, refused := errors.AsType[*runtime.RefusedError](err); err != nil && !refused {
			t.Errorf("bit %d: %v", bit, err)
		}
		if err == nil && m == nil {
			t.Errorf("bit %d: neither module nor error", bit)
		}
	}
}

func TestDamagedCacheIsThrownAway(t *testing.T) {
	dir := t.TempDir()
	wasm := wasmFile(t, "echo")
	compile := func() {
		t.Helper()
		r, err := runtime.New(t.Context(), runtime.Config{CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Compile(t.Context(), wasm, runtime.Options{}); err != nil {
			t.Errorf("compile: %v", err)
		}
		if err := r.Close(t.Context()); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	cached := func() (files []string) {
		files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	compile()
	for _, damage := range []string{"", "x", strings.Repeat("x", 5000)} {
		files := cached()
		if len(files) == 0 {
			t.Fatal("nothing is cached")
		}
		for _, f := range files {
			if err := os.WriteFile(f, []byte(damage), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		compile() // must not fail
		compile() // and is cached again
	}
}

// TestDamagedCacheServesOtherModules compiles a second module in the process
// that found the damage. The cache must work for it.
func TestDamagedCacheServesOtherModules(t *testing.T) {
	config := runtime.Config{CacheDir: filepath.Join(t.TempDir(), "[not a pattern]")}
	files := func() []string {
		names, err := fs.Glob(os.DirFS(config.CacheDir), "wazero-*/*")
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	damaged, other := wasmFile(t, "echo"), wasmFile(t, "bomb")
	if _, err := newRuntime(t, config).Compile(t.Context(), damaged, runtime.Options{}); err != nil {
		t.Fatal(err)
	}
	for _, f := range files() {
		if err := os.WriteFile(filepath.Join(config.CacheDir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := newRuntime(t, config)
	if _, err := r.Compile(t.Context(), damaged, runtime.Options{}); err != nil {
		t.Fatal(err)
	}
	if left := files(); len(left) > 0 {
		t.Errorf("%q remains from the damaged cache", left)
	}
	if _, err := r.Compile(t.Context(), other, runtime.Options{}); err != nil {
		t.Fatal(err)
	}
	if len(files()) == 0 {
		t.Error("the other module is not cached")
	}
}

func TestCalls(t *testing.T) {
	p := prepare(t, faulty(t), runtime.Settings{Memory: 2 << 20})
	instance := p.Borrow(nil)
	defer instance.Release()
	for _, test := range []struct {
		do    string
		class abi.Class
		want  string // in the message
	}{
		{"trap", abi.ClassTrap, "unreachable"},
		{"oob", abi.ClassTrap, "out of bounds memory access"},
		{"div0", abi.ClassTrap, "integer divide by zero"},
		{"stack", abi.ClassTrap, "stack overflow"},
		{"permanent", abi.ClassGuest, "told to fail"},
		{"retryable", abi.ClassGuestRetryable, "told to fail"},
		{"requeue", abi.ClassRequeued, "told to fail"},
		{"exit", abi.ClassExit, "proc_exit(0)"},
		{"badptr", abi.ClassABI, "outside its memory"},
		{"wrap", abi.ClassABI, "outside its memory"},
		{"malformed", abi.ClassABI, "not one CBOR item"},
		{"trailing", abi.ClassABI, "more bytes"},
		{"empty", abi.ClassABI, "empty"},
		{"grow", abi.ClassMemory, "growth beyond the limit"},
	} {
		t.Run(test.do, func(t *testing.T) {
			out, _, err := instance.Call(t.Context(), abi.ExportExec, request(test.do), []byte("kept"))
			failure, ok := errors.AsType[*abi.Failure](err)
			if !ok || failure.Class != test.class || !strings.Contains(failure.Message, test.want) {
				t.Errorf("failure %v, want class %s with %q", err, test.class, test.want)
			}
			if string(out) != "kept" {
				t.Errorf("output %q", out)
			}
			if test.class == abi.ClassTrap && len(failure.Stack) == 0 {
				t.Error("a trap without its stack")
			}
			// The next call sees no effect of it.
			out, _, err = instance.Call(t.Context(), abi.ExportExec, request("counter"), nil)
			if err != nil || !bytes.Equal(out, []byte{1}) {
				t.Errorf("then counter gave %x, %v", out, err)
			}
		})
	}
}

// TestNoIsolation checks that a call continues from the state of the last
// successful one, and that the effects of a failed call are undone.
func TestNoIsolation(t *testing.T) {
	p := prepare(t, faulty(t), runtime.Settings{Isolation: runtime.IsolationNone})
	if p.Isolation() != runtime.IsolationNone {
		t.Errorf("isolation %s", p.Isolation())
	}
	instance := p.Borrow(nil)
	defer instance.Release()
	for n, test := range []struct{ do, want string }{
		{"counter", "\x01"}, {"counter", "\x02"}, {"trap", ""}, {"counter", "\x01"}, {"counter", "\x02"},
	} {
		out, _, err := instance.Call(t.Context(), abi.ExportExec, request(test.do), nil)
		if string(out) != test.want || (err != nil) != (test.want == "") {
			t.Errorf("call %d, %s: %x, %v, want %x", n, test.do, out, err, test.want)
		}
	}
}

func TestTimeoutEndsALoop(t *testing.T) {
	p := prepare(t, faulty(t), runtime.Settings{Timeout: 20 * time.Millisecond})
	instance := p.Borrow(nil)
	defer instance.Release()
	_, _, err := instance.Call(t.Context(), abi.ExportExec, request("loop"), nil)
	if failure, ok := errors.AsType[*abi.Failure](err); !ok || failure.Class != abi.ClassTimeout {
		t.Errorf("%v, want class timeout", err)
	}
}

func TestHermetic(t *testing.T) {
	calls := func(seed uint64, what string) string {
		p := prepare(t, faulty(t), runtime.Settings{Seed: seed})
		instance := p.Borrow(nil)
		defer instance.Release()
		first, _, err := instance.Call(t.Context(), abi.ExportExec, request(what), nil)
		if err != nil {
			t.Fatal(err)
		}
		again, _, err := instance.Call(t.Context(), abi.ExportExec, request(what), nil)
		if err != nil || !bytes.Equal(first, again) {
			t.Errorf("%s: %x, then %x, %v", what, first, again, err)
		}
		return fmt.Sprintf("%x", first)
	}
	if a, b := calls(1, "clock"), calls(2, "clock"); a != b {
		t.Errorf("clocks %s and %s", a, b)
	}
	if a, b := calls(1, "random"), calls(1, "random"); a != b {
		t.Errorf("random bytes %s and %s of the same seed", a, b)
	}
	if a, b := calls(1, "random"), calls(2, "random"); a == b {
		t.Errorf("random bytes %s of two seeds", a)
	}
}

func TestLogs(t *testing.T) {
	p := prepare(t, faulty(t), runtime.Settings{})
	lines := []string{}
	instance := p.Borrow(func(level int32, line string) { lines = append(lines, fmt.Sprint(level, " ", line)) })
	defer instance.Release()
	for _, what := range []string{"log", "print"} {
		if _, _, err := instance.Call(t.Context(), abi.ExportExec, request(what), nil); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := strings.Join(lines, "|"), "0 line 1|-4 printed"; got != want {
		t.Errorf("lines %q, want %q", got, want)
	}
}

func TestPrepareFails(t *testing.T) {
	r := newRuntime(t, runtime.Config{})
	live := linear.Live()
	for _, test := range []struct{ name, failure string }{
		{"start-fails", "instantiate failed: guest: "},
		{"start-traps", "instantiate failed: trap: unreachable"},
		{"initialize-traps", "_initialize failed: trap: unreachable"},
		{"initialize-exits", "_initialize failed: exit: the guest called proc_exit(0)"},
		{"setup-fails", "setup failed: guest: no such context"},
	} {
		for _, o := range []runtime.Options{{}, {NoMetering: true}} {
			m, err := r.Compile(t.Context(), wasmFile(t, test.name), o)
			if err != nil {
				t.Fatal(err)
			}
			_, err = m.Prepare(t.Context(), runtime.Settings{})
			failed, ok := errors.AsType[*runtime.InitError](err)
			if !ok || failed.Error() != test.failure || failed.Instances.Created != 1 || failed.Instances.Closed != 1 {
				t.Errorf("%s, %+v: %v, want: %s", test.name, o, err, test.failure)
			}
		}
	}
	if n := linear.Live(); n != live {
		t.Errorf("%d memories and images are left", n-live)
	}
}

// TestCancelledCompile checks that a cancelled compilation can be distinguished
// from an invalid module: the engine returns an error for both.
func TestCancelledCompile(t *testing.T) {
	defer goruntime.GOMAXPROCS(goruntime.GOMAXPROCS(1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, dir := range []string{"", t.TempDir()} {
		r := newRuntime(t, runtime.Config{CacheDir: dir})
		if _, err := r.Compile(ctx, faulty(t), runtime.Options{}); err != context.Canceled {
			t.Errorf("cache %q: %v", dir, err)
		}
		if _, err := r.Compile(t.Context(), faulty(t), runtime.Options{}); err != nil {
			t.Errorf("cache %q: again: %v", dir, err)
		}
	}
}

// TestUnnamedFramesHaveTheirIndex strips the names of functions from a guest.
// The stack of a trap then shows the indices in its file, metered or not.
func TestUnnamedFramesHaveTheirIndex(t *testing.T) {
	wasm := wasmFile(t, "setup-denied")
	parsed, problems := binary.Parse(wasm)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	exec, _ := parsed.Export(abi.ExportExec)
	want := fmt.Sprintf("$%d(i32,i32) i64", exec.Index)
	r := newRuntime(t, runtime.Config{})
	for _, o := range []runtime.Options{{}, {NoMetering: true}} {
		m, err := r.Compile(t.Context(), parsed.WithoutNames(wasm), o)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = leased(t, m, runtime.Settings{}).Call(t.Context(), abi.ExportExec, []byte{0}, nil)
		failure, ok := errors.AsType[*abi.Failure](err)
		if !ok || !slices.Equal(failure.Stack, []string{want}) {
			t.Errorf("%+v: %+v, want the stack %q", o, err, want)
		}
	}
}

// TestStackOverflowAfterDenial checks that a stack overflow is a trap like any
// other: after a denied growth its class is memory, and the instance is closed.
// This holds for our limit of the stack and for the engine's.
func TestStackOverflowAfterDenial(t *testing.T) {
	r := newRuntime(t, runtime.Config{})
	for _, o := range []runtime.Options{{}, {NoMetering: true}} {
		m, err := r.Compile(t.Context(), wasmFile(t, "grows-and-recurses"), o)
		if err != nil {
			t.Fatal(err)
		}
		p := pool(t, m, runtime.Settings{Memory: 1 << 20})
		i := p.Borrow(nil)
		_, _, err = i.Call(t.Context(), abi.ExportExec, []byte{0}, nil)
		i.Release()
		failure, ok := errors.AsType[*abi.Failure](err)
		if !ok || failure.Class != abi.ClassMemory || !strings.HasPrefix(failure.Message, "stack overflow") || len(failure.Stack) == 0 {
			t.Errorf("%+v: %+v, want class memory with a stack", o, err)
		}
		if s := p.Stats(); s.Closed != 1 {
			t.Errorf("%+v: %+v, want the instance to be closed", o, s)
		}
	}
}
