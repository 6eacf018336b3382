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

	insertPack = "insert into packs values(?, ?, ?, ?, ?)"
)

// readPack reads the pack that a statement stands on. It is valid until the
// statement moves on.
func readPack(stmt *sqlite3.Stmt, p *pack) {
	p.read(stmt.ColumnRawBlob(0), stmt.ColumnRawBlob(1), stmt.ColumnRawText(2), stmt.ColumnRawBlob(3))
}

// packOf calls found with the pack that a key lies in, or would.
func (c *conn) packOf(at position, key store.Key, found func(*pack) error) error {
	stmt, err := c.prepare(selectPack, at.id, key.Order, key.Chunk[:])
	if err != nil {
		return err
	}
	defer stmt.Reset()
	if !stmt.Step() {
		return stmt.Err()
	}
	var p pack
	readPack(stmt, &p)
	return found(&p)
}

// takePack returns a copy of the pack that a key lies in, or would; nil where
// there is none.
func (c *conn) takePack(at position, key store.Key) (taken *pack, err error) {
	err = c.packOf(at, key, func(p *pack) error {
		taken = &pack{bytes.Clone(p.order), bytes.Clone(p.chunk), p.places, bytes.Clone(p.body), p.whole}
		return nil
	})
	return taken, err
}

// one looks an output up where its order says. found is called with where it
// is; it may be damaged.
func (c *conn) one(at position, key store.Key, found func(p *pack, i int)) (ok bool, err error) {
	err = c.packOf(at, key, func(p *pack) error {
		var i int
		if i, ok = p.find(key); ok {
			found(p, i)
		}
		return nil
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
		stmt, err := c.prepare(insertPack, at.id, p.first.Order, p.first.Chunk[:])
		if err == nil {
			err = stmt.BindRawText(4, p.places)
		}
		if err == nil {
			err = bind(stmt, 5, p.body)
		}
		if err == nil {
			err = stmt.Exec()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// insert puts packs, whose keys ascend, among those of the action. In the
// common case they all go to one place.
func (tx *transaction) insert(w *work, r *request, packs []packed) error {
	if len(packs) == 0 {
		return nil
	}
	first, last := packs[0].first, packs[len(packs)-1].last
	free := true
	err := tx.conn.packOf(w.at, first, func(p *pack) error {
		free = compareKeys(p.last(), first) < 0
		return nil
	})
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
		if old != nil && compareKeys(old.last(), key) >= 0 {
			group = tx.join(w, r, tx.sound(w, old), group)
			if err := tx.conn.deletePack(w.at, old); err != nil {
				return err
			}
		}
		if err := tx.conn.insertRows(w.at, group); err != nil {
			return err
		}
	}
	return nil
}

// around returns the pack that a key lies in, or would, and where the next one
// begins.
func (c *conn) around(at position, key store.Key) (p *pack, next store.Key, bounded bool, err error) {
	if p, err = c.takePack(at, key); err != nil {
		return nil, next, false, err
	}
	next, bounded, err = c.beginning(selectAfter, at, key)
	return p, next, bounded, err
}

func (c *conn) insertRows(at position, rows []row) error {
	b := &packer{}
	for _, r := range rows {
		b.add(r)
	}
	return c.insertPacks(at, b.all())
}

func (c *conn) deletePack(at position, p *pack) error {
	return c.exec("delete from packs where action=? and ord=? and chunk=?", at.id, p.order, p.chunk)
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
	p, err := tx.conn.takePack(w.at, first)
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

// rewrite replaces a pack by one or more with these rows.
func (c *conn) rewrite(at position, p *pack, rows []row) error {
	if err := c.deletePack(at, p); err != nil {
		return err
	}
	return c.insertRows(at, rows)
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
