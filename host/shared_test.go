package host_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/linear"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// TestTwoJobsShareWorkers runs two jobs at once on a coordinator of 2 workers.
// There are never more than 2 attempts at once, and each job gets half of the
// time, however long its chunks take.
func TestTwoJobsShareWorkers(t *testing.T) {
	for name, lengths := range map[string][2]time.Duration{
		"alike":          {time.Millisecond, time.Millisecond},
		"short and long": {time.Millisecond, 70 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var running atomic.Int32
				var busy [2]atomic.Int64
				end := time.Now().Add(time.Minute)
				f := squares()
				f.exec = func(chunk []byte, _ int) ([]byte, error) {
					if running.Add(1) > 2 {
						t.Error("more than 2 attempts at once")
					}
					defer running.Add(-1)
					job := int(numberOf(chunk) % 2)
					start := time.Now()
					time.Sleep(lengths[job])
					if time.Now().Before(end) { // both have work until then
						busy[job].Add(int64(time.Since(start)))
					}
					return square(chunk)
				}
				c := coordinator(t, f, host.Config{Workers: 2})
				var jobs sync.WaitGroup
				for job := range uint64(2) {
					var items [][]byte
					for i := range uint64(2 * time.Minute / lengths[job]) {
						items = append(items, number(2*i+job))
					}
					jobs.Go(func() {
						if _, err := c.Run(t.Context(), &host.Job{Module: []byte{0}, Chunks: chunksOf(t, items...)}); err != nil {
							t.Error(err)
						}
					})
				}
				jobs.Wait()
				whole := busy[0].Load() + busy[1].Load()
				if part := float64(busy[0].Load()) / float64(whole); part < 0.4 || part > 0.6 {
					t.Errorf("the first job had %.2f of the time", part)
				}
				if d := time.Duration(whole); d < 115*time.Second {
					t.Errorf("2 workers worked %v in a minute", d)
				}
			})
		})
	}
}

// TestCancelTwo ends two jobs on one coordinator, with a store and its journal,
// at random moments: by a stop, by the end of a context, or by both.
func TestCancelTwo(t *testing.T) {
	const rounds = 500 // of two jobs
	wasm, err := os.ReadFile("../guest-examples/faulty/c/faulty.wasm")
	if err != nil {
		t.Fatal(err)
	}
	var seq [][]byte
	for n := range byte(20) {
		seq = append(seq, []byte{n})
	}
	file := chunksOf(t, append(seq, []byte("\xa1\x62do\x64loop"))...)
	r, err := runtime.New(t.Context(), runtime.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	if _, err := r.Compile(t.Context(), wasm, runtime.Options{}); err != nil {
		t.Fatal(err)
	}
	before, live := goruntime.NumGoroutine(), linear.Live()
	for i := range rounds {
		s := store.NewMemory()
		c, err := host.New(t.Context(), host.Config{Workers: 1 + i%3, Engine: host.NewEngine(r), Store: s, Journal: s})
		if err != nil {
			t.Fatal(err)
		}
		var jobs sync.WaitGroup
		for range 2 {
			jobs.Go(func() { cancelAtRandom(t, c, wasm, file) })
		}
		jobs.Wait()
	}
	if linear.Live() != live {
		t.Errorf("%d memories are left", linear.Live()-live)
	}
	checkGoroutines(t, before)
}

func cancelAtRandom(t *testing.T, c *host.Coordinator, wasm []byte, file *chunks.File) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stop := make(chan struct{})
	job := &host.Job{Module: wasm, Chunks: file, Stop: stop, Retry: host.RetryPolicy{Retries: 1}, Grace: rand.N(time.Millisecond)}
	ends := []func(){cancel, func() { close(stop) }}
	if rand.IntN(3) > 0 {
		ends = ends[rand.IntN(2):][:1]
	}
	for _, end := range ends {
		timer := time.AfterFunc(rand.N(3*time.Millisecond), end)
		defer timer.Stop()
	}
	res, err := c.Run(ctx, job)
	if err != nil && !errors.Is(err, host.ErrInterrupted) {
		t.Errorf("error %v", err)
	}
	if res == nil {
		return
	}
	if n := res.Report.Instances; n.Created != n.Closed {
		t.Errorf("%d instances were created and %d closed", n.Created, n.Closed)
	}
}

// The end of a context can be distinguished from a stop, and is an interruption
// too.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := squares()
		f.delay = func() time.Duration { return time.Second }
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		c := coordinator(t, f, host.Config{Workers: 1})
		res, err := c.Run(ctx, &host.Job{Module: []byte{0}, Chunks: chunksOf(t, numbers(10)...)})
		if !errors.Is(err, host.ErrInterrupted) || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if res.Report.Chunks.Succeeded != 2 || res.Report.State != "interrupted" || err.Error() != host.ErrInterrupted.Error() {
			t.Errorf("%+v, %q", res.Report.Chunks, err)
		}
		stop := make(chan struct{})
		time.AfterFunc(1500*time.Millisecond, func() { close(stop) })
		_, err = c.Run(t.Context(), &host.Job{Module: []byte{0}, Chunks: chunksOf(t, numbers(10)...), Stop: stop})
		if !errors.Is(err, host.ErrInterrupted) || errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}

// wants is an observer of a given detail.
type wants struct {
	events
	detail event.Detail
}

func (w *wants) Wants() event.Detail { return w.detail }

// TestDetail has observers of every detail: each gets the events that it wants,
// and outputs only if it asks for them.
func TestDetail(t *testing.T) {
	var all []*wants
	for detail := event.ProgressOnly; detail <= event.Outputs; detail++ {
		w := &wants{detail: detail}
		f := squares()
		f.exec = func(chunk []byte, attempt int) ([]byte, error) {
			if numberOf(chunk) == 3 && attempt == 1 {
				return nil, abi.Failf(abi.ClassHost, "busy")
			}
			return square(chunk)
		}
		res, err := runFake(t, f, host.Config{Workers: 2, Observer: w}, &host.Job{Chunks: chunksOf(t, numbers(9)...), Retry: host.RetryPolicy{Retries: 1}})
		must(t, res, err)
		all = append(all, w)
	}
	count := func(detail event.Detail, kind event.Kind) int { return len(all[detail].of(kind)) }
	if n := len(all[event.ProgressOnly].all); n != 0 {
		t.Errorf("%d events, want none", n)
	}
	for detail := event.Attempts; detail <= event.Outputs; detail++ {
		if leased, ended := count(detail, event.KindLeased), count(detail, event.KindLeaseEnded); leased < 2 || ended < leased || count(detail, event.KindRetry) != 1 || count(detail, event.KindEnd) != 1 {
			t.Errorf("detail %d: %d leased, %d ended, %+v", detail, leased, ended, all[detail].all)
		}
	}
	if count(event.Attempts, event.KindSucceeded) != 0 || count(event.Chunks, event.KindSucceeded) != 9 {
		t.Error("the wrong events of chunks")
	}
	for _, e := range all[event.Chunks].of(event.KindSucceeded) {
		if e.Output != nil || e.Size != len(squareOf(t, e.Chunk)) || e.Fuel != 1 || e.Duration < 0 || e.Worker == 0 {
			t.Errorf("%+v", e)
		}
	}
	for _, e := range all[event.Outputs].of(event.KindSucceeded) {
		if string(e.Output) != string(squareOf(t, e.Chunk)) {
			t.Errorf("chunk %v: output %x", e.ID, e.Output)
		}
	}
}

func squareOf(t *testing.T, n int) []byte {
	t.Helper()
	b, err := square(number(uint64(n)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
