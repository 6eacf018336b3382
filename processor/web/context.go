package web

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// requestContext is the context of a request: it ends if the client goes away, with its
// time limit, and with the server. A timer and callbacks are only made when Done is
// called: a call of a guest only reads Err, and their cost would show.
type requestContext struct {
	context.Context // of the client
	server          context.Context
	at              time.Time // when the time limit is over; zero = no limit
	isExec          bool      // it is that of exec, which is not patient

	read atomic.Int64 // when Err last read the clock, since epoch; 0 = it did not

	mu      sync.Mutex
	watched context.Context // nil until Done is called
	stop    []func()        // of watched
}

// epoch is before all readings of the clock.
var epoch = time.Now()

// now reads only the monotonic clock, at half the cost of time.Now.
func now() time.Time { return epoch.Add(time.Since(epoch)) }

// begin makes c the context of a request. The caller must release it.
func (c *requestContext) begin(client, server context.Context, began time.Time, timeout time.Duration) {
	c.Context, c.server, c.isExec = client, server, true
	if timeout > 0 {
		c.at = began.Add(timeout)
	}
}

// limitedContext returns a context that ends with ctx, and at a time. The caller must
// release it.
func limitedContext(ctx context.Context, at time.Time) *requestContext {
	return &requestContext{Context: ctx, server: context.Background(), at: at}
}

// Deadline implements [context.Context].
func (c *requestContext) Deadline() (at time.Time, ok bool) {
	at, ok = c.Context.Deadline()
	if !c.at.IsZero() && (!ok || c.at.Before(at)) {
		return c.at, true
	}
	return at, ok
}

// Err implements [context.Context].
func (c *requestContext) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	if !c.at.IsZero() && c.isLate() {
		return context.DeadlineExceeded
	}
	return c.server.Err()
}

// isLate reports whether the time limit is over.
func (c *requestContext) isLate() bool {
	at := time.Since(epoch)
	c.read.Store(int64(at))
	return !epoch.Add(at).Before(c.at)
}

// lastRead returns when Err of a context last read the clock, which is slow. If it did
// not, it is read.
func lastRead(ctx context.Context) time.Time {
	if c, ok := ctx.(*requestContext); ok {
		if at := c.read.Load(); at != 0 {
			return epoch.Add(time.Duration(at))
		}
	}
	return now()
}

// Done implements [context.Context].
func (c *requestContext) Done() <-chan struct{} { return c.watch().Done() }

// AfterFunc is what context.AfterFunc calls.
func (c *requestContext) AfterFunc(f func()) (stop func() bool) {
	return context.AfterFunc(c.watch(), f)
}

func (c *requestContext) watch() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watched != nil {
		return c.watched
	}
	ctx, cancel := context.WithCancel(c.Context)
	stop := context.AfterFunc(c.server, cancel)
	c.watched, c.stop = ctx, []func(){func() { stop() }, cancel}
	if !c.at.IsZero() {
		var end context.CancelFunc
		c.watched, end = context.WithDeadline(ctx, c.at)
		c.stop = append(c.stop, end)
	}
	return c.watched
}

func (c *requestContext) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, stop := range c.stop {
		stop()
	}
}
