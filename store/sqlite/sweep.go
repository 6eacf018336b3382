package sqlite

import (
	"github.com/ncruces/go-sqlite3"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// maxSkip is how many packs a sweep steps over on the way to a key before it
// looks the key up instead.
const maxSkip = 2

// sweep goes through the packs of an action in ascending order.
type sweep struct {
	conn  *conn
	at    position
	stmt  *sqlite3.Stmt // nil before begin
	pack  pack          // valid until the next step
	has   bool          // it stands on a pack, and has not come to the end
	next  int           // output of the pack at which find is likely to go on
	floor store.Key     // between it and the pack there is nothing
}

func (s *sweep) close() {
	if s.stmt != nil {
		s.stmt.Reset()
	}
}

// begin stands on the pack that a key lies in or, where there is none, on the
// first one after it.
func (s *sweep) begin(key store.Key) error {
	first, ok, err := s.conn.beginning(selectBefore, s.at, key)
	if err != nil {
		return err
	}
	if !ok {
		first = key
	}
	s.setFloor(first.Order, first.Chunk[:])
	s.stmt, err = s.conn.prepare("select ord, chunk, places, body from packs where action=? and (ord, chunk)>=(?, ?) order by ord, chunk",
		s.at.id, first.Order, first.Chunk[:])
	if err != nil {
		return err
	}
	return s.step()
}

// step goes on to the next pack. It must stand on one.
func (s *sweep) step() error {
	s.next = 0
	if s.has = s.stmt.Step(); !s.has {
		return s.stmt.Err()
	}
	readPack(s.stmt, &s.pack)
	return nil
}

func (s *sweep) setFloor(order, chunk []byte) {
	s.floor.Order = append(s.floor.Order[:0], order...)
	copy(s.floor.Chunk[:], chunk)
}

// to returns which output of the pack has a key. Keys that ascend are found
// without a search.
func (s *sweep) to(key store.Key) (i int, ok bool, err error) {
	for skipped := 0; s.stmt != nil && s.floor.Compare(key) <= 0; skipped++ {
		if !s.has || compareKeys(row{order: s.pack.order, chunk: s.pack.chunk}, key) > 0 {
			return 0, false, nil
		}
		if i, ok = s.here(key); ok {
			return i, true, nil
		}
		last := s.pack.last()
		if compareKeys(last, key) > 0 {
			return 0, false, nil
		}
		if skipped == maxSkip {
			break
		}
		s.setFloor(last.order, last.chunk)
		if err := s.step(); err != nil {
			return 0, false, err
		}
	}
	if err := s.begin(key); err != nil || !s.has {
		return 0, false, err
	}
	i, ok = s.here(key)
	return i, ok, nil
}

// here looks for a key in the pack.
func (s *sweep) here(key store.Key) (i int, ok bool) {
	if i = s.next; i >= len(s.pack.places) || compareKeys(s.pack.row(i), key) != 0 {
		if i, ok = s.pack.find(key); !ok {
			return 0, false
		}
	}
	s.next = i + 1
	return i, true
}
