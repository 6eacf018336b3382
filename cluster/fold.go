package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

// The states in which a job ends.
const (
	stateSucceeded  = "succeeded"
	stateIncomplete = "incomplete"
	stateBroken     = "broken"
	stateCancelled  = "cancelled"
	stateAgain      = "again" // of [postgres.Worker.Finish]: the fold is leased again
)

// fold makes the result of a job whose chunks are all executed or have failed, and ends
// the job.
func (s *slot) fold(soft context.Context, j *job, l postgres.Lease) {
	ctx, cancel := context.WithCancel(s.hard)
	defer cancel()
	s.hold(l, cancel)
	defer s.held.Store(nil)
	var result *host.Result
	planned, err := s.plan(ctx, j, l)
	if err == nil && planned {
		return
	}
	if err == nil {
		result, err = s.gather(ctx, j, l)
	}
	state, text := endOf(result, err)
	if state == "" {
		if ctx.Err() == nil && !errors.Is(err, postgres.ErrNotHeld) {
			s.fail(err)
		}
		return
	}
	var report []byte
	if result != nil {
		short := result.Report
		short.Failures = nil
		if report, err = json.Marshal(&short); err != nil {
			s.fail(err)
			return
		}
	}
	_, err = s.worker.Finish(s.requests, l, state, text, report)
	switch {
	case err == nil:
		stintOf(s, j).folded(result)
	case !errors.Is(err, postgres.ErrNotHeld):
		s.fail(err)
	}
}

// hold makes a lease known to the heartbeat.
func (s *slot) hold(l postgres.Lease, cancel context.CancelFunc) *held {
	h := &held{lease: l, cancel: cancel}
	h.end.Store(int64(l.Last))
	h.done.Store(int64(l.First))
	s.held.Store(h)
	return h
}

// endOf returns the state in which a job ends; "" if this process must not decide it.
func endOf(result *host.Result, err error) (state, text string) {
	var missing *host.MissingError
	_, fold := errors.AsType[*host.FoldError](err)
	_, init := errors.AsType[*runtime.InitError](err)
	_, conflict := errors.AsType[*host.StoreError](err)
	switch {
	case errors.As(err, &missing):
		return stateAgain, ""
	case err != nil && (fold || init):
		return stateBroken, strings.ReplaceAll(err.Error(), "\n", "; ")
	case errors.Is(err, postgres.ErrUnreachable), errors.Is(err, host.ErrInterrupted), errors.Is(err, context.Canceled), err != nil && conflict:
		return "", ""
	case err != nil:
		return stateBroken, strings.ReplaceAll(err.Error(), "\n", "; ")
	case result.Report.Chunks.Succeeded < result.Report.Chunks.Total:
		return stateIncomplete, ""
	}
	return stateSucceeded, ""
}

// gather folds the outputs of a job.
func (s *slot) gather(ctx context.Context, j *job, l postgres.Lease) (*host.Result, error) {
	failed, err := s.worker.Failures(s.requests, l)
	if err != nil {
		return nil, err
	}
	whole, err := s.worker.Whole(s.requests, l)
	if err != nil {
		return nil, err
	}
	asked := j.Job
	asked.Chunks = j.input(leaseSource{s.worker, l}, s.Shared)
	gathered := &host.Gathered{Failed: failures(failed), Succeeded: j.record.Total - len(failed), Fold: true}
	c, err := host.New(ctx, host.Config{Workers: s.Slots, Engine: s.Engine, Store: s.worker.Outputs(l)})
	if err != nil {
		return nil, err
	}
	defer c.Close(context.WithoutCancel(ctx))
	if whole && len(failed) == 0 {
		gathered.Outputs = func(ctx context.Context, first int) iter.Seq2[store.Value, error] {
			return complete(s.worker.Reader(l, j.record.Total).Outputs(ctx, first, j.record.Total))
		}
	}
	// If the job was stopped, it has pending chunks.
	gathered.Some = j.MaxFailures != nil && len(failed) > *j.MaxFailures
	return c.Gather(ctx, &asked, gathered)
}

// complete gives a gap in outputs the error of missing ones.
func complete(outputs iter.Seq2[store.Value, error]) iter.Seq2[store.Value, error] {
	return func(yield func(store.Value, error) bool) {
		for v, err := range outputs {
			if !yield(v, missing(err)) {
				return
			}
		}
	}
}

func missing(err error) error {
	if errors.Is(err, postgres.ErrGap) {
		return &host.MissingError{Count: 1}
	}
	return err
}

// failures returns the recorded failures of chunks.
func failures(failed []postgres.FailedChunk) (all []host.GatheredFailure) {
	for _, f := range failed {
		var detail journal.FailedAttempt
		_ = json.Unmarshal(f.Detail, &detail) // fields that cannot be read stay empty
		failure := detail.Failure
		failure.Class = abi.Class(f.Class)
		all = append(all, host.GatheredFailure{Chunk: f.Chunk, Failure: &failure, Attempts: detail.Attempt})
	}
	return all
}
