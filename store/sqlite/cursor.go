package sqlite

import (
	"github.com/ncruces/go-sqlite3"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// cursor finds outputs in the packs of an action. For ascending keys it reads each
// pack once. Once it has gone from a pack to the next, it reads the packs with one
// statement, as long as no pack is skipped: a search for each takes twice as long.
type cursor struct {
	conn   *conn
	action int64
	sweeps bool // it may keep a statement, which is the connection's: one cursor at a time

	pack    pack      // a copy of the pack that begins at floor, if has is true
	has     bool      // there is such a pack; if not, floor is the key that was looked for
	next    int       // index of the output that is likely to be looked for next
	floor   store.Key // the cursor knows all outputs from here
	ceiling store.Key // to here, the start of the next pack; valid if known and bounded
	known   bool      // ceiling was read
	bounded bool      // there is a next pack
	begun   bool
	steady  bool          // the last pack came after the one before it
	sweep   *sqlite3.Stmt // whose row is the pack at floor, or at ceiling if it is known; nil = none
	ahead   pack          // the pack at ceiling, in a sweep
}

// to moves to the pack of a key, and returns the index of the key's output in it.
func (f *cursor) to(key store.Key) (i int, ok bool, err error) {
	if f.begun && f.floor.Compare(key) <= 0 {
		if f.has && compareKeys(f.pack.last(), key) >= 0 {
			i, ok = f.here(key)
			return i, ok, nil
		}
		if err := f.peek(); err != nil {
			return 0, false, err
		}
		if !f.bounded || f.ceiling.Compare(key) > 0 {
			return 0, false, nil
		}
	}
	if !f.advance(key) {
		if err := f.begin(key); err != nil || !f.has {
			return 0, false, err
		}
	}
	i, ok = f.here(key)
	return i, ok, nil
}

// peek reads where the next pack begins, and in a sweep the whole pack.
func (f *cursor) peek() (err error) {
	if f.known {
		return nil
	}
	if f.known = true; !f.sweeps || !f.steady {
		f.ceiling, f.bounded, err = f.conn.beginning(selectAfter, f.action, f.floor)
		return err
	}
	if f.sweep == nil {
		if f.sweep, err = f.conn.prepare(selectAllAfter, f.action, f.floor.Order, f.floor.Chunk[:]); err != nil {
			return err
		}
	}
	if f.bounded = f.sweep.Step(); !f.bounded {
		return f.sweep.Err()
	}
	p := &f.conn.pack
	readPack(f.sweep, p)
	f.ahead.copy(p)
	setKey(&f.ceiling, p)
	return nil
}

// advance moves to the next pack if it was read and the key is not behind it.
func (f *cursor) advance(key store.Key) bool {
	if f.sweep == nil || !f.known || !f.bounded || f.ceiling.Compare(key) > 0 || compareKeys(f.ahead.last(), key) < 0 {
		return false
	}
	f.pack, f.ahead = f.ahead, f.pack
	f.floor, f.ceiling = f.ceiling, f.floor
	f.has, f.known, f.next = true, false, 0
	return true
}

// begin reads the pack that a key is in, or would be in.
func (f *cursor) begin(key store.Key) error {
	f.end()
	follows := f.begun && f.known && f.bounded
	f.begun, f.known, f.has, f.next = true, false, false, 0
	f.floor.Order = append(f.floor.Order[:0], key.Order...)
	f.floor.Chunk = key.Chunk
	err := f.conn.packOf(f.action, key, func(p *pack) {
		f.has = true
		f.pack.copy(p)
		setKey(&f.floor, p)
	})
	f.steady = follows && f.floor.Compare(f.ceiling) == 0
	return err
}

// end ends a sweep. A statement that is not reset would keep its transaction open.
func (f *cursor) end() {
	if f.sweep != nil {
		f.sweep.Reset() // its error was returned by the last step
		f.sweep = nil
	}
}

// setKey makes key the first key of a pack.
func setKey(key *store.Key, p *pack) {
	key.Order = append(key.Order[:0], p.order...)
	copy(key.Chunk[:], p.chunk)
}

// here looks for a key in the pack.
func (f *cursor) here(key store.Key) (i int, ok bool) {
	if i = f.next; i >= len(f.pack.slots) || compareKeys(f.pack.row(i), key) != 0 {
		if i, ok = f.pack.find(key); !ok {
			return 0, false
		}
	}
	f.next = i + 1
	return i, true
}
