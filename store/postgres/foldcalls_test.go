package postgres_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

// TestCallsAreLeased leases the calls of a fold: none is leased twice, those of a worker that
// vanished are leased again, the first result is kept, and the fold goes on when all are made.
func TestCallsAreLeased(t *testing.T) {
	s := open(t)
	_, n := handIn(t, s, 1, 30)
	w, other := register(t, s, "w"), register(t, s, "other")
	finishJob(t, w, n, 30)
	take := func(w *postgres.Worker, slot int) postgres.Lease {
		t.Helper()
		l, err := w.Next(t.Context(), slot, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := take(w, 1)
	if !l.Fold {
		t.Fatalf("%+v, want the fold", l)
	}
	spans := [][2]int{}
	for i := range 10 {
		spans = append(spans, [2]int{3 * i, 3*i + 3})
	}
	if err := w.Plan(t.Context(), l, 0, spans); err != nil {
		t.Fatal(err)
	}
	called := func(w *postgres.Worker, l postgres.Lease, output string) error {
		var calls []postgres.Call
		for c := l.First; c < l.Last; c++ {
			calls = append(calls, postgres.Call{N: c, Output: fmt.Append(nil, output, c), Fuel: 2, Nodes: []byte{1}})
		}
		return w.Called(t.Context(), l, 0, calls, l.Last)
	}
	holders := [10]int{}
	mine, lost := take(w, 1), take(other, 1)
	for _, l := range []postgres.Lease{mine, lost} {
		if !l.Calls || l.Fold {
			t.Fatalf("%+v, want calls", l)
		}
		for c := l.First; c < l.Last; c++ {
			holders[c]++
		}
	}
	if err := called(w, lost, "not mine "); !errors.Is(err, postgres.ErrNotHeld) {
		t.Errorf("another's lease: %v", err)
	}
	if err := called(w, postgres.Lease{Slot: 1, Key: mine.Key, First: lost.First, Last: lost.Last}, "not mine "); !errors.Is(err, postgres.ErrNotHeld) {
		t.Errorf("calls of another's lease: %v", err)
	}
	if err := called(w, mine, "result "); err != nil {
		t.Fatal(err)
	}
	if err := called(w, mine, "second "); err != nil { // the answer was lost
		t.Fatal(err)
	}
	s.ExecForTest(t, "update workers set seen = now() - interval '1 hour' where name = 'other'")
	for c := take(w, 1); !c.Fold; c = take(w, 1) {
		if !c.Calls {
			t.Fatalf("%+v, want calls", c)
		}
		for i := c.First; i < c.Last; i++ {
			holders[i]++
		}
		if err := called(w, c, "result "); err != nil {
			t.Fatal(err)
		}
		l = c
	}
	for c, count := range holders {
		if again := c >= lost.First && c < lost.Last; count != 1 && !again || again && count != 2 {
			t.Errorf("call %d was leased %d times", c, count)
		}
	}
	calls, err := w.Calls(t.Context(), take(w, 1), -1, 0, postgres.All, true)
	if err != nil || len(calls) != 10 {
		t.Fatalf("%d calls, %v", len(calls), err)
	}
	for i := range calls {
		if c := &calls[i]; !c.Sound() || string(c.Output) != fmt.Sprint("result ", i) || c.Fuel != 2 || c.First != 3*i {
			t.Errorf("%+v", c)
		}
	}
}

// TestPoisonedCalls loses each worker that makes one call of a fold, and one worker with each of
// the others: the job is broken after the third that made only this call, and only for it.
func TestPoisonedCalls(t *testing.T) {
	for _, poison := range []int{-1, 0, 4, 9} { // -1 = none
		t.Run(fmt.Sprint(poison), func(t *testing.T) {
			s := open(t)
			id, n := handIn(t, s, 1, 30)
			w := register(t, s, "w")
			finishJob(t, w, n, 30)
			f, err := w.Next(t.Context(), 1, nil, nil)
			if err != nil || !f.Fold {
				t.Fatalf("%+v, %v", f, err)
			}
			spans := [][2]int{}
			for i := range 10 {
				spans = append(spans, [2]int{3 * i, 3*i + 3})
			}
			if err := w.Plan(t.Context(), f, 0, spans); err != nil {
				t.Fatal(err)
			}
			lost, deaths := map[int]bool{}, 0
			for step := range 60 {
				dies := register(t, s, fmt.Sprint("w", step))
				l, err := dies.Next(t.Context(), 1, nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				if l.Fold || l.Key == 0 { // all calls are made, or the job is broken
					break
				}
				fails := false
				for c := l.First; c < l.Last; c++ {
					fails = fails || c == poison || !lost[c]
					lost[c] = true
				}
				if poison >= l.First && poison < l.Last {
					deaths++
				}
				if fails {
					s.ExecForTest(t, fmt.Sprintf("update workers set seen = now() - interval '1 hour' where name = 'w%d'", step))
					continue
				}
				var calls []postgres.Call
				for c := l.First; c < l.Last; c++ {
					calls = append(calls, postgres.Call{N: c, Output: []byte("result"), Nodes: []byte{1}})
				}
				if err := errors.Join(dies.Called(t.Context(), l, 0, calls, l.Last), dies.Leave(t.Context())); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := register(t, s, "last").Next(t.Context(), 1, nil, nil); err != nil {
				t.Fatal(err)
			}
			p, err := s.Progress(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			const message = "aggregate failed: lost: 3 workers died or vanished while they made this call"
			if poison < 0 && (p.State != "active" || p.BrokenBy != "") || poison >= 0 && (p.State != "broken" || p.BrokenBy != "fold" || p.Error != message || deaths > 4) {
				t.Errorf("%d deaths, %+v", deaths, p)
			}
		})
	}
}
