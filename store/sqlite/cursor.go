package sqlite

import "github.com/wasm-jobs/wasm-jobs/store"

// cursor finds outputs in the packs of an action. For ascending keys it reads each
// pack once.
type cursor struct {
	conn   *conn
	action int64

	pack    pack      // a copy of the pack that begins at floor, if has is true
	has     bool      // there is such a pack; if not, floor is the key that was looked for
	next    int       // index of the output that is likely to be looked for next
	floor   store.Key // the cursor knows all outputs from here
	ceiling store.Key // to here, the start of the next pack; valid if known and bounded
	known   bool      // ceiling was read
	bounded bool      // there is a next pack
	begun   bool
}

// to moves to the pack of a key, and returns the index of the key's output in it.
func (f *cursor) to(key store.Key) (i int, ok bool, err error) {
	if f.begun && f.floor.Compare(key) <= 0 {
		if f.has && compareKeys(f.pack.last(), key) >= 0 {
			i, ok = f.here(key)
			return i, ok, nil
		}
		if !f.known {
			if f.ceiling, f.bounded, err = f.conn.beginning(selectAfter, f.action, f.floor); err != nil {
				return 0, false, err
			}
			f.known = true
		}
		if !f.bounded || f.ceiling.Compare(key) > 0 {
			return 0, false, nil
		}
	}
	if err := f.begin(key); err != nil || !f.has {
		return 0, false, err
	}
	i, ok = f.here(key)
	return i, ok, nil
}

// begin reads the pack that a key is in, or would be in.
func (f *cursor) begin(key store.Key) error {
	f.begun, f.known, f.has, f.next = true, false, false, 0
	f.floor.Order = append(f.floor.Order[:0], key.Order...)
	f.floor.Chunk = key.Chunk
	return f.conn.packOf(f.action, key, func(p *pack) {
		f.has = true
		f.pack.copy(p)
		f.floor.Order = append(f.floor.Order[:0], p.order...)
		copy(f.floor.Chunk[:], p.chunk)
	})
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
