package worker

import "testing"

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
