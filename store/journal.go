package store

import (
	"context"
	"errors"
	"iter"
	"time"
)

// ErrNoJob means that no job has the id.
var ErrNoJob = errors.New("no such job")

// JobID names a job. The caller makes it, and gives the same job the same id each
// time.
type JobID Digest

// JobRecord is a job as it was submitted. The JSON in this file belongs to the
// caller: a store keeps it and does not read it.
type JobRecord struct {
	ID     JobID
	Action Action // of its outputs
	// Derived are other actions whose outputs are made of this job's outputs. When
	// the job is deleted, their outputs for the chunk Input are deleted; with the
	// last job of Action, all of them are.
	Derived []Action
	Input   Digest
	Total   int       // chunks, which have the numbers 0..Total-1
	Spec    []byte    // JSON
	Created time.Time // of the first Begin
	// Shared is how a job is that workers of several processes share; nil for one
	// that its runs tell of. A store fills it in, and Begin does not read it.
	Shared *Shared
}

// Shared is how a job is that workers share.
type Shared struct {
	State                    string // uploading, active, paused, cancelled, succeeded, incomplete or broken
	Error                    string // why it is broken
	Priority, MaxConcurrency int
}

// RunKey names one run of a job. Runs of a job count from 1.
type RunKey struct {
	Job    JobID
	Number int
}

// Run is one run of a job. If Ended is zero, the run is going on or its process
// died; Seen and Info tell which.
type Run struct {
	RunKey
	Started time.Time
	Seen    time.Time // of the last Begin, Finish, Note or End
	Ended   time.Time // zero until End
	Info    []byte    // JSON, given to Begin
	Active  []byte    // JSON, given to the last Note
	Report  []byte    // JSON, given to End; nil before
}

// Span records that a run has the outputs of consecutive chunks.
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

// Journal keeps the records of jobs whose outputs a [Store] keeps. All methods
// are safe for concurrent use, by several processes if the store is shared by
// them.
type Journal interface {
	// Begin records a run of a job, and the job if it is new. ids yields pieces of
	// the caller's encoding of the chunks' ids, each of at most 1 MiB. It is not
	// called if the job is known, and may be called more than once. Spec replaces
	// the Spec of a known job.
	Begin(ctx context.Context, job JobRecord, ids iter.Seq[[]byte], info []byte) (RunKey, error)

	// Finish puts records as [Store.Put] does, and records in the same commit that
	// the run has the outputs of a span, unless the span has no chunks. It replaces a
	// span of the run with the same First. If records conflict, the span is not
	// recorded. If the job was deleted meanwhile, nothing is put and the error is
	// ErrNoJob.
	Finish(ctx context.Context, run RunKey, action Action, records []Record, span Span) error

	// Note records that the run is alive, the chunks that it executes now (JSON),
	// and the attempts that failed since the last Note. It returns nil if the job
	// was deleted meanwhile.
	Note(ctx context.Context, run RunKey, active []byte, failed []Attempt) error

	// End records how the run ended (JSON). It returns nil if the job was deleted
	// meanwhile.
	End(ctx context.Context, run RunKey, report []byte) error

	// List yields the jobs whose id in hex begins with prefix; the job with the
	// latest run comes first.
	List(ctx context.Context, prefix string) iter.Seq2[JobRecord, error]

	// IDs yields the pieces that Begin was given, in order. A piece is valid until
	// the next one is requested. IDs, Extents, Spans and Attempts yield ErrNoJob if
	// there is no such job; if it is deleted meanwhile, they may end with ErrNoJob
	// too.
	IDs(ctx context.Context, job JobID) iter.Seq2[[]byte, error]

	// Runs returns the runs of a job in order.
	Runs(ctx context.Context, job JobID) ([]Run, error)

	// Extents yields the extents of a job's spans, by First, then Run.
	Extents(ctx context.Context, job JobID) iter.Seq2[Extent, error]

	// Spans yields the spans of a job that contain any of the chunks from..to-1, by
	// First, then Run. A span is valid until the next one is requested.
	Spans(ctx context.Context, job JobID, from, to int) iter.Seq2[Span, error]

	// Attempts yields the failed attempts of the chunks from..to-1 of a job, by
	// chunk, then in the order in which they were noted.
	Attempts(ctx context.Context, job JobID, from, to int) iter.Seq2[Attempt, error]

	// Delete removes a job with its runs, and the outputs that no other job has.
	// The error is ErrNoJob if there is no such job.
	Delete(ctx context.Context, job JobID) error
}

// Extent is the position of a span: chunks First..First+Count-1 of a run.
type Extent struct {
	Run, First, Count int
}

// LateJournal is a [Journal] with expensive commits. It can record the start of a run
// later, in one commit with everything that happened since.
type LateJournal interface {
	Journal

	// BeginLate does the same as Begin, and then, in the same commit, the same as
	// Finish, Note and End with the rest of s. If records conflict, it records
	// neither their span nor the end, but everything else, and returns the key of
	// the run with a [*ConflictError].
	BeginLate(ctx context.Context, s *RunStart) (RunKey, error)
}

// RunStart is the start of a run, with everything that happened since.
type RunStart struct {
	Job     JobRecord
	IDs     iter.Seq[[]byte]
	Info    []byte
	Started time.Time

	Finished []Finished
	Active   []byte    // JSON, as for Note
	Failed   []Attempt // their Run is ignored
	Report   []byte    // JSON, as for End; nil = the run goes on
}

// Finished are the arguments of one Finish.
type Finished struct {
	Action  Action
	Records []Record
	Span    Span
}
