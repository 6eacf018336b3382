package rewrite_test

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

//go:embed testdata/cases.wasm
var casesWasm []byte

// instance returns an instance of a module, unchanged, with a meter and the
// import of the cases.
func instance(t testing.TB, config wazero.RuntimeConfig, wasm []byte) api.Module {
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, config)
	t.Cleanup(func() { r.Close(ctx) })
	serveMeter(t, ctx, r)
	i32 := []api.ValueType{api.ValueTypeI32}
	note := api.GoModuleFunc(func(_ context.Context, _ api.Module, stack []uint64) { stack[0] ^= 1 })
	if _, err := r.NewHostModuleBuilder("host").NewFunctionBuilder().WithGoModuleFunction(note, i32, i32).Export("note").Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	m, err := r.Instantiate(ctx, wasm)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// calls are calls of testdata/cases.wat and kernels.c.
var calls = []struct {
	wasm *[]byte
	name string
	args []uint64
}{
	{&casesWasm, "leaf", []uint64{0, 1}},
	{&casesWasm, "branches", []uint64{0, 1, 2, 3, 7, 8, 100}},
	{&casesWasm, "nested", []uint64{1, 2, 50}},
	{&casesWasm, "deep", []uint64{0, 1, 100}},
	{&casesWasm, "tree", []uint64{0, 8}},
	{&casesWasm, "indirect", []uint64{0, 1, 2, 3}},
	{&casesWasm, "note", []uint64{0, 5}},
	{&casesWasm, "fill", []uint64{0, 31, 32, 65536 - 64, 65537}},
	{&casesWasm, "grow", []uint64{0, 1, 2, 1000, 1<<32 - 1}},
	{&casesWasm, "tables", []uint64{0}},
	{&casesWasm, "tables", []uint64{5}},
	{&casesWasm, "tables", []uint64{1000}},
	{&casesWasm, "globals", []uint64{3}},
	{&kernelsWasm, "empty", []uint64{1000}},
	{&kernelsWasm, "sha256", []uint64{3}},
	{&kernelsWasm, "crc32", []uint64{1}},
	{&kernelsWasm, "sieve", []uint64{1}},
	{&kernelsWasm, "quicksort", []uint64{1}},
	{&kernelsWasm, "fib", []uint64{12}},
	{&kernelsWasm, "wordcount", []uint64{1}},
	{&kernelsWasm, "indirect", []uint64{100}},
	{&kernelsWasm, "matmul", []uint64{1}},
	{&kernelsWasm, "nbody", []uint64{20}},
	{&kernelsWasm, "mandelbrot", []uint64{1}},
	{&kernelsWasm, "montecarlo", []uint64{100}},
}

const unlimited = 1 << 62

// TestFuel checks that results are those of the original, and that the fuel is
// the count of a counter before every instruction, on both engines, for every
// slice.
func TestFuel(t *testing.T) {
	for i, c := range calls {
		if raceEnabled && c.wasm == &kernelsWasm && i%4 != 0 {
			continue
		}
		t.Run(fmt.Sprint(c.name, c.args), func(t *testing.T) {
			m, _ := binary.Parse(*c.wasm)
			naive, err := counted(*c.wasm, m)
			if err != nil {
				t.Fatal(err)
			}
			metered := rewritten(t, *c.wasm, rewrite.Options{Metering: true}).Wasm
			for _, engine := range engines {
				original, counting := instance(t, engine.config(), *c.wasm), instance(t, engine.config(), naive)
				slices := []int64{1, 2, 7, 1000, 1e9}
				if c.wasm == &kernelsWasm {
					slices = []int64{7, 1e9}
				}
				var under []api.Module
				for range slices {
					under = append(under, instance(t, engine.config(), metered))
				}
				for _, arg := range c.args {
					want, failed := original.ExportedFunction(c.name).Call(t.Context(), arg)
					before := int64(counting.ExportedGlobal(countExport).Get())
					counting.ExportedFunction(c.name).Call(t.Context(), arg)
					count := int64(counting.ExportedGlobal(countExport).Get()) - before
					for i, slice := range slices {
						meter := &meter{budget: unlimited, slice: slice}
						got, used, err := meter.call(under[i], c.name, suiteStack, arg)
						if (err == nil) != (failed == nil) || err != nil && kindOf(err) != kindOf(failed) {
							t.Fatalf("%s(%d) on the %s, slice %d: %v, and originally %v", c.name, arg, engine.name, slice, err, failed)
						}
						if err == nil && (got[0] != want[0] || used != count) {
							t.Errorf("%s(%d) on the %s, slice %d: %d for %d units, expected %d for %d", c.name, arg, engine.name, slice, got[0], used, want[0], count)
						}
					}
				}
			}
		})
	}
}

// TestBudget checks that a budget of n succeeds and n-1 fails, for every n at
// which a call can be cut, each time in the state after an earlier failure.
func TestBudget(t *testing.T) {
	for _, engine := range engines {
		mod := instance(t, engine.config(), rewritten(t, casesWasm, rewrite.Options{Metering: true}).Wasm)
		for _, c := range []struct {
			name string
			arg  uint64
		}{{"leaf", 1}, {"branches", 8}, {"nested", 3}, {"deep", 20}, {"tree", 4}, {"indirect", 1}, {"note", 1}, {"fill", 6000}} {
			_, n, err := (&meter{budget: unlimited, slice: 1000}).call(mod, c.name, suiteStack, c.arg)
			if err != nil {
				t.Fatal(err)
			}
			for _, slice := range []int64{1, 7, 1000} {
				for budget := int64(0); budget <= n+1; budget++ {
					_, used, err := (&meter{budget: budget, slice: slice}).call(mod, c.name, suiteStack, c.arg)
					var out *fuelError
					if budget < n && !errors.As(err, &out) || budget >= n && (err != nil || used != n) {
						t.Fatalf("%s on the %s: budget %d of %d, slice %d: used %d, %v", c.name, engine.name, budget, n, slice, used, err)
					}
				}
			}
		}
	}
}

// TestEndless checks that code that runs forever runs out of fuel or stack.
func TestEndless(t *testing.T) {
	for _, engine := range engines {
		mod := instance(t, engine.config(), rewritten(t, casesWasm, rewrite.Options{Metering: true}).Wasm)
		for name, arg := range map[string]uint64{"endless": 0, "endless_fill": 0, "tree": 60, "nested": 1 << 31} {
			_, used, err := (&meter{budget: 1e6, slice: 1e5}).call(mod, name, suiteStack, arg)
			var out *fuelError
			if !errors.As(err, &out) || used > 1e6+10_000 {
				t.Errorf("%s on the %s: used %d, %v", name, engine.name, used, err)
			}
		}
	}
}

// TestStack checks that the maximum depth of calls is the same on both engines,
// whatever the instance did before.
func TestStack(t *testing.T) {
	var limit []int
	for _, engine := range engines {
		mod := instance(t, engine.config(), rewritten(t, casesWasm, rewrite.Options{Metering: true}).Wasm)
		for _, before := range []string{"", "recursion", "tree"} {
			if before != "" {
				(&meter{budget: 1e6, slice: 1e5}).call(mod, before, suiteStack, 10)
			}
			depth := sort.Search(2000, func(depth int) bool {
				_, _, err := (&meter{budget: unlimited, slice: 1e5}).call(mod, "deep", suiteStack, uint64(depth))
				var over *overflowError
				if err != nil && !errors.As(err, &over) {
					t.Fatal(err)
				}
				return err != nil
			})
			limit = append(limit, depth)
		}
	}
	if slices.Min(limit) != slices.Max(limit) || limit[0] < 500 || limit[0] == 2000 {
		t.Errorf("depths %d", limit)
	}
	t.Logf("%d calls deep in %d slots", limit[0], suiteStack)
}

// TestDefaultStack checks that our limit is reached before the compiler's own.
func TestDefaultStack(t *testing.T) {
	mod := instance(t, wazero.NewRuntimeConfigCompiler(), rewritten(t, casesWasm, rewrite.Options{Metering: true}).Wasm)
	_, used, err := (&meter{budget: unlimited, slice: 1e9}).call(mod, "recursion", rewrite.DefaultStack, 0)
	var over *overflowError
	if !errors.As(err, &over) {
		t.Errorf("%v", err)
	}
	t.Logf("%d instructions of recursion", used)
}

// TestLongWaysBack checks that a deep recursion with much code after its call,
// and long rows of calls, check the fuel repeatedly.
func TestLongWaysBack(t *testing.T) {
	step := []byte{0x20, 0, 0x41, 1, 0x6a, 0x21, 0} // 4 units
	down := func(steps int) []byte {
		code := []byte{0x20, 0, 0x04, 0x40, 0x20, 0, 0x41, 1, 0x6b, 0x10, 0, 0x1a, 0x0b}
		return append(append(code, bytes.Repeat(step, steps)...), 0x20, 0)
	}
	row := append(bytes.Repeat([]byte{0x20, 0, 0x10, 1, 0x21, 0}, 1000), 0x20, 0)
	for name, c := range map[string]struct {
		functions [][]byte
		gap       int64
	}{
		"short ways back": {[][]byte{down(20)}, 1000 * callerGap},
		"long ways back":  {[][]byte{down(1000)}, 3 * 4000},
		"short calls":     {[][]byte{row, append(bytes.Repeat(step, 10), 0x20, 0)}, callerGap},
		"calls of blocks": {[][]byte{row, append(bytes.Repeat([]byte{0x20, 0, 0x04, 0x40, 0x01, 0x0b}, 1000), 0x20, 0)}, callerGap},
		"long after":      {[][]byte{row, slices.Concat([]byte{0x20, 0, 0x04, 0x40, 0x01, 0x0b}, bytes.Repeat(step, 1000), []byte{0x20, 0})}, 3 * 4000},
		"long calls":      {[][]byte{row, append(bytes.Repeat(step, 1000), 0x20, 0)}, 3 * 4000},
	} {
		mod := instance(t, wazero.NewRuntimeConfigCompiler(), rewritten(t, numbered(c.functions...), rewrite.Options{Metering: true}).Wasm)
		m := &meter{budget: unlimited, slice: 1}
		if _, used, err := m.call(mod, "0", rewrite.DefaultStack, 1000); err != nil || m.gap > c.gap || m.gap == 0 {
			t.Errorf("%s: %d units without a check, of %d, %v", name, m.gap, used, err)
		}
	}
}

// callerGap is the maximum that one call may spend without a check: 128 units
// of its own, and 512 for each of 4 calls.
const callerGap = 128 + 4*512

// numbered returns a module of functions (i32) -> i32 without locals, given
// without their last end. It exports the first.
func numbered(codes ...[]byte) []byte {
	all := make([][]byte, len(codes))
	for i, code := range codes {
		all[i] = slices.Concat([]byte{0}, code, []byte{0x0b})
	}
	return bodies(all...)
}

// bodies returns a module of functions (i32) -> i32 that exports the first.
func bodies(all ...[]byte) []byte {
	section := func(id byte, contents []byte) []byte {
		return append(uleb([]byte{id}, len(contents)), contents...)
	}
	declared, code := uleb(nil, len(all)), uleb(nil, len(all))
	for _, b := range all {
		declared = append(declared, 0)
		code = append(uleb(code, len(b)), b...)
	}
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"), section(1, []byte{1, 0x60, 1, 0x7f, 1, 0x7f}),
		section(3, declared), section(7, []byte{1, 1, '0', 0, 0}), section(10, code))
}

func TestReserved(t *testing.T) {
	for name, wasm := range map[string]string{
		"import": "\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x02\x15\x01\x0fwasm_jobs_meter\x01x\x00\x00",
		"export": "\x00asm\x01\x00\x00\x00\x05\x03\x01\x00\x01\x07\x18\x01\x14wasm_jobs_meter.fuel\x02\x00",
	} {
		m, problems := binary.Parse([]byte(wasm))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		_, err := rewrite.Rewrite([]byte(wasm), m, rewrite.Options{})
		var refused *rewrite.Error
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "reserved") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGlobalsAndReasons(t *testing.T) {
	r := rewritten(t, casesWasm, rewrite.Options{})
	if fmt.Sprint(r.Globals) == "" || len(r.Globals) != 2 || r.Globals[0].Type != binary.I32 || r.Globals[1].Type != binary.F64 {
		t.Errorf("globals %v", r.Globals)
	}
	var what []string
	for _, reason := range r.NotResettable {
		what = append(what, reason.What)
	}
	if got := strings.Join(what, " "); got != "table.fill table.copy table.init table.grow elem.drop" {
		t.Errorf("reasons %v", r.NotResettable)
	}
	if r := rewritten(t, kernelsWasm, rewrite.Options{Metering: true}); len(r.NotResettable) > 0 || r.Stack != rewrite.DefaultStack {
		t.Errorf("reasons %v, stack %d", r.NotResettable, r.Stack)
	}
	mod := instance(t, wazero.NewRuntimeConfigInterpreter(), r.Wasm)
	count := mod.ExportedGlobal(r.Globals[0].Export).(api.MutableGlobal)
	for range 2 {
		count.Set(7)
		if got, err := mod.ExportedFunction("globals").Call(t.Context(), 3); err != nil || got[0] != 10 {
			t.Errorf("%d, %v", got, err)
		}
	}
}

// TestNames checks that stack traces name the functions of the original.
func TestNames(t *testing.T) {
	mod := instance(t, wazero.NewRuntimeConfigCompiler(), rewritten(t, casesWasm, rewrite.Options{Metering: true}).Wasm)
	_, _, err := (&meter{budget: 100, slice: 100}).call(mod, "recursion", suiteStack, 0)
	if err == nil || !strings.Contains(err.Error(), "cases.recursion(") || !strings.Contains(err.Error(), "cases.wasm_jobs_meter.refill(") {
		t.Errorf("%v", err)
	}
}
