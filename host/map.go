package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	goruntime "runtime"
	"sync"
	"sync/atomic"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// ChunkError is the error of one chunk of a sequence that gave no output. The
// sequence goes on.
type ChunkError struct {
	ID  abi.ID // the chunk's position, from 0
	Err error  // as Call returns it
}

func (e *ChunkError) Error() string { return fmt.Sprintf("chunk %v: %v", e.ID, e.Err) }

// Unwrap returns the cause.
func (e *ChunkError) Unwrap() error { return e.Err }

// Values yields the values of seq, each with a nil error, for Map.
func Values[T any](seq iter.Seq[T]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for v := range seq {
			if !yield(v, nil) {
				return
			}
		}
	}
}

// Map calls the guest for each chunk of seq, as Call does, and yields the
// outputs as they finish. seq may be endless: at any time, at most four chunks
// for each of Options.Workers were taken from it and not yet yielded. The ID of
// an output is the position of its chunk, from 0; Map ignores ids within
// chunks. The caller owns the outputs. Map copies a chunk: seq may change it
// when it goes on, as the sources of package sources do.
//
// A *[ChunkError] reports that one chunk gave no output: an *[abi.Failure], or
// [ErrInput]. The sequence goes on. Any other error is the last one: seq's,
// after the outputs of all chunks before it, ctx's, or [ErrClosed].
//
// Map does nothing until it is ranged over. When the loop has ended, for any
// reason, all goroutines of Map have ended too. To do so it waits until seq
// yields or returns: a seq that waits for something else, such as a connection,
// must be told separately that the loop is over. seq is used by one goroutine
// at a time, which is not the goroutine of the loop; if seq panics, the loop
// does.
func (g *Guest) Map(ctx context.Context, seq iter.Seq2[[]byte, error]) iter.Seq2[Output, error] {
	return g.outputs(ctx, seq, false)
}

// MapOrdered is Map with the outputs in the order of their chunks. A slow chunk
// delays those after it.
func (g *Guest) MapOrdered(ctx context.Context, seq iter.Seq2[[]byte, error]) iter.Seq2[Output, error] {
	return g.outputs(ctx, seq, true)
}

func (g *Guest) outputs(ctx context.Context, seq iter.Seq2[[]byte, error], ordered bool) iter.Seq2[Output, error] {
	return func(yield func(Output, error) bool) {
		for o, err := range outputsOf(ctx, g.workers, ordered, clones(seq), g.Call) {
			if !yield(Output(o), err) {
				return
			}
		}
	}
}

func clones(seq iter.Seq2[[]byte, error]) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for chunk, err := range seq {
			if !yield(bytes.Clone(chunk), err) {
				return
			}
		}
	}
}

// outputsOf yields the result of call for each input of a sequence, by the
// rules of [Guest.Map].
func outputsOf[In, Out any](ctx context.Context, workers int, ordered bool, seq iter.Seq2[In, error],
	call func(context.Context, In) (Out, error)) iter.Seq2[TypedOutput[Out], error] {
	return func(yield func(TypedOutput[Out], error) bool) {
		m := newMapping(workers, call)
		pass := func(r mapped[Out]) bool { return m.pass(r, yield) }
		if ordered {
			pass = inOrder(pass)
		}
		m.run(ctx, seq, pass, yield)
	}
}

// inOrder returns a function that calls pass in the order of positions.
func inOrder[Out any](pass func(mapped[Out]) bool) func(mapped[Out]) bool {
	early := map[uint64]mapped[Out]{}
	next := uint64(0)
	return func(r mapped[Out]) bool {
		early[r.position] = r
		for r, ok := early[next]; ok; r, ok = early[next] {
			delete(early, next)
			next++
			if !pass(r) {
				return false
			}
		}
		return true
	}
}

// inFlight is the maximum number of chunks for each worker that are taken from
// a sequence and not yet yielded. With more than one, workers stay busy while
// the caller uses an output, and while the next output in order is slow.
const inFlight = 4

// mapping is one loop over the outputs of a sequence. Workers take inputs from
// it, call the guest, and send the results to the goroutine of the loop.
type mapping[In, Out any] struct {
	call    func(context.Context, In) (Out, error)
	flight  chan struct{}    // has one element for each input in flight; its capacity is the limit
	done    chan mapped[Out] // same capacity; closed by the last worker
	working atomic.Int64     // running workers
	cancel  context.CancelFunc

	turn     chan struct{} // has one element while a worker asks for an input; guards the fields below
	next     func() (In, error, bool)
	position uint64 // of the next input

	mu       sync.Mutex // guards the fields below
	over     bool       // no more inputs are taken
	err      error      // ends the loop
	broken   bool       // a worker did not return: it panicked, or called runtime.Goexit
	panicked any        // nil for Goexit
}

// mapped is the result of one input.
type mapped[Out any] struct {
	position uint64
	output   Out
	err      error
}

func newMapping[In, Out any](workers int, call func(context.Context, In) (Out, error)) *mapping[In, Out] {
	m := &mapping[In, Out]{call: call, turn: make(chan struct{}, 1)}
	m.flight = make(chan struct{}, inFlight*workers)
	m.done = make(chan mapped[Out], inFlight*workers)
	m.working.Store(int64(workers))
	return m
}

// run passes on the results of calls as they finish, and yields the error that
// ends the sequence, if there is one. It starts the workers, and returns when
// they have ended.
func (m *mapping[In, Out]) run(ctx context.Context, seq iter.Seq2[In, error],
	pass func(mapped[Out]) bool, yield func(TypedOutput[Out], error) bool) {
	next, stop := iter.Pull2(seq)
	defer m.repanic()
	defer stop()
	var workers sync.WaitGroup
	defer workers.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.next, m.cancel = next, cancel
	for range m.working.Load() {
		workers.Go(func() { m.work(ctx) })
	}
	for r, ok := m.receive(ctx); ok; r, ok = m.receive(ctx) {
		if !pass(r) {
			return
		}
	}
	if err := m.ended(); err != nil {
		yield(TypedOutput[Out]{}, err)
	}
}

// pass yields one result. It reports whether the loop wants more.
func (m *mapping[In, Out]) pass(r mapped[Out], yield func(TypedOutput[Out], error) bool) bool {
	o, err := TypedOutput[Out]{abi.IntID(r.position), r.output}, error(nil)
	if r.err != nil {
		err = &ChunkError{o.ID, r.err}
	}
	if !yield(o, err) {
		return false
	}
	<-m.flight
	return true
}

// receive returns a result; ok is false if there are no more.
func (m *mapping[In, Out]) receive(ctx context.Context) (r mapped[Out], ok bool) {
	select {
	case r, ok = <-m.done:
	case <-ctx.Done():
		m.finish(ctx.Err())
	}
	return r, ok
}

// work makes calls, one after the other.
func (m *mapping[In, Out]) work(ctx context.Context) {
	returned := false
	defer func() {
		if !returned {
			m.abort(recover())
		}
		if m.working.Add(-1) == 0 {
			close(m.done)
		}
	}()
	for m.step(ctx) {
	}
	returned = true
}

// step makes the call for the next input. It reports whether to go on.
func (m *mapping[In, Out]) step(ctx context.Context) bool {
	if !enter(ctx, m.flight) || !enter(ctx, m.turn) {
		return m.finish(ctx.Err())
	}
	in, position, ok := m.take(ctx)
	if !ok {
		return false
	}
	output, err := m.call(ctx, in)
	switch {
	case err != nil && ctx.Err() != nil:
		return m.finish(ctx.Err())
	case errors.Is(err, ErrClosed):
		return m.finish(err)
	}
	m.done <- mapped[Out]{position, output, err} // has room
	return true
}

// enter waits until a channel has room for one more. It returns false if ctx
// ends first.
func enter(ctx context.Context, c chan<- struct{}) bool {
	select {
	case c <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// take returns the next input, and ends the worker's turn; ok is false if there
// are no more.
func (m *mapping[In, Out]) take(ctx context.Context) (in In, position uint64, ok bool) {
	defer func() { <-m.turn }()
	if m.isOver() {
		return in, 0, false
	}
	in, err, ok := m.next()
	if err == nil {
		err = ctx.Err() // ctx may be why the sequence has ended
	}
	if !ok || err != nil {
		return in, 0, m.finish(err)
	}
	position = m.position
	m.position++
	return in, position, true
}

func (m *mapping[In, Out]) isOver() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.over
}

// finish ends the loop with an error, unless it already ends with another one.
// It returns false.
func (m *mapping[In, Out]) finish(err error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
	if m.err == nil {
		m.err = err
	}
	return false
}

// abort ends the loop because a worker did not return.
func (m *mapping[In, Out]) abort(panicked any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over, m.broken, m.panicked = true, true, panicked
	m.cancel()
}

// ended returns the error that ends the loop; repanic may end the goroutine
// before.
func (m *mapping[In, Out]) ended() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken {
		return nil
	}
	return m.err
}

// repanic ends the goroutine of the loop in the same way as a worker. All
// workers have ended.
func (m *mapping[In, Out]) repanic() {
	switch {
	case m.broken && m.panicked == nil:
		goruntime.Goexit()
	case m.broken:
		panic(m.panicked)
	}
}
