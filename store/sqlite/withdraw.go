package sqlite

import (
	"bytes"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// A chunk that is recorded as finished has an output. So if an output does not match
// its checksum and is deleted, these are deleted with it: the spans with its chunk
// (the next run finds their other chunks again), and the derived outputs of these
// jobs, such as the aggregate.

// lost are the outputs of an action that a transaction deletes.
type lost struct {
	keys  []store.Key
	other bool // there were others, whose keys are not known
}

// lose records that an output is deleted.
func (tx *transaction) lose(action store.Action, key store.Key) {
	l := tx.losses(action)
	l.keys = append(l.keys, store.Key{Chunk: key.Chunk, Order: bytes.Clone(key.Order)})
}

func (tx *transaction) losses(action store.Action) *lost {
	if tx.lost == nil {
		tx.lost = map[store.Action]*lost{}
	}
	l := tx.lost[action]
	if l == nil {
		l = &lost{}
		tx.lost[action] = l
	}
	return l
}

// withdraw deletes the records of outputs that the transaction deleted and did not
// put again.
func (tx *transaction) withdraw() error {
	for action, l := range tx.lost {
		gone, err := tx.conn.gone(action, l)
		if err != nil {
			return err
		}
		var jobs []store.JobRecord
		err = tx.conn.rows(func(r *columns) { jobs = append(jobs, readJob(r)) },
			"select digest, action, derived, input, total, created, spec from jobs where action=?", action[:])
		if err != nil {
			return err
		}
		for i := range jobs {
			if err := tx.withdrawFrom(&jobs[i], gone); err != nil {
				return err
			}
		}
	}
	return nil
}

// gone returns a function that reports whether the output of a chunk is gone.
func (c *conn) gone(action store.Action, l *lost) (gone func(store.Digest) bool, err error) {
	id, known, err := c.locate(action)
	if err != nil {
		return nil, err
	}
	if l.other && !known {
		return func(store.Digest) bool { return true }, nil
	}
	if l.other {
		there := &digestFilter{}
		err := c.eachStored(id, func(chunk []byte) { there.add(prefixOf(store.Digest(chunk))) })
		return func(chunk store.Digest) bool { return !there.has(prefixOf(chunk)) }, err
	}
	chunks := map[store.Digest]bool{}
	for _, key := range l.keys {
		there := false
		if known {
			if there, err = c.one(id, key, func(row) {}); err != nil {
				return nil, err
			}
		}
		chunks[key.Chunk] = !there
	}
	return func(chunk store.Digest) bool { return chunks[chunk] }, nil
}

// eachStored calls f with the chunks of all outputs of an action.
func (c *conn) eachStored(action int64, f func(chunk []byte)) error {
	stmt, err := c.prepare("select ord, chunk, places, body from packs where action=?", action)
	if err != nil {
		return err
	}
	defer stmt.Reset()
	for p := (pack{}); stmt.Step(); {
		readPack(stmt, &p)
		for i := range p.slots {
			f(p.row(i).chunk)
		}
	}
	return stmt.Err()
}

// withdrawFrom deletes the spans of a job that have chunks whose outputs are gone.
func (tx *transaction) withdrawFrom(job *store.JobRecord, gone func(store.Digest) bool) error {
	row, known, err := tx.conn.job(job.ID)
	if err != nil || !known {
		return err
	}
	var spans []int64
	err = tx.conn.rows(func(r *columns) {
		id := r.int()
		for b := r.blob(); len(b) >= len(store.Digest{}); b = b[len(store.Digest{}):] {
			if gone(store.Digest(b)) {
				spans = append(spans, id)
				break
			}
		}
	}, "select rowid, chunks from spans where job=?", row)
	if err != nil || len(spans) == 0 {
		return err
	}
	for _, id := range spans {
		if err := tx.conn.exec("delete from spans where rowid=?", id); err != nil {
			return err
		}
	}
	return tx.forgetResults(job)
}
