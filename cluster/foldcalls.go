package cluster

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/fold"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

// A fold of more than one group is made in calls that any worker leases. The slot that
// holds the lease on the fold calls no guest: it plans the calls of one level, and gives
// the lease back; when all calls of a level are made, the next holder plans the level
// above, until one partial aggregate is left.

// plan plans the next level of the fold. It reports false if there is none: the calls were
// made, and their result is in the store, or the fold is one call.
func (s *slot) plan(ctx context.Context, j *job, l postgres.Lease) (planned bool, err error) {
	if j.NoFold || !j.Admitted.Exports(abi.ExportAggregate) || !j.Admitted.Exports(abi.ExportMerge) {
		return false, nil
	}
	calls, err := s.worker.Calls(ctx, l, -1, 0, postgres.All, false)
	if err != nil {
		return false, err
	}
	for i := range calls {
		if calls[i].N != i || !calls[i].Made {
			return false, &host.MissingError{Count: 1}
		}
	}
	switch len(calls) {
	case 0:
		return s.planOutputs(ctx, j, l)
	case 1:
		return false, s.keepFolded(ctx, j, l, calls[0].Level)
	}
	level := calls[0].Level + 1
	spans, groups := [][2]int{}, fold.NewGroups(level)
	for i := range calls {
		spans = grouped(spans, groups.Add(calls[i].Size), i)
	}
	return true, s.worker.Plan(s.requests, l, level, spans)
}

// planOutputs plans the calls of aggregate, if there are several.
func (s *slot) planOutputs(ctx context.Context, j *job, l postgres.Lease) (planned bool, err error) {
	if j.record.Total < 2 {
		return false, nil
	}
	whole, err := s.worker.Whole(ctx, l)
	if err != nil || !whole {
		return false, err
	}
	spans, groups, i := [][2]int{}, fold.NewGroups(0), 0
	var id []byte
	for size, err := range s.worker.SizesOf(ctx, l, 0, j.record.Total) {
		if err != nil {
			return false, missing(err)
		}
		id = abi.AppendEntry(id[:0], j.id(i), nil)
		spans = grouped(spans, groups.Add(len(id)+size), i)
		i++
	}
	if len(spans) < 2 {
		return false, nil
	}
	return true, s.worker.Plan(s.requests, l, 0, spans)
}

// grouped adds the element i to the last span, or begins a span with it.
func grouped(spans [][2]int, begins bool, i int) [][2]int {
	if begins {
		return append(spans, [2]int{i, i + 1})
	}
	spans[len(spans)-1][1] = i + 1
	return spans
}

// keepFolded stores the result of a fold whose last call is made.
func (s *slot) keepFolded(ctx context.Context, j *job, l postgres.Lease, last int) error {
	f := &host.Folded{}
	for level := last; level >= 0; level-- {
		calls, err := s.worker.Calls(ctx, l, level, 0, postgres.All, level == last)
		if err != nil {
			return err
		}
		if level == last && (len(calls) != 1 || !calls[0].Sound()) {
			return &host.MissingError{Count: 1}
		}
		if level == last {
			f.Aggregate = calls[0].Output
		}
		var tree merkle.Tree
		for i := range calls {
			f.FoldFuel += calls[i].Fuel
			f.Fuel += calls[i].OutputsFuel
			if err := tree.AddNodes(calls[i].Nodes); err != nil {
				return &host.MissingError{Count: 1}
			}
		}
		if f.Root = tree.Root(); level == 0 && tree.Len() != uint64(j.record.Total) {
			return &host.MissingError{Count: 1}
		}
	}
	return host.KeepFolded(ctx, s.worker.Outputs(l), j.record.Action, j.record.Input, f)
}

// calling is the lease of a slot on calls of a fold.
type calling struct {
	*slot
	job    *job
	lease  postgres.Lease
	held   *held
	reader *postgres.Reader
	guest  host.Instance
	input  []byte // scratch
	made   []postgres.Call
	size   int // of the outputs of made
	put    time.Time
}

// calls makes calls of a fold, and returns the next lease.
func (s *slot) calls(soft context.Context, j *job, l postgres.Lease) postgres.Lease {
	ctx, cancel := context.WithCancel(s.hard)
	defer cancel()
	c := &calling{slot: s, job: j, lease: l, held: s.hold(l, cancel), guest: j.pool.Borrow(nil), put: time.Now()}
	defer s.held.Store(nil)
	defer c.guest.Release()
	done, err := c.makeAll(ctx, soft)
	c.failed(ctx, err)
	s.seq++
	next, err := s.worker.Settle(s.requests, &postgres.Settlement{
		Lease: l, Seq: s.seq, Done: done, Ends: true, Next: soft.Err() == nil, Want: s.wants(), Only: s.Only,
	})
	if err != nil && !errors.Is(err, postgres.ErrNotHeld) {
		s.fail(err)
		return postgres.Lease{Slot: s.number}
	}
	return next
}

// makeAll makes the calls of the lease, and puts their results.
func (c *calling) makeAll(ctx, soft context.Context) (done int, err error) {
	done = c.lease.First
	calls, err := c.worker.Calls(ctx, c.lease, -1, c.lease.First, c.lease.Last, false)
	if err != nil || len(calls) == 0 { // the fold was planned again
		return done, err
	}
	c.reader = c.worker.Reader(c.lease, calls[len(calls)-1].Last)
	for i := range calls {
		if soft.Err() != nil || ctx.Err() != nil {
			break
		}
		if !calls[i].Made {
			if err = c.call(ctx, &calls[i]); err != nil {
				break
			}
			c.made, c.size = append(c.made, calls[i]), c.size+len(calls[i].Output)
		}
		done = calls[i].N + 1
		if i == len(calls)-1 || c.size > flushSize || time.Since(c.put) > flushTime {
			if err = c.flush(calls[i].Level, done); err != nil {
				return done, err
			}
		}
	}
	return done, errors.Join(err, c.flush(calls[0].Level, done))
}

// flushSize is the size at which results of calls are put.
const flushSize = 4 << 20

// flush puts the results that were not put yet.
func (c *calling) flush(level, done int) error {
	err := c.worker.Called(c.requests, c.lease, level, c.made, done)
	if err == nil {
		c.held.done.Store(int64(done))
		c.made, c.size, c.put = c.made[:0], 0, time.Now()
	}
	return err
}

// failed handles the error of a call.
func (c *calling) failed(ctx context.Context, err error) {
	var lost *host.MissingError
	failed, ok := errors.AsType[*host.FoldError](err)
	switch {
	case err == nil || ctx.Err() != nil || errors.Is(err, postgres.ErrNotHeld):
		return
	case ok:
		err = c.worker.Break(c.requests, c.lease, "fold", strings.ReplaceAll(failed.Error(), "\n", "; "))
	case errors.As(err, &lost):
		err = c.worker.Unplan(c.requests, c.lease)
	}
	if err != nil && !errors.Is(err, postgres.ErrNotHeld) {
		c.fail(err)
	}
}

// call makes one call.
func (c *calling) call(ctx context.Context, of *postgres.Call) (err error) {
	function := abi.ExportAggregate
	c.input = abi.AppendHead(c.input[:0], abi.MajorArray, uint64(of.Last-of.First))
	if of.Level == 0 {
		err = c.outputs(ctx, of)
	} else {
		function = abi.ExportMerge
		err = c.partials(ctx, of)
	}
	if err != nil || of.Output != nil {
		return err
	}
	of.Output, of.Fuel, err = c.guest.Call(ctx, function, c.input, nil)
	if failure, ok := errors.AsType[*abi.Failure](err); ok {
		err = &host.FoldError{Step: function, Failure: failure}
	}
	return err
}

// outputs adds the outputs that a call of aggregate gets.
func (c *calling) outputs(ctx context.Context, of *postgres.Call) error {
	var span merkle.Span
	span.Reset(uint64(of.First))
	i := of.First
	for v, err := range c.reader.Outputs(ctx, of.First, of.Last) {
		if err != nil {
			return missing(err)
		}
		id := c.job.id(i)
		span.AddEntry(id, v.Output)
		c.input = abi.AppendEntry(c.input, id, v.Output)
		of.OutputsFuel += v.Fuel
		i++
	}
	of.Nodes = span.AppendNodes(nil)
	return nil
}

// partials adds the partial aggregates that a call of merge gets. A single one is the
// result of the call.
func (c *calling) partials(ctx context.Context, of *postgres.Call) error {
	parts, err := c.worker.Calls(ctx, c.lease, of.Level-1, of.First, of.Last, true)
	if err != nil {
		return err
	}
	if len(parts) != of.Last-of.First {
		return &host.MissingError{Count: 1}
	}
	for i := range parts {
		if !parts[i].Made || !parts[i].Sound() {
			return &host.MissingError{Count: 1}
		}
		c.input = append(c.input, parts[i].Output...)
	}
	if len(parts) == 1 {
		of.Output = parts[0].Output
	}
	return nil
}
