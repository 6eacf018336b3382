package postgres_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// next asks for a lease on chunks.
func next(t *testing.T, w *postgres.Worker, slot int, want postgres.Want) postgres.Lease {
	t.Helper()
	l, err := w.Next(t.Context(), slot, want, nil)
	if err != nil || l.Key == 0 || l.Fold {
		t.Fatalf("slot %d: %+v, %v", slot, l, err)
	}
	return l
}

// TestResumeKeepsLeases pauses and resumes a job while a lease runs: its chunks are not
// leased again.
func TestResumeKeepsLeases(t *testing.T) {
	for _, state := range []string{"paused", "cancelled"} {
		t.Run(state, func(t *testing.T) {
			s := open(t)
			const total = 20
			id, n := handIn(t, s, 1, total)
			w, other := register(t, s, "w"), register(t, s, "other")
			held := next(t, w, 1, postgres.Want{n: 5})
			for _, to := range []string{state, "active"} {
				if now, err := s.SetState(t.Context(), id, to); err != nil || now != to {
					t.Fatal(now, err)
				}
			}
			if _, err := w.Beat(t.Context(), []postgres.At{{Slot: 1, Key: held.Key, Done: held.First}}); err != nil {
				t.Fatal(err)
			}
			var chunks []int
			for seq := int64(1); len(chunks) < total-(held.Last-held.First); seq++ {
				l := next(t, other, 1, postgres.Want{n: total})
				for i := l.First; i < l.Last; i++ {
					chunks = append(chunks, i)
				}
				_, err := other.Settle(t.Context(), &postgres.Settlement{Lease: l, Seq: seq, Spans: []postgres.Span{spanOf(l.First, l.Last, usual)}, Done: l.Last, Ends: true})
				if err != nil {
					t.Fatal(err)
				}
			}
			for i := held.First; i < held.Last; i++ {
				if slices.Contains(chunks, i) {
					t.Errorf("chunk %d of a lease that goes on was leased again", i)
				}
			}
		})
	}
}

// TestGrantedWhileLeaving has a lease that was granted while its worker left: the answer
// came too late to give it back. It is not lost, and its chunk is not suspected.
func TestGrantedWhileLeaving(t *testing.T) {
	s := open(t)
	id, n := handIn(t, s, 1, 1)
	w, other := register(t, s, "w"), register(t, s, "other")
	held := next(t, w, 1, postgres.Want{n: 1})
	s.ExecForTest(t, "update workers set gone = true where name = 'w'")
	if _, err := other.Beat(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	again := next(t, other, 1, postgres.Want{n: 1})
	p, err := s.Progress(t.Context(), id)
	if err != nil || p.Leases.Expired > 0 || p.Leases.Returned != 1 || again.First != held.First || again.Announced {
		t.Errorf("%+v, %v, %+v", p, err, again)
	}
}

// TestUnnamed has a worker that did not learn of a lease in time: the lease counts as expired,
// because the worker may still execute it when it learns, but its chunk is not suspected.
func TestUnnamed(t *testing.T) {
	s := open(t)
	id, n := handIn(t, s, 1, 1)
	w, other := register(t, s, "w"), register(t, s, "other")
	held := next(t, w, 1, postgres.Want{n: 1})
	s.ExecForTest(t, "update slots set since = now() - interval '6 seconds'")
	if _, err := w.Beat(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	again := next(t, other, 1, postgres.Want{n: 1})
	p, err := s.Progress(t.Context(), id)
	if err != nil || p.Leases.Expired != 1 || p.Leases.Returned > 0 || again.First != held.First || again.Announced {
		t.Errorf("%+v, %v, %+v", p, err, again)
	}
	if c, err := s.ChunkOf(t.Context(), id, 0); err != nil || c.Losses > 0 {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestLeavingTells waits for work while a worker stops: the chunks that it gives back are
// told at once.
func TestLeavingTells(t *testing.T) {
	s := open(t)
	_, n := handIn(t, s, 1, 2)
	w := register(t, s, "w")
	next(t, w, 1, postgres.Want{n: 2})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := s.WaitForWork(ctx, time.Hour, func(ctx context.Context) bool {
		if err := w.Leave(ctx); err != nil {
			t.Error(err)
		}
		return false
	})
	if err != nil {
		t.Errorf("nothing was told: %v", err)
	}
}

// TestRenewAfterOutage makes a lease overdue, as an outage of the server does: the first
// heartbeat of its worker renews it, and nothing counts as lost.
func TestRenewAfterOutage(t *testing.T) {
	s := open(t)
	id, n := handIn(t, s, 1, 10)
	w := register(t, s, "w")
	held := next(t, w, 1, postgres.Want{n: 1})
	s.ExecForTest(t, "update slots set until = now() - interval '1 minute'; update workers set seen = now() - interval '1 minute'")
	got, err := w.Beat(t.Context(), []postgres.At{{Slot: 1, Key: held.Key, Done: held.First}})
	if err != nil || len(got) != 1 || !got[0].Goes || got[0].Last != held.Last {
		t.Errorf("%+v, %v", got, err)
	}
	p, err := s.Progress(t.Context(), id)
	if err != nil || p.Leases.Expired > 0 || p.Active != 1 {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestBeatWhileSettling sends heartbeats while the row of a slot is locked, as by a
// settlement that waits for the disk: the heartbeat does not wait, and the lease goes on.
func TestBeatWhileSettling(t *testing.T) {
	s := open(t)
	_, n := handIn(t, s, 1, 10)
	w := register(t, s, "w")
	held := next(t, w, 1, postgres.Want{n: 1})
	free := s.LockSlots(t)
	defer free()
	got, err := w.Beat(t.Context(), []postgres.At{{Slot: 1, Key: held.Key, Done: held.First}})
	if err != nil || len(got) != 1 || !got[0].Goes {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestSettleTwiceAtOnce sends one settlement twice at the same time, as after a request
// that took too long: its failure counts once.
func TestSettleTwiceAtOnce(t *testing.T) {
	s := open(t)
	id, n := handIn(t, s, 1, 30)
	w := register(t, s, "w")
	for seq := int64(1); seq <= 3; seq++ {
		l := next(t, w, 1, postgres.Want{n: 1})
		settlement := postgres.Settlement{
			Lease: l, Seq: seq, Done: l.Last, Ends: true,
			Failures: []postgres.Failure{{Chunk: l.First, Class: "trap", Detail: []byte(`{"class":"trap","message":"m"}`)}},
		}
		var both sync.WaitGroup
		free := s.LockSlots(t)
		for range 2 {
			again := settlement
			both.Go(func() {
				if _, err := w.Settle(t.Context(), &again); err != nil {
					t.Error(err)
				}
			})
		}
		s.AwaitBlocked(t, 2)
		free()
		both.Wait()
	}
	attempts := 0
	for _, err := range s.Attempts(t.Context(), id, 0, 30) {
		if err != nil {
			t.Fatal(err)
		}
		attempts++
	}
	if attempts != 3 {
		t.Errorf("%d attempts are recorded, want 3", attempts)
	}
}

// TestUnwantedJob takes no lease of a job that the worker cannot execute now.
func TestUnwantedJob(t *testing.T) {
	s := open(t)
	_, first := handIn(t, s, 1, 10)
	_, second := handIn(t, s, 2, 10)
	w := register(t, s, "w")
	if l := next(t, w, 1, postgres.Want{first: 0}); l.Job != second {
		t.Errorf("%+v", l)
	}
	if l, err := w.Next(t.Context(), 1, postgres.Want{first: 0, second: 0}, nil); err != nil || l.Key != 0 {
		t.Errorf("%+v, %v", l, err)
	}
}

// TestBlobs keeps bytes that were first only in a shared directory, and rejects a job
// whose input was deleted while it was sent.
func TestBlobs(t *testing.T) {
	s := open(t)
	d := store.Digest(sha256.Sum256([]byte("abc")))
	if err := s.PutBlob(t.Context(), d, 3, nil); err != nil {
		t.Fatal(err)
	}
	if missing, err := s.Missing(t.Context(), []store.Digest{d}); err != nil || !missing[d] {
		t.Errorf("bytes that only the directory has: %v, %v", missing, err)
	}
	for _, b := range []string{"abd", "abc"} { // the first one as if it was damaged later
		if err := s.PutBlob(t.Context(), d, 3, []byte(b)); err != nil {
			t.Fatal(err)
		}
		if missing, err := s.Missing(t.Context(), []store.Digest{d}); err != nil || missing[d] != (b == "abd") {
			t.Errorf("%s: %v, %v", b, missing, err)
		}
	}
	in, err := s.Submit(t.Context(), &postgres.SharedJob{
		JobRecord: store.JobRecord{ID: store.JobID{9}, Action: store.Action{9}, Total: 1, Spec: []byte(`{}`)}, Classes: []string{}, Info: []byte(`{}`),
	}, func(func([]byte) bool) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddSegments(t.Context(), in.Number, []postgres.Segment{{First: 0, Count: 1, Digest: store.Digest{2}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Activate(t.Context(), in.Number, 0, 0); err == nil || !strings.Contains(err.Error(), "was deleted meanwhile") {
		t.Errorf("a missing segment: %v", err)
	}
}

// TestFoldLost loses the lease on a fold: its store says so, and not that the database
// failed.
func TestFoldLost(t *testing.T) {
	s := open(t)
	_, n := handIn(t, s, 1, 3)
	w := register(t, s, "w")
	finishJob(t, w, n, 3)
	l, err := w.Next(t.Context(), 1, nil, nil)
	for deadline := time.Now().Add(10 * time.Second); err == nil && !l.Fold && time.Now().Before(deadline); {
		l, err = w.Next(t.Context(), 1, nil, nil)
	}
	if err != nil || !l.Fold {
		t.Fatalf("%+v, %v", l, err)
	}
	outputs := w.Outputs(l)
	s.ExecForTest(t, "delete from slots")
	err = outputs.Get(t.Context(), store.Action{1}, []store.Key{chunkRecord(0, "").Key}, func(int, store.Value) error { return nil })
	if !errors.Is(err, postgres.ErrNotHeld) {
		t.Errorf("without the lease: %v", err)
	}
}

// TestRenewAfterFailover promotes a standby when all leases are long over: the first worker
// that reaches it does not end the leases of another, which then renews them.
func TestRenewAfterFailover(t *testing.T) {
	primary := pgtest.Start(t, false)
	s, err := postgres.Open(t.Context(), primary.URL("postgres"), postgres.Options{Create: true, Connections: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, n := handIn(t, s, 1, 1)
	w, other := register(t, s, "w"), register(t, s, "other")
	held := next(t, w, 1, postgres.Want{n: 1})
	standby := primary.Standby(t)
	// since: a slow chunk would be leased a second time
	pgtest.Exec(t, primary.URL("postgres"), "update wasm_jobs.slots set until = now() - interval '1 hour', since = now() + interval '1 hour'; update wasm_jobs.workers set seen = now() - interval '1 hour', lease_ms = 600000")
	ready := "select 1 / (count(*) filter (where seen < now() - interval '30 minutes' and now() > pg_postmaster_start_time() + interval '3 seconds'))::int from wasm_jobs.workers"
	for codeFor(t, standby.URL("postgres"), ready) != "" {
		runtime.Gosched()
	}
	primary.Kill()
	standby.Promote(t)
	after, err := postgres.Open(t.Context(), standby.URL("postgres"), postgres.Options{Connections: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	if _, err := other.On(after).Beat(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if l, err := other.On(after).Next(t.Context(), 1, postgres.Want{n: 1}, nil); err != nil || l.Key != 0 {
		t.Errorf("another worker gets %+v, %v", l, err)
	}
	renewed, err := w.On(after).Beat(t.Context(), []postgres.At{{Slot: 1, Key: held.Key, Done: held.First}})
	if err != nil || len(renewed) != 1 || !renewed[0].Goes {
		t.Errorf("%+v, %v", renewed, err)
	}
}
