package sqlite

import (
	"bytes"
	"context"
	"iter"

	"github.com/wasm-jobs/wasm-jobs/store"
)

const (
	// pageRows and pageBytes bound one page of All. The first page has firstRows, for
	// callers that stop early, and each page has twice as many as the last.
	firstRows = 32
	pageRows  = 1000
	pageBytes = 1 << 20
)

// Get implements [store.Store]. It is fastest if the keys have the right orders
// and ascend: then it reads the outputs in one sweep. found must not call the store.
func (s *Store) Get(ctx context.Context, action store.Action, keys []store.Key, found func(i int, v store.Value) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l := &lookup{ctx: ctx, action: action, keys: keys, found: found}
	for {
		err := s.do(ctx, "get", func(db *database) error {
			return db.read(ctx, func(c *conn) error { return l.run(db, c) })
		})
		s.dropDamaged(ctx, action, &l.damaged)
		switch {
		case err != nil:
			return err
		case l.stop != nil:
			return l.stop
		case !l.merge:
			return nil
		}
		l.merge = false
		if err := s.submit(ctx, &request{action: action, merge: true}); err != nil {
			return err
		}
	}
}

// damagedEntry is a damaged output and the first key of its pack.
type damagedEntry struct{ key, pack store.Key }

// dropDamaged reports damaged outputs and removes them from their packs. If that
// fails, they stay in the file, and still count as missing.
func (s *Store) dropDamaged(ctx context.Context, action store.Action, entries *[]damagedEntry) {
	if len(*entries) == 0 {
		return
	}
	s.damaged.Add(int64(len(*entries)))
	var packs []store.Key
	for _, entry := range *entries {
		s.options.Damaged(Damage{action, entry.key})
		packs = append(packs, entry.pack)
	}
	s.submit(ctx, &request{action: action, clean: packs})
	*entries = nil
}

// lookup is one Get. When it runs again, it continues at next.
type lookup struct {
	ctx     context.Context
	action  store.Action
	keys    []store.Key
	found   func(i int, v store.Value) error
	next    int            // index of the next key
	stop    error          // returned by found, or ctx.Err()
	merge   bool           // the batches must be merged before the next key is looked up
	damaged []damagedEntry // not reported yet
	scratch []byte

	view  actionView
	own   cursor
	moved cursor // for chunks stored under another order; often all are, and in ascending order
}

func (l *lookup) run(db *database, c *conn) error {
	id, ok, err := c.locate(l.action)
	if err != nil || !ok {
		return err
	}
	l.view = db.index(l.action).look(c, id)
	l.own, l.moved = cursor{conn: c, action: id, sweeps: true}, cursor{conn: c, action: id}
	defer l.own.end()
	for ; l.next < len(l.keys) && l.stop == nil; l.next++ {
		if l.next%256 == 0 && l.ctx.Err() != nil {
			l.stop = l.ctx.Err()
			return nil
		}
		if err := l.one(l.keys[l.next]); err != nil || l.merge {
			return err
		}
	}
	return nil
}

// one looks a chunk up under the order of its key, and then under any other order.
func (l *lookup) one(key store.Key) error {
	if key.Order != nil {
		i, ok, err := l.own.to(key)
		if err != nil {
			return err
		}
		if ok {
			l.deliver(&l.own.pack, i)
			return nil
		}
	}
	complete, err := l.view.catchUp(1)
	if err != nil || complete && !l.view.index.has(prefixOf(key.Chunk)) {
		return err
	}
	return l.anywhere(key)
}

// deliver calls found with an output, or adds it to the damaged ones.
func (l *lookup) deliver(p *pack, i int) {
	r := p.row(i)
	key, ok := r.verify(l.action, &l.scratch)
	if !ok {
		l.damaged = append(l.damaged, p.damagedEntry(store.Key{Chunk: l.keys[l.next].Chunk, Order: r.order}))
		return
	}
	if key.Chunk == l.keys[l.next].Chunk {
		l.stop = l.found(l.next, r.Value)
	}
}

// damagedEntry returns a damaged output with the first key of its pack.
func (p *pack) damagedEntry(key store.Key) damagedEntry {
	key.Order = bytes.Clone(key.Order)
	first := store.Key{Order: bytes.Clone(p.order)}
	copy(first.Chunk[:], p.chunk)
	return damagedEntry{key, first}
}

// anywhere looks a chunk up under any order.
func (l *lookup) anywhere(key store.Key) error {
	if err := l.view.conn.widen(); err != nil {
		return err
	}
	orders, merge, err := l.view.orders(prefixOf(key.Chunk))
	if err != nil || merge {
		l.merge = merge
		return err
	}
	for _, order := range orders {
		i, ok, err := l.moved.to(store.Key{Chunk: key.Chunk, Order: order})
		if err != nil {
			return err
		}
		if ok {
			l.deliver(&l.moved.pack, i)
			return nil
		}
	}
	return nil
}

// All implements [store.Store]. It reads in pages and keeps no transaction open
// between them, so it may or may not yield outputs that are put meanwhile.
func (s *Store) All(ctx context.Context, action store.Action) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		p := &page{action: action, rows: firstRows}
		for {
			err := ctx.Err()
			if err == nil {
				err = s.do(ctx, "read", func(db *database) error { return db.read(ctx, p.read) })
				s.dropDamaged(ctx, action, &p.damaged)
			}
			if err != nil {
				yield(store.Record{}, err)
				return
			}
			for _, r := range p.records {
				if err := ctx.Err(); err != nil {
					yield(store.Record{}, err)
					return
				}
				if !yield(r, nil) {
					return
				}
			}
			if p.over {
				return
			}
			p.rows = min(2*p.rows, pageRows)
		}
	}
}

// page is a part of an All.
type page struct {
	action  store.Action
	rows    int        // at least so many are read
	last    *store.Key // the last output before the page; nil = none
	records []store.Record
	damaged []damagedEntry
	over    bool
	arena   []byte
	scratch []byte
}

// read reads the page after last. It may be called again after an error.
func (p *page) read(c *conn) error {
	p.records, p.damaged, p.arena = p.records[:0], nil, p.arena[:0]
	at, ok, err := c.locate(p.action)
	if err != nil || !ok {
		p.over = true
		return err
	}
	var first store.Key
	if p.last != nil { // its pack may have more outputs by now
		if first, _, err = c.beginning(selectBefore, at, *p.last); err != nil {
			return err
		}
	}
	stmt, err := c.prepare("select ord, chunk, places, body from packs where action=? and (ord, chunk)>=(?, ?) order by ord, chunk",
		at, first.Order, first.Chunk[:])
	if err != nil {
		return err
	}
	defer stmt.Reset()
	for p.over = true; stmt.Step(); {
		if len(p.records) >= p.rows || len(p.arena) >= pageBytes {
			p.over = false
			break
		}
		readPack(stmt, &c.pack)
		p.take(&c.pack)
	}
	if err := stmt.Err(); err != nil {
		return err
	}
	if n := len(p.records); n > 0 {
		p.last = &store.Key{Chunk: p.records[n-1].Chunk, Order: bytes.Clone(p.records[n-1].Order)}
	}
	return nil
}

// take copies the outputs of a pack that are after last.
func (p *page) take(from *pack) {
	split := p.last != nil && compareKeys(row{order: from.order, chunk: from.chunk}, *p.last) <= 0 // its first outputs were taken before
	for i := range from.slots {
		r := from.row(i)
		if split && compareKeys(r, *p.last) <= 0 {
			continue
		}
		key, ok := r.verify(p.action, &p.scratch)
		if !ok {
			p.damaged = append(p.damaged, from.damagedEntry(key))
			continue
		}
		start := len(p.arena)
		p.arena = append(append(p.arena, r.order...), r.Output...)
		middle, end := start+len(r.order), len(p.arena)
		key.Order = p.arena[start:middle:middle]
		p.records = append(p.records, store.Record{Key: key, Value: store.Value{Output: p.arena[middle:end:end], Fuel: r.Fuel}})
	}
}
