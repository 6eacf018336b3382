package runtime_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/linear"
)

var soak = flag.Int("soak", 10, "rounds of TestDeathSoak; from 100 on, it asserts a bound of memory")

// bomb is a call that does not end by itself.
type bomb struct {
	name   string
	module string // in testdata/wasm
	chunk  byte
	class  abi.Class
	lease  int    // limit of its run time, in timeouts
	ends   bool   // by itself, with enough time
	memory uint64 // limit for its own test; 0 = 64 MiB
}

const gib = 1 << 30

var bombs = []bomb{
	{name: "a loop", module: "bomb", chunk: 1, class: abi.ClassTimeout},
	{name: "2^30 calls", module: "bomb", chunk: 2, class: abi.ClassTimeout},
	{name: "recursion", module: "bomb", chunk: 3, class: abi.ClassTrap, ends: true},
	{name: "memory.fill", module: "bomb", chunk: 4, class: abi.ClassTimeout, memory: 3 * gib},
	{name: "memory.copy", module: "bomb", chunk: 5, class: abi.ClassTimeout, memory: 3 * gib},
	{name: "memory.fill of 64 bytes", module: "bomb", chunk: 6, class: abi.ClassTimeout},
	{name: "clock_time_get", module: "bomb", chunk: 7, class: abi.ClassTimeout},
	{name: "sched_yield", module: "bomb", chunk: 8, class: abi.ClassTimeout},
	{name: "heartbeat", module: "bomb", chunk: 9, class: abi.ClassTimeout, lease: 10},
	{name: "log", module: "bomb", chunk: 10, class: abi.ClassTimeout},
	{name: "fail", module: "bomb", chunk: 11, class: abi.ClassRequeued}, // its message takes precedence
	{name: "fd_write of empty lines", module: "bomb", chunk: 12, class: abi.ClassTimeout},
	{name: "fd_write of one line", module: "bomb", chunk: 13, class: abi.ClassTimeout},
	{name: "fd_write of nothing", module: "bomb", chunk: 14, class: abi.ClassTimeout},
	{name: "random_get", module: "bomb", chunk: 15, class: abi.ClassTimeout, memory: 3 * gib},
	{name: "poll_oneoff of 1024", module: "bomb", chunk: 16, class: abi.ClassTimeout},
	{name: "poll_oneoff of 1", module: "bomb", chunk: 17, class: abi.ClassTimeout},
	{name: "memory.grow, then a trap", module: "bomb", chunk: 18, class: abi.ClassMemory, ends: true, memory: 3 * gib},
	{name: "memory.grow denied", module: "bomb", chunk: 19, class: abi.ClassTimeout},
	{name: "memory.grow by 0", module: "bomb", chunk: 20, class: abi.ClassTimeout},
	{name: "proc_exit", module: "bomb", chunk: 23, class: abi.ClassExit, ends: true},
	{name: "table.grow by 0", module: "table-bomb", chunk: 0, class: abi.ClassTimeout},
	{name: "table.grow", module: "table-bomb", chunk: 1, class: abi.ClassTimeout},
	{name: "table.copy", module: "table-bomb", chunk: 2, class: abi.ClassTimeout},
	{name: "table.fill", module: "table-bomb", chunk: 3, class: abi.ClassTimeout},
}

// unready are modules that cannot be instantiated, by the step that does not
// end.
var unready = map[string]string{
	"initialize-loops": abi.ExportInitialize,
	"setup-loops":      abi.ExportSetup,
	"start-loops":      "instantiate",
}

// armed compiles the modules of all bombs.
func armed(t *testing.T) map[string]*runtime.Module {
	t.Helper()
	r, modules := newRuntime(t, runtime.Config{}), map[string]*runtime.Module{}
	for _, name := range []string{"bomb", "table-bomb", "alloc-loops", "initialize-loops", "setup-loops", "start-loops", "echo"} {
		m, err := r.Compile(t.Context(), wasmFile(t, name), runtime.Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		modules[name] = m
	}
	return modules
}

func pool(t *testing.T, m *runtime.Module, s runtime.Settings) *runtime.Pool {
	t.Helper()
	p, err := m.Prepare(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if s := p.Stats(); s.Created != s.Closed {
			t.Errorf("%d instances created, %d closed", s.Created, s.Closed)
		}
	})
	return p
}

// classOf returns the class of a failure, "" without one.
func classOf(err error) abi.Class {
	if failure, ok := errors.AsType[*abi.Failure](err); ok {
		return failure.Class
	}
	return ""
}

// explode runs a bomb and returns the time between its deadline and its end.
func explode(t *testing.T, i *runtime.Instance, b bomb, timeout time.Duration) time.Duration {
	t.Helper()
	start := time.Now()
	_, _, err := i.Call(t.Context(), abi.ExportExec, []byte{b.chunk}, nil)
	late := time.Since(start) - timeout*time.Duration(max(b.lease, 1))
	// On a busy machine, such a short time can pass before anything happens.
	tooShort := timeout < 20*time.Millisecond
	if class := classOf(err); class != b.class && !(tooShort && class == abi.ClassTimeout) {
		t.Errorf("%s: %v, want class %s", b.name, err, b.class)
	}
	return late
}

// intact checks that the instance works as before.
func intact(t *testing.T, i *runtime.Instance, after string) time.Duration {
	t.Helper()
	want := []byte{0x18, 0xff}
	start := time.Now()
	out, _, err := i.Call(t.Context(), abi.ExportExec, want, nil)
	took := time.Since(start)
	for range 10 { // on a busy machine a deadline can pass early
		if classOf(err) == abi.ClassTimeout {
			out, _, err = i.Call(t.Context(), abi.ExportExec, want, nil)
		}
	}
	if err != nil || !bytes.Equal(out, want) {
		t.Errorf("after %s: output %x, %v", after, out, err)
	}
	return took
}

// neighbour makes calls on its own instance until it is stopped, and fails if
// one is wrong. stop returns their number.
func neighbour(t *testing.T, p *runtime.Pool) (stop func() int) {
	ctx, cancel := context.WithCancel(t.Context())
	calls := make(chan int)
	go func() {
		i := p.Borrow(nil)
		n := 0
		for ; ctx.Err() == nil; n++ {
			want := abi.AppendText(nil, strconv.Itoa(n))
			if out, _, err := i.Call(context.WithoutCancel(ctx), abi.ExportExec, want, nil); err != nil || !bytes.Equal(out, want) {
				t.Errorf("neighbour: output %x, %v", out, err)
				break
			}
		}
		i.Release()
		calls <- n
	}()
	return func() int {
		cancel()
		return <-calls
	}
}

func TestCertainDeath(t *testing.T) {
	const timeout = 50 * time.Millisecond
	modules := armed(t)
	live := linear.Live()
	var worst time.Duration
	for _, isolation := range []runtime.Isolation{runtime.IsolationReset, runtime.IsolationInstance} {
		for _, b := range bombs {
			t.Run(fmt.Sprint(b.name, "/", isolation), func(t *testing.T) {
				timeout := timeout
				if b.ends {
					timeout = time.Minute
				}
				if b.memory > gib && (testing.Short() || raceEnabled) {
					b.memory = 0
				}
				memory := b.memory
				if memory == 0 {
					memory = 64 << 20
				}
				p := pool(t, modules[b.module], runtime.Settings{Memory: memory, Timeout: timeout, Isolation: isolation})
				stop := neighbour(t, pool(t, modules["echo"], runtime.Settings{}))
				i := p.Borrow(func(int32, string) {})
				defer i.Release()
				intact(t, i, "nothing")
				late := explode(t, i, b, timeout)
				reset := intact(t, i, b.name)
				late = max(late, explode(t, i, b, timeout))
				intact(t, i, b.name)
				worst = max(worst, late)
				if b.ends {
					late += timeout
				}
				t.Logf("%8.1f ms past the deadline, then a call in %.1f ms, next to %d calls", ms(late), ms(reset), stop())
			})
		}
	}
	t.Logf("at most %.1f ms past the deadline", ms(worst))
	if n := linear.Live(); n != live {
		t.Errorf("%d memories and images are left", n-live)
	}
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

func TestCertainDeathInAlloc(t *testing.T) {
	const timeout = 50 * time.Millisecond
	p := pool(t, armed(t)["alloc-loops"], runtime.Settings{Timeout: timeout})
	i := p.Borrow(nil)
	defer i.Release()
	start := time.Now()
	_, _, err := i.Call(t.Context(), abi.ExportExec, []byte{0x18, 0x18}, nil)
	t.Logf("%.1f ms past the deadline", ms(time.Since(start)-timeout))
	if classOf(err) != abi.ClassTimeout {
		t.Errorf("%v, want class timeout", err)
	}
	if out, _, err := i.Call(t.Context(), abi.ExportExec, []byte{1}, nil); err != nil || !bytes.Equal(out, []byte{1}) {
		t.Errorf("then output %x, %v", out, err)
	}
}

func TestCertainDeathBeforeAnyCall(t *testing.T) {
	const timeout = 50 * time.Millisecond
	modules := armed(t)
	live := linear.Live()
	for name := range unready {
		for _, isolation := range []runtime.Isolation{runtime.IsolationReset, runtime.IsolationInstance} {
			start := time.Now()
			fizzle(t, modules[name], name, runtime.Settings{FoldTimeout: timeout, Isolation: isolation})
			t.Logf("%s: %.1f ms past the deadline", name, ms(time.Since(start)-timeout))
		}
	}
	if n := linear.Live(); n != live {
		t.Errorf("%d memories and images are left", n-live)
	}
}

// fizzle prepares a module and expects that this fails.
func fizzle(t *testing.T, m *runtime.Module, name string, s runtime.Settings) {
	t.Helper()
	_, err := m.Prepare(t.Context(), s)
	failed, ok := errors.AsType[*runtime.InitError](err)
	if !ok || failed.Step != unready[name] || failed.Failure.Class != abi.ClassTimeout || failed.Instances.Created != 1 || failed.Instances.Closed != 1 {
		t.Errorf("%s: %+v, want a timeout in %s", name, err, unready[name])
	}
}

func TestCancelledPreparation(t *testing.T) {
	modules := armed(t)
	for name := range unready {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := modules[name].Prepare(ctx, runtime.Settings{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}

// TestDeathSoak runs all bombs in random orders, on several workers that keep
// their instances, with soak rounds for each worker. Only the instances in use
// may remain.
func TestDeathSoak(t *testing.T) {
	const (
		workers = 3
		memory  = 64 << 20
		timeout = 10 * time.Millisecond
	)
	modules := armed(t)
	live := linear.Live()
	forgetPeak()
	before := status(t)
	pools := map[string][]*runtime.Pool{}
	t.Run("rounds", func(t *testing.T) { // its end closes the pools
		for _, name := range []string{"bomb", "table-bomb"} {
			for _, isolation := range []runtime.Isolation{runtime.IsolationReset, runtime.IsolationInstance} {
				s := runtime.Settings{Memory: memory, Timeout: timeout, FoldTimeout: timeout, Isolation: isolation}
				pools[name] = append(pools[name], pool(t, modules[name], s))
			}
		}
		stop := neighbour(t, pool(t, modules["echo"], runtime.Settings{}))
		var late atomic.Int64
		var group sync.WaitGroup
		rounds := make(chan int)
		for range workers {
			group.Go(func() {
				for round := range rounds {
					if n := soakRound(t, modules, pools, round, timeout); n > time.Duration(late.Load()) {
						late.Store(int64(n))
					}
				}
			})
		}
		for round := range *soak {
			rounds <- round
			if round%100 == 99 {
				t.Logf("%d rounds: %v", round+1, status(t))
			}
		}
		close(rounds)
		group.Wait()
		t.Logf("%d rounds of %d deaths on %d workers, at most %.1f ms past the deadline, next to %d calls",
			*soak, len(bombs)+len(unready), workers, ms(time.Duration(late.Load())), stop())
	})
	after := status(t)
	t.Logf("before %v, after %v", before, after)
	for name, ps := range pools {
		for _, p := range ps {
			t.Logf("%s, %s: %+v", name, p.Isolation(), p.Stats())
		}
	}
	if n := linear.Live(); n != live {
		t.Errorf("%d memories and images are left", n-live)
	}
	const bound = workers*memory + 64<<20
	if grown := after.peak - before.resident; *soak >= 100 && !raceEnabled && grown > bound {
		t.Errorf("the process grew by %d MiB, more than the limit of %d", grown>>20, uint64(bound)>>20)
	}
}

// soakRound runs each bomb once, and returns the longest time between a
// deadline and an end.
func soakRound(t *testing.T, modules map[string]*runtime.Module, pools map[string][]*runtime.Pool, round int, timeout time.Duration) (late time.Duration) {
	rng := rand.New(rand.NewPCG(1, uint64(round)))
	for name := range unready {
		fizzle(t, modules[name], name, runtime.Settings{FoldTimeout: timeout})
	}
	leases := map[*runtime.Pool]*runtime.Instance{}
	for _, n := range rng.Perm(len(bombs)) {
		b := bombs[n]
		p := pools[b.module][rng.IntN(2)]
		i := leases[p]
		if i == nil {
			i = p.Borrow(func(int32, string) {})
			defer i.Release()
			leases[p] = i
		}
		n := explode(t, i, b, timeout)
		if late = max(late, n); n > 250*time.Millisecond {
			t.Logf("%s, %s: %.1f ms past the deadline", b.name, p.Isolation(), ms(n))
		}
		if rng.IntN(2) == 0 {
			intact(t, i, b.name)
		}
	}
	return late
}

// memoryStatus is the memory of the process, in bytes; 0 if unknown.
type memoryStatus struct{ resident, peak uint64 }

func (s memoryStatus) String() string {
	return fmt.Sprintf("%d MiB (peak %d)", s.resident>>20, s.peak>>20)
}

// status reads /proc/self/status (proc_pid_status(5)).
func status(t *testing.T) (s memoryStatus) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Log(err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		kib, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			s.resident = kib << 10
		case "VmHWM":
			s.peak = kib << 10
		}
	}
	return s
}

// forgetPeak resets the peak to the current memory (proc_pid_clear_refs(5)).
func forgetPeak() { _ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }
