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

// request is a Put, or something else to be done with the writer.
type request struct {
	action    store.Action
	records   []store.Record
	packs     []packed                           // of the records, where their keys ascend; nil where they do not
	log       []byte                             // their entries. Who asks makes both, for there is but one who writes
	move      bool                               // the action's log into the index, instead
	clean     []store.Key                        // the packs that begin with them have damaged outputs
	compact   bool                               // give free space back, instead; alone in its group
	record    func(*transaction, *request) error // of a job; it puts the records where there are any
	bytes     int
	conflicts []error
	stored    int // records that were not there
	err       error
	taken     atomic.Bool // by the committer, or back by a caller that gave up
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

// compare notes a conflict where a record is not what is stored under its
// chunk.
func (r *request) compare(action store.Action, stored store.Value, record *store.Record) {
	if stored.Fuel != record.Fuel || !bytes.Equal(stored.Output, record.Output) {
		r.conflicts = append(r.conflicts, &store.ConflictError{
			Action: action, Chunk: record.Chunk,
			Stored: store.VersionOf(stored), Put: store.VersionOf(record.Value),
		})
	}
}

// submit hands a request to the committer and waits until it is done. A
// request that was taken is waited for even where ctx ends.
func (s *Store) submit(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return err
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

// commitLoop is the one goroutine that writes. Open starts it, Close ends it
// by quit and waits for it.
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

// gather collects the requests that share a commit: those that wait already,
// and, where the last commit was shared, as many again within MaxDelay.
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

// commit carries out a group; where it fails as a whole, each by itself, so
// that one request's failure is not another's.
func (s *Store) commit(group []*request) {
	taken := group[:0]
	for _, r := range group {
		if r.taken.CompareAndSwap(false, true) {
			taken = append(taken, r)
		}
	}
	if last := len(taken) - 1; last > 0 && taken[last].compact { // it came last, and is no part of a transaction
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
	err := s.do("put", func(db *database) error {
		var err error
		if group[0].compact {
			return db.compact()
		}
		if damaged, err = db.write(group); err != nil {
			return err
		}
		if db.moved() { // then it may be lost, and is put again into the new one
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

// write carries out a group in one transaction.
func (db *database) write(group []*request) (damaged []Damage, err error) {
	moved := map[store.Action]bool{}
	for {
		tx := &transaction{db: db, conn: db.writer, works: map[store.Action]*work{}, moved: moved}
		err := tx.conn.transaction("begin immediate", func() error { return tx.run(group) })
		long, ok := errors.AsType[*longTailError](err)
		if !ok {
			if err == nil {
				tx.committed()
			}
			return tx.damaged, err
		}
		if err := db.shelf(long.action).moveTail(db.writer, long.action); err != nil {
			return nil, err
		}
		moved[long.action] = true
	}
}

// longTailError says that the log of an action must be moved into the index
// before its chunks can be looked up.
type longTailError struct{ action store.Action }

func (*longTailError) Error() string { return "the log must be moved into the index first" }

// transaction is one commit. Its fields belong to the committer.
type transaction struct {
	db      *database
	conn    *conn
	works   map[store.Action]*work
	moved   map[store.Action]bool // logs that were moved just now
	damaged []Damage
	scratch []byte
	digests []byte
}

// work is what a transaction adds to one action.
type work struct {
	action  store.Action
	shelf   *shelf
	at      position
	seq     int64
	count   int64
	log     []byte                     // entries of what it adds
	added   []*store.Record            // the callers'
	recent  map[uint64][]*store.Record // of added, by prefix; nil until it is needed
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
	for _, w := range tx.works {
		if w.count == 0 {
			continue
		}
		w.seq = w.shelf.latest() + 1
		if err := tx.conn.exec("insert into batches values(?, ?, ?, ?)", w.at.id, w.seq, w.count, sealEntries(w.log)); err != nil {
			return err
		}
	}
	return nil
}

// outputs carries out a request that concerns outputs.
func (tx *transaction) outputs(r *request) error {
	if len(r.records) == 0 && !r.move && r.clean == nil {
		return nil
	}
	w, err := tx.work(r.action)
	switch {
	case err != nil:
		return err
	case r.move && !tx.moved[r.action]:
		return &longTailError{r.action}
	case r.move:
		return nil
	}
	for _, first := range r.clean {
		if err := tx.clean(w, first); err != nil {
			return err
		}
	}
	return tx.put(w, r)
}

// committed notes what was added, for those who look up.
func (tx *transaction) committed() {
	for _, w := range tx.works {
		if w.count == 0 {
			continue
		}
		w.shelf.mu.Lock()
		// Else a Get has caught up with it already, or with the action that came
		// again since.
		if w.shelf.id == w.at.id && w.seq > w.shelf.last {
			if w.shelf.tail != nil { // what is seen was noted by expect
				entries, _ := parseEntries(sealEntries(w.log))
				for _, e := range entries {
					w.shelf.add(e)
				}
			}
			w.shelf.last = w.seq
		}
		w.shelf.mu.Unlock()
	}
}

func (tx *transaction) work(action store.Action) (*work, error) {
	if w := tx.works[action]; w != nil {
		return w, nil
	}
	w := &work{action: action, shelf: tx.db.shelf(action)}
	at, ok, err := tx.conn.locate(action)
	if err != nil {
		return nil, err
	}
	if !ok {
		if err := tx.conn.exec("insert into actions(digest) values(?)", action[:]); err != nil {
			return nil, err
		}
		at = position{id: tx.conn.LastInsertRowID()}
	}
	w.at = at
	tx.works[action] = w
	return w, w.shelf.catchUp(tx.conn, at)
}

func (tx *transaction) put(w *work, r *request) error {
	fresh := make([]*store.Record, 0, len(r.records))
	known := w.shelf.expect(r.records)
	for i := range r.records {
		record := &r.records[i]
		if len(known) > 0 && known[0] == i { // it may be one of them
			known = known[1:]
			done, err := tx.compare(w, r, record)
			if err != nil {
				return err
			}
			if done {
				continue
			}
		}
		w.added = append(w.added, record)
		fresh = append(fresh, record)
	}
	r.stored += len(fresh)
	w.count += int64(len(fresh))
	if len(fresh) == len(r.records) && r.packs != nil {
		w.log = append(w.log, r.log...)
		return tx.insert(w, r, r.packs)
	}
	slices.SortFunc(fresh, func(a, b *store.Record) int { return a.Key.Compare(b.Key) })
	for _, record := range fresh {
		w.log = appendEntry(w.log, entryOf(record))
	}
	return tx.insert(w, r, packUp(r.action, fresh))
}

// recently returns the record of a chunk that this transaction adds.
func (w *work) recently(chunk store.Digest) *store.Record {
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

// compare looks for the record's chunk under every order it may be stored
// under. done is false where it has to be inserted.
func (tx *transaction) compare(w *work, r *request, record *store.Record) (done bool, err error) {
	if added := w.recently(record.Chunk); added != nil {
		r.compare(w.action, added.Value, record)
		return true, nil
	}
	if done, err = tx.compareAt(w, r, record, record.Order); done || err != nil {
		return done, err
	}
	var t tail
	orders, long, err := w.shelf.lookUp(tx.conn, w.at, &t, prefixOf(record.Chunk))
	if err != nil {
		return false, err
	}
	if long {
		return false, &longTailError{w.action}
	}
	for _, order := range orders {
		if done, err = tx.compareAt(w, r, record, order); done || err != nil {
			return done, err
		}
	}
	return false, nil
}

// compareAt compares a record with what is stored under its chunk and an
// order. What is damaged is replaced.
func (tx *transaction) compareAt(w *work, r *request, record *store.Record, order []byte) (there bool, err error) {
	moved := store.Record{Key: store.Key{Chunk: record.Chunk, Order: order}, Value: record.Value}
	damaged := false
	there, err = tx.conn.one(w.at, moved.Key, func(stored row) {
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
