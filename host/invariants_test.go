package host_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// The cost of a job depends on its chunks, not on the number of workers.
func TestMoreWorkersThanChunks(t *testing.T) {
	before := goruntime.NumGoroutine()
	var most atomic.Int64
	f := squares()
	f.exec = func(chunk []byte, _ int) ([]byte, error) {
		most.Store(max(most.Load(), int64(goruntime.NumGoroutine()-before)))
		return square(chunk)
	}
	s := store.NewMemory()
	for _, n := range []int{0, 1, 10} {
		res, err := runFake(t, f, host.Config{Workers: math.MaxInt, Store: s, Journal: s}, &host.Job{Chunks: chunksOf(t, numbers(n)...)})
		if r := must(t, res, err).Report; r.Chunks.Succeeded != n || res.Aggregate == nil || r.Workers != math.MaxInt {
			t.Errorf("%d chunks: %+v, aggregate %x", n, r.Chunks, res.Aggregate)
		}
	}
	if most.Load() > 40 {
		t.Errorf("%d goroutines for 10 chunks", most.Load())
	}
}

// stuck is an engine that never admits a module: it waits for the end of its
// context.
type stuck struct {
	*fake
	admits chan struct{} // closed when Admit is called
}

func (s *stuck) Admit(ctx context.Context, _ []byte, _ runtime.Options) (host.Module, error) {
	close(s.admits)
	<-ctx.Done()
	return nil, ctx.Err()
}

// A job may be interrupted before its module is admitted. Its result is then
// the result of a job that did nothing.
func TestInterruptedBeforeAdmission(t *testing.T) {
	for _, soft := range []bool{true, false} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		engine := &stuck{squares(), make(chan struct{})}
		stop, s := make(chan struct{}), store.NewMemory()
		end := cancel
		if soft {
			end = func() { close(stop) }
		}
		go func() {
			<-engine.admits
			end()
		}()
		c := coordinator(t, engine, host.Config{Store: s, Journal: s})
		res, err := c.Run(ctx, &host.Job{Module: fakeWasm, Chunks: chunksOf(t, numbers(3)...), Stop: stop})
		if !errors.Is(err, host.ErrInterrupted) || errors.Is(err, context.Canceled) == soft {
			t.Fatalf("soft %v: %v", soft, err)
		}
		r := &res.Report
		if r.State != journal.Interrupted || !r.Interrupted || r.Job != "" || r.Chunks != (host.Counts{Total: 3}) || r.Failures == nil {
			t.Errorf("soft %v: %+v", soft, r)
		}
		if want := fmt.Sprintf("%x", sha256.Sum256(fakeWasm)); r.Module.SHA256 != want || r.Digests.Module != "sha256:"+want {
			t.Errorf("soft %v: module %s, %s", soft, r.Module.SHA256, r.Digests.Module)
		}
		var outputs bytes.Buffer
		if err := errors.Join(res.WriteOutputs(t.Context(), &outputs), res.WriteDeadLetter(t.Context(), io.Discard)); err != nil || outputs.Len() > 0 || res.HasAggregate() {
			t.Errorf("soft %v: outputs %x, %v, aggregate %v", soft, outputs.Bytes(), err, res.HasAggregate())
		}
	}
}

// blocking is an observer that blocks once, at the first failed chunk.
type blocking struct {
	once  sync.Once
	block func()
}

func (*blocking) Progress(string, host.Counts) {}
func (*blocking) Wants() event.Detail          { return event.Attempts }
func (b *blocking) Observe(batch []host.Event) {
	for i := range batch {
		if batch[i].Kind == event.KindFailed {
			b.once.Do(b.block)
		}
	}
}

// alive is a journal that reports the first heartbeat.
type alive struct {
	store.Journal
	sign func()
}

func (a *alive) Note(ctx context.Context, run store.RunKey, active []byte, failed []store.Attempt) error {
	a.sign()
	return a.Journal.Note(ctx, run, active, failed)
}

// While an observer blocks, the job waits for it, its record stays alive, and
// it can be stopped.
func TestObserverBlocks(t *testing.T) {
	for _, interrupts := range []bool{false, true} {
		s, noted, stop := store.NewMemory(), make(chan struct{}), make(chan struct{})
		j := &alive{s, sync.OnceFunc(func() { close(noted) })}
		o := &blocking{block: func() {
			<-noted
			if interrupts {
				close(stop)
			}
		}}
		f := oddsFail()
		f.delay = nil
		res, err := runFake(t, f, host.Config{Workers: 2, Store: s, Journal: j, Observer: o},
			&host.Job{Chunks: chunksOf(t, numbers(20_000)...), Stop: stop, Partial: true})
		switch {
		case !interrupts && (err != nil || res.Report.Chunks.Succeeded != 10_000 || res.Report.Chunks.Failed != 10_000):
			t.Errorf("%v, %+v", err, res.Report.Chunks)
		case interrupts && (!errors.Is(err, host.ErrInterrupted) || res.Report.State != journal.Interrupted):
			t.Errorf("%v, %s", err, res.Report.State)
		}
	}
}

// failing is a store with a journal. It fails at one call, or at all calls from
// that one on.
type failing struct {
	*store.Memory
	at    int64 // from 1
	on    bool  // all later calls fail too
	calls *atomic.Int64
}

func (s failing) fails() error {
	if n := s.calls.Add(1); n == s.at || s.on && n > s.at {
		return fmt.Errorf("call %d: %w", n, errDisk)
	}
	return nil
}

func (s failing) Put(ctx context.Context, action store.Action, records []store.Record) error {
	if err := s.fails(); err != nil {
		return err
	}
	return s.Memory.Put(ctx, action, records)
}

func (s failing) Get(ctx context.Context, action store.Action, keys []store.Key, found func(int, store.Value) error) error {
	if err := s.fails(); err != nil {
		return err
	}
	return s.Memory.Get(ctx, action, keys, found)
}

func (s failing) All(ctx context.Context, action store.Action) iter.Seq2[store.Record, error] {
	return sequence(s.fails(), s.Memory.All(ctx, action))
}

func (s failing) Extents(ctx context.Context, job store.JobID) iter.Seq2[store.Extent, error] {
	return sequence(s.fails(), s.Memory.Extents(ctx, job))
}

func sequence[T any](err error, all iter.Seq2[T, error]) iter.Seq2[T, error] {
	if err == nil {
		return all
	}
	return func(yield func(T, error) bool) {
		var none T
		yield(none, err)
	}
}

func (s failing) Begin(ctx context.Context, job store.JobRecord, ids iter.Seq[[]byte], info []byte) (store.RunKey, error) {
	if err := s.fails(); err != nil {
		return store.RunKey{}, err
	}
	return s.Memory.Begin(ctx, job, ids, info)
}

func (s failing) Finish(ctx context.Context, run store.RunKey, action store.Action, records []store.Record, span store.Span) error {
	if err := s.fails(); err != nil {
		return err
	}
	return s.Memory.Finish(ctx, run, action, records, span)
}

func (s failing) Note(ctx context.Context, run store.RunKey, active []byte, failed []store.Attempt) error {
	if err := s.fails(); err != nil {
		return err
	}
	return s.Memory.Note(ctx, run, active, failed)
}

func (s failing) End(ctx context.Context, run store.RunKey, report []byte) error {
	if err := s.fails(); err != nil {
		return err
	}
	return s.Memory.End(ctx, run, report)
}

// TestStoreFailsAtEachCall lets each call of a job to the store and its journal
// fail, once or from then on. The error is a *StoreError, nothing is left
// behind or hangs, and the next run of the job succeeds as usual.
func TestStoreFailsAtEachCall(t *testing.T) {
	before := goruntime.NumGoroutine()
	for _, workers := range []int{1, 3} {
		for _, on := range []bool{false, true} {
			at := int64(1)
			for failsAt(t, at, on, workers) {
				at++
			}
			t.Logf("%d workers, on %v: %d calls", workers, on, at-1)
			if at < 10 {
				t.Errorf("%d workers: a job made only %d calls", workers, at-1)
			}
		}
	}
	checkGoroutines(t, before)
}

// failsAt runs a job whose call number at fails, and reports whether there was
// such a call. Some chunks have stored outputs, and some attempts fail.
func failsAt(t *testing.T, at int64, on bool, workers int) bool {
	t.Helper()
	f := squares()
	f.exec = func(chunk []byte, attempt int) ([]byte, error) {
		if numberOf(chunk)%7 == 6 && attempt == 1 {
			return nil, abi.Failf(abi.ClassTimeout, "slow")
		}
		return square(chunk)
	}
	s := failing{store.NewMemory(), at, on, &atomic.Int64{}}
	job := &host.Job{Chunks: chunksOf(t, numbers(30)...), Retry: host.RetryPolicy{Retries: 2}}
	res, err := runFake(t, squares(), host.Config{Store: s.Memory}, &host.Job{Chunks: chunksOf(t, numbers(5)...)})
	must(t, res, err)

	res, err = runFake(t, f, host.Config{Workers: workers, Store: s, Journal: s}, job)
	reached := s.calls.Load() >= at
	_, ofStore := errors.AsType[*host.StoreError](err)
	switch {
	case err == nil && (reached || !bytes.Equal(res.Aggregate, number(8555)) || res.Report.State != journal.Succeeded):
		t.Errorf("call %d, on %v: no error, %+v, aggregate %x", at, on, res.Report, res.Aggregate)
	case err != nil && (!ofStore || !errors.Is(err, errDisk) || res == nil || res.Report.State != journal.Errored):
		t.Errorf("call %d, on %v: error %v, %+v", at, on, err, res)
	}
	res, err = runFake(t, f, host.Config{Workers: workers, Store: s.Memory, Journal: s.Memory}, job)
	if r := must(t, res, err); !bytes.Equal(r.Aggregate, number(8555)) || statusOf(t, s.Memory).Succeeded.Count != 30 {
		t.Errorf("call %d, on %v: then %+v, aggregate %x", at, on, r.Report, r.Aggregate)
	}
	return reached
}
