package rewrite_test

import (
	"context"
	_ "embed"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

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

// kernel returns a function that runs a kernel for as long as the given rounds
// take, metered in slices of 1e7 where it is metered.
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
// is, and the median of the ratios to it, over the interleaved rounds that the
// environment variable REWRITE_COST asks for.
func TestCost(t *testing.T) {
	rounds, err := strconv.Atoi(os.Getenv("REWRITE_COST"))
	if err != nil {
		t.Skip("set REWRITE_COST to a number of rounds")
	}
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), meterKey{}, &meter{budget: math.MaxInt64, slice: 10_000_000}))
	defer cancel()
	all := variants()
	var mods []api.Module
	for _, v := range all {
		mods = append(mods, v.instance(t, kernelsWasm))
	}
	logs := make([][]float64, len(all)) // of ratios, for the geometric means
	var table strings.Builder
	for _, k := range kernels {
		times := make([][]time.Duration, len(all))
		for range rounds {
			for i, m := range mods {
				f := m.ExportedFunction(k.name)
				restoreStack(m, rewrite.DefaultStack)
				start := time.Now()
				if _, err := f.Call(ctx, k.rounds); err != nil {
					t.Fatal(err)
				}
				times[i] = append(times[i], time.Since(start))
			}
		}
		fmt.Fprintf(&table, "\n%-11s", k.name)
		for i := range all {
			if i == 0 {
				fmt.Fprintf(&table, " %8s", median(times[0]).Round(time.Microsecond))
				continue
			}
			ratio := float64(slices.Min(times[i])) / float64(slices.Min(times[0]))
			fmt.Fprintf(&table, " %8.2f", ratio)
			if k.name != "empty" {
				logs[i] = append(logs[i], math.Log(ratio))
			}
		}
	}
	for i, v := range all[1:] {
		sum := 0.0
		for _, l := range logs[i+1] {
			sum += l
		}
		fmt.Fprintf(&table, "\n%s: %.2fx on the geometric mean, without empty", v.name, math.Exp(sum/float64(len(logs[i+1]))))
	}
	t.Log(table.String())
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
