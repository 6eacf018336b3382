package bench_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/guest/bench"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

func module(t testing.TB, path string) []byte {
	t.Helper()
	wasm, err := os.ReadFile(filepath.Join("../../..", path))
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

func compile(t *testing.T, path string) *runtime.Module {
	t.Helper()
	r, err := runtime.New(t.Context(), runtime.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(context.Background()) })
	m, err := r.Compile(t.Context(), module(t, path), runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func chunksOf(t *testing.T, items ...[]byte) *chunks.File {
	t.Helper()
	file, err := chunks.Of(items...)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// request is the chunk {"do": action} of the faulty guest.
func request(what string) []byte {
	return abi.AppendText(abi.AppendText(abi.AppendHead(nil, abi.MajorMap, 1), "do"), what)
}

const (
	square = "guest-examples/square/c/square.wasm"
	faulty = "guest-examples/faulty/c/faulty.wasm"
)

var brief = bench.Options{Time: 3 * time.Millisecond}

func TestCallsByIsolation(t *testing.T) {
	for _, tt := range []struct {
		path                 string
		isolation            runtime.Isolation
		reset, kept, renewed bool // whether each is measured
	}{
		{square, runtime.IsolationReset, true, true, true},
		{"testdata/wasm/lasting.wasm", runtime.IsolationInstance, true, false, false},
		{"testdata/wasm/command.wasm", runtime.IsolationReset, true, false, true},
	} {
		t.Run(filepath.Base(tt.path), func(t *testing.T) {
			c, err := bench.MeasureCalls(t.Context(), compile(t, tt.path), chunksOf(t, abi.AppendText(nil, "1"), []byte{2}), brief)
			if err != nil {
				t.Fatal(err)
			}
			if c.Isolation != tt.isolation || c.Reset > 0 != tt.reset || c.Kept > 0 != tt.kept || c.New > 0 != tt.renewed || c.Prepare <= 0 {
				t.Errorf("got %+v", c)
			}
		})
	}
}

func TestFailuresAreCounted(t *testing.T) {
	c, err := bench.MeasureCalls(t.Context(), compile(t, faulty), chunksOf(t, []byte{1}, request("trap"), request("permanent"), request("counter")), bench.Options{Time: time.Second, Rounds: 1})
	if err != nil {
		t.Fatal(err)
	}
	if c.Failed != 2 || c.Failure == nil || c.Failure.Class != abi.ClassTrap || c.Fuel.Min == 0 || c.Fuel.Min >= c.Fuel.Max || c.Fuel.Median != c.Fuel.Max {
		t.Errorf("got %+v", c)
	}
}

func TestNothingToMeasure(t *testing.T) {
	_, err := bench.MeasureCalls(t.Context(), compile(t, faulty), chunksOf(t, request("trap")), brief)
	if e, ok := errors.AsType[*bench.NoOutputError](err); !ok || e.Failure.Class != abi.ClassTrap {
		t.Errorf("a chunk that traps: %v", err)
	}
	if _, err := bench.MeasureCalls(t.Context(), compile(t, faulty), chunksOf(t), brief); !errors.Is(err, bench.ErrNoChunks) {
		t.Errorf("no chunks: %v", err)
	}
	if _, err := bench.Run(t.Context(), module(t, square), chunksOf(t), brief); !errors.Is(err, bench.ErrNoChunks) {
		t.Errorf("no chunks: %v", err)
	}
}

// A first chunk that fails does not end the search, however little time there is.
func TestSlowMachine(t *testing.T) {
	c, err := bench.MeasureCalls(t.Context(), compile(t, faulty), chunksOf(t, request("trap"), request("trap"), []byte{1}), bench.Options{Time: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	if c.Failed != 2 || c.Fuel.Min == 0 {
		t.Errorf("got %+v", c)
	}
}

// A round that begins with a failure has no call that counts.
func TestOnlyOutputs(t *testing.T) {
	for _, only := range []bool{false, true} {
		o := brief
		o.OnlyOutputs = only
		c, err := bench.MeasureCalls(t.Context(), compile(t, faulty), chunksOf(t, request("trap"), []byte{1}), o)
		if err != nil {
			t.Fatal(err)
		}
		if c.Failed != 1 || (c.Reset == 0) != only || (c.New == 0) != only {
			t.Errorf("only outputs %t: %+v", only, c)
		}
	}
}

func TestCosts(t *testing.T) {
	for _, tt := range []struct {
		name            string
		times           bench.Times
		reset, instance float64
	}{
		{"nothing", bench.Times{}, 0, 0},
		{"all", bench.Times{Reset: 5, Kept: 2, New: 9}, 3, 7},
		{"too short to be seen", bench.Times{Reset: 2, Kept: 3, New: 1}, 0, 0},
		{"a command", bench.Times{Reset: 5, New: 9}, 0, 4},
		{"no resets", bench.Times{Reset: 5}, 0, 0},
	} {
		if reset, instance := tt.times.ResetCost(), tt.times.InstanceCost(); reset != tt.reset || instance != tt.instance {
			t.Errorf("%s: %v and %v", tt.name, reset, instance)
		}
	}
}

// job returns a job that reads its file; the n-th run takes n seconds.
func job(t *testing.T, read *[]int) bench.Job {
	return func(ctx context.Context, modules *runtime.Runtime, path string, workers int) (bench.JobTimes, error) {
		if m, err := modules.Compile(ctx, module(t, square), runtime.Options{}); err != nil || m == nil {
			t.Errorf("the module is not compiled: %v", err)
		}
		file, err := chunks.Open(ctx, path, chunks.Options{NoIDKey: true, Format: chunks.Sequence})
		if err != nil {
			return bench.JobTimes{}, err
		}
		defer file.Close()
		*read = append(*read, workers)
		n := len(*read)
		return bench.JobTimes{Workers: workers, Chunks: file.Len(), Attempts: file.Len(), Execute: float64(n), Memory: uint64(n)}, nil
	}
}

func TestRun(t *testing.T) {
	var read []int
	var steps []bench.Step
	o := bench.Options{Time: 5 * time.Millisecond, Rounds: 3, Workers: 3, Job: job(t, &read)}
	o.Step = func(s bench.Step, _ int) { steps = append(steps, s) }
	r, err := bench.Run(t.Context(), module(t, square), chunksOf(t, []byte{1}, []byte{2}, []byte{3}), o)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(read, []int{1, 1, 1, 2, 2, 2, 3, 3, 3}) || !slices.Equal(steps, []bench.Step{bench.Compiling, bench.Calling, bench.Jobs, bench.Jobs, bench.Jobs}) {
		t.Errorf("jobs of %v workers, steps %v", read, steps)
	}
	if r.Chunks != 3 || r.Module == nil || r.Compile.Cold <= 0 || r.Compile.Warm <= 0 || r.Call <= 0 || r.Prepare <= 0 || r.Memory != 9 || len(r.Scale) != 3 {
		t.Errorf("got %+v", r)
	}
	for i, s := range r.Scale {
		if s.Workers != i+1 || s.Seconds != float64(3*i+2) { // the middle one of three
			t.Errorf("%d workers: %+v", i+1, s)
		}
		if got := s.Calls + s.Host + s.Scan + s.Prepare + s.Fold; got < 0.999*s.Seconds || got > 1.001*s.Seconds {
			t.Errorf("%d workers: the parts are %v of %v", i+1, got, s.Seconds)
		}
	}
	if r.Scale[0].Gain != 1 || r.Scale[2].Gain != r.Scale[2].Rate/r.Scale[0].Rate {
		t.Errorf("gains: %+v", r.Scale)
	}
}

func TestErrorsOfRun(t *testing.T) {
	lost := errors.New("lost")
	o := bench.Options{Time: time.Millisecond, Job: func(context.Context, *runtime.Runtime, string, int) (bench.JobTimes, error) {
		return bench.JobTimes{}, lost
	}}
	if _, err := bench.Run(t.Context(), module(t, square), chunksOf(t, []byte{1}), o); !errors.Is(err, lost) {
		t.Errorf("a job that fails: %v", err)
	}
	if _, err := bench.Run(t.Context(), []byte("(module)"), chunksOf(t, []byte{1}), o); !isRefused(err) {
		t.Errorf("no module: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	o.Step = func(s bench.Step, _ int) {
		if s == bench.Calling {
			cancel()
		}
	}
	if _, err := bench.Run(ctx, module(t, square), chunksOf(t, []byte{1}), o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func isRefused(err error) bool {
	_, ok := errors.AsType[*runtime.RefusedError](err)
	return ok
}

// The cache and the chunks of jobs are removed.
func TestNothingIsLeft(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	var read []int
	if _, err := bench.Run(t.Context(), module(t, square), chunksOf(t, []byte{1}), bench.Options{Time: time.Millisecond, Workers: 1, Job: job(t, &read)}); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
