package web

import (
	"cmp"
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host/lending"
	"github.com/wasm-jobs/wasm-jobs/processor"
)

// gated runs requests of a module when a worker is free, in order of arrival.
type gated struct {
	s         *Server
	e         *entry
	isPatient bool // all of its requests wait without limit
}

// patient marks the context of requests that wait for a worker without limit: the
// requests of a batch, which reads no more from its client meanwhile.
type patient struct{ context.Context }

type patientKey struct{}

func isPatient(ctx context.Context) bool {
	if c, ok := ctx.(*requestContext); ok && c.isExec { // its chain of contexts is long
		return false
	}
	return ctx.Value(patientKey{}) != nil
}

func (p patient) Value(key any) any {
	if key == (patientKey{}) {
		return true
	}
	return p.Context.Value(key)
}

// rejectedError says that a request was rejected.
type rejectedError struct{ reason Reason }

func (e *rejectedError) Error() string { return "rejected: " + string(e.reason) }

// Run implements [processor.Runner].
func (g *gated) Run(ctx context.Context, in []byte) (processor.Result[[]byte], error) {
	return g.Append(ctx, in, nil)
}

// Append implements [processor.Appender].
func (g *gated) Append(ctx context.Context, in, dst []byte) (processor.Result[[]byte], error) {
	isPatient := g.isPatient || isPatient(ctx)
	waited, start, err := g.wait(ctx, isPatient)
	if err != nil {
		return processor.Result[[]byte]{}, err
	}
	defer g.s.gate.GiveBack(struct{}{})
	if o := g.s.config.Observer; o != nil {
		o.Waited(g.e.Name, waited, 1)
	}
	if isPatient && g.e.limit > 0 {
		limited := limitedContext(ctx, later(start, g.e.limit))
		defer limited.release()
		ctx = limited
	}
	result, err := g.e.Module.Module.Append(ctx, in, dst)
	if start != 0 {
		g.s.pace.add(lastRead(ctx) - start) // the end of the call read it
	}
	if o := g.s.config.Observer; o != nil && err == nil {
		o.Executed(result.Fuel)
	}
	return result, err
}

// Turn implements [processor.Turner]. Only requests without a limit of their own may take
// turns.
func (g *gated) Turn(ctx context.Context) (processor.Turn, error) {
	waited, start, err := g.wait(ctx, true)
	if err != nil {
		return nil, err
	}
	turn, err := g.e.Module.Module.Turn(ctx)
	if err != nil {
		g.s.gate.GiveBack(struct{}{})
		return nil, err
	}
	return &gatedTurn{Turn: turn, of: g, waited: waited, start: start}, nil
}

// gatedTurn is a turn of a worker.
type gatedTurn struct {
	processor.Turn
	of       *gated
	waited   time.Duration
	start    time.Duration // 0 if nobody needs it
	requests int
	fuel     uint64
}

func (t *gatedTurn) Append(ctx context.Context, in, dst []byte) (processor.Result[[]byte], error) {
	t.requests++
	if limit := t.of.e.limit; limit > 0 {
		limited := limitedContext(ctx, later(now(), limit))
		defer limited.release()
		ctx = limited
	}
	result, err := t.Turn.Append(ctx, in, dst)
	t.fuel += result.Fuel
	return result, err
}

func (t *gatedTurn) End() {
	t.Turn.End()
	s := t.of.s
	s.gate.GiveBack(struct{}{})
	if t.requests == 0 {
		return
	}
	if t.start != 0 {
		s.pace.add((now() - t.start) / time.Duration(t.requests))
	}
	if o := s.config.Observer; o != nil {
		o.Waited(t.of.e.Name, t.waited, t.requests)
		o.Executed(t.fuel)
	}
}

// wait waits for a worker. It returns for how long, and the time. The time is 0 if
// nobody needs it, for a request of a batch that did not wait: to read the clock costs a
// tenth of the call of a small guest.
func (g *gated) wait(ctx context.Context, isPatient bool) (waited, at time.Duration, err error) {
	if ctx.Err() == nil {
		if _, ok := g.s.gate.TryBorrow(); ok {
			if isPatient && g.e.limit == 0 {
				return 0, 0, nil
			}
			return 0, lastRead(ctx), nil
		}
	}
	began := now()
	err = g.line(ctx, isPatient)
	at = now()
	return at - began, at, err
}

// line waits in the line for a worker.
func (g *gated) line(ctx context.Context, isPatient bool) (err error) {
	c := &g.s.config
	if isPatient {
		_, err = g.s.gate.Borrow(ctx)
		return err
	}
	_, err = g.s.gate.BorrowSoon(ctx, c.Queue, c.MaxWait)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, lending.ErrFull):
		return &rejectedError{ReasonFull}
	case errors.Is(err, lending.ErrWait):
		return &rejectedError{ReasonWait}
	case errors.Is(err, context.DeadlineExceeded):
		return &rejectedError{ReasonDeadline}
	}
	return err
}

// pace is the mean duration of requests, except those of batches that did not wait: a
// moving average in which the last request has the weight 1/16. It is safe for concurrent
// use.
type pace struct{ mean atomic.Int64 }

func (p *pace) add(d time.Duration) {
	for {
		old := p.mean.Load()
		mean := cmp.Or(old, int64(d))
		if p.mean.CompareAndSwap(old, mean+(int64(d)-mean)/16) {
			return
		}
	}
}

// maxRetryAfter is the largest Retry-After, in seconds.
const maxRetryAfter = 60

// retryAfter estimates in how many seconds all waiting requests will have been served:
// at least 1.
func (s *Server) retryAfter() int {
	_, waiting := s.gate.Counts()
	mean := time.Duration(s.pace.mean.Load())
	seconds := mean.Seconds() * float64(waiting+1) / float64(s.config.Workers)
	return max(1, int(math.Ceil(min(seconds, maxRetryAfter))))
}
