package flow

import (
	"slices"
	"sort"
)

// blocks is a list that grows by blocks, so that a long one is never copied: the
// records of an item with a million children. Its zero value is empty.
type blocks[T any] struct {
	full [][]T // each of blockSize elements, except the last
}

// blockSize is more than most windows need, which then have one block.
const blockSize = 1 << 14

func (b *blocks[T]) len() int {
	if len(b.full) == 0 {
		return 0
	}
	last := len(b.full) - 1
	return last*blockSize + len(b.full[last])
}

func (b *blocks[T]) at(i int) *T { return &b.full[i/blockSize][i%blockSize] }

func (b *blocks[T]) add(v T) {
	last := len(b.full) - 1
	switch {
	case last < 0:
		b.full, last = append(b.full, nil), 0 // it grows: most lists are short
	case len(b.full[last]) == blockSize:
		b.full, last = append(b.full, make([]T, 0, blockSize)), last+1
	}
	b.full[last] = append(b.full[last], v)
}

// clear empties the list, and keeps the memory of one block.
func (b *blocks[T]) clear() {
	if len(b.full) > 0 {
		clear(b.full[0])
		b.full = append(b.full[:0:0], b.full[0][:0])
	}
}

// sort sorts the list. The order of equal elements is not defined. compare has values,
// because a pointer to a parameter would be an allocation for each comparison.
func (b *blocks[T]) sort(compare func(x, y T) int) {
	switch len(b.full) {
	case 0:
	case 1:
		slices.SortFunc(b.full[0], compare)
	default:
		sort.Sort(sorting[T]{b, compare})
	}
}

type sorting[T any] struct {
	*blocks[T]
	compare func(x, y T) int
}

func (s sorting[T]) Len() int           { return s.len() }
func (s sorting[T]) Less(i, j int) bool { return s.compare(*s.at(i), *s.at(j)) < 0 }
func (s sorting[T]) Swap(i, j int) {
	x, y := s.at(i), s.at(j)
	*x, *y = *y, *x
}

// dataList keeps the data of ended items. Small data is copied, and has no allocation
// of its own. Its zero value is empty.
type dataList struct {
	arena blocks[byte]
	large [][]byte
}

const (
	// smallData is the size up to which data is copied.
	smallData = 64
	// largeData as a size says that a place is in large.
	largeData = 1<<16 - 1
	// maxArena bounds the arena, so that a place has 32 bits.
	maxArena = 1<<32 - 2*blockSize
)

// add adds data, and returns its place with its size there.
func (l *dataList) add(data []byte) (at uint32, size uint16) {
	if len(data) > smallData || l.arena.len() > maxArena {
		l.large = append(l.large, data)
		return uint32(len(l.large) - 1), largeData
	}
	last := len(l.arena.full) - 1
	if last >= 0 && len(l.arena.full[last])+len(data) > blockSize { // data is in one block
		for len(l.arena.full[last]) < blockSize {
			l.arena.full[last] = append(l.arena.full[last], 0)
		}
	}
	at = uint32(l.arena.len())
	for _, c := range data {
		l.arena.add(c)
	}
	return at, uint16(len(data))
}

// get returns the data, which belongs to the list.
func (l *dataList) get(at uint32, size uint16) []byte {
	switch size {
	case largeData:
		return l.large[at]
	case 0:
		return nil
	}
	from := int(at % blockSize)
	return l.arena.full[at/blockSize][from : from+int(size)]
}

func (l *dataList) clear() {
	clear(l.large)
	l.arena.clear()
	l.large = l.large[:0]
}
