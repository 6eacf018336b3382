package sqlite

import (
	"bytes"
	"context"
	"iter"

	"github.com/ncruces/go-sqlite3"

	"github.com/wasm-jobs/wasm-jobs/store"
)

const (
	// pageRows and pageBytes bound what All reads in one transaction.
	pageRows  = 1000
	pageBytes = 1 << 20

	// maxSkip is how many rows Get steps over on the way to the next key
	// before it looks the key up instead.
	maxSkip = 16
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

// dropDamaged reports damaged outputs and deletes them. Where that fails, they
// stay, and stay missing.
func (s *Store) dropDamaged(ctx context.Context, action store.Action, keys *[]store.Key) {
	if len(*keys) == 0 {
		return
	}
	s.damaged.Add(int64(len(*keys)))
	for _, key := range *keys {
		s.options.Damaged(Damage{action, key})
	}
	s.submit(ctx, &request{action: action, drop: *keys})
	*keys = nil
}

// lookup is one Get. It goes on where it stood when it is run again.
type lookup struct {
	ctx     context.Context
	action  store.Action
	keys    []store.Key
	found   func(i int, v store.Value) error
	next    int         // key
	stop    error       // of found or ctx
	long    bool        // the log must be moved before key next can be looked up
	damaged []store.Key // not reported yet
	scratch []byte

	at    position
	tail  tail
	floor store.Key     // from which on the sweep has not missed a row
	sweep *sqlite3.Stmt // ascends from a key
	has   bool          // it stands on a row
	row   row
}

func (l *lookup) run(db *database, c *conn) (err error) {
	var ok bool
	if l.at, ok, err = c.locate(l.action); err != nil || !ok {
		return err
	}
	h := db.shelf(l.action)
	caughtUp := false
	l.has, l.sweep, l.tail = false, nil, nil
	defer func() {
		if l.sweep != nil {
			l.sweep.Reset()
		}
	}()
	for ; l.next < len(l.keys) && l.stop == nil && !l.long; l.next++ {
		key := l.keys[l.next]
		if l.next%256 == 0 && l.ctx.Err() != nil {
			l.stop = l.ctx.Err()
			return nil
		}
		if key.Order != nil {
			ok, err := l.inOrder(c, key)
			if err != nil {
				return err
			}
			if ok {
				l.deliver(l.row)
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

// deliver hands a row out, or notes that it is damaged.
func (l *lookup) deliver(r row) {
	key, ok := r.verify(l.action, &l.scratch)
	if !ok {
		l.damaged = append(l.damaged, store.Key{Chunk: l.keys[l.next].Chunk, Order: bytes.Clone(r.order)})
		return
	}
	if key.Chunk == l.keys[l.next].Chunk {
		l.stop = l.found(l.next, r.Value)
	}
}

// inOrder looks a key up where its order says, going on from the key before.
func (l *lookup) inOrder(c *conn, key store.Key) (ok bool, err error) {
	for skipped := 0; l.has; skipped++ {
		order := compareKeys(l.row, key)
		if order == 0 {
			return true, nil
		}
		if order > 0 && compareKeys(row{order: l.floor.Order, chunk: l.floor.Chunk[:]}, key) <= 0 {
			return false, nil // between the two there is nothing
		}
		if order > 0 || skipped == maxSkip {
			break
		}
		if l.has = l.sweep.Step(); !l.has {
			return false, l.sweep.Err()
		}
		l.row = readRow(l.sweep)
	}
	l.sweep, err = c.prepare("select ord, chunk, checksum, fuel, output from outputs where action=? and (ord, chunk)>=(?, ?) order by ord, chunk",
		l.at.id, key.Order, key.Chunk[:])
	if err != nil {
		return false, err
	}
	l.floor = key
	if l.has = l.sweep.Step(); !l.has {
		return false, l.sweep.Err()
	}
	l.row = readRow(l.sweep)
	return compareKeys(l.row, key) == 0, nil
}

func compareKeys(r row, key store.Key) int {
	if c := bytes.Compare(r.order, key.Order); c != 0 {
		return c
	}
	return bytes.Compare(r.chunk, key.Chunk[:])
}

// anywhere looks a chunk up under whatever order it is stored.
func (l *lookup) anywhere(c *conn, h *shelf, key store.Key) error {
	if l.tail == nil {
		var err error
		if l.tail, l.long, err = h.readTail(c, l.at); err != nil || l.long {
			return err
		}
	}
	orders, err := h.orders(c, l.at, l.tail, prefixOf(key.Chunk))
	if err != nil {
		return err
	}
	for _, order := range orders {
		ok, err := c.one(l.at, store.Key{Chunk: key.Chunk, Order: order}, func(r row) error {
			l.deliver(r)
			return nil
		})
		if err != nil || ok {
			return err
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
	last    *store.Key // the row before the page; nil = none
	records []store.Record
	damaged []store.Key
	over    bool
	arena   []byte
	scratch []byte
}

// read reads the page after last. It may be called again after an error.
func (p *page) read(c *conn) error {
	p.records, p.damaged, p.arena = p.records[:0], p.damaged[:0:0], p.arena[:0]
	at, ok, err := c.locate(p.action)
	if err != nil || !ok {
		p.over = true
		return err
	}
	query, args := "select ord, chunk, checksum, fuel, output from outputs where action=? order by ord, chunk", []any{at.id}
	if p.last != nil {
		query = "select ord, chunk, checksum, fuel, output from outputs where action=? and (ord, chunk)>(?, ?) order by ord, chunk"
		args = append(args, p.last.Order, p.last.Chunk[:])
	}
	stmt, err := c.prepare(query, args...)
	if err != nil {
		return err
	}
	defer stmt.Reset()
	var last store.Key
	rows := 0
	for ; rows < pageRows && len(p.arena) < pageBytes && stmt.Step(); rows++ {
		r := readRow(stmt)
		start := len(p.arena)
		p.arena = append(append(p.arena, r.order...), r.Output...)
		middle, end := start+len(r.order), len(p.arena)
		last = store.Key{Order: p.arena[start:middle:middle]}
		copy(last.Chunk[:], r.chunk)
		if _, ok := r.verify(p.action, &p.scratch); !ok {
			p.damaged = append(p.damaged, store.Key{Chunk: last.Chunk, Order: bytes.Clone(last.Order)})
			continue
		}
		p.records = append(p.records, store.Record{Key: last, Value: store.Value{Output: p.arena[middle:end:end], Fuel: r.Fuel}})
	}
	if err := stmt.Err(); err != nil {
		return err
	}
	p.over = rows < pageRows && len(p.arena) < pageBytes
	p.last = &store.Key{Chunk: last.Chunk, Order: bytes.Clone(last.Order)}
	return nil
}
