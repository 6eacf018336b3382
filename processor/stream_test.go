package processor_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/processor"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// sink keeps answers.
type sink struct {
	ids      []string
	outputs  [][]byte
	fuel     []uint64
	failures []*abi.Failure
	flushes  int
	flushed  bool
	err      error
}

func (s *sink) Write(a *processor.Answer) error {
	s.ids = append(s.ids, a.ID.String())
	s.outputs = append(s.outputs, bytes.Clone(a.Result.Output))
	s.fuel = append(s.fuel, a.Result.Fuel)
	s.failures = append(s.failures, a.Failure)
	s.flushed = false
	return s.err
}

func (s *sink) Flush() error {
	s.flushes++
	s.flushed = true
	return nil
}

// requests yields numbers as requests.
func requests(n uint64, last error) func(context.Context) iter.Seq2[processor.Request, error] {
	return func(context.Context) iter.Seq2[processor.Request, error] {
		return func(yield func(processor.Request, error) bool) {
			for i := range n {
				if !yield(processor.Request{ID: abi.IntID(i), Item: number(i)}, nil) {
					return
				}
			}
			if last != nil {
				yield(processor.Request{}, last)
			}
		}
	}
}

// appender runs requests of bytes by a function.
type appender func(ctx context.Context, in []byte) ([]byte, error)

func (f appender) Run(ctx context.Context, in []byte) (processor.Result[[]byte], error) {
	return f.Append(ctx, in, nil)
}

func (f appender) Append(ctx context.Context, in, dst []byte) (result processor.Result[[]byte], err error) {
	out, err := f(ctx, in)
	result.Output = append(dst, out...)
	return result, err
}

func echo(_ context.Context, in []byte) ([]byte, error) { return in, nil }

func TestStream(t *testing.T) {
	m := open(t, squareWasm, processor.Options{Workers: 4})
	for _, o := range []processor.StreamOptions{{}, {Workers: 1, Window: 1}, {Workers: 16, Window: 5}, {Workers: 4, Held: 1}} {
		for _, completion := range []bool{false, true} {
			o.Completion = completion
			var got sink
			if err := processor.Stream(t.Context(), m, requests(2000, nil), &got, o); err != nil {
				t.Fatal(err)
			}
			ids := slices.Clone(got.ids)
			slices.Sort(ids)
			if len(slices.Compact(ids)) != 2000 || got.flushes == 0 {
				t.Errorf("%+v: %d answers, %d times flushed", o, len(got.ids), got.flushes)
			}
			for i, id := range got.ids {
				n, _ := abi.ParseID(id)
				in, _ := n.Int()
				if !completion && in != uint64(i) || !bytes.Equal(got.outputs[i], number(in*in)) {
					t.Fatalf("%+v: answer %d is to %s, and is %x", o, i, id, got.outputs[i])
				}
			}
		}
	}
}

func TestStreamEnds(t *testing.T) {
	broken := errors.New("broken")
	failing := appender(func(ctx context.Context, in []byte) ([]byte, error) {
		if in[0] == 5 {
			return nil, broken
		}
		return in, nil
	})
	failed := appender(func(ctx context.Context, in []byte) ([]byte, error) { return nil, abi.Failf(abi.ClassGuest, "no") })
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name     string
		ctx      context.Context
		runner   appender
		requests func(context.Context) iter.Seq2[processor.Request, error]
		sink     sink
		o        processor.StreamOptions
		want     error
		answers  int // -1 = any number
	}{
		{"nothing", t.Context(), echo, requests(0, nil), sink{}, processor.StreamOptions{}, nil, 0},
		{"requests before the error of the input are answered", t.Context(), echo, requests(3, broken), sink{}, processor.StreamOptions{}, broken, 3},
		{"failures are answers", t.Context(), failed, requests(3, nil), sink{}, processor.StreamOptions{}, nil, 3},
		{"the runner breaks", t.Context(), failing, requests(1e9, nil), sink{}, processor.StreamOptions{}, broken, -1},
		{"nobody takes the answers", t.Context(), echo, requests(1e9, nil), sink{err: broken}, processor.StreamOptions{}, broken, -1},
		{"ctx has ended", ended, echo, requests(1e9, nil), sink{}, processor.StreamOptions{}, context.Canceled, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := processor.Stream(tt.ctx, tt.runner, tt.requests, &tt.sink, tt.o)
			if !errors.Is(err, tt.want) || tt.answers >= 0 && len(tt.sink.ids) != tt.answers {
				t.Errorf("%d answers, error %v", len(tt.sink.ids), err)
			}
		})
	}
	if err := processor.Stream(t.Context(), appender(echo), requests(1, nil), &sink{}, processor.StreamOptions{Window: -1}); err == nil {
		t.Error("a negative window is accepted")
	}
}

// Answers that are ready when the runner breaks are written and flushed.
func TestStreamKeepsAnswers(t *testing.T) {
	broken := errors.New("broken")
	synctest.Test(t, func(t *testing.T) {
		failing := appender(func(_ context.Context, in []byte) ([]byte, error) {
			if in[0] < 5 {
				return in, nil
			}
			synctest.Wait() // the others are answered
			return nil, broken
		})
		for _, workers := range []int{1, 3} {
			got := &slowly{sink: sink{flushed: true}}
			err := processor.Stream(t.Context(), failing, requests(6, nil), got, processor.StreamOptions{Workers: workers})
			if !errors.Is(err, broken) || len(got.ids) != 5 || !got.flushed {
				t.Errorf("%d workers: %d answers, flushed %v, error %v", workers, len(got.ids), got.flushed, err)
			}
		}
	})
}

// slowly is a sink that is still at the first answer when the others are ready.
type slowly struct{ sink }

func (s *slowly) Write(a *processor.Answer) error {
	time.Sleep(time.Second)
	return s.sink.Write(a)
}

// Answers are flushed when no more are ready: a client may wait for an answer before
// it sends the next request.
func TestStreamAnswersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answered := make(chan struct{}, 1)
		dialogue := func(context.Context) iter.Seq2[processor.Request, error] {
			return func(yield func(processor.Request, error) bool) {
				for i := range uint64(10) {
					if !yield(processor.Request{ID: abi.IntID(i), Item: number(i)}, nil) {
						return
					}
					<-answered
				}
			}
		}
		got := &flusher{flushed: answered}
		if err := processor.Stream(t.Context(), appender(echo), dialogue, got, processor.StreamOptions{}); err != nil || len(got.ids) != 10 {
			t.Errorf("%d answers, error %v", len(got.ids), err)
		}
	})
}

type flusher struct {
	sink
	flushed chan struct{}
}

func (f *flusher) Flush() error {
	f.flushed <- struct{}{}
	return nil
}

// A stream reads no further than its window beyond the last written answer.
func TestStreamHoldsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		read := 0
		counted := func(ctx context.Context) iter.Seq2[processor.Request, error] {
			return func(yield func(processor.Request, error) bool) {
				for r, err := range requests(1000, nil)(ctx) {
					mu.Lock()
					read++
					mu.Unlock()
					if !yield(r, err) {
						return
					}
				}
			}
		}
		slow := &waiting{}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { // until cancel
			done <- processor.Stream(ctx, appender(echo), counted, slow, processor.StreamOptions{Workers: 2, Window: 8})
		}()
		time.Sleep(time.Second) // of the bubble: all wait for the sink
		mu.Lock()
		if read != 8+1 { // one more is there, and not taken
			t.Errorf("%d requests were read", read)
		}
		mu.Unlock()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}

// waiting is a sink that takes an hour for each answer.
type waiting struct{ sink }

func (w *waiting) Write(*processor.Answer) error {
	time.Sleep(time.Hour)
	return nil
}

// Output and fuel of a request are the same through every interface, in any order, with
// any number of workers, and on both engines.
func TestSameEverywhere(t *testing.T) {
	const n = 10_000
	count := uint64(n)
	if testing.Short() {
		count = 500
	}
	var want *sink
	for _, interpreter := range []bool{false, true} {
		for _, workers := range []int{1, 2, 16} {
			r, err := runtime.New(t.Context(), runtime.Config{Interpreter: interpreter})
			if err != nil {
				t.Fatal(err)
			}
			m := open(t, faultyWasm, processor.Options{Workers: workers, Runtime: r})
			t.Cleanup(func() {
				if err := errors.Join(m.Close(), r.Close(context.Background())); err != nil {
					t.Error(err)
				}
			})
			got := &sink{}
			if err := processor.Stream(t.Context(), m, requests(count, nil), got, processor.StreamOptions{Workers: workers}); err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = got
			}
			compareSinks(t, "Stream", got, want)
			compareSinks(t, "Send", sent(t, m, count, workers), want)
			compareSinks(t, "Call", called(t, m, count), want)
		}
	}
}

func compareSinks(t *testing.T, name string, got, want *sink) {
	t.Helper()
	for i := range want.ids {
		same := bytes.Equal(got.outputs[i], want.outputs[i]) && got.fuel[i] == want.fuel[i]
		if (got.failures[i] == nil) != (want.failures[i] == nil) || got.failures[i] != nil && got.failures[i].Class != want.failures[i].Class {
			same = false
		}
		if !same {
			t.Fatalf("%s: request %d is %x for %d, %v, and was %x for %d, %v", name, i,
				got.outputs[i], got.fuel[i], got.failures[i], want.outputs[i], want.fuel[i], want.failures[i])
		}
	}
}

// sent sends requests from the last to the first, and returns the answers in order.
func sent(t *testing.T, m *processor.Module, count uint64, workers int) *sink {
	p := start(t, t.Context(), m, processor.Config{Workers: workers, Backlog: int(count)})
	r := p.Subscribe()
	for i := count; i > 0; i-- {
		if err := p.Send(t.Context(), abi.IntID(i-1), number(i-1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	got, _ := all(r)
	slices.SortFunc(got, func(a, b processor.Response[[]byte]) int { return a.ID.Compare(b.ID) })
	return sinkOf(t, got)
}

func called(t *testing.T, m *processor.Module, count uint64) *sink {
	p := start(t, t.Context(), m, processor.Config{})
	got := make([]processor.Response[[]byte], count)
	for i := range count {
		got[i].ID = abi.IntID(i)
		got[i].Result, got[i].Err = p.Call(t.Context(), number(i))
	}
	return sinkOf(t, got)
}

func sinkOf(t *testing.T, responses []processor.Response[[]byte]) *sink {
	s := &sink{}
	for _, r := range responses {
		failure, _ := errors.AsType[*abi.Failure](r.Err)
		if failure == nil && r.Err != nil {
			t.Fatal(r.Err)
		}
		_ = s.Write(&processor.Answer{ID: r.ID, Result: r.Result, Failure: failure})
	}
	return s
}
