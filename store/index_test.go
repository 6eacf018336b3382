package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"testing"
)

// numbered returns a record whose output is its number i.
func numbered(i int) Record {
	b := binary.BigEndian.AppendUint32(nil, uint32(i))
	return Record{Key{sha256.Sum256(b), b}, Value{b, uint64(i)}}
}

func mustPut(t *testing.T, m *Memory, records ...Record) {
	t.Helper()
	if err := m.Put(t.Context(), Action{}, records); err != nil {
		t.Fatal(err)
	}
}

// expect looks records up only by their chunks: all are found if there is true,
// else none.
func expect(t *testing.T, m *Memory, there bool, records ...Record) {
	t.Helper()
	keys := make([]Key, len(records))
	for i := range records {
		keys[i].Chunk = records[i].Chunk
	}
	found := 0
	err := m.Get(t.Context(), Action{}, keys, func(i int, v Value) error {
		if found++; v.Fuel != records[i].Fuel || !bytes.Equal(v.Output, records[i].Output) {
			t.Errorf("got output %x, want %x", v.Output, records[i].Output)
		}
		return nil
	})
	want := 0
	if there {
		want = len(records)
	}
	if err != nil || found != want {
		t.Fatalf("found %d of %d chunks, want %d; %v", found, len(records), want, err)
	}
}

// alike returns two records that the index of an arena cannot tell apart, whatever
// its size.
func alike(s *arena) (a, b Record) {
	seen := map[slot]int{}
	for i := 0; ; i++ {
		r := numbered(i)
		hash := s.index.hash(&r.Chunk)
		key := mark(hash) | slot(hash%fanOut)
		if other, ok := seen[key]; ok {
			return numbered(other), r
		}
		seen[key] = i
	}
}

func TestIndexCannotTellApart(t *testing.T) {
	m := NewMemory()
	mustPut(t, m, numbered(-1))
	a, b := alike(m.actions[Action{}])
	mustPut(t, m, a)
	expect(t, m, false, b)
	mustPut(t, m, b)
	expect(t, m, true, a, b)
	if m.Put(t.Context(), Action{}, []Record{{b.Key, a.Value}}) == nil {
		t.Error("no conflict")
	}
	for i := range 2 * oneTable { // two tables and more
		mustPut(t, m, numbered(1<<30+i))
	}
	expect(t, m, true, a, b)
}

// TestIndexGrows puts records in descending order, twice, and removes some, in a store that
// expects none, fewer, as many, and more than there can be.
func TestIndexGrows(t *testing.T) {
	for _, expected := range []int{0, 20_000, 100_000, math.MaxInt} {
		t.Run(fmt.Sprint(expected), func(t *testing.T) { testIndexGrows(t, expected) })
	}
}

func testIndexGrows(t *testing.T, expected int) {
	const count = 100_000
	m := NewMemoryFor(expected)
	var all, others []Record
	for i := range count {
		all, others = append(all, numbered(count-i)), append(others, numbered(count+1+i))
	}
	for range 2 {
		for from := 0; from < count; from += 777 {
			mustPut(t, m, all[from:min(from+777, count)]...)
		}
	}
	expect(t, m, true, all...)
	expect(t, m, false, others...)
	checkIndex(t, m.actions[Action{}], count)
	checkOrder(t, m, count, 1)

	gone := map[Digest]bool{}
	for i := 0; i < count; i += 2 {
		gone[all[i].Chunk] = true
	}
	m.remove(Action{}, gone)
	checkIndex(t, m.actions[Action{}], count/2)
	checkOrder(t, m, count/2, 2)
	expect(t, m, true, all[1], all[count-1])
	expect(t, m, false, all[0], all[count-2])
}

// checkIndex checks the tables: every search ends, since enough slots are free,
// and not many more slots are free than that.
func checkIndex(t *testing.T, s *arena, count int) {
	t.Helper()
	sum, slots := 0, 0
	for _, table := range s.index.tables {
		used := 0
		for _, v := range table.slots {
			if v != 0 {
				used++
			}
		}
		if used != table.count || used > len(table.slots)/4*3 {
			t.Errorf("%d of %d slots are used, and the count is %d", used, len(table.slots), table.count)
		}
		sum, slots = sum+used, slots+len(table.slots)
	}
	if sum != count || s.index.count != count || slots > 3*max(count, min(s.index.expect, maxExpect)) {
		t.Errorf("%d of %d slots are used, and the count is %d, want %d", sum, slots, s.index.count, count)
	}
}

// checkOrder expects All to yield count records, with the numbers 1, 1+step, ...
func checkOrder(t *testing.T, m *Memory, count, step int) {
	t.Helper()
	seen, next := 0, 1
	for r, err := range m.All(t.Context(), Action{}) {
		if err != nil || int(binary.BigEndian.Uint32(r.Order)) != next || !bytes.Equal(r.Output, r.Order) {
			t.Fatalf("record %d is %v, want number %d; %v", seen, r, next, err)
		}
		seen, next = seen+1, next+step
	}
	if seen != count {
		t.Errorf("got %d records, want %d", seen, count)
	}
}

// TestAscendingRecordsAreNotSorted puts records in the order of All: small ones,
// and one with an output larger than a slab.
func TestAscendingRecordsAreNotSorted(t *testing.T) {
	m := NewMemory()
	large := numbered(20_000)
	large.Output = make([]byte, 2*slabSize)
	for i := range 20_000 {
		mustPut(t, m, numbered(i))
	}
	mustPut(t, m, large, numbered(20_001))
	i := 0
	if !m.actions[Action{}].ordered {
		t.Error("the arena says that its records are not in order")
	}
	for r, err := range m.All(t.Context(), Action{}) {
		if err != nil || r.Chunk != numbered(i).Chunk {
			t.Fatalf("record %d: %v", i, err)
		}
		i++
	}
	if i != 20_002 {
		t.Errorf("%d records", i)
	}
	expect(t, m, true, large)
	tie := numbered(30_000)
	tie.Order = numbered(20_001).Order
	tie.Chunk = Digest{}
	mustPut(t, m, tie) // stands before the one of the same order
	if m.actions[Action{}].ordered {
		t.Error("the arena says that its records are in order, and one is not")
	}
	i = 0
	for r := range m.All(t.Context(), Action{}) {
		if i == 20_001 && r.Chunk != tie.Chunk {
			t.Errorf("record %d has output %x", i, r.Output)
		}
		i++
	}
}
