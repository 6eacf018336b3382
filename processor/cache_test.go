package processor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/processor"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// flaky is a store that fails every second look-up, or all puts.
type flaky struct {
	store.Store
	gets    atomic.Int64
	noGets  bool
	noPuts  atomic.Bool
	batches atomic.Int64
	put     atomic.Int64
}

var errFlaky = errors.New("flaky")

func (f *flaky) Get(ctx context.Context, a store.Action, keys []store.Key, found func(int, store.Value) error) error {
	if f.noGets && f.gets.Add(1)%2 == 0 {
		return errFlaky
	}
	return f.Store.Get(ctx, a, keys, found)
}

func (f *flaky) Put(ctx context.Context, a store.Action, records []store.Record) error {
	f.batches.Add(1)
	f.put.Add(int64(len(records)))
	if f.noPuts.Load() {
		return errFlaky
	}
	return f.Store.Put(ctx, a, records)
}

func stored(t *testing.T, s store.Store, a store.Action) int {
	n := 0
	for _, err := range s.All(t.Context(), a) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

func TestCacheAsksTheStoreFirst(t *testing.T) {
	m := open(t, squareWasm, processor.Options{})
	s := &flaky{Store: store.NewMemory()}
	for round, durable := range []bool{false, true, false} {
		c := processor.NewCache(m, processor.CacheOptions{Store: s, Action: m.Action(), Durable: durable})
		for n := range uint64(300) {
			in := number(n + uint64(round%2)*1000)
			got, err := c.Append(t.Context(), in, []byte("before"))
			output, prefixed := bytes.CutPrefix(got.Output, []byte("before"))
			root := n + uint64(round%2)*1000
			if err != nil || !prefixed || !bytes.Equal(output, number(root*root)) || got.Fuel == 0 || got.Reused != (round == 2) {
				t.Fatalf("round %d: %x, %+v, %v", round, in, got, err)
			}
			if durable && stored(t, s, m.Action()) != 300+int(n)+1 {
				t.Fatalf("%d outputs are stored after %d more answers", stored(t, s, m.Action()), n+1)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if round == 0 && (stored(t, s, m.Action()) != 300 || s.batches.Load() > 100) {
			t.Errorf("%d outputs are stored, by %d puts", stored(t, s, m.Action()), s.batches.Load())
		}
	}
	if s.put.Load() != 600 {
		t.Errorf("%d outputs were put", s.put.Load())
	}
}

// 1,000 equal requests at once are executed once.
func TestEqualRequestsAreOne(t *testing.T) {
	for _, failure := range []*abi.Failure{nil, abi.Failf(abi.ClassTrap, "unreachable")} {
		synctest.Test(t, func(t *testing.T) {
			var executed atomic.Int64
			hold := make(chan struct{})
			c := processor.NewCache(appender(func(_ context.Context, in []byte) ([]byte, error) {
				executed.Add(1)
				<-hold
				if failure != nil {
					return nil, failure
				}
				return in, nil
			}), processor.CacheOptions{})
			var reused atomic.Int64
			var asking sync.WaitGroup
			for range 1000 {
				asking.Go(func() {
					got, err := c.Run(t.Context(), number(7))
					if failure == nil && (err != nil || !bytes.Equal(got.Output, number(7))) || failure != nil && err != error(failure) {
						t.Errorf("%+v, %v", got, err)
					}
					if got.Reused {
						reused.Add(1)
					}
				})
			}
			synctest.Wait()
			close(hold)
			asking.Wait()
			if executed.Load() != 1 || failure == nil && reused.Load() != 999 || c.Stats().Reused != 999 {
				t.Errorf("%d were executed, %d were reused, %+v", executed.Load(), reused.Load(), c.Stats())
			}
		})
	}
}

// Many different requests at once, small and large ones, share only with equal ones, and
// nothing is left of them.
func TestEqualRequestsAmongMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var executed atomic.Int64
		hold := make(chan struct{})
		c := processor.NewCache(appender(func(_ context.Context, in []byte) ([]byte, error) {
			executed.Add(1)
			<-hold
			return in, nil
		}), processor.CacheOptions{})
		var requests [][]byte
		for n := range 20 {
			requests = append(requests, number(uint64(n)), item(100, byte(n)), item(5000, byte(n)))
		}
		for round := range int64(2) {
			var asking sync.WaitGroup
			for i := range 4 * len(requests) {
				in := requests[i%len(requests)]
				asking.Go(func() {
					got, err := c.Run(t.Context(), bytes.Clone(in))
					if err != nil || !bytes.Equal(got.Output, in) {
						t.Errorf("the answer to %d bytes has %d, %v", len(in), len(got.Output), err)
					}
				})
			}
			synctest.Wait()
			close(hold)
			asking.Wait()
			hold = make(chan struct{})
			if want := (round + 1) * int64(len(requests)); executed.Load() != want {
				t.Errorf("%d were executed, want %d", executed.Load(), want)
			}
		}
	})
}

// item returns a byte string that ends with last.
func item(size int, last byte) []byte {
	return append(abi.AppendHead(nil, abi.MajorBytes, uint64(size)), append(make([]byte, size-1), last)...)
}

// If the running request is cancelled, the next equal one runs.
func TestCancelledRequestIsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var executed atomic.Int64
		c := processor.NewCache(appender(func(ctx context.Context, in []byte) ([]byte, error) {
			if executed.Add(1) == 1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return in, nil
		}), processor.CacheOptions{})
		first, cancel := context.WithCancel(t.Context())
		errs := make(chan error)
		go func() { _, err := c.Run(first, number(7)); errs <- err }() // until cancel
		synctest.Wait()
		go func() { _, err := c.Run(t.Context(), number(7)); errs <- err }()
		impatient, give := context.WithCancel(t.Context())
		go func() { _, err := c.Run(impatient, number(7)); errs <- err }()
		synctest.Wait()
		give()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		cancel()
		if err := errors.Join(<-errs, <-errs); !errors.Is(err, context.Canceled) || err.Error() != context.Canceled.Error() {
			t.Errorf("errors %v", err)
		}
		if executed.Load() != 2 {
			t.Errorf("%d were executed", executed.Load())
		}
	})
}

// Errors of the store are counted and passed to Tell, and the answers are right.
func TestStoreThatFails(t *testing.T) {
	m := open(t, squareWasm, processor.Options{})
	s := &flaky{Store: store.NewMemory(), noGets: true}
	s.noPuts.Store(true)
	var told atomic.Int64
	c := processor.NewCache(m, processor.CacheOptions{Store: s, Action: m.Action(), Tell: func(err error) {
		if e, ok := errors.AsType[*processor.StoreError](err); !ok || !errors.Is(e, errFlaky) {
			t.Errorf("told %v", err)
		}
		told.Add(1)
	}})
	for n := range uint64(100) {
		if got, err := c.Run(t.Context(), number(n)); err != nil || !bytes.Equal(got.Output, number(n*n)) {
			t.Errorf("%d: %+v, %v", n, got, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if stats := c.Stats(); stats.Lookups != 50 || stats.Puts != 100 || told.Load() < 51 {
		t.Errorf("%+v, told %d times", stats, told.Load())
	}
	for _, o := range []processor.CacheOptions{{Strict: true}, {Strict: true, Durable: true}} {
		o.Store, o.Action = s, m.Action()
		strict := processor.NewCache(m, o)
		var failed int
		for n := range uint64(10) {
			if _, err := strict.Run(t.Context(), number(n)); errors.Is(err, errFlaky) {
				failed++
			}
		}
		if want := map[bool]int{false: 5, true: 10}[o.Durable]; failed != want {
			t.Errorf("%+v: %d failed", o, failed)
		}
		if err := strict.Close(); err != nil {
			t.Error(err)
		}
	}
}

// blocked is a store that puts nothing until it is released.
type blocked struct {
	store.Store
	release chan struct{}
	most    atomic.Int64
}

func (b *blocked) Put(ctx context.Context, a store.Action, records []store.Record) error {
	<-b.release
	size := 0
	for _, r := range records {
		size += len(r.Output)
	}
	b.most.Store(max(b.most.Load(), int64(size)))
	return nil
}

func (b *blocked) All(context.Context, store.Action) iter.Seq2[store.Record, error] { return nil }

// Outputs that wait for a slow store are bounded.
func TestSlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &blocked{Store: store.NewMemory(), release: make(chan struct{})}
		c := processor.NewCache(appender(func(context.Context, []byte) ([]byte, error) {
			return append(abi.AppendHead(nil, abi.MajorBytes, 1<<20), make([]byte, 1<<20)...), nil
		}), processor.CacheOptions{Store: s})
		for n := range uint64(70) {
			if _, err := c.Run(t.Context(), number(n)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		close(s.release)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if dropped := c.Stats().Puts; dropped < 5 || s.most.Load() > 64<<20 {
			t.Errorf("%d were dropped, and %d bytes were put at once", dropped, s.most.Load())
		}
	})
}

// So are those whose callers wait for the put, and give up.
func TestSlowStoreWithoutPatience(t *testing.T) {
	for _, strict := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := &blocked{Store: store.NewMemory(), release: make(chan struct{})}
			c := processor.NewCache(appender(func(context.Context, []byte) ([]byte, error) {
				return append(abi.AppendHead(nil, abi.MajorBytes, 1<<20), make([]byte, 1<<20)...), nil
			}), processor.CacheOptions{Store: s, Durable: true, Strict: strict})
			dropped := uint64(0)
			for n := range uint64(70) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				_, err := c.Run(ctx, number(n))
				cancel()
				_, isStore := errors.AsType[*processor.StoreError](err)
				switch {
				case errors.Is(err, context.DeadlineExceeded):
				case err == nil && !strict, isStore && strict:
					dropped++
				default:
					t.Fatalf("request %d: %v", n, err)
				}
			}
			if got := c.Stats().Puts; dropped < 5 || got != dropped {
				t.Errorf("%d were answered without a put, and %d counted", dropped, got)
			}
			close(s.release)
			if err := c.Close(); err != nil || s.most.Load() > 64<<20 {
				t.Errorf("%v; %d bytes were put at once", err, s.most.Load())
			}
		})
	}
}

func ExampleCache() {
	m := appender(func(_ context.Context, in []byte) ([]byte, error) { return in, nil })
	c := processor.NewCache(m, processor.CacheOptions{Store: store.NewMemory(), Durable: true})
	defer c.Close()
	for range 2 {
		result, err := c.Run(context.Background(), []byte{3})
		fmt.Println(result.Output, result.Reused, err)
	}
	// Output:
	// [3] false <nil>
	// [3] true <nil>
}
