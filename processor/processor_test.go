package processor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	goruntime "runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/processor"
	"github.com/wasm-jobs/wasm-jobs/processor/runnertest"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// next returns a runner that adds one, in no time.
func next(t testing.TB, workers int) *processor.Function[struct{}, int, int] {
	return function(t, workers, func(_ context.Context, n int) (int, error) { return n + 1, nil })
}

// function returns a runner of a function without resources.
func function(t testing.TB, workers int, f func(context.Context, int) (int, error)) *processor.Function[struct{}, int, int] {
	r := processor.Func(workers, func(context.Context) (struct{}, error) { return struct{}{}, nil },
		func(ctx context.Context, _ struct{}, n int) (int, error) { return f(ctx, n) }, nil)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func start[In, Out any](t testing.TB, ctx context.Context, r processor.Runner[In, Out], c processor.Config) *processor.Processor[In, Out] {
	t.Helper()
	p, err := processor.New(ctx, r, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Stop() })
	return p
}

// all receives until the processor has stopped.
func all[Out any](r *processor.Receiver[Out]) (got []processor.Response[Out], missed uint64) {
	defer r.Close()
	for {
		response, err := r.Next(context.Background())
		gap, isGap := errors.AsType[*processor.MissedError](err)
		switch {
		case isGap:
			missed += gap.Responses
		case err != nil:
			return got, missed
		default:
			got = append(got, response)
		}
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func number(n uint64) []byte { return abi.AppendHead(nil, abi.MajorUint, n) }

const (
	squareWasm = "../guest-examples/square/wat/square.wasm"
	faultyWasm = "../guest-examples/faulty/c/faulty.wasm"
)

// open opens a module, which is closed at the end, with as many instances as were
// created.
func open(t testing.TB, path string, o processor.Options) *processor.Module {
	t.Helper()
	m, err := processor.Open(t.Context(), readFile(t, path), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if s := m.Stats(); s.Created != s.Closed {
			t.Errorf("%d instances were created and %d closed", s.Created, s.Closed)
		}
	})
	return m
}

func TestCall(t *testing.T) {
	p := start(t, t.Context(), open(t, squareWasm, processor.Options{}), processor.Config{})
	for n := range uint64(10) {
		got, err := p.Call(t.Context(), number(n))
		if err != nil || !bytes.Equal(got.Output, number(n*n)) || got.Fuel == 0 || got.Reused {
			t.Errorf("the square of %d is %+v, %v", n, got, err)
		}
	}
	for input, is := range map[string]error{"": processor.ErrInput, "\x19\x01": processor.ErrInput, "\x01\x02": processor.ErrInput} {
		if _, err := p.Call(t.Context(), []byte(input)); !errors.Is(err, is) {
			t.Errorf("%x: %v", input, err)
		}
	}
	if _, err := p.Call(t.Context(), []byte("\x61x")); err == nil {
		t.Error("a text has a square")
	}
}

func TestRunnerClosed(t *testing.T) {
	m := open(t, squareWasm, processor.Options{})
	if err := errors.Join(m.Close(), m.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Run(t.Context(), number(1)); !errors.Is(err, processor.ErrClosed) {
		t.Errorf("error %v", err)
	}
	f := next(t, 1)
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Run(t.Context(), 1); !errors.Is(err, processor.ErrClosed) {
		t.Errorf("error %v", err)
	}
}

// Each worker of a function has a resource of its own, made when it is first needed
// and closed once.
func TestResources(t *testing.T) {
	type resource struct{ used atomic.Int32 }
	var opened, closed atomic.Int32
	broken := errors.New("broken")
	f := processor.Func(4,
		func(context.Context) (*resource, error) {
			if opened.Add(1) == 1 {
				return nil, broken
			}
			return &resource{}, nil
		},
		func(_ context.Context, r *resource, n int) (int, error) {
			if r.used.Add(1) != 1 {
				t.Error("two calls use one resource")
			}
			goruntime.Gosched()
			r.used.Add(-1)
			return n, nil
		},
		func(*resource) error { closed.Add(1); return broken })
	if _, err := f.Run(t.Context(), 1); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			for n := range 100 {
				if got, err := f.Run(t.Context(), n); err != nil || got.Output != n {
					t.Errorf("%v, %v", got, err)
				}
			}
		})
	}
	callers.Wait()
	if err := f.Close(); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if opened.Load()-1 != closed.Load() || opened.Load() > 5 {
		t.Errorf("%d were opened, the first failed, and %d closed", opened.Load(), closed.Load())
	}
}

// 100 senders, 10 receivers: all see the same sequence.
func TestReceiversSeeOneSequence(t *testing.T) {
	const senders, each, receivers = 100, 100, 10
	p := start(t, t.Context(), next(t, 4), processor.Config{Workers: 4, Backlog: senders * each})
	sequences := make([][]processor.Response[int], receivers)
	var receiving, sending sync.WaitGroup
	for i := range sequences {
		r := p.Subscribe()
		receiving.Go(func() { sequences[i], _ = all(r) })
	}
	for s := range senders {
		sending.Go(func() {
			for n := range each {
				id := s*each + n
				if err := p.Send(t.Context(), abi.IntID(uint64(id)), id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	sending.Wait()
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	receiving.Wait()
	seen := map[abi.ID]bool{}
	for _, r := range sequences[0] {
		id, _ := r.ID.Int()
		if seen[r.ID] || r.Err != nil || r.Result.Output != int(id)+1 {
			t.Fatalf("%v", r)
		}
		seen[r.ID] = true
	}
	if len(seen) != senders*each {
		t.Errorf("%d answers", len(seen))
	}
	for _, s := range sequences[1:] {
		if !slices.Equal(s, sequences[0]) {
			t.Error("two receivers saw two sequences")
		}
	}
}

func TestSendReceive(t *testing.T) {
	p := start(t, t.Context(), next(t, 4), processor.Config{})
	r := p.Subscribe()
	counted := make(chan int)
	go func() { // until Stop
		got, missed := all(r)
		counted <- len(got) + int(missed)
	}()
	const callers, each = 20, 5000
	var calling sync.WaitGroup
	var cancelled atomic.Int64
	for c := range callers {
		calling.Go(func() {
			random := rand.New(rand.NewPCG(uint64(c), 1))
			for n := range each {
				id := c*each + n
				ctx, cancel := context.WithCancel(t.Context())
				if n%10 == 0 {
					if random.IntN(2) == 0 {
						cancel()
					} else {
						go cancel()
					}
				}
				got, err := p.SendReceive(ctx, abi.IntID(uint64(id)), id)
				cancel()
				switch {
				case err != nil && n%10 == 0 && errors.Is(err, context.Canceled):
					cancelled.Add(1)
				case err != nil || got.Output != id+1:
					t.Errorf("%d: %v, %v", id, got, err)
				}
			}
		})
	}
	calling.Wait()
	if cancelled.Load() == 0 {
		t.Error("none was cancelled")
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if n := <-counted; n != callers*each {
		t.Errorf("%d responses to %d requests", n, callers*each)
	}
	if queued, running := p.Counts(); queued != 0 || running != 0 {
		t.Errorf("%d wait and %d run", queued, running)
	}
}

// After a runner's panic, which the caller recovers, the id can be used again.
func TestSendReceivePanics(t *testing.T) {
	p := start(t, t.Context(), function(t, 1, func(_ context.Context, n int) (int, error) {
		if n == 0 {
			panic("runner")
		}
		return n, nil
	}), processor.Config{})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_, _ = p.SendReceive(t.Context(), abi.IntID(1), 0)
	}()
	if got, err := p.SendReceive(t.Context(), abi.IntID(1), 5); err != nil || got.Output != 5 {
		t.Errorf("%v, %v", got, err)
	}
}

// values is a context whose type cannot be compared.
type values struct {
	context.Context
	all map[string]int
}

func (v values) Value(key any) any {
	if name, ok := key.(string); ok {
		return v.all[name]
	}
	return v.Context.Value(key)
}

func TestContextsThatCannotBeCompared(t *testing.T) {
	ctx := values{t.Context(), map[string]int{"n": 7}}
	p := start(t, ctx, function(t, 1, func(ctx context.Context, n int) (int, error) { return ctx.Value("n").(int) + n, ctx.Err() }), processor.Config{})
	if got, err := p.Call(ctx, 1); err != nil || got.Output != 8 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestWorkersOfFunctions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, workers := range []int{-1, 0} {
			f := function(t, workers, func(_ context.Context, n int) (int, error) { return n, nil })
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if got, err := f.Run(ctx, 3); err != nil || got.Output != 3 {
				t.Errorf("%d workers: %v, %v", workers, got, err)
			}
			cancel()
		}
	})
}

func TestDuplicatesAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		p := start(t, t.Context(), function(t, 1, func(ctx context.Context, n int) (int, error) { <-hold; return n, nil }), processor.Config{Workers: 1})
		done := make(chan error)
		go func() { // until hold
			_, err := p.SendReceive(t.Context(), abi.IntID(1), 1)
			done <- err
		}()
		synctest.Wait()
		if _, err := p.SendReceive(t.Context(), abi.IntID(1), 2); !errors.Is(err, processor.ErrDuplicate) {
			t.Errorf("error %v", err)
		}
		if err := p.Send(t.Context(), abi.IntID(1), 2); !errors.Is(err, processor.ErrDuplicate) {
			t.Errorf("error %v", err)
		}
		close(hold)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := p.SendReceive(t.Context(), abi.IntID(1), 2); err != nil { // it is free again
			t.Error(err)
		}
	})
}

// A full queue blocks senders, and serves them in order.
func TestSendWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		p := start(t, t.Context(), function(t, 1, func(ctx context.Context, n int) (int, error) { <-hold; return n, nil }), processor.Config{Workers: 1, Queue: 2})
		r := p.Subscribe()
		send := func(n int) error { return p.Send(t.Context(), abi.IntID(uint64(n)), n) }
		for n := range 3 { // one runs, two are queued
			if err := send(n); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if err := p.TrySend(abi.IntID(9), 9); !errors.Is(err, processor.ErrFull) {
			t.Errorf("error %v", err)
		}
		errs := make(chan error, 3)
		for n := 3; n < 6; n++ {
			go func() { errs <- send(n) }() // until there is room
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Send(ctx, abi.IntID(7), 7); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		close(hold)
		for range 3 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if err := p.TrySend(abi.IntID(7), 7); err != nil { // whose sender gave up before
			t.Error(err)
		}
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		got, _ := all(r)
		var order []string
		for _, r := range got {
			order = append(order, r.ID.String())
		}
		if want := []string{"0", "1", "2", "3", "4", "5", "7"}; !slices.Equal(order, want) {
			t.Errorf("answered in the order %v", order)
		}
		if err := send(8); !errors.Is(err, processor.ErrStopped) {
			t.Errorf("error %v", err)
		}
	})
}

// A receiver that never reads learns once how many responses it missed; the others see
// all.
func TestSlowReceiver(t *testing.T) {
	const requests, backlog = 1000, 16
	p := start(t, t.Context(), next(t, 1), processor.Config{Backlog: backlog})
	slow, fast := p.Subscribe(), p.Subscribe()
	for n := range requests {
		if _, err := p.SendReceive(t.Context(), abi.IntID(uint64(n)), n); err != nil {
			t.Fatal(err)
		}
		if r, err := fast.Next(t.Context()); err != nil || r.Result.Output != n+1 {
			t.Fatalf("%v, %v", r, err)
		}
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	_, err := slow.Next(t.Context())
	if missed, ok := errors.AsType[*processor.MissedError](err); !ok || missed.Responses != requests-backlog {
		t.Errorf("error %v", err)
	}
	got, missed := all(slow)
	if len(got) != backlog || missed != 0 || got[0].Result.Output != requests-backlog+1 {
		t.Errorf("then it got %d, and missed %d", len(got), missed)
	}
	if _, err := fast.Next(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("error %v", err)
	}
}

// A receiver that waits for several responses at once misses none, gets the last one soon,
// and the first one after a pause at once.
func TestReceiverDozes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, t.Context(), function(t, 1, func(_ context.Context, n int) (int, error) { return n, nil }), processor.Config{Backlog: 8})
		r := p.Subscribe()
		var got, missed atomic.Int64
		done := make(chan struct{})
		go func() { // until Stop
			defer close(done)
			for {
				_, err := r.Next(context.Background())
				gap, isGap := errors.AsType[*processor.MissedError](err)
				switch {
				case isGap:
					missed.Add(int64(gap.Responses))
				case err != nil:
					return
				default:
					got.Add(1)
				}
			}
		}()
		send := func(id int) {
			if _, err := p.SendReceive(t.Context(), abi.IntID(uint64(id)), id); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		for id := range 101 {
			send(id)
		}
		time.Sleep(time.Millisecond)
		if got.Load() != 101 || missed.Load() != 0 {
			t.Errorf("%d responses were received, and %d missed", got.Load(), missed.Load())
		}
		time.Sleep(time.Second)
		if send(101); got.Load() != 102 {
			t.Errorf("%d responses were received after a pause", got.Load())
		}
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		<-done
	})
}

func TestNextObeysContext(t *testing.T) {
	p := start(t, t.Context(), next(t, 1), processor.Config{})
	r := p.Subscribe()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	r.Close()
	if _, err := r.Next(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("error %v", err)
	}
}

// The end of the context cancels running requests and answers waiting ones.
func TestEndOfContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := start(t, ctx, function(t, 1, func(ctx context.Context, n int) (int, error) { <-ctx.Done(); return 0, ctx.Err() }), processor.Config{Workers: 1, Queue: 2})
		r := p.Subscribe()
		errs := make(chan error, 3)
		for n := range 4 { // one runs, two are queued, one waits for room
			go func() { errs <- p.Send(t.Context(), abi.IntID(uint64(n)), n) }()
			synctest.Wait()
		}
		go func() { _, err := p.Call(context.WithoutCancel(t.Context()), 1); errs <- err }()
		synctest.Wait()
		cancel()
		var refused int
		for range 5 {
			if err := <-errs; errors.Is(err, context.Canceled) {
				refused++
			} else if err != nil {
				t.Error(err)
			}
		}
		got, _ := all(r) // ends without Stop
		for _, r := range got {
			if !errors.Is(r.Err, context.Canceled) {
				t.Errorf("%v", r)
			}
		}
		if len(got) < 3 || len(got)+refused != 5 { // the sender may have got room when the first was cancelled
			t.Errorf("%d answers, %d refused", len(got), refused)
		}
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
}

// Stop, the end of the context, and both at random moments: each request that was
// accepted has one answer, and nothing is left.
func TestEndsAtRandomMoments(t *testing.T) {
	m := open(t, squareWasm, processor.Options{Workers: 2})
	before := goruntime.NumGoroutine()
	rounds := 1000
	if testing.Short() {
		rounds = 50
	}
	for round := range rounds {
		endOnce(t, m, rand.New(rand.NewPCG(uint64(round), 2)), round%3)
	}
	for range 100 {
		if goruntime.NumGoroutine() <= before {
			return
		}
		goruntime.Gosched()
		time.Sleep(time.Millisecond) // goroutines that have ended are counted for a moment
	}
	t.Errorf("%d goroutines, and %d before", goruntime.NumGoroutine(), before)
}

func endOnce(t *testing.T, m *processor.Module, random *rand.Rand, how int) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p, err := processor.New(ctx, m, processor.Config{Workers: 2, Queue: 4, Backlog: 1000})
	if err != nil {
		t.Fatal(err)
	}
	r := p.Subscribe()
	var accepted atomic.Int64
	var senders sync.WaitGroup
	for s := range uint64(4) {
		senders.Go(func() {
			for n := range uint64(20) {
				id := abi.IntID(s*100 + n)
				if s == 3 {
					if _, err := p.SendReceive(ctx, id, number(n)); !errors.Is(err, processor.ErrStopped) && (err == nil || ctx.Err() == nil) {
						accepted.Add(1)
					} else if err != nil && !errors.Is(err, processor.ErrStopped) {
						return // with ctx, whether it was accepted is not known
					}
				} else if p.Send(ctx, id, number(n)) == nil {
					accepted.Add(1)
				}
			}
		})
	}
	for range random.IntN(200) {
		goruntime.Gosched()
	}
	if how != 0 {
		cancel()
	}
	if how != 1 {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	}
	senders.Wait()
	got, missed := all(r)
	if n := int64(len(got)); missed != 0 || n < accepted.Load() || n > accepted.Load()+1 {
		t.Fatalf("%d answers, %d missed, %d accepted", len(got), missed, accepted.Load())
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
}

func TestChain(t *testing.T) {
	failure := abi.Failf(abi.ClassGuest, "seven")
	first := start(t, t.Context(), function(t, 4, func(_ context.Context, n int) (int, error) {
		if n%7 == 0 {
			return 0, failure
		}
		return n + 1, nil
	}), processor.Config{Queue: 2})
	second := start(t, t.Context(), processor.Func(2, func(context.Context) (struct{}, error) { return struct{}{}, nil },
		func(_ context.Context, _ struct{}, n int) (string, error) { return fmt.Sprint(n), nil }, nil), processor.Config{Queue: 2, Backlog: 2000})
	third := start(t, t.Context(), processor.Func(2, func(context.Context) (struct{}, error) { return struct{}{}, nil },
		func(_ context.Context, _ struct{}, s string) (int, error) { return len(s), nil }, nil), processor.Config{Queue: 2, Backlog: 2000})
	processor.Chain(first, second)
	processor.Chain(second, third)
	r := third.Subscribe()
	const requests = 1000
	for n := range requests {
		if err := first.Send(t.Context(), abi.IntID(uint64(n)), n); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(first.Stop(), second.Stop(), third.Stop()); err != nil {
		t.Error(err)
	}
	got, missed := all(r)
	if len(got) != requests || missed != 0 {
		t.Errorf("%d answers, %d missed", len(got), missed)
	}
	for _, r := range got {
		n, _ := r.ID.Int()
		if n%7 == 0 && r.Err != error(failure) || n%7 != 0 && r.Result.Output != len(fmt.Sprint(n+1)) {
			t.Errorf("%v", r)
		}
	}
}

// If the last processor of a chain is full, the first one blocks.
func TestChainHoldsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		first := start(t, t.Context(), next(t, 1), processor.Config{Workers: 1, Queue: 1})
		second := start(t, t.Context(), function(t, 1, func(_ context.Context, n int) (int, error) { <-hold; return n, nil }), processor.Config{Workers: 1, Queue: 1})
		processor.Chain(first, second)
		accepted := 0
		for n := range 100 {
			if first.TrySend(abi.IntID(uint64(n)), n) == nil {
				accepted++
			}
			synctest.Wait()
		}
		if accepted != 4 { // one runs and one is queued in the second, one waits to be passed on, one is queued
			t.Errorf("%d were accepted", accepted)
		}
		close(hold)
		if err := errors.Join(first.Stop(), second.Stop()); err != nil {
			t.Error(err)
		}
	})
}

func TestChainBroken(t *testing.T) {
	first, second := start(t, t.Context(), next(t, 1), processor.Config{}), start(t, t.Context(), next(t, 1), processor.Config{})
	processor.Chain(first, second)
	if err := second.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := first.Send(t.Context(), abi.IntID(1), 1); err != nil {
		t.Fatal(err)
	}
	if err := first.Stop(); !errors.Is(err, processor.ErrStopped) {
		t.Errorf("error %v", err)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []processor.Config{{Workers: -1}, {Queue: -1}, {Backlog: -1}} {
		if _, err := processor.New(t.Context(), next(t, 1), c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
	for _, o := range []processor.Options{
		{Workers: -1}, {Settings: runtime.Settings{Isolation: runtime.IsolationNone}}, {Settings: runtime.Settings{Context: []byte{0x19}}},
		{Runtime: &runtime.Runtime{}, CacheDir: "x"},
	} {
		if _, err := processor.Open(t.Context(), readFile(t, squareWasm), o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

func TestRunners(t *testing.T) {
	t.Run("module", func(t *testing.T) {
		m := open(t, faultyWasm, processor.Options{Workers: 4})
		runnertest.Run(t, func(*testing.T) processor.Runner[[]byte, []byte] { return m })
	})
	t.Run("cache", func(t *testing.T) {
		m := open(t, faultyWasm, processor.Options{Workers: 4})
		runnertest.Run(t, func(t *testing.T) processor.Runner[[]byte, []byte] {
			c := processor.NewCache(m, processor.CacheOptions{Store: store.NewMemory(), Action: m.Action()})
			t.Cleanup(func() { _ = c.Close() })
			return c
		})
	})
	t.Run("function", func(t *testing.T) {
		runnertest.Run(t, func(t *testing.T) processor.Runner[[]byte, []byte] {
			f := processor.Func(4, func(context.Context) (struct{}, error) { return struct{}{}, nil },
				func(ctx context.Context, _ struct{}, in []byte) ([]byte, error) { return runnertest.Func(ctx, in) }, nil)
			t.Cleanup(func() { _ = f.Close() })
			return f
		})
	})
}

func TestTyped(t *testing.T) {
	type request struct {
		N int `cbor:"n"`
	}
	p := start(t, t.Context(), processor.Typed[request, int](open(t, "../guest-examples/square/c/square.wasm", processor.Options{})), processor.Config{})
	got, err := p.Call(t.Context(), request{7})
	if err != nil || got.Output != 49 || got.Fuel == 0 {
		t.Errorf("%+v, %v", got, err)
	}
	texts := processor.Typed[request, string](open(t, "../guest-examples/square/c/square.wasm", processor.Options{}))
	if got, err := texts.Run(t.Context(), request{7}); err == nil {
		t.Errorf("49 is the text %q", got.Output)
	}
	if _, err := processor.Typed[func(), int](nil).Run(t.Context(), nil); err == nil {
		t.Error("a function has an encoding")
	}
}
