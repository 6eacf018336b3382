package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"slices"
	"sync"
)

// slabSize is how much memory is allocated at once. Outputs are packed in slabs
// without pointers, so a million of them cost the garbage collector nothing.
const slabSize = 256 << 10

// Memory is the store of a process: it keeps outputs until Close. As a journal, it
// bounds the details of attempts: it drops a detail of more than 64 KiB, and all
// further details once those that it has come to 32 MiB (a common beginning counts
// once). The zero value is not usable; call [NewMemory].
type Memory struct {
	mu      sync.RWMutex
	actions map[Action]*arena // nil after Close
	jobs    map[JobID]*memoryJob
	begun   int // runs
	noted   int // bytes of the details of attempts
	expect  int // outputs of an action
}

// arena holds the records of one action. Slabs only grow, and a slab's memory
// never moves, so readers use records that they have found without the lock.
type arena struct {
	index   index
	slabs   [][]byte
	first   slot // the first record in the order of All
	least   Key  // of first
	last    Key  // of the record that was added last; used while ordered
	ordered bool // all records were added in the order of All
	touched slot // see index.touch
}

func newArena() *arena { return &arena{index: newIndex(), ordered: true} }

// NewMemory returns an empty store in memory.
func NewMemory() *Memory { return &Memory{actions: map[Action]*arena{}, jobs: map[JobID]*memoryJob{}} }

// NewMemoryFor returns an empty store in memory that makes room for a number of outputs of
// an action as soon as it has some thousands. It takes others too.
func NewMemoryFor(outputs int) *Memory {
	m := NewMemory()
	m.expect = outputs
	return m
}

// Put implements [Store].
func (m *Memory) Put(ctx context.Context, action Action, records []Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.actions == nil {
		return ErrClosed
	}
	return m.put(action, records)
}

// ahead is the number of records of a batch that are looked up at once.
const ahead = 16

// put is Put; m.mu is held.
func (m *Memory) put(action Action, records []Record) error {
	s := m.actions[action]
	if s == nil {
		s = newArena()
		s.index.expect = m.expect
		m.actions[action] = s
	}
	var conflicts []error
	var hashes [ahead]uint64
	for some := range slices.Chunk(records, ahead) {
		s.lookAt(some, &hashes)
		for i := range some {
			r, hash := &some[i], hashes[i]
			at := s.find(hash, &r.Chunk)
			if at == 0 {
				if !s.add(hash, r) {
					return errors.Join(append(conflicts, errFull)...)
				}
				continue
			}
			if stored, _ := s.read(at); stored.Fuel != r.Fuel || !bytes.Equal(stored.Output, r.Output) {
				conflicts = append(conflicts, &ConflictError{action, r.Chunk, VersionOf(stored.Value), VersionOf(r.Value)})
			}
		}
	}
	return errors.Join(conflicts...)
}

// errFull means that an arena has maxSlabs slabs.
var errFull = errors.New("the store in memory is full: keep outputs in one on disk")

// Get implements [Store].
func (m *Memory) Get(ctx context.Context, action Action, keys []Key, found func(i int, v Value) error) error {
	for i, key := range keys {
		if err := ctx.Err(); err != nil {
			return err
		}
		record, ok, err := m.lookUp(action, key.Chunk)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := found(i, record.Value); err != nil {
			return err
		}
	}
	return nil
}

func (m *Memory) lookUp(action Action, chunk Digest) (Record, bool, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.actions == nil {
		return Record{}, false, ErrClosed
	}
	s := m.actions[action]
	if s == nil {
		return Record{}, false, nil
	}
	at := s.find(s.index.hash(&chunk), &chunk)
	if at == 0 {
		return Record{}, false, nil
	}
	r, _ := s.read(at)
	return r, true, nil
}

// All implements [Store]. If the records were put in this order, it sorts nothing
// and allocates nothing for them.
func (m *Memory) All(ctx context.Context, action Action) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		s, err := m.snapshot(action)
		for r := range s.inOrder() {
			if err = ctx.Err(); err != nil {
				break
			}
			if !yield(r, nil) {
				return
			}
		}
		if err != nil {
			yield(Record{}, err)
		}
	}
}

// snapshot returns the records of an action as they are now, without an index.
func (m *Memory) snapshot(action Action) (*arena, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.actions == nil {
		return newArena(), ErrClosed
	}
	s := m.actions[action]
	if s == nil {
		return newArena(), nil
	}
	return &arena{slabs: slices.Clone(s.slabs), first: s.first, ordered: s.ordered}, nil
}

// inOrder yields the records in the order of All. The first comes at once; the
// others are sorted when the second is requested.
func (s *arena) inOrder() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		if s.ordered {
			s.each(func(_ slot, r Record) bool { return yield(r) })
			return
		}
		if r, _ := s.read(s.first); !yield(r) {
			return
		}
		for _, at := range s.sorted()[1:] {
			if r, _ := s.read(at); !yield(r) {
				return
			}
		}
	}
}

// sorted returns the places of the records in the order of All.
func (s *arena) sorted() (places []slot) {
	s.each(func(at slot, _ Record) bool {
		places = append(places, at)
		return true
	})
	slices.SortFunc(places, func(a, b slot) int {
		x, _ := s.read(a)
		y, _ := s.read(b)
		return compareKeys(&x.Key, &y.Key)
	})
	return places
}

func compareKeys(a, b *Key) int {
	if c := bytes.Compare(a.Order, b.Order); c != 0 {
		return c
	}
	return bytes.Compare(a.Chunk[:], b.Chunk[:])
}

// Close implements [Store].
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.actions, m.jobs = nil, nil
	return nil
}

// lookAt hashes some records, and loads the slots at which their searches begin.
func (s *arena) lookAt(records []Record, hashes *[ahead]uint64) {
	for i := range records {
		hashes[i] = s.index.hash(&records[i].Chunk)
	}
	s.touched = s.index.touch(hashes[:len(records)])
}

// find returns the place of the record of a chunk, 0 if there is none.
func (s *arena) find(hash uint64, chunk *Digest) slot {
	t, wanted := s.index.table(hash), mark(hash)
	for i := t.home(wanted); t.slots[i] != 0; i = t.next(i) {
		if v := t.slots[i]; v.fits(wanted) && s.digest(v) == *chunk {
			return v
		}
	}
	return 0
}

// digest returns the chunk of the record at a place.
func (s *arena) digest(at slot) Digest {
	slab, offset := at.position()
	return Digest(s.slabs[slab][offset:])
}

// read returns the record at a place, as views into its slab, and the offset at
// which the record ends in the slab.
func (s *arena) read(at slot) (r Record, end int) {
	slab, offset := at.position()
	b := s.slabs[slab][offset:]
	r.Chunk, b = Digest(b), b[len(Digest{}):]
	fuel, width := binary.Uvarint(b)
	r.Fuel = fuel
	r.Order, b = cut(b[width:])
	r.Output, b = cut(b)
	return r, len(s.slabs[slab]) - len(b)
}

// cut takes a length and a field of that many bytes from the front of b.
func cut(b []byte) (field, rest []byte) {
	n, width := binary.Uvarint(b)
	end := width + int(n)
	return b[width:end:end], b[end:]
}

// each calls f with all records and their places, in the order in which they
// were added, until f returns false.
func (s *arena) each(f func(at slot, r Record) bool) {
	for slab, b := range s.slabs {
		for offset := 0; offset < len(b); {
			at := placeAt(slab, offset)
			var r Record
			if r, offset = s.read(at); !f(at, r) {
				return
			}
		}
	}
}

// add adds the record of a chunk that the arena does not have. hash is the hash of
// the chunk. It returns false if there is no room.
func (s *arena) add(hash uint64, r *Record) bool {
	need := len(r.Chunk) + 3*binary.MaxVarintLen64 + len(r.Order) + len(r.Output)
	last := len(s.slabs) - 1
	if last < 0 || cap(s.slabs[last])-len(s.slabs[last]) < need {
		if last++; last == maxSlabs {
			return false
		}
		s.slabs = append(s.slabs, make([]byte, 0, max(need, slabSize)))
	}
	b := s.slabs[last]
	place := placeAt(last, len(b))
	b = binary.AppendUvarint(append(b, r.Chunk[:]...), r.Fuel)
	b = append(binary.AppendUvarint(b, uint64(len(r.Order))), r.Order...)
	order := b[len(b)-len(r.Order):]
	s.slabs[last] = append(binary.AppendUvarint(b, uint64(len(r.Output))), r.Output...)
	s.sort(place, Key{r.Chunk, order})
	if s.index.count == oneTable && len(s.index.tables) == 1 {
		s.index.fan(func(place slot) uint64 {
			chunk := s.digest(place)
			return s.index.hash(&chunk)
		})
	}
	s.index.add(hash, place)
	return true
}

// sort updates first and ordered for the record that is being added.
func (s *arena) sort(at slot, key Key) {
	if s.ordered {
		s.ordered = s.index.count == 0 || compareKeys(&s.last, &key) < 0
		s.last = key
	}
	if s.index.count == 0 || compareKeys(&key, &s.least) < 0 {
		s.first, s.least = at, key
	}
}
