package processor_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	goruntime "runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/processor"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// BenchmarkProcessor compares the cost of a request with the bare loop of reset and
// call on one instance, in CPU time: of the thread for one caller, of the process for
// several. Both run once in each iteration, and the result is the median ratio. Use at
// least nine iterations: -benchtime 21x.
func BenchmarkProcessor(b *testing.B) {
	const noop = "../bench/guests/noop.wasm"
	for _, tt := range []struct {
		name   string
		thread bool
		loop   func(*testing.B, *processor.Module) func(n int)
	}{
		{"Call/callers=1", true, callLoop(1)},
		{"Call/callers=16", false, callLoop(16)},
		{"SendReceive/receivers=2", false, sendReceiveLoop},
		{"Send", false, sendLoop},
		{"Stream", false, streamLoop},
	} {
		b.Run(tt.name, func(b *testing.B) {
			r, err := runtime.New(b.Context(), runtime.Config{})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = r.Close(context.Background()) })
			compare(b, bareLoop(b, r, noop), tt.loop(b, open(b, noop, processor.Options{Runtime: r})), tt.thread)
		})
	}
}

func compare(b *testing.B, bare, loop func(n int), thread bool) {
	const requests = 4000
	clock := int32(unix.CLOCK_PROCESS_CPUTIME_ID)
	if thread {
		goruntime.LockOSThread()
		defer goruntime.UnlockOSThread()
		clock = unix.CLOCK_THREAD_CPUTIME_ID
	}
	bare(requests)
	loop(requests)
	var ratios, times []float64
	for b.Loop() {
		base := cpuTime(b, clock, func() { bare(requests) })
		ratios = append(ratios, cpuTime(b, clock, func() { loop(requests) })/base)
		times = append(times, base/requests)
	}
	slices.Sort(ratios)
	slices.Sort(times)
	b.ReportMetric(times[len(times)/2], "ns/bare-call")
	b.ReportMetric(ratios[len(ratios)/2], "x-bare")
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

var costRequest = number(1234)

func bareLoop(b *testing.B, r *runtime.Runtime, path string) func(n int) {
	m, err := r.Compile(b.Context(), readFile(b, path), runtime.Options{})
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
		_ = p.Close()
	})
	var output []byte
	return func(n int) {
		for range n {
			if output, _, err = i.Call(b.Context(), abi.ExportExec, costRequest, output[:0]); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func callLoop(callers int) func(*testing.B, *processor.Module) func(n int) {
	return func(b *testing.B, m *processor.Module) func(n int) {
		p := start(b, b.Context(), m, processor.Config{})
		loop := func(ctx context.Context, n int) {
			for range n {
				if _, err := p.Call(ctx, costRequest); err != nil {
					b.Error(err)
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
}

// receivers reads all responses, for as long as the benchmark runs.
func receivers[Out any](b *testing.B, p *processor.Processor[[]byte, Out], n int) {
	for range n {
		r := p.Subscribe()
		go func() { // until the processor stops
			for {
				if _, err := r.Next(context.Background()); err == io.EOF {
					return
				}
			}
		}()
	}
}

func sendReceiveLoop(b *testing.B, m *processor.Module) func(n int) {
	p := start(b, b.Context(), m, processor.Config{})
	receivers(b, p, 2)
	var id atomic.Uint64
	return func(n int) {
		for range n {
			if _, err := p.SendReceive(b.Context(), abi.IntID(id.Add(1)), costRequest); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func sendLoop(b *testing.B, m *processor.Module) func(n int) {
	p := start(b, b.Context(), m, processor.Config{Backlog: 1 << 16})
	r := p.Subscribe()
	id := uint64(0)
	return func(n int) {
		var receiving sync.WaitGroup
		receiving.Go(func() {
			for range n {
				if _, err := r.Next(b.Context()); err != nil {
					b.Error(err)
				}
			}
		})
		for range n {
			id++
			if err := p.Send(b.Context(), abi.IntID(id), costRequest); err != nil {
				b.Fatal(err)
			}
		}
		receiving.Wait()
	}
}

func streamLoop(b *testing.B, m *processor.Module) func(n int) {
	return func(n int) {
		requests := func(context.Context) iter.Seq2[processor.Request, error] {
			return func(yield func(processor.Request, error) bool) {
				for i := range n {
					if !yield(processor.Request{ID: abi.IntID(uint64(i)), Item: costRequest}, nil) {
						return
					}
				}
			}
		}
		sink := &processor.AnswerWriter{W: bufio.NewWriterSize(io.Discard, 64<<10)}
		if err := processor.Stream(b.Context(), m, requests, sink, processor.StreamOptions{}); err != nil {
			b.Fatal(fmt.Errorf("stream: %w", err))
		}
	}
}
