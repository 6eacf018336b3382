package postgres

import (
	"context"
	"runtime"
	"testing"

	"github.com/jackc/pgx/v5"
)

// ExecForTest executes SQL with the schema's tables.
func (s *Store) ExecForTest(t *testing.T, sql string) {
	t.Helper()
	err := s.inTx(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "set local search_path = \""+s.schema+"\""); err != nil {
			return err
		}
		_, err := tx.Conn().PgConn().Exec(ctx, sql).ReadAll()
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Grant gives a worker a lease on chunks, whatever others have.
func (s *Store) Grant(ctx context.Context, w *Worker, slot, job, first, last int) (Lease, error) {
	l := Lease{Slot: slot, Job: job, First: first, Last: last}
	err := s.one(ctx, `insert into $.slots (worker, slot, key, job, first, last, done, granted_job, granted_first, granted_last, since, until)
		values ($1, $2, nextval('$.keys'), $3, $4, $5, $4, $3, $4, $5, now(), now() + interval '1 minute')
		on conflict (worker, slot) do update set key = excluded.key, job = excluded.job, first = excluded.first, last = excluded.last, done = excluded.done,
			granted_job = excluded.granted_job, granted_first = excluded.granted_first, granted_last = excluded.granted_last, until = excluded.until returning key`,
		[]any{w.id, slot, job, first, last}, &l.Key)
	return l, err
}

// Covered returns the chunks of a job that packs have, and the number of chunks that are
// in two packs.
func (s *Store) Covered(ctx context.Context, job int) (covered []int, twice int) {
	all, err := rows(ctx, s, "select i, count(*)::int from $.packs p, lateral generate_series(p.first, p.first + p.count - 1) i where p.job = $1 group by i order by i",
		func(r pgx.Rows) (c [2]int, err error) {
			err = r.Scan(&c[0], &c[1])
			return c, err
		}, job)
	if err != nil {
		panic(err)
	}
	for _, c := range all {
		covered = append(covered, c[0])
		twice += c[1] - 1
	}
	return covered, twice
}

// Forget removes the outputs of a job.
func (s *Store) Forget(ctx context.Context, job int) error {
	return s.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, s.sql("delete from $.packs where job = $1"), job)
		return err
	})
}

// AwaitBlocked waits until n requests wait for locks.
func (s *Store) AwaitBlocked(t *testing.T, n int) {
	t.Helper()
	for blocked := 0; blocked < n; runtime.Gosched() {
		err := s.one(t.Context(), "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'", nil, &blocked)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// LockSlots locks all slots in a transaction, until free is called.
func (s *Store) LockSlots(t *testing.T) (free func()) {
	t.Helper()
	c, err := s.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tx, err := c.Begin(t.Context())
	if err == nil {
		_, err = tx.Exec(t.Context(), s.sql("select from $.slots for update"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = tx.Rollback(context.WithoutCancel(t.Context()))
		c.Release()
	}
}

// SizeOf returns the bytes of a table with all that belongs to it.
func (s *Store) SizeOf(t *testing.T, table string) (bytes int64) {
	t.Helper()
	if err := s.one(t.Context(), "select pg_total_relation_size(to_regclass($1))", []any{`"` + s.schema + `".` + table}, &bytes); err != nil {
		t.Fatal(err)
	}
	return bytes
}

// Vacuum does what autovacuum does later.
func (s *Store) Vacuum(t *testing.T) {
	t.Helper()
	err := s.do(t.Context(), func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, s.sql("vacuum $.packs"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// On returns the same worker with another connection to the database.
func (w *Worker) On(s *Store) *Worker {
	return &Worker{store: s, info: w.info, id: w.id, token: w.token}
}
