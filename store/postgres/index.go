package postgres

import (
	"bytes"
	"container/list"
	"context"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// index lists the packs of one action that this process knows, by the first bytes of the
// digests of their chunks. A pack that is gone is noticed when it is fetched.
type index struct {
	mu     sync.Mutex // of all fields below; held while packs are fetched
	id     int        // of the action in the database; 0 = not known
	since  string     // all packs of earlier transactions are known
	packs  map[int64]*packEntry
	recent []int64 // packs of transactions that are not settled yet
	marks  map[uint64]place
	more   map[uint64][]place // further places with the same mark
	last   place              // of the record that was read last
	cache  packCache
}

type packEntry struct {
	id        int64
	low, high []byte
	size      int
}

// place is the position of a record.
type place struct {
	pack int64
	at   int32
}

func newIndex() *index {
	return &index{since: "0", packs: map[int64]*packEntry{}, marks: map[uint64]place{}, more: map[uint64][]place{}}
}

// listed is a row of an index.
type listed struct {
	packEntry
	chunks  []byte
	horizon string
}

// add adds rows to the index.
func (x *index) add(rows []listed) {
	for i := range rows {
		r := &rows[i]
		if r.id == 0 {
			if r.horizon != x.since {
				x.since, x.recent = r.horizon, x.recent[:0]
				for j := range rows {
					x.recent = append(x.recent, rows[j].id)
				}
			}
			continue
		}
		x.enter(r.packEntry, r.chunks)
	}
}

// enter adds a pack with the chunks of the given digests.
func (x *index) enter(e packEntry, chunks []byte) {
	if x.packs[e.id] != nil {
		return
	}
	x.packs[e.id] = &e
	x.recent = append(x.recent, e.id)
	for at := 0; (at+1)*len(store.Digest{}) <= len(chunks); at++ {
		mark := binary.LittleEndian.Uint64(chunks[at*len(store.Digest{}):])
		p := place{e.id, int32(at)}
		if _, taken := x.marks[mark]; taken {
			x.more[mark] = append(x.more[mark], p)
		} else {
			x.marks[mark] = p
		}
	}
}

// drop forgets a pack that is gone. Its marks stay, and places ignores them.
func (x *index) drop(id int64) {
	delete(x.packs, id)
	x.cache.drop(id)
}

// places returns the places that a chunk may have, in the order of packs.
func (x *index) places(chunk *store.Digest) (all []place) {
	mark := binary.LittleEndian.Uint64(chunk[:])
	first, ok := x.marks[mark]
	if !ok {
		return nil
	}
	further := x.more[mark]
	if len(further) == 0 {
		if x.packs[first.pack] == nil {
			return nil
		}
		return []place{first}
	}
	for _, p := range append([]place{first}, further...) {
		if x.packs[p.pack] != nil {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b place) int { return int(a.pack - b.pack) })
	return all
}

// cacheBytes bounds the packs that an index holds, and ahead the bytes that are fetched at
// once.
const (
	cacheBytes = 32 << 20
	ahead      = 4 << 20
)

// packCache holds the most recently used packs.
type packCache struct {
	size  int
	used  list.List // of *cached
	packs map[int64]*list.Element
}

type cached struct {
	id      int64
	size    int
	records []store.Record
}

func (c *packCache) get(id int64) ([]store.Record, bool) {
	e := c.packs[id]
	if e == nil {
		return nil, false
	}
	c.used.MoveToFront(e)
	return e.Value.(*cached).records, true
}

// newest returns the records of the pack that was used last, if it has the given id.
func (c *packCache) newest(id int64) ([]store.Record, bool) {
	e := c.used.Front()
	if e == nil || e.Value.(*cached).id != id {
		return nil, false
	}
	return e.Value.(*cached).records, true
}

func (c *packCache) put(id int64, size int, records []store.Record) {
	if c.packs == nil {
		c.packs = map[int64]*list.Element{}
	}
	c.drop(id)
	c.packs[id] = c.used.PushFront(&cached{id, size, records})
	for c.size += size; c.size > cacheBytes && c.used.Len() > 1; {
		c.drop(c.used.Back().Value.(*cached).id)
	}
}

func (c *packCache) drop(id int64) {
	if e := c.packs[id]; e != nil {
		c.size -= e.Value.(*cached).size
		c.used.Remove(e)
		delete(c.packs, id)
	}
}

// load fetches packs that are not in the cache, and forgets those that are gone or
// damaged. ids is in the order in which they are needed; load stops after ahead bytes.
func (s *Store) load(ctx context.Context, x *index, ids []int64) error {
	var wanted []int64
	size := 0
	for _, id := range ids {
		e := x.packs[id]
		if _, there := x.cache.get(id); there || e == nil {
			continue
		}
		if size += e.size; len(wanted) > 0 && size > ahead {
			break
		}
		wanted = append(wanted, id)
	}
	if len(wanted) == 0 {
		return nil
	}
	fetched, err := s.access.packs(ctx, wanted)
	if err != nil {
		return err
	}
	found := map[int64]bool{}
	for _, f := range fetched {
		records, err := f.read()
		if err != nil {
			s.damaged(ctx, x, f.id)
			continue
		}
		found[f.id] = true
		x.cache.put(f.id, len(f.chunks)+len(f.heads)+len(f.data), records)
	}
	for _, id := range wanted {
		if !found[id] {
			x.drop(id)
		}
	}
	return nil
}

// damaged drops a pack that does not match its checksum, and reports it. A role that only
// reads cannot drop it.
func (s *Store) damaged(ctx context.Context, x *index, id int64) {
	s.tellDamaged(x, id)
	var dropped bool
	_ = s.one(ctx, "select $.drop_damaged($1)", []any{id}, &dropped) // the next reader may drop it
}

// tellDamaged reports a damaged pack.
func (s *Store) tellDamaged(x *index, id int64) {
	if s.options.Damaged == nil {
		return
	}
	count := 0
	for _, p := range x.marks {
		if p.pack == id {
			count++
		}
	}
	s.options.Damaged(Damage{Pack: id, Count: count})
}

// record returns the record of a chunk, nil if there is none. next returns the packs to
// fetch together with a pack that is not in the cache.
func (s *Store) record(ctx context.Context, x *index, chunk *store.Digest, next func() []int64) (*store.Record, error) {
	if r := x.follower(chunk); r != nil {
		return r, nil
	}
	for _, p := range x.places(chunk) {
		if _, there := x.cache.get(p.pack); !there {
			if err := s.load(ctx, x, append([]int64{p.pack}, next()...)); err != nil {
				return nil, err
			}
		}
		records, there := x.cache.get(p.pack)
		if there && int(p.at) < len(records) && bytes.Equal(records[p.at].Chunk[:], chunk[:]) {
			x.last = p
			return &records[p.at], nil
		}
	}
	return nil, nil
}

// follower returns the record after the last one, if it is in the cache and is that of
// the chunk: most readers read in the order of packs. Without it, nearly half of the time
// of a fold of small outputs is spent in marks.
func (x *index) follower(chunk *store.Digest) *store.Record {
	next := int(x.last.at) + 1
	records, there := x.cache.newest(x.last.pack)
	if !there || next >= len(records) || records[next].Chunk != *chunk || x.packs[x.last.pack] == nil {
		return nil
	}
	x.last.at++
	return &records[next]
}
