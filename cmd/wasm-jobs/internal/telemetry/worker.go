package telemetry

import (
	"io"
	"sync/atomic"
)

// Worker has the numbers of a worker, as the shared store has them.
type Worker struct {
	Slots, Busy  int   // chunks that it can execute at once, and that it executes
	Chunks, Lost int64 // executed, and lost with an expired lease
}

// Stored counts the outputs that a worker has put. It is safe for concurrent use.
type Stored struct{ outputs, fuel atomic.Uint64 }

// Add counts outputs and the fuel that they took.
func (s *Stored) Add(outputs int, fuel uint64) {
	s.outputs.Add(uint64(outputs))
	s.fuel.Add(fuel)
}

// Write writes the numbers, and how often they could not be read.
func (n Worker) Write(to io.Writer, stored *Stored, errors uint64) {
	w := NewWriter(to)
	w.Put(StoreErrorsTotal, errors)
	w.Put(Slots, uint64(max(0, n.Slots)))
	w.Put(Executing, uint64(max(0, n.Busy)))
	w.Put(SucceededTotal, stored.outputs.Load())
	w.Put(AttemptsTotal, uint64(max(0, n.Chunks)))
	w.Put(FuelTotal, stored.fuel.Load())
	w.Put(LostTotal, uint64(max(0, n.Lost)))
}
