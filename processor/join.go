package processor

import (
	"context"
	"reflect"
	"sync"
)

// joined is a context that ends when either of two ends. It has the values and the
// deadline of the first. No goroutine or callback is started before Done is called: a
// call of a guest only reads Err, and the cost would show.
type joined struct {
	context.Context
	other context.Context

	mu   sync.Mutex // guards the fields below
	done chan struct{}
	stop [2]func() bool
}

// join returns a context that ends with a or with b. part releases both.
func join(a, b context.Context) (joint context.Context, part func()) {
	switch {
	case b.Done() == nil || isSame(a, b):
		return a, func() {}
	case a == context.Background():
		return b, func() {}
	}
	j := &joined{Context: a, other: b}
	return j, j.part
}

// isSame reports whether two contexts are one pointer. To compare other types may panic.
func isSame(a, b context.Context) bool {
	return reflect.TypeOf(a).Kind() == reflect.Pointer && a == b
}

// Err implements [context.Context].
func (j *joined) Err() error {
	if err := j.Context.Err(); err != nil {
		return err
	}
	return j.other.Err()
}

// Done implements [context.Context].
func (j *joined) Done() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.done == nil {
		done := make(chan struct{})
		end := sync.OnceFunc(func() { close(done) })
		j.done = done
		j.stop = [2]func() bool{context.AfterFunc(j.Context, end), context.AfterFunc(j.other, end)}
	}
	return j.done
}

// part releases both contexts.
func (j *joined) part() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, stop := range j.stop {
		if stop != nil {
			stop()
		}
	}
}
