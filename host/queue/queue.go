// Package queue gives out the chunks of a job, as leases of spans in id order.
//
// A lease is only a hint; the store is the truth: a chunk is pending if it has no
// stored output. No lease needs to survive a crash, and losing one costs time, but
// never a result. Chunks have numbers from 0, in id order. A queue exchanges only
// values with its users, never pointers.
//
// [Memory] is the queue of one process. Implementations must pass queuetest.Run.
package queue

import (
	"context"
	"errors"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Span is the range of chunks From..To-1.
type Span struct{ From, To int }

// Len returns the number of chunks.
func (s Span) Len() int { return s.To - s.From }

// Kind is the kind of work that a lease is on.
type Kind uint8

// The kinds of leases.
const (
	Chunks Kind = iota // the chunks of Span are to be executed
	Fold               // Span is one call of the fold, by its number
)

// ID identifies a lease.
type ID struct {
	Number uint64
	Holder int
}

// Lease is the right of one holder to a span until the time Until or, if that is
// zero, for the life of the holder.
type Lease struct {
	ID
	Kind Kind
	Span
	Since, Until time.Time
}

// Renewal is the present state of a lease.
type Renewal struct {
	End  int // the first chunk that is no longer in the lease
	Next int // the first chunk that needs another Renew; not after End
}

// Goes reports whether the holder may begin a chunk.
func (r Renewal) Goes(chunk int) bool { return chunk < r.End }

// Progress is the work of a holder since its last report.
type Progress struct {
	Finished int           // chunks that have an output now, including reused ones
	Attempts int           // on these chunks and others
	Busy     time.Duration // time spent in attempts
}

// ErrDone reports that a queue has no work left and will get none.
var ErrDone = errors.New("the queue has no work left")

// Queue gives out leases. All methods are safe for concurrent use. A holder is a
// number from 1. It begins one lease at a time, and calls Return once and then Done
// once for each lease of chunks.
type Queue interface {
	// Lease waits until there is work for a holder. Calls of the fold come first,
	// because they hold memory, then retries that are due, then chunks. The error
	// is [ErrDone], or from ctx.
	Lease(ctx context.Context, holder int) (Lease, error)
	// Renew must be called before chunks of a lease, in order: the holder may begin
	// the chunks from chunk to the Next of the result, at most n. No other holder
	// gets them, so n should be more than 1 only if they are likely to take a very
	// short time. The holder may renew before it has begun all of them. Renew does
	// not block.
	Renew(id ID, chunk, n int) Renewal
	// Progress reports progress on a lease. The size of later leases depends on it.
	Progress(id ID, p Progress)
	// Failed reports a failed attempt on a chunk of a lease, and returns the
	// decision about the chunk. The next attempt begins after Return at the
	// earliest, so that the holder's reports about this attempt come first.
	Failed(id ID, chunk int, f *abi.Failure) Decision
	// Return ends the lease for the holder, which begins no more of its chunks. The
	// chunks of the lease from chunk on go back to the queue.
	Return(id ID, chunk int)
	// Done reports that the output is stored for each chunk that was begun and did
	// not fail or go back, or that the call of the fold was made.
	Done(id ID)
}

// Active is a lease in progress: the chunks that its holder has begun or may begin.
type Active struct {
	Holder int
	Span
	Since time.Time
}
