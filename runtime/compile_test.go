package runtime_test

import (
	"context"
	"errors"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// held is a compilation that waits until it is released.
type held struct {
	started, release chan struct{}
}

func hold(t *testing.T) held {
	h := held{make(chan struct{}, 10), make(chan struct{})}
	t.Cleanup(runtime.HoldCompilations(func() {
		h.started <- struct{}{}
		<-h.release
	}))
	return h
}

func admit(t *testing.T, r *runtime.Runtime, name string) *runtime.Module {
	t.Helper()
	m, err := r.Admit(t.Context(), wasmFile(t, name), runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestCompilingIsGivenUp ends the context of a compilation that the engine does
// not stop. The caller returns at once, other compilations are not blocked, and
// later callers get a compiled module.
func TestCompilingIsGivenUp(t *testing.T) {
	h := hold(t)
	r := newRuntime(t, runtime.Config{})
	m := admit(t, r, "echo")
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() { first <- m.Compile(ctx) }()
	<-h.started
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Fatalf("%v, want the end of the context", err)
	}
	other := admit(t, r, "counter") // does not wait
	second, third := make(chan error), make(chan error)
	go func() { second <- m.Compile(t.Context()) }()
	go func() { third <- other.Compile(t.Context()) }()
	ended, end := context.WithCancel(t.Context())
	end()
	if err := m.Compile(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	close(h.release)
	for _, result := range []chan error{second, third} {
		if err := <-result; err != nil {
			t.Error(err)
		}
	}
	if err := m.Compile(ended); err != nil {
		t.Errorf("once it is compiled: %v", err)
	}
}

// TestCloseWaitsForCompilations closes a runtime during a compilation that all
// callers have left.
func TestCloseWaitsForCompilations(t *testing.T) {
	h := hold(t)
	r, err := runtime.New(t.Context(), runtime.Config{})
	if err != nil {
		t.Fatal(err)
	}
	m := admit(t, r, "echo")
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() { first <- m.Compile(ctx) }()
	<-h.started
	cancel()
	<-first
	if err := r.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("closing while it compiles, with a context that has ended: %v", err)
	}
	if err := m.Compile(t.Context()); !errors.Is(err, runtime.ErrClosed) {
		t.Errorf("compiling after that: %v", err)
	}
	close(h.release)
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestCloseEndsWaiting closes a runtime while a caller waits for a compilation.
func TestCloseEndsWaiting(t *testing.T) {
	h := hold(t)
	r, err := runtime.New(t.Context(), runtime.Config{})
	if err != nil {
		t.Fatal(err)
	}
	m := admit(t, r, "echo")
	first, closed := make(chan error), make(chan error)
	go func() { first <- m.Compile(t.Context()) }()
	<-h.started
	go func() { closed <- r.Close(t.Context()) }()
	close(h.release)
	if err := <-first; err != nil && !errors.Is(err, runtime.ErrClosed) {
		t.Error(err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
