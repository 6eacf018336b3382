package queue

import (
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

func TestDecide(t *testing.T) {
	trap := &abi.Failure{Class: abi.ClassTrap, Message: "unreachable", Stack: []string{"f()"}}
	other := &abi.Failure{Class: abi.ClassTrap, Message: "unreachable", Stack: []string{"g()"}}
	blind := &abi.Failure{Class: abi.ClassTrap, Message: "unreachable"}
	guest, timeout, requeued := abi.Failf(abi.ClassGuest, "no"), abi.Failf(abi.ClassTimeout, "late"), abi.Failf(abi.ClassRequeued, "later")
	usual := DefaultPolicy()
	usual.MaxRequeues = 2
	stubborn, never, guests := usual, usual, usual
	stubborn.Deterministic = true
	never.Retries = 0
	guests.Classes = []abi.Class{abi.ClassGuest}
	for name, tt := range map[string]struct {
		policy Policy
		before History
		f      *abi.Failure
		want   Verdict
		text   string
		after  History
	}{
		"the first trap":                 {usual, History{}, trap, Retry, "unreachable", History{1, 0, trap}},
		"the same trap":                  {usual, History{1, 0, trap}, trap, Fail, "unreachable (the same twice: deterministic)", History{2, 0, trap}},
		"the same, retried nevertheless": {stubborn, History{1, 0, trap}, trap, Retry, "unreachable", History{2, 0, trap}},
		"another trap":                   {usual, History{1, 0, trap}, other, Retry, "unreachable", History{2, 0, other}},
		"the same without a stack":       {usual, History{1, 0, blind}, blind, Retry, "unreachable", History{2, 0, blind}},
		"the last retry":                 {usual, History{2, 0, trap}, timeout, Retry, "late", History{3, 0, timeout}},
		"no retry left":                  {usual, History{3, 0, trap}, timeout, Fail, "late", History{4, 0, timeout}},
		"no retries":                     {never, History{}, timeout, Fail, "late", History{1, 0, timeout}},
		"a class that is not retried":    {usual, History{}, guest, Fail, "no", History{1, 0, guest}},
		"a class that is":                {guests, History{}, guest, Retry, "no", History{1, 0, guest}},
		"a class not in the list":        {guests, History{}, timeout, Fail, "late", History{1, 0, timeout}},
		"a requeue":                      {usual, History{3, 0, trap}, requeued, Requeue, "later", History{3, 1, trap}},
		"one too many":                   {usual, History{0, 2, nil}, requeued, Fail, "returned to the queue 3 times: later", History{0, 3, nil}},
	} {
		after, d := Decide(tt.before, tt.f, &tt.policy)
		if d.Verdict != tt.want || d.Failure.Message != tt.text || d.Failure.Class != tt.f.Class || after != tt.after || d.Attempt != after.Failures+after.Requeues {
			t.Errorf("%s: %+v (%v), then %+v", name, d, d.Failure, after)
		}
	}
}

// Jitter does not make a delay longer than the maximum.
func TestDelayIsBounded(t *testing.T) {
	policy := Policy{Backoff: time.Second, BackoffMax: 2 * time.Second}
	for range 20 {
		var h chunkHistory
		for range 5 {
			if d := h.wait(Retry, &policy); d <= 0 || d > policy.BackoffMax {
				t.Fatalf("a delay of %v", d)
			}
		}
	}
	if d := new(chunkHistory).wait(Requeue, &policy); d != policy.Backoff {
		t.Errorf("a requeue waits %v", d)
	}
	if d := new(chunkHistory).wait(Retry, &Policy{}); d != 0 {
		t.Errorf("no backoff waits %v", d)
	}
}
