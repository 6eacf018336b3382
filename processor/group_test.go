package processor_test

import (
	"context"
	"errors"
	"iter"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/processor"
)

// splitTime is that of package processor.
const splitTime = time.Millisecond

// turner runs requests by a function, in turns.
type turner struct {
	appender
	turns, open, most atomic.Int64
	broken            error // of the next turn
}

func (t *turner) Turn(ctx context.Context) (processor.Turn, error) {
	if t.broken != nil {
		return nil, t.broken
	}
	t.turns.Add(1)
	if n := t.open.Add(1); n > t.most.Load() {
		t.most.Store(n)
	}
	return &turn{of: t}, nil
}

type turn struct {
	of    *turner
	inUse atomic.Bool
}

func (t *turn) Append(ctx context.Context, in, dst []byte) (processor.Result[[]byte], error) {
	if t.inUse.Swap(true) {
		return processor.Result[[]byte]{}, errors.New("two goroutines use a turn")
	}
	defer t.inUse.Store(false)
	return t.of.Append(ctx, in, dst)
}

func (t *turn) End() { t.of.open.Add(-1) }

// Requests that take little time are run in groups, one turn each, and those that take
// long are not.
func TestStreamRunsGroups(t *testing.T) {
	for _, tt := range []struct {
		each        time.Duration
		least, most int64 // turns of 1000 requests
	}{{0, 4, 50}, {time.Second, 1000, 1000}} {
		synctest.Test(t, func(t *testing.T) {
			r := &turner{appender: func(_ context.Context, in []byte) ([]byte, error) {
				time.Sleep(tt.each)
				return in, nil
			}}
			var got sink
			start := time.Now()
			if err := processor.Stream(t.Context(), r, requests(1000, nil), &got, processor.StreamOptions{Workers: 4}); err != nil || len(got.ids) != 1000 {
				t.Errorf("%d answers, error %v", len(got.ids), err)
			}
			if n := r.turns.Load(); n < tt.least || n > tt.most || r.open.Load() != 0 {
				t.Errorf("%v a request: %d turns, and %d have not ended", tt.each, n, r.open.Load())
			}
			if took := time.Since(start); took > 1000/4*tt.each+tt.each {
				t.Errorf("four workers took %v", took)
			}
		})
	}
}

// A request that takes long holds up none that was read with it: those before it are
// answered, and other workers run those after it, and those that come later.
func TestStreamSplitsGroups(t *testing.T) {
	for _, tt := range []struct {
		name    string
		o       processor.StreamOptions
		answers int // while the long one runs
	}{
		{"one worker", processor.StreamOptions{Workers: 1}, 500},
		{"one worker, completion", processor.StreamOptions{Workers: 1, Completion: true}, 500},
		{"in order", processor.StreamOptions{Workers: 2}, 500},
		{"completion", processor.StreamOptions{Workers: 2, Completion: true}, 1001},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				long, more := make(chan struct{}), make(chan struct{})
				r := &turner{appender: func(_ context.Context, in []byte) ([]byte, error) {
					if string(in) == string(number(500)) {
						<-long
					}
					return in, nil
				}}
				later := func(ctx context.Context) iter.Seq2[processor.Request, error] {
					return func(yield func(processor.Request, error) bool) {
						for r := range requests(1001, nil)(ctx) {
							if !yield(r, nil) {
								return
							}
						}
						<-more
						yield(processor.Request{ID: abi.IntID(1001), Item: number(1)}, nil)
					}
				}
				got := &sink{}
				done := make(chan error)
				go func() { // until all is answered
					done <- processor.Stream(t.Context(), r, later, got, tt.o)
				}()
				time.Sleep(time.Second) // of the bubble: all wait for the long one
				if tt.o.Completion && tt.o.Workers > 1 {
					close(more) // while the only other worker sleeps
					time.Sleep(time.Second)
				}
				synctest.Wait()
				if len(got.ids) != tt.answers || !got.flushed {
					t.Errorf("%d answers, want %d; flushed %v", len(got.ids), tt.answers, got.flushed)
				}
				close(long)
				if !tt.o.Completion || tt.o.Workers == 1 {
					close(more)
				}
				if err := <-done; err != nil || len(got.ids) != 1002 || r.open.Load() != 0 || r.most.Load() > int64(tt.o.Workers) {
					t.Errorf("%d answers, error %v, %d turns at once", len(got.ids), err, r.most.Load())
				}
			})
		})
	}
}

// Requests that come together after a pause run at once if they take long, whether the
// ones before took long or not.
func TestStreamAfterAPause(t *testing.T) {
	for _, tt := range []struct {
		first, took time.Duration
	}{
		{0, time.Second + 2*splitTime},           // the second worker is woken when the group is split
		{time.Second, time.Second + splitTime/2}, // at once
	} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			var last time.Time
			r := appender(func(_ context.Context, in []byte) ([]byte, error) {
				d := tt.first
				if in[0] > 5 {
					d = time.Second
				}
				time.Sleep(d)
				mu.Lock()
				defer mu.Unlock()
				last = time.Now()
				return in, nil
			})
			pause := func(ctx context.Context) iter.Seq2[processor.Request, error] {
				return func(yield func(processor.Request, error) bool) {
					for i := range uint64(8) {
						switch i {
						case 6:
							time.Sleep(time.Minute)
						case 7:
							time.Sleep(splitTime / 2) // while the one before runs
						}
						if !yield(processor.Request{ID: abi.IntID(i), Item: number(i)}, nil) {
							return
						}
					}
					time.Sleep(time.Minute) // the end of the requests would wake all
				}
			}
			start := time.Now()
			if err := processor.Stream(t.Context(), r, pause, &sink{}, processor.StreamOptions{Workers: 2}); err != nil {
				t.Error(err)
			}
			if took := last.Sub(start) - time.Minute; took > tt.took {
				t.Errorf("%v a request before the pause: %v", tt.first, took)
			}
		})
	}
}

// A turn that cannot be had ends the stream.
func TestStreamWithoutTurn(t *testing.T) {
	r := &turner{appender: echo, broken: errors.New("broken")}
	var got sink
	if err := processor.Stream(t.Context(), r, requests(1e9, nil), &got, processor.StreamOptions{}); !errors.Is(err, r.broken) {
		t.Errorf("%d answers, error %v", len(got.ids), err)
	}
}

// Requests whose time varies, with every number of workers: none is lost or answered
// twice, and the order holds. Groups are split at any moment.
func TestStreamSplitsAtAnyMoment(t *testing.T) {
	for _, workers := range []int{1, 2, 5} {
		for _, completion := range []bool{false, true} {
			r := &turner{appender: func(_ context.Context, in []byte) ([]byte, error) {
				if n := in[len(in)-1]; n%64 == 0 { // near the time at which a group is split
					time.Sleep(900*time.Microsecond + time.Duration(n)*time.Microsecond)
				}
				return in, nil
			}}
			var got sink
			const n = 3000
			synctest.Test(t, func(t *testing.T) {
				if err := processor.Stream(t.Context(), r, requests(n, nil), &got, processor.StreamOptions{Workers: workers, Window: 300, Completion: completion}); err != nil {
					t.Fatal(err)
				}
			})
			seen := map[string]bool{}
			for i, id := range got.ids {
				if seen[id] || !completion && id != abi.IntID(uint64(i)).String() {
					t.Fatalf("%d workers: answer %d is to %s", workers, i, id)
				}
				seen[id] = true
			}
			if len(seen) != n || r.open.Load() != 0 {
				t.Errorf("%d workers: %d answers, %d turns are left", workers, len(seen), r.open.Load())
			}
		}
	}
}
