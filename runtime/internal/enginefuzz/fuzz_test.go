package enginefuzz

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

var (
	modules = flag.Int("modules", 400, "modules to try")
	limit   = flag.Duration("time", 0, "stop after so long (0: when all modules are tried)")
	first   = flag.Uint64("first", 4300, "seed of the first module")
	raw     = flag.Bool("raw", false, "give the compiler modules as they are, not as they are rewritten")
	keep    = flag.String("keep", "", "directory for the modules that differ, reduced")
)

// bench has everything that modules are tried on.
type bench struct {
	compiler, interpreter *engine
	node                  *node
}

func newBench(t testing.TB) *bench {
	b := &bench{newEngine("compiler", wazero.NewRuntimeConfigCompiler), newEngine("interpreter", wazero.NewRuntimeConfigInterpreter), startNode(t)}
	t.Cleanup(func() { b.compiler.close(t.Context()); b.interpreter.close(t.Context()) })
	return b
}

// variant is one way to run a module.
type variant struct {
	name   string
	engine func(*bench, context.Context, []byte) (answer, error)
	change *rewrite.Options // nil: the module is not rewritten
	exact  bool             // only if NaNs are the same on all engines
	onV8   bool
}

func compiled(b *bench, ctx context.Context, wasm []byte) (answer, error) {
	return b.compiler.run(ctx, wasm)
}
func interpreted(b *bench, ctx context.Context, wasm []byte) (answer, error) {
	return b.interpreter.run(ctx, wasm)
}
func onV8(b *bench, _ context.Context, wasm []byte) (answer, error) { return b.node.run(wasm) }

var (
	metered   = &rewrite.Options{Metering: true}
	unmetered = &rewrite.Options{}
	native    = &rewrite.Options{NativeNaNs: true}
	nativeToo = &rewrite.Options{Metering: true, NativeNaNs: true}
)

// variants are compared with the first.
var variants = []variant{
	{name: "interpreted, metered", engine: interpreted, change: metered},
	{name: "compiled, metered", engine: compiled, change: metered},
	{name: "compiled", engine: compiled, change: unmetered},
	{name: "compiled, metered, native NaNs", engine: compiled, change: nativeToo, exact: true},
	{name: "compiled, native NaNs", engine: compiled, change: native, exact: true},
	{name: "interpreted, as it is", engine: interpreted, exact: true},
	{name: "V8, metered", engine: onV8, change: metered, onV8: true},
	{name: "V8, as it is", onV8: true, engine: onV8, exact: true},
}

// rawVariants run modules without the rewriter.
var rawVariants = []variant{
	{name: "interpreted, as it is", engine: interpreted, exact: true},
	{name: "compiled, as it is", engine: compiled, exact: true},
	{name: "V8, as it is", onV8: true, engine: onV8, exact: true},
}

// difference is a difference between two variants of a module.
type difference struct {
	first, second variant
	a, b          answer
}

func (d *difference) String() string {
	return fmt.Sprintf("%s: trap %d, fuel %d, memory %.4x; %s: trap %d, fuel %d, memory %.4x",
		d.first.name, d.a.trap, d.a.fuel, d.a.memory, d.second.name, d.b.trap, d.b.fuel, d.b.memory)
}

// One module in allEvery is tried on all variants. The others are tried on the
// first and on one that is compiled, which half of the time is the default.
const allEvery = 16

var turn = []int{1, 2, 1, 3, 1, 4}

// list returns the variants for the module of a seed.
func (b *bench) list(seed uint64, family family) (list []variant) {
	from := variants
	if *raw {
		from = rawVariants
	}
	if seed%allEvery != 0 {
		one := min(turn[seed%uint64(len(turn))], len(from)-2)
		if from[one].exact && family == anyNaNs {
			one = 1
		}
		return []variant{from[0], from[one]}
	}
	for _, v := range from {
		if (b.node != nil || !v.onV8) && (family != anyNaNs || !v.exact) {
			list = append(list, v)
		}
	}
	return list
}

// try compares the first variant with each of the others.
func (b *bench) try(ctx context.Context, data []byte, list []variant) (*difference, error) {
	wasm, family := generate(data)
	var base answer
	for i, v := range list {
		if v.exact && family == anyNaNs {
			return nil, nil
		}
		a, err := b.answer(ctx, wasm, v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.name, err)
		}
		if i == 0 {
			base = a
		} else if !a.same(base, v) {
			return &difference{list[0], v, base, a}, nil
		}
	}
	return nil, nil
}

// same reports whether an answer equals the answer of the first variant. V8 does
// not say why a conversion trapped.
func (a answer) same(base answer, v variant) bool {
	if v.onV8 && base.trap == trapConversion {
		base.trap = trapOverflow
	}
	counts := v.change != nil && v.change.Metering
	return a.trap == base.trap && a.memory == base.memory && (!counts || a.fuel == base.fuel)
}

func (b *bench) answer(ctx context.Context, wasm []byte, v variant) (answer, error) {
	if v.change != nil {
		var err error
		if wasm, err = rewritten(wasm, *v.change); err != nil {
			return answer{}, err
		}
	}
	return v.engine(b, ctx, wasm)
}

// TestEngines tries random modules. It reduces and reports each module for which
// two engines differ.
func TestEngines(t *testing.T) {
	b := newBench(t)
	if b.node == nil {
		t.Log("node is not installed: modules are not run on V8")
	}
	began, tried, differ := time.Now(), 0, 0
	for seed := *first; tried < *modules && (*limit == 0 || time.Since(began) < *limit); seed++ {
		data := newTape(seed)
		d, err := b.try(t.Context(), data, b.list(seed, familyOf(data)))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if tried++; d != nil {
			differ++
			t.Errorf("seed %d: %v\n%s", seed, d, b.report(t, seed, data, d))
		}
		if tried%10_000 == 0 {
			fmt.Printf("%d modules, %d differences, %v\n", tried, differ, time.Since(began).Round(time.Second))
		}
	}
	t.Logf("%d modules, %d differences, %v", tried, differ, time.Since(began).Round(time.Second))
}

// report reduces a module, and saves it if asked to.
func (b *bench) report(t *testing.T, seed uint64, data []byte, d *difference) string {
	small := b.reduce(t.Context(), data, []variant{d.first, d.second})
	wasm, _ := generate(small)
	if *keep != "" {
		if err := os.WriteFile(fmt.Sprintf("%s/%d.wasm", *keep, seed), wasm, 0o666); err != nil {
			t.Error(err)
		}
	}
	d, _ = b.try(t.Context(), small, []variant{d.first, d.second})
	return fmt.Sprintf("reduced to %d bytes: %v\n%x", len(wasm), d, wasm)
}
