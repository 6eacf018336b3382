package processor

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Response is the result of a request, or the reason why it has none.
type Response[Out any] struct {
	ID     abi.ID
	Result Result[Out] // invalid if Err is set
	// Err is an *[abi.Failure] if a guest failed, the error of a function, or the
	// error of the context if that ended before the request had run.
	Err error
}

// MissedError says that a receiver was too slow, and how many responses it missed
// after the last one that it got.
type MissedError struct{ Responses uint64 }

func (e *MissedError) Error() string {
	return fmt.Sprintf("%d responses were missed: they came faster than they were received", e.Responses)
}

// feed passes responses to receivers: it keeps the last ones, and each receiver has
// a position among them. It is safe for concurrent use.
type feed[Out any] struct {
	mu        sync.Mutex
	last      []Response[Out] // by their number modulo the length
	size      int             // of last, once there are receivers
	next      uint64          // number of the next response
	receivers int
	waiting   []*Receiver[Out]
	wakeAt    uint64 // the smallest of waiting
	closed    bool
}

// publish makes a response the next one.
func (f *feed[Out]) publish(r Response[Out]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.receivers == 0 {
		return
	}
	f.last[f.next%uint64(len(f.last))] = r
	f.next++
	if f.next >= f.wakeAt {
		f.wake()
	}
}

// close ends the feed: no more responses are published.
func (f *feed[Out]) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.wake()
}

// wake wakes the receivers whose number has come, or all of a closed feed.
func (f *feed[Out]) wake() {
	f.wakeAt = math.MaxUint64
	f.waiting = slices.DeleteFunc(f.waiting, func(r *Receiver[Out]) bool {
		if r.wakeAt > f.next && !f.closed {
			f.wakeAt = min(f.wakeAt, r.wakeAt)
			return false
		}
		r.waits = false
		select {
		case r.woken <- struct{}{}:
		default: // it is awake, and has not looked yet
		}
		return true
	})
}

// Receiver receives all responses of a processor since it subscribed. All receivers
// see the same order. Only one goroutine may use it at a time.
type Receiver[Out any] struct {
	feed   *feed[Out]
	at     uint64          // number of the next response to see; of feed.mu, as are the next two
	waits  bool            // it is in feed.waiting
	wakeAt uint64          // it is woken when that many responses were published
	woken  chan struct{}   // has room for one
	taken  []Response[Out] // under one lock
	given  int             // of taken
	over   bool            // Close was called
	took   time.Time       // when responses were last taken; zero after a doze in which none came
	timer  *time.Timer     // of dozes; nil before the first
}

const (
	// takeAtOnce is the number of responses that a receiver takes under one lock.
	takeAtOnce = 64
	// dozeTime is how long a receiver waits for more responses than one if it has just
	// had some. To wake a goroutine for each costs more CPU time than to call a small
	// guest, as idle threads of the process look for work meanwhile. The first response
	// after a pause wakes it at once.
	dozeTime = 100 * time.Microsecond
)

func (f *feed[Out]) subscribe() *Receiver[Out] {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last == nil {
		f.last = make([]Response[Out], f.size)
	}
	f.receivers++
	return &Receiver[Out]{feed: f, at: f.next, woken: make(chan struct{}, 1)}
}

// Next waits for the next response. The error is a *[MissedError], once for each
// gap, after which Next continues with the oldest response that is kept; [io.EOF]
// after the last response of a processor that has stopped, or after Close; or ctx's.
func (r *Receiver[Out]) Next(ctx context.Context) (response Response[Out], err error) {
	for r.given == len(r.taken) {
		wait, err := r.take()
		if err != nil {
			return response, err
		}
		if !wait {
			continue
		}
		if err := r.wait(ctx); err != nil {
			return response, err
		}
	}
	response, r.taken[r.given] = r.taken[r.given], response
	r.given++
	return response, nil
}

// wait waits until the feed wakes the receiver, or a doze is over.
func (r *Receiver[Out]) wait(ctx context.Context) error {
	var dozed <-chan time.Time // never
	if !r.took.IsZero() {
		if r.timer == nil {
			r.timer = time.NewTimer(dozeTime)
		} else {
			r.timer.Reset(dozeTime)
		}
		defer r.timer.Stop()
		dozed = r.timer.C
	}
	select {
	case <-r.woken:
	case <-dozed:
		r.took = time.Time{}
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// take takes responses, or reports that the caller must wait for one.
func (r *Receiver[Out]) take() (wait bool, err error) {
	f := r.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	size := uint64(len(f.last))
	switch {
	case r.over:
		return false, io.EOF
	case f.next-r.at > size:
		missed := f.next - size - r.at
		r.at += missed
		return false, &MissedError{missed}
	case r.at < f.next:
		r.taken, r.given = r.taken[:0], 0
		for n := min(f.next-r.at, takeAtOnce); n > 0; n-- {
			r.taken = append(r.taken, f.last[r.at%size])
			r.at++
		}
		r.took = time.Now()
		return false, nil
	case f.closed:
		return false, io.EOF
	}
	r.wakeAt = f.next + 1
	if time.Since(r.took) < dozeTime {
		r.wakeAt = f.next + max(size/4, 1)
	} else {
		r.took = time.Time{}
	}
	f.wakeAt = min(f.wakeAt, r.wakeAt)
	if !r.waits {
		r.waits = true
		f.waiting = append(f.waiting, r)
	}
	return true, nil
}

// Close ends the receiver: no more responses are kept for it.
func (r *Receiver[Out]) Close() {
	f := r.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.over {
		return
	}
	r.over, r.taken, r.given = true, nil, 0
	if f.receivers--; f.receivers == 0 {
		clear(f.last)
	}
	for i, w := range f.waiting {
		if w == r {
			f.waiting = append(f.waiting[:i], f.waiting[i+1:]...)
			break
		}
	}
}
