package flow

import (
	"context"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/event"
)

// leaseWatch checks that each lease ends before its worker has another one, and that
// failed attempts are in a lease.
type leaseWatch struct {
	t            *testing.T
	open         map[leaseHolder]bool
	given, tried int
}

type leaseHolder struct {
	state  string
	worker int
}

func watchLeases(t *testing.T) *leaseWatch {
	return &leaseWatch{t: t, open: map[leaseHolder]bool{}}
}

func (w *leaseWatch) Progress(string, event.Counts) {}
func (w *leaseWatch) Wants() event.Detail           { return event.Attempts }

func (w *leaseWatch) Observe(events []event.Event) {
	for i := range events {
		e := &events[i]
		of := leaseHolder{e.State, e.Worker}
		switch e.Kind {
		case event.KindLeased:
			if w.open[of] {
				w.t.Errorf("%v has two leases", of)
			}
			w.open[of] = true
			w.given++
		case event.KindLeaseEnded:
			if !w.open[of] {
				w.t.Errorf("%v has no lease that can end", of)
			}
			delete(w.open, of)
		case event.KindRetry, event.KindRequeue, event.KindRouted, event.KindFailed:
			if e.Worker > 0 && !w.open[of] {
				w.t.Errorf("%v fails without a lease", of)
			}
			w.tried++
		}
	}
}

// TestEventsOfTheLastSteps has many effects that fail together: the last events come when
// nothing moves any more, and are not lost.
func TestEventsOfTheLastSteps(t *testing.T) {
	for range 20 {
		begun, all := make(chan struct{}, effectHolders), make(chan struct{})
		call := func(context.Context, [32]byte, []byte) ([]byte, error) {
			if begun <- struct{}{}; len(begun) == effectHolders {
				close(all)
			}
			<-all
			return nil, abi.Failf(abi.ClassGuest, "no")
		}
		var values []any
		for i := range effectHolders {
			values = append(values, i)
		}
		w := watchLeases(t)
		r := &Run{Input: inputOf(t, values...), Events: w, Flow: &Flow{Name: "x", Start: "a", States: []State{
			{Name: "a", Exec: &Func{Name: "a", Call: call}, Next: "end"}, {Name: "end", End: true},
		}}}
		if _, err := NewRunner(Config{Workers: 1}).Run(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if w.given != effectHolders || w.tried != effectHolders || len(w.open) > 0 {
			t.Fatalf("%d leases, %d failed attempts, and %d leases did not end; want %d of each and 0", w.given, w.tried, len(w.open), effectHolders)
		}
	}
}
