package journal

import (
	"context"
	"encoding/json"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Status is the progress of a job. Every chunk is in one of the groups.
type Status struct {
	Pending   Group `json:"pending"`
	Active    Group `json:"active"`    // leased by a run in progress, at its last sign of life
	Succeeded Group `json:"succeeded"` // its output was stored
	Failed    Group `json:"failed"`    // not retried, in the last run that had it
}

// Group is a group of a job's chunks.
type Group struct {
	Count int       `json:"count"`
	IDs   abi.IDSet `json:"ids"`
}

// chunkStates holds the groups as merged intervals of chunk numbers.
type chunkStates struct{ pending, active, succeeded, failed intervals }

// Status reads the progress of the job.
func (j *Record) Status(ctx context.Context) (*Status, error) {
	s, err := j.states(ctx)
	if err != nil {
		return nil, err
	}
	return j.statusOf(ctx, &s)
}

func (j *Record) statusOf(ctx context.Context, s *chunkStates) (*Status, error) {
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

// Moment is the state of a job's chunks at one moment, as a store of shared jobs saw it.
// Chunks are counted in id order.
type Moment struct {
	Succeeded, Failed []Lease // From and To say all of them
	Active            []Lease
}

// StatusAt returns the progress of the job at a moment, and the chunks of each active
// lease that no other group and no earlier lease has: the i-th element has the chunks of
// the i-th lease.
func (j *Record) StatusAt(ctx context.Context, m *Moment) (*Status, [][]Lease, error) {
	all := intervals{{0, j.Record.Total}}.merged()
	spans := func(leases []Lease) (is intervals) {
		for _, l := range leases {
			is = append(is, interval{max(0, l.From), min(l.To, j.Record.Total)})
		}
		return is.merged()
	}
	s := chunkStates{succeeded: spans(m.Succeeded)}
	s.failed = spans(m.Failed).without(s.succeeded)
	free := all.without(s.succeeded).without(s.failed)
	parts := make([][]Lease, len(m.Active))
	for i, l := range m.Active {
		rest := free.without(spans([]Lease{l}))
		for _, is := range free.without(rest) {
			parts[i] = append(parts[i], Lease{Worker: l.Worker, From: is.from, To: is.to, Since: l.Since})
		}
		free = rest
	}
	s.pending = free
	s.active = all.without(s.succeeded).without(s.failed).without(s.pending)
	status, err := j.statusOf(ctx, &s)
	return status, parts, err
}

// Counts returns the number of chunks in each group.
func (j *Record) Counts(ctx context.Context) (pending, active, succeeded, failed int, err error) {
	s, err := j.states(ctx)
	if err != nil {
		return 0, 0, 0, 0, err
	}
	return s.pending.count(), s.active.count(), s.succeeded.count(), s.failed.count(), nil
}

func (j *Record) states(ctx context.Context) (s chunkStates, err error) {
	for e, err := range j.store.Extents(ctx, j.Record.ID) {
		if err != nil {
			return s, err
		}
		s.succeeded = append(s.succeeded, j.within(e.First, e.Count))
	}
	s.succeeded = s.succeeded.merged()
	if s.failed, err = j.failed(ctx, nil); err != nil {
		return s, err
	}
	s.failed = s.failed.without(s.succeeded)
	for i := range j.Runs {
		run := &j.Runs[i]
		if shared := j.Record.Shared != nil && run.Ended.IsZero(); !shared && j.StateOf(run) != Running {
			continue // leases of a shared run are the store's, whatever became of the process that began it
		}
		var leases []Lease
		_ = json.Unmarshal(run.Active, &leases) // unreadable leases are left out
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

// within returns the chunks of a stored span that the job has: what a store says may be
// wrong.
func (j *Record) within(first, count int) interval {
	from := min(max(first, 0), j.Record.Total)
	return interval{from, from + min(max(count, 0), j.Record.Total-from)}
}

// failed returns the chunks whose last failed attempt was the final one, if want
// returns true for it.
func (j *Record) failed(ctx context.Context, want func(*store.Attempt) bool) (out intervals, err error) {
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

// FailedChunk is a chunk that failed finally. Chunks are counted in id order.
type FailedChunk struct {
	Chunk    int
	Failure  abi.Failure
	Attempts int
}

// Failures returns the chunks that failed finally, in id order, with their last failures.
func (j *Record) Failures(ctx context.Context) (all []FailedChunk, err error) {
	err = j.eachFinal(ctx, func(a *store.Attempt) bool {
		var detail FailedAttempt
		_ = json.Unmarshal(a.Detail, &detail) // unreadable details are left out
		detail.Failure.Class, detail.Failure.Fuel = abi.Class(a.Class), detail.Fuel
		all = append(all, FailedChunk{a.Chunk, detail.Failure, detail.Attempt})
		return true
	})
	return all, err
}

// EachFailure calls each with the final failed attempt of every failed chunk, in id
// order, until each returns false. The attempt is valid until each returns.
func (j *Record) EachFailure(ctx context.Context, each func(abi.ID, *Attempt) bool) error {
	x, err := j.loadIDs(ctx)
	if err != nil {
		return err
	}
	return j.eachFinal(ctx, func(final *store.Attempt) bool {
		a := j.failedAttempt(final)
		return each(x.at(final.Chunk), &a)
	})
}

// eachFinal calls each with the last attempt of every failed chunk, in id order, until
// each returns false.
func (j *Record) eachFinal(ctx context.Context, each func(*store.Attempt) bool) error {
	s, err := j.states(ctx)
	if err != nil || len(s.failed) == 0 {
		return err
	}
	var last store.Attempt
	take := func() bool { return !last.Final || !s.failed.has(last.Chunk) || each(&last) }
	for a, err := range j.store.Attempts(ctx, j.Record.ID, 0, j.Record.Total) {
		if err != nil {
			return err
		}
		if a.Chunk != last.Chunk && !take() {
			return nil
		}
		last = a
	}
	take()
	return nil
}

// Failed returns the chunks that failed finally, with the given class or, if that
// is empty, any class.
func (j *Record) Failed(ctx context.Context, class abi.Class) (set abi.IDSet, err error) {
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
