package flow

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/host/queue"
)

// effectFunc is an effect of a test.
func effectFunc(name string, f func(ctx context.Context, v any) (any, error)) *Func {
	return &Func{Name: name, Call: func(ctx context.Context, _ [32]byte, data []byte) ([]byte, error) {
		var v any
		if err := cbor.Unmarshal(data, &v); err != nil {
			return nil, err
		}
		out, err := f(ctx, v)
		if err != nil {
			return nil, err
		}
		return cbor.Marshal(out)
	}}
}

func rangeOf(n int) (values []any) {
	for i := range n {
		values = append(values, uint64(i))
	}
	return values
}

// counter counts attempts, and how many run at once.
type counter struct {
	mu        sync.Mutex
	now, most int
	starts    []time.Time
	attempts  []uint64
	perItem   map[uint64]int
}

func (c *counter) begin(v any) (attempt int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now++
	c.most = max(c.most, c.now)
	c.starts = append(c.starts, time.Now())
	n, _ := v.(uint64)
	c.attempts = append(c.attempts, n)
	if c.perItem == nil {
		c.perItem = map[uint64]int{}
	}
	c.perItem[n]++
	return c.perItem[n]
}

func (c *counter) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now--
}

func runTest(t *testing.T, f *Flow, n int, change func(*Run)) *Result {
	t.Helper()
	run := &Run{Flow: f, Input: inputOf(t, rangeOf(n)...), Observe: conserved(t), Grace: time.Second}
	if change != nil {
		change(run)
	}
	res, err := NewRunner(Config{Workers: 2}).Run(context.Background(), run)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestRate(t *testing.T) {
	for _, concurrency := range []int{1, 3, 64} {
		synctest.Test(t, func(t *testing.T) {
			var c counter
			f := &Flow{Name: "rate", Limits: map[string]Limit{"l": {Rate: 10, Concurrency: concurrency}}, States: []State{
				{Name: "call", Next: "done", Limit: "l", Retry: queue.Policy{Retries: 3}, Exec: effectFunc("call", func(_ context.Context, v any) (any, error) {
					attempt := c.begin(v)
					defer c.end()
					time.Sleep(20 * time.Millisecond)
					if attempt == 1 && v.(uint64)%7 == 0 {
						return nil, errors.New("once")
					}
					return v, nil
				})},
				{Name: "done", End: true},
			}}
			start := time.Now()
			runTest(t, f, 85, nil) // and 13 retries
			if took, n := time.Since(start), len(c.starts); took < 9*time.Second || took > 10500*time.Millisecond || n != 98 {
				t.Errorf("%d attempts in %v", n, took)
			}
			if c.most > concurrency {
				t.Errorf("%d at once, and %d are allowed", c.most, concurrency)
			}
		})
	}
}

func TestSharedAndKeyedLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		call := func(name string) *Func {
			return effectFunc(name, func(_ context.Context, v any) (any, error) { return v, nil })
		}
		shared := &Flow{Name: "shared", Limits: map[string]Limit{"l": {Rate: 10}}, States: []State{
			{Name: "a", Next: "b", Limit: "l", Exec: call("a")}, {Name: "b", Next: "done", Limit: "l", Exec: call("b")}, {Name: "done", End: true},
		}}
		start := time.Now()
		runTest(t, shared, 50, nil)
		if took := time.Since(start); took < 9*time.Second || took > 10500*time.Millisecond {
			t.Errorf("two states under one limit took %v for 100 steps at 10/s", took)
		}
		keyed := &Flow{Name: "keyed", Limits: map[string]Limit{"l": {Rate: 10, Key: "id"}}, States: []State{
			{Name: "a", Next: "done", Limit: "l", Exec: call("a")}, {Name: "done", End: true},
		}}
		start = time.Now()
		runTest(t, keyed, 0, func(r *Run) {
			var values []any
			for range 25 {
				values = append(values, map[string]any{"id": "x"}, map[string]any{"id": "y"})
			}
			r.Input = unnamed(t, values...)
		})
		if took := time.Since(start); took < 2400*time.Millisecond || took > 2600*time.Millisecond {
			t.Errorf("two keys took %v for 25 steps each at 10/s", took)
		}
	})
}

// TestSharedConcurrency: two states under one limit share it.
func TestSharedConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c counter
		call := func(name string) *Func {
			return effectFunc(name, func(_ context.Context, v any) (any, error) {
				c.begin(v)
				defer c.end()
				time.Sleep(10 * time.Millisecond)
				return v, nil
			})
		}
		f := &Flow{Name: "shared", Limits: map[string]Limit{"l": {Concurrency: 3}}, States: []State{
			{Name: "a", Next: "b", Limit: "l", Exec: call("a")}, {Name: "b", Next: "done", Limit: "l", Exec: call("b")}, {Name: "done", End: true},
		}}
		runTest(t, f, 50, nil)
		if c.most != 3 {
			t.Errorf("%d at once, and 3 are allowed", c.most)
		}
	})
}

// TestAWaitHoldsNothing: a state that is limited to a step in ten seconds does not
// hold up another.
func TestAWaitHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow, fast counter
		f := &Flow{Name: "two", States: []State{
			{Name: "fork", Moves: true, To: []string{"slow", "fast"}, Exec: pureFunc("fork", func(v any) any {
				return map[string]any{"next": []string{"slow", "fast"}[v.(uint64)%2], "data": v}
			})},
			{Name: "slow", Next: "done", Own: Limit{Rate: 0.1}, Exec: effectFunc("slow", func(_ context.Context, v any) (any, error) {
				slow.begin(v)
				defer slow.end()
				return v, nil
			})},
			{Name: "fast", Next: "done", Exec: effectFunc("fast", func(_ context.Context, v any) (any, error) {
				fast.begin(v)
				defer fast.end()
				return v, nil
			})},
			{Name: "done", End: true},
		}}
		start := time.Now()
		runTest(t, f, 20, nil)
		if last := fast.starts[len(fast.starts)-1]; last.Sub(start) > time.Second {
			t.Errorf("the other state waited until %v", last.Sub(start))
		}
		if took := time.Since(start); took < 90*time.Second {
			t.Errorf("ten steps at one in ten seconds took %v", took)
		}
	})
}

func TestSlowDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c counter
		told := map[int]time.Duration{3: 30 * time.Second, 6: 999_999 * time.Second}
		f := &Flow{Name: "told", States: []State{
			{Name: "call", Next: "done", Own: Limit{Concurrency: 1}, Exec: effectFunc("call", func(_ context.Context, v any) (any, error) {
				c.begin(v)
				defer c.end()
				if after := told[len(c.starts)]; after > 0 {
					return nil, &SlowDown{After: after, Err: errors.New("429")}
				}
				return v, nil
			})},
			{Name: "done", End: true},
		}}
		res := runTest(t, f, 8, nil)
		if gap := c.starts[3].Sub(c.starts[2]); gap != 30*time.Second {
			t.Errorf("after 30 s were told, the next attempt came after %v", gap)
		}
		if gap := c.starts[6].Sub(c.starts[5]); gap != time.Hour {
			t.Errorf("after 999999 s were told, the next attempt came after %v, and an hour is the most", gap)
		}
		s := res.Report.States[0]
		if s.Slowed != 2 || s.Failed != 0 || s.Limit.Cut != 1 {
			t.Errorf("slowed %d, failed %d, cut %d", s.Slowed, s.Failed, s.Limit.Cut)
		}
	})
}

// TestAdaptive: a service that hides a capacity of ten a second.
func TestAdaptive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c counter
		var done []time.Time
		window, used := time.Now(), 0
		f := &Flow{Name: "adaptive", Limits: map[string]Limit{"l": {Rate: 8000, Burst: 1, Concurrency: 50, Adaptive: true, Min: 1, Max: 8000}}, States: []State{
			{Name: "call", Next: "done", Limit: "l", Retry: queue.Policy{Backoff: 100 * time.Millisecond}, Exec: effectFunc("call", func(_ context.Context, v any) (any, error) {
				c.mu.Lock()
				defer c.mu.Unlock()
				if now := time.Now(); now.Sub(window) >= time.Second {
					window, used = now, 0
				}
				if used++; used > 10 {
					return nil, &SlowDown{Err: errors.New("429")}
				}
				done = append(done, time.Now())
				return v, nil
			})},
			{Name: "done", End: true},
		}}
		res := runTest(t, f, 1500, nil)
		last := done[len(done)-1000:]
		mean := 999 / last[999].Sub(last[0]).Seconds()
		if mean < 5 || mean > 11 {
			t.Errorf("the last 1,000 steps came at %.1f a second, and the capacity is 10", mean)
		}
		if s := res.Report.States[0]; s.Failed != 0 || s.Slowed == 0 || s.Slowed > 20_000 { // without the adaption, 875,300
			t.Errorf("failed %d, slowed %d", s.Failed, s.Slowed)
		}
		t.Logf("%.1f a second, %d slow-downs", mean, res.Report.States[0].Slowed)
	})
}

// TestRetriesComeLast: one worker, five items that each fail twice.
func TestRetriesComeLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c counter
		f := &Flow{Name: "rounds", States: []State{
			{Name: "call", Next: "done", Own: Limit{Concurrency: 1}, Retry: queue.Policy{Retries: 5}, Exec: effectFunc("call", func(_ context.Context, v any) (any, error) {
				defer c.end()
				if c.begin(v) <= 2 {
					return nil, errors.New("again")
				}
				return v, nil
			})},
			{Name: "done", End: true},
		}}
		runTest(t, f, 5, nil)
		if got := fmt.Sprint(c.attempts); got != "[0 1 2 3 4 0 1 2 3 4 0 1 2 3 4]" {
			t.Errorf("attempts in the order %s", got)
		}
	})
}

func TestBottleneck(t *testing.T) {
	stage := func(name string, took time.Duration, next string, l Limit) State {
		return State{Name: name, Next: next, Own: l, Exec: effectFunc(name, func(_ context.Context, v any) (any, error) {
			time.Sleep(took)
			return v, nil
		})}
	}
	one := Limit{Concurrency: 1}
	for want, last := range map[string]Limit{"b concurrency": one, "c rate": {Rate: 5, Concurrency: 1}} {
		synctest.Test(t, func(t *testing.T) {
			f := &Flow{Name: "stages", States: []State{
				stage("a", time.Millisecond, "b", one), stage("b", 10*time.Millisecond, "c", one), stage("c", 2*time.Millisecond, "done", last),
				{Name: "done", End: true},
			}}
			res := runTest(t, f, 300, nil)
			if b := res.Report.Bottleneck; b == nil || b.State+" "+b.Cause != want {
				t.Errorf("bottleneck %+v, want %s", b, want)
			}
		})
	}
}

func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &Flow{Name: "waits", States: []State{
			{Name: "later", Moves: true, To: []string{"pause"}, Exec: pureFunc("later", func(v any) any {
				return map[string]any{"data": v, "after": 1500}
			})},
			{Name: "pause", Wait: 10 * time.Second, Next: "done"},
			{Name: "done", End: true},
		}}
		start := time.Now()
		res := runTest(t, f, 100, nil)
		if took := time.Since(start); took < 11400*time.Millisecond || took > 11600*time.Millisecond {
			t.Errorf("waits of 1.5 and 10 s took %v", took)
		}
		if res.Report.State != Succeeded {
			t.Error(res.Report.State)
		}
	})
}

// TestBlockedKeysStandAside: 3,000 items of a key whose limit allows a step in an
// hour stand before items of another key, which go on.
func TestBlockedKeysStandAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		var c counter
		f := &Flow{Name: "keys", Limits: map[string]Limit{"l": {Rate: 1.0 / 3600, Key: "id"}}, States: []State{
			{Name: "a", Next: "done", Limit: "l", Exec: effectFunc("a", func(_ context.Context, v any) (any, error) {
				defer c.end()
				if c.begin(v.(map[any]any)["id"]); v.(map[any]any)["id"] == "y" {
					close(stop)
				}
				return v, nil
			})},
			{Name: "done", End: true},
		}}
		var values []any
		for range 3000 {
			values = append(values, map[string]any{"id": "x"})
		}
		run := &Run{Flow: f, Input: unnamed(t, append(values, map[string]any{"id": "y"})...), Stop: stop, Grace: time.Second}
		start := time.Now()
		if _, err := NewRunner(Config{}).Run(context.Background(), run); !errors.Is(err, ErrInterrupted) {
			t.Fatal(err)
		}
		if took := time.Since(start); took > time.Minute {
			t.Errorf("the other key waited for %v", took)
		}
	})
}

// TestAutoConcurrency: a service that takes 12 requests at once, each for 100 ms, and
// one that takes any number.
func TestAutoConcurrency(t *testing.T) {
	for _, capacity := range []int{12, 1 << 20} {
		synctest.Test(t, func(t *testing.T) {
			var c counter
			var late []int
			f := &Flow{Name: "auto", States: []State{
				{Name: "call", Next: "done", Own: Limit{Auto: true}, Retry: queue.Policy{Backoff: 10 * time.Millisecond}, Exec: effectFunc("call", func(_ context.Context, v any) (any, error) {
					c.begin(v)
					defer c.end()
					c.mu.Lock()
					now := c.now
					late = append(late, now)
					c.mu.Unlock()
					if now > capacity {
						return nil, &SlowDown{Err: errors.New("busy")}
					}
					time.Sleep(100 * time.Millisecond)
					return v, nil
				})},
				{Name: "done", End: true},
			}}
			res := runTest(t, f, 3000, nil)
			most, sum := 0, 0
			for _, n := range late[len(late)/2:] {
				most, sum = max(most, n), sum+n
			}
			mean := sum / (len(late) - len(late)/2)
			call := &res.Report.States[0]
			switch {
			case res.Report.Items.Failed > 0 || call.Limit.Concurrency == 0:
				t.Errorf("%d failed, limit %+v", res.Report.Items.Failed, call.Limit)
			case capacity == 12 && (most > 16 || mean < 6 || call.Slowed == 0):
				t.Errorf("at most %d at once, %d on the mean, %d slow-downs: want about 12", most, mean, call.Slowed)
			case capacity > 12 && (most < 200 || most > maxAuto):
				t.Errorf("at most %d at once: want up to %d", most, maxAuto)
			}
		})
	}
}
