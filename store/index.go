package store

import "hash/maphash"

// index maps the hash of a record's digest to the place of the record. It uses
// open addressing with linear probing. A record takes a slot of 8 bytes, and
// finding or adding one usually costs one cache miss. Slots hold no pointers.
//
// Each index has its own hash key, so nobody can choose chunks that fall on few
// slots. A slot holds some bits of the hash, so other records are rarely looked
// at, and a table grows without looking at any.
//
// If there are many records, they are spread over fanOut tables. These grow one
// by one, so an insertion waits at most for one of them to grow, and only that
// one is in memory twice.
type index struct {
	seed   maphash.Seed
	tables []table // one, or fanOut
	count  int
	expect int // number of records that will come, as far as it is known
}

// table is one table of an index. At least a quarter of its slots are free.
type table struct {
	slots []slot // 0 = free; their number is a power of two
	shift int    // 64 minus the exponent of that power
	count int
}

// slot holds, from the top, the first hashBits of a record's hash, and its place:
// the number of its slab, counted from 1, and the offset in the slab. 0 = no record.
type slot uint64

const (
	// hashBits tell records of a table apart: of ten million records, one in a
	// hundred has the same bits as another one. If a table has more slots than
	// 1<<hashBits, the bits choose a group of slots.
	hashBits   = 22
	offsetBits = 18 // records start within the first slabSize bytes of a slab
	placeBits  = 64 - hashBits
	maxSlabs   = 1<<(placeBits-offsetBits) - 1 // 4 TiB

	fanOut   = 1 << 8 // chosen by the last bits of the hash
	oneTable = 6144   // up to so many records, there is one table
	minSlots = 8
	// maxExpect bounds the records for which there is room before they come: 32 MiB of slots.
	maxExpect = fanOut * 12288
)

func newIndex() index {
	return index{seed: maphash.MakeSeed(), tables: []table{newTable(minSlots)}}
}

// newTable returns an empty table. slots is a power of two.
func newTable(slots int) table {
	t := table{slots: make([]slot, slots), shift: 64}
	for n := slots; n > 1; n /= 2 {
		t.shift--
	}
	return t
}

func (x *index) hash(d *Digest) uint64 { return maphash.Bytes(x.seed, d[:]) }

func (x *index) table(hash uint64) *table { return &x.tables[hash%uint64(len(x.tables))] }

// placeAt returns the place at an offset in a slab.
func placeAt(slab, offset int) slot { return slot(slab+1)<<offsetBits | slot(offset) }

// position returns the slab and the offset of a place.
func (v slot) position() (slab, offset int) {
	return int(v<<hashBits>>(hashBits+offsetBits)) - 1, int(v & (1<<offsetBits - 1))
}

// mark returns the bits of a hash that a slot holds, at their position in the slot.
func mark(hash uint64) slot { return slot(hash >> placeBits << placeBits) }

// fits reports whether the record of a slot may have a hash with this mark.
func (v slot) fits(mark slot) bool { return (v^mark)>>placeBits == 0 }

// home returns the index at which a search for a slot begins.
func (t *table) home(v slot) int { return int(v >> placeBits << placeBits >> t.shift) }

// next returns the index after i; the first one follows the last one.
func (t *table) next(i int) int { return (i + 1) & (len(t.slots) - 1) }

// touch loads the slots at which the searches for these hashes begin. Cache misses
// of independent loads overlap; those of one look-up after the other do not. The
// sum is returned only so that the compiler cannot drop the loads.
func (x *index) touch(hashes []uint64) (sum slot) {
	for _, h := range hashes {
		t := x.table(h)
		sum += t.slots[t.home(mark(h))]
	}
	return sum
}

// add adds a place. Other records may have the same hash.
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

// fan spreads the one table over fanOut tables. hashOf returns the hash of the
// record at a place.
func (x *index) fan(hashOf func(place slot) uint64) {
	old := x.tables[0].slots
	slots := 2 * len(old) / fanOut
	for slots/4*3*fanOut < min(x.expect, maxExpect) { // to grow and be copied step by step takes longer
		slots *= 2
	}
	x.tables, x.count = make([]table, fanOut), 0
	for i := range x.tables {
		x.tables[i] = newTable(slots)
	}
	for _, v := range old {
		if v != 0 {
			x.add(hashOf(v), v<<hashBits>>hashBits)
		}
	}
}
