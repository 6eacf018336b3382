package storetest

import (
	"context"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// Agree compares the records of jobs with the outputs, after anything that happened
// to a store: each chunk that is recorded as finished belongs to the job and has an
// output. So the chunks that succeeded, failed for good or are pending (all others)
// add up to the job's chunks.
func Agree(t testing.TB, s Recording) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // the test may be in its cleanup
	var jobs []store.JobRecord
	for job, err := range s.List(ctx, "") {
		if err != nil {
			t.Errorf("list: %v", err)
			return
		}
		jobs = append(jobs, job)
	}
	for i := range jobs {
		agree(ctx, t, s, &jobs[i])
	}
}

func agree(ctx context.Context, t testing.TB, s Recording, job *store.JobRecord) {
	t.Helper()
	finished := map[int]bool{}
	for span, err := range s.Spans(ctx, job.ID, 0, job.Total) {
		if err != nil {
			t.Errorf("spans: %v", err)
			return
		}
		keys := make([]store.Key, 0, len(span.Chunks))
		for i, chunk := range span.Chunks {
			keys = append(keys, store.Key{Chunk: chunk})
			finished[span.First+i] = true
		}
		found := 0
		err := s.Get(ctx, job.Action, keys, func(int, store.Value) error { found++; return nil })
		if err != nil || found != len(keys) {
			t.Errorf("job %x: chunks %d to %d are recorded as finished, but only %d have an output: %v",
				job.ID[:4], span.First, span.First+len(span.Chunks)-1, found, err)
		}
	}
	failed := 0
	for a, err := range s.Attempts(ctx, job.ID, 0, job.Total) {
		if err != nil {
			t.Errorf("attempts: %v", err)
			return
		}
		if a.Final && !finished[a.Chunk] {
			failed++
		}
	}
	if pending := job.Total - len(finished) - failed; pending < 0 {
		t.Errorf("job %x: %d chunks finished and %d failed, but the job has %d", job.ID[:4], len(finished), failed, job.Total)
	}
}
