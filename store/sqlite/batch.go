package sqlite

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// batch has an entry for each output that one commit, or several whose batches were
// merged, added to an action: the first 6 bytes of its chunk's digest, and its
// order. These bytes are uniform, and the entries are spread over n pages by them:
// page i has those from i/n of their range on, so a chunk is looked up on one page.
// A small batch has its entries in its own row.
type batch struct {
	seq, count   int64
	size         int64  // of the entries, in bytes
	first, pages int64  // id of the first row in the table batch_pages, and number of rows
	entries      []byte // sealed; only if there are no pages
}

// entry is one output in a batch.
type entry struct {
	prefix uint64 // the digest's first 6 bytes, from the top; the others are 0
	order  []byte
}

// prefixSize is how many bytes of a digest an entry has. With ten million chunks
// stored, one in 28 million other chunks has the prefix of a stored one.
const prefixSize = 6

const (
	// entriesSize is how many bytes the entries of a page take on average: a row
	// rarely overflows its page, and leaves little of it free.
	entriesSize = 3500
	// inlineSize bounds the entries of a batch without pages, so that its row does
	// not overflow.
	inlineSize = 900
	sealSize   = 8
)

func entryOf(r *store.Record) entry { return entry{prefixOf(r.Chunk), r.Order} }

func prefixOf(chunk store.Digest) uint64 {
	return binary.BigEndian.Uint64(chunk[:]) >> (64 - 8*prefixSize) << (64 - 8*prefixSize)
}

// pageOf returns the page that a prefix is on, if there are so many pages.
func pageOf(prefix uint64, pages int64) int64 {
	page, _ := bits.Mul64(prefix, uint64(pages))
	return int64(page)
}

// appendEntry writes an entry: prefix, length of the order, order.
func appendEntry(b []byte, e entry) []byte {
	var prefix [8]byte
	binary.BigEndian.PutUint64(prefix[:], e.prefix)
	b = append(b, prefix[:prefixSize]...)
	b = binary.AppendUvarint(b, uint64(len(e.order)))
	return append(b, e.order...)
}

// sealEntries appends a checksum to entries.
func sealEntries(b []byte) []byte {
	sum := sha256.Sum256(b)
	return append(b, sum[:sealSize]...)
}

// unseal removes the checksum; ok is false if it does not match.
func unseal(b []byte) (entries []byte, ok bool) {
	if len(b) < sealSize {
		return nil, false
	}
	entries, seal := b[:len(b)-sealSize], b[len(b)-sealSize:]
	sum := sha256.Sum256(entries)
	return entries, bytes.Equal(sum[:sealSize], seal)
}

// eachEntry calls f with the entries of a sealed row, as views into it. It returns
// false if the row is damaged.
func eachEntry(b []byte, f func(entry)) (ok bool) {
	if b, ok = unseal(b); !ok {
		return false
	}
	for len(b) > 0 {
		e, size := cutEntry(b)
		if size == 0 {
			return false
		}
		f(e)
		b = b[size:]
	}
	return true
}

// cutEntry returns the first entry of b and its size, which is 0 if there is none.
func cutEntry(b []byte) (e entry, size int) {
	if len(b) <= prefixSize {
		return e, 0
	}
	n, width := uint64(b[prefixSize]), 1
	if n >= 1<<7 {
		n, width = binary.Uvarint(b[prefixSize:])
	}
	if width <= 0 || n > uint64(len(b)-prefixSize-width) {
		return e, 0
	}
	size = prefixSize + width + int(n)
	e.order = b[prefixSize+width : size : size]
	e.prefix = uint64(b[0])<<56 | uint64(b[1])<<48 | uint64(b[2])<<40 | uint64(b[3])<<32 | uint64(b[4])<<24 | uint64(b[5])<<16
	return e, size
}

// batches returns the batches of an action with numbers above after, in order.
func (c *conn) batches(action, after int64) (all []batch, err error) {
	err = c.rows(func(r *columns) {
		all = append(all, batch{seq: r.int(), count: r.int(), size: r.int(), first: r.int(), pages: r.int(), entries: r.blob()})
	}, "select seq, count, size, first, pages, entries from batches where action=? and seq>? order by seq", action, after)
	return all, err
}

// entriesOf calls f with the entries on a page of a batch; they are valid until
// f returns.
func (c *conn) entriesOf(b *batch, page int64, f func(entry)) error {
	if b.pages == 0 {
		if !eachEntry(b.entries, f) {
			return fmt.Errorf("%w: batch %d", errDamaged, b.seq)
		}
		return nil
	}
	stmt, err := c.prepare("select entries from batch_pages where id=?", b.first+page)
	if err != nil {
		return err
	}
	defer stmt.Reset()
	if stmt.Step() {
		if !eachEntry(stmt.ColumnRawBlob(0), f) {
			return fmt.Errorf("%w: page %d of batch %d", errDamaged, page, b.seq)
		}
		return nil
	}
	if err := stmt.Err(); err != nil {
		return err
	}
	return fmt.Errorf("%w: page %d of batch %d is missing", errDamaged, page, b.seq)
}

// eachEntry calls f with the entries of some batches; they are valid until f
// returns.
func (c *conn) eachEntry(batches []batch, f func(entry)) error {
	for i := range batches {
		for page := range max(batches[i].pages, 1) {
			if err := c.entriesOf(&batches[i], page, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// orders returns the orders of the entries with a prefix in some batches, and how
// many pages were read.
func (c *conn) orders(batches []batch, prefix uint64) (orders [][]byte, looks int, err error) {
	for i := range batches {
		b := &batches[i]
		err := c.entriesOf(b, pageOf(prefix, b.pages), func(e entry) {
			if e.prefix == prefix {
				orders = append(orders, bytes.Clone(e.order))
			}
		})
		if err != nil {
			return nil, looks, err
		}
		if b.pages > 0 {
			looks++
		}
	}
	return orders, looks, nil
}

// batchWriter writes one batch page by page.
type batchWriter struct {
	conn   *conn
	action int64
	batch
}

// newBatch begins a batch of entries of size bytes. Its number is the one after the
// action's last.
func (c *conn) newBatch(action int64, size int64) (w *batchWriter, err error) {
	w = &batchWriter{conn: c, action: action}
	if size > inlineSize {
		w.pages = (size + entriesSize - 1) / entriesSize
	}
	if _, err := c.ints("select coalesce(max(seq), 0)+1 from batches where action=?", []*int64{&w.seq}, action); err != nil {
		return nil, err
	}
	_, err = c.ints("select coalesce(max(id), 0)+1 from batch_pages", []*int64{&w.first})
	return w, err
}

// add writes the next page.
func (w *batchWriter) add(page int64, count int, entries []byte) error {
	w.count, w.size = w.count+int64(count), w.size+int64(len(entries))
	if w.pages == 0 {
		w.entries = sealEntries(entries)
		return nil
	}
	return w.conn.exec("insert into batch_pages values(?, ?)", w.first+page, sealEntries(entries))
}

func (w *batchWriter) close() error {
	if w.pages == 0 {
		w.first = 0
	}
	return w.conn.exec("insert into batches values(?, ?, ?, ?, ?, ?, ?)", w.action, w.seq, w.count, w.size, w.first, w.pages, w.entries)
}

// addBatch writes a batch of entries, encoded by appendEntry, and returns its number.
func (c *conn) addBatch(action int64, entries []byte) (seq int64, err error) {
	w, err := c.newBatch(action, int64(len(entries)))
	if err != nil {
		return 0, err
	}
	pages, counts := partition(entries, int(max(w.pages, 1)))
	for i, page := range pages {
		if err := w.add(int64(i), counts[i], page); err != nil {
			return 0, err
		}
	}
	return w.seq, w.close()
}

// partition sorts entries into n pages, each with room for a seal, and returns them
// with the number of entries on each.
func partition(entries []byte, n int) (pages [][]byte, counts []int) {
	pages, counts = make([][]byte, n), make([]int, n)
	sizes := make([]int, n)
	for b := entries; len(b) > 0; {
		e, size := cutEntry(b)
		page := pageOf(e.prefix, int64(n))
		counts[page]++
		sizes[page] += size
		b = b[size:]
	}
	all := make([]byte, len(entries)+n*sealSize)
	at := 0
	for i, size := range sizes {
		pages[i] = all[at : at : at+size+sealSize]
		at += size + sealSize
	}
	for b := entries; len(b) > 0; {
		e, size := cutEntry(b)
		page := &pages[pageOf(e.prefix, int64(n))]
		*page = append(*page, b[:size]...)
		b = b[size:]
	}
	return pages, counts
}

// mergeSource reads the entries of a batch in the order of their prefixes.
type mergeSource struct {
	batch   batch
	page    int64 // the next one
	entries []entry
}

// fill reads the next page that has entries.
func (s *mergeSource) fill(c *conn) error {
	for len(s.entries) == 0 && s.page < max(s.batch.pages, 1) {
		s.entries = s.entries[:0]
		orders := make([]byte, 0, 2*entriesSize) // a new one: entries taken before keep theirs
		err := c.entriesOf(&s.batch, s.page, func(e entry) {
			orders = append(orders, e.order...)
			s.entries = append(s.entries, entry{e.prefix, orders[len(orders)-len(e.order):]})
		})
		if err != nil {
			return err
		}
		slices.SortFunc(s.entries, compareEntries)
		s.page++
	}
	return nil
}

func compareEntries(a, b entry) int {
	return cmp.Or(cmp.Compare(a.prefix, b.prefix), bytes.Compare(a.order, b.order))
}

// merge replaces several batches of an action by one, which it writes page by page.
// It returns the number of the new batch.
func (c *conn) merge(action int64, from []batch) (seq int64, err error) {
	size := int64(0)
	sources := make([]mergeSource, len(from))
	for i := range from {
		sources[i].batch = from[i]
		size += from[i].size
	}
	w, err := c.newBatch(action, size)
	if err != nil {
		return 0, err
	}
	var b []byte
	for page := range max(w.pages, 1) {
		var entries []entry
		for i := range sources {
			if entries, err = sources[i].take(c, entries, page, w.pages); err != nil {
				return 0, err
			}
		}
		slices.SortFunc(entries, compareEntries)
		entries = slices.CompactFunc(entries, func(a, b entry) bool { return compareEntries(a, b) == 0 })
		b = b[:0]
		for _, e := range entries {
			b = appendEntry(b, e)
		}
		if err := w.add(page, len(entries), b); err != nil {
			return 0, err
		}
	}
	if err := w.close(); err != nil {
		return 0, err
	}
	return w.seq, c.removeBatches(action, from)
}

// take appends the source's entries that belong on a page, if there are so many
// pages.
func (s *mergeSource) take(c *conn, to []entry, page, pages int64) ([]entry, error) {
	for {
		if err := s.fill(c); err != nil || len(s.entries) == 0 {
			return to, err
		}
		n := 0
		for n < len(s.entries) && pageOf(s.entries[n].prefix, pages) <= page {
			n++
		}
		to = append(to, s.entries[:n]...)
		if s.entries = s.entries[n:]; len(s.entries) > 0 {
			return to, nil
		}
	}
}

// removeBatches deletes batches and their pages.
func (c *conn) removeBatches(action int64, batches []batch) error {
	for i := range batches {
		b := &batches[i]
		if err := c.exec("delete from batch_pages where id>=? and id<?", b.first, b.first+b.pages); err != nil {
			return err
		}
		if err := c.exec("delete from batches where action=? and seq=?", action, b.seq); err != nil {
			return err
		}
	}
	return nil
}

// mergeLevels says when batches are merged: so many batches, each with fewer entries
// than count, become one of the next level. So a look-up reads few pages, however
// many commits there were, and an entry is rewritten a few times at most. A job of a
// million tiny chunks makes about a hundred batches of the last level, which are
// merged when there are 256, or earlier if there are enough look-ups to pay for it.
var mergeLevels = []struct{ count, batches int64 }{{8, 16}, {128, 16}, {2048, 16}, {1 << 16, 256}}

// mergeEvery is the number of batches after which mergeSome is called.
const mergeEvery = 16

// mergeSome merges the levels of an action that are full.
func (c *conn) mergeSome(action int64) (last int64, err error) {
	all, err := c.batches(action, 0)
	if err != nil {
		return 0, err
	}
	low := int64(0)
	for _, level := range mergeLevels {
		var some []batch
		for _, b := range all {
			if b.count >= low && b.count < level.count {
				some = append(some, b)
			}
		}
		if low = level.count; int64(len(some)) < level.batches {
			continue
		}
		if last, err = c.merge(action, some); err != nil {
			return 0, err
		}
		if all, err = c.batches(action, 0); err != nil {
			return 0, err
		}
	}
	return last, nil
}
