package postgres

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"errors"
	"iter"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// access reads and writes outputs: in tables or, for a worker that has no right on them,
// with functions that check its lease.
type access interface {
	action(ctx context.Context, digest store.Action, create bool) (id int, err error)
	index(ctx context.Context, action int, since string, known []int64) ([]listed, error)
	packs(ctx context.Context, ids []int64) ([]fetched, error)
	put(ctx context.Context, x *index, action store.Action, records []store.Record, also func(ctx context.Context, tx pgx.Tx, clean bool) error) error
}

// fetched is a pack as it is stored.
type fetched struct {
	id                  int64
	chunks, heads, data []byte
	sum                 []byte
}

// packColumns are the columns of a pack in the results of queries.
const packColumns = "id, chunks, heads, data, sum"

// tables reads and writes outputs in tables.
type tables struct{ *Store }

func (t *tables) action(ctx context.Context, digest store.Action, create bool) (id int, err error) {
	err = t.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		if create {
			if _, err := c.Exec(ctx, t.sql("insert into $.actions (digest) values ($1) on conflict do nothing"), digest[:]); err != nil {
				return err
			}
		}
		return c.QueryRow(ctx, t.sql("select coalesce((select id from $.actions where digest = $1), 0)"), digest[:]).Scan(&id)
	})
	return id, err
}

const indexColumns = "select id, low, high, chunks, size, horizon from "

func (t *tables) index(ctx context.Context, action int, since string, known []int64) ([]listed, error) {
	return rows(ctx, t.Store, indexColumns+"$.index_of($1, $2, $3)", scanListed, action, since, known)
}

func scanListed(r pgx.Rows) (l listed, err error) {
	err = r.Scan(&l.id, &l.low, &l.high, &l.chunks, &l.size, &l.horizon)
	return l, err
}

func (f *fetched) columns() []any { return []any{&f.id, &f.chunks, &f.heads, &f.data, &f.sum} }

func scanFetched(r pgx.Rows) (f fetched, err error) {
	err = r.Scan(f.columns()...)
	return f, err
}

func (t *tables) packs(ctx context.Context, ids []int64) ([]fetched, error) {
	return rows(ctx, t.Store, "select "+packColumns+" from $.packs where id = any($1) order by id", scanFetched, ids)
}

// The classes of advisory locks: see worker_settle.
const lockAction = 1464814592

// put compares the records with all stored ones, under the lock of the action, and keeps
// the new ones.
func (t *tables) put(ctx context.Context, x *index, action store.Action, records []store.Record, also func(ctx context.Context, tx pgx.Tx, clean bool) error) (err error) {
	var conflicts []error
	var made []*Pack
	var ids []int64
	size := 0
	for i := range records {
		size += len(records[i].Output)
	}
	err = t.inTx(transfers(ctx, size+rowsTransfer), func(ctx context.Context, tx pgx.Tx) error {
		conflicts, made, ids = nil, nil, nil
		if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1, $2)", lockAction, x.id); err != nil {
			return err
		}
		if len(records) > 0 {
			if err := t.catchUp(ctx, tx, x); err != nil {
				return err
			}
			fresh, c, err := t.compare(ctx, tx, x, action, records)
			if err != nil {
				return err
			}
			conflicts = c
			if made, ids, err = t.insert(ctx, tx, x.id, fresh); err != nil {
				return err
			}
		}
		if also == nil {
			return nil
		}
		return also(ctx, tx, len(conflicts) == 0)
	})
	if err != nil {
		return err
	}
	for i, p := range made {
		x.enter(p.entry(ids[i]), p.Chunks)
		t.bytes.Add(p.Bytes)
	}
	t.commits.Add(1)
	return errors.Join(conflicts...)
}

// catchUp lists packs in a transaction.
func (t *tables) catchUp(ctx context.Context, tx pgx.Tx, x *index) error {
	r, err := tx.Query(ctx, t.sql(indexColumns+"$.index_of($1, $2, $3)"), x.id, x.since, nonNil(x.recent))
	if err != nil {
		return err
	}
	all, err := pgx.CollectRows(r, func(r pgx.CollectableRow) (l listed, err error) {
		err = r.Scan(&l.id, &l.low, &l.high, &l.chunks, &l.size, &l.horizon)
		return l, err
	})
	if err == nil {
		x.add(all)
	}
	return err
}

func nonNil(ids []int64) []int64 {
	if ids == nil {
		return []int64{}
	}
	return ids
}

// compare returns the records that are not stored, and the conflicts of the others.
func (t *tables) compare(ctx context.Context, tx pgx.Tx, x *index, action store.Action, records []store.Record) (fresh []store.Record, conflicts []error, err error) {
	there, err := t.committed(ctx, tx, x, records)
	if err != nil {
		return nil, nil, err
	}
	for i := range records {
		r := &records[i]
		kept, known := there[r.Chunk]
		switch {
		case !known:
			fresh = append(fresh, *r)
			there[r.Chunk] = r.Value
		case kept.Fuel != r.Fuel || !bytes.Equal(kept.Output, r.Output):
			conflicts = append(conflicts, &store.ConflictError{Action: action, Chunk: r.Chunk, Stored: store.VersionOf(kept), Put: store.VersionOf(r.Value)})
		}
	}
	return fresh, conflicts, nil
}

// committed reads the stored outputs of the records' chunks, in a transaction.
func (t *tables) committed(ctx context.Context, tx pgx.Tx, x *index, records []store.Record) (map[store.Digest]store.Value, error) {
	there := map[store.Digest]store.Value{}
	wanted := map[int64]bool{}
	for i := range records {
		for _, p := range x.places(&records[i].Chunk) {
			wanted[p.pack] = true
		}
	}
	var ids []int64
	for id := range wanted {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		var f fetched
		err := tx.QueryRow(ctx, t.sql("select "+packColumns+" from $.packs where id = $1"), id).Scan(f.columns()...)
		if errors.Is(err, pgx.ErrNoRows) {
			x.drop(id)
			continue
		}
		if err != nil {
			return nil, err
		}
		kept, err := f.read()
		if err != nil {
			if _, err := tx.Exec(ctx, t.sql("select $.drop_damaged($1)"), id); err != nil {
				return nil, err
			}
			t.tellDamaged(x, id)
			x.drop(id)
			continue
		}
		for i := range kept {
			if _, known := there[kept[i].Chunk]; !known {
				there[kept[i].Chunk] = kept[i].Value
			}
		}
	}
	return there, nil
}

func (t *tables) insert(ctx context.Context, tx pgx.Tx, action int, records []store.Record) (made []*Pack, ids []int64, err error) {
	for _, p := range packs(records) {
		var id int64
		err := tx.QueryRow(ctx, t.sql("insert into $.packs (action, count, bytes, low, high, chunks, heads, data, sum) values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning id"),
			action, p.Count, p.Bytes, p.Low, p.High, p.Chunks, p.Heads, p.Data, p.Sum[:]).Scan(&id)
		if err != nil {
			return nil, nil, err
		}
		made, ids = append(made, p), append(ids, id)
	}
	return made, ids, nil
}

// indexOf returns the index of an action, locked.
func (s *Store) indexOf(ctx context.Context, action store.Action, create bool) (*index, error) {
	if s.closed.Load() {
		return nil, store.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	x := s.indexes[action]
	if x == nil {
		x = newIndex()
		s.indexes[action] = x
	}
	s.mu.Unlock()
	x.mu.Lock()
	if x.id != 0 {
		return x, nil
	}
	id, err := s.access.action(ctx, action, create)
	if err != nil {
		x.mu.Unlock()
		return nil, err
	}
	x.id = id
	return x, nil
}

// Put implements [store.Store].
func (s *Store) Put(ctx context.Context, action store.Action, records []store.Record) error {
	x, err := s.indexOf(ctx, action, true)
	if err != nil {
		return err
	}
	defer x.mu.Unlock()
	s.puts.Add(1)
	if len(records) == 0 {
		return nil
	}
	return s.access.put(ctx, x, action, records, nil)
}

// refresh adds new packs to the index.
func (s *Store) refresh(ctx context.Context, x *index) error {
	if x.id == 0 {
		return nil
	}
	all, err := s.access.index(ctx, x.id, x.since, nonNil(x.recent))
	if err == nil {
		x.add(all)
	}
	return err
}

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, action store.Action, keys []store.Key, found func(i int, v store.Value) error) error {
	x, err := s.indexOf(ctx, action, false)
	if err != nil {
		return err
	}
	defer x.mu.Unlock()
	if err := s.refresh(ctx, x); err != nil {
		return err
	}
	for i := range keys {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := s.record(ctx, x, &keys[i].Chunk, func() []int64 { return nextPacks(x, keys[i+1:]) })
		if err != nil {
			return err
		}
		if r == nil {
			continue
		}
		if err := found(i, r.Value); err != nil {
			return err
		}
	}
	return nil
}

// nextPacks returns the packs of the next keys, to be fetched together.
func nextPacks(x *index, keys []store.Key) (ids []int64) {
	const look = 1024
	for i := 0; i < min(len(keys), look); i += 64 {
		for _, p := range x.places(&keys[i].Chunk) {
			if !slices.Contains(ids, p.pack) {
				ids = append(ids, p.pack)
			}
		}
	}
	return ids
}

// All implements [store.Store]. It reads one pack after another; if packs do not
// overlap, only one is held at a time.
func (s *Store) All(ctx context.Context, action store.Action) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		all, err := s.snapshot(ctx, action)
		if err != nil {
			yield(store.Record{}, err)
			return
		}
		var open merge
		for len(all) > 0 || len(open) > 0 {
			for len(all) > 0 && (len(open) == 0 || bytes.Compare(all[0].low, open[0].records[0].Order) <= 0) {
				records, err := s.read(ctx, action, all[0].id)
				if err != nil {
					yield(store.Record{}, err)
					return
				}
				if len(records) > 0 {
					heap.Push(&open, &cursor{records})
				}
				all = all[1:]
			}
			if len(open) == 0 {
				continue
			}
			if err := ctx.Err(); err != nil {
				yield(store.Record{}, err)
				return
			}
			if !yield(open[0].records[0], nil) {
				return
			}
			if open[0].records = open[0].records[1:]; len(open[0].records) == 0 {
				heap.Pop(&open)
			} else {
				heap.Fix(&open, 0)
			}
		}
	}
}

// snapshot returns the packs of an action by their first orders.
func (s *Store) snapshot(ctx context.Context, action store.Action) (all []packEntry, err error) {
	x, err := s.indexOf(ctx, action, false)
	if err != nil {
		return nil, err
	}
	defer x.mu.Unlock()
	if err := s.refresh(ctx, x); err != nil {
		return nil, err
	}
	for _, e := range x.packs {
		all = append(all, *e)
	}
	slices.SortFunc(all, func(a, b packEntry) int { return cmp.Or(bytes.Compare(a.low, b.low), cmp.Compare(a.id, b.id)) })
	return all, nil
}

// read returns the records of a pack, none if it is gone.
func (s *Store) read(ctx context.Context, action store.Action, id int64) ([]store.Record, error) {
	x, err := s.indexOf(ctx, action, false)
	if err != nil {
		return nil, err
	}
	defer x.mu.Unlock()
	if err := s.load(ctx, x, []int64{id}); err != nil {
		return nil, err
	}
	records, _ := x.cache.get(id)
	return records, nil
}

// cursor holds the records of a pack that were not read yet.
type cursor struct{ records []store.Record }

// merge has the cursor with the next record first.
type merge []*cursor

func (m merge) Len() int           { return len(m) }
func (m merge) Less(i, j int) bool { return m[i].records[0].Key.Compare(m[j].records[0].Key) < 0 }
func (m merge) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }

// Push implements [heap.Interface].
func (m *merge) Push(x any) { *m = append(*m, x.(*cursor)) }

// Pop implements [heap.Interface].
func (m *merge) Pop() any {
	last := len(*m) - 1
	c := (*m)[last]
	*m = (*m)[:last]
	return c
}
