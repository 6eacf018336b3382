package host_test

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	goruntime "runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/linear"
)

// TestGuestEnds ends 1,000 guests at random moments: calls and loops by their
// context, loops by a break, and all by Close. Some of their chunks trap, and
// some loop. No goroutine and no instance may be left.
func TestGuestEnds(t *testing.T) {
	const guests = 1000
	engine := newEngine(t)
	wasm := readFile(t, "../guest-examples/faulty/c/faulty.wasm")
	open(t, wasm, host.Options{Engine: engine}) // compiles it
	before, live := goruntime.NumGoroutine(), linear.Live()
	var created, outputs uint64
	for i := range guests {
		g, err := host.Open(t.Context(), wasm, host.Options{
			Engine: engine, Workers: 1 + i%3, Settings: runtime.Settings{Timeout: 5 * time.Millisecond}, // Close waits for this long
		})
		if err != nil {
			t.Fatal(err)
		}
		outputs += endGuest(t, g, i)
		closeGuest(t, g)
		created += g.Stats().Created
	}
	t.Logf("%d instances were created and closed, and gave %d outputs", created, outputs)
	if outputs == 0 {
		t.Error("no call gave an output")
	}
	if linear.Live() != live {
		t.Errorf("%d memories are left", linear.Live()-live)
	}
	checkGoroutines(t, before)
}

// endGuest uses a guest until it is ended in one of four ways.
func endGuest(t *testing.T, g *host.Guest, i int) (outputs uint64) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	end := []func(){cancel, func() { closeGuest(t, g) }, func() { cancel(); closeGuest(t, g) }, func() {}}[i%4]
	var ended sync.WaitGroup
	ended.Add(1)
	time.AfterFunc(rand.N(time.Millisecond), func() { defer ended.Done(); end() })
	all.Go(ended.Wait)
	for range 3 {
		all.Go(func() { callUntilEnd(t, ctx, g) })
	}
	loop := g.Map
	if i%2 == 0 {
		loop = g.MapOrdered
	}
	stop := rand.N(uint64(50))
	for _, err := range loop(ctx, someLoop()) {
		if err == nil {
			outputs++
		}
		if i%4 == 3 && outputs >= stop {
			cancel() // the callers
			break
		}
		checkEnd(t, err)
	}
	return outputs
}

const loops = "\xa1\x62do\x64loop"

// someLoop yields integers without end, and sometimes a chunk that makes the
// guest loop.
func someLoop() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for n := uint64(0); ; n++ {
			chunk := number(n)
			if rand.N(500) == 0 {
				chunk = []byte(loops)
			}
			if !yield(chunk, nil) {
				return
			}
		}
	}
}

func callUntilEnd(t *testing.T, ctx context.Context, g *host.Guest) {
	for err := error(nil); ctx.Err() == nil && !errors.Is(err, host.ErrClosed); checkEnd(t, err) {
		short, cancel := context.WithTimeout(ctx, rand.N(time.Millisecond))
		chunk := number(rand.N(uint64(100)))
		if rand.N(10) == 0 {
			chunk = []byte(loops)
		}
		_, err = g.Call(short, chunk)
		cancel()
	}
}

// checkEnd fails the test on any error that is not from a guest or from the
// end.
func checkEnd(t *testing.T, err error) {
	t.Helper()
	failure, failed := errors.AsType[*abi.Failure](err)
	switch {
	case err == nil, failed && (failure.Class == abi.ClassTrap || failure.Class == abi.ClassTimeout):
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, host.ErrClosed):
	default:
		t.Errorf("error %v", err)
	}
}

// The end of a context can be found in the error of a job; the error of Stop
// does not look like one.
func TestInterruptedBy(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(ctx context.Context, stop chan struct{}) (context.Context, context.CancelFunc)
		want error
	}{
		{"cancelling", func(ctx context.Context, _ chan struct{}) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(90*time.Second, cancel)
			return ctx, cancel
		}, context.Canceled},
		{"a deadline", func(ctx context.Context, _ chan struct{}) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 90*time.Second)
		}, context.DeadlineExceeded},
		{"stop", func(ctx context.Context, stop chan struct{}) (context.Context, context.CancelFunc) {
			close(stop)
			return ctx, func() {}
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := squares()
				f.delay = func() time.Duration { return time.Minute }
				stop := make(chan struct{})
				ctx, cancel := tt.end(t.Context(), stop)
				defer cancel()
				_, err := coordinator(t, f, host.Config{Workers: 1}).Run(ctx, &host.Job{
					Module: fakeWasm, Chunks: chunksOf(t, numbers(8)...), Stop: stop,
				})
				if !errors.Is(err, host.ErrInterrupted) || err.Error() != host.ErrInterrupted.Error() {
					t.Errorf("error %v", err)
				}
				for _, end := range []error{context.Canceled, context.DeadlineExceeded} {
					if errors.Is(err, end) != (end == tt.want) {
						t.Errorf("errors.Is(%v, %v) is %t", err, end, end != tt.want)
					}
				}
			})
		})
	}
}
