package rewrite_test

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"math"
	"os"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasm-jobs/wasm-jobs/runtime/internal/codeshift"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

//go:embed testdata/kernels.wasm
var kernelsWasm []byte

// kernels are the functions of testdata/kernels.c, with a number of rounds
// that takes some milliseconds.
var kernels = []struct {
	name   string
	rounds uint64
	floats bool
}{
	{"empty", 5_000_000, false},
	{"sha256", 5_000, false},
	{"crc32", 20, false},
	{"sieve", 10, false},
	{"quicksort", 3, false},
	{"fib", 25, false},
	{"wordcount", 20, false},
	{"indirect", 500_000, false},
	{"matmul", 10, true},
	{"nbody", 10_000, true},
	{"mandelbrot", 5, true},
	{"montecarlo", 500_000, true},
}

// variant is one way to run the kernels.
type variant struct {
	name    string
	config  wazero.RuntimeConfig
	options *rewrite.Options
}

func variants() []variant {
	c := wazero.NewRuntimeConfigCompiler()
	return []variant{
		{"as it is", c, nil},
		{"metered", c, &rewrite.Options{Metering: true, NativeNaNs: true}},
		{"canonical NaNs", c, &rewrite.Options{}},
		{"both", c, &rewrite.Options{Metering: true}},
		{"CloseOnContextDone", c.WithCloseOnContextDone(true), nil},
	}
}

// instance returns an instance of a module, rewritten for the variant.
func (v variant) instance(t testing.TB, wasm []byte) api.Module {
	ctx := context.Background()
	if v.options != nil {
		wasm = rewritten(t, wasm, *v.options).Wasm
	}
	r := wazero.NewRuntimeWithConfig(ctx, v.config)
	t.Cleanup(func() { r.Close(ctx) })
	serveMeter(t, ctx, r)
	m, err := r.Instantiate(ctx, wasm)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestCost prints the table of costs: for each kernel the median time as it
// is, and of the ratios to it, over as many interleaved rounds as the
// environment variable REWRITE_COST says, the median and the quartiles.
func TestCost(t *testing.T) {
	rounds, err := strconv.Atoi(os.Getenv("REWRITE_COST"))
	if err != nil {
		t.Skip("set REWRITE_COST to a number of rounds")
	}
	rounds = max(rounds, 9) // the quartiles of fewer say little
	all := variants()
	var mods [][]api.Module // at each place of the code, of each variant
	for n := range codeshift.Positions {
		shifted, err := codeshift.Shift(kernelsWasm, n)
		if err != nil {
			t.Fatal(err)
		}
		var at []api.Module
		for _, v := range all {
			at = append(at, v.instance(t, shifted))
		}
		mods = append(mods, at)
	}
	means, worst := map[string]float64{}, map[string]float64{} // sums of logarithms, and the largest
	var table strings.Builder
	for _, k := range kernels {
		times := measurePlaces(t, mods, k.name, k.rounds, rounds)
		fmt.Fprintf(&table, "\n%-11s %8s", k.name, quartile(times[0], 2).Round(time.Microsecond))
		for i, v := range all[1:] {
			ratios := make([]float64, rounds)
			for r := range ratios {
				ratios[r] = float64(times[i+1][r]) / float64(times[0][r])
			}
			fmt.Fprintf(&table, "  %5.2f (%.2f-%.2f)", quartile(ratios, 2), quartile(ratios, 1), quartile(ratios, 3))
			if k.name != "empty" {
				means[fmt.Sprintf("%s, floats %v", v.name, k.floats)] += math.Log(quartile(ratios, 2))
				means[v.name] += math.Log(quartile(ratios, 2))
				worst[v.name] = max(worst[v.name], quartile(ratios, 2))
			}
		}
	}
	floats := 0
	for _, k := range kernels {
		if k.floats {
			floats++
		}
	}
	for _, v := range all[1:] {
		fmt.Fprintf(&table, "\n%s, without empty: geometric mean %.2f, worst %.2f, mean on floats %.2f", v.name,
			math.Exp(means[v.name]/float64(len(kernels)-1)), worst[v.name], math.Exp(means[v.name+", floats true"]/float64(floats)))
	}
	t.Log(table.String())
}

// measurePlaces returns the mean over all places of the code, round by round.
func measurePlaces(t *testing.T, mods [][]api.Module, name string, arg uint64, rounds int) [][]time.Duration {
	sum := make([][]time.Duration, len(mods[0]))
	for _, at := range mods {
		for i, times := range measure(t, at, name, arg, rounds) {
			if sum[i] == nil {
				sum[i] = make([]time.Duration, rounds)
			}
			for r := range times {
				sum[i][r] += times[r] / time.Duration(len(mods))
			}
		}
	}
	return sum
}

// measure returns the processor times of a kernel in each instance, round by round.
func measure(t *testing.T, mods []api.Module, name string, arg uint64, rounds int) [][]time.Duration {
	// A context that can end, as a host's does: CloseOnContextDone watches it.
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), meterKey{}, &meter{budget: unlimited, slice: 10_000_000}))
	defer cancel()
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	times := make([][]time.Duration, len(mods))
	for range rounds {
		for i, m := range mods {
			f := m.ExportedFunction(name)
			restoreStack(m, rewrite.DefaultStack)
			start := threadTime()
			if _, err := f.Call(ctx, arg); err != nil {
				t.Fatal(err)
			}
			times[i] = append(times[i], threadTime()-start)
		}
	}
	return times
}

func quartile[T cmp.Ordered](all []T, n int) T {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[n*(len(sorted)-1)/4]
}
