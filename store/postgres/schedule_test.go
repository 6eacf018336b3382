package postgres_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// settle puts all outputs of a lease.
func settle(t *testing.T, w *postgres.Worker, l postgres.Lease, seq int64) {
	t.Helper()
	_, err := w.Settle(t.Context(), &postgres.Settlement{
		Lease: l, Seq: seq, Spans: []postgres.Span{spanOf(l.First, l.Last, usual)}, Done: l.Last, Ends: true, Executed: l.Last - l.First,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestEqualJobs gives the leases of one slot, and of three, to two jobs of the same
// priority: both have half of them.
func TestEqualJobs(t *testing.T) {
	t.Parallel()
	for _, slots := range []int{1, 3} {
		t.Run(fmt.Sprint(slots, " slots"), func(t *testing.T) {
			s := open(t)
			const leases = 200
			handIn(t, s, 1, leases)
			handIn(t, s, 2, leases)
			w := register(t, s, "w")
			served := map[int]int{}
			for i := range leases {
				l := next(t, w, 1+i%slots, nil)
				served[l.Job]++
				settle(t, w, l, int64(i/slots)+1)
			}
			if len(served) != 2 || slices.Min([]int{served[1], served[2]}) < leases*85/200 {
				t.Errorf("%v of %d leases", served, leases)
			}
		})
	}
}

// TestNextIsTheHighest submits a job of a higher priority while one slot works: it has the
// next lease, but for one in twenty.
func TestNextIsTheHighest(t *testing.T) {
	t.Parallel()
	s := open(t)
	first := 0
	for round := range 20 {
		low, _ := handIn(t, s, byte(2*round+1), 5)
		w := register(t, s, fmt.Sprint("w", round))
		settle(t, w, next(t, w, 1, nil), 1)
		high, n := handIn(t, s, byte(2*round+2), 5)
		priority := 191
		if ok, err := s.SetJob(t.Context(), high, &priority, nil); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if l := next(t, w, 1, nil); l.Job == n {
			first++
		}
		for _, id := range []store.JobID{low, high} {
			if _, err := s.SetState(t.Context(), id, "cancelled"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if first < 14 {
		t.Errorf("the job of the higher priority was next in %d of 20 cases", first)
	}
}

// TestMaxConcurrency has eight workers ask at once for the leases of a job that may have
// one at a time: its events never have two, and each chunk is leased once. The same holds while
// each heartbeat writes the tables of leases again.
func TestMaxConcurrency(t *testing.T) {
	t.Parallel()
	for _, compacted := range []bool{false, true} {
		t.Run(fmt.Sprint("tables are written again ", compacted), func(t *testing.T) {
			s := open(t)
			chunks := 500
			if testing.Short() || compacted {
				chunks = 50
			}
			id, n := handIn(t, s, 1, chunks)
			one := 1
			if ok, err := s.SetJob(t.Context(), id, nil, &one); !ok || err != nil {
				t.Fatal(ok, err)
			}
			if compacted {
				compactAlways(t, s)
			}
			var all sync.WaitGroup
			for i := range 8 {
				w := lasting(t, s, fmt.Sprint("w", i))
				all.Go(func() { settleOneByOne(t, s, w, id, chunks, compacted) })
			}
			all.Wait()
			checkOneAtATime(t, s, n, chunks)
		})
	}
}

// settleOneByOne settles leases until all chunks of a job succeeded.
func settleOneByOne(t *testing.T, s *postgres.Store, w *postgres.Worker, id store.JobID, chunks int, beats bool) {
	for seq := int64(1); t.Context().Err() == nil; seq++ {
		l, err := w.Next(t.Context(), 1, nil, nil)
		if err != nil {
			t.Error(err)
			return
		}
		if l.Fold {
			return
		}
		if p, err := s.Progress(t.Context(), id); err != nil || p.Succeeded == chunks {
			return // another worker has the fold
		}
		if l.Key == 0 {
			continue
		}
		if beats {
			held, err := w.Beat(t.Context(), []postgres.At{{Slot: 1, Key: l.Key, Done: l.First}})
			if err != nil || !held[0].Goes {
				t.Errorf("%+v, %v", held, err)
				return
			}
		}
		settle(t, w, l, seq)
	}
}

// checkOneAtATime checks the events of a job, of which each lease had one chunk.
func checkOneAtATime(t *testing.T, s *postgres.Store, job, chunks int) {
	t.Helper()
	running, leased := 0, map[int]bool{}
	for after := int64(0); ; {
		events, err := s.Events(t.Context(), job, after)
		if err != nil {
			t.Fatal(err)
		}
		if len(events) == 0 {
			break
		}
		for _, e := range events {
			switch after = e.N; e.Kind {
			case "leased":
				running++
				if leased[e.First] {
					t.Errorf("chunk %d was leased twice", e.First)
				}
				leased[e.First] = true
			case "lease_ended":
				running--
			default:
				t.Errorf("%+v", e)
			}
			if running > 1 {
				t.Fatalf("two leases at once after %d leases: %+v", len(leased), e)
			}
		}
	}
	if len(leased) != chunks {
		t.Errorf("%d leases of one chunk for %d chunks", len(leased), chunks)
	}
}

// age makes leases as old as if they ran for some time.
func age(t *testing.T, s *postgres.Store) {
	t.Helper()
	s.ExecForTest(t, "update slots set since = since - interval '1 minute' where job is not null")
}

// TestSteal takes half of the rest of a slow lease, for another worker and for another slot
// of the same one. The holder learns of it with its next heartbeat.
func TestSteal(t *testing.T) {
	t.Parallel()
	s := open(t)
	id, n := handIn(t, s, 1, 64)
	s.ExecForTest(t, "update pending set first = 0, last = 64 where n = (select min(n) from pending); delete from pending where n > (select min(n) from pending)")
	w, other := register(t, s, "w"), register(t, s, "other")
	slow := next(t, w, 1, postgres.Want{n: 1000})
	for slow.Last-slow.First < 16 && slow.Last < 64 { // leases become smaller towards the end
		settle(t, w, slow, int64(slow.Last))
		slow = next(t, w, 1, postgres.Want{n: 1000})
	}
	s.ExecForTest(t, fmt.Sprintf("delete from pending; update slots set last = 64, granted_last = 64, first = %d, done = %d where job is not null", slow.First, slow.First+4))
	slow.Last = 64
	age(t, s)
	if _, err := w.Beat(t.Context(), []postgres.At{{Slot: 1, Key: slow.Key, Done: slow.First + 4}}); err != nil {
		t.Fatal(err)
	}
	half := next(t, other, 1, nil)
	if want := slow.First + 4 + (64-slow.First-4+1)/2; half.First != want || half.Last != 64 {
		t.Errorf("stolen %v of %v, want from %d", half, slow, want)
	}
	held, err := w.Beat(t.Context(), []postgres.At{{Slot: 1, Key: slow.Key, Done: slow.First + 4}})
	if err != nil || len(held) != 1 || !held[0].Goes || held[0].Last != half.First {
		t.Errorf("%+v, %v", held, err)
	}
	age(t, s)
	if quarter := next(t, w, 2, nil); quarter.First <= slow.First || quarter.Last > 64 {
		t.Errorf("another slot of the same worker has %v", quarter)
	}
	p, err := s.Progress(t.Context(), id)
	if err != nil || p.Leases.Stolen != 2 {
		t.Errorf("%+v, %v", p.Leases, err)
	}
}

// TestDuplicate leases the last chunk, which is slow, to a second worker, and never to a
// third one. The first output stays, and the chunk is executed at most twice.
func TestDuplicate(t *testing.T) {
	t.Parallel()
	s := open(t)
	id, _ := handIn(t, s, 1, 1)
	a, b, c := register(t, s, "a"), register(t, s, "b"), register(t, s, "c")
	first := next(t, a, 1, nil)
	if l, err := b.Next(t.Context(), 1, nil, nil); err != nil || l.Key != 0 {
		t.Errorf("of a chunk that is not slow yet: %+v, %v", l, err)
	}
	age(t, s)
	if l, err := a.Next(t.Context(), 2, nil, nil); err != nil || l.Key != 0 {
		t.Errorf("the same worker: %+v, %v", l, err)
	}
	second := next(t, b, 1, nil)
	age(t, s)
	if l, err := c.Next(t.Context(), 1, nil, nil); err != nil || l.Key != 0 {
		t.Errorf("a third worker: %+v, %v", l, err)
	}
	settle(t, b, second, 1)
	settle(t, a, first, 1)
	p, err := s.Progress(t.Context(), id)
	if err != nil || p.Leases.Duplicated != 1 || p.Succeeded != 1 || p.Conflicts > 0 || p.Executions != 2 {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestManyPoisoned loses the workers of three chunks of a thousand: exactly these fail, each
// after at most four deaths.
func TestManyPoisoned(t *testing.T) {
	t.Parallel()
	s := open(t)
	const total = 1000
	poison := []int{6, 500, 501}
	id, n := handIn(t, s, 1, total)
	deaths := map[int]int{}
	w := register(t, s, "w")
	if _, err := w.Beat(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	s.ExecForTest(t, "update meta set since = since - interval '1 hour'") // no lease expires right after the server's start
	for seq := int64(1); ; seq++ {
		l, err := w.Next(t.Context(), 1, postgres.Want{n: 100}, nil)
		if err != nil || l.Key == 0 || len(deaths) > 0 && slices.Max([]int{deaths[6], deaths[500], deaths[501]}) > 10 {
			t.Fatalf("%v, %v, %v", l, err, deaths)
		}
		if l.Fold {
			break
		}
		died := -1
		for i := l.First; i < l.Last && died < 0; i++ {
			if l.Announced {
				if goes, err := w.Announce(t.Context(), l, i); err != nil || !goes {
					t.Fatal(goes, err)
				}
			}
			if slices.Contains(poison, i) {
				died = i
			}
		}
		if died < 0 {
			settle(t, w, l, seq)
			continue
		}
		deaths[died]++
		s.ExecForTest(t, "update slots set until = now() - interval '1 second' where job is not null")
		w, seq = register(t, s, fmt.Sprint("w", len(deaths), deaths[died])), 0
		if _, err := w.Beat(t.Context(), nil); err != nil { // ends leases that have expired
			t.Fatal(err)
		}
	}
	p, err := s.Progress(t.Context(), id)
	if err != nil || p.Failed != len(poison) || p.Succeeded != total-len(poison) {
		t.Errorf("%+v, %v", p, err)
	}
	for _, chunk := range poison {
		if deaths[chunk] > 4 {
			t.Errorf("%d workers died of chunk %d", deaths[chunk], chunk)
		}
	}
	for a, err := range s.Attempts(t.Context(), id, 0, total) {
		if err != nil || a.Class != "lost" || !a.Final || !slices.Contains(poison, a.Chunk) {
			t.Errorf("%+v, %v", a, err)
		}
	}
	t.Log(deaths)
}

// TestFoldWantsWorkers ends all workers when only the fold of a job is left: a worker is wanted
// for it, and none when the job is over.
func TestFoldWantsWorkers(t *testing.T) {
	url := pgtest.URL(t)
	s, err := postgres.Open(t.Context(), url, postgres.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	wanted := func(n int) {
		t.Helper()
		check := fmt.Sprintf("do $$ begin assert (select wanted_workers from wasm_jobs.scale_v) = %d; end $$", n)
		if code := codeFor(t, url, check); code != "" {
			t.Errorf("%d workers are not wanted: %s", n, code)
		}
	}
	wanted(0)
	_, n := handIn(t, s, 1, 10)
	w := register(t, s, "w")
	finishJob(t, w, n, 10)
	if err := w.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	wanted(1)
	w = register(t, s, "another")
	l, err := w.Next(t.Context(), 1, nil, nil)
	if err != nil || !l.Fold {
		t.Fatalf("%+v, %v, want the fold", l, err)
	}
	wanted(1)
	if ended, err := w.Finish(t.Context(), l, "succeeded", "", nil); err != nil || !ended {
		t.Fatal(ended, err)
	}
	wanted(0)
}
