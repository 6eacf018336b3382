package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// Delete implements [store.Journal]. It reads the packs of the action under the lock
// of the action, and rewrites packs that also have outputs of other jobs.
func (s *Store) Delete(ctx context.Context, job store.JobID) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	err := s.inTx(transfers(ctx, anyTime), func(ctx context.Context, tx pgx.Tx) error {
		d := &deletion{Store: s, tx: tx}
		var derived [][]byte
		err := tx.QueryRow(ctx, s.sql("select n, action, derived, input from $.jobs where id = $1 for update"), job[:]).Scan(&d.job, &d.action, &derived, &d.input)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1, $2)", lockAction, d.action); err != nil {
			return err
		}
		return errors.Join(d.outputs(ctx, derived), d.records(ctx))
	})
	if err == nil {
		s.mu.Lock()
		s.indexes = map[store.Action]*index{}
		s.mu.Unlock()
	}
	return err
}

type deletion struct {
	*Store
	tx          pgx.Tx
	job, action int
	input       []byte
}

// records removes the rows of the job.
func (d *deletion) records(ctx context.Context) error {
	for _, table := range []string{"spans", "folds", "runs", "ids", "attempts", "segments", "files", "pending", "histories", "events"} {
		if _, err := d.tx.Exec(ctx, d.sql("delete from $."+table+" where job = $1"), d.job); err != nil {
			return err
		}
	}
	_, err := d.tx.Exec(ctx, d.sql("delete from $.jobs where n = $1"), d.job)
	if err != nil {
		return err
	}
	_, err = d.tx.Exec(ctx, d.sql(`delete from $.blobs b where not exists (select from $.segments g where g.digest = b.digest)
		and not exists (select from $.files f where f.digest = b.digest) and b.made < now() - interval '1 hour'`))
	return err
}

// outputs removes the outputs that no other job has.
func (d *deletion) outputs(ctx context.Context, derived [][]byte) error {
	var shared bool
	err := d.tx.QueryRow(ctx, d.sql("select exists (select from $.jobs where action = $1 and n <> $2)"), d.action, d.job).Scan(&shared)
	if err != nil {
		return err
	}
	if !shared {
		_, err := d.tx.Exec(ctx, d.sql("delete from $.packs where action = $1 or action in (select id from $.actions where digest = any($2))"), d.action, derived)
		return err
	}
	gone := map[store.Digest]bool{}
	if err := d.chunks(ctx, "s.job = $1", gone, true); err != nil {
		return err
	}
	if err := d.chunks(ctx, "s.job <> $1 and s.job in (select n from $.jobs where action = $2)", gone, false, d.action); err != nil {
		return err
	}
	if err := d.rewrite(ctx, "action = $1", gone, d.action); err != nil {
		return err
	}
	return d.rewrite(ctx, "action in (select id from $.actions where digest = any($1))", map[store.Digest]bool{digestOf(d.input): true}, derived)
}

// chunks adds the chunks of spans to a set, or removes them from it.
func (d *deletion) chunks(ctx context.Context, where string, set map[store.Digest]bool, add bool, args ...any) error {
	r, err := d.tx.Query(ctx, d.sql("select "+spanColumns+" where "+where), append([]any{d.job}, args...)...)
	if err != nil {
		return err
	}
	defer r.Close()
	for r.Next() {
		span, err := scanSpan(r)
		if err != nil {
			return err
		}
		for _, chunk := range span.Chunks {
			if add {
				set[chunk] = true
			} else {
				delete(set, chunk)
			}
		}
	}
	return r.Err()
}

// rewrite writes packs again without the chunks that are gone.
func (d *deletion) rewrite(ctx context.Context, where string, gone map[store.Digest]bool, arg any) error {
	r, err := d.tx.Query(ctx, d.sql("select id from $.packs where "+where+" order by id"), arg)
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(r, pgx.RowTo[int64])
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := d.rewritePack(ctx, id, gone); err != nil {
			return err
		}
	}
	return nil
}

func (d *deletion) rewritePack(ctx context.Context, id int64, gone map[store.Digest]bool) error {
	var pack fetched
	var action int
	if err := d.tx.QueryRow(ctx, d.sql("select "+packColumns+", action from $.packs where id = $1"), id).Scan(append(pack.columns(), &action)...); err != nil {
		return err
	}
	records, err := pack.read()
	if err != nil {
		return nil // it counts as missing, and the next reader drops it
	}
	var kept []store.Record
	for _, r := range records {
		if !gone[r.Chunk] {
			kept = append(kept, r)
		}
	}
	if len(kept) == len(records) {
		return nil
	}
	if _, err := d.tx.Exec(ctx, d.sql("delete from $.packs where id = $1"), id); err != nil || len(kept) == 0 {
		return err
	}
	_, _, err = (&tables{d.Store}).insert(ctx, d.tx, action, kept)
	return err
}
