package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"slices"
	"sync"
)

// slabSize is how much memory is taken at once. Outputs lie packed in slabs,
// which hold no pointers, so that a million of them cost the garbage collector
// nothing.
const slabSize = 256 << 10

// Memory is the store of a process: it keeps outputs until Close. The zero
// value is not usable; call [NewMemory].
type Memory struct {
	mu      sync.RWMutex
	actions map[Action]*shelf // nil after Close
	jobs    map[JobID]*memoryJob
	begun   int // runs
}

// shelf holds the records of one action. Slabs only grow, and a slab's memory
// never moves, so readers use what they have found without the lock.
//
// The index has the first 8 bytes of each digest alone, a quarter of it: records
// that share them are chained, the newest first.
type shelf struct {
	index map[uint64]place
	slabs [][]byte
	count int
}

// place is where a record starts, counted from 1: slab << 32 | offset. 0 is
// none.
type place uint64

// NewMemory returns an empty store in memory.
func NewMemory() *Memory { return &Memory{actions: map[Action]*shelf{}, jobs: map[JobID]*memoryJob{}} }

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

// put is Put; m.mu is held.
func (m *Memory) put(action Action, records []Record) error {
	s := m.actions[action]
	if s == nil {
		s = &shelf{index: map[uint64]place{}}
		m.actions[action] = s
	}
	var conflicts []error
	for _, r := range records {
		if stored, ok := s.find(r.Chunk); !ok {
			s.add(r)
		} else if stored.Fuel != r.Fuel || !bytes.Equal(stored.Output, r.Output) {
			conflicts = append(conflicts, &ConflictError{action, r.Chunk, VersionOf(stored.Value), VersionOf(r.Value)})
		}
	}
	return errors.Join(conflicts...)
}

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
	r, ok := s.find(chunk)
	return r, ok, nil
}

// All implements [Store].
func (m *Memory) All(ctx context.Context, action Action) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		records, err := m.sorted(action)
		for _, r := range records {
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

func (m *Memory) sorted(action Action) ([]Record, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.actions == nil {
		return nil, ErrClosed
	}
	s := m.actions[action]
	if s == nil {
		return nil, nil
	}
	records := make([]Record, 0, s.count)
	for _, at := range s.index {
		for at != 0 {
			var r Record
			r, at = s.read(at)
			records = append(records, r)
		}
	}
	slices.SortFunc(records, func(a, b Record) int {
		return cmp.Or(bytes.Compare(a.Order, b.Order), bytes.Compare(a.Chunk[:], b.Chunk[:]))
	})
	return records, nil
}

// Close implements [Store].
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.actions, m.jobs = nil, nil
	return nil
}

func prefix(d Digest) uint64 { return binary.LittleEndian.Uint64(d[:]) }

// find returns the record of a chunk.
func (s *shelf) find(chunk Digest) (r Record, ok bool) {
	for at := s.index[prefix(chunk)]; at != 0; {
		if r, at = s.read(at); r.Chunk == chunk {
			return r, true
		}
	}
	return Record{}, false
}

// read returns the record at a place, as views into its slab, and the place of
// the next one in its chain.
func (s *shelf) read(at place) (r Record, next place) {
	at--
	b := s.slabs[at>>32][uint32(at):]
	r.Chunk, b = Digest(b[:len(Digest{})]), b[len(Digest{}):]
	chained, width := binary.Uvarint(b)
	b = b[width:]
	r.Fuel, width = binary.Uvarint(b)
	r.Order, b = cut(b[width:])
	r.Output, _ = cut(b)
	return r, place(chained)
}

// cut takes a length and as many bytes from the front of b.
func cut(b []byte) (field, rest []byte) {
	n, width := binary.Uvarint(b)
	end := width + int(n)
	return b[width:end:end], b[end:]
}

func (s *shelf) add(r Record) {
	need := len(r.Chunk) + 4*binary.MaxVarintLen64 + len(r.Order) + len(r.Output)
	last := len(s.slabs) - 1
	if last < 0 || cap(s.slabs[last])-len(s.slabs[last]) < need {
		s.slabs = append(s.slabs, make([]byte, 0, max(need, slabSize)))
		last++
	}
	b := s.slabs[last]
	at := place(last)<<32 + place(len(b)) + 1
	b = binary.AppendUvarint(append(b, r.Chunk[:]...), uint64(s.index[prefix(r.Chunk)]))
	b = binary.AppendUvarint(b, r.Fuel)
	b = append(binary.AppendUvarint(b, uint64(len(r.Order))), r.Order...)
	s.slabs[last] = append(binary.AppendUvarint(b, uint64(len(r.Output))), r.Output...)
	s.index[prefix(r.Chunk)] = at
	s.count++
}
