package sqlite

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// maxTail is how many entries of the log are searched in memory before they
// are moved into the table chunks: some 20 MB.
const maxTail = 1 << 18

// maxScans is how often a process goes through a log that is longer than that
// for a single chunk, which may be one that is mistaken for another, before it
// moves it. A scan of 10 million entries takes about a second, and moving them
// a minute.
const maxScans = 8

// moveAtOnce bounds the entries that are sorted and moved in one transaction.
const moveAtOnce = 1 << 20

// shelf is what a process knows of one action: which chunks it has, up to a
// batch of the log. It may know chunks that are gone or were never committed,
// so what it has must be looked up; what it does not have is not there.
type shelf struct {
	mu    sync.Mutex
	id    int64
	last  int64 // batch of the log up to which seen is complete
	seen  *seen
	tail  tail // nil = not read yet
	long  int  // entries in tail
	scans int  // of a log that is too long for tail
}

// entry is one output in the log.
type entry struct {
	prefix uint64
	order  []byte
}

// position is where an action stands in the file.
type position struct{ id, indexed int64 }

func entryOf(r *store.Record) entry { return entry{prefixOf(r.Chunk), r.Order} }

func prefixOf(chunk store.Digest) uint64 { return binary.LittleEndian.Uint64(chunk[:]) }

func (db *database) shelf(action store.Action) *shelf {
	db.mu.Lock()
	defer db.mu.Unlock()
	h := db.shelves[action]
	if h == nil {
		h = &shelf{seen: &seen{}}
		db.shelves[action] = h
	}
	return h
}

// locate returns where the action stands; ok is false where it has nothing.
func (c *conn) locate(action store.Action) (p position, ok bool, err error) {
	ok, err = c.ints("select id, indexed from actions where digest=?", []*int64{&p.id, &p.indexed}, action[:])
	return p, ok, err
}

// catchUp reads what others have added. c is in a transaction.
func (h *shelf) catchUp(c *conn, p position) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.id < h.id { // c sees an action from before it was deleted and came again
		return nil
	}
	if h.id != p.id {
		h.id, h.last, h.tail, h.long, h.seen = p.id, 0, nil, 0, &seen{}
	}
	if p.indexed > h.last {
		if err := h.readIndex(c); err != nil {
			return err
		}
		h.last = p.indexed
	}
	last, err := c.eachBatch(p.id, h.last, func(_ int64, entries []entry) bool {
		for _, e := range entries {
			h.add(e)
		}
		return true
	})
	h.last = max(h.last, last)
	return err
}

// add notes an output. h.mu is held.
func (h *shelf) add(e entry) {
	h.seen.add(e.prefix)
	if h.tail != nil {
		h.tail[e.prefix] = append(h.tail[e.prefix], e.order)
		if h.long++; h.long > maxTail { // whoever needs it finds that it is too long
			h.tail, h.long = nil, 0
		}
	}
}

func (h *shelf) has(prefix uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen.has(prefix)
}

// expect notes outputs that are not committed yet, and returns the indices of
// those that were known before.
func (h *shelf) expect(records []store.Record) (known []int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range records {
		if !h.seen.add(prefixOf(records[i].Chunk)) {
			known = append(known, i)
		}
	}
	return known
}

func (h *shelf) latest() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

func (h *shelf) readIndex(c *conn) error {
	stmt, err := c.prepare("select prefix from chunks where action=?", h.id)
	if err != nil {
		return err
	}
	defer stmt.Reset()
	for stmt.Step() {
		h.seen.add(uint64(stmt.ColumnInt64(0)))
	}
	return stmt.Err()
}

// eachBatch calls f with the batches of the log after a sequence number, until
// it says no, and returns the last one's number. f keeps the entries.
func (c *conn) eachBatch(action, after int64, f func(seq int64, entries []entry) bool) (last int64, err error) {
	stmt, err := c.prepare("select seq, entries from batches where action=? and seq>? order by seq", action, after)
	if err != nil {
		return 0, err
	}
	defer stmt.Reset()
	for stmt.Step() {
		seq := stmt.ColumnInt64(0)
		entries, ok := parseEntries(stmt.ColumnBlob(1, nil))
		if !ok {
			return last, fmt.Errorf("%w: batch %d of action %d", errDamaged, seq, action)
		}
		last = seq
		if !f(seq, entries) {
			break
		}
	}
	return last, stmt.Err()
}

// appendEntry writes an entry: prefix, length of the order, order.
func appendEntry(b []byte, e entry) []byte {
	b = binary.LittleEndian.AppendUint64(b, e.prefix)
	b = binary.AppendUvarint(b, uint64(len(e.order)))
	return append(b, e.order...)
}

// sealEntries puts a checksum behind the entries of a batch.
func sealEntries(b []byte) []byte {
	sum := sha256.Sum256(b)
	return append(b, sum[:8]...)
}

// parseEntries returns the entries of a sealed batch, as views into it.
func parseEntries(b []byte) (entries []entry, ok bool) {
	if len(b) < 8 {
		return nil, false
	}
	b, seal := b[:len(b)-8], b[len(b)-8:]
	if sum := sha256.Sum256(b); !bytes.Equal(sum[:8], seal) {
		return nil, false
	}
	for len(b) > 0 {
		if len(b) < 8 {
			return nil, false
		}
		prefix := binary.LittleEndian.Uint64(b)
		n, width := binary.Uvarint(b[8:])
		if width <= 0 || n > uint64(len(b)-8-width) {
			return nil, false
		}
		end := 8 + width + int(n)
		entries = append(entries, entry{prefix, b[8+width : end : end]})
		b = b[end:]
	}
	return entries, true
}

// tail is the log that is not in chunks yet, by prefix. A shelf's is guarded
// by its mu.
type tail map[uint64][][]byte

// readTail returns the tail of the log. long says that it is too long for that
// and must be moved first.
func (h *shelf) readTail(c *conn, p position) (t tail, long bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tail != nil && h.id == p.id {
		return h.tail, h.long > maxTail, nil
	}
	var count int64
	if _, err := c.ints("select coalesce(sum(count), 0) from batches where action=? and seq>?", []*int64{&count}, p.id, p.indexed); err != nil {
		return nil, false, err
	}
	if count > maxTail {
		return nil, true, nil
	}
	t = tail{}
	last, err := c.eachBatch(p.id, p.indexed, func(_ int64, entries []entry) bool {
		for _, e := range entries {
			t[e.prefix] = append(t[e.prefix], e.order)
		}
		return true
	})
	if err != nil {
		return nil, false, err
	}
	// What c sees may be older than what is known; then others cannot use it.
	if h.id == p.id && max(last, p.indexed) >= h.last {
		h.tail, h.long = t, int(count)
	}
	return t, false, nil
}

// moveTail moves the log into the index, sorted, so that every page of it is
// written once. c is outside of a transaction.
func (h *shelf) moveTail(c *conn, action store.Action) error {
	for more := true; more; {
		err := c.transaction("begin immediate", func() error {
			p, ok, err := c.locate(action)
			if err != nil || !ok {
				more = false
				return err
			}
			if err := h.catchUp(c, p); err != nil {
				return err
			}
			more, err = c.moveBatches(p)
			return err
		})
		if err != nil {
			return err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tail, h.long = nil, 0
	return nil
}

func (c *conn) moveBatches(p position) (more bool, err error) {
	var all []entry
	last, err := c.eachBatch(p.id, p.indexed, func(_ int64, entries []entry) bool {
		all = append(all, entries...)
		more = len(all) >= moveAtOnce
		return !more
	})
	if err != nil || len(all) == 0 {
		return false, err
	}
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(cmp.Compare(int64(a.prefix), int64(b.prefix)), bytes.Compare(a.order, b.order))
	})
	for _, e := range all {
		if err := c.exec("insert or ignore into chunks values(?, ?, ?)", p.id, int64(e.prefix), e.order); err != nil {
			return false, err
		}
	}
	if err := c.exec("delete from batches where action=? and seq<=?", p.id, last); err != nil {
		return false, err
	}
	return more, c.exec("update actions set indexed=? where id=?", last, p.id)
}

// scan returns under which orders the log has a chunk with the prefix. moved
// says that it was gone through often enough, and is to be moved instead.
func (h *shelf) scan(c *conn, p position, prefix uint64) (orders [][]byte, moved bool, err error) {
	h.mu.Lock()
	h.scans++
	moved = h.scans > maxScans
	if moved {
		h.scans = 0
	}
	h.mu.Unlock()
	if moved {
		return nil, true, nil
	}
	_, err = c.eachBatch(p.id, p.indexed, func(_ int64, entries []entry) bool {
		for _, e := range entries {
			if e.prefix == prefix {
				orders = append(orders, append([]byte{}, e.order...))
			}
		}
		return true
	})
	return orders, false, err
}

// lookUp returns under which orders a chunk with the prefix may be. long says
// that the log must be moved first.
func (h *shelf) lookUp(c *conn, p position, t *tail, prefix uint64) (orders [][]byte, long bool, err error) {
	if *t == nil {
		if *t, long, err = h.readTail(c, p); err != nil {
			return nil, false, err
		}
	}
	var scanned [][]byte
	if long {
		if scanned, long, err = h.scan(c, p, prefix); err != nil || long {
			return nil, long, err
		}
	}
	orders, err = h.orders(c, p, *t, prefix)
	return append(orders, scanned...), false, err
}

// orders returns under which orders a chunk with the prefix may be. c is in
// the transaction that the tail of p was read in.
func (h *shelf) orders(c *conn, p position, t tail, prefix uint64) (orders [][]byte, err error) {
	h.mu.Lock()
	orders = slices.Clone(t[prefix])
	h.mu.Unlock()
	if p.indexed == 0 {
		return orders, nil
	}
	stmt, err := c.prepare("select ord from chunks where action=? and prefix=?", p.id, int64(prefix))
	if err != nil {
		return nil, err
	}
	defer stmt.Reset()
	for stmt.Step() {
		orders = append(orders, stmt.ColumnBlob(0, nil))
	}
	return orders, stmt.Err()
}
