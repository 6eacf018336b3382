package web

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// requestContext is the context of a request: it ends if the client goes away, with its
// time limit, and with the server. A timer and callbacks are only made when Done is
// called: a call of a guest only reads Err, and their cost would show.
type requestContext struct {
	context.Context // of the client
	server          context.Context
	at              time.Time // when the time limit is over; zero = no limit

	mu      sync.Mutex
	watched context.Context // nil until Done is called
	stop    []func()        // of watched
}

// context returns the context of a request, and a function that releases it.
func (s *Server) context(r *http.Request, began time.Time, timeout time.Duration) (ctx *requestContext, release func()) {
	ctx = &requestContext{Context: r.Context(), server: s.hard}
	if timeout > 0 {
		ctx.at = began.Add(timeout)
	}
	return ctx, ctx.release
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
	if !c.at.IsZero() && !time.Now().Before(c.at) {
		return context.DeadlineExceeded
	}
	return c.server.Err()
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
