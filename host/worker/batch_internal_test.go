package worker

import (
	"testing"

	"github.com/wasm-jobs/wasm-jobs/host/event"
)

// TestHold holds batches like a fold that waits for an earlier chunk: however many
// are held, each worker can get another.
func TestHold(t *testing.T) {
	for workers := 1; workers <= 4; workers++ {
		free := make(chan *Batch, 2*batches*workers)
		for range batches * workers {
			free <- &Batch{free: free, workers: workers}
		}
		for round := range 10 {
			var handed []*Batch
			for range workers {
				select {
				case b := <-free:
					handed = append(handed, b)
				default:
					t.Fatalf("%d workers, round %d: there is no batch for one of them", workers, round)
				}
			}
			for _, b := range handed { // All are held before a worker takes another.
				b.Hold()
			}
		}
	}
}

// A batch that is free has room for events, and none of the outputs of earlier ones. What
// an observer copied stays as it was.
func TestFreeEvents(t *testing.T) {
	b := &Batch{free: make(chan *Batch, 1), Events: []event.Event{{Output: []byte("x")}}}
	kept := b.Events[0]
	b.Free()
	if len(b.Events) != 0 || cap(b.Events) != 1 || b.Events[:1][0].Output != nil {
		t.Errorf("events %v, room for %d", b.Events[:1], cap(b.Events))
	}
	b.Events = append(b.Events, event.Event{Output: []byte("y")})
	if string(kept.Output) != "x" {
		t.Errorf("output %q", kept.Output)
	}
}
