package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/store"
)

const (
	// flushBytes and flushTime limit the outputs that a worker holds before they
	// are stored. Config.FlushTime replaces flushTime.
	flushBytes = 4 << 20
	flushTime  = 100 * time.Millisecond
)

// Batch is the finished part of one lease whose outputs are stored together:
// consecutive chunks, in order. While it is stored, the worker fills another batch.
type Batch struct {
	Worker   int
	Finished int    // number of chunks, including those that are Reused
	Reused   int    // number of chunks whose output was in the store
	Fuel     uint64 // of the calls that gave their outputs
	Events   []event.Event
	Span     Span          // for the record of these chunks
	Calls    []Calls       // of the entries, in order; the last ones may be missing
	Alike    []Alike       // the same entries, in order
	Until    time.Duration // end of Calls, since the start of the job

	records  []store.Record
	entries  []entry
	measures int    // number of entries that Calls covers
	arena    []byte // order keys and outputs of the entries
	free     chan<- *Batch
	workers  int // number of workers that take batches from free
}

// Span is the record of consecutive chunks with outputs.
type Span struct {
	Worker  int
	First   int            // index of the first chunk
	Began   time.Duration  // start of the first attempt, or the time when the first output was found, since the start of the job
	Digests []store.Digest // of First, First+1, ...; empty if nothing is recorded
	Times   []Times        // one for each digest
}

// Calls are consecutive calls that gave outputs and were measured together.
type Calls struct {
	Count  int           // 1 or more
	Took   time.Duration // together; negative = unknown
	Memory uint64        // of the instance at the end of the last one, in bytes; 0 = unknown
}

// Alike are consecutive calls that used the same fuel and gave outputs of the same size.
type Alike struct {
	Count int
	Fuel  uint64
	Size  int // of an output, in bytes
}

// Times are the start and the end of an attempt, since the start of the job. Both
// are [NoTime] for an output that was in the store.
type Times struct{ Start, End time.Duration }

// NoTime replaces the times of an attempt that was not made.
const NoTime = -1

// entry is an executed chunk. The numbers are offsets of its bytes in the arena.
type entry struct {
	index              int
	digest             store.Digest
	fuel               uint64
	start, middle, end int // of order key and output
}

// Len returns the number of outputs in the batch, which belong to the chunks First,
// First+1, ... if no chunk of the job is reused.
func (b *Batch) Len() int { return len(b.entries) }

// First returns the index of the chunk of the first output. The batch must have an
// output.
func (b *Batch) First() int { return b.entries[0].index }

// Size returns the total size of the outputs in bytes.
func (b *Batch) Size() int { return len(b.arena) }

// Output returns the i-th output, which is valid until Free.
func (b *Batch) Output(i int) []byte {
	e := &b.entries[i]
	return b.arena[e.middle:e.end]
}

// SizeOf returns the size of the i-th output in bytes.
func (b *Batch) SizeOf(i int) int { return b.entries[i].end - b.entries[i].middle }

// IndexOf returns the chunk of the i-th output.
func (b *Batch) IndexOf(i int) int { return b.entries[i].index }

// DigestOf returns the digest of the chunk of the i-th output.
func (b *Batch) DigestOf(i int) store.Digest { return b.entries[i].digest }

// FuelOf returns the fuel of the call that gave the i-th output.
func (b *Batch) FuelOf(i int) uint64 { return b.entries[i].fuel }

// Hold reports that the batch will not be freed soon. It adds a batch for the
// workers, unless one is free for each of them: all of them may wait for a batch at
// the same time, each having handed one over, and the held batches may not be freed
// before one of the workers continues.
func (b *Batch) Hold() {
	if len(b.free) >= b.workers {
		return
	}
	select {
	case b.free <- &Batch{free: b.free, workers: b.workers}:
	default: // there are enough
	}
}

// add adds the output at the end of the arena, with its order key before it.
func (b *Batch) add(index int, digest *store.Digest, fuel uint64, start, middle int) {
	n := len(b.entries)
	b.entries = slices.Grow(b.entries, 1)[:n+1]
	// Field by field: copying a new entry as a whole waits until its words, written
	// one by one, have left the store buffer.
	e := &b.entries[n]
	e.index, e.fuel, e.start, e.middle, e.end = index, fuel, start, middle, len(b.arena)
	e.digest = *digest
	b.Finished++
	b.Fuel += fuel
	size, last := e.end-middle, len(b.Alike)-1
	if last >= 0 && b.Alike[last].Fuel == fuel && b.Alike[last].Size == size {
		b.Alike[last].Count++
		return
	}
	b.Alike = append(b.Alike, Alike{1, fuel, size})
}

// measured notes the time of the calls since the last ones that were measured. They
// ended now, on the clock of the job.
func (b *Batch) measured(now, took time.Duration, memory uint64) {
	b.Until = now
	b.Calls = append(b.Calls, Calls{len(b.entries) - b.measures, took, memory})
	b.measures = len(b.entries)
}

// unmeasured leaves the time of the calls since the last measured ones unknown.
func (b *Batch) unmeasured() {
	if n := len(b.entries) - b.measures; n > 0 {
		b.Calls = append(b.Calls, Calls{Count: n, Took: -1})
		b.measures = len(b.entries)
	}
}

// Free returns the batch for a worker to fill. Its slices are not valid any more.
func (b *Batch) Free() {
	b.Finished, b.Reused, b.Fuel = 0, 0, 0
	clear(b.Events) // they have outputs
	b.Events = b.Events[:0]
	b.arena, b.entries = b.arena[:0], b.entries[:0]
	b.Calls, b.Alike, b.measures = b.Calls[:0], b.Alike[:0], 0
	b.Span.Digests, b.Span.Times = b.Span.Digests[:0], b.Span.Times[:0]
	select {
	case b.free <- b:
	default: // there are enough
	}
}

// Keeper stores outputs.
type Keeper interface {
	// Keep stores records, which may be empty, and records that the job has the
	// outputs of a span. It does not retain its arguments.
	Keep(ctx context.Context, records []store.Record, s *Span) error
}

// put stores the batch. The error is a *[StoreError].
func (b *Batch) put(ctx context.Context, k Keeper, id func(i int) abi.ID) error {
	b.records = slices.Grow(b.records[:0], len(b.entries))
	for i := range b.entries {
		e := &b.entries[i]
		b.records = append(b.records, store.Record{
			Key:   store.Key{Chunk: e.digest, Order: b.arena[e.start:e.middle]},
			Value: store.Value{Output: b.arena[e.middle:e.end], Fuel: e.fuel},
		})
	}
	if err := k.Keep(ctx, b.records, &b.Span); err != nil {
		return b.notKept(err, id)
	}
	return nil
}

// notKept returns the error about a batch that was not stored. If there are
// conflicts, it names only the first, with its chunk: there may be thousands.
func (b *Batch) notKept(err error, id func(i int) abi.ID) error {
	if c, ok := errors.AsType[*store.ConflictError](err); ok {
		i := slices.IndexFunc(b.entries, func(e entry) bool { return e.digest == c.Chunk })
		err = NamedConflict(id(b.entries[i].index), c)
	}
	return &StoreError{err}
}

// NamedConflict names the chunk that has two outputs.
func NamedConflict(id abi.ID, c *store.ConflictError) error {
	return fmt.Errorf("chunk %v: %w: the output is not determined by the chunk, or a machine is broken", id, c)
}

// StoreError reports that the store failed: no more outputs can be stored.
type StoreError struct{ Err error }

func (e *StoreError) Error() string { return "the store failed: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *StoreError) Unwrap() error { return e.Err }
