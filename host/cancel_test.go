package host_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	goruntime "runtime"
	"sync"
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

// TestCancel ends 1,000 jobs at random moments: half of them hard by their
// context, half softly by Stop.
func TestCancel(t *testing.T) {
	const jobs, parallel = 1000, 4
	file := chunksOf(t, numbers(30)...)
	before := goruntime.NumGoroutine()
	began := time.Now()
	for i := range 10 { // to the end, to learn how long a job takes
		cancelOne(t, file, i, time.Hour)
	}
	usual := time.Since(began) / 10
	var interrupted, finished int
	var mu sync.Mutex
	var all sync.WaitGroup
	for p := range parallel {
		all.Go(func() {
			for i := range jobs / parallel {
				ended := cancelOne(t, file, p*jobs+i, 2*usual)
				mu.Lock()
				if ended {
					finished++
				} else {
					interrupted++
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	t.Logf("%d jobs were interrupted, %d finished first", interrupted, finished)
	if interrupted < jobs/10 {
		t.Errorf("only %d jobs of %d were interrupted", interrupted, jobs)
	}
	checkGoroutines(t, before)
}

// checkGoroutines waits until there are no more goroutines than before. A
// goroutine that has reported its end may still be running its last
// instructions.
func checkGoroutines(t *testing.T, before int) {
	t.Helper()
	for began := time.Now(); goruntime.NumGoroutine() > before; goruntime.Gosched() {
		if time.Since(began) > 10*time.Second {
			t.Fatalf("%d goroutines, %d before", goruntime.NumGoroutine(), before)
		}
	}
}

// TestCancelGuests does the same with real guests, some of which trap or loop.
// Each instance that was created must be closed.
func TestCancelGuests(t *testing.T) {
	const jobs = 1000
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
	var created uint64
	for i := range jobs {
		created += cancelGuests(t, host.NewEngine(r), wasm, file, i)
	}
	t.Logf("%d instances were created and closed", created)
	if linear.Live() != live {
		t.Errorf("%d memories are left", linear.Live()-live)
	}
	checkGoroutines(t, before)
}

func cancelGuests(t *testing.T, engine host.Engine, wasm []byte, file *chunks.File, i int) (created uint64) {
	c, err := host.New(t.Context(), host.Config{Workers: 1 + i%4, Engine: engine})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stop := make(chan struct{})
	job := &host.Job{Module: wasm, Chunks: file, Stop: stop, Retry: host.RetryPolicy{Retries: 1}}
	end := cancel
	if i%2 == 0 {
		end = func() { close(stop) }
	}
	timer := time.AfterFunc(rand.N(3*time.Millisecond), end)
	defer timer.Stop()
	res, err := c.Run(ctx, job)
	if !errors.Is(err, host.ErrInterrupted) {
		t.Fatalf("job %d: %v, although one of its chunks loops", i, err)
	}
	stats := res.Report.Instances
	if stats.Created != stats.Closed {
		t.Errorf("job %d: %+v", i, stats)
	}
	return stats.Created
}

// cancelOne runs a job and ends it at a random moment before limit. It reports
// whether the job finished before that.
func cancelOne(t *testing.T, file *chunks.File, i int, limit time.Duration) (finished bool) {
	rnd := rand.New(rand.NewPCG(uint64(i), 1))
	f := squares()
	pause := time.Duration(rnd.IntN(100)) * time.Microsecond
	f.delay = func() time.Duration { return pause }
	f.exec = func(chunk []byte, attempt int) ([]byte, error) {
		if n := numberOf(chunk); n%5 == 0 && attempt == 1 {
			return nil, abi.Failf(abi.ClassHost, "busy")
		}
		return square(chunk)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stop := make(chan struct{})
	end := cancel
	if i%2 == 0 {
		end = func() { close(stop) }
	}
	var seen events
	s := store.NewMemory()
	config := host.Config{Workers: 1 + rnd.IntN(4), Store: s, Engine: f, Observer: &seen}
	c, err := host.New(ctx, config)
	if err != nil {
		t.Error(err)
		return false
	}
	job := &host.Job{Module: fakeWasm, Chunks: file, Stop: stop, Grace: time.Duration(rnd.IntN(200)) * time.Microsecond,
		Retry: host.RetryPolicy{Retries: 3, Backoff: 100 * time.Microsecond}}
	timer := time.AfterFunc(rand.N(limit), end)
	defer timer.Stop()
	res, err := c.Run(ctx, job)
	if err != nil && !errors.Is(err, host.ErrInterrupted) {
		t.Errorf("job %d: error %v", i, err)
		return false
	}
	checkCancelled(t, fmt.Sprint("job ", i), f, res, &seen, err == nil)
	if err != nil && i%10 == 0 { // the stored outputs are the start of another run
		checkResumed(t, f, s, file, res.Report.Chunks.Succeeded)
	}
	return err == nil
}

func checkCancelled(t *testing.T, name string, f *fake, res *host.Result, seen *events, finished bool) {
	t.Helper()
	f.checkTeardown(t)
	if instances := res.Report.Instances; instances.Created != instances.Closed {
		t.Errorf("%s: %+v", name, instances)
	}
	stored := map[abi.ID]bool{}
	for o, err := range res.Outputs(context.Background()) {
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		n, _ := o.ID.Int()
		stored[o.ID] = bytes.Equal(o.Output, number(n*n))
	}
	succeeded := seen.of(event.KindSucceeded)
	for _, e := range succeeded {
		if !stored[*e.ID] {
			t.Errorf("%s: chunk %v was reported but is not stored", name, *e.ID)
		}
	}
	counts := res.Report.Chunks
	if counts.Succeeded != len(stored) || counts.Succeeded != len(succeeded) || counts.Failed != 0 {
		t.Errorf("%s: %+v, %d stored, %d reported", name, counts, len(stored), len(succeeded))
	}
	if execs := f.execs.Load(); res.Report.Attempts > int(execs) {
		t.Errorf("%s: %d attempts of %d execs", name, res.Report.Attempts, execs)
	}
	if res.Report.Interrupted == finished {
		t.Errorf("%s: interrupted %v", name, res.Report.Interrupted)
	}
	if finished != bytes.Equal(res.Aggregate, number(8555)) {
		t.Errorf("%s: finished %v, aggregate %x", name, finished, res.Aggregate)
	}
}

func checkResumed(t *testing.T, f *fake, s store.Store, file *chunks.File, kept int) {
	t.Helper()
	c, err := host.New(context.Background(), host.Config{Workers: 2, Store: s, Engine: f})
	if err != nil {
		t.Error(err)
		return
	}
	res, err := c.Run(context.Background(), &host.Job{Module: fakeWasm, Chunks: file, Retry: host.RetryPolicy{Retries: 1}})
	if err != nil || res.Report.Chunks.Reused != kept || !bytes.Equal(res.Aggregate, number(8555)) {
		t.Errorf("resumed: %v, %+v, aggregate %x; %d were kept", err, res.Report.Chunks, res.Aggregate, kept)
	}
}

// stopped runs a job of four chunks of a minute each on two workers in virtual
// time, and calls end after 90 seconds.
func stopped(t *testing.T, grace time.Duration, end func(cancel context.CancelFunc, stop chan struct{})) (*host.Result, time.Duration) {
	f := squares()
	f.delay = func() time.Duration { return time.Minute }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stop := make(chan struct{})
	time.AfterFunc(90*time.Second, func() { end(cancel, stop) })
	began := time.Now()
	res, err := coordinator(t, f, host.Config{Workers: 2}).Run(ctx, &host.Job{
		Module: fakeWasm, Chunks: chunksOf(t, numbers(8)...), Stop: stop, Grace: grace,
	})
	if !errors.Is(err, host.ErrInterrupted) || !res.Report.Interrupted || res.Aggregate != nil {
		t.Fatalf("error %v, aggregate %x", err, res.Aggregate)
	}
	f.checkTeardown(t)
	return res, time.Since(began)
}

func TestStop(t *testing.T) {
	for _, tt := range []struct {
		name      string
		grace     time.Duration
		end       func(cancel context.CancelFunc, stop chan struct{})
		succeeded int
		after     time.Duration
	}{
		{"softly, running attempts finish", time.Hour, func(_ context.CancelFunc, stop chan struct{}) { close(stop) }, 4, 2 * time.Minute},
		{"softly, and the grace ends first", 10 * time.Second, func(_ context.CancelFunc, stop chan struct{}) { close(stop) }, 2, 100 * time.Second},
		{"softly without grace", 0, func(_ context.CancelFunc, stop chan struct{}) { close(stop) }, 2, 90 * time.Second},
		{"hard", time.Hour, func(cancel context.CancelFunc, _ chan struct{}) { cancel() }, 2, 90 * time.Second},
		{"softly and then hard", time.Hour, func(cancel context.CancelFunc, stop chan struct{}) {
			close(stop)
			time.AfterFunc(5*time.Second, cancel)
		}, 2, 95 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				res, after := stopped(t, tt.grace, tt.end)
				if res.Report.Chunks.Succeeded != tt.succeeded || res.Report.Attempts != tt.succeeded || after != tt.after {
					t.Errorf("%+v, %d attempts, after %v; want %d after %v", res.Report.Chunks, res.Report.Attempts, after, tt.succeeded, tt.after)
				}
			})
		})
	}
}

// If a store fails after a stop, the finished work is not stored.
func TestStoreErrorAfterStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := squares()
		f.delay = func() time.Duration { return time.Minute }
		stop := make(chan struct{})
		time.AfterFunc(30*time.Second, func() { close(stop) })
		s := brokenStore{Store: store.NewMemory(), put: func(store.Action, []store.Record) error { return errDisk }}
		res, err := coordinator(t, f, host.Config{Store: s}).Run(t.Context(), &host.Job{
			Module: fakeWasm, Chunks: chunksOf(t, number(1)), Stop: stop, Grace: time.Hour,
		})
		_, failed := errors.AsType[*host.StoreError](err)
		if !failed || !errors.Is(err, host.ErrInterrupted) || !res.Report.Interrupted {
			t.Errorf("error %v, interrupted %v", err, res.Report.Interrupted)
		}
	})
}

// A job that only waits for a retry ends at once.
func TestStopWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := squares()
		f.exec = func([]byte, int) ([]byte, error) { return nil, abi.Failf(abi.ClassHost, "busy") }
		stop := make(chan struct{})
		time.AfterFunc(time.Minute, func() { close(stop) })
		began := time.Now()
		res, err := coordinator(t, f, host.Config{}).Run(t.Context(), &host.Job{
			Module: fakeWasm, Chunks: chunksOf(t, number(1)), Stop: stop, Grace: time.Hour,
			Retry: host.RetryPolicy{Retries: 1, Backoff: time.Hour},
		})
		if !errors.Is(err, host.ErrInterrupted) || time.Since(began) != time.Minute || res.Report.Chunks.Failed != 0 {
			t.Errorf("error %v after %v, %+v", err, time.Since(began), res.Report.Chunks)
		}
	})
}

// A job may be ended before it starts, and while it folds.
func TestCancelAtTheEdges(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := squares()
	res, err := coordinator(t, f, host.Config{}).Run(ctx, &host.Job{Module: fakeWasm, Chunks: chunksOf(t, number(1))})
	if !errors.Is(err, host.ErrInterrupted) || res.Report.Attempts != 0 {
		t.Errorf("before: error %v, %d attempts", err, res.Report.Attempts)
	}
	f.checkTeardown(t)

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	f = squares()
	f.aggregate = func([]byte) ([]byte, error) {
		cancel()
		return nil, ctx.Err()
	}
	res, err = coordinator(t, f, host.Config{}).Run(ctx, &host.Job{Module: fakeWasm, Chunks: chunksOf(t, number(1))})
	if !errors.Is(err, host.ErrInterrupted) || res.Report.Chunks.Succeeded != 1 || res.Aggregate != nil {
		t.Errorf("folding: error %v, %+v", err, res.Report.Chunks)
	}
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("\x00\x82\x00\x01"))); res.Report.Digests.Outputs != want {
		t.Errorf("folding: outputs %s, want %s", res.Report.Digests.Outputs, want)
	}
	f.checkTeardown(t)
}
