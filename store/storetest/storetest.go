// Package storetest is the conformance suite that every store must pass.
package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
)

var (
	action = store.Action{1}
	other  = store.Action{2}
)

// Run tests a store against the contract of [store.Store]. open returns an empty
// store each time it is called; the suite closes it.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	each(t, open, []test[store.Store]{
		{"an empty store has nothing", empty},
		{"outputs come back verbatim", verbatim},
		{"an empty batch changes nothing", emptyBatch},
		{"found is called in the order of the keys", keyOrder},
		{"the same bytes again change nothing", sameBytes},
		{"other bytes conflict, and the first stay", otherBytes},
		{"the fuel of an output is kept", fuel},
		{"a conflict keeps the rest of its batch", conflictInBatch},
		{"a batch may name a chunk twice", twiceInBatch},
		{"one chunk under two ids is one record", twoOrders},
		{"actions share nothing", actionsApart},
		{"the store copies what it keeps", copies},
		{"an error of found ends the call", foundError},
		{"a cancelled context ends every call", cancelled},
		{"all comes in bytewise order", allInOrder},
		{"all can be left early", allLeftEarly},
		{"all begins with the first in order, whenever it was put", firstOfAll},
		{"large outputs survive", large},
		{"racing writers agree", racers},
		{"it behaves like a map", likeAMap},
		{"after Close every call gives ErrClosed", closed},
	})
}

// test tests one sentence of a contract, its name.
type test[S store.Store] struct {
	name string
	run  func(t *testing.T, s S)
}

// each runs every test on a store of its own.
func each[S store.Store](t *testing.T, open func(t *testing.T) S, tests []test[S]) {
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			test.run(t, s)
		})
	}
}

// Record returns the record of a chunk that consists of the bytes of name.
func record(name, output string) store.Record {
	return store.Record{Key: key(name), Value: store.Value{Output: []byte(output)}}
}

func key(name string) store.Key {
	return store.Key{Chunk: store.Digest(sha256.Sum256([]byte(name))), Order: []byte(name)}
}

func put(t *testing.T, s store.Store, a store.Action, records ...store.Record) {
	t.Helper()
	if err := s.Put(t.Context(), a, records); err != nil {
		t.Fatalf("put: %v", err)
	}
}

// get returns the stored outputs of the names, "-" for a name without one.
func get(t *testing.T, s store.Store, a store.Action, names ...string) []string {
	t.Helper()
	keys := make([]store.Key, len(names))
	got := make([]string, len(names))
	for i, name := range names {
		keys[i], got[i] = key(name), "-"
	}
	err := s.Get(t.Context(), a, keys, func(i int, v store.Value) error {
		got[i] = string(v.Output)
		return nil
	})
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	return got
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func all(t *testing.T, s store.Store, a store.Action) (orders []string) {
	t.Helper()
	for r, err := range s.All(t.Context(), a) {
		if err != nil {
			t.Fatalf("all: %v", err)
		}
		orders = append(orders, string(r.Order)+"="+string(r.Output))
	}
	return orders
}

func empty(t *testing.T, s store.Store) {
	want(t, get(t, s, action, "a", "b"), "-", "-")
	want(t, get(t, s, action))
	want(t, all(t, s, action))
}

func verbatim(t *testing.T, s store.Store) {
	put(t, s, action, record("a", "\x00\xff"), record("b", ""), record("c", "\xf6"))
	want(t, get(t, s, action, "a", "b", "c", "d"), "\x00\xff", "", "\xf6", "-")
}

func emptyBatch(t *testing.T, s store.Store) {
	put(t, s, action)
	want(t, all(t, s, action))
}

func keyOrder(t *testing.T, s store.Store) {
	put(t, s, action, record("a", "1"), record("b", "2"), record("c", "3"))
	var seen []int
	err := s.Get(t.Context(), action, []store.Key{key("c"), key("x"), key("a"), key("b")}, func(i int, _ store.Value) error {
		seen = append(seen, i)
		return nil
	})
	if err != nil || !slices.Equal(seen, []int{0, 2, 3}) {
		t.Fatalf("found %v, %v; want [0 2 3]", seen, err)
	}
}

func sameBytes(t *testing.T, s store.Store) {
	put(t, s, action, record("a", "1"))
	put(t, s, action, record("a", "1"))
	want(t, all(t, s, action), "a=1")
}

func otherBytes(t *testing.T, s store.Store) {
	put(t, s, action, record("a", "1"))
	err := s.Put(t.Context(), action, []store.Record{record("a", "2")})
	conflict, ok := errors.AsType[*store.ConflictError](err)
	if !ok {
		t.Fatalf("put of other bytes gave %v, want a *store.ConflictError", err)
	}
	wantConflict := store.ConflictError{
		Action: action, Chunk: key("a").Chunk,
		Stored: store.VersionOf(store.Value{Output: []byte("1")}), Put: store.VersionOf(store.Value{Output: []byte("2")}),
	}
	if *conflict != wantConflict {
		t.Errorf("conflict %+v, want %+v", *conflict, wantConflict)
	}
	want(t, get(t, s, action, "a"), "1")
}

func fuel(t *testing.T, s store.Store) {
	r := record("a", "1")
	r.Fuel = 1<<64 - 1
	put(t, s, action, r, record("b", "2"))
	put(t, s, action, r)
	err := s.Get(t.Context(), action, []store.Key{key("a")}, func(_ int, v store.Value) error {
		if v.Fuel != r.Fuel {
			t.Errorf("fuel %d", v.Fuel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for got, err := range s.All(t.Context(), action) {
		if err != nil || got.Chunk == r.Chunk && got.Fuel != r.Fuel || got.Chunk != r.Chunk && got.Fuel != 0 {
			t.Errorf("%+v, %v", got, err)
		}
	}
	cheaper := r
	cheaper.Fuel--
	err = s.Put(t.Context(), action, []store.Record{cheaper})
	if c, ok := errors.AsType[*store.ConflictError](err); !ok || c.Stored != store.VersionOf(r.Value) || c.Put != store.VersionOf(cheaper.Value) {
		t.Errorf("the same output with another fuel: got %v, want a *store.ConflictError", err)
	}
}

func conflictInBatch(t *testing.T, s store.Store) {
	put(t, s, action, record("b", "1"))
	err := s.Put(t.Context(), action, []store.Record{record("a", "1"), record("b", "2"), record("c", "3")})
	if _, ok := errors.AsType[*store.ConflictError](err); !ok {
		t.Fatalf("got %v, want a *store.ConflictError", err)
	}
	want(t, get(t, s, action, "a", "b", "c"), "1", "1", "3")
}

func twiceInBatch(t *testing.T, s store.Store) {
	put(t, s, action, record("a", "1"), record("a", "1"))
	want(t, all(t, s, action), "a=1")
	err := s.Put(t.Context(), action, []store.Record{record("b", "1"), record("b", "2")})
	if _, ok := errors.AsType[*store.ConflictError](err); !ok {
		t.Fatalf("got %v, want a *store.ConflictError", err)
	}
	want(t, get(t, s, action, "b"), "1")
}

func twoOrders(t *testing.T, s store.Store) {
	first, second := record("a", "1"), record("a", "1")
	second.Order = []byte("b")
	put(t, s, action, first)
	put(t, s, action, second)
	want(t, all(t, s, action), "a=1")
}

func actionsApart(t *testing.T, s store.Store) {
	put(t, s, action, record("a", "1"))
	put(t, s, other, record("a", "2"))
	want(t, get(t, s, action, "a"), "1")
	want(t, get(t, s, other, "a"), "2")
	want(t, all(t, s, other), "a=2")
}

func copies(t *testing.T, s store.Store) {
	r := record("a", "1")
	put(t, s, action, r)
	r.Output[0], r.Order[0] = 'x', 'x'
	want(t, all(t, s, action), "a=1")
}

func foundError(t *testing.T, s store.Store) {
	put(t, s, action, record("a", "1"), record("b", "2"))
	stop := errors.New("stop")
	calls := 0
	err := s.Get(t.Context(), action, []store.Key{key("a"), key("b")}, func(int, store.Value) error {
		calls++
		return stop
	})
	if !errors.Is(err, stop) || calls != 1 {
		t.Fatalf("%d calls and %v, want 1 and the error of found", calls, err)
	}
}

func cancelled(t *testing.T, s store.Store) {
	put(t, s, action, record("a", "1"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Put(ctx, action, []store.Record{record("b", "2")}); !errors.Is(err, context.Canceled) {
		t.Errorf("put: %v, want context.Canceled", err)
	}
	err := s.Get(ctx, action, []store.Key{key("a")}, func(int, store.Value) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("get: %v, want context.Canceled", err)
	}
	for _, err := range s.All(ctx, action) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("all: %v, want context.Canceled", err)
		}
	}
	want(t, all(t, s, action), "a=1")
}

func allInOrder(t *testing.T, s store.Store) {
	put(t, s, action, record("b", "2"), record("\xff", "4"), record("ab", "1"))
	put(t, s, action, record("c", "3"), record("", "0"))
	want(t, all(t, s, action), "=0", "ab=1", "b=2", "c=3", "\xff=4")
}

func allLeftEarly(t *testing.T, s store.Store) {
	put(t, s, action, record("a", "1"), record("b", "2"))
	for r, err := range s.All(t.Context(), action) {
		if err != nil || string(r.Output) != "1" {
			t.Fatalf("first is %q, %v", r.Output, err)
		}
		break
	}
	put(t, s, action, record("c", "3")) // would hang if All left a lock
	want(t, all(t, s, action), "a=1", "b=2", "c=3")
}

func firstOfAll(t *testing.T, s store.Store) {
	for _, name := range []string{"d", "e", "c", "b", "f", "a"} {
		put(t, s, action, record(name, name))
		all := all(t, s, action)
		for r, err := range s.All(t.Context(), action) {
			if got := string(r.Order) + "=" + string(r.Output); err != nil || got != all[0] || !slices.IsSorted(all) {
				t.Errorf("after %s was put: All begins with %q, and has %q, %v", name, got, all, err)
			}
			break
		}
	}
	want(t, all(t, s, action), "a=a", "b=b", "c=c", "d=d", "e=e", "f=f")
}

func large(t *testing.T, s store.Store) {
	output := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	put(t, s, action, record("a", "1"), store.Record{Key: key("b"), Value: store.Value{Output: output}}, record("c", "3"))
	got := get(t, s, action, "a", "b", "c")
	want(t, []string{got[0], got[2]}, "1", "3")
	if got[1] != string(output) {
		t.Fatal("16 MiB came back changed")
	}
}

func racers(t *testing.T, s store.Store) {
	const writers, chunks = 20, 200
	var wins [writers]int
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for c := range chunks {
				err := s.Put(t.Context(), action, []store.Record{record(fmt.Sprint(c), fmt.Sprint(w))})
				if err == nil {
					wins[w]++
				} else if _, ok := errors.AsType[*store.ConflictError](err); !ok {
					t.Errorf("writer %d: %v", w, err)
				}
			}
		})
	}
	wg.Wait()
	sum := 0
	for _, n := range wins {
		sum += n
	}
	if sum != chunks || len(all(t, s, action)) != chunks {
		t.Fatalf("%d puts won for %d chunks", sum, chunks)
	}
}

// likeAMap compares the store with a map over random batches. A failure prints
// the seed.
func likeAMap(t *testing.T, s store.Store) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	model := map[string]string{}
	for range 300 {
		var batch []store.Record
		conflict := false
		for range rng.IntN(8) {
			name, output := fmt.Sprint(rng.IntN(60)), fmt.Sprint(rng.IntN(3))
			batch = append(batch, record(name, output))
			if have, ok := model[name]; ok {
				conflict = conflict || have != output
			} else {
				model[name] = output
			}
		}
		if err := s.Put(t.Context(), action, batch); (err != nil) != conflict {
			t.Fatalf("seed %d: put gave %v, want a conflict: %v", seed, err, conflict)
		}
		name := fmt.Sprint(rng.IntN(60))
		wanted, ok := model[name]
		if !ok {
			wanted = "-"
		}
		if got := get(t, s, action, name); got[0] != wanted {
			t.Fatalf("seed %d: chunk %s has %q, want %q", seed, name, got[0], wanted)
		}
	}
	var wanted []string
	for name, output := range model {
		wanted = append(wanted, name+"="+output)
	}
	slices.SortFunc(wanted, func(a, b string) int { return bytes.Compare([]byte(orderOf(a)), []byte(orderOf(b))) })
	want(t, all(t, s, action), wanted...)
}

func orderOf(s string) string {
	order, _, _ := bytes.Cut([]byte(s), []byte("="))
	return string(order)
}

func closed(t *testing.T, s store.Store) {
	put(t, s, action, record("a", "1"))
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	if err := s.Put(t.Context(), action, []store.Record{record("b", "2")}); !errors.Is(err, store.ErrClosed) {
		t.Errorf("put: %v, want ErrClosed", err)
	}
	err := s.Get(t.Context(), action, []store.Key{key("a")}, func(int, store.Value) error { return nil })
	if !errors.Is(err, store.ErrClosed) {
		t.Errorf("get: %v, want ErrClosed", err)
	}
	for _, err := range s.All(t.Context(), action) {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("all: %v, want ErrClosed", err)
		}
	}
}
