package flow

import (
	"cmp"
	"testing"
	"unsafe"
)

// TestBlocks: a list of any length is sorted in place, without an allocation.
func TestBlocks(t *testing.T) {
	for _, n := range []int{0, 1, 1000, 2*blockSize + 7} {
		var b blocks[int]
		for i := range n {
			b.add(i * 7919 % max(n, 1))
		}
		allocated := testing.AllocsPerRun(1, func() { b.sort(cmp.Compare[int]) })
		if b.len() != n {
			t.Errorf("%d elements, want %d", b.len(), n)
		}
		for i := 1; i < n; i++ {
			if *b.at(i - 1) > *b.at(i) {
				t.Fatalf("of %d elements, %d and %d are in the wrong order", n, i-1, i)
			}
		}
		if allocated > 1 { // of a list of several blocks, the sorter
			t.Errorf("sorting %d elements makes %v allocations, want at most 1", n, allocated)
		}
	}
}

// TestBlocksHaveTheirSize: no block but the first grows, and none has more than it may.
func TestBlocksHaveTheirSize(t *testing.T) {
	var b blocks[stepRecord]
	for range blockSize + 1 {
		b.add(stepRecord{})
	}
	if got := cap(b.full[1]); got != blockSize {
		t.Errorf("the second block has room for %d elements, want %d", got, blockSize)
	}
	if s, e := unsafe.Sizeof(stepRecord{}), unsafe.Sizeof(endRecord{}); s > 48 || e > 24 {
		t.Errorf("a step has %d bytes and an end %d, want at most 48 and 24", s, e)
	}
}

// TestDataList: data of any size comes back, from both sides of the end of a block.
func TestDataList(t *testing.T) {
	var l dataList
	type place struct {
		at   uint32
		size uint16
	}
	data := func(i int) []byte {
		b := make([]byte, i%(smallData+3))
		for j := range b {
			b[j] = byte(i + j)
		}
		return b
	}
	var places []place
	for i := range 2000 {
		at, size := l.add(data(i))
		places = append(places, place{at, size})
	}
	if len(l.arena.full) < 3 || len(l.large) == 0 {
		t.Fatalf("%d blocks and %d large data: the test covers too little", len(l.arena.full), len(l.large))
	}
	for i, p := range places {
		if got := l.get(p.at, p.size); string(got) != string(data(i)) {
			t.Fatalf("data %d: %x, want %x", i, got, data(i))
		}
	}
	l.clear()
	if at, size := l.add([]byte{1}); at != 0 || size != 1 {
		t.Errorf("after clear: place %d, size %d", at, size)
	}
}

// TestItemsAreSmall bounds the memory of a ready item, without its name and its data.
func TestItemsAreSmall(t *testing.T) {
	if n := unsafe.Sizeof(item{}); n > 128 {
		t.Errorf("an item has %d bytes, want at most 128", n)
	}
}
