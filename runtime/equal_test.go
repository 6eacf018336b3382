package runtime_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// settings bound guests so that each request of faulty ends soon.
var settings = runtime.Settings{Fuel: 3_000_000, Memory: 4 << 20, Seed: 7}

// faultyChunks returns chunks for faulty that succeed, trap, use up each
// resource, exit, fail in the host, grow, and change all memory that they can
// reach.
func faultyChunks() (chunks [][]byte) {
	for _, what := range []string{
		"ok", "trap", "oob", "div0", "stack", "permanent", "retryable", "requeue", "loop", "calls",
		"badptr", "wrap", "malformed", "truncated", "trailing", "empty", "big", "grow", "grown", "exit",
		"counter", "dirty", "log", "clock", "random", "print", "unknown",
	} {
		chunks = append(chunks, request(what))
	}
	for n := range byte(8) {
		chunks = append(chunks, []byte{n})
	}
	return chunks
}

// outcome returns everything that a caller can see of a call.
func outcome(t testing.TB, instance *runtime.Instance, function string, chunk []byte) string {
	t.Helper()
	out, fuel, err := instance.Call(t.Context(), function, chunk, nil)
	if err == nil {
		return fmt.Sprintf("%x for %d", out, fuel)
	}
	failure, ok := err.(*abi.Failure)
	if !ok {
		t.Fatalf("%x: %v", chunk, err)
	}
	return fmt.Sprintf("%v %v", failure, failure.Stack)
}

// compare runs chunks one after another on one instance that is reset. Each
// must have the same outcome as on a new instance.
func compare(t testing.TB, reset *runtime.Instance, want map[string]string, fresh *runtime.Instance, function string, chunks [][]byte) {
	t.Helper()
	for n, chunk := range chunks {
		key := function + string(chunk)
		if want[key] == "" {
			want[key] = outcome(t, fresh, function, chunk)
		}
		if got := outcome(t, reset, function, chunk); got != want[key] {
			t.Fatalf("call %d, %s(%s): %s, and on a new instance %s", n, function, hex.EncodeToString(chunk), got, want[key])
		}
	}
}

// pools returns instances of one module: one with the snapshot's own instance,
// one with a clone, and one with new instances.
func pools(t testing.TB, config runtime.Config, wasm []byte) (reset, clone, fresh *runtime.Instance) {
	t.Helper()
	m, err := newRuntime(t, config).Compile(t.Context(), wasm, runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pool := func(isolation runtime.Isolation) *runtime.Pool {
		s := settings
		s.Isolation = isolation
		p, err := m.Prepare(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if p.Isolation() != isolation {
			t.Fatalf("isolation %s, want %s", p.Isolation(), isolation)
		}
		t.Cleanup(func() {
			p.Close()
			if s := p.Stats(); s.Created != s.Closed {
				t.Errorf("%d instances created, %d closed", s.Created, s.Closed)
			}
		})
		return p
	}
	lease := func(p *runtime.Pool) *runtime.Instance {
		instance := p.Borrow(nil)
		t.Cleanup(instance.Release)
		return instance
	}
	resetting := pool(runtime.IsolationReset)
	reset, clone = lease(resetting), lease(resetting)
	outcome(t, reset, abi.ExportExec, []byte{0}) // takes the first instance
	return reset, clone, lease(pool(runtime.IsolationInstance))
}

// TestResetEqualsNew runs every chunk after every other.
func TestResetEqualsNew(t *testing.T) {
	for _, interpreter := range []bool{false, true} {
		t.Run(fmt.Sprintf("interpreter=%v", interpreter), func(t *testing.T) {
			reset, clone, fresh := pools(t, runtime.Config{Interpreter: interpreter}, faulty(t))
			chunks := faultyChunks()
			if interpreter { // fails at 2,000 calls, not at the limit of the stack
				chunks = slices.DeleteFunc(chunks, func(c []byte) bool { return string(c) == string(request("stack")) })
			}
			want := map[string]string{}
			var sequence [][]byte
			for a := range chunks {
				if raceDetector && a%3 != 0 {
					continue
				}
				for b := range chunks {
					sequence = append(sequence, chunks[a], chunks[b])
				}
			}
			compare(t, reset, want, fresh, abi.ExportExec, sequence)
			compare(t, clone, want, fresh, abi.ExportExec, sequence[len(sequence)/2:])
			compare(t, reset, want, fresh, abi.ExportAggregate, [][]byte{{0x80}, {0x81, 0x82, 0x00, 0x01}})
			t.Logf("%d calls", len(sequence)+2)
		})
	}
}

// TestSmallGuestsAreReset does the same with the guests whose builds are
// committed.
func TestSmallGuestsAreReset(t *testing.T) {
	integers := [][]byte{{0}, {0x17}, {0x20}, {0x18, 0x64}, {0x1a, 0xff, 0xff, 0xff, 0xff}, {0x1b, 1, 0, 0, 0, 0, 0, 0, 0}, {0xf6}, {0x61, 'a'}}
	for name, chunks := range map[string][][]byte{
		"square/c/square": integers, "square/wat/square": integers, "pi/c/pi": integers[:4],
		"wordcount/c/wordcount": {abi.AppendText(nil, "the cat and the other cat"), abi.AppendText(nil, ""), {0xf6}},
	} {
		t.Run(name, func(t *testing.T) {
			wasm, err := os.ReadFile("../guest-examples/" + name + ".wasm")
			if err != nil {
				t.Fatal(err)
			}
			reset, clone, fresh := pools(t, runtime.Config{}, wasm)
			want := map[string]string{}
			for range 3 {
				compare(t, reset, want, fresh, abi.ExportExec, chunks)
				slices.Reverse(chunks)
				compare(t, clone, want, fresh, abi.ExportExec, chunks)
			}
		})
	}
}

// TestEnginesAgree compares the interpreter with the compiler: bytes, failures
// with their stacks, and fuel.
func TestEnginesAgree(t *testing.T) {
	compiled, _, _ := pools(t, runtime.Config{}, faulty(t))
	interpreted, _, _ := pools(t, runtime.Config{Interpreter: true}, faulty(t))
	for _, chunk := range faultyChunks() {
		if string(chunk) == string(request("stack")) {
			continue
		}
		a, b := outcome(t, compiled, abi.ExportExec, chunk), outcome(t, interpreted, abi.ExportExec, chunk)
		if a != b {
			t.Errorf("%s: compiled %s, interpreted %s", hex.EncodeToString(chunk), a, b)
		}
	}
}

// TestGoGuestIsReset does the same with a guest that has a garbage collector,
// maps and goroutines.
func TestGoGuestIsReset(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("compiling a Go guest takes seconds, and 20 under the race detector: run without -short and -race")
	}
	path := filepath.Join(t.TempDir(), "wordcount.wasm")
	build := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", path, "./wordcount/go")
	build.Dir = "../guest-examples"
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	wasm, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := settings
	settings.Fuel, settings.Memory = 0, 64<<20
	defer func() { settings = s }()
	reset, clone, fresh := pools(t, runtime.Config{}, wasm)
	var chunks [][]byte
	for n := range 12 {
		text := ""
		for i := range n * 50 {
			text += fmt.Sprintf("word%d again ", i*n)
		}
		chunks = append(chunks, abi.AppendText(nil, text), []byte{byte(n)})
	}
	want := map[string]string{}
	compare(t, reset, want, fresh, abi.ExportExec, chunks)
	slices.Reverse(chunks)
	compare(t, reset, want, fresh, abi.ExportExec, chunks)
	compare(t, clone, want, fresh, abi.ExportExec, chunks)
}

func FuzzResetEqualsNew(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add([]byte{21, 20, 18, 20, 4, 20, 8, 20})
	chunks := faultyChunks()
	want := map[string]string{}
	reset, clone, fresh := pools(f, runtime.Config{}, faulty(f))
	f.Fuzz(func(t *testing.T, order []byte) {
		sequence := make([][]byte, len(order))
		for i, b := range order {
			sequence[i] = chunks[int(b)%len(chunks)]
		}
		compare(t, reset, want, fresh, abi.ExportExec, sequence)
		compare(t, clone, want, fresh, abi.ExportExec, sequence)
	})
}

// TestWhatNoResetUndoes runs modules that need new instances: always, or
// because their memory cannot be shrunk.
func TestWhatNoResetUndoes(t *testing.T) {
	for _, test := range []struct {
		name      string
		isolation runtime.Isolation
		lasting   []string
		output    byte
	}{
		{"lasting", runtime.IsolationInstance, []string{"table.set in function 2 (at byte 105)"}, 0},
		{"grows-to-maximum", runtime.IsolationReset, nil, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			wasm := wasmFile(t, test.name)
			d := runtime.Inspect(wasm)
			if d.Isolation != test.isolation || !slices.Equal(d.NotResettable, test.lasting) {
				t.Errorf("isolation %s for %q, want %s for %q", d.Isolation, d.NotResettable, test.isolation, test.lasting)
			}
			p := prepare(t, wasm, runtime.Settings{})
			instance := p.Borrow(nil)
			defer instance.Release()
			for range 3 {
				out, _, err := instance.Call(t.Context(), abi.ExportExec, []byte{0}, nil)
				if err != nil || string(out) != string([]byte{test.output}) {
					t.Errorf("output %x, %v, want %x", out, err, test.output)
				}
			}
			if s := p.Stats(); s.Created != 3 || s.Resets != 0 {
				t.Errorf("%+v, want 3 instances and no reset", s)
			}
		})
	}
}

// TestDenialBelongsToItsStep checks that a growth that was denied in setup does
// not change the class of a later failure.
func TestDenialBelongsToItsStep(t *testing.T) {
	reset, clone, fresh := pools(t, runtime.Config{}, wasmFile(t, "setup-denied"))
	for name, instance := range map[string]*runtime.Instance{"reset": reset, "clone": clone, "new": fresh} {
		_, _, err := instance.Call(t.Context(), abi.ExportExec, []byte{0}, nil)
		if classOf(err) != abi.ClassTrap {
			t.Errorf("%s instance: %v, want class trap", name, err)
		}
	}
}
