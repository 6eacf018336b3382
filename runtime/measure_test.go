package runtime_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func testdata(t testing.TB, name string) []byte { return readFile(t, filepath.Join("testdata", name)) }

func squareC(t testing.TB) []byte { return readFile(t, "../guest-examples/square/c/square.wasm") }

// goSquare returns the guest in Go, built once.
var goSquare = sync.OnceValues(func() ([]byte, error) { return buildGo("../guest-examples/square/go") })

// goGuest returns a guest with parts of Go's standard library, built once.
var goGuest = sync.OnceValues(func() ([]byte, error) { return buildGo("./testdata/goguest") })

// buildGo builds a package as a guest. Arguments before it override the flags here; -C
// must come first.
func buildGo(arguments ...string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "wasm-jobs")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "square.wasm")
	command := []string{"build"}
	if arguments[0] == "-C" {
		command, arguments = append(command, arguments[:2]...), arguments[2:]
	}
	command = append(command, "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", out)
	build := exec.Command("go", append(command, arguments...)...)
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
	if output, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, output)
	}
	return os.ReadFile(out)
}

func squareGo(t testing.TB) []byte {
	t.Helper()
	wasm, err := goSquare()
	if err != nil {
		t.Skip("no guest in Go:", err)
	}
	return wasm
}

// poolOf is prepare with options.
func poolOf(t testing.TB, wasm []byte, o runtime.Options, s runtime.Settings) *runtime.Pool {
	t.Helper()
	m, err := newRuntime(t, runtime.Config{}).Compile(t.Context(), wasm, o)
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Prepare(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// call runs one chunk repeatedly on its own instance.
type call struct {
	t        testing.TB
	ctx      context.Context
	instance *runtime.Instance
	chunk    []byte
	output   []byte
	reuse    bool     // without a reset, except before the first of each run
	_        [64]byte // keeps other callers off the cache line that each call writes
}

func caller(t testing.TB, p *runtime.Pool, chunk []byte, reuse bool) *call {
	// A context that can end, as in a host.
	c := &call{t: t, ctx: t.Context(), instance: p.Borrow(nil), chunk: chunk, reuse: reuse}
	t.Cleanup(c.instance.Release)
	c.run(1)
	return c
}

func (c *call) run(n int) {
	for i := range n {
		if c.reuse && i > 0 {
			c.instance.Reuse()
		}
		var err error
		if c.output, _, err = c.instance.Call(c.ctx, abi.ExportExec, c.chunk, c.output[:0]); err != nil {
			c.t.Error(err)
			return
		}
	}
}

// pair returns a caller for each of two goroutines.
func pair(t testing.TB, p *runtime.Pool, chunk []byte) [2]func(int) {
	return [2]func(int){caller(t, p, chunk, false).run, caller(t, p, chunk, false).run}
}

func together(f, g func(int), n int) {
	var wait sync.WaitGroup
	wait.Go(func() { f(n) })
	g(n)
	wait.Wait()
}

// native computes for about 0.5 ms, independent of the speed of memory.
func native(n int) {
	x := uint64(n) | 1
	for range n * 250_000 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	if x == 0 {
		panic("the compiler must keep the loop")
	}
}

// plain is an unchanged module on unchanged wazero.
type plain struct {
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
}

func newPlain(t testing.TB, wasm []byte, closeOnDone bool) *plain {
	t.Helper()
	ctx := t.Context()
	p := &plain{runtime: wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCloseOnContextDone(closeOnDone))}
	t.Cleanup(func() { _ = p.runtime.Close(context.Background()) })
	wasi_snapshot_preview1.MustInstantiate(ctx, p.runtime)
	own := p.runtime.NewHostModuleBuilder(abi.ImportModule)
	never := api.GoModuleFunc(func(context.Context, api.Module, []uint64) { panic("called") })
	i32 := api.ValueTypeI32
	for _, name := range []string{abi.ImportFail, abi.ImportLog} {
		own.NewFunctionBuilder().WithGoModuleFunction(never, []api.ValueType{i32, i32, i32}, nil).Export(name)
	}
	if _, err := own.Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.compiled, err = p.runtime.CompileModule(ctx, wasm); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *plain) instantiate(t testing.TB) api.Module {
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions(abi.ExportInitialize)
	m, err := p.runtime.InstantiateModule(t.Context(), p.compiled, config)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// callPlain makes one call like ours, and checks the output.
func callPlain(t testing.TB, m api.Module, alloc, exec api.Function, chunk []byte) {
	stack := [2]uint64{uint64(len(chunk))}
	if err := alloc.CallWithStack(t.Context(), stack[:]); err != nil {
		t.Fatal(err)
	}
	m.Memory().Write(uint32(stack[0]), chunk)
	stack[1] = uint64(len(chunk))
	if err := exec.CallWithStack(t.Context(), stack[:]); err != nil {
		t.Fatal(err)
	}
	if output, ok := m.Memory().Read(abi.Unpack(stack[0])); !ok || abi.CheckItem(output) != nil {
		t.Fatalf("output %x", output)
	}
}

// renew runs the chunk on a new instance each time.
func (p *plain) renew(t testing.TB, chunk []byte) func(n int) {
	return func(n int) {
		for range n {
			m := p.instantiate(t)
			callPlain(t, m, m.ExportedFunction(abi.ExportAlloc), m.ExportedFunction(abi.ExportExec), chunk)
			_ = m.Close(t.Context())
		}
	}
}

// reuse runs the chunk on one instance.
func (p *plain) reuse(t testing.TB, chunk []byte) func(n int) {
	m := p.instantiate(t)
	alloc, exec := m.ExportedFunction(abi.ExportAlloc), m.ExportedFunction(abi.ExportExec)
	return func(n int) {
		for range n {
			callPlain(t, m, alloc, exec, chunk)
		}
	}
}

// side is one of the compared ways to do the same thing.
type side struct {
	name  string
	batch int // calls in a round
	run   func(n int)
	least float64 // minimum ratio of its time to the first side's
}

// measure returns the processor times of a call on each side, round by round.
// All sides run in each round, each time starting with another one.
func measure(rounds int, sides []side) [][]time.Duration {
	times := make([][]time.Duration, len(sides))
	for r := range rounds {
		for n := range sides {
			i := (n + r) % len(sides)
			s := sides[i]
			s.run(1) // warm the caches, and include a reset if the others have none
			times[i] = append(times[i], onThread(func() { s.run(s.batch) })/time.Duration(s.batch))
		}
	}
	return times
}

// ratios divides the times of two sides, round by round.
func ratios(of, to []time.Duration) []float64 {
	all := make([]float64, len(of))
	for r := range all {
		all[r] = float64(of[r]) / float64(to[r])
	}
	return all
}

// onThread returns the processor time that a function takes on this thread.
func onThread(f func()) time.Duration {
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	start := threadTime()
	f()
	return threadTime() - start
}

func timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

func quartile[T cmp.Ordered](all []T, n int) T {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[n*(len(sorted)-1)/4]
}

// spread formats the median and, in parentheses, the first and third quartile;
// times are in microseconds.
func spread[T time.Duration | float64](all []T) string {
	show := func(n int) string {
		if d, ok := any(quartile(all, n)).(time.Duration); ok {
			return fmt.Sprintf("%.3g", d.Seconds()*1e6)
		}
		return fmt.Sprintf("%.2f", float64(quartile(all, n)))
	}
	return fmt.Sprintf("%s (%s-%s)", show(2), show(1), show(3))
}

// table aligns rows of cells.
type table struct {
	text   strings.Builder
	writer *tabwriter.Writer
}

func newTable(head ...string) *table {
	t := &table{}
	t.writer = tabwriter.NewWriter(&t.text, 0, 0, 2, ' ', 0)
	t.row(head...)
	return t
}

func (t *table) row(cells ...string) { fmt.Fprintln(t.writer, strings.Join(cells, "\t")) }

func (t *table) log(tb testing.TB) {
	_ = t.writer.Flush() // to memory
	tb.Log("\n" + t.text.String())
}
