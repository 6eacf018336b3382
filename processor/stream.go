package processor

import (
	"context"
	"errors"
	"fmt"
	"iter"
	goruntime "runtime"
	"sync"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Request is a request of a stream.
type Request struct {
	ID   abi.ID
	Item []byte // one CBOR item; valid until the next request is asked for
}

// Answer is the result or the failure of a request of a stream.
type Answer struct {
	ID      abi.ID
	Result  Result[[]byte] // invalid if Failure is set; valid until Write returns
	Failure *abi.Failure
}

// Defaults of [StreamOptions].
const (
	DefaultWindow = 1024
	DefaultHeld   = 64 << 20
)

// StreamOptions say how a stream is run. Window and Held bound the requests that were
// read and not answered: the stream reads the next request only below both limits. One
// request may go beyond Held.
type StreamOptions struct {
	Workers    int   // requests that run at once; 0 = GOMAXPROCS
	Window     int   // requests in flight; 0 = DefaultWindow
	Held       int64 // bytes of requests and outputs in flight; 0 = DefaultHeld
	Completion bool  // answers come as they are ready, not in the order of the requests
}

func (o *StreamOptions) validate() error {
	if o.Workers < 0 || o.Window < 0 || o.Held < 0 {
		return fmt.Errorf("processor: StreamOptions.Workers, Window and Held are %d, %d and %d, want 0 or more", o.Workers, o.Window, o.Held)
	}
	if o.Workers == 0 {
		o.Workers = goruntime.GOMAXPROCS(0)
	}
	if o.Window == 0 {
		o.Window = DefaultWindow
	}
	if o.Held == 0 {
		o.Held = DefaultHeld
	}
	o.Workers = min(o.Workers, o.Window)
	return nil
}

// Sink takes the answers of a stream. It is used by the goroutine that calls
// [Stream].
type Sink interface {
	Write(a *Answer) error
	// Flush is called when no further answer is ready.
	Flush() error
}

// Stream runs the requests of a sequence of any length, and gives the answers to sink
// as it reads. It returns when all requests are answered. If the sequence ends with an
// error, Stream answers the requests before it, and returns the error.
//
// Other errors are sink's, r's except for failures of the guest, and ctx's: running
// requests are then cancelled, and the remaining ones are not answered. After an error of
// r, sink gets the answers that are ready. requests gets a context that ends at that
// moment, and must end with it.
func Stream(ctx context.Context, r Appender, requests func(context.Context) iter.Seq2[Request, error], sink Sink, o StreamOptions) error {
	if err := o.validate(); err != nil {
		return err
	}
	outer := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := newStream(ctx, cancel, r, o)
	forget := context.AfterFunc(ctx, s.wake)
	defer forget()
	var others sync.WaitGroup
	others.Go(func() { s.read(requests(ctx)) })
	for range o.Workers {
		others.Go(s.runPending)
	}
	err := s.write(sink)
	cancel(err)
	s.wake()
	others.Wait()
	switch {
	case outer.Err() != nil:
		return outer.Err()
	case err != nil:
		return err
	}
	return s.inputErr
}

// cell is a request in flight, with buffers that are reused.
type cell struct {
	Answer
	in, out []byte
	done    bool
}

func (c *cell) kept() int64 { return int64(cap(c.in) + cap(c.out)) }

const (
	// keptCell is the size in bytes up to which a buffer is kept for another request.
	keptCell = 16 << 10
	// keptPart of StreamOptions.Held is the limit of all buffers that are kept.
	keptPart = 4
	// writtenAtOnce is the number of answers that are taken under one lock.
	writtenAtOnce = 256
)

// stream is a running stream. A reader, workers and a writer share it.
type stream struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	runner Appender
	o      StreamOptions

	mu       sync.Mutex // guards the fields below; a cell belongs to the goroutine that took it
	room     *sync.Cond // for the reader
	ready    *sync.Cond // for the writer
	crew     crew
	free     []*cell
	kept     int64       // bytes of the buffers of free
	pending  fifo[*cell] // to be run
	order    fifo[*cell] // in flight, in the order of the requests
	finished fifo[*cell] // to be written, with Completion
	flying   int
	below    int // the reader waits until flying is below it
	held     int64
	ended    bool // no more requests are read
	broken   bool // the runner has ended the stream
	inputErr error
}

func newStream(ctx context.Context, cancel context.CancelCauseFunc, r Appender, o StreamOptions) *stream {
	s := &stream{ctx: ctx, cancel: cancel, runner: r, o: o}
	s.room, s.ready = sync.NewCond(&s.mu), sync.NewCond(&s.mu)
	s.crew = crew{size: o.Workers, work: sync.NewCond(&s.mu)}
	return s
}

// wake wakes all goroutines of the stream, which then look at the context.
func (s *stream) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room.Broadcast()
	s.crew.work.Broadcast()
	s.ready.Broadcast()
}

// read takes requests into flight, as long as there is room.
func (s *stream) read(requests iter.Seq2[Request, error]) {
	var err error
	var spare []*cell
	for r, inputErr := range requests {
		if err = inputErr; err != nil {
			break
		}
		if len(spare) == 0 {
			spare = s.takeFree(spare)
		}
		last := len(spare) - 1
		c := spare[last]
		spare = spare[:last]
		c.ID, c.in, c.done = r.ID, append(c.in[:0], r.Item...), false
		if !s.take(c) {
			break
		}
	}
	s.mu.Lock()
	s.ended, s.inputErr = true, err
	s.mu.Unlock()
	s.wake()
}

// takeFree takes all free cells, or a new one.
func (s *stream) takeFree(spare []*cell) []*cell {
	s.mu.Lock()
	defer s.mu.Unlock()
	if spare = append(spare, s.free...); len(spare) == 0 {
		return append(spare, &cell{})
	}
	clear(s.free)
	s.free, s.kept = s.free[:0], 0
	return spare
}

// take takes a request into flight. It returns false if the stream is over.
func (s *stream) take(c *cell) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.below = s.o.Window
	for (s.flying >= s.below || s.held >= s.o.Held) && s.ctx.Err() == nil {
		if s.flying >= s.o.Window { // room for many is made before the next is read
			s.below = min(s.o.Window, max(s.o.Window/2+1, 2*s.o.Workers))
		}
		s.room.Wait()
	}
	if s.ctx.Err() != nil {
		return false
	}
	s.flying++
	s.held += int64(len(c.in))
	s.pending.push(c)
	if !s.o.Completion {
		s.order.push(c)
	}
	s.crew.call(s.pending.len())
	return true
}

// runPending runs requests, in groups, until all that were read have run.
func (s *stream) runPending() {
	g := newGroup(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.waitPending() {
		g.take()
		s.mu.Unlock()
		err := g.run()
		s.mu.Lock()
		g.end()
		if err != nil {
			s.broken = s.broken || s.ctx.Err() == nil
			s.cancel(err)
			return
		}
	}
}

// waitPending waits for a request that can be run. It returns false if none will come.
// s.mu is held.
func (s *stream) waitPending() bool {
	for s.pending.len() == 0 && s.ctx.Err() == nil {
		if s.ended && s.crew.running == 0 { // no group is left that might be split
			s.crew.work.Broadcast()
			return false
		}
		s.crew.wait()
	}
	return s.ctx.Err() == nil
}

// turn returns a turn of the runner.
func (s *stream) turn() (Turn, error) {
	if t, ok := s.runner.(Turner); ok {
		return t.Turn(s.ctx)
	}
	return untaken{s.runner}, nil
}

// run executes one request. An error ends the stream.
func (s *stream) run(t Turn, c *cell) (err error) {
	c.Failure = nil
	c.Result, err = t.Append(s.ctx, c.in, c.out[:0])
	if err == nil {
		c.out = c.Result.Output
		return nil
	}
	failure, failed := errors.AsType[*abi.Failure](err)
	if !failed {
		return err
	}
	c.Failure, c.Result = failure, Result[[]byte]{}
	return nil
}

// finish makes answers ready for the writer. s.mu is held.
func (s *stream) finish(cells []*cell) {
	for _, c := range cells {
		c.done = true
		s.held += int64(len(c.Result.Output))
		if s.o.Completion {
			s.finished.push(c)
		}
	}
	if s.o.Completion && s.finished.len() > 0 || s.order.len() > 0 && s.order.first().done {
		s.ready.Signal()
	}
}

// write gives answers to the sink. The error is the sink's, or the reason why the
// stream ends early.
func (s *stream) write(sink Sink) error {
	var cells []*cell
	flushed := true
	for {
		var over bool
		if cells, over = s.takeDone(cells[:0], flushed); over {
			return context.Cause(s.ctx)
		}
		if len(cells) == 0 {
			if err := sink.Flush(); err != nil {
				return err
			}
			flushed = true
			continue
		}
		flushed = false
		for _, c := range cells {
			if err := sink.Write(&c.Answer); err != nil {
				return err
			}
		}
		s.release(cells)
	}
}

// takeDone takes answers that are ready. If there are none, it waits for some, but
// returns at once if the sink is not flushed. over says that no more will come.
func (s *stream) takeDone(cells []*cell, flushed bool) (_ []*cell, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for len(cells) < writtenAtOnce {
			c := s.nextDone()
			if c == nil {
				break
			}
			cells = append(cells, c)
		}
		switch {
		case s.ctx.Err() != nil && !s.broken:
			return nil, true
		case len(cells) > 0 || !flushed:
			return cells, false
		case s.ctx.Err() != nil:
			return nil, true
		case s.ended && s.flying == 0:
			return nil, true
		}
		s.ready.Wait()
	}
}

// nextDone takes the next answer that is ready; nil if there is none.
func (s *stream) nextDone() *cell {
	switch {
	case s.o.Completion && s.finished.len() > 0:
		return s.finished.pop()
	case !s.o.Completion && s.order.len() > 0 && s.order.first().done:
		return s.order.pop()
	}
	return nil
}

// release makes room for more requests.
func (s *stream) release(cells []*cell) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range cells {
		s.held -= int64(len(c.in) + len(c.Result.Output))
		c.Answer = Answer{}
		if cap(c.in) > keptCell {
			c.in = nil
		}
		if cap(c.out) > keptCell {
			c.out = nil
		}
		if s.kept+c.kept() > s.o.Held/keptPart {
			c.in, c.out = nil, nil
		}
		s.kept += c.kept()
		s.free = append(s.free, c)
	}
	s.flying -= len(cells)
	if s.flying < s.below && s.held < s.o.Held {
		s.room.Signal()
	}
}

// fifo is a queue. Its zero value works.
type fifo[T any] struct {
	all  []T
	head int
}

func (f *fifo[T]) len() int { return len(f.all) - f.head }
func (f *fifo[T]) first() T { return f.all[f.head] }

func (f *fifo[T]) push(v T) {
	if f.head > 0 && f.head >= f.len() && len(f.all) == cap(f.all) { // rather than growing
		n := copy(f.all, f.all[f.head:])
		clear(f.all[n:])
		f.all, f.head = f.all[:n], 0
	}
	f.all = append(f.all, v)
}

// pushFront puts values that were popped back, in their order.
func (f *fifo[T]) pushFront(values []T) {
	if f.head < len(values) {
		rest := f.all[f.head:]
		f.all, f.head = append(make([]T, len(values), len(values)+len(rest)), rest...), len(values)
	}
	f.head -= copy(f.all[f.head-len(values):], values)
}

func (f *fifo[T]) pop() T {
	var none T
	v := f.all[f.head]
	f.all[f.head] = none
	f.head++
	if f.head == len(f.all) {
		f.all, f.head = f.all[:0], 0
	}
	return v
}
