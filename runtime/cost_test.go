package runtime_test

import (
	"bytes"
	"fmt"
	"math"
	"os"
	goruntime "runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// TestCost prints the cost of calls, in tables of medians and quartiles over
// the number of rounds in the environment variable RUNTIME_COST. In each round,
// every side of a comparison runs once; a ratio divides two times of the same
// round. It fails if a median misses a target of the project.
func TestCost(t *testing.T) {
	rounds, err := strconv.Atoi(os.Getenv("RUNTIME_COST"))
	if err != nil || rounds < 1 {
		t.Skip("set RUNTIME_COST to a number of rounds, or run make cost")
	}
	rounds = max(rounds, minRounds)
	t.Logf("%s, %s/%s, GOMAXPROCS %d, %d rounds; all are medians (quartiles) of processor time, of Scaling of wall time",
		goruntime.Version(), goruntime.GOOS, goruntime.GOARCH, goruntime.GOMAXPROCS(0), rounds)
	t.Run("TinyC", func(t *testing.T) { costOfTiny(t, rounds, squareC(t), 20, 2000, 100) })
	t.Run("TinyGo", func(t *testing.T) { costOfTiny(t, rounds, squareGo(t), 400, 500, 12) })
	t.Run("Guests", func(t *testing.T) { costOfGuests(t, rounds) })
	t.Run("Compiling", func(t *testing.T) { costOfCompiling(t) })
	t.Run("Kernels", func(t *testing.T) { costOfKernels(t, rounds) })
	t.Run("Scaling", func(t *testing.T) { costOfScaling(t, rounds) })
	t.Run("Clone", func(t *testing.T) { costOfClone(t) })
}

// minRounds is the minimum number of rounds: medians and quartiles of fewer
// have little meaning.
const minRounds = 9

// limits are set in all measured calls, as in a host.
var limits = runtime.Settings{Fuel: 1 << 40, Timeout: time.Minute}

// costOfTiny compares ways to run a chunk of one integer. The batches of new
// instances are long enough to include their share of garbage collections.
func costOfTiny(t *testing.T, rounds int, wasm []byte, target float64, batch, slowBatch int) {
	chunk := abi.AppendHead(nil, abi.MajorUint, 1234)
	renewed := limits
	renewed.Isolation = runtime.IsolationInstance
	ours := func(o runtime.Options, s runtime.Settings, reuse bool) func(n int) {
		return caller(t, poolOf(t, wasm, o, s), chunk, reuse).run
	}
	unmetered := runtime.Options{NoMetering: true}
	sides := []side{
		{name: "reset, metered", batch: batch, run: ours(runtime.Options{}, limits, false)},
		{name: "reset", batch: batch, run: ours(unmetered, limits, false)},
		{name: "reuse, metered", batch: batch, run: ours(runtime.Options{}, limits, true)},
		{name: "reuse", batch: batch, run: ours(unmetered, limits, true)},
		{name: "new instance, metered", batch: slowBatch, run: ours(runtime.Options{}, renewed, false)},
		{name: "new instance of plain wazero", batch: slowBatch, run: newPlain(t, wasm, false).renew(t, chunk), least: target},
	}
	times := measure(rounds, sides)
	table := newTable("", "us a call", "to the first")
	for i, s := range sides {
		all := ratios(times[i], times[0])
		table.row(s.name, spread(times[i]), spread(all))
		if median := quartile(all, 2); median < s.least {
			t.Errorf("%s costs %.1f times as much as %s, want at least %.0f", s.name, median, sides[0].name, s.least)
		}
	}
	table.log(t)
}

// costKernels are the kernels of testdata/kernels.c, by number, with rounds
// that take 0.1 to 3 ms.
var costKernels = []struct {
	name   string
	number uint64
	rounds uint64
}{
	{"sha256", 1, 500},
	{"crc32", 2, 5},
	{"sieve", 3, 2},
	{"quicksort", 4, 1},
	{"fib", 5, 24},
	{"wordcount", 6, 3},
	{"indirect", 7, 100_000},
	{"matmul", 8, 2},
	{"nbody", 9, 2_000},
	{"mandelbrot", 10, 1},
	{"montecarlo", 11, 50_000},
}

func kernelChunk(number, rounds uint64) []byte {
	chunk := abi.AppendHead(nil, abi.MajorArray, 2)
	return abi.AppendHead(abi.AppendHead(chunk, abi.MajorUint, number), abi.MajorUint, rounds)
}

// costOfKernels compares longer computations with the same ones without reset
// and without metering. All except plain wazero have canonical NaNs.
func costOfKernels(t *testing.T, rounds int) {
	wasm := testdata(t, "kernels.wasm")
	unmetered := poolOf(t, wasm, runtime.Options{NoMetering: true}, limits)
	metered := poolOf(t, wasm, runtime.Options{}, limits)
	closing := newPlain(t, wasm, true)
	table := newTable("", "us reused", "reset", "reset, metered", "CloseOnContextDone to the last")
	logs := [2]float64{} // sums of logarithms
	for _, k := range costKernels {
		chunk := kernelChunk(k.number, k.rounds)
		times := measure(rounds, []side{
			{batch: 2, run: caller(t, unmetered, chunk, true).run},
			{batch: 2, run: caller(t, unmetered, chunk, false).run},
			{batch: 2, run: caller(t, metered, chunk, false).run},
			{batch: 1, run: closing.reuse(t, chunk)},
		})
		reset, both, closed := ratios(times[1], times[0]), ratios(times[2], times[0]), ratios(times[3], times[2])
		table.row(k.name, spread(times[0]), spread(reset), spread(both), spread(closed))
		logs[0] += math.Log(quartile(reset, 2))
		logs[1] += math.Log(quartile(both, 2))
		if median := quartile(reset, 2); median > 1.10 {
			t.Errorf("%s: a reset makes the time %.2f of it, want at most 1.10", k.name, median)
		}
		if median := quartile(closed, 2); median < 2.5 {
			t.Errorf("%s: CloseOnContextDone takes %.2f times as long, want at least 2.5", k.name, median)
		}
	}
	n := float64(len(costKernels))
	mean := math.Exp(logs[1] / n)
	table.row("geometric mean", "", fmt.Sprintf("%.2f", math.Exp(logs[0]/n)), fmt.Sprintf("%.2f", mean), "")
	if mean > 1.35 {
		t.Errorf("reset and metering make %.2f on the mean, want at most 1.35", mean)
	}
	table.log(t)
}

// costOfScaling measures the speedup of two goroutines over one.
func costOfScaling(t *testing.T, rounds int) {
	if goruntime.GOMAXPROCS(0) < 2 {
		t.Skip("needs two processors")
	}
	tinyC := poolOf(t, squareC(t), runtime.Options{}, limits)
	tinyGo := poolOf(t, squareGo(t), runtime.Options{}, limits)
	kernel := poolOf(t, testdata(t, "kernels.wasm"), runtime.Options{}, limits)
	square := abi.AppendHead(nil, abi.MajorUint, 1234)
	sides := []struct {
		name  string
		batch int // calls, of about 4 ms
		run   [2]func(n int)
		gain  []float64
		ratio []float64 // of the speedup to the first side's
	}{
		{name: "native Go", batch: 8, run: [2]func(int){native, native}},
		{name: "tiny C", batch: 5000, run: pair(t, tinyC, square)},
		{name: "tiny Go", batch: 300, run: pair(t, tinyGo, square)},
		{name: "kernel sha256", batch: 16, run: pair(t, kernel, kernelChunk(1, 500))},
		{name: "kernel sieve", batch: 10, run: pair(t, kernel, kernelChunk(3, 2))},
	}
	for r := range rounds {
		for i := range sides {
			s := &sides[i]
			one := timed(func() { s.run[0](s.batch) })
			two := timed(func() { together(s.run[0], s.run[1], s.batch) })
			s.gain = append(s.gain, 2*float64(one)/float64(two))
			s.ratio = append(s.ratio, s.gain[r]/sides[0].gain[r])
		}
	}
	table := newTable("", "2 goroutines to 1", "to native Go")
	for _, s := range sides {
		table.row(s.name, spread(s.gain), spread(s.ratio))
		if median := quartile(s.ratio, 2); median < 0.8 {
			t.Errorf("%s scales %.2f times as well as native code, want 0.80", s.name, median)
		}
	}
	table.log(t)
}

// costOfClone measures the memory of instances in addition to the shared
// snapshot.
func costOfClone(t *testing.T) {
	if _, err := os.Stat("/proc/self/smaps_rollup"); err != nil {
		t.Skip("needs Linux:", err)
	}
	const clones = 16
	s := limits
	s.Context = abi.AppendHead(nil, abi.MajorBytes, 50<<20)
	s.Context = append(s.Context, bytes.Repeat([]byte{7}, 50<<20)...)
	table := newTable("pages written of 50 MB", "anonymous a clone", "proportional", "page tables")
	for _, written := range []uint64{1, 10, 100} {
		t.Run(fmt.Sprint(written), func(t *testing.T) {
			chunk := abi.AppendHead(nil, abi.MajorUint, written)
			pool := poolOf(t, testdata(t, "context.wasm"), runtime.Options{}, s)
			caller(t, pool, chunk, false).run(3) // maps the whole snapshot
			before := usage(t)
			for range clones {
				caller(t, pool, chunk, false).run(3)
			}
			after := usage(t)
			each := func(what string) int { return (after[what] - before[what]) / clones }
			table.row(fmt.Sprint(written), kib(each("Anonymous")), kib(each("Pss")), kib(each("VmPTE")))
			// In addition to the pages written here: its stack, its data, and
			// its Go objects.
			if most := (int(written)+4)*4 + 128; each("Pss") > most {
				t.Errorf("a clone that wrote %d pages takes %d KiB, want at most %d", written, each("Pss"), most)
			}
		})
	}
	table.log(t)
}

// usage returns the memory of this process in KiB, by the kernel's names.
func usage(t *testing.T) map[string]int {
	debug.FreeOSMemory()
	all := map[string]int{}
	for _, file := range []string{"/proc/self/smaps_rollup", "/proc/self/status"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			name, value, _ := strings.Cut(line, ":")
			if n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB")); err == nil {
				all[name] = n
			}
		}
	}
	return all
}

func kib(n int) string { return fmt.Sprintf("%d KiB", n) }
