package telemetry

import "io"

// Worker has the numbers of a worker, as the shared store has them.
type Worker struct {
	Slots, Busy  int   // chunks that it can execute at once, and that it executes
	Chunks, Lost int64 // executed, and lost with an expired lease
}

// Write writes the numbers, and how often they could not be read.
func (n Worker) Write(to io.Writer, errors uint64) {
	w := NewWriter(to)
	w.Put(StoreErrorsTotal, errors)
	w.Put(Slots, uint64(max(0, n.Slots)))
	w.Put(Executing, uint64(max(0, n.Busy)))
	w.Put(AttemptsTotal, uint64(max(0, n.Chunks)))
	w.Put(LostTotal, uint64(max(0, n.Lost)))
}
