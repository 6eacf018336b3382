package sqlite

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// request is a Put or another task for the committer.
type request struct {
	action    store.Action
	records   []store.Record
	packs     []packed                           // of the records, if their keys ascend, else nil; the caller makes them, to unburden the committer
	log       []byte                             // entries of the records; set if packs is
	merge     bool                               // merge the action's batches instead of putting
	clean     []store.Key                        // first keys of packs that have damaged outputs
	compact   bool                               // give free space back, in a group of its own
	ctx       context.Context                    // ends compact
	record    func(*transaction, *request) error // changes the records of jobs, and puts the outputs if there are any
	bytes     int
	conflicts []error
	stored    int // records that are new
	err       error
	taken     atomic.Bool // by the committer, or by a caller that withdrew it
	done      chan struct{}
}

// Put implements [store.Store]. Puts of several goroutines share a commit.
func (s *Store) Put(ctx context.Context, action store.Action, records []store.Record) error {
	return s.submit(ctx, newPut(action, records))
}

func newPut(action store.Action, records []store.Record) *request {
	r := &request{action: action, records: records}
	ascend := true
	for i := range records {
		r.bytes += len(records[i].Output) + len(records[i].Order)
		ascend = ascend && (i == 0 || records[i-1].Key.Compare(records[i].Key) < 0)
	}
	if !ascend {
		return r
	}
	b := &packer{}
	b.grow(len(records), r.bytes)
	r.log = make([]byte, 0, len(records)*(prefixSize+10))
	for i := range records {
		b.addNew(action, &records[i])
		r.log = appendEntry(r.log, entryOf(&records[i]))
	}
	r.packs = b.all()
	return r
}

// packUp makes packs of records whose keys ascend.
func packUp(action store.Action, records []*store.Record) []packed {
	b := &packer{}
	for _, r := range records {
		b.addNew(action, r)
	}
	return b.all()
}

// compare adds a conflict if a record differs from the value stored for its chunk.
func (r *request) compare(action store.Action, stored store.Value, record *store.Record) {
	if stored.Fuel != record.Fuel || !bytes.Equal(stored.Output, record.Output) {
		r.conflicts = append(r.conflicts, &store.ConflictError{
			Action: action, Chunk: record.Chunk,
			Stored: store.VersionOf(stored), Put: store.VersionOf(record.Value),
		})
	}
}

// submit hands a request to the committer and waits until it is done. If ctx ends,
// submit returns at once only if the committer has not taken the request yet.
func (s *Store) submit(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.options.ReadOnly {
		return ErrReadOnly
	}
	r.done = make(chan struct{})
	select {
	case s.requests <- r:
	case <-s.quit:
		return store.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		if r.taken.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		<-r.done
	}
	if r.err != nil {
		return r.err
	}
	return errors.Join(r.conflicts...)
}

// commitLoop is the only goroutine that writes. Open starts it; Close closes quit,
// which ends it, and waits for it.
func (s *Store) commitLoop() {
	shared := 1
	for {
		select {
		case <-s.quit:
			return
		case r := <-s.requests:
			group := s.gather(r, shared)
			shared = len(group)
			s.commit(group)
		}
	}
}

// gather collects the requests that share a commit: first, those that wait already,
// and, until there are as many as in the last commit, those that come within
// MaxDelay.
func (s *Store) gather(first *request, shared int) (group []*request) {
	group = append(group, first)
	if first.compact {
		return group
	}
	size := first.bytes
	var timeout <-chan time.Time
	for size < s.options.MaxBytes {
		select {
		case r := <-s.requests:
			if group, size = append(group, r), size+r.bytes; r.compact {
				return group
			}
			continue
		default:
		}
		if len(group) >= shared {
			break
		}
		if timeout == nil {
			timer := time.NewTimer(s.options.MaxDelay)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case r := <-s.requests:
			if group, size = append(group, r), size+r.bytes; r.compact {
				return group
			}
			continue
		case <-timeout:
		}
		break
	}
	return group
}

// commit executes a group in one transaction. If that fails, it executes each
// request in a transaction of its own, so that a failing request fails no other.
func (s *Store) commit(group []*request) {
	taken := group[:0]
	for _, r := range group {
		if r.taken.CompareAndSwap(false, true) {
			taken = append(taken, r)
		}
	}
	if last := len(taken) - 1; last > 0 && taken[last].compact { // it is the last one, and cannot run in a transaction
		defer func(r *request) {
			r.err = s.commitOnce([]*request{r})
			close(r.done)
		}(taken[last])
		taken = taken[:last]
	}
	if err := s.commitOnce(taken); err != nil && len(taken) > 1 {
		for i := range taken {
			taken[i].err = s.commitOnce(taken[i : i+1])
		}
	} else if len(taken) > 0 {
		taken[0].err = err
	}
	for _, r := range taken {
		close(r.done)
	}
}

func (s *Store) commitOnce(group []*request) error {
	if len(group) == 0 {
		return nil
	}
	var damaged []Damage
	err := s.do(context.Background(), "put", func(db *database) (err error) {
		defer recoverEngine(&err)
		if group[0].compact {
			return db.compact(group[0].ctx)
		}
		if damaged, err = db.write(group); err != nil {
			return err
		}
		if db.moved() { // the commit may be lost: do repeats it in the new file
			return errMoved
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.commits.Add(1)
	for _, r := range group {
		s.bytes.Add(int64(r.bytes))
		if len(r.records) > 0 {
			s.puts.Add(1)
		}
	}
	s.damaged.Add(int64(len(damaged)))
	for _, d := range damaged {
		s.options.Damaged(d)
	}
	return nil
}

// write executes a group in one transaction.
func (db *database) write(group []*request) (damaged []Damage, err error) {
	db.writing.Lock()
	defer db.writing.Unlock()
	db.fresh.Store(false)
	merged := map[store.Action]bool{}
	for {
		tx := &transaction{db: db, conn: db.writer, pending: map[store.Action]*pendingAction{}, merged: merged}
		err := tx.conn.transaction("begin immediate", func() error { return tx.run(group) })
		first, ok := errors.AsType[*mergeFirstError](err)
		if !ok {
			if err == nil {
				tx.committed()
			}
			return tx.damaged, err
		}
		if err := db.index(first.action).mergeAll(db.writer, first.action); err != nil {
			return nil, err
		}
		merged[first.action] = true
	}
}

// mergeFirstError means that the batches of an action must be merged before its
// chunks are looked up.
type mergeFirstError struct{ action store.Action }

func (*mergeFirstError) Error() string { return "the batches must be merged first" }

// transaction is one commit. Its fields belong to the committer.
type transaction struct {
	db      *database
	conn    *conn
	pending map[store.Action]*pendingAction
	merged  map[store.Action]bool // actions whose batches were merged just now
	damaged []Damage
	lost    map[store.Action]*lost
	scratch []byte
	digests []byte
}

// pendingAction holds the additions of a transaction to one action.
type pendingAction struct {
	action  store.Action
	view    actionView
	last    int64                      // number of the batch that was added, or of a later merged one
	log     []byte                     // entries of added
	added   []*store.Record            // owned by the callers
	recent  map[uint64][]*store.Record // added records by prefix; nil until needed
	indexed int                        // how many of added are in recent
}

func (tx *transaction) run(group []*request) error {
	for _, r := range group {
		r.conflicts, r.stored = nil, 0
		var err error
		if r.record != nil {
			err = r.record(tx, r)
		} else {
			err = tx.outputs(r)
		}
		if err != nil {
			return err
		}
	}
	for _, w := range tx.pending {
		if err := w.write(tx.conn); err != nil {
			return err
		}
	}
	return tx.withdraw()
}

// write adds the batch of the added records.
func (w *pendingAction) write(c *conn) (err error) {
	if len(w.log) == 0 {
		return nil
	}
	if w.last, err = c.addBatch(w.view.id, w.log); err != nil || w.last%mergeEvery != 0 {
		return err
	}
	merged, err := c.mergeSome(w.view.id)
	w.last = max(w.last, merged)
	return err
}

// outputs executes the part of a request that concerns outputs.
func (tx *transaction) outputs(r *request) error {
	if len(r.records) == 0 && !r.merge && r.clean == nil {
		return nil
	}
	w, err := tx.pendingOf(r.action)
	switch {
	case err != nil:
		return err
	case r.merge && !tx.merged[r.action]:
		return &mergeFirstError{r.action}
	case r.merge:
		return nil
	}
	for _, first := range r.clean {
		if err := tx.clean(w, first); err != nil {
			return err
		}
	}
	return tx.put(w, r)
}

// committed updates the index after the commit.
func (tx *transaction) committed() {
	for _, w := range tx.pending {
		if w.view.current && w.last > 0 { // the index had all earlier batches, and expect added this one
			w.view.index.committed(w.view.id, w.last)
		}
	}
}

func (tx *transaction) pendingOf(action store.Action) (*pendingAction, error) {
	if w := tx.pending[action]; w != nil {
		return w, nil
	}
	id, ok, err := tx.conn.locate(action)
	if err != nil {
		return nil, err
	}
	if !ok {
		if err := tx.conn.exec("insert into actions(digest) values(?)", action[:]); err != nil {
			return nil, err
		}
		id = tx.conn.LastInsertRowID()
	}
	w := &pendingAction{action: action, view: tx.db.index(action).look(tx.conn, id)}
	tx.pending[action] = w
	return w, nil
}

func (tx *transaction) put(w *pendingAction, r *request) error {
	complete, err := w.view.catchUp(len(r.records))
	if err != nil {
		return err
	}
	var known []int
	if complete {
		known = w.view.index.expect(r.records)
	}
	from := len(w.added)
	w.added = slices.Grow(w.added, len(r.records))
	for i := range r.records {
		record := &r.records[i]
		if isKnown := len(known) > 0 && known[0] == i; isKnown || !complete { // it may be stored already
			if isKnown {
				known = known[1:]
			}
			done, err := tx.compare(w, r, record)
			if err != nil {
				return err
			}
			if done {
				continue
			}
		}
		w.added = append(w.added, record)
	}
	fresh := w.added[from:]
	r.stored += len(fresh)
	if len(fresh) == len(r.records) && r.packs != nil {
		if w.log == nil {
			w.log = r.log[:len(r.log):len(r.log)]
		} else {
			w.log = append(w.log, r.log...)
		}
		return tx.insert(w, r, r.packs)
	}
	fresh = slices.SortedFunc(slices.Values(fresh), func(a, b *store.Record) int { return a.Key.Compare(b.Key) })
	for _, record := range fresh {
		w.log = appendEntry(w.log, entryOf(record))
	}
	return tx.insert(w, r, packUp(r.action, fresh))
}

// recently returns the record of a chunk that this transaction adds.
func (w *pendingAction) recently(chunk store.Digest) *store.Record {
	if w.recent == nil {
		w.recent = map[uint64][]*store.Record{}
	}
	for ; w.indexed < len(w.added); w.indexed++ {
		p := prefixOf(w.added[w.indexed].Chunk)
		w.recent[p] = append(w.recent[p], w.added[w.indexed])
	}
	for _, record := range w.recent[prefixOf(chunk)] {
		if record.Chunk == chunk {
			return record
		}
	}
	return nil
}

// compare looks for the record's chunk under every order that it may be stored
// under. done is false if the record must be inserted.
func (tx *transaction) compare(w *pendingAction, r *request, record *store.Record) (done bool, err error) {
	if added := w.recently(record.Chunk); added != nil {
		r.compare(w.action, added.Value, record)
		return true, nil
	}
	if done, err = tx.compareAt(w, r, record, record.Order); done || err != nil {
		return done, err
	}
	orders, merge, err := w.view.orders(prefixOf(record.Chunk))
	if err != nil {
		return false, err
	}
	if merge {
		return false, &mergeFirstError{w.action}
	}
	for _, order := range orders {
		if done, err = tx.compareAt(w, r, record, order); done || err != nil {
			return done, err
		}
	}
	return false, nil
}

// compareAt compares a record with the value stored under its chunk and an order.
// A damaged value is replaced.
func (tx *transaction) compareAt(w *pendingAction, r *request, record *store.Record, order []byte) (there bool, err error) {
	moved := store.Record{Key: store.Key{Chunk: record.Chunk, Order: order}, Value: record.Value}
	damaged := false
	there, err = tx.conn.one(w.view.id, moved.Key, func(stored row) {
		if _, ok := stored.verify(w.action, &tx.scratch); ok {
			r.compare(w.action, stored.Value, record)
		} else {
			damaged = true
		}
	})
	if err != nil || !damaged {
		return there, err
	}
	return true, tx.insert(w, r, packUp(w.action, []*store.Record{&moved}))
}
