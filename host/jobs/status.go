package jobs

import (
	"context"
	"encoding/json"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Status says how far a job is. Every chunk is in one of the groups.
type Status struct {
	Pending   Group `json:"pending"`
	Active    Group `json:"active"`    // leased by a run that goes on, as of its last sign of life
	Succeeded Group `json:"succeeded"` // its output was stored
	Failed    Group `json:"failed"`    // for good, in the last run that had it
}

// Group is some of a job's chunks.
type Group struct {
	Count int       `json:"count"`
	IDs   abi.IDSet `json:"ids"`
}

// chunkStates are the groups by the numbers of their chunks, each merged.
type chunkStates struct{ pending, active, succeeded, failed intervals }

// Status reads how far the job is.
func (j *Job) Status(ctx context.Context) (*Status, error) {
	s, err := j.states(ctx)
	if err != nil {
		return nil, err
	}
	x, err := j.loadIDs(ctx)
	if err != nil {
		return nil, err
	}
	group := func(is intervals) (g Group) {
		g.Count = is.count()
		for _, i := range is {
			x.addTo(&g.IDs, i.from, i.to)
		}
		return g
	}
	return &Status{group(s.pending), group(s.active), group(s.succeeded), group(s.failed)}, nil
}

// Counts returns how many chunks are in each group.
func (j *Job) Counts(ctx context.Context) (pending, active, succeeded, failed int, err error) {
	s, err := j.states(ctx)
	if err != nil {
		return 0, 0, 0, 0, err
	}
	return s.pending.count(), s.active.count(), s.succeeded.count(), s.failed.count(), nil
}

func (j *Job) states(ctx context.Context) (s chunkStates, err error) {
	for e, err := range j.store.Extents(ctx, j.Record.ID) {
		if err != nil {
			return s, err
		}
		s.succeeded = append(s.succeeded, interval{e.First, e.First + e.Count})
	}
	s.succeeded = s.succeeded.merged()
	if s.failed, err = j.failed(ctx, nil); err != nil {
		return s, err
	}
	s.failed = s.failed.without(s.succeeded)
	for i := range j.Runs {
		if j.StateOf(&j.Runs[i]) != Running {
			continue
		}
		var leases []Lease
		_ = json.Unmarshal(j.Runs[i].Active, &leases) // what cannot be read is not known
		for _, l := range leases {
			s.active = append(s.active, interval{max(0, l.From), min(l.To, j.Record.Total)})
		}
	}
	s.active = s.active.merged().without(s.succeeded)
	s.failed = s.failed.without(s.active)
	all := intervals{{0, j.Record.Total}}
	s.pending = all.merged().without(s.succeeded).without(s.failed).without(s.active)
	return s, nil
}

// failed returns the chunks whose last failed attempt was the final one, of
// those that want wants.
func (j *Job) failed(ctx context.Context, want func(*store.Attempt) bool) (out intervals, err error) {
	var last store.Attempt
	take := func() {
		if last.Final && (want == nil || want(&last)) {
			out = append(out, interval{last.Chunk, last.Chunk + 1})
		}
	}
	for a, err := range j.store.Attempts(ctx, j.Record.ID, 0, j.Record.Total) {
		if err != nil {
			return nil, err
		}
		if a.Chunk != last.Chunk {
			take()
		}
		last = a
	}
	take()
	return out.merged(), nil
}

// Failed returns the chunks that failed for good, of a class or, where that is
// empty, of any.
func (j *Job) Failed(ctx context.Context, class abi.Class) (set abi.IDSet, err error) {
	s, err := j.states(ctx)
	if err != nil {
		return set, err
	}
	failed := s.failed
	if class != "" {
		of, err := j.failed(ctx, func(a *store.Attempt) bool { return a.Class == string(class) })
		if err != nil {
			return set, err
		}
		failed = of.without(s.succeeded).without(s.active)
	}
	x, err := j.loadIDs(ctx)
	if err != nil {
		return set, err
	}
	for _, i := range failed {
		x.addTo(&set, i.from, i.to)
	}
	return set, nil
}
