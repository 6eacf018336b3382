package cluster

import (
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

// Events returns the events of a job that the database has recorded.
func Events(noted []postgres.Event) (all []event.Event) {
	for _, n := range noted {
		e := event.Event{
			Time: n.Time, Kind: event.Kind(n.Kind), Holder: n.Worker,
			Lease: &event.Lease{From: n.First, To: n.Last, Since: n.Time, Why: event.Why(n.Why)},
		}
		all = append(all, e)
	}
	return all
}
