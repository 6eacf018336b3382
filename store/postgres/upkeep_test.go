package postgres_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// TestUpkeep takes many leases and gives them back: the tables of leases and of pending
// spans stay small, and the rows of slots are updated in place.
func TestUpkeep(t *testing.T) {
	t.Parallel()
	leases := 1000
	if testing.Short() {
		leases = 300
	}
	url := pgtest.Shared(t).Database(t)
	s, err := postgres.Open(t.Context(), url, postgres.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, n := handIn(t, s, 1, 1000)
	w := register(t, s, "w")
	l := next(t, w, 1, postgres.Want{n: 5})
	for seq := int64(1); seq <= int64(leases); seq++ {
		l, err = w.Settle(t.Context(), &postgres.Settlement{Lease: l, Seq: seq, Done: l.First, Ends: true, Next: true, Want: postgres.Want{n: 5}})
		if err != nil || l.Key == 0 {
			t.Fatal(l, err)
		}
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	s.Close() // its sessions report their counts
	for _, table := range []string{"slots", "pending"} {
		var size, updates, hot int64
		for updates == 0 {
			err := conn.QueryRow(t.Context(), `select pg_total_relation_size(relid), n_tup_upd, n_tup_hot_upd from pg_stat_user_tables
				where schemaname = 'wasm_jobs' and relname = $1`, table).Scan(&size, &updates, &hot)
			if err != nil {
				t.Fatal(err)
			}
		}
		if size > 512<<10 || table == "slots" && hot*10 < updates*9 {
			t.Errorf("%s has %d bytes; %d of %d updates in place", table, size, hot, updates)
		}
		t.Logf("%s: %d bytes; %d of %d updates in place", table, size, hot, updates)
	}
}

// TestSpace deletes a job: another job of the same size uses its space.
func TestSpace(t *testing.T) {
	t.Parallel()
	s := open(t)
	size := func() (bytes int64) {
		t.Helper()
		return s.SizeOf(t, "packs")
	}
	fill := func(number byte) store.JobID {
		id, n := handIn(t, s, number, 200)
		w := register(t, s, "w")
		l, err := s.Grant(t.Context(), w, 1, n, 0, 200)
		if err != nil {
			t.Fatal(err)
		}
		large := string(make([]byte, 8<<10))
		for first := 0; first < 200; first += 50 {
			_, err := w.Settle(t.Context(), &postgres.Settlement{
				Lease: l, Seq: int64(first) + 1, Done: first + 50, Ends: first == 150,
				Spans: []postgres.Span{spanOf(first, first+50, func(i int) string { return usual(i) + large })},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		return id
	}
	id := fill(1)
	before := size()
	if err := s.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	s.Vacuum(t)
	fill(2)
	if after := size(); before < 1<<20 || after > before+before/10 {
		t.Errorf("%d bytes, and %d after a job was deleted and another one ran", before, after)
	}
}
