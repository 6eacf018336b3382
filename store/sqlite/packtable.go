package sqlite

import (
	"bytes"
	"slices"

	"github.com/ncruces/go-sqlite3"

	"github.com/wasm-jobs/wasm-jobs/store"
)

const (
	// selectPack returns the pack that a key is in, or would be in.
	selectPack = "select ord, chunk, places, body from packs where action=? and (ord, chunk)<=(?, ?) order by ord desc, chunk desc limit 1"
	// selectBefore returns the first key of that pack, selectAfter that of the next.
	selectBefore = "select ord, chunk from packs where action=? and (ord, chunk)<=(?, ?) order by ord desc, chunk desc limit 1"
	selectAfter  = "select ord, chunk from packs where action=? and (ord, chunk)>(?, ?) order by ord, chunk limit 1"
	// selectAllAfter returns the packs after a key, in order.
	selectAllAfter = "select ord, chunk, places, body from packs where action=? and (ord, chunk)>(?, ?) order by ord, chunk"
)

// readPack reads the pack of a statement's current row. The pack is valid until the
// next step.
func readPack(stmt *sqlite3.Stmt, p *pack) {
	p.read(stmt.ColumnRawBlob(0), stmt.ColumnRawBlob(1), stmt.ColumnRawText(2), stmt.ColumnRawBlob(3))
}

// packOf calls found with the pack that a key is in, or would be in. The pack is
// valid until found returns.
func (c *conn) packOf(action int64, key store.Key, found func(*pack)) error {
	stmt, err := c.prepare(selectPack, action, key.Order, key.Chunk[:])
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

// one looks an output up under the order of its key. found is called with the row,
// which may be damaged.
func (c *conn) one(action int64, key store.Key, found func(row)) (ok bool, err error) {
	err = c.packOf(action, key, func(p *pack) {
		var i int
		if i, ok = p.find(key); ok {
			found(p.row(i))
		}
	})
	return ok, err
}

// beginning returns the first key of the pack that query returns: selectBefore or
// selectAfter.
func (c *conn) beginning(query string, action int64, key store.Key) (first store.Key, ok bool, err error) {
	stmt, err := c.prepare(query, action, key.Order, key.Chunk[:])
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

func (c *conn) insertPacks(action int64, packs []packed) error {
	for i := range packs {
		p := &packs[i]
		if err := c.exec("insert into packs values(null, ?, ?, ?, ?, ?)", action, p.first.Order, p.first.Chunk[:], text(p.places), p.body); err != nil {
			return err
		}
	}
	return nil
}

// rewrite replaces the pack old by as many as the rows take; the first of them keeps
// the table row of old. If old is nil, it only inserts.
func (c *conn) rewrite(action int64, old *pack, rows []row) error {
	packs := repack(rows)
	switch {
	case old == nil:
		return c.insertPacks(action, packs)
	case len(packs) == 0:
		return c.exec("delete from packs where action=? and ord=? and chunk=?", action, old.order, old.chunk)
	}
	p := &packs[0]
	err := c.exec("update packs set ord=?, chunk=?, places=?, body=? where action=? and ord=? and chunk=?",
		p.first.Order, p.first.Chunk[:], text(p.places), p.body, action, old.order, old.chunk)
	if err != nil {
		return err
	}
	return c.insertPacks(action, packs[1:])
}

// insert puts packs, whose keys ascend, among those of the action. Usually no other
// output is between them.
func (tx *transaction) insert(w *pendingAction, r *request, packs []packed) error {
	if len(packs) == 0 {
		return nil
	}
	first, last := packs[0].first, packs[len(packs)-1].last
	free := true
	err := tx.conn.packOf(w.view.id, first, func(p *pack) { free = compareKeys(p.last(), first) < 0 })
	if err != nil {
		return err
	}
	next, bounded, err := tx.conn.beginning(selectAfter, w.view.id, first)
	if err != nil {
		return err
	}
	if free && (!bounded || last.Compare(next) < 0) {
		return tx.conn.insertPacks(w.view.id, packs)
	}
	var rows []row
	for i := range packs {
		p := pack{}
		p.read(nil, nil, packs[i].places, packs[i].body)
		rows = append(rows, p.rows()...)
	}
	return tx.merge(w, r, rows)
}

// merge puts rows, whose keys ascend, into the packs that they belong to.
func (tx *transaction) merge(w *pendingAction, r *request, rows []row) error {
	for len(rows) > 0 {
		key := rows[0].key()
		old, next, bounded, err := tx.conn.around(w.view.id, key)
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
		if err := tx.conn.rewrite(w.view.id, old, group); err != nil {
			return err
		}
	}
	return nil
}

// around returns a copy of the pack that a key is in, or would be in, nil if there is
// none, and the first key of the next one, if bounded is true.
func (c *conn) around(action int64, key store.Key) (p *pack, next store.Key, bounded bool, err error) {
	err = c.packOf(action, key, func(found *pack) {
		p = &pack{}
		p.copy(found)
	})
	if err == nil {
		next, bounded, err = c.beginning(selectAfter, action, key)
	}
	return p, next, bounded, err
}

// sound returns the outputs of a pack that match their checksum, and reports the
// others, so that no damaged output is written again.
func (tx *transaction) sound(w *pendingAction, p *pack) (rows []row) {
	if !p.whole {
		tx.losses(w.action).other = true
	}
	for _, r := range p.rows() {
		if key, ok := r.verify(w.action, &tx.scratch); ok {
			rows = append(rows, r)
		} else {
			tx.damaged = append(tx.damaged, Damage{w.action, store.Key{Chunk: key.Chunk, Order: bytes.Clone(r.order)}})
			tx.lose(w.action, key)
		}
	}
	return rows
}

// join merges the rows of a request with the rows of a pack, both in ascending
// order. Two rows with the same key become one.
func (tx *transaction) join(w *pendingAction, r *request, there, added []row) (rows []row) {
	for len(there) > 0 && len(added) > 0 {
		switch c := compareRows(there[0], added[0]); {
		case c < 0:
			rows, there = append(rows, there[0]), there[1:]
		case c > 0:
			rows, added = append(rows, added[0]), added[1:]
		default: // it is stored although no batch has it
			r.stored--
			r.compare(w.action, there[0].Value, &store.Record{Key: added[0].key(), Value: added[0].Value})
			added = added[1:]
		}
	}
	return append(append(rows, there...), added...)
}

// clean removes the damaged outputs of the pack that begins with a key, unless they
// were put again meanwhile.
func (tx *transaction) clean(w *pendingAction, first store.Key) error {
	p, _, _, err := tx.conn.around(w.view.id, first)
	if err != nil || p == nil {
		return err
	}
	sound := slices.DeleteFunc(p.rows(), func(r row) bool {
		key, ok := r.verify(w.action, &tx.scratch)
		if !ok {
			tx.lose(w.action, key)
		}
		return !ok
	})
	if len(sound) == len(p.slots) && p.whole {
		return nil
	}
	if !p.whole {
		tx.losses(w.action).other = true
	}
	return tx.conn.rewrite(w.view.id, p, sound)
}

// without deletes the outputs of keys, which ascend.
func (c *conn) without(action int64, keys []store.Key) error {
	for len(keys) > 0 {
		p, next, bounded, err := c.around(action, keys[0])
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
		if len(rest) == len(p.slots) {
			continue
		}
		if err := c.rewrite(action, p, rest); err != nil {
			return err
		}
	}
	return nil
}

// withoutChunk deletes the outputs of a chunk, whatever their order. It reads all
// packs of the action.
func (c *conn) withoutChunk(action int64, chunk store.Digest) error {
	var keys []store.Key
	stmt, err := c.prepare("select ord, chunk, places, body from packs where action=?", action)
	if err != nil {
		return err
	}
	defer stmt.Reset()
	for p := (pack{}); stmt.Step(); {
		readPack(stmt, &p)
		for i := range p.slots {
			if r := p.row(i); store.Digest(r.chunk) == chunk {
				keys = append(keys, store.Key{Chunk: chunk, Order: bytes.Clone(r.order)})
			}
		}
	}
	if err := stmt.Err(); err != nil {
		return err
	}
	return c.without(action, keys)
}
