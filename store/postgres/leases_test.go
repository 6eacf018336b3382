package postgres_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// chunkRecord returns the record of a chunk of the test's job.
func chunkRecord(i int, output string) store.Record {
	return store.Record{
		Key:   store.Key{Chunk: sha256.Sum256(fmt.Append(nil, i)), Order: fmt.Appendf(nil, "%08d", i)},
		Value: store.Value{Output: []byte(output), Fuel: 1},
	}
}

func spanOf(from, to int, output func(i int) string) postgres.Span {
	s := postgres.Span{First: from, Detail: func(int, int) []byte { return []byte{0} }}
	for i := from; i < to; i++ {
		s.Records = append(s.Records, chunkRecord(i, output(i)))
	}
	return s
}

func usual(i int) string { return fmt.Sprint("output ", i) }

// handIn makes a job of total chunks active, without a real input.
func handIn(t *testing.T, s *postgres.Store, number byte, total int) (store.JobID, int) {
	t.Helper()
	job := &postgres.SharedJob{
		JobRecord: store.JobRecord{ID: store.JobID{number}, Action: store.Action{number}, Total: total, Spec: []byte(`{"name":"n"}`)},
		Priority:  127, Retries: 1, MaxRequeues: 2, Classes: []string{"trap"}, Info: []byte(`{}`),
	}
	in, err := s.Submit(t.Context(), job, func(func([]byte) bool) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PutBlob(t.Context(), store.Digest{}, 0, []byte{}); err != nil {
		t.Fatal(err)
	}
	if err := s.AddSegments(t.Context(), in.Number, []postgres.Segment{{First: 0, Count: total}}); err != nil {
		t.Fatal(err)
	}
	if state, err := s.Activate(t.Context(), in.Number, 0, 0); err != nil || state != "active" {
		t.Fatal(state, err)
	}
	return job.ID, in.Number
}

func register(t *testing.T, s *postgres.Store, name string) *postgres.Worker {
	t.Helper()
	w, err := s.Register(t.Context(), postgres.WorkerInfo{Name: name, App: "a", Host: "h", Slots: 4, Lease: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// stored returns the outputs of a job as one text for each chunk, "-" if it has none.
func stored(t *testing.T, s *postgres.Store, action byte, total int) []string {
	t.Helper()
	keys, got := make([]store.Key, total), make([]string, total)
	for i := range keys {
		keys[i], got[i] = chunkRecord(i, "").Key, "-"
	}
	err := s.Get(t.Context(), store.Action{action}, keys, func(i int, v store.Value) error {
		got[i] = string(v.Output)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// finishJob leases and puts until the fold is leased, and returns the number of chunks that
// it executed.
func finishJob(t *testing.T, w *postgres.Worker, job int, want int) (executed int) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for seq := int64(1); time.Now().Before(deadline); seq++ {
		l, err := w.Next(t.Context(), 1, postgres.Want{job: want}, nil)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case l.Key == 0:
			time.Sleep(50 * time.Millisecond) // a lease of another worker must expire
			continue
		case l.Fold:
			return executed
		}
		executed += l.Last - l.First
		_, err = w.Settle(t.Context(), &postgres.Settlement{Lease: l, Seq: seq, Spans: []postgres.Span{spanOf(l.First, l.Last, usual)}, Done: l.Last, Ends: true, Executed: l.Last - l.First})
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the job does not end")
	return 0
}

// TestOverlap has two workers put overlapping spans of unequal bounds, in both orders and
// at once: each chunk is stored once. A different byte is a conflict, and the first output
// stays.
func TestOverlap(t *testing.T) {
	s := open(t)
	const total = 40
	rounds := 150
	if *long {
		rounds = 1000
	}
	if testing.Short() {
		rounds = 20
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	a, b := register(t, s, "a"), register(t, s, "b")
	_, n := handIn(t, s, 1, total)
	for round := range rounds {
		leases := [2]postgres.Lease{lease(t, s, a, n, total), lease(t, s, b, n, total)}
		spans := [2][2]int{}
		for i := range spans {
			from := rng.IntN(total)
			spans[i] = [2]int{from, from + 1 + rng.IntN(total-from)}
		}
		differ := rng.IntN(4) == 0
		var errs [2]error
		put := func(i int) {
			output := usual
			if differ && i == 1 {
				output = func(int) string { return "other" }
			}
			_, errs[i] = []*postgres.Worker{a, b}[i].Settle(t.Context(), &postgres.Settlement{
				Lease: leases[i], Seq: int64(round) + 1, Spans: []postgres.Span{spanOf(spans[i][0], spans[i][1], output)}, Done: spans[i][1], Ends: true,
			})
		}
		first := rng.IntN(2)
		if rng.IntN(2) == 0 {
			var both sync.WaitGroup
			both.Go(func() { put(0) })
			both.Go(func() { put(1) })
			both.Wait()
		} else {
			put(first)
			put(1 - first)
		}
		checkUnion(t, s, n, spans, differ, errs, seed, round, total)
	}
}

// lease gives a worker the whole job, whatever others have: by SQL, as a damaged row would.
func lease(t *testing.T, s *postgres.Store, w *postgres.Worker, job, total int) postgres.Lease {
	t.Helper()
	l, err := s.Grant(t.Context(), w, 1, job, 0, total)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func checkUnion(t *testing.T, s *postgres.Store, job int, spans [2][2]int, differ bool, errs [2]error, seed uint64, round, total int) {
	t.Helper()
	overlap := spans[0][0] < spans[1][1] && spans[1][0] < spans[0][1]
	conflicts := 0
	for _, err := range errs {
		if _, ok := errors.AsType[*store.ConflictError](err); ok {
			conflicts++
		} else if err != nil {
			t.Fatalf("seed %d, round %d: %v", seed, round, err)
		}
	}
	if want := differ && overlap; (conflicts > 0) != want {
		t.Fatalf("seed %d, round %d: %v and %v: %d conflicts, want some: %v", seed, round, spans[0], spans[1], conflicts, want)
	}
	covered, twice := s.Covered(t.Context(), job)
	if twice > 0 {
		t.Fatalf("seed %d, round %d: %d chunks are there twice", seed, round, twice)
	}
	if conflicts == 0 {
		var want []int
		for i := range total {
			if i >= spans[0][0] && i < spans[0][1] || i >= spans[1][0] && i < spans[1][1] {
				want = append(want, i)
			}
		}
		if !slices.Equal(covered, want) {
			t.Fatalf("seed %d, round %d: %v of %v and %v are there", seed, round, covered, spans[0], spans[1])
		}
	}
	if err := s.Forget(t.Context(), job); err != nil {
		t.Fatal(err)
	}
}

// TestHintsAreNotTrusted deletes rows about leases and pending spans in the middle of a
// job, or sets them to random values: the job ends all the same.
func TestHintsAreNotTrusted(t *testing.T) {
	for name, sql := range map[string]string{
		"pending is gone":             "delete from pending",
		"slots are gone":              "delete from slots",
		"both are gone":               "delete from pending; delete from slots",
		"all is gone":                 "delete from pending; delete from slots; delete from workers",
		"pending is random":           "update pending set first = (random() * 300)::int - 100, last = (random() * 300)::int - 100",
		"slots are random":            "update slots set first = (random() * 300)::int - 100, last = (random() * 300)::int - 100, done = (random() * 300)::int - 100, key = (random() * 1000)::int, until = now() + random() * interval '50 minutes', job = 1",
		"slots have other counts":     "update slots set seq = 4711, granted_first = 90, granted_last = 95",
		"a slot has a large count":    "insert into slots (worker, slot, seq) select worker, 1, 4711 from slots where slot = 2",
		"slots are of an unknown job": "update slots set job = 4711, until = 'infinity'",
		"spans are doubled":           "insert into pending (job, first, last) select job, first, last from pending; insert into pending (job, first, last) values (1, 0, 100)",
		"half of the packs":           "delete from packs where id % 2 = 0",
		"a byte is flipped":           "update packs set data = set_byte(data, 10, get_byte(data, 10) # 1) where id = (select min(id) from packs)",
		"a byte of a digest":          "update packs set chunks = set_byte(chunks, 10, get_byte(chunks, 10) # 1) where id = (select min(id) from packs)",
		"a byte of a size":            "update packs set heads = set_byte(heads, 10, get_byte(heads, 10) # 1) where id = (select min(id) from packs)",
		"a sum is another":            "update packs set sum = sha256('x') where id = (select min(id) from packs)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.URL(t)
			s, err := postgres.Open(t.Context(), url, postgres.Options{Create: true})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			const total = 100
			id, n := handIn(t, s, 1, total)
			w, other := register(t, s, "w"), register(t, s, "other")
			if _, err := other.Next(t.Context(), 1, postgres.Want{n: 7}, nil); err != nil { // this worker vanishes
				t.Fatal(err)
			}
			for seq := range int64(5) {
				l, err := w.Next(t.Context(), 2, postgres.Want{n: 3}, nil)
				if err != nil {
					t.Fatal(err)
				}
				_, err = w.Settle(t.Context(), &postgres.Settlement{Lease: l, Seq: seq + 1, Spans: []postgres.Span{spanOf(l.First, l.Last, usual)}, Done: l.Last, Ends: true})
				if err != nil {
					t.Fatal(err)
				}
			}
			s.ExecForTest(t, sql)
			if strings.HasPrefix(name, "a byte") || name == "a sum is another" {
				if r, err := s.Check(t.Context()); err != nil || r.Damaged == 0 {
					t.Errorf("%+v, %v", r, err)
				}
			}
			executed := finishJob(t, w, n, 10)
			if executed > total {
				t.Errorf("%d chunks were executed", executed)
			}
			for i, got := range stored(t, s, 1, total) {
				if got != usual(i) {
					t.Fatalf("chunk %d has %q", i, got)
				}
			}
			if p, err := s.Progress(t.Context(), id); err != nil || p.Succeeded != total || p.Conflicts > 0 {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
}

// TestRepeatedRequests makes each request twice, as if its first answer was lost: nothing
// is counted twice, and no chunk is lost.
func TestRepeatedRequests(t *testing.T) {
	s := open(t)
	const total = 50
	id, n := handIn(t, s, 1, total)
	w := register(t, s, "w")
	executed, seq := 0, int64(0)
	failed := false
	for {
		if _, err := w.Next(t.Context(), 1, postgres.Want{n: 5}, nil); err != nil {
			t.Fatal(err)
		}
		l, err := w.Next(t.Context(), 1, postgres.Want{n: 5}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if l.Fold {
			break
		}
		if l.Key == 0 {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		seq++
		settlement := postgres.Settlement{Lease: l, Seq: seq, Spans: []postgres.Span{spanOf(l.First, l.Last, usual)}, Done: l.Last, Ends: true}
		if l.First <= 20 && l.Last > 20 && !failed {
			failed = true
			settlement.Spans = nil
			settlement.Failures = []postgres.Failure{{Chunk: l.First, Class: "trap", Detail: []byte(`{"class":"trap","message":"m"}`)}}
			settlement.Done = l.First + 1
		} else {
			executed += l.Last - l.First
		}
		for range 2 {
			again := settlement
			if _, err := w.Settle(t.Context(), &again); err != nil {
				t.Fatal(err)
			}
		}
	}
	if executed != total {
		t.Errorf("%d chunks were executed", executed)
	}
	attempts := 0
	for a, err := range s.Attempts(t.Context(), id, 0, total) {
		if attempts++; err != nil || a.Final {
			t.Errorf("%+v, %v", a, err)
		}
	}
	if attempts != 1 {
		t.Errorf("%d failed attempts", attempts)
	}
}

// TestForeignLeases makes sure that workers cannot put or read without a lease.
func TestForeignLeases(t *testing.T) {
	s := open(t)
	_, n := handIn(t, s, 1, 100)
	a, b := register(t, s, "a"), register(t, s, "b")
	l, err := a.Next(t.Context(), 1, postgres.Want{n: 10}, nil)
	if err != nil || l.Key == 0 {
		t.Fatal(l, err)
	}
	span := []postgres.Span{spanOf(l.First, l.Last, usual)}
	if _, err := b.Settle(t.Context(), &postgres.Settlement{Lease: l, Seq: 1, Spans: span, Done: l.Last, Ends: true}); !errors.Is(err, postgres.ErrNotHeld) {
		t.Errorf("another's lease: %v", err)
	}
	beyond := []postgres.Span{spanOf(l.First, l.Last+1, usual)}
	if _, err := a.Settle(t.Context(), &postgres.Settlement{Lease: l, Seq: 1, Spans: beyond, Done: l.Last, Ends: true}); !errors.Is(err, postgres.ErrNotHeld) {
		t.Errorf("beyond the lease: %v", err)
	}
	if _, err := a.Segments(t.Context(), l, l.First, l.Last+1); !errors.Is(err, postgres.ErrNotHeld) {
		t.Errorf("input beyond the lease: %v", err)
	}
	if _, err := b.Job(t.Context(), l); !errors.Is(err, postgres.ErrNotHeld) {
		t.Errorf("job of another's lease: %v", err)
	}
	if _, err := a.Failures(t.Context(), l); !errors.Is(err, postgres.ErrUnreachable) {
		t.Errorf("failures without the fold: %v", err)
	}
	if got := stored(t, s, 1, 100); slices.ContainsFunc(got, func(s string) bool { return s != "-" }) {
		t.Errorf("%q", got)
	}
}

// TestPriorities takes leases with one slot, and with a limit.
func TestPriorities(t *testing.T) {
	s := open(t)
	low, lowN := handIn(t, s, 1, 1000)
	high, highN := handIn(t, s, 2, 1000)
	set := func(id store.JobID, priority, most int) {
		if ok, err := s.SetJob(t.Context(), id, &priority, &most); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	set(low, 0, 0)
	set(high, 191, 0)
	w := register(t, s, "w")
	served := map[int]int{}
	for range 300 {
		l, err := w.Next(t.Context(), 1, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		served[l.Job]++
	}
	if served[lowN] < 2 || served[lowN] > 45 || served[highN]+served[lowN] != 300 {
		t.Errorf("the lowest had %d of 300 leases, want about 15", served[lowN])
	}
	set(high, 191, 1)
	other := register(t, s, "other")
	l, err := w.Next(t.Context(), 1, nil, &high)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Beat(t.Context(), []postgres.At{{Slot: 1, Key: l.Key}}); err != nil {
		t.Fatal(err)
	}
	for slot := range 3 {
		if l, err := other.Next(t.Context(), slot+1, nil, &high); err != nil || l.Key != 0 {
			t.Errorf("slot %d: %+v, %v", slot, l, err)
		}
	}
	if state, err := s.SetState(t.Context(), low, "paused"); err != nil || state != "paused" {
		t.Fatal(state, err)
	}
	if l, err := other.Next(t.Context(), 1, nil, &low); err != nil || l.Key != 0 {
		t.Errorf("of a paused job: %+v, %v", l, err)
	}
	if _, err := s.SetState(t.Context(), low, "active"); err != nil {
		t.Fatal(err)
	}
	if l, err := other.Next(t.Context(), 1, nil, &low); err != nil || l.Key == 0 {
		t.Errorf("of a resumed job: %+v, %v", l, err)
	}
	if _, err := s.SetState(t.Context(), low, "cancelled"); err != nil {
		t.Fatal(err)
	}
	held, err := other.Beat(t.Context(), []postgres.At{{Slot: 1, Key: 1}})
	if err != nil || len(held) != 1 || held[0].Goes {
		t.Errorf("%+v, %v", held, err)
	}
}

// TestPoison loses the worker of one chunk again and again: it fails with class lost.
func TestPoison(t *testing.T) {
	s := open(t)
	id, n := handIn(t, s, 1, 10)
	deaths := 0
	w := register(t, s, "w0")
	for seq := int64(1); deaths < 20; seq++ {
		l, err := w.Next(t.Context(), 1, postgres.Want{n: 10}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if l.Fold {
			break
		}
		if l.Key == 0 {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		died := false
		for i := l.First; i < l.Last; i++ {
			if l.Announced {
				if goes, err := w.Announce(t.Context(), l, i); err != nil || !goes {
					t.Fatal(goes, err)
				}
			}
			if i == 6 {
				died = true
				break
			}
		}
		if died { // its lease expires
			deaths++
			s.ExecForTest(t, "update slots set until = now() - interval '1 second' where job is not null")
			w = register(t, s, fmt.Sprint("w", deaths))
			seq = 0
			if _, err := w.Beat(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			continue
		}
		_, err = w.Settle(t.Context(), &postgres.Settlement{Lease: l, Seq: seq, Spans: []postgres.Span{spanOf(l.First, l.Last, usual)}, Done: l.Last, Ends: true})
		if err != nil {
			t.Fatal(err)
		}
	}
	p, err := s.Progress(t.Context(), id)
	if err != nil || p.Failed != 1 || p.Succeeded != 9 || deaths > 4 {
		t.Errorf("%d deaths, %+v, %v", deaths, p, err)
	}
	for a, err := range s.Attempts(t.Context(), id, 0, 10) {
		if err != nil || a.Chunk != 6 || a.Class != "lost" || !a.Final {
			t.Errorf("%+v, %v", a, err)
		}
	}
}

// TestOutputsByNumber reads outputs of a job from any chunk to any other, with packs of
// unequal sizes, one that is damaged and one that is gone.
func TestOutputsByNumber(t *testing.T) {
	s, err := postgres.Open(t.Context(), pgtest.URL(t), postgres.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const total = 60
	_, n := handIn(t, s, 1, total)
	w := register(t, s, "w")
	finishJob(t, w, n, 7)
	in := s.InputOf(n)
	read := func(from, to int) (got []string, err error) {
		for v, err := range in.Outputs(t.Context(), from, to) {
			if err != nil {
				return got, err
			}
			got = append(got, string(v.Output))
		}
		return got, nil
	}
	for from := range total {
		for to := from; to <= total; to += 1 + from%7 {
			got, err := read(from, to)
			if err != nil || len(got) != to-from {
				t.Fatalf("%d to %d: %d outputs, %v", from, to, len(got), err)
			}
			for i := range got {
				if got[i] != usual(from+i) {
					t.Fatalf("%d to %d: %q", from, to, got)
				}
			}
		}
	}
	whole := func(want bool) {
		t.Helper()
		if got, err := in.Whole(t.Context()); err != nil || got != want {
			t.Errorf("whole %v, %v", got, err)
		}
	}
	whole(true)
	s.ExecForTest(t, "update packs set heads = set_byte(heads, 3, 1 # get_byte(heads, 3)) where first <= 20 and first + count > 20")
	if got, err := read(0, total); !errors.Is(err, postgres.ErrGap) || len(got) > 20 {
		t.Errorf("%d outputs, %v with a damaged pack", len(got), err)
	}
	whole(false)
	if got, err := read(30, total); err != nil || len(got) != 30 {
		t.Errorf("%d outputs after the gap, %v", len(got), err)
	}
}
