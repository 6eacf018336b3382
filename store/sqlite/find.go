package sqlite

import "github.com/wasm-jobs/wasm-jobs/store"

// finder finds outputs in the packs of an action. For keys that ascend it looks
// at the file once a pack.
type finder struct {
	conn *conn
	at   position

	pack    pack      // a copy; that of floor, where has is true
	has     bool      // there is a pack that begins at floor; else there is nothing from it on
	next    int       // output of the pack at which the search is likely to go on
	floor   store.Key // the finder knows what is from it on,
	ceiling store.Key // and to here, where bounded is true; once known is
	known   bool
	bounded bool
	begun   bool
}

// to returns which output of the finder's pack has a key.
func (f *finder) to(key store.Key) (i int, ok bool, err error) {
	if f.begun && f.floor.Compare(key) <= 0 {
		if f.has && compareKeys(f.pack.last(), key) >= 0 {
			i, ok = f.here(key)
			return i, ok, nil
		}
		if !f.known {
			if f.ceiling, f.bounded, err = f.conn.beginning(selectAfter, f.at, f.floor); err != nil {
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

// begin takes the pack that a key lies in, or would.
func (f *finder) begin(key store.Key) error {
	f.begun, f.known, f.has, f.next = true, false, false, 0
	f.floor.Order = append(f.floor.Order[:0], key.Order...)
	f.floor.Chunk = key.Chunk
	return f.conn.packOf(f.at, key, func(p *pack) {
		f.has = true
		f.pack.copy(p)
		f.floor.Order = append(f.floor.Order[:0], p.order...)
		copy(f.floor.Chunk[:], p.chunk)
	})
}

// here looks for a key in the pack.
func (f *finder) here(key store.Key) (i int, ok bool) {
	if i = f.next; i >= len(f.pack.places) || compareKeys(f.pack.row(i), key) != 0 {
		if i, ok = f.pack.find(key); !ok {
			return 0, false
		}
	}
	f.next = i + 1
	return i, true
}
