package check_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/guest"
	"github.com/wasm-jobs/wasm-jobs/host/guest/check"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

func module(t testing.TB, path string) []byte {
	t.Helper()
	wasm, err := os.ReadFile(filepath.Join("../../..", path))
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// compiled is a cache for all tests: without it, compiling would take most of their
// time.
var compiled string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "check-test-*")
	if err != nil {
		panic(err)
	}
	compiled = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func run(t *testing.T, path string, o check.Options) *check.Report {
	t.Helper()
	o.CacheDir = compiled
	r, err := check.Run(t.Context(), module(t, path), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func kinds(remarks []check.Remark) (all []check.Kind) {
	for _, r := range remarks {
		all = append(all, r.Kind)
	}
	return all
}

const square = "guest-examples/square/c/square.wasm"

func TestGuestThatIsAsItShouldBe(t *testing.T) {
	wasm := module(t, square)
	r := run(t, square, check.Options{Elsewhere: func(ctx context.Context) ([]guest.CallResult, error) {
		return check.MakeCalls(ctx, wasm, check.Options{CacheDir: compiled})
	}})
	if !r.OK() || len(r.Hints) != 0 || len(r.Found) != 0 || len(r.Probes) != 8 {
		t.Errorf("hints %v, found %v, %d probes, %d differences", r.Hints, r.Found, len(r.Probes), r.Differences())
	}
	for _, p := range r.Probes {
		if p.Calls != 25 || p.Skipped != 0 {
			t.Errorf("%s: %d calls, %d skipped", p.Name, p.Calls, p.Skipped)
		}
	}
	if c := r.Chunks; c.Count != 20 || c.Outputs != 20 || c.Folds != 5 || len(c.Failures) != 0 {
		t.Errorf("chunks: %+v", c)
	}
	if c := r.Cost; c.Compile <= 0 || !strings.HasPrefix(c.Call, "chunk ") || c.Times.Reset <= 0 || c.Times.New <= 0 || c.Memory < 1<<16 {
		t.Errorf("cost: %+v", c)
	}
}

func TestRemarks(t *testing.T) {
	loose := []byte{0xa2, 0x61, 'b', 0, 0x61, 'a', 0}
	for _, tt := range []struct {
		path         string
		chunks       [][]byte // nil means samples
		hints, found []check.Kind
	}{
		{"testdata/wasm/counter.wasm", nil, []check.Kind{check.LargeChunkFails}, []check.Kind{check.LeavesState}},
		{"testdata/wasm/impure.wasm", nil, []check.Kind{check.LargeChunkFails}, []check.Kind{check.ReadsClock, check.DrawsRandom, check.UsesRandom}},
		{"testdata/wasm/lasting.wasm", nil, []check.Kind{check.NotResettable, check.LargeChunkFails}, nil},
		{"testdata/wasm/groups.wasm", nil, []check.Kind{check.GroupsMatter, check.LargeChunkFails}, nil},
		{"testdata/wasm/command.wasm", nil, nil, []check.Kind{check.IsCommand}},
		{"guest-examples/pi/c/pi.wasm", nil, nil, []check.Kind{check.DrawsRandom, check.UsesRandom}},
		{"testdata/wasm/unknown-imports.wasm", nil, nil, []check.Kind{check.DrawsRandom}},
		{square, [][]byte{abi.AppendText(nil, "x")}, []check.Kind{check.NoOutputs}, nil},
		{"testdata/wasm/echo.wasm", [][]byte{loose, loose}, []check.Kind{check.Loose}, nil},
	} {
		t.Run(filepath.Base(tt.path), func(t *testing.T) {
			o := check.Options{}
			if tt.chunks != nil {
				o.Calls = execs(tt.chunks...)
			}
			r := run(t, tt.path, o)
			if got := kinds(r.Hints); !slices.Equal(got, tt.hints) {
				t.Errorf("hints %q, want %q", got, tt.hints)
			}
			if got := kinds(r.Found); !slices.Equal(got, tt.found) {
				t.Errorf("found %q, want %q", got, tt.found)
			}
			for _, kind := range slices.Concat(tt.hints, tt.found) {
				if !slices.Contains(check.Kinds(), kind) {
					t.Errorf("Kinds lacks %q", kind)
				}
			}
		})
	}
}

// execs returns calls of exec.
func execs(chunks ...[]byte) func(context.Context, *runtime.Description) ([]check.Call, error) {
	var calls []check.Call
	for i, chunk := range chunks {
		calls = append(calls, check.Call{Name: "chunk " + strconv.Itoa(i), Function: abi.ExportExec, Input: chunk})
	}
	return func(context.Context, *runtime.Description) ([]check.Call, error) { return calls, nil }
}

// The call with the least fuel is measured: it shows the cost of a reset best.
func TestCheapestCallIsMeasured(t *testing.T) {
	counter := abi.AppendText(abi.AppendText(abi.AppendHead(nil, abi.MajorMap, 1), "do"), "counter")
	for want, chunks := range map[string][][]byte{"chunk 0": {{1}, counter}, "chunk 1": {counter, {1}}} {
		if r := run(t, "guest-examples/faulty/c/faulty.wasm", check.Options{Calls: execs(chunks...)}); r.Cost.Call != want {
			t.Errorf("%s is measured, want %s", r.Cost.Call, want)
		}
	}
}

func TestWhatIsFoundHasItsReason(t *testing.T) {
	r := run(t, "testdata/wasm/counter.wasm", check.Options{})
	i := slices.IndexFunc(r.Found, func(f check.Remark) bool { return f.Kind == check.LeavesState })
	p := r.Found[i].Probe
	if p.Count != 19 || len(p.Differences) == 0 || p.Differences[0].Call != "chunk 1" || string(p.Differences[0].Now.Output) != "\x02" {
		t.Errorf("got %+v", p)
	}
	r = run(t, "testdata/wasm/groups.wasm", check.Options{})
	i = slices.IndexFunc(r.Hints, func(h check.Remark) bool { return h.Kind == check.GroupsMatter })
	if d := r.Hints[i].Difference; string(d.First.Output) != "\x14" || string(d.Now.Output) != "\x02" {
		t.Errorf("from %x to %x", d.First.Output, d.Now.Output)
	}
}

func TestRefusedModulesHaveAReport(t *testing.T) {
	r := run(t, "testdata/wasm/unknown-imports.wasm", check.Options{Calls: func(context.Context, *runtime.Description) ([]check.Call, error) {
		t.Error("Calls is called")
		return nil, nil
	}})
	if r.OK() || r.Description.Accepted || len(r.Description.Problems) == 0 || r.Chunks != nil || r.Cost != nil {
		t.Errorf("got %+v", r)
	}
	r = run(t, "testdata/wasm/echo.wasm", check.Options{Settings: runtime.Settings{Context: []byte{1}}})
	if r.OK() || r.Description.Accepted || len(r.Description.Problems) != 1 {
		t.Errorf("a context without setup: %+v", r.Description)
	}
}

func TestChunksOfAFile(t *testing.T) {
	file, err := chunks.Of([]byte{1}, abi.AppendText(nil, "x"), []byte{3}, abi.AppendText(nil, "y"))
	if err != nil {
		t.Fatal(err)
	}
	read := func(most int) func(context.Context, *runtime.Description) ([]check.Call, error) {
		return func(ctx context.Context, _ *runtime.Description) ([]check.Call, error) {
			return check.ReadCalls(ctx, file, most)
		}
	}
	r := run(t, square, check.Options{Calls: read(9)})
	if c := r.Chunks; !r.OK() || c.Count != 4 || c.Outputs != 2 || c.Failures["guest: not an integer"] != 2 {
		t.Errorf("chunks: %+v", r.Chunks)
	}
	if r := run(t, square, check.Options{Calls: read(1)}); r.Chunks.Count != 1 {
		t.Errorf("the first: %+v", r.Chunks)
	}
	empty, err := chunks.Of()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := check.ReadCalls(t.Context(), empty, 9); !errors.Is(err, check.ErrNoCalls) {
		t.Errorf("an empty file: %v", err)
	}
}

func TestErrors(t *testing.T) {
	lost := errors.New("lost")
	calls := func(calls []check.Call, err error) check.Options {
		return check.Options{CacheDir: compiled, Calls: func(context.Context, *runtime.Description) ([]check.Call, error) { return calls, err }}
	}
	elsewhere := func(results []guest.CallResult, err error) check.Options {
		return check.Options{CacheDir: compiled, Elsewhere: func(context.Context) ([]guest.CallResult, error) { return results, err }}
	}
	for _, tt := range []struct {
		name, path string
		options    check.Options
		is         func(error) bool
	}{
		{"no calls", square, calls(nil, nil), func(err error) bool { return errors.Is(err, check.ErrNoCalls) }},
		{"calls that cannot be read", square, calls(nil, lost), func(err error) bool { return errors.Is(err, lost) }},
		{"another process that fails", square, elsewhere(nil, lost), func(err error) bool { return errors.Is(err, lost) }},
		{"another process with other calls", square, elsewhere(nil, nil), func(err error) bool {
			e, ok := errors.AsType[*check.CountError](err)
			return ok && *e == check.CountError{Here: 25}
		}},
		{"setup", "testdata/wasm/setup-fails.wasm", check.Options{}, func(err error) bool {
			_, ok := errors.AsType[*runtime.InitError](err)
			return ok
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if r, err := check.Run(t.Context(), module(t, tt.path), tt.options); r != nil || !tt.is(err) {
				t.Errorf("got %v, %v", r, err)
			}
		})
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stop := func(context.Context, *runtime.Description) ([]check.Call, error) {
		cancel()
		return check.Samples(ctx, &runtime.Description{})
	}
	if _, err := check.Run(ctx, module(t, square), check.Options{Calls: stop}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestSamplesOfCommandsAreLines(t *testing.T) {
	for command, want := range map[bool]string{false: "\x13", true: "\x6319\n"} {
		calls, err := check.Samples(t.Context(), &runtime.Description{Command: command})
		if err != nil || len(calls) != 20 || calls[19].Name != "chunk 19" || string(calls[19].Input) != want {
			t.Errorf("command %t: %+v, %v", command, calls[19], err)
		}
	}
}

// A file that declares much more than it contains does not cause a panic.
func TestLintTakesAnything(t *testing.T) {
	for _, wasm := range [][]byte{nil, []byte("\x00asm"), []byte("(module)"), module(t, square)[:100]} {
		if r := check.Lint(wasm); r.OK() || len(r.Description.Problems) == 0 {
			t.Errorf("%.10q: %+v", wasm, r.Description)
		}
	}
}
