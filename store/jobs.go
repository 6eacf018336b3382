package store

import (
	"context"
	"errors"
	"iter"
	"time"
)

// ErrNoJob says that no job has the id.
var ErrNoJob = errors.New("no such job")

// JobID names a job: what it is made of is its caller's to say, who gives the
// same job the same id each time.
type JobID Digest

// Job is a job as it was submitted. What is JSON here is the caller's: a store
// keeps it and does not read it.
type Job struct {
	ID     JobID
	Action Action // of its outputs
	// Derived are other actions under which something is kept that is made of
	// the outputs. What is there under Input goes when the job is deleted, and
	// all of it with the last job of Action.
	Derived []Action
	Input   Digest
	Total   int       // chunks, which have the numbers 0..Total-1
	Spec    []byte    // JSON
	Created time.Time // of the first Begin
}

// RunKey names one run of a job. Runs of a job count from 1.
type RunKey struct {
	Job    JobID
	Number int
}

// Run is one run of a job. A run whose Ended is zero goes on, or its process
// died: Seen and Info tell.
type Run struct {
	RunKey
	Started time.Time
	Seen    time.Time // the last sign of life
	Ended   time.Time // zero until End
	Info    []byte    // JSON, of Begin
	Active  []byte    // JSON, of the last Note
	Report  []byte    // JSON, of End; nil before
}

// Span says that a run has the outputs of neighbouring chunks.
type Span struct {
	Run    int      // number
	First  int      // chunk
	Chunks []Digest // of First, First+1, ...
	Detail []byte   // the caller's
}

// Attempt is an attempt that failed.
type Attempt struct {
	Run    int // number
	Chunk  int // number
	Final  bool
	Class  string
	Detail []byte // JSON
}

// Jobs is a [Store] that keeps the records of jobs too. All methods are safe
// for concurrent use, by several processes where the store is shared by them.
type Jobs interface {
	Store

	// Begin records a run of a job, and the job where it is new. ids are pieces
	// of the caller's encoding of the chunks' ids, each of at most 1 MiB, which
	// are not asked for where the job is known, and may be gone through more
	// than once. Of a known job, Spec becomes the new one.
	Begin(ctx context.Context, job Job, ids iter.Seq[[]byte], info []byte) (RunKey, error)

	// Finish is Put, and notes in the same commit that the run has the outputs
	// of a span. A span of the run from the same chunk on is replaced. Where
	// records conflict, the span is not noted. It is ErrNoJob where the job was
	// deleted meanwhile; then nothing is put.
	Finish(ctx context.Context, run RunKey, action Action, records []Record, span Span) error

	// Note is a sign of life of the run, with what it is at (JSON), and the
	// attempts that failed since the last one. A job that was deleted
	// meanwhile is no error.
	Note(ctx context.Context, run RunKey, active []byte, failed []Attempt) error

	// End records how the run ended (JSON). A job that was deleted meanwhile is
	// no error.
	End(ctx context.Context, run RunKey, report []byte) error

	// List yields the jobs whose id in hex begins with prefix, those with the
	// latest run first.
	List(ctx context.Context, prefix string) iter.Seq2[Job, error]

	// IDs yields the pieces that Begin was given, in order. A piece is valid
	// until the next one is asked for. As from Extents, Spans and Attempts, the
	// error is ErrNoJob where there is no job; where it is deleted meanwhile,
	// the iteration may end with it too.
	IDs(ctx context.Context, job JobID) iter.Seq2[[]byte, error]

	// Runs returns the runs of a job in order.
	Runs(ctx context.Context, job JobID) ([]Run, error)

	// Extents yields where the spans of a job lie, by First, then Run.
	Extents(ctx context.Context, job JobID) iter.Seq2[Extent, error]

	// Spans yields the spans of a job that have one of the chunks from..to-1,
	// by First, then Run. A span is valid until the next one is asked for.
	Spans(ctx context.Context, job JobID, from, to int) iter.Seq2[Span, error]

	// Attempts yields the failed attempts of the chunks from..to-1 of a job, by
	// chunk, then in the order in which they were noted.
	Attempts(ctx context.Context, job JobID, from, to int) iter.Seq2[Attempt, error]

	// Delete removes a job with its runs, and the outputs that no other job
	// has. It is ErrNoJob where there is none.
	Delete(ctx context.Context, job JobID) error
}

// Extent is where a span lies.
type Extent struct {
	Run, First, Count int
}
