package cluster_test

import (
	"sync"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// watcher keeps what it hears.
type watcher struct {
	mu      sync.Mutex
	events  map[int][]event.Event // by slot
	outputs int
}

func (w *watcher) Observe(_ store.JobID, _ string, events []event.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range events {
		w.events[e.Worker] = append(w.events[e.Worker], e)
	}
}

func (w *watcher) Stored(outputs int, _ uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.outputs += outputs
}

// TestWatcher checks the order of what a watcher hears of each slot: a phase, leases that
// end before the next, failed attempts within a lease, and the end.
func TestWatcher(t *testing.T) {
	url := pgtest.URL(t)
	s := openStore(t, url)
	id := submit(t, s, newJob(t, faulty, 300))
	w := &watcher{events: map[int][]event.Event{}}
	stop := start(t, url, 2, func(c *cluster.Config) { c.Watcher = w })
	collect(t, s, id)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	leased, failed := 0, 0
	for slot, events := range w.events {
		phase, lease := "", false
		for _, e := range events {
			switch e.Kind {
			case event.KindPhase:
				phase = e.Message
			case event.KindLeased:
				if lease || phase != "execute" {
					t.Errorf("slot %d has another lease, or is in phase %q", slot, phase)
				}
				lease = true
				leased++
			case event.KindLeaseEnded:
				if !lease || e.Lease.Why == event.Expired {
					t.Errorf("slot %d: a lease that is not held ends, %s", slot, e.Lease.Why)
				}
				lease = false
			case event.KindRetry:
				if !lease || e.Failure == nil || e.Failure.Class != "trap" {
					t.Errorf("slot %d: %+v without a lease or a failure", slot, e)
				}
				failed++
			case event.KindEnd:
				if lease || phase == "" {
					t.Errorf("slot %d ends with a lease, or without a phase", slot)
				}
				phase = ""
			}
		}
		if phase != "" {
			t.Errorf("slot %d did not end its phase %s", slot, phase)
		}
	}
	if want := 300 - 43; leased == 0 || failed < 43 || w.outputs != want { // 43 numbers trap
		t.Errorf("%d leases, %d failed attempts, %d outputs, want %d", leased, failed, w.outputs, want)
	}
}
