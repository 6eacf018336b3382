package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/tetratelabs/wazero"

	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// side is one way to run chunks.
type side struct {
	name     string
	about    string
	open     opener
	launches bool // it starts a process for each chunk
}

type opener = func(ctx context.Context, w *work) (runner, error)

func inProcess(name, about string, open opener) side {
	return side{name: name, about: about, open: open}
}

func launching(name, about string, open opener) side {
	return side{name: name, about: about, open: open, launches: true}
}

// runner runs the chunk of a work repeatedly. It belongs to one goroutine.
type runner interface {
	// run runs the chunk n times, one after the other, and returns the last
	// output, which is valid until the next call.
	run(ctx context.Context, n int) ([]byte, error)
	close() error
}

// unavailable is the reason why a side cannot run here, or cannot run this kernel.
type unavailable string

func (u unavailable) Error() string { return string(u) }

// work is a kernel with its modules, which a side is opened for.
type work struct {
	kernel
	modules
	want  []byte // the right output
	tools *tools
}

// base is the side that all others are compared with.
const base = "ours"

// sides returns all of them, in the order of the tables.
func sides() []side {
	all := []side{
		inProcess("native", "a Go function with the guest's algorithm, no sandbox", openNative),
		inProcess("native-std", "a Go function that uses the standard library (crypto/sha256, a map), no sandbox", openStandard),
		inProcess(base, "our runtime: reset before each call, metered, with limits of fuel and time", openOurs(ours{})),
		inProcess("ours-unmetered", "our runtime: reset before each call, without metering", openOurs(ours{unmetered: true})),
		inProcess("ours-reused", "our runtime: metered, but without a reset, so that state leaks from call to call", openOurs(ours{reused: true})),
		inProcess("wazero-new", "plain wazero, a new instance for each call, which cannot be interrupted", openWazero(false)),
		inProcess("wazero-new-timeout", "the same with WithCloseOnContextDone and a timeout for each call", openWazero(true)),
		inProcess("extism-reused", "Extism's Go SDK, one plugin for all calls, without a timeout: state leaks", openExtismReused),
		inProcess("extism-new", "Extism's Go SDK, a plugin compiled once, a new instance for each call, without a timeout", openExtismNew),
		inProcess("wapc-new", "wapc-go on wazero", openWapc),
	}
	return append(append(all, wasmtimeSides()...), processSides()...)
}

// tools are shared by the sides. close frees them and removes the files.
type tools struct {
	dir     string                  // for guests, binaries and chunks
	runtime *runtime.Runtime        // for ours
	cache   wazero.CompilationCache // for plain wazero and Extism
	made    map[string]any          // results of once by key
	free    []func() error          // for the results of once
}

func newTools(ctx context.Context) (*tools, error) {
	dir, err := os.MkdirTemp("", "wasm-jobs-bench")
	if err != nil {
		return nil, err
	}
	t := &tools{dir: dir, cache: wazero.NewCompilationCache(), made: map[string]any{}}
	if t.runtime, err = runtime.New(ctx, runtime.Config{}); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (t *tools) close() (err error) {
	for _, free := range t.free {
		err = errors.Join(err, free())
	}
	if t.runtime != nil {
		err = errors.Join(err, t.runtime.Close(context.Background()))
	}
	return errors.Join(err, t.cache.Close(context.Background()), os.RemoveAll(t.dir))
}

// once calls make for a new key, and returns the first result for a known one:
// compiling a guest in Go takes seconds. close calls free, which may be nil.
func once[T any](t *tools, key string, make func() (made T, free func() error, err error)) (T, error) {
	if made, known := t.made[key].(T); known {
		return made, nil
	}
	made, free, err := make()
	if err == nil {
		t.made[key] = made
	}
	if free != nil {
		t.free = append(t.free, free)
	}
	return made, err
}

// binary builds a command and returns its path.
func (t *tools) binary(ctx context.Context, pkg string) (string, error) {
	return once(t, pkg, func() (string, func() error, error) {
		path := filepath.Join(t.dir, "bin", filepath.Base(pkg))                            // the command has its cache elsewhere
		return path, nil, goBuild(ctx, path, pkg, []string{"-tags", "urfave_cli_no_docs"}) // as make build does
	})
}

// opened is a side that was opened for a work, or the reason why it cannot run.
type opened struct {
	side   side
	runner runner
	reason error
}

// openAll opens sides and compares the first output of each with the right one. A side
// that is unavailable gets its reason; any other error ends openAll.
func openAll(ctx context.Context, all []side, w *work) (sides []opened, err error) {
	for _, s := range all {
		r, err := s.open(ctx, w)
		if _, missing := errors.AsType[unavailable](err); missing {
			sides = append(sides, opened{side: s, reason: err})
			continue
		}
		if err != nil {
			return sides, fmt.Errorf("%s, side %s: %w", w.name, s.name, err)
		}
		sides = append(sides, opened{side: s, runner: r})
		if err := check(ctx, r, w, 3); err != nil {
			return sides, fmt.Errorf("%s, side %s: %w", w.name, s.name, err)
		}
	}
	return sides, nil
}

func closeAll(sides []opened) (err error) {
	for _, s := range sides {
		if s.runner != nil {
			err = errors.Join(err, s.runner.close())
		}
	}
	return err
}

// check runs the chunk n times and compares the last output.
func check(ctx context.Context, r runner, w *work, n int) error {
	got, err := r.run(ctx, n)
	if err != nil {
		return err
	}
	return w.same(got)
}

func (w *work) same(got []byte) error {
	if bytes.Equal(got, w.want) {
		return nil
	}
	at := 0
	for at < len(got) && at < len(w.want) && got[at] == w.want[at] {
		at++
	}
	return fmt.Errorf("output of %d bytes differs from the Go function's, of %d bytes, at byte %d", len(got), len(w.want), at)
}

// newWork prepares a kernel. Its Go function computes want.
func newWork(ctx context.Context, k kernel, t *tools) (*work, error) {
	m, err := guestOf(ctx, k.guest, t.dir)
	if err != nil {
		return nil, err
	}
	want, err := k.native(k.chunk)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.name, err)
	}
	return &work{kernel: k, modules: m, want: want, tools: t}, nil
}

// native runs a function of Go.
type native struct {
	function func([]byte) ([]byte, error)
	chunk    []byte
}

func openNative(_ context.Context, w *work) (runner, error) {
	return &native{w.native, w.chunk}, nil
}

func openStandard(_ context.Context, w *work) (runner, error) {
	if w.standard == nil {
		return nil, unavailable("for " + w.guest + ", the standard library has nothing that side native does not use")
	}
	return &native{w.standard, w.chunk}, nil
}

func (r *native) run(_ context.Context, n int) (output []byte, err error) {
	for range n {
		if output, err = r.function(r.chunk); err != nil {
			return nil, err
		}
	}
	return output, nil
}

func (r *native) close() error { return nil }

// openWapc returns the reason why waPC is not measured.
func openWapc(context.Context, *work) (runner, error) {
	return nil, unavailable("github.com/wapc/wapc-go was not available from the module proxy when this was written")
}

// lastLine returns the last line of a command's output.
func lastLine(output []byte) string {
	lines := bytes.Split(bytes.TrimSpace(output), []byte("\n"))
	return string(lines[len(lines)-1])
}

// have returns an error if a command is not installed.
func have(name string) error {
	if _, err := exec.LookPath(name); err != nil {
		return unavailable(name + " is not installed")
	}
	return nil
}
