package runtime_test

import (
	"context"
	"errors"
	"flag"
	goruntime "runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

var assertAlive = flag.Bool("alive", false, "assert times in TestHostStaysAlive, which needs two idle cores")

// TestHostStaysAlive collects garbage and waits for timers while guests keep
// two cores busy: one in a loop, one in calls.
func TestHostStaysAlive(t *testing.T) {
	const (
		samples = 50
		limit   = 20 * time.Millisecond
	)
	p := pool(t, armed(t)["bomb"], runtime.Settings{})
	ctx, cancel := context.WithCancel(t.Context())
	var guests sync.WaitGroup
	for _, chunk := range []byte{1, 2} {
		guests.Go(func() {
			i := p.Borrow(nil)
			defer i.Release()
			for ctx.Err() == nil { // calls end after a few seconds
				if _, _, err := i.Call(ctx, abi.ExportExec, []byte{chunk}, nil); err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("bomb %d: %v", chunk, err)
				}
			}
		})
	}
	var collections, timers []time.Duration
	for range samples {
		start := time.Now()
		goruntime.GC()
		collections = append(collections, time.Since(start))
		const wait = 5 * time.Millisecond
		start = time.Now()
		<-time.After(wait)
		timers = append(timers, time.Since(start)-wait)
	}
	cancel()
	start := time.Now()
	guests.Wait()
	t.Logf("the guests stopped %.1f ms after their cancellation", ms(time.Since(start)))
	for what, times := range map[string][]time.Duration{"runtime.GC() took": collections, "timers were late by": timers} {
		slices.Sort(times)
		t.Logf("%s %.1f ms (median of %d), at most %.1f", what, ms(times[samples/2]), samples, ms(times[samples-1]))
		if *assertAlive && times[samples/2] > limit {
			t.Errorf("%s %s, more than the limit of %s", what, times[samples/2], limit)
		}
	}
}
