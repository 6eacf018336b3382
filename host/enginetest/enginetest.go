// Package enginetest is the test suite of engines: the one over package runtime,
// and the replacements that tests use.
//
//	func TestEngine(t *testing.T) {
//		enginetest.Run(t, wasm, func(t *testing.T) enginetest.Engine { ... })
//	}
//
// Its interfaces have the methods of the interfaces in package host, which it does
// not import.
package enginetest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Engine admits modules, like host.Engine.
type Engine interface {
	Admit(ctx context.Context, wasm []byte, o runtime.Options) (Module, error)
	Close(ctx context.Context) error
}

// Module is an admitted module, like host.Module.
type Module interface {
	Exports(function string) bool
	Fits(s runtime.Settings) error
	Compile(ctx context.Context) error
	Prepare(ctx context.Context, s runtime.Settings) (Pool, error)
}

// Pool lends instances, like host.Pool.
type Pool interface {
	Borrow(log runtime.Log) Instance
	Isolation() runtime.Isolation
	Stats() runtime.Stats
	Close() error
}

// Instance calls the guest, like host.Instance.
type Instance interface {
	Call(ctx context.Context, function string, input, dst []byte) (output []byte, fuel uint64, err error)
	Release()
}

// Run tests the properties of an engine that package host relies on. wasm is a
// guest that squares unsigned integers, fails for texts, and whose aggregate is the
// sum of all outputs. open returns a new engine for each test.
func Run(t *testing.T, wasm []byte, open func(t *testing.T) Engine) {
	for _, tt := range []struct {
		name string
		test func(t *testing.T, m Module)
	}{
		{"Exports", testExports},
		{"Call", testCall},
		{"Dst", testDst},
		{"Failure", testFailure},
		{"FreshState", testFreshState},
		{"CancelledPrepare", testCancelledPrepare},
		{"CancelledCall", testCancelledCall},
		{"AtOnce", testAtOnce},
		{"TearDown", testTearDown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := open(t)
			defer func() {
				if err := e.Close(context.Background()); err != nil {
					t.Errorf("Close: %v", err)
				}
			}()
			m, err := e.Admit(t.Context(), wasm, runtime.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(m.Fits(runtime.Settings{}), m.Compile(t.Context()), m.Compile(t.Context())); err != nil {
				t.Fatal(err)
			}
			tt.test(t, m)
		})
	}
}

// prepare returns a pool that is closed at the end of the test, when every instance
// that it made must be closed.
func prepare(t *testing.T, m Module) Pool {
	t.Helper()
	p, err := m.Prepare(t.Context(), runtime.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if s := p.Stats(); s.Created == 0 || s.Created != s.Closed {
			t.Errorf("%d instances created and %d closed", s.Created, s.Closed)
		}
	})
	return p
}

func number(n uint64) []byte { return abi.AppendHead(nil, abi.MajorUint, n) }

// square calls exec and checks the square.
func square(t *testing.T, i Instance, n uint64) (fuel uint64) {
	t.Helper()
	output, fuel, err := i.Call(t.Context(), abi.ExportExec, number(n), nil)
	if err != nil || !bytes.Equal(output, number(n*n)) {
		t.Errorf("the square of %d is %x, %v", n, output, err)
	}
	return fuel
}

func testExports(t *testing.T, m Module) {
	for function, want := range map[string]bool{abi.ExportExec: true, abi.ExportAggregate: true, abi.ExportSetup: false, "": false} {
		if got := m.Exports(function); got != want {
			t.Errorf("Exports(%q) is %t", function, got)
		}
	}
}

func testCall(t *testing.T, m Module) {
	p := prepare(t, m)
	i := p.Borrow(nil)
	defer i.Release()
	square(t, i, 12)
	entries := abi.AppendHead(nil, abi.MajorArray, 2)
	entries = abi.AppendEntry(entries, abi.IntID(0), number(4))
	entries = abi.AppendEntry(entries, abi.TextID("a"), number(9))
	if sum, _, err := i.Call(t.Context(), abi.ExportAggregate, entries, nil); err != nil || !bytes.Equal(sum, number(13)) {
		t.Errorf("aggregate: %x, %v", sum, err)
	}
	if p.Isolation() != runtime.IsolationReset && p.Isolation() != runtime.IsolationInstance {
		t.Errorf("isolation is %q", p.Isolation())
	}
}

// The output is appended to dst, in its array if there is room, and belongs to the
// caller: later calls do not change it. The input is only read.
func testDst(t *testing.T, m Module) {
	i := prepare(t, m).Borrow(nil)
	defer i.Release()
	dst := append(make([]byte, 0, 64), "before"...)
	input := number(7)
	output, _, err := i.Call(t.Context(), abi.ExportExec, input, dst)
	want := append([]byte("before"), number(49)...)
	if err != nil || !bytes.Equal(output, want) || &output[0] != &dst[0] || !bytes.Equal(input, number(7)) {
		t.Errorf("appended: %x, %v", output, err)
	}
	square(t, i, 3)
	if !bytes.Equal(output, want) {
		t.Errorf("the output is %x after another call", output)
	}
}

// A failure of the guest is an *abi.Failure, and the instance can be called again.
func testFailure(t *testing.T, m Module) {
	i := prepare(t, m).Borrow(nil)
	defer i.Release()
	dst := append(make([]byte, 0, 64), "before"...)
	output, _, err := i.Call(t.Context(), abi.ExportExec, abi.AppendText(nil, "x"), dst)
	failure, ok := errors.AsType[*abi.Failure](err)
	if !ok || failure.Class != abi.ClassGuest || len(output) > len(dst) || string(dst) != "before" {
		t.Errorf("got %x, %v", output, err)
	}
	square(t, i, 5)
}

// The same call has the same result, whatever ran before.
func testFreshState(t *testing.T, m Module) {
	i := prepare(t, m).Borrow(nil)
	defer i.Release()
	first := square(t, i, 9)
	for n := range uint64(20) {
		square(t, i, n)
	}
	if again := square(t, i, 9); again != first {
		t.Errorf("took %d fuel at first, and %d again", first, again)
	}
}

func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// If there is little to do, the end of a context may go unnoticed; otherwise the
// error is the context's own, and no later call is affected.
func testCancelledPrepare(t *testing.T, m Module) {
	p, err := m.Prepare(cancelled(), runtime.Settings{})
	if err == nil {
		err = p.Close()
	} else if errors.Is(err, context.Canceled) {
		err = nil
	}
	if err != nil {
		t.Errorf("got %v", err)
	}
	i := prepare(t, m).Borrow(nil)
	defer i.Release()
	square(t, i, 5)
}

// The end of the context is not a failure of the guest.
func testCancelledCall(t *testing.T, m Module) {
	i := prepare(t, m).Borrow(nil)
	defer i.Release()
	_, _, err := i.Call(cancelled(), abi.ExportExec, number(2), nil)
	if _, failed := errors.AsType[*abi.Failure](err); failed || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	square(t, i, 5)
}

func testAtOnce(t *testing.T, m Module) {
	p := prepare(t, m)
	var wait sync.WaitGroup
	for worker := range uint64(4) {
		wait.Go(func() {
			i := p.Borrow(nil)
			defer i.Release()
			for n := range uint64(25) {
				square(t, i, 100*worker+n)
			}
		})
	}
	wait.Wait()
}

// A released instance is lent again or closed; each one is closed once.
func testTearDown(t *testing.T, m Module) {
	p := prepare(t, m)
	for range 3 {
		a, b := p.Borrow(nil), p.Borrow(nil)
		square(t, a, 2)
		square(t, b, 3)
		a.Release()
		b.Release()
		p.Borrow(nil).Release() // an instance without a call
	}
	if s := p.Stats(); s.Closed > s.Created {
		t.Errorf("%d instances created and %d closed", s.Created, s.Closed)
	}
}
