package processor

import (
	"context"
	"errors"
	"fmt"
	goruntime "runtime"
	"sync"
	"sync/atomic"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Errors of a [Processor].
var (
	// ErrStopped is returned for requests that come after Stop.
	ErrStopped = errors.New("the processor has stopped")
	// ErrFull says that the queue has no room.
	ErrFull = errors.New("the queue is full")
	// ErrDuplicate says that a request with this id is in flight.
	ErrDuplicate = errors.New("duplicate id: a request with it is in flight")
)

// Defaults of [Config].
const (
	DefaultQueue   = 16 // for each worker
	DefaultBacklog = 1024
)

// Config says how a processor works. The zero Config works.
type Config struct {
	// Workers is how many sent requests run at once; 0 = GOMAXPROCS. The runner may
	// have a limit of its own, which includes calls.
	Workers int
	Queue   int // sent requests that wait; 0 = DefaultQueue for each worker
	// Backlog is how many responses are kept for slow receivers;
	// 0 = DefaultBacklog. Without receivers, none are kept.
	Backlog int
}

func (c *Config) validate() error {
	for name, n := range map[string]int{"Workers": c.Workers, "Queue": c.Queue, "Backlog": c.Backlog} {
		if n < 0 {
			return fmt.Errorf("processor: Config.%s is %d, want 0 or more", name, n)
		}
	}
	if c.Workers == 0 {
		c.Workers = goruntime.GOMAXPROCS(0)
	}
	if c.Queue == 0 {
		c.Queue = DefaultQueue * c.Workers
	}
	if c.Backlog == 0 {
		c.Backlog = DefaultBacklog
	}
	return nil
}

// Processor takes requests for a runner, from any number of goroutines. Each
// request that it accepts has one answer: the result of Call or SendReceive, or the
// response that receivers see. The caller must stop it, or end its context.
//
// The processor does not close the runner: its owner closes it after the processor has
// stopped.
type Processor[In, Out any] struct {
	runner  Runner[In, Out]
	ctx     context.Context // of the processor
	forget  func()          // stops waiting for the end of ctx; called once
	workers int             // at most
	feed    feed[Out]

	calls   atomic.Int64  // in their callers' goroutines
	closing atomic.Bool   // no more requests are accepted
	idle    chan struct{} // closed when all requests are answered and no goroutine is left

	mu      sync.Mutex // guards the fields below
	queue   line[In]
	flying  map[abi.ID]struct{} // ids of sent requests without an answer
	links   []func(context.Context, Response[Out]) error
	working int // goroutines
	over    bool
	err     error // that broke the processor
}

// request is a request that was sent.
type request[In any] struct {
	id abi.ID
	in In
}

// New returns a processor over a runner. The end of ctx cancels the running
// requests, and answers the waiting ones with its error.
func New[In, Out any](ctx context.Context, r Runner[In, Out], c Config) (*Processor[In, Out], error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	p := &Processor[In, Out]{
		runner: r, ctx: ctx, workers: c.Workers, idle: make(chan struct{}), flying: map[abi.ID]struct{}{},
		queue: line[In]{size: c.Queue}, feed: feed[Out]{size: c.Backlog},
	}
	abandoned := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { // Stop waits for it
		defer close(abandoned)
		p.abandon()
	})
	p.forget = sync.OnceFunc(func() {
		if !stop() {
			<-abandoned
		}
	})
	return p, nil
}

// Call runs a request in the caller's goroutine, and returns its result. It waits
// for the runner in the order of arrival. Receivers do not see it.
//
// The error is the runner's, ctx's, the processor's context's, or [ErrStopped].
func (p *Processor[In, Out]) Call(ctx context.Context, in In) (result Result[Out], err error) {
	if !p.enter() {
		return result, p.refusal()
	}
	defer p.leave()
	ctx, part := join(ctx, p.ctx)
	defer part()
	return p.runner.Run(ctx, in)
}

// SendReceive runs a request in the caller's goroutine, and returns its result,
// which receivers see too. The caller cannot miss the response. The error is one of
// Call's, or [ErrDuplicate].
func (p *Processor[In, Out]) SendReceive(ctx context.Context, id abi.ID, in In) (result Result[Out], err error) {
	if !p.enter() {
		return result, p.refusal()
	}
	defer p.leave()
	if !p.takeOff(id) {
		return result, ErrDuplicate
	}
	ctx, part := join(ctx, p.ctx)
	defer part()
	answered := false
	defer func() {
		if !answered { // the runner panicked: the id may be used again
			p.land(id)
		}
	}()
	result, err = p.runner.Run(ctx, in)
	answered = true
	p.finish(Response[Out]{id, result, err})
	return result, err
}

// Send queues a request. It blocks until there is room. On an error, the request is
// not accepted. The error is ctx's if ctx ended first, the processor's, [ErrStopped],
// or [ErrDuplicate].
func (p *Processor[In, Out]) Send(ctx context.Context, id abi.ID, in In) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w, err := p.enqueue(request[In]{id, in}, true)
	if w == nil {
		return err
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return p.giveUp(w, ctx.Err())
	}
}

// TrySend is Send that does not block: the error is [ErrFull] if there is no room.
func (p *Processor[In, Out]) TrySend(id abi.ID, in In) error {
	_, err := p.enqueue(request[In]{id, in}, false)
	return err
}

// Subscribe returns a receiver of all responses from now on. The caller must close it.
func (p *Processor[In, Out]) Subscribe() *Receiver[Out] { return p.feed.subscribe() }

// Counts returns how many requests wait in the queue, and how many calls and
// workers run.
func (p *Processor[In, Out]) Counts() (queued, running int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queue.len(), p.working + int(p.calls.Load())
}

// Stop ends the processor: it accepts no more requests, and waits until all accepted
// ones are answered. It returns the error that broke the processor, if any. Receivers
// get [io.EOF] after the last response. Stop may be called more than once.
func (p *Processor[In, Out]) Stop() error {
	p.closing.Store(true)
	p.mu.Lock()
	for w := p.queue.popWaiter(); w != nil; w = p.queue.popWaiter() {
		delete(p.flying, w.request.id)
		w.done <- ErrStopped
	}
	p.check()
	p.mu.Unlock()
	<-p.idle
	p.forget()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// enter counts a call. It returns false if no more requests are accepted.
func (p *Processor[In, Out]) enter() bool {
	p.calls.Add(1)
	if p.closing.Load() {
		p.leave()
		return false
	}
	return true
}

func (p *Processor[In, Out]) leave() {
	if p.calls.Add(-1) == 0 && p.closing.Load() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.check()
	}
}

// refusal returns the reason why no more requests are accepted.
func (p *Processor[In, Out]) refusal() error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	return ErrStopped
}

// takeOff records that a request is in flight. It returns false if another one with
// its id is.
func (p *Processor[In, Out]) takeOff(id abi.ID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, flies := p.flying[id]
	if !flies {
		p.flying[id] = struct{}{}
	}
	return !flies
}

// enqueue queues a request. If there is no room and wait is set, it returns the
// sender that waits for it.
func (p *Processor[In, Out]) enqueue(r request[In], wait bool) (*sender[In], error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing.Load() {
		return nil, p.refusal()
	}
	_, flies := p.flying[r.id]
	switch room := p.queue.hasRoom(); {
	case flies:
		return nil, ErrDuplicate
	case !room && !wait:
		return nil, ErrFull
	case !room:
		p.flying[r.id] = struct{}{}
		return p.queue.wait(r), nil
	}
	p.flying[r.id] = struct{}{}
	p.queue.push(r)
	if p.working < p.workers {
		p.working++
		go p.work() // until the queue is empty; Stop waits for it
	}
	return nil, nil
}

// giveUp takes back the request of a sender that waits for room, unless it was queued
// meanwhile.
func (p *Processor[In, Out]) giveUp(w *sender[In], err error) error {
	p.mu.Lock()
	if p.queue.leave(w) {
		delete(p.flying, w.request.id)
		p.mu.Unlock()
		return err
	}
	p.mu.Unlock()
	return <-w.done
}

// work runs requests until the queue is empty.
func (p *Processor[In, Out]) work() {
	for r, ok := p.next(); ok; r, ok = p.next() {
		result, err := p.runner.Run(p.ctx, r.in)
		p.finish(Response[Out]{r.id, result, err})
	}
}

// next takes the first request of the queue. If there is none, the worker has ended.
func (p *Processor[In, Out]) next() (request[In], bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.queue.pop()
	if !ok {
		p.working--
		p.check()
	}
	return r, ok
}

// finish answers a request: the response goes to receivers and down the chain.
func (p *Processor[In, Out]) finish(r Response[Out]) {
	p.land(r.ID) // before receivers can send another with its id
	p.feed.publish(r)
	p.forward(r)
}

// land records that a request is no longer in flight.
func (p *Processor[In, Out]) land(id abi.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.flying, id)
}

// forward passes a response to the chained processors.
func (p *Processor[In, Out]) forward(r Response[Out]) {
	p.mu.Lock()
	links := p.links
	p.mu.Unlock()
	for _, link := range links {
		if err := link(p.ctx, r); err != nil {
			p.broken(err)
		}
	}
}

// broken keeps the first error of the processor itself.
func (p *Processor[In, Out]) broken(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil && p.ctx.Err() == nil {
		p.err = err
	}
}

// abandon answers all waiting requests with the error of the context, which has ended.
func (p *Processor[In, Out]) abandon() {
	p.closing.Store(true)
	p.mu.Lock()
	p.working++
	for w := p.queue.popWaiter(); w != nil; w = p.queue.popWaiter() {
		delete(p.flying, w.request.id)
		w.done <- p.ctx.Err()
	}
	p.mu.Unlock()
	for r, ok := p.next(); ok; r, ok = p.next() {
		p.finish(Response[Out]{ID: r.id, Err: p.ctx.Err()})
	}
}

// check closes idle if the processor has ended. p.mu is held.
func (p *Processor[In, Out]) check() {
	if !p.over && p.closing.Load() && p.working == 0 && p.queue.len() == 0 && p.calls.Load() == 0 {
		p.over = true
		p.feed.close()
		close(p.idle)
	}
}
