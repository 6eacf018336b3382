package sqlite

import (
	"bytes"
	"context"
	"iter"

	"github.com/wasm-jobs/wasm-jobs/store"
)

const (
	// pageRows and pageBytes bound what All reads in one transaction.
	pageRows  = 1000
	pageBytes = 1 << 20
)

// Get implements [store.Store]. It is fastest where the keys carry their
// orders and ascend: then it reads the outputs in one sweep. found must not
// call the store.
func (s *Store) Get(ctx context.Context, action store.Action, keys []store.Key, found func(i int, v store.Value) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l := &lookup{ctx: ctx, action: action, keys: keys, found: found}
	for {
		err := s.do("get", func(db *database) error {
			return db.read(func(c *conn) error { return l.run(db, c) })
		})
		s.dropDamaged(ctx, action, &l.damaged)
		switch {
		case err != nil:
			return err
		case l.stop != nil:
			return l.stop
		case !l.long:
			return nil
		}
		l.long = false
		if err := s.submit(ctx, &request{action: action, move: true}); err != nil {
			return err
		}
	}
}

// spot is a damaged output, and what the pack that it is in begins with.
type spot struct{ key, pack store.Key }

// dropDamaged reports damaged outputs and takes them out of their packs. Where
// that fails, they stay, and stay missing.
func (s *Store) dropDamaged(ctx context.Context, action store.Action, spots *[]spot) {
	if len(*spots) == 0 {
		return
	}
	s.damaged.Add(int64(len(*spots)))
	var packs []store.Key
	for _, spot := range *spots {
		s.options.Damaged(Damage{action, spot.key})
		packs = append(packs, spot.pack)
	}
	s.submit(ctx, &request{action: action, clean: packs})
	*spots = nil
}

// lookup is one Get. It goes on where it stood when it is run again.
type lookup struct {
	ctx     context.Context
	action  store.Action
	keys    []store.Key
	found   func(i int, v store.Value) error
	next    int    // key
	stop    error  // of found or ctx
	long    bool   // the log must be moved before key next can be looked up
	damaged []spot // not reported yet
	scratch []byte

	at    position
	tail  tail
	own   finder
	moved finder // of those that are found under another order: often all, in theirs
}

func (l *lookup) run(db *database, c *conn) (err error) {
	var ok bool
	if l.at, ok, err = c.locate(l.action); err != nil || !ok {
		return err
	}
	h := db.shelf(l.action)
	caughtUp := false
	l.tail, l.own, l.moved = nil, finder{conn: c, at: l.at}, finder{conn: c, at: l.at}
	for ; l.next < len(l.keys) && l.stop == nil && !l.long; l.next++ {
		key := l.keys[l.next]
		if l.next%256 == 0 && l.ctx.Err() != nil {
			l.stop = l.ctx.Err()
			return nil
		}
		if key.Order != nil {
			i, ok, err := l.own.to(key)
			if err != nil {
				return err
			}
			if ok {
				l.deliver(&l.own.pack, i)
				continue
			}
		}
		if !caughtUp {
			if err := h.catchUp(c, l.at); err != nil {
				return err
			}
			caughtUp = true
		}
		if h.has(prefixOf(key.Chunk)) {
			if err := l.anywhere(c, h, key); err != nil {
				return err
			}
		}
		if l.long {
			return nil
		}
	}
	return nil
}

// deliver hands an output out, or notes that it is damaged.
func (l *lookup) deliver(p *pack, i int) {
	r := p.row(i)
	key, ok := r.verify(l.action, &l.scratch)
	if !ok {
		l.damaged = append(l.damaged, p.spot(store.Key{Chunk: l.keys[l.next].Chunk, Order: r.order}))
		return
	}
	if key.Chunk == l.keys[l.next].Chunk {
		l.stop = l.found(l.next, r.Value)
	}
}

// spot keeps where a damaged output is.
func (p *pack) spot(key store.Key) spot {
	key.Order = bytes.Clone(key.Order)
	first := store.Key{Order: bytes.Clone(p.order)}
	copy(first.Chunk[:], p.chunk)
	return spot{key, first}
}

// anywhere looks a chunk up under whatever order it is stored.
func (l *lookup) anywhere(c *conn, h *shelf, key store.Key) error {
	orders, long, err := h.lookUp(c, l.at, &l.tail, prefixOf(key.Chunk))
	if err != nil || long {
		l.long = long
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

// All implements [store.Store]. It reads in pages and keeps no transaction
// open between them, so what is put meanwhile may be seen or not.
func (s *Store) All(ctx context.Context, action store.Action) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		p := &page{action: action}
		for {
			err := ctx.Err()
			if err == nil {
				err = s.do("read", func(db *database) error { return db.read(p.read) })
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
		}
	}
}

// page is a piece of All.
type page struct {
	action  store.Action
	last    *store.Key // the output before the page; nil = none
	records []store.Record
	damaged []spot
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
	if p.last != nil { // the pack that it is in may have more by now
		if first, _, err = c.beginning(selectBefore, at, *p.last); err != nil {
			return err
		}
	}
	stmt, err := c.prepare("select ord, chunk, places, body from packs where action=? and (ord, chunk)>=(?, ?) order by ord, chunk",
		at.id, first.Order, first.Chunk[:])
	if err != nil {
		return err
	}
	defer stmt.Reset()
	for p.over = true; stmt.Step(); {
		if len(p.records) >= pageRows || len(p.arena) >= pageBytes {
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
	split := p.last != nil && compareKeys(row{order: from.order, chunk: from.chunk}, *p.last) <= 0 // it was taken before
	for i := range from.places {
		r := from.row(i)
		if split && compareKeys(r, *p.last) <= 0 {
			continue
		}
		key, ok := r.verify(p.action, &p.scratch)
		if !ok {
			p.damaged = append(p.damaged, from.spot(key))
			continue
		}
		start := len(p.arena)
		p.arena = append(append(p.arena, r.order...), r.Output...)
		middle, end := start+len(r.order), len(p.arena)
		key.Order = p.arena[start:middle:middle]
		p.records = append(p.records, store.Record{Key: key, Value: store.Value{Output: p.arena[middle:end:end], Fuel: r.Fuel}})
	}
}
