package postgres_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// compactAlways has each heartbeat write the tables of leases again, whatever their size.
func compactAlways(t *testing.T, s *postgres.Store) {
	t.Helper()
	s.ExecForTest(t, `do $do$ declare old text := pg_get_functiondef('compact'::regproc); new text; begin
		new := replace(replace(old, '1048576', '0'), '2048', '0');
		if length(new) <> length(old) - 9 then raise exception 'the limits of compact were not found'; end if;
		execute new;
	end $do$`)
}

// lasting registers a worker whose leases do not expire during a test.
func lasting(t *testing.T, s *postgres.Store, name string) *postgres.Worker {
	t.Helper()
	w, err := s.Register(t.Context(), postgres.WorkerInfo{Name: name, App: "a", Host: "h", Slots: 1, Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// hints returns the rows of the tables of leases but for one worker's, and the files of the tables.
func hints(t *testing.T, url, but string) (rows, files string) {
	t.Helper()
	err := connection(t, url).QueryRow(t.Context(), `select string_agg(x, e'\n' order by x), (select string_agg(pg_relation_filepath('wasm_jobs.' || n), ' ') from unnest('{workers,slots,pending}'::text[]) n)
		from (select w::text x from wasm_jobs.workers w where name <> $1 union all select s::text from wasm_jobs.slots s union all select p::text from wasm_jobs.pending p) r`, but).Scan(&rows, &files)
	if err != nil {
		t.Fatal(err)
	}
	return rows, files
}

// bloat leaves dead rows in the tables of leases.
const bloat = `insert into slots (worker, slot) select -i, 1 from generate_series(1, 4000) i; delete from slots where worker < 0;
	insert into pending (job, first, last) select -1, 1, 2 from generate_series(1, 4000); delete from pending where job < 0;
	insert into workers (token, name, app, host, pid, engine, slots, lease_ms) select i::text::bytea, 'dead', '', '', 1, '', 1, 1 from generate_series(1, 4000) i; delete from workers where name = 'dead'`

// TestCompact fills the tables of leases with dead rows while the transaction of another
// session is open. The next heartbeat makes the tables small, and each row stays as it is.
// It leaves the tables as they are if nearly all rows live, or if another session uses them.
func TestCompact(t *testing.T) {
	t.Parallel()
	url := pgtest.Shared(t).Database(t)
	s, err := postgres.Open(t.Context(), url, postgres.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, n := handIn(t, s, 1, 1000)
	w, beater := lasting(t, s, "w"), register(t, s, "beater")
	l := next(t, w, 1, postgres.Want{n: 5})
	s.ExecForTest(t, "update pending set announced = true, due = now() where first > 500; update slots set announced = true, at = first")
	openTransaction(t, url)
	rows, files := hints(t, url, "beater")
	beat := func() {
		t.Helper()
		if _, err := beater.Beat(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	stays := func(what string, compacted bool) {
		t.Helper()
		beat()
		got, now := hints(t, url, "beater")
		if got != rows || (now != files) != compacted {
			t.Fatalf("%s: compacted %t, want %t; the same rows: %t", what, now != files, compacted, got == rows)
		}
		files = now
	}
	stays("the tables are small", false)
	s.ExecForTest(t, bloat)
	free := lockForReading(t, url)
	stays("another session uses a table", false)
	free()
	stays("it was in use a moment ago", false)
	s.ExecForTest(t, "update meta set compact_after = now()")
	stays("the tables are large", true)
	for _, table := range []string{"workers", "slots", "pending"} {
		if size := s.SizeOf(t, table); size > 256<<10 {
			t.Errorf("%s has %d bytes", table, size)
		}
	}
	settle(t, w, l, 1)
	s.ExecForTest(t, "insert into pending (job, first, last) select -1, 1, 2 from generate_series(1, 15000)")
	rows, _ = hints(t, url, "beater")
	stays("all rows live", false)
	if s.SizeOf(t, "pending") < 2<<20 {
		t.Error("the table is too small for this test")
	}
}

// lockForReading reads the slots in a transaction of another session, as a backup does, until
// free is called.
func lockForReading(t *testing.T, url string) (free func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err == nil {
		_, err = conn.Exec(t.Context(), "begin; select from wasm_jobs.slots")
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() { conn.Close(context.WithoutCancel(t.Context())) }
}

// beats has the heart of a worker beat until stop is called.
func beats(t *testing.T, s *postgres.Store) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var beating sync.WaitGroup
	w := register(t, s, "beater")
	beating.Go(func() {
		for ctx.Err() == nil {
			if _, err := w.Beat(ctx, nil); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	return func() {
		cancel()
		beating.Wait()
	}
}

// TestCompactIsNotSeen reads a lease in all ways while the tables are written again and again:
// it is always there, and a job that begins again leaves its chunks out.
func TestCompactIsNotSeen(t *testing.T) {
	t.Parallel()
	url := pgtest.Shared(t).Database(t)
	s, err := postgres.Open(t.Context(), url, postgres.Options{Create: true, Connections: 8})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	id, n := handIn(t, s, 1, 1000)
	w := lasting(t, s, "w")
	l := next(t, w, 1, postgres.Want{n: 5})
	compactAlways(t, s)
	_, before := hints(t, url, "")
	defer beats(t, s)()
	conn := connection(t, url)
	for look := range 15 {
		m, err := s.MomentOf(t.Context(), id)
		if err != nil || len(m.Active) != 1 || m.Active[0].From != l.First {
			t.Fatalf("look %d: %+v, %v", look, m, err)
		}
		p, err := s.Progress(t.Context(), id)
		if err != nil || p.Active != 1 || p.Workers != 2 {
			t.Fatalf("look %d: %+v, %v", look, p, err)
		}
		c, err := s.ChunkOf(t.Context(), id, l.First)
		if err != nil || c.Deadline == nil {
			t.Fatalf("look %d: %+v, %v", look, c, err)
		}
		var leases, busy, queued, wanted, overlaps int
		err = conn.QueryRow(t.Context(), "select (select count(*) from wasm_jobs.leases_v), busy, queued_chunks from wasm_jobs.scale_v").Scan(&leases, &busy, &queued)
		if err != nil || leases != 1 || busy != 1 || queued != 1000-l.Last+l.First {
			t.Fatalf("look %d: %d leases, %d busy, %d queued, %v", look, leases, busy, queued, err)
		}
		for range 20 {
			if err := conn.QueryRow(t.Context(), "select wasm_jobs.wanted_workers(1)").Scan(&wanted); err != nil || wanted != queued {
				t.Fatalf("look %d: %d workers are wanted, want %d, %v", look, wanted, queued, err)
			}
		}
		s.ExecForTest(t, fmt.Sprintf("select spread(%d)", n))
		err = conn.QueryRow(t.Context(), "select count(*) from wasm_jobs.pending where first < $2 and last > $1", l.First, l.Last).Scan(&overlaps)
		if err != nil || overlaps > 0 {
			t.Fatalf("look %d: chunks of the lease are pending, %v", look, err)
		}
	}
	if _, after := hints(t, url, ""); after == before {
		t.Error("the tables were never written again")
	}
	if held, err := w.Beat(t.Context(), []postgres.At{{Slot: 1, Key: l.Key, Done: l.First}}); err != nil || !held[0].Goes {
		t.Errorf("%+v, %v", held, err)
	}
	settle(t, w, l, 1)
}
