package host_test

import (
	"context"
	"fmt"
	goruntime "runtime"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// BenchmarkGuestCall compares Call with the bare loop of reset and call on one
// instance, in CPU time: of the thread for one caller, of the process for many.
// Each iteration runs both once; the ratio is the median over the iterations.
// Use at least nine, better a few hundred: -benchtime 201x.
func BenchmarkGuestCall(b *testing.B) {
	for _, guest := range []struct {
		name  string
		wasm  func(testing.TB) []byte
		calls int // per round
	}{
		{"noop", func(t testing.TB) []byte { return readFile(t, "../bench/guests/noop.wasm") }, 2_000},
		{"go", squareGo, 400},
	} {
		for _, callers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/callers=%d", guest.name, callers), func(b *testing.B) {
				benchmarkCall(b, guest.wasm(b), callers, guest.calls)
			})
		}
	}
}

func benchmarkCall(b *testing.B, wasm []byte, callers, calls int) {
	engine := newEngine(b)
	bare := bareLoop(b, engine, wasm)
	g := open(b, wasm, host.Options{Engine: engine})
	called := guestLoop(b, g, callers)
	clock := int32(unix.CLOCK_PROCESS_CPUTIME_ID)
	if callers == 1 {
		goruntime.LockOSThread()
		defer goruntime.UnlockOSThread()
		clock = unix.CLOCK_THREAD_CPUTIME_ID
	}
	bare(calls)
	called(calls)
	var ratios, bareTimes []float64
	for b.Loop() {
		base := cpuTime(b, clock, func() { bare(calls) })
		ratios = append(ratios, cpuTime(b, clock, func() { called(calls) })/base)
		bareTimes = append(bareTimes, base/float64(calls))
	}
	b.ReportMetric(median(bareTimes), "ns/bare-call")
	b.ReportMetric(median(ratios), "x-bare")
}

var costInput = abi.AppendHead(nil, abi.MajorUint, 1234)

func bareLoop(b *testing.B, engine host.Engine, wasm []byte) func(n int) {
	m, err := engine.Admit(b.Context(), wasm, runtime.Options{})
	if err != nil {
		b.Fatal(err)
	}
	p, err := m.Prepare(b.Context(), runtime.Settings{})
	if err != nil {
		b.Fatal(err)
	}
	i := p.Borrow(nil)
	b.Cleanup(func() {
		i.Release()
		if err := p.Close(); err != nil {
			b.Error(err)
		}
	})
	var output []byte
	return func(n int) {
		for range n {
			if output, _, err = i.Call(b.Context(), abi.ExportExec, costInput, output[:0]); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func guestLoop(b *testing.B, g *host.Guest, callers int) func(n int) {
	loop := func(ctx context.Context, n int) {
		for range n {
			if _, err := g.Call(ctx, costInput); err != nil {
				b.Error(err)
				return
			}
		}
	}
	if callers == 1 {
		return func(n int) { loop(b.Context(), n) }
	}
	return func(n int) {
		var all sync.WaitGroup
		for range callers {
			all.Go(func() { loop(b.Context(), n/callers) })
		}
		all.Wait()
	}
}

func cpuTime(t testing.TB, clock int32, f func()) float64 {
	now := func() int64 {
		var at unix.Timespec
		if err := unix.ClockGettime(clock, &at); err != nil {
			t.Fatal(err)
		}
		return at.Nano()
	}
	start := now()
	f()
	return float64(now() - start)
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
