package sqlite

import (
	"bytes"
	"slices"

	"github.com/ncruces/go-sqlite3"

	"github.com/wasm-jobs/wasm-jobs/store"
)

const (
	// selectPack gives the pack that a key lies in, or would.
	selectPack = "select ord, chunk, places, body from packs where action=? and (ord, chunk)<=(?, ?) order by ord desc, chunk desc limit 1"
	// selectBefore gives what it begins with, selectAfter what the next one does.
	selectBefore = "select ord, chunk from packs where action=? and (ord, chunk)<=(?, ?) order by ord desc, chunk desc limit 1"
	selectAfter  = "select ord, chunk from packs where action=? and (ord, chunk)>(?, ?) order by ord, chunk limit 1"
)

// readPack reads the pack that a statement stands on. It is valid until the
// statement moves on.
func readPack(stmt *sqlite3.Stmt, p *pack) {
	p.read(stmt.ColumnRawBlob(0), stmt.ColumnRawBlob(1), stmt.ColumnRawText(2), stmt.ColumnRawBlob(3))
}

// packOf calls found with the pack that a key lies in, or would; it is valid
// until found returns.
func (c *conn) packOf(at position, key store.Key, found func(*pack)) error {
	stmt, err := c.prepare(selectPack, at.id, key.Order, key.Chunk[:])
	if err != nil {
		return err
	}
	defer stmt.Reset()
	if !stmt.Step() {
		return stmt.Err()
	}
	readPack(stmt, &c.pack)
	found(&c.pack)
	return nil
}

// one looks an output up where its order says. found is called with where it
// is; it may be damaged.
func (c *conn) one(at position, key store.Key, found func(row)) (ok bool, err error) {
	err = c.packOf(at, key, func(p *pack) {
		var i int
		if i, ok = p.find(key); ok {
			found(p.row(i))
		}
	})
	return ok, err
}

// beginning returns the key that the pack begins with which query gives:
// selectBefore or selectAfter.
func (c *conn) beginning(query string, at position, key store.Key) (first store.Key, ok bool, err error) {
	stmt, err := c.prepare(query, at.id, key.Order, key.Chunk[:])
	if err != nil {
		return first, false, err
	}
	defer stmt.Reset()
	if !stmt.Step() {
		return first, false, stmt.Err()
	}
	copy(first.Chunk[:], stmt.ColumnRawBlob(1))
	first.Order = stmt.ColumnBlob(0, nil)
	return first, true, nil
}

func (c *conn) insertPacks(at position, packs []packed) error {
	for i := range packs {
		p := &packs[i]
		if err := c.exec("insert into packs values(null, ?, ?, ?, ?, ?)", at.id, p.first.Order, p.first.Chunk[:], text(p.places), p.body); err != nil {
			return err
		}
	}
	return nil
}

// rewrite replaces a pack, where there is one, by as many as some rows take. The
// first of them stays where it lay.
func (c *conn) rewrite(at position, old *pack, rows []row) error {
	packs := repack(rows)
	switch {
	case old == nil:
		return c.insertPacks(at, packs)
	case len(packs) == 0:
		return c.exec("delete from packs where action=? and ord=? and chunk=?", at.id, old.order, old.chunk)
	}
	p := &packs[0]
	err := c.exec("update packs set ord=?, chunk=?, places=?, body=? where action=? and ord=? and chunk=?",
		p.first.Order, p.first.Chunk[:], text(p.places), p.body, at.id, old.order, old.chunk)
	if err != nil {
		return err
	}
	return c.insertPacks(at, packs[1:])
}

// insert puts packs, whose keys ascend, among those of the action. In the
// common case they all go to one place.
func (tx *transaction) insert(w *work, r *request, packs []packed) error {
	if len(packs) == 0 {
		return nil
	}
	first, last := packs[0].first, packs[len(packs)-1].last
	free := true
	err := tx.conn.packOf(w.at, first, func(p *pack) { free = compareKeys(p.last(), first) < 0 })
	if err != nil {
		return err
	}
	next, bounded, err := tx.conn.beginning(selectAfter, w.at, first)
	if err != nil {
		return err
	}
	if free && (!bounded || last.Compare(next) < 0) {
		return tx.conn.insertPacks(w.at, packs)
	}
	var rows []row
	for i := range packs {
		p := pack{}
		p.read(nil, nil, packs[i].places, packs[i].body)
		rows = append(rows, p.rows()...)
	}
	return tx.merge(w, r, rows)
}

// merge puts rows, whose keys ascend, into the packs that they lie in.
func (tx *transaction) merge(w *work, r *request, rows []row) error {
	for len(rows) > 0 {
		key := rows[0].key()
		old, next, bounded, err := tx.conn.around(w.at, key)
		if err != nil {
			return err
		}
		n := len(rows)
		if bounded {
			n, _ = slices.BinarySearchFunc(rows, next, compareKeys)
		}
		group := rows[:n]
		rows = rows[n:]
		if old != nil && compareKeys(old.last(), key) < 0 {
			old = nil
		}
		if old != nil {
			group = tx.join(w, r, tx.sound(w, old), group)
		}
		if err := tx.conn.rewrite(w.at, old, group); err != nil {
			return err
		}
	}
	return nil
}

// around returns a copy of the pack that a key lies in or would, nil where there
// is none, and where the next one begins.
func (c *conn) around(at position, key store.Key) (p *pack, next store.Key, bounded bool, err error) {
	err = c.packOf(at, key, func(found *pack) {
		p = &pack{}
		p.copy(found)
	})
	if err == nil {
		next, bounded, err = c.beginning(selectAfter, at, key)
	}
	return p, next, bounded, err
}

// sound returns the outputs of a pack that pass their checksum, and names the
// others: what is written again is right.
func (tx *transaction) sound(w *work, p *pack) (rows []row) {
	for _, r := range p.rows() {
		if key, ok := r.verify(w.action, &tx.scratch); ok {
			rows = append(rows, r)
		} else {
			tx.damaged = append(tx.damaged, Damage{w.action, store.Key{Chunk: key.Chunk, Order: bytes.Clone(r.order)}})
		}
	}
	return rows
}

// join merges the rows of a request with those that are there, both in
// ascending order. What is under one key is one output.
func (tx *transaction) join(w *work, r *request, there, added []row) (rows []row) {
	for len(there) > 0 && len(added) > 0 {
		switch c := compareRows(there[0], added[0]); {
		case c < 0:
			rows, there = append(rows, there[0]), there[1:]
		case c > 0:
			rows, added = append(rows, added[0]), added[1:]
		default: // it is there although the log does not say so
			r.stored--
			r.compare(w.action, there[0].Value, &store.Record{Key: added[0].key(), Value: added[0].Value})
			added = added[1:]
		}
	}
	return append(append(rows, there...), added...)
}

// clean takes the damaged outputs out of the pack that begins with a key,
// unless they were put again meanwhile.
func (tx *transaction) clean(w *work, first store.Key) error {
	p, _, _, err := tx.conn.around(w.at, first)
	if err != nil || p == nil {
		return err
	}
	sound := slices.DeleteFunc(p.rows(), func(r row) bool {
		_, ok := r.verify(w.action, &tx.scratch)
		return !ok
	})
	if len(sound) == len(p.places) && p.whole {
		return nil
	}
	return tx.conn.rewrite(w.at, p, sound)
}

// without deletes what is stored under keys, which ascend.
func (c *conn) without(at position, keys []store.Key) error {
	for len(keys) > 0 {
		p, next, bounded, err := c.around(at, keys[0])
		if err != nil {
			return err
		}
		n := len(keys)
		if bounded {
			n, _ = slices.BinarySearchFunc(keys, next, store.Key.Compare)
		}
		here := keys[:n]
		keys = keys[n:]
		if p == nil {
			continue
		}
		rest := slices.DeleteFunc(p.rows(), func(r row) bool {
			_, gone := slices.BinarySearchFunc(here, r.key(), store.Key.Compare)
			return gone
		})
		if len(rest) == len(p.places) {
			continue
		}
		if err := c.rewrite(at, p, rest); err != nil {
			return err
		}
	}
	return nil
}

// withoutChunk deletes what an action of few outputs has for a chunk, whatever
// its order.
func (c *conn) withoutChunk(at position, chunk store.Digest) error {
	var keys []store.Key
	stmt, err := c.prepare("select ord, chunk, places, body from packs where action=?", at.id)
	if err != nil {
		return err
	}
	defer stmt.Reset()
	for p := (pack{}); stmt.Step(); {
		readPack(stmt, &p)
		for i := range p.places {
			if r := p.row(i); store.Digest(r.chunk) == chunk {
				keys = append(keys, store.Key{Chunk: chunk, Order: bytes.Clone(r.order)})
			}
		}
	}
	if err := stmt.Err(); err != nil {
		return err
	}
	return c.without(at, keys)
}
