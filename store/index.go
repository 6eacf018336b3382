package store

import "hash/maphash"

// index says where records start, by the hash of their digests: open addressing
// with linear probing, where a record takes a slot of 8 bytes, and to find or add
// one costs one cache miss as a rule. Slots hold no pointers.
//
// The hash is keyed anew for each index, so nobody can choose chunks that fall
// on few slots. Some of its bits stand in the slot: other records are hardly ever
// looked at, and a table grows without looking at any.
//
// Of many records there are fanOut tables. They grow one by one, so that nothing
// waits longer than for a small part of them, and only that part is there twice.
type index struct {
	seed   maphash.Seed
	tables []table // one, or fanOut
	count  int
}

// table is one of an index. A quarter of its slots are free at least.
type table struct {
	slots []slot // 0 is a free one; a power of two
	shift int    // 64 less its exponent
	count int
}

// slot holds, from the top, the first hashBits of a record's hash, and its place:
// the number of its slab, counted from 1, and the offset in it. 0 is none.
type slot uint64

const (
	// hashBits tell records of a table apart: of ten million in all, one in a
	// hundred has the same as another one. In a table of more slots than that, they
	// choose a group of slots.
	hashBits   = 22
	offsetBits = 18 // records start within the first slabSize bytes of a slab
	placeBits  = 64 - hashBits
	maxSlabs   = 1<<(placeBits-offsetBits) - 1 // 4 TiB

	fanOut   = 1 << 8 // chosen by the last bits of the hash
	oneTable = 6144   // records until there are more
	minSlots = 8
)

func newIndex() index {
	return index{seed: maphash.MakeSeed(), tables: []table{newTable(minSlots)}}
}

// newTable returns a table of a number of slots, a power of two.
func newTable(slots int) table {
	t := table{slots: make([]slot, slots), shift: 64}
	for n := slots; n > 1; n /= 2 {
		t.shift--
	}
	return t
}

func (x *index) hash(d *Digest) uint64 { return maphash.Bytes(x.seed, d[:]) }

func (x *index) table(hash uint64) *table { return &x.tables[hash%uint64(len(x.tables))] }

// placeAt returns the place in a slab.
func placeAt(slab, offset int) slot { return slot(slab+1)<<offsetBits | slot(offset) }

// where returns the slab and the offset of a place.
func (v slot) where() (slab, offset int) {
	return int(v<<hashBits>>(hashBits+offsetBits)) - 1, int(v & (1<<offsetBits - 1))
}

// mark returns the bits of the hash that a slot has, where they stand in it.
func mark(hash uint64) slot { return slot(hash >> placeBits << placeBits) }

// fits tells whether a slot may be of a record whose hash has that mark.
func (v slot) fits(mark slot) bool { return (v^mark)>>placeBits == 0 }

// home returns where to begin to look for a slot.
func (t *table) home(v slot) int { return int(v >> placeBits << placeBits >> t.shift) }

// next returns the slot after one.
func (t *table) next(i int) int { return (i + 1) & (len(t.slots) - 1) }

// touch loads the slots at which to begin to look for these hashes. Cache misses
// of loads that do not depend on each other overlap; those of one look-up after
// the other do not. What it returns is there so that no load is left out.
func (x *index) touch(hashes []uint64) (sum slot) {
	for _, h := range hashes {
		t := x.table(h)
		sum += t.slots[t.home(mark(h))]
	}
	return sum
}

// add notes a place. Others may have the same hash.
func (x *index) add(hash uint64, place slot) {
	t := x.table(hash)
	if t.count >= len(t.slots)/4*3 {
		t.grow()
	}
	t.put(mark(hash) | place)
	x.count++
}

// put fills the first free slot.
func (t *table) put(v slot) {
	i := t.home(v)
	for t.slots[i] != 0 {
		i = t.next(i)
	}
	t.slots[i] = v
	t.count++
}

// grow doubles the slots.
func (t *table) grow() {
	old := t.slots
	*t = newTable(2 * len(old))
	for _, v := range old {
		if v != 0 {
			t.put(v)
		}
	}
}

// fan makes fanOut tables of one. hashOf returns the hash of the record at a
// place.
func (x *index) fan(hashOf func(place slot) uint64) {
	old := x.tables[0].slots
	x.tables, x.count = make([]table, fanOut), 0
	for i := range x.tables {
		x.tables[i] = newTable(2 * len(old) / fanOut)
	}
	for _, v := range old {
		if v != 0 {
			x.add(hashOf(v), v<<hashBits>>hashBits)
		}
	}
}
