package host_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/linear"
)

func newEngine(t testing.TB) host.Engine {
	t.Helper()
	r, err := runtime.New(t.Context(), runtime.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return host.NewEngine(r)
}

// open opens a guest and closes it at the end of the test.
func open(t testing.TB, wasm []byte, o host.Options) *host.Guest {
	t.Helper()
	g, err := host.Open(t.Context(), wasm, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeGuest(t, g) })
	return g
}

func closeGuest(t testing.TB, g *host.Guest) {
	t.Helper()
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if s := g.Stats(); s.Created != s.Closed {
		t.Errorf("%d instances were created and %d closed", s.Created, s.Closed)
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func squareWat(t testing.TB) []byte { return readFile(t, squareWasm) }

// squareGo returns the guest in Go.
func squareGo(t testing.TB) []byte {
	t.Helper()
	wasm, err := goSquare()
	if err != nil {
		t.Skip("no guest in Go:", err)
	}
	return wasm
}

var goSquare = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "wasm-jobs")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "square.wasm")
	build := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", out, "../guest-examples/square/go")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
	if output, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, output)
	}
	return os.ReadFile(out)
})

func TestCall(t *testing.T) {
	g := open(t, squareWat(t), host.Options{})
	var outputs [][]byte
	for n := range uint64(10) {
		out, err := g.Call(t.Context(), number(n))
		if err != nil {
			t.Fatal(err)
		}
		outputs = append(outputs, out)
	}
	for n, out := range outputs { // outputs belong to the caller
		if want := number(uint64(n * n)); !bytes.Equal(out, want) {
			t.Errorf("the square of %d is %x, want %x", n, out, want)
		}
	}
	if s := g.Stats(); s.Created != 1 {
		t.Errorf("one caller used %d instances", s.Created)
	}
}

func TestCallFails(t *testing.T) {
	g := open(t, squareWat(t), host.Options{})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	for _, tt := range []struct {
		name  string
		ctx   context.Context
		input string
		is    error
		class abi.Class
	}{
		{"no input", t.Context(), "", host.ErrInput, ""},
		{"a truncated item", t.Context(), "\x19\x01", host.ErrInput, ""},
		{"two items", t.Context(), "\x01\x02", host.ErrInput, ""},
		{"a text", t.Context(), "\x61x", nil, abi.ClassGuest},
		{"after ctx was cancelled", ended, "\x02", context.Canceled, ""},
		{"after a deadline", late, "\x02", context.DeadlineExceeded, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := g.Call(tt.ctx, []byte(tt.input))
			failure, failed := errors.AsType[*abi.Failure](err)
			if out != nil || err == nil || tt.is != nil && !errors.Is(err, tt.is) || failed != (tt.class != "") || failed && failure.Class != tt.class {
				t.Errorf("%x, error %v", out, err)
			}
		})
	}
	if out, err := g.Call(t.Context(), number(3)); err != nil || !bytes.Equal(out, number(9)) {
		t.Errorf("after failures: %x, %v", out, err)
	}
}

// A guest that loops is stopped by the deadline of its caller.
func TestCallDeadline(t *testing.T) {
	g := open(t, readFile(t, "../guest-examples/faulty/c/faulty.wasm"), host.Options{Workers: 1})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := g.Call(ctx, []byte("\xa1\x62do\x64loop")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if _, err := g.Call(t.Context(), number(2)); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	isRefused := func(err error) bool { _, ok := errors.AsType[*runtime.RefusedError](err); return ok }
	isInit := func(err error) bool { _, ok := errors.AsType[*runtime.InitError](err); return ok }
	says := func(text string) func(error) bool {
		return func(err error) bool { return err != nil && bytes.Contains([]byte(err.Error()), []byte(text)) }
	}
	before := linear.Live()
	for _, tt := range []struct {
		name   string
		ctx    context.Context
		module []byte
		o      host.Options
		want   func(error) bool
	}{
		{"no module", t.Context(), nil, host.Options{}, isRefused},
		{"no WebAssembly", t.Context(), []byte("PK"), host.Options{}, isRefused},
		{"a context without setup", t.Context(), squareWat(t), host.Options{Settings: runtime.Settings{Context: number(1)}}, isRefused},
		{"setup fails", t.Context(), readFile(t, "../testdata/wasm/setup-fails.wasm"), host.Options{}, isInit},
		{"setup loops", t.Context(), readFile(t, "../testdata/wasm/setup-loops.wasm"), host.Options{Settings: runtime.Settings{FoldTimeout: 1}}, isInit},
		{"ctx has ended", ended, squareWat(t), host.Options{}, func(err error) bool { return errors.Is(err, context.Canceled) }},
		{"workers", t.Context(), squareWat(t), host.Options{Workers: -1}, says("Options.Workers is -1, want 0 to 4096")},
		{"very many workers", t.Context(), squareWat(t), host.Options{Workers: math.MaxInt}, says("Workers is 9223372036854775807, want 0 to 4096")},
		{"context", t.Context(), squareWat(t), host.Options{Settings: runtime.Settings{Context: []byte{0x19}}}, says("Options.Settings.Context is not one CBOR item: ")},
		{"isolation", t.Context(), squareWat(t), host.Options{Settings: runtime.Settings{Isolation: runtime.IsolationNone}}, says(`Options.Settings.Isolation "none": want reset or instance`)},
		{"two engines", t.Context(), squareWat(t), host.Options{Engine: squares(), CacheDir: "x"}, says("want only one of them")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, err := host.Open(tt.ctx, tt.module, tt.o)
			if g != nil || !tt.want(err) {
				t.Errorf("guest %v, error %v", g, err)
			}
		})
	}
	if live := linear.Live(); live != before {
		t.Errorf("%d memories are left", live-before)
	}
}

func TestClose(t *testing.T) {
	g := open(t, squareWat(t), host.Options{})
	if _, err := g.Call(t.Context(), number(2)); err != nil {
		t.Fatal(err)
	}
	closeGuest(t, g)
	closeGuest(t, g) // again
	if out, err := g.Call(t.Context(), number(2)); out != nil || !errors.Is(err, host.ErrClosed) {
		t.Errorf("after Close: %x, %v", out, err)
	}
}

// A module is compiled once for an engine, which stays open.
func TestOpenSharesEngine(t *testing.T) {
	engine := newEngine(t)
	wasm := squareWat(t)
	for range 2 {
		g := open(t, wasm, host.Options{Engine: engine})
		if _, err := g.Call(t.Context(), number(2)); err != nil {
			t.Fatal(err)
		}
		closeGuest(t, g)
	}
	m, err := engine.Admit(t.Context(), wasm, runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Compile(ended); err != nil { // only returns nil if it is compiled already
		t.Errorf("compiling again: %v", err)
	}
}

// The settings are those of each call.
func TestOpenSettings(t *testing.T) {
	wasm := readFile(t, "../testdata/wasm/context.wasm") // returns its context
	g := open(t, wasm, host.Options{Settings: runtime.Settings{Context: []byte("\x63abc")}})
	if out, err := g.Call(t.Context(), number(1)); err != nil || string(out) != "\x63abc" {
		t.Errorf("%x, error %v", out, err)
	}
	g = open(t, wasm, host.Options{Settings: runtime.Settings{Context: []byte("\x63abc"), MaxOutput: 3}})
	_, err := g.Call(t.Context(), number(1))
	if failure, ok := errors.AsType[*abi.Failure](err); !ok || failure.Class != abi.ClassABI {
		t.Errorf("beyond the limit of outputs: error %v", err)
	}
}

func TestOpenLog(t *testing.T) {
	var lines []string
	g := open(t, readFile(t, "../guest-examples/faulty/c/faulty.wasm"), host.Options{
		Log: func(level int32, line string) { lines = append(lines, fmt.Sprint(level, " ", line)) },
	})
	if _, err := g.Call(t.Context(), []byte("\xa2\x62do\x63log\x65level\x04")); err != nil {
		t.Fatal(err)
	}
	if want := []string{"4 line 1"}; !slices.Equal(lines, want) {
		t.Errorf("logged %q, want %q", lines, want)
	}
}

// sleeper is a guest that takes as many seconds as its input says. It records
// the maximum number of calls at once.
type sleeper struct {
	fake
	mu            sync.Mutex
	running, most int
	served        []uint64
}

func newSleeper() *sleeper {
	s := &sleeper{}
	s.exec = func(chunk []byte, _ int) ([]byte, error) {
		n := numberOf(chunk)
		s.mu.Lock()
		s.running++
		s.most = max(s.most, s.running)
		s.served = append(s.served, n)
		s.mu.Unlock()
		time.Sleep(time.Duration(n) * time.Second)
		s.mu.Lock()
		s.running--
		s.mu.Unlock()
		return bytes.Clone(chunk), nil // the content at this moment
	}
	return s
}

func openFake(t *testing.T, engine host.Engine, workers int) *host.Guest {
	t.Helper()
	g, err := host.Open(t.Context(), fakeWasm, host.Options{Engine: engine, Workers: workers})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestCallsAreServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSleeper()
		g := openFake(t, s, 1)
		var all sync.WaitGroup
		var want []uint64
		for n := uint64(30); n > 20; n-- {
			want = append(want, n)
			all.Go(func() {
				if _, err := g.Call(t.Context(), number(n)); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		all.Wait()
		if !slices.Equal(s.served, want) {
			t.Errorf("served in the order %v, want %v", s.served, want)
		}
		closeGuest(t, g)
		s.checkTeardown(t)
	})
}

func TestCallsAreBounded(t *testing.T) {
	for _, workers := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			s := newSleeper()
			g := openFake(t, s, workers)
			var all sync.WaitGroup
			for n := range uint64(20) {
				all.Go(func() {
					if _, err := g.Call(t.Context(), number(n%4)); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if s.most != workers {
				t.Errorf("%d calls ran at once, want %d", s.most, workers)
			}
			if n := s.leased.Load(); n > int64(workers) {
				t.Errorf("%d instances were borrowed, want at most %d", n, workers)
			}
			closeGuest(t, g)
			s.checkTeardown(t)
		})
	}
}

// A caller that gives up waiting leaves the order of the others unchanged.
func TestCallGivesUpWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSleeper()
		g := openFake(t, s, 1)
		var all sync.WaitGroup
		call := func(ctx context.Context, n uint64, want error) {
			all.Go(func() {
				if _, err := g.Call(ctx, number(n)); !errors.Is(err, want) {
					t.Errorf("call %d: error %v, want %v", n, err, want)
				}
			})
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		call(t.Context(), 10, nil)
		call(ctx, 1, context.DeadlineExceeded)
		call(t.Context(), 2, nil)
		call(ctx, 3, context.DeadlineExceeded)
		call(t.Context(), 4, nil)
		all.Wait()
		if want := []uint64{10, 2, 4}; !slices.Equal(s.served, want) {
			t.Errorf("served %v, want %v", s.served, want)
		}
		closeGuest(t, g)
	})
}

// Close rejects waiting calls, and waits for the running call.
func TestCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSleeper()
		g := openFake(t, s, 1)
		began := time.Now()
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := g.Call(t.Context(), number(10)); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		for range 3 {
			all.Go(func() {
				if _, err := g.Call(t.Context(), number(1)); !errors.Is(err, host.ErrClosed) || time.Since(began) != 0 {
					t.Errorf("error %v after %v", err, time.Since(began))
				}
			})
		}
		synctest.Wait()
		for range 2 {
			all.Go(func() {
				closeGuest(t, g)
				if took := time.Since(began); took != 10*time.Second {
					t.Errorf("Close returned after %v", took)
				}
			})
		}
		all.Wait()
		s.checkTeardown(t)
	})
}
