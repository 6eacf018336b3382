package sqlite

import (
	"sync"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// actionIndex knows the chunks of an action, in this process. At first, chunks are
// looked up in the file one by one. Once it pays to read all entries, the filter
// has all chunks, and a chunk that is not in it is new without a look-up. It may
// have chunks that were deleted or never committed, so a chunk in the filter must
// still be looked up.
type actionIndex struct {
	few    int64 // if there are at most so many entries, all are read at once
	merges bool  // batches may be merged
	mu     sync.Mutex
	id     int64
	filter *digestFilter // nil until the entries were read
	last   int64         // number of the last batch in filter
	missed int64         // pages that look-ups read without the filter
	found  int64         // pages that look-ups read with the filter
}

// The cost of a look-up on a page compared with that of reading or merging an entry,
// as measured: a look-up takes 6 us, and an entry 50 ns to be read into the filter
// and 250 ns to be merged. Reading or merging all entries begins when the look-ups
// so far have cost as much, so it at most doubles the cost.
const (
	entriesForLook = 128
	mergedForLook  = 24
	// fewEntries is the default of Options.fewEntries.
	fewEntries = 4096
	// fewBatches or fewer are not worth merging.
	fewBatches = 4
)

func (db *database) index(action store.Action) *actionIndex {
	db.mu.Lock()
	defer db.mu.Unlock()
	x := db.indexes[action]
	if x == nil {
		x = &actionIndex{few: db.store.options.fewEntries, merges: !db.store.options.ReadOnly}
		db.indexes[action] = x
	}
	return x
}

// locate returns the row id of an action; ok is false if the store does not have it.
func (c *conn) locate(action store.Action) (id int64, ok bool, err error) {
	ok, err = c.ints("select id from actions where digest=?", []*int64{&id}, action[:])
	return id, ok, err
}

// actionView is an action as a transaction sees it.
type actionView struct {
	conn    *conn
	index   *actionIndex
	id      int64
	batches []batch
	read    bool // batches is valid
	current bool // index has all chunks that the transaction sees
}

// look returns an action as c sees it, which is in a transaction.
func (x *actionIndex) look(c *conn, id int64) actionView {
	return actionView{conn: c, index: x, id: id}
}

// list returns the batches of the action.
func (v *actionView) list() (_ []batch, err error) {
	if !v.read {
		v.batches, err = v.conn.batches(v.id, 0)
		v.read = err == nil
	}
	return v.batches, err
}

// catchUp makes the index complete, if that pays for so many chunks to be looked up.
// It returns false if it does not.
func (v *actionView) catchUp(chunks int) (complete bool, err error) {
	if v.current {
		return true, nil
	}
	x := v.index
	x.mu.Lock()
	defer x.mu.Unlock()
	if v.id < x.id { // the transaction sees the action as it was before it was deleted and created again
		return false, nil
	}
	if v.id > x.id {
		x.id, x.filter, x.last, x.missed, x.found = v.id, nil, 0, 0, 0
	}
	var added []batch
	if x.filter != nil {
		added, err = v.conn.batches(v.id, x.last)
	} else if added, err = v.list(); err == nil && !x.worthReading(added, chunks) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	filter := x.filter
	if filter == nil {
		filter = &digestFilter{}
	}
	if err := v.conn.eachEntry(added, func(e entry) { filter.add(e.prefix) }); err != nil {
		return false, err
	}
	x.filter = filter
	if len(added) > 0 {
		x.last = added[len(added)-1].seq
	}
	v.current = true
	return true, nil
}

// worthReading reports whether reading all entries of some batches costs less than
// the look-ups so far and those for so many chunks.
func (x *actionIndex) worthReading(batches []batch, chunks int) bool {
	entries := entriesIn(batches)
	return entries <= x.few || (x.missed+int64(chunks)*int64(len(batches)))*entriesForLook > entries
}

func entriesIn(batches []batch) (n int64) {
	for i := range batches {
		n += batches[i].count
	}
	return n
}

func (x *actionIndex) has(prefix uint64) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.filter.has(prefix)
}

// expect adds outputs that are not committed yet, and returns the indices of those
// that the filter had before.
func (x *actionIndex) expect(records []store.Record) (known []int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range records {
		if !x.filter.add(prefixOf(records[i].Chunk)) {
			known = append(known, i)
		}
	}
	return known
}

// committed records that the filter has all batches up to seq.
func (x *actionIndex) committed(id, seq int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.id == id { // if not, the action was deleted and created again
		x.last = max(x.last, seq)
	}
}

// orders returns the orders under which a chunk with the prefix may be stored. If
// merge is true, the batches should be merged first.
func (v *actionView) orders(prefix uint64) (orders [][]byte, merge bool, err error) {
	batches, err := v.list()
	if err != nil || v.index.worthMerging(batches) {
		return nil, err == nil, err
	}
	orders, looks, err := v.conn.orders(batches, prefix)
	v.index.mu.Lock()
	defer v.index.mu.Unlock()
	if v.current {
		v.index.found += int64(looks)
	} else {
		v.index.missed += int64(looks)
	}
	return orders, false, err
}

// worthMerging reports whether merging some batches costs less than the look-ups in
// them so far.
func (x *actionIndex) worthMerging(batches []batch) bool {
	if !x.merges || len(batches) <= fewBatches {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.found*mergedForLook > entriesIn(batches)
}

// mergeAll merges all batches of an action into one. c must not be in a transaction.
func (x *actionIndex) mergeAll(c *conn, action store.Action) error {
	var id, seq int64
	err := c.transaction("begin immediate", func() error {
		v, complete, err := x.locate(c, action)
		if err != nil || v == nil {
			return err
		}
		batches, err := v.list()
		if err != nil || len(batches) < 2 {
			return err
		}
		if merged, err := c.merge(v.id, batches); err != nil {
			return err
		} else if complete {
			id, seq = v.id, merged
		}
		return nil
	})
	if err != nil {
		return err
	}
	x.mu.Lock()
	x.found = 0
	x.mu.Unlock()
	x.committed(id, seq)
	return nil
}

// locate returns an action as c sees it, nil if the store does not have it, and
// whether the index is complete.
func (x *actionIndex) locate(c *conn, action store.Action) (v *actionView, complete bool, err error) {
	id, ok, err := c.locate(action)
	if err != nil || !ok {
		return nil, false, err
	}
	view := x.look(c, id)
	complete, err = view.catchUp(0)
	return &view, complete, err
}
