package web

import (
	"context"
	"math"
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
	at              time.Duration // on the clock of now, when the time limit is over; 0 = no limit
	isExec          bool          // it is that of exec, which is not patient

	read atomic.Int64 // when Err last read the clock; 0 = it did not

	mu      sync.Mutex
	watched context.Context // nil until Done is called
	stop    []func()        // of watched
}

var epoch = time.Now()

// now reads only the monotonic clock, at half the cost of time.Now. The time is that since
// epoch.
func now() time.Duration { return time.Since(epoch) }

// later returns the time d after at, or the last one that there is.
func later(at, d time.Duration) time.Duration {
	if end := at + d; end >= at {
		return end
	}
	return math.MaxInt64
}

// begin makes c the context of a request. The caller must release it.
func (c *requestContext) begin(client, server context.Context, began, timeout time.Duration) {
	c.Context, c.server, c.isExec = client, server, true
	if timeout > 0 {
		c.at = later(began, timeout)
	}
}

// limitedContext returns a context that ends with ctx, and at a time. The caller must
// release it.
func limitedContext(ctx context.Context, at time.Duration) *requestContext {
	return &requestContext{Context: ctx, server: context.Background(), at: at}
}

// Deadline implements [context.Context].
func (c *requestContext) Deadline() (at time.Time, ok bool) {
	at, ok = c.Context.Deadline()
	if c.at == 0 {
		return at, ok
	}
	if own := epoch.Add(c.at); !ok || own.Before(at) {
		return own, true
	}
	return at, true
}

// Err implements [context.Context].
func (c *requestContext) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	if c.at != 0 && c.isLate() {
		return context.DeadlineExceeded
	}
	return c.server.Err()
}

// isLate reports whether the time limit is over.
func (c *requestContext) isLate() bool {
	at := now()
	c.read.Store(int64(at))
	return at >= c.at
}

// lastRead returns when Err of a context last read the clock, which is slow. If it did
// not, it is read.
func lastRead(ctx context.Context) time.Duration {
	if c, ok := ctx.(*requestContext); ok {
		if at := c.read.Load(); at != 0 {
			return time.Duration(at)
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
	if c.at != 0 {
		var end context.CancelFunc
		c.watched, end = context.WithDeadline(ctx, epoch.Add(c.at))
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
