package fold

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
)

// shows is a caller whose functions return a description of their input.
type shows struct {
	mu    sync.Mutex
	calls []string // function and the number of elements
	fail  string   // name of the function that fails
	delay func() time.Duration
}

func (s *shows) Call(ctx context.Context, function string, input, dst []byte) ([]byte, uint64, error) {
	if s.delay != nil {
		select {
		case <-time.After(s.delay()):
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
	head, err := abi.ReadHead(input)
	if err != nil || head.Major != abi.MajorArray {
		panic(fmt.Sprintf("input %x: %v", input[:10], err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, fmt.Sprint(function, " ", head.Arg))
	if function == s.fail {
		return nil, 0, abi.Failf(abi.ClassGuest, "no")
	}
	sum := sha256.Sum256(append([]byte(function), input...))
	return append(abi.AppendHead(dst, abi.MajorBytes, uint64(len(sum))), sum[:]...), 1, nil
}

// plain folds as the ABI describes it, in one loop.
func plain(outputs [][]byte, merges bool) []byte {
	var elements [][]byte
	for i, o := range outputs {
		elements = append(elements, abi.AppendEntry(nil, abi.IntID(uint64(i)), o))
	}
	function, least := abi.ExportAggregate, 1
	for {
		var results [][]byte
		var group [][]byte
		size := 0
		flush := func() {
			b := abi.AppendHead(nil, abi.MajorArray, uint64(len(group)))
			out, _, _ := new(shows).Call(context.Background(), function, append(b, bytes.Join(group, nil)...), nil)
			results = append(results, out)
			group, size = nil, 0
		}
		for _, e := range elements {
			if merges && len(group) >= least && (len(group) >= 10_000 || size+len(e) > 8<<20) {
				flush()
			}
			group = append(group, e)
			size += len(e)
		}
		switch {
		case function == abi.ExportMerge && len(group) == 1:
			results = append(results, group[0])
		case len(group) > 0 || len(results) == 0:
			flush()
		}
		if len(results) == 1 {
			return results[0]
		}
		elements, function, least = results, abi.ExportMerge, 2
	}
}

// folded folds outputs with calls made by n goroutines.
func folded(t *testing.T, outputs [][]byte, merges bool, n int, by *shows) ([]byte, error) {
	t.Helper()
	calls := make(chan int, 1000)
	f := New(t.Context(), merges, func(call int) { calls <- call })
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for call := range calls {
				f.Call(call, by)
			}
		})
	}
	for i, o := range outputs {
		f.Add(abi.IntID(uint64(i)), o)
		f.Wait(n)
	}
	out, err := f.Result()
	close(calls)
	all.Wait()
	f.Cancel()
	if fuel := f.Fuel(); err == nil && fuel != uint64(len(by.calls)) {
		t.Errorf("fuel %d of %d calls", fuel, len(by.calls))
	}
	return out, err
}

// TestGroups compares with a plain loop: for sizes around each limit, with and
// without merge, and with calls made by any goroutine in any order.
func TestGroups(t *testing.T) {
	sized := func(n int, size func(i int) int) (outputs [][]byte) {
		for i := range n {
			b := abi.AppendHead(nil, abi.MajorBytes, uint64(size(i)))
			outputs = append(outputs, append(b, bytes.Repeat([]byte{byte(i)}, size(i))...))
		}
		return outputs
	}
	tiny := func(int) int { return 1 }
	for name, outputs := range map[string][][]byte{
		"none":                     nil,
		"one":                      sized(1, tiny),
		"a full group":             sized(10_000, tiny),
		"one more":                 sized(10_001, tiny),
		"two full groups, and one": sized(20_001, tiny),
		"large ones":               sized(20, func(i int) int { return 1 << 20 }),
		"one larger than a group":  sized(3, func(i int) int { return 9 << 20 * (i % 2) }),
		"up to the bound":          sized(3, func(i int) int { return 8<<20/2 - 7 }),
		"random":                   sized(10_500, func(i int) int { return rand.IntN(500) }),
	} {
		for _, merges := range []bool{true, false} {
			want := plain(outputs, merges)
			for _, n := range []int{1, 4} {
				if !merges && n > 1 {
					continue // There is one call.
				}
				by := &shows{}
				got, err := folded(t, outputs, merges, n, by)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s, merges %v, %d callers: %x, %v, want %x; calls %v", name, merges, n, got, err, want, by.calls)
				}
				if !merges && len(by.calls) != 1 {
					t.Errorf("%s: calls %v", name, by.calls)
				}
			}
		}
	}
}

func TestFailure(t *testing.T) {
	outputs := make([][]byte, 20_001)
	for i := range outputs {
		outputs[i] = []byte{1}
	}
	for _, function := range []string{abi.ExportAggregate, abi.ExportMerge} {
		_, err := folded(t, outputs, true, 3, &shows{fail: function})
		if e, ok := errors.AsType[*Error](err); !ok || e.Step != function || e.Failure.Class != abi.ClassGuest {
			t.Errorf("%s: error %v", function, err)
		}
	}
}

// TestCancel ends folds at random moments: Result returns, and then no call is
// being made.
func TestCancel(t *testing.T) {
	outputs := make([][]byte, 30_000)
	for i := range outputs {
		outputs[i] = []byte{1}
	}
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), rand.N(4*time.Second))
			defer cancel()
			calls := make(chan int, 100)
			f := New(ctx, true, func(call int) { calls <- call })
			by := &shows{delay: func() time.Duration { return time.Second }}
			var running sync.WaitGroup
			running.Go(func() {
				for call := range calls {
					f.Call(call, by)
				}
			})
			for i, o := range outputs {
				f.Add(abi.IntID(uint64(i)), o)
			}
			out, err := f.Result()
			if f.open() != 0 {
				t.Errorf("%d calls are left", f.open())
			}
			if (err == nil) != (out != nil) || err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%x, %v", out, err)
			}
			close(calls)
			running.Wait()
		})
	}
}

// numbers is a batch whose outputs are the numbers of their chunks.
type numbers struct {
	first, n, size int
	span           merkle.Span
	freed          *int
}

func newNumbers(first, n, size int, freed *int) *numbers {
	b := &numbers{first: first, n: n, size: size, freed: freed}
	b.span.Reset(uint64(first))
	for i := range n {
		b.span.AddEntry(b.ID(i), b.Output(i))
	}
	return b
}

func (b *numbers) First() int         { return b.first }
func (b *numbers) Len() int           { return b.n }
func (b *numbers) Size() int          { return b.size }
func (b *numbers) ID(i int) abi.ID    { return abi.IntID(uint64(b.first + i)) }
func (b *numbers) Span() *merkle.Span { return &b.span }
func (b *numbers) Each(f func(id abi.ID, output []byte)) {
	for i := range b.n {
		f(b.ID(i), b.Output(i))
	}
}
func (b *numbers) Hold()               {}
func (b *numbers) Free()               { *b.freed++ }
func (b *numbers) Output(i int) []byte { return abi.AppendHead(nil, abi.MajorUint, uint64(b.first+i)) }

// TestStreamOrder gives batches in random orders: those that arrive in order are in
// the tree, and the others are held or given up within the limit.
func TestStreamOrder(t *testing.T) {
	for round := range 50 {
		var batches []*numbers
		freed, next := 0, 0
		for range 30 {
			n := 1 + rand.IntN(20)
			batches = append(batches, newNumbers(next, n, 10, &freed))
			next += n
		}
		missing := -1 // a batch that never arrives
		if round%3 == 0 {
			missing = rand.IntN(len(batches))
		}
		s := NewStream(1, nil, nil)
		var running sync.WaitGroup
		running.Go(s.Run)
		for _, i := range rand.Perm(len(batches)) {
			if i != missing {
				s.Put(batches[i])
			}
		}
		s.Close()
		running.Wait()
		want := next
		if missing >= 0 {
			want = batches[missing].first
		}
		var plain merkle.Tree
		for i := range want {
			plain.AddEntry(abi.IntID(uint64(i)), abi.AppendHead(nil, abi.MajorUint, uint64(i)))
		}
		tree, seen := s.Seen()
		if seen != want || tree.Root() != plain.Root() {
			t.Fatalf("%d chunks were seen, want %d", seen, want)
		}
		if missing < 0 && freed != len(batches) {
			t.Errorf("%d batches of %d are free", freed, len(batches))
		}
	}
}

func TestStreamHoldsLittle(t *testing.T) {
	freed := 0
	s := NewStream(1, nil, nil)
	for i := 1; i < 10; i++ {
		s.take(newNumbers(i, 1, maxEarly/4, &freed))
	}
	if s.held > maxEarly || !s.over || len(s.early) != 0 || freed == 0 {
		t.Errorf("%d bytes are held, over %v, %d freed", s.held, s.over, freed)
	}
	s.take(newNumbers(0, 1, 1, &freed)) // Batches that arrive in order are still used.
	if _, next := s.Seen(); next != 1 {
		t.Errorf("%d chunks were seen", next)
	}
}

// TestGroupsBySize compares the groups of sizes with those of a fold.
func TestGroupsBySize(t *testing.T) {
	for round := range 10 {
		var outputs [][]byte
		for range 1 + rand.IntN(40) {
			outputs = append(outputs, make([]byte, rand.IntN(3<<20>>(round%4))))
		}
		if round%5 == 0 {
			outputs = append(outputs, make([][]byte, 25_000)...)
		}
		by := &shows{}
		if _, err := folded(t, outputs, true, 1, by); err != nil {
			t.Fatal(err)
		}
		var want, got []string
		for _, call := range by.calls {
			if strings.HasPrefix(call, abi.ExportAggregate) {
				want = append(want, call)
			}
		}
		groups, n := NewGroups(0), 0
		end := func() {
			if n > 0 {
				got = append(got, fmt.Sprint(abi.ExportAggregate, " ", n))
			}
		}
		for i, o := range outputs {
			if groups.Add(len(abi.AppendEntry(nil, abi.IntID(uint64(i)), o))) {
				end()
				n = 0
			}
			n++
		}
		if end(); !slices.Equal(got, want) {
			t.Fatalf("groups %v, want %v", got, want)
		}
	}
}

// TestGroupsOfPartials checks that a group of merge has two elements, whatever their size.
func TestGroupsOfPartials(t *testing.T) {
	groups := NewGroups(2)
	var got []bool
	for _, size := range []int{9 << 20, 9 << 20, 9 << 20, 1, 1, 8 << 20} {
		got = append(got, groups.Add(size))
	}
	if want := []bool{true, false, true, false, true, false}; !slices.Equal(got, want) {
		t.Errorf("begins %v, want %v", got, want)
	}
}
