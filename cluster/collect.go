package cluster

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

func now() time.Time { return time.Now() }

// BrokenError reports that a job ended before all its chunks were executed or had failed,
// or that its result could not be made.
type BrokenError struct {
	By     string // fold, init, module or conflict
	Reason string
}

func (e *BrokenError) Error() string { return e.Reason }

// ErrCancelled reports that a job was cancelled before its end.
var ErrCancelled = errors.New("the job was cancelled")

// Ended reports whether a job in the given state is over, until it is submitted again.
func Ended(state string) bool {
	switch state {
	case stateSucceeded, stateIncomplete, stateBroken, stateCancelled:
		return true
	}
	return false
}

// Wait waits until a job is over, and returns its last progress. It calls each with the
// progress of every poll, at most once a second later on; an error of each ends the wait.
func Wait(ctx context.Context, s *postgres.Store, id store.JobID, each func(p *postgres.Progress) error) (*postgres.Progress, error) {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		p, err := s.Progress(ctx, id)
		if err != nil {
			return nil, err
		}
		if err := each(&p); err != nil || Ended(p.State) {
			return &p, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
	}
}

// WaitingFor returns the reason why a job is not being executed, "" if there is none.
func WaitingFor(p *postgres.Progress) string {
	switch {
	case p.State == "paused":
		return "paused: wasm-jobs resume continues it"
	case p.State == "uploading":
		return "its input: the command that submits it is still sending it, or was interrupted"
	case p.State != "active":
		return ""
	case p.Active > 0 && p.MaxConcurrency > 0 && p.Active >= p.MaxConcurrency:
		return fmt.Sprintf("cap: %d chunks run, as many as the job may", p.Active)
	case p.Active > 0:
		return ""
	case p.Workers == 0 && p.Others > 0:
		return "other engine: no worker has the engine of the job: want " + p.Engine
	case p.Workers == 0:
		return "no worker"
	case p.Succeeded+p.Failed == p.Total:
		return "fold"
	}
	return ""
}

// Collection has the options of [Collect].
type Collection struct {
	Record   store.JobRecord
	Progress *postgres.Progress
	Engine   host.Engine
	Shared   Blobs // nil = the input is in the database
	// Outputs says that all outputs are wanted. Without it, they are read only if they
	// are the job's result.
	Outputs bool
}

// Collect makes the result of a job that is over. It calls no guest: the result is made
// of stored outputs. The error is a *[BrokenError], [ErrCancelled], or one of the store's;
// with the first two, the result holds the chunks that were finished.
func Collect(ctx context.Context, s *postgres.Store, o *Collection) (*host.Result, error) {
	p := o.Progress
	tables := s.InputOf(p.Number)
	j, err := readJob(ctx, o.Record, tables, o.Shared)
	if err != nil {
		return nil, err
	}
	failed, err := tables.Failures(ctx)
	if err != nil {
		return nil, err
	}
	j.Chunks = j.input(tables, o.Shared)
	j.Outputs = o.Outputs
	gathered := &host.Gathered{Failed: failures(failed), Succeeded: p.Succeeded, Attempts: int(p.Executions), Reused: p.Reused, Some: p.State != stateSucceeded}
	whole, err := tables.Whole(ctx)
	if err != nil {
		return nil, err
	}
	if whole && len(failed) == 0 {
		gathered.Outputs = func(ctx context.Context, first int) iter.Seq2[store.Value, error] {
			return complete(tables.Outputs(ctx, first, p.Total))
		}
	}
	switch p.State {
	case stateBroken:
		gathered.Err = &BrokenError{p.BrokenBy, p.Error}
	case stateCancelled:
		gathered.Err = ErrCancelled
	}
	c, err := host.New(ctx, host.Config{Workers: 1, Engine: o.Engine, Store: s})
	if err != nil {
		return nil, err
	}
	defer c.Close(context.WithoutCancel(ctx))
	result, err := c.Gather(ctx, &j.Job, gathered)
	if result != nil {
		result.Report.Job = journal.Name(o.Record.ID)
		result.Report.State = p.State
	}
	return result, err
}
