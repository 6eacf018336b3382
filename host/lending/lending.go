// Package lending lends a bounded number of things, in order of arrival: instances of
// a module, or the right to use a processor.
package lending

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// ErrClosed is returned by Borrow after Close.
var ErrClosed = errors.New("lending: closed")

// Errors of [Lender.BorrowSoon].
var (
	ErrFull = errors.New("lending: too many wait already")
	ErrWait = errors.New("lending: waited too long")
)

// Lender lends things of one kind. It is safe for concurrent use.
type Lender[T any] struct {
	made func() T

	mu      sync.Mutex // guards the fields below
	lent    int
	more    int           // number of things that may still be made
	idle    []T           // the most recently used one is last
	waiting list.List     // of *waiter[T]; empty if a thing is idle or may still be made
	closed  bool          // no more things are lent
	ended   chan struct{} // closed when all things have come back after Close
}

// waiter is a caller that waits.
type waiter[T any] struct {
	place *list.Element // nil once served
	ready chan loan[T]  // has room for one
}

// loan is the answer to a waiter.
type loan[T any] struct {
	thing T
	ok    bool // false if the lender is closed
}

// New returns a lender of at most that many things, which made makes when they are
// first needed. made is called with a lock held: it must not use the lender.
func New[T any](most int, made func() T) *Lender[T] {
	return &Lender[T]{made: made, more: most, ended: make(chan struct{})}
}

// Borrow waits for a thing, and returns the most recently used one: few callers then
// use few things, whose memory is in the processor's caches. The error is ctx's or
// [ErrClosed].
func (l *Lender[T]) Borrow(ctx context.Context) (T, error) {
	return l.borrow(ctx, -1, 0)
}

// BorrowSoon is Borrow with limits: the error is [ErrFull] if queue others or more
// already wait, and [ErrWait] if the caller has waited for the duration wait; 0 is no
// limit.
func (l *Lender[T]) BorrowSoon(ctx context.Context, queue int, wait time.Duration) (T, error) {
	return l.borrow(ctx, max(queue, 0), wait)
}

// TryBorrow returns a thing if one is there; ok is false if the caller would have to
// wait, and after Close.
func (l *Lender[T]) TryBorrow() (thing T, ok bool) {
	thing, _, err := l.ask(0)
	return thing, err == nil
}

func (l *Lender[T]) borrow(ctx context.Context, queue int, wait time.Duration) (thing T, err error) {
	if err := ctx.Err(); err != nil {
		return thing, err
	}
	thing, w, err := l.ask(queue)
	if w != nil {
		return l.wait(ctx, w, wait)
	}
	return thing, err
}

// ask returns a thing, or the caller's place in the line if all are lent.
func (l *Lender[T]) ask(queue int) (thing T, w *waiter[T], err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := len(l.idle) - 1
	switch {
	case l.closed:
		return thing, nil, ErrClosed
	case last >= 0:
		thing = l.idle[last]
		l.idle = l.idle[:last]
		l.lent++
		return thing, nil, nil
	case l.more > 0:
		l.more--
		l.lent++
		return l.made(), nil, nil
	case queue >= 0 && l.waiting.Len() >= queue:
		return thing, nil, ErrFull
	}
	w = &waiter[T]{ready: make(chan loan[T], 1)} // not pooled: a pool would cross the bubbles of testing/synctest
	w.place = l.waiting.PushBack(w)
	return thing, w, nil
}

// wait waits until the waiter gets a thing.
func (l *Lender[T]) wait(ctx context.Context, w *waiter[T], most time.Duration) (thing T, err error) {
	var late <-chan time.Time // never
	if most > 0 {
		timer := time.NewTimer(most)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case got := <-w.ready:
		if !got.ok {
			return thing, ErrClosed
		}
		return got.thing, nil
	case <-late:
		err = ErrWait
	case <-ctx.Done():
		err = ctx.Err()
	}
	l.leave(w)
	return thing, err
}

// leave ends the wait, and passes on a thing that the waiter got meanwhile.
func (l *Lender[T]) leave(w *waiter[T]) {
	l.mu.Lock()
	waits := w.place != nil
	if waits {
		l.waiting.Remove(w.place)
	}
	l.mu.Unlock()
	if waits {
		return
	}
	if got := <-w.ready; got.ok {
		l.GiveBack(got.thing)
	}
}

// GiveBack returns a borrowed thing. The caller that has waited longest gets it.
func (l *Lender[T]) GiveBack(thing T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.serve(loan[T]{thing, true}) {
		return
	}
	l.idle = append(l.idle, thing)
	l.lent--
	l.check()
}

// serve answers the first waiter in the line.
func (l *Lender[T]) serve(got loan[T]) bool {
	first := l.waiting.Front()
	if first == nil {
		return false
	}
	w := l.waiting.Remove(first).(*waiter[T])
	w.place = nil
	w.ready <- got
	return true
}

// check closes ended when the last thing has come back after Close.
func (l *Lender[T]) check() {
	if l.closed && l.lent == 0 {
		close(l.ended)
	}
}

// Counts returns how many things are lent, and how many callers wait.
func (l *Lender[T]) Counts() (lent, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lent, l.waiting.Len()
}

// Close rejects all waiting and later callers, waits until all things have come back,
// and calls release, which may be nil, with each thing. It reports whether this was the
// first call of Close; other calls return at once.
func (l *Lender[T]) Close(release func(T)) bool {
	if !l.shut() {
		return false
	}
	<-l.ended
	for _, thing := range l.idle {
		if release != nil {
			release(thing)
		}
	}
	return true
}

func (l *Lender[T]) shut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.closed = true
	for l.serve(loan[T]{}) {
	}
	l.check()
	return true
}
