package sqlite

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// Others can write between two transactions that delete: one takes at most
// deleteAtOnce rows, and no more steps of deleteStep rows after deleteFor, for
// large outputs cost some 1 ms for 100 KB.
const (
	deleteAtOnce = 20_000
	deleteStep   = 64
	deleteFor    = 50 * time.Millisecond
)

// Delete implements [store.Jobs]. With the last job of an action goes the row
// that names it, so that its outputs are out of reach at once; they and the
// rest of the job are then swept in pieces.
func (s *Store) Delete(ctx context.Context, job store.JobID) error {
	var shared [][]store.Digest // outputs that go although their action stays
	var action store.Action
	err := s.submit(ctx, &request{record: func(tx *transaction, r *request) error {
		shared = nil
		row, known, err := tx.conn.job(job)
		if err != nil || !known {
			r.conflicts = append(r.conflicts, store.ErrNoJob)
			return err
		}
		var found []store.Job
		err = tx.conn.rows(func(r *columns) { found = append(found, readJob(r)) },
			"select digest, action, derived, input, total, created, spec from jobs where id=?", row)
		if err != nil || len(found) == 0 {
			return err
		}
		action = found[0].Action
		var others int64
		if _, err := tx.conn.ints("select count(*) from jobs where action=? and id<>?", []*int64{&others}, action[:], row); err != nil {
			return err
		}
		if others > 0 {
			shared, err = tx.conn.unshared(action, row)
		} else {
			err = tx.forget(append([]store.Action{action}, found[0].Derived...))
		}
		if err == nil && others > 0 {
			err = tx.forgetResults(&found[0])
		}
		return errors.Join(err, tx.conn.exec("delete from jobs where id=?", row))
	}})
	if err != nil {
		return err
	}
	for _, piece := range shared {
		if err := s.remove(ctx, action, piece); err != nil {
			return err
		}
	}
	return s.Sweep(ctx)
}

// forget removes the rows that name actions. What is put later in the same
// transaction makes them anew.
func (tx *transaction) forget(actions []store.Action) error {
	for _, action := range actions {
		delete(tx.works, action)
		if err := tx.conn.exec("delete from actions where digest=?", action[:]); err != nil {
			return err
		}
	}
	return nil
}

// forgetResults removes what is kept of a job's outputs as a whole.
func (tx *transaction) forgetResults(job *store.Job) error {
	for _, action := range job.Derived {
		at, ok, err := tx.conn.locate(action)
		if err == nil && ok {
			err = tx.conn.withoutChunk(at, job.Input)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unshared returns the chunks of a job's spans that no other job of the action
// has, in pieces. It may leave some out: one in a million.
func (c *conn) unshared(action store.Action, job int64) (pieces [][]store.Digest, err error) {
	others, err := c.chunksOfOthers(action, job)
	if err != nil {
		return nil, err
	}
	var own []store.Digest
	err = c.eachChunk(func(d store.Digest) {
		if !others.has(prefixOf(d)) {
			own = append(own, d)
		}
	}, "select chunks from spans where job=?", job)
	for piece := range slices.Chunk(own, deleteAtOnce) {
		pieces = append(pieces, piece)
	}
	return pieces, err
}

// chunksOfOthers returns the chunks of the spans of an action's jobs but one.
func (c *conn) chunksOfOthers(action store.Action, job int64) (*seen, error) {
	others := &seen{}
	err := c.eachChunk(func(d store.Digest) { others.add(prefixOf(d)) },
		"select chunks from spans where job in (select id from jobs where action=? and id<>?)", action[:], job)
	return others, err
}

// eachChunk calls f with the digests in the blobs that a query gives.
func (c *conn) eachChunk(f func(store.Digest), query string, args ...any) error {
	return c.rows(func(r *columns) {
		for b := r.blob(); len(b) >= len(store.Digest{}); b = b[len(store.Digest{}):] {
			f(store.Digest(b))
		}
	}, query, args...)
}

// remove deletes outputs of an action, wherever they lie, but those that a job
// has taken up since its caller looked.
func (s *Store) remove(ctx context.Context, action store.Action, chunks []store.Digest) error {
	// Where they lie is found as Get finds it: by the log, moved into the index.
	if err := s.submit(ctx, &request{action: action, move: true}); err != nil {
		return err
	}
	for len(chunks) > 0 {
		done := 0
		err := s.record(ctx, func(tx *transaction) (err error) {
			done, err = tx.remove(action, chunks)
			return err
		})
		if err != nil {
			return err
		}
		chunks = chunks[done:]
	}
	return nil
}

// remove deletes the first of some outputs, and returns how many these were.
func (tx *transaction) remove(action store.Action, chunks []store.Digest) (done int, err error) {
	start := time.Now()
	at, ok, err := tx.conn.locate(action)
	if err != nil || !ok {
		return len(chunks), err
	}
	others, err := tx.conn.chunksOfOthers(action, 0)
	if err != nil {
		return 0, err
	}
	end := time.Now().Add(max(deleteFor, time.Since(start))) // the look is to be worth it
	for some := range slices.Chunk(chunks, deleteStep) {
		if done > 0 && time.Now().After(end) {
			break
		}
		var keys []store.Key
		for _, chunk := range some {
			if others.has(prefixOf(chunk)) {
				continue
			}
			err := tx.conn.rows(func(r *columns) { keys = append(keys, store.Key{Chunk: chunk, Order: r.blob()}) },
				"select ord from chunks where action=? and prefix=?", at.id, int64(prefixOf(chunk)))
			if err != nil {
				return done, err
			}
		}
		slices.SortFunc(keys, store.Key.Compare)
		if err := tx.conn.without(at, keys); err != nil {
			return done, err
		}
		done += len(some)
	}
	return done, nil
}

// Sweep deletes what deleted jobs and actions left, in pieces. A Delete that
// was killed leaves more to the next one.
func (s *Store) Sweep(ctx context.Context) error {
	for _, table := range []struct{ name, key, owner string }{
		{"packs", "action", "actions"}, {"batches", "action", "actions"}, {"chunks", "action", "actions"},
		{"job_ids", "job", "jobs"}, {"runs", "job", "jobs"}, {"spans", "job", "jobs"}, {"attempts", "job", "jobs"},
	} {
		for last := int64(-1); ; {
			var id int64
			var ok, more bool
			err := s.record(ctx, func(tx *transaction) (err error) {
				more = false
				ok, err = tx.conn.ints("select "+table.key+" from "+table.name+" where "+table.key+">? order by "+table.key+" limit 1", []*int64{&id}, last)
				if err != nil || !ok {
					return err
				}
				var owner int64
				alive, err := tx.conn.ints("select 1 from "+table.owner+" where id=?", []*int64{&owner}, id)
				if err != nil || alive {
					return err
				}
				more, err = tx.sweep(table.name, table.key, id)
				return err
			})
			if err != nil || !ok {
				if err != nil {
					return err
				}
				break
			}
			if !more {
				last = id
			}
		}
	}
	return nil
}

// sweep deletes some rows of a dead owner; more tells whether some may be left.
func (tx *transaction) sweep(table, key string, owner int64) (more bool, err error) {
	query := "delete from " + table + " where rowid in (select rowid from " + table + " where " + key + "=? limit ?)"
	switch table { // those without a rowid
	case "batches":
		query = "delete from batches where (action, seq) in (select action, seq from batches where action=? limit ?)"
	case "chunks":
		query = "delete from chunks where (action, prefix, ord) in (select action, prefix, ord from chunks where action=? limit ?)"
	}
	start := time.Now()
	for n := 0; n < deleteAtOnce && time.Since(start) < deleteFor; n += deleteStep {
		if err := tx.conn.exec(query, owner, int64(deleteStep)); err != nil {
			return false, err
		}
		if tx.conn.Changes() < deleteStep {
			return false, nil
		}
	}
	return true, nil
}

// Orphans returns the actions that no job has, which are those whose job's
// record was lost, and of programs that keep no records.
func (s *Store) Orphans(ctx context.Context) (actions []store.Action, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = s.do("read", func(db *database) error {
		return db.read(func(c *conn) (err error) {
			actions, err = c.orphans()
			return err
		})
	})
	return actions, err
}

func (c *conn) orphans() (actions []store.Action, err error) {
	owned := map[store.Action]bool{}
	err = c.rows(func(r *columns) {
		job := readJob(r)
		owned[job.Action] = true
		for _, a := range job.Derived {
			owned[a] = true
		}
	}, "select digest, action, derived, input, total, created, spec from jobs")
	if err != nil {
		return nil, err
	}
	err = c.rows(func(r *columns) {
		var a store.Action
		if copy(a[:], r.blob()); !owned[a] {
			actions = append(actions, a)
		}
	}, "select digest from actions")
	return actions, err
}

// DeleteOrphans deletes what is kept under actions that no job has.
func (s *Store) DeleteOrphans(ctx context.Context) (count int, err error) {
	// They are looked up where they are deleted: a job that begins in between
	// would lose what it has found.
	err = s.record(ctx, func(tx *transaction) error {
		actions, err := tx.conn.orphans()
		if err != nil {
			return err
		}
		count = len(actions)
		return tx.forget(actions)
	})
	if err != nil || count == 0 {
		return 0, err
	}
	return count, s.Sweep(ctx)
}
