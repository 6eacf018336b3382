package sqlite

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// Deletion is split into transactions, so that others can write in between. A
// transaction deletes at most deleteAtOnce rows, in steps of deleteStep rows, and
// begins no step after deleteFor, since large outputs cost about 1 ms for 100 KB.
const (
	deleteAtOnce = 20_000
	deleteStep   = 64
	deleteFor    = 50 * time.Millisecond
)

// Delete implements [store.Journal]. If it is the last job of its action, the row
// of the action is deleted too, which makes the outputs unreachable at once; they
// and the rest of the job are then deleted in pieces by Sweep.
func (s *Store) Delete(ctx context.Context, job store.JobID) error {
	var shared [][]store.Digest // chunks whose outputs are deleted although their action stays
	var action store.Action
	err := s.submit(ctx, &request{record: func(tx *transaction, r *request) error {
		shared = nil
		row, known, err := tx.conn.job(job)
		if err != nil || !known {
			r.conflicts = append(r.conflicts, store.ErrNoJob)
			return err
		}
		var found []store.JobRecord
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

// forget deletes the rows of actions. A later Put in the same transaction inserts
// them again.
func (tx *transaction) forget(actions []store.Action) error {
	for _, action := range actions {
		delete(tx.pending, action)
		if err := tx.conn.exec("delete from actions where digest=?", action[:]); err != nil {
			return err
		}
	}
	return nil
}

// forgetResults deletes the outputs of the job's derived actions, which are made of
// all its outputs.
func (tx *transaction) forgetResults(job *store.JobRecord) error {
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
// has, in pieces. It may omit one chunk in a million.
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

// chunksOfOthers returns the chunks in the spans of all jobs of an action except one.
func (c *conn) chunksOfOthers(action store.Action, job int64) (*digestFilter, error) {
	others := &digestFilter{}
	err := c.eachChunk(func(d store.Digest) { others.add(prefixOf(d)) },
		"select chunks from spans where job in (select id from jobs where action=? and id<>?)", action[:], job)
	return others, err
}

// eachChunk calls f with the digests in the blobs that a query returns.
func (c *conn) eachChunk(f func(store.Digest), query string, args ...any) error {
	return c.rows(func(r *columns) {
		for b := r.blob(); len(b) >= len(store.Digest{}); b = b[len(store.Digest{}):] {
			f(store.Digest(b))
		}
	}, query, args...)
}

// remove deletes the outputs of chunks of an action, except those that another job
// has come to share meanwhile.
func (s *Store) remove(ctx context.Context, action store.Action, chunks []store.Digest) error {
	// Their orders are looked up in the batches, which is faster in one than in many.
	if err := s.submit(ctx, &request{action: action, merge: true}); err != nil {
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

// remove deletes the outputs of the first of the chunks, and returns how many.
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
	batches, err := tx.conn.batches(at, 0)
	if err != nil {
		return 0, err
	}
	end := time.Now().Add(max(deleteFor, time.Since(start))) // as long as the look-up took, to be worth it
	for some := range slices.Chunk(chunks, deleteStep) {
		if done > 0 && time.Now().After(end) {
			break
		}
		var keys []store.Key
		for _, chunk := range some {
			if others.has(prefixOf(chunk)) {
				continue
			}
			orders, _, err := tx.conn.orders(batches, prefixOf(chunk))
			if err != nil {
				return done, err
			}
			for _, order := range orders {
				keys = append(keys, store.Key{Chunk: chunk, Order: order})
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

// Sweep deletes the rows that deleted jobs and actions left, in pieces. It also
// finishes a Delete that was killed.
func (s *Store) Sweep(ctx context.Context) error {
	for _, table := range []struct{ name, key, owner string }{
		{"packs", "action", "actions"}, {"batches", "action", "actions"},
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

// sweep deletes some rows of a deleted owner; more is true if some may be left.
func (tx *transaction) sweep(table, key string, owner int64) (more bool, err error) {
	query := "delete from " + table + " where rowid in (select rowid from " + table + " where " + key + "=? limit ?)"
	step := func() (done bool, err error) {
		err = tx.conn.exec(query, owner, int64(deleteStep))
		return tx.conn.Changes() < deleteStep, err
	}
	if table == "batches" {
		step = func() (bool, error) { return tx.conn.sweepBatch(owner) }
	}
	start := time.Now()
	for n := 0; n < deleteAtOnce && time.Since(start) < deleteFor; n += deleteStep {
		if done, err := step(); done || err != nil {
			return false, err
		}
	}
	return true, nil
}

// sweepBatch deletes some pages of a batch of a deleted action, and the batch with
// its last pages; done is true if there was no batch.
func (c *conn) sweepBatch(action int64) (done bool, err error) {
	var seq, first, pages int64
	ok, err := c.ints("select seq, first, pages from batches where action=? limit 1", []*int64{&seq, &first, &pages}, action)
	if err != nil || !ok {
		return true, err
	}
	some := min(pages, deleteStep)
	if err := c.exec("delete from batch_pages where id>=? and id<?", first, first+some); err != nil {
		return false, err
	}
	if some == pages {
		return false, c.exec("delete from batches where action=? and seq=?", action, seq)
	}
	return false, c.exec("update batches set first=?, pages=? where action=? and seq=?", first+some, pages-some, action, seq)
}

// Orphans returns the actions that no job has: the record of their job was lost, or
// a program that keeps no records put their outputs.
func (s *Store) Orphans(ctx context.Context) (actions []store.Action, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = s.do(ctx, "read", func(db *database) error {
		return db.read(ctx, func(c *conn) (err error) {
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

// DeleteOrphans deletes the outputs of actions that no job has, and returns the
// number of actions.
func (s *Store) DeleteOrphans(ctx context.Context) (count int, err error) {
	// The look-up and the deletion share a transaction: a job that begins in between
	// would lose outputs that it has found.
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
