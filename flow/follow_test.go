package flow

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// deaths notes what a sink is told, and why items failed.
type deaths struct {
	lines
	why []string
}

func (d *deaths) Dead(dead *Dead) error {
	d.why = append(d.why, fmt.Sprintf("%v %s: %s", dead.ID, dead.Class, dead.Message))
	return d.lines.Dead(dead)
}

// roundTrip runs a flow on an empty store and again. What the first run gives, by
// following its steps, is what the second finds by looking them up.
func roundTrip(t *testing.T, r *Run) {
	t.Helper()
	s := store.NewMemory()
	defer s.Close()
	var all [2]deaths
	var results [2]*Result
	for i := range all {
		one := *r
		one.Sink = &all[i]
		res, err := NewRunner(Config{Workers: 3, Store: s}).Run(context.Background(), &one)
		if err != nil {
			t.Fatal(err)
		}
		results[i] = res
	}
	a, b := &results[0].Report, &results[1].Report
	if !slices.Equal(all[0].all, all[1].all) || !slices.Equal(all[0].why, all[1].why) || a.Items != b.Items || a.State != b.State {
		t.Errorf("%s: %d lines, %+v, then %d lines, %+v", r.Flow.Name, len(all[0].all), a.Items, len(all[1].all), b.Items)
	}
	for i := range a.States {
		if x, y := &a.States[i], &b.States[i]; x.Entered != y.Entered || x.Left != y.Left || x.Failed != y.Failed || x.Fuel != y.Fuel {
			t.Errorf("%s, state %s: %+v, then %+v", r.Flow.Name, x.Name, *x, *y)
		}
	}
	if a.State != Succeeded {
		return
	}
	x, _ := results[0].Receipt.Marshal()
	if y, _ := results[1].Receipt.Marshal(); !bytes.Equal(x, y) {
		t.Errorf("%s: receipt %s, then %s", r.Flow.Name, x, y)
	}
}

// TestFollowed runs generated flows over several windows of roots.
func TestFollowed(t *testing.T) {
	var values []any
	for i := range 2*windowRoots + 100 {
		values = append(values, datum{N: 1 + i%5, V: uint64(i)})
	}
	flows := 4
	if testing.Short() {
		flows = 1
	}
	for seed := uint64(0); flows > 0; seed++ {
		g := generate(seed)
		if len(wrongOf(g.flow.Problems())) > 0 {
			continue
		}
		flows--
		roundTrip(t, &Run{Flow: g.flow, Input: inputOf(t, values...), Live: []int{100, 10_000}[flows%2], Bounds: Bounds{MaxSteps: 60, MaxDepth: 4}})
	}
}

// TestFollowedInPart runs a flow whose ends are more than a follower holds: some windows
// are left to the last walk.
func TestFollowedInPart(t *testing.T) {
	const size = 12 << 10 // of an output: a window has more than followBytes
	f := &Flow{Name: "large", States: []State{
		{Name: "a", Exec: &Func{Name: "large", Version: "1", Call: func(_ context.Context, _ [sha256.Size]byte, data []byte) ([]byte, error) {
			return append([]byte{0x59, size >> 8, size & 255}, bytes.Repeat(data[:1], size)...), nil
		}}, Next: "done"},
		{Name: "done", End: true},
	}}
	var values []any
	for i := range 2*windowRoots + 100 {
		values = append(values, i)
	}
	roundTrip(t, &Run{Flow: f, Input: inputOf(t, values...)})
}

// TestFailuresOfFollowed gives each item that fails its own reason, with any number of
// workers: failures come one by one, and several at once.
func TestFailuresOfFollowed(t *testing.T) {
	f := &Flow{Name: "f", States: []State{
		{Name: "a", Exec: pureFunc("odd", func(v any) any {
			switch n := v.(uint64); {
			case n%2 == 0:
				return v
			case n%3 == 0:
				panic(fmt.Sprint("panic ", n))
			default:
				return Permanent(fmt.Errorf("odd %d", n))
			}
		}), Next: "done"},
		{Name: "done", End: true},
	}}
	var values []any
	var want []string
	for i := range 200 {
		values = append(values, i)
		switch {
		case i%2 == 0:
		case i%3 == 0:
			want = append(want, fmt.Sprintf("%d trap: panic: panic %d", i, i))
		default:
			want = append(want, fmt.Sprintf("%d guest: odd %d", i, i))
		}
	}
	for _, workers := range []int{1, 3} {
		d := &deaths{}
		res, err := NewRunner(Config{Workers: workers}).Run(context.Background(), &Run{Flow: f, Input: inputOf(t, values...), Sink: d})
		if err != nil || res.Report.State != Failed || !slices.Equal(d.why, want) {
			t.Errorf("%d workers: %v, %q, want %q", workers, err, d.why, want)
		}
	}
}

// failingSink fails for one item.
type failingSink struct {
	lines
	at int
}

var errSink = errors.New("no room")

func (s *failingSink) Ended(e *End) error {
	if len(s.all) == s.at {
		return errSink
	}
	return s.lines.Ended(e)
}

// TestSinkFails ends runs whose sink fails, in the first window and in the last: the sink
// gets no item twice.
func TestSinkFails(t *testing.T) {
	f := &Flow{Name: "f", States: []State{
		{Name: "a", Exec: pureFunc("same", func(v any) any { return v }), Next: "done"},
		{Name: "done", End: true},
	}}
	var values []any
	for i := range 2*windowRoots + 100 {
		values = append(values, i)
	}
	for _, at := range []int{0, 100, windowRoots, 2*windowRoots + 99} {
		s := &failingSink{at: at}
		_, err := NewRunner(Config{}).Run(context.Background(), &Run{Flow: f, Input: inputOf(t, values...), Sink: s})
		if !errors.Is(err, errSink) || len(s.all) != at {
			t.Errorf("%v after %d items, want %v after %d", err, len(s.all), errSink, at)
		}
	}
}

// failingStore fails to store outputs after some.
type failingStore struct {
	*store.Memory
	left int
}

var errStore = errors.New("the disk is full")

func (s *failingStore) Put(ctx context.Context, action store.Action, records []store.Record) error {
	if s.left -= len(records); s.left < 0 {
		return errStore
	}
	return s.Memory.Put(ctx, action, records)
}

// TestStoreFails ends runs whose store fails, while steps are executed and at the end. The
// next run goes on with what is stored.
func TestStoreFails(t *testing.T) {
	f := &Flow{Name: "f", States: []State{
		{Name: "a", Exec: pureFunc("same", func(v any) any { return v }), Next: "done"},
		{Name: "done", End: true},
	}}
	var values []any
	for i := range 3000 {
		values = append(values, i)
	}
	for _, left := range []int{0, 10, 2999} {
		s := &failingStore{store.NewMemory(), left}
		defer s.Close()
		_, err := NewRunner(Config{Store: s}).Run(context.Background(), &Run{Flow: f, Input: inputOf(t, values...)})
		if _, ok := errors.AsType[*StoreError](err); !ok || !errors.Is(err, errStore) {
			t.Errorf("%d stored: %v, want a *StoreError", left, err)
		}
		s.left = 3000
		res, err := NewRunner(Config{Store: s}).Run(context.Background(), &Run{Flow: f, Input: inputOf(t, values...)})
		if err != nil || res.Report.State != Succeeded || res.Report.Items.Ended != 3000 {
			t.Errorf("after room was made: %v, %+v", err, res)
		}
	}
}
