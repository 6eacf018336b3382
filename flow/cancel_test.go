package flow

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	goruntime "runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
	"github.com/wasm-jobs/wasm-jobs/store"
)

var cancellations = flag.Int("cancellations", 300, "how many flows TestCancel stops")

// TestCancel stops flows at random moments, softly or at once: the call returns,
// no goroutine is left, every instance is given back, and the next run of the same
// store comes to the same end.
func TestCancel(t *testing.T) {
	rounds := *cancellations
	if testing.Short() {
		rounds = min(rounds, 60)
	}
	before := goruntime.NumGoroutine()
	interrupted := 0
	for round := range rounds {
		g := generate(uint64(round % 5))
		g.flaky = true
		var values []any
		for i := range 30 {
			values = append(values, datum{N: 1 + i%9, V: uint64(i)})
		}
		s := store.NewMemory()
		in := inputOf(t, values...)
		leases := watchLeases(t)
		run := Run{Flow: g.flow, Input: in, Bounds: Bounds{MaxSteps: 60, MaxDepth: 4}, Grace: time.Second, Events: leases}
		stop := make(chan struct{})
		run.Stop = stop
		ctx, cancel := context.WithCancel(context.Background())
		after := time.Duration(rand.Int64N(int64(30 * time.Millisecond)))
		timer := time.AfterFunc(after, func() {
			if round%2 == 0 {
				close(stop)
			} else {
				cancel()
			}
		})
		res, err := NewRunner(Config{Workers: 3, Store: s}).Run(ctx, &run)
		timer.Stop()
		cancel()
		switch {
		case errors.Is(err, ErrInterrupted):
			interrupted++
			if res.Report.State != Interrupted {
				t.Fatalf("state %s", res.Report.State)
			}
		case err != nil:
			t.Fatal(err)
		}
		if len(leases.open) > 0 {
			t.Fatalf("%d leases did not end", len(leases.open))
		}
		run.Events = nil
		if n := &res.Report.Instances; n.Created != n.Closed {
			t.Fatalf("%d instances were lent, and %d given back", n.Created, n.Closed)
		}
		g.flaky = false
		run.Stop = nil
		again := &lines{}
		run.Sink = again
		if _, err := NewRunner(Config{Workers: 2, Store: s}).Run(context.Background(), &run); err != nil {
			t.Fatal(err)
		}
		fresh := &lines{}
		run.Sink = fresh
		if _, err := NewRunner(Config{}).Run(context.Background(), &run); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(again.all) != fmt.Sprint(fresh.all) {
			t.Fatal("another end after an interruption")
		}
		s.Close()
	}
	for range 100 {
		if goruntime.NumGoroutine() <= before {
			break
		}
		time.Sleep(10 * time.Millisecond) // timers that just fired
	}
	if n := goruntime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, and there were %d", n, before)
	}
	t.Logf("%d of %d were interrupted", interrupted, rounds)
	if interrupted == 0 {
		t.Error("none was interrupted")
	}
}

// TestHold: an intent without a result holds the item, unless its attempt is known
// to have failed.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := store.NewMemory()
		defer s.Close()
		calls := atomic.Int64{}
		behave := func(ctx context.Context, v any) (any, error) {
			calls.Add(1)
			if v.(uint64) == 1 {
				return nil, abi.Failf(abi.ClassGuest, "no")
			}
			if v.(uint64) == 2 && calls.Load() < 10 {
				<-ctx.Done() // the process dies meanwhile
				return nil, ctx.Err()
			}
			return v, nil
		}
		f := &Flow{Name: "hold", States: []State{
			{Name: "call", Next: "done", Hold: true, Retry: queue.Policy{}, Exec: effectFunc("call", behave)},
			{Name: "done", End: true},
		}}
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		run := &Run{Flow: f, Input: inputOf(t, 0, 1, 2)}
		if _, err := NewRunner(Config{Store: s, Records: s}).Run(ctx, run); !errors.Is(err, ErrInterrupted) {
			t.Fatal(err)
		}
		calls.Store(20)
		got := &lines{}
		run.Sink = got
		res, err := NewRunner(Config{Store: s, Records: s}).Run(context.Background(), run)
		if err != nil {
			t.Fatal(err)
		}
		if calls.Load() != 21 { // item 1, which was known to have failed
			t.Errorf("%d calls after the crash, want 1", calls.Load()-20)
		}
		if res.Report.Effects.Uncertain != 1 || res.Report.State != Held || res.Report.Items.Held != 1 {
			t.Errorf("%+v %+v %s", res.Report.Effects, res.Report.Items, res.Report.State)
		}
		look := &Look{Name: "hold", Flow: f, Input: run.Input, Store: s, Generation: 2}
		var states []string
		if _, err := look.Items(context.Background(), func(i *ItemState) error {
			states = append(states, fmt.Sprintf("%v %s %s", i.ID, i.State, i.Class))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(states) != "[0 done  1 call guest 2 uncertain ]" {
			t.Errorf("%q", states)
		}
		// a person decides that it was made
		if err := KeepRedrives(context.Background(), s, "hold", []Redrive{{ID: abi.IntID(2), From: "call", Step: 1, To: "done"}}); err != nil {
			t.Fatal(err)
		}
		res, err = NewRunner(Config{Store: s, Records: s}).Run(context.Background(), run)
		if err != nil || res.Report.Items.Ended != 2 || res.Report.Interventions != 1 {
			t.Errorf("%v %+v", err, res.Report.Items)
		}
	})
}

// TestGivenEffects: with the results and failures of effects, a run comes to the
// same receipt or end, and makes none.
func TestGivenEffects(t *testing.T) {
	calls := 0
	f := &Flow{Name: "given", States: []State{
		{Name: "call", Next: "done", On: map[abi.Class]string{abi.ClassGuest: "other"}, Own: Limit{Concurrency: 1}, Exec: effectFunc("call", func(_ context.Context, v any) (any, error) {
			if calls++; v.(uint64)%2 == 1 {
				return nil, Permanent(errors.New("odd"))
			}
			return v.(uint64) + 10, nil
		})},
		{Name: "other", Next: "done", Exec: pureFunc("other", func(v any) any { return v })},
		{Name: "done", End: true},
	}}
	var leaves [][]byte
	run := &Run{Flow: f, Input: inputOf(t, rangeOf(6)...), Effects: func(leaf []byte) error {
		leaves = append(leaves, append([]byte(nil), leaf...))
		return nil
	}}
	made, err := NewRunner(Config{}).Run(context.Background(), run)
	if err != nil || len(leaves) != 6 || calls != 6 {
		t.Fatalf("%v, %d leaves, %d calls", err, len(leaves), calls)
	}
	run.Effects = nil
	for n := range 7 { // leaves that are there
		if run.Given, err = ReadEffects(func(yield func([]byte, error) bool) {
			for _, leaf := range leaves[:n] {
				if !yield(leaf, nil) {
					return
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
		given, err := NewRunner(Config{}).Run(context.Background(), run)
		if n < 6 {
			if _, missing := errors.AsType[*MissingEffectError](err); !missing {
				t.Errorf("%d of 6 results: %v", n, err)
			}
			continue
		}
		a, _ := made.Receipt.Marshal()
		b, _ := given.Receipt.Marshal()
		if err != nil || string(a) != string(b) {
			t.Errorf("%v: another receipt\n%s\n%s", err, a, b)
		}
	}
	if calls != 6 {
		t.Errorf("%d calls, and none was to be made", calls-6)
	}
	for _, bad := range [][]byte{{0x01}, {0x85, 1, 2, 3, 4, 5}, leaves[0][:len(leaves[0])-1]} {
		if _, err := ReadEffects(func(yield func([]byte, error) bool) { yield(bad, nil) }); err == nil {
			t.Errorf("%x was taken for the result of an effect", bad)
		}
	}
}

// TestDamagedEffect: an item whose record the store dropped is held, and its effect
// is not made again.
func TestDamagedEffect(t *testing.T) {
	calls := 0
	f := &Flow{Name: "damaged", States: []State{
		{Name: "call", Next: "done", Own: Limit{Concurrency: 1}, Exec: effectFunc("call", func(_ context.Context, v any) (any, error) {
			calls++
			return v, nil
		})},
		{Name: "done", End: true},
	}}
	run := &Run{Flow: f, Input: inputOf(t, 5, 6), Damaged: func(store.Digest) bool { return true }}
	res, err := NewRunner(Config{}).Run(context.Background(), run)
	if err != nil || res.Report.Effects.Uncertain != 2 || calls != 0 {
		t.Errorf("%v %+v, %d calls", err, res.Report.Effects, calls)
	}
}

// TestManyVisits: children of three visits have the numbers 0 to 5, and attempts
// that fail after their guest made children leave none.
func TestManyVisits(t *testing.T) {
	attempts := 0
	f := &Flow{Name: "visits", States: []State{
		{Name: "a", Moves: true, To: []string{"a", "c", "done"}, Own: Limit{Concurrency: 1}, Retry: queue.Policy{Retries: 3}, Exec: pureFunc("a", func(v any) any {
			if attempts++; attempts%2 == 1 {
				return abi.Failf(abi.ClassGuestRetryable, "again")
			}
			n := v.(uint64)
			kids := []any{map[string]any{"next": "c", "data": n}, map[string]any{"next": "c", "data": n + 100}}
			if n == 2 {
				return map[string]any{"next": "done", "data": n, "emit": kids}
			}
			return map[string]any{"next": "a", "data": n + 1, "emit": kids}
		})},
		{Name: "c", Next: "done", Exec: pureFunc("c", func(v any) any { return v })},
		{Name: "done", End: true},
	}}
	s := store.NewMemory()
	defer s.Close()
	for range 2 {
		g := &gathered{}
		run := &Run{Flow: f, Input: inputOf(t, 0), Sink: g}
		if _, err := NewRunner(Config{Store: s}).Run(context.Background(), run); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(g.lines); got != "[0 done 2 0->0 done 0 0->1 done 100 0->2 done 1 0->3 done 101 0->4 done 2 0->5 done 102]" {
			t.Error(got)
		}
	}
}

// TestLargeJoin: children with more data than a join may have fail only their
// parent.
func TestLargeJoin(t *testing.T) {
	f := &Flow{Name: "large", States: []State{
		{Name: "a", Moves: true, To: []string{"c", "j"}, Children: &Children{Join: "j"}, Exec: pureFunc("a", func(v any) any {
			kids := []any{}
			for range v.(uint64) {
				kids = append(kids, map[string]any{"next": "c", "data": "0123456789"})
			}
			return map[string]any{"next": "j", "emit": kids}
		})},
		{Name: "c", Next: "done", Exec: pureFunc("c", func(v any) any { return v })},
		{Name: "j", Next: "done", Exec: pureFunc("j", func(v any) any { return "joined" })},
		{Name: "done", End: true},
	}}
	for _, most := range []int{50, 100} { // of the children's data, and of all that the join makes
		g := &gathered{}
		run := &Run{Flow: f, Input: inputOf(t, 6, 1), Sink: g, Bounds: Bounds{MaxData: most}}
		if _, err := NewRunner(Config{}).Run(context.Background(), run); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(g.dead); got != "[0 a children the data of 6 children is too large]" {
			t.Errorf("%d: %s", most, got)
		}
	}
}

// forgetful is a store that has lost the results of the effects of a run.
type forgetful struct {
	*store.Memory
	lost store.Action
}

func (f forgetful) Get(ctx context.Context, action store.Action, keys []store.Key, found func(int, store.Value) error) error {
	if action == f.lost {
		return nil
	}
	return f.Memory.Get(ctx, action, keys, found)
}

// TestLostEffect: the result of an effect is lost, and no process knows any more that it
// was damaged. The item is held, for an inspection too, and goes on when a person
// decides so.
func TestLostEffect(t *testing.T) {
	calls := 0
	f := &Flow{Name: "lost", States: []State{
		{Name: "call", Next: "done", Own: Limit{Concurrency: 1}, Exec: effectFunc("call", func(_ context.Context, v any) (any, error) {
			calls++
			return v, nil
		})},
		{Name: "done", End: true},
	}}
	memory := store.NewMemory()
	defer memory.Close()
	in := inputOf(t, 5, 6)
	var s store.Store = memory
	run := func() *Result {
		t.Helper()
		res, err := NewRunner(Config{Store: s}).Run(context.Background(), &Run{Flow: f, Input: in})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	run()
	s = forgetful{memory, IDOf("lost").action(kindEffect)}
	if res := run(); res.Report.Effects.Uncertain != 2 || calls != 2 {
		t.Errorf("%+v, %d calls", res.Report.Effects, calls)
	}
	r, err := (&Look{Name: "lost", Flow: f, Input: in, Store: s}).Items(context.Background(), func(i *ItemState) error {
		if i.State != uncertain {
			t.Errorf("item %v is in state %s", i.ID, i.State)
		}
		return nil
	})
	if err != nil || r.Effects.Uncertain != 2 {
		t.Errorf("%v, %+v", err, r)
	}
	s = memory
	all := []Redrive{{ID: abi.IntID(0), From: "call", Step: 1, To: "call"}, {ID: abi.IntID(1), From: "call", Step: 1, To: "done"}}
	if err := KeepRedrives(context.Background(), s, "lost", all); err != nil {
		t.Fatal(err)
	}
	if res := run(); res.Report.Items.Ended != 2 || calls != 3 {
		t.Errorf("%+v, %d calls", res.Report.Items, calls)
	}
}
