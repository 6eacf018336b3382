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
	if last < 0 || len(b.full[last]) == blockSize {
		b.full, last = append(b.full, nil), last+1
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

// sort sorts the list. The order of equal elements is not defined.
func (b *blocks[T]) sort(compare func(x, y *T) int) {
	switch len(b.full) {
	case 0:
	case 1:
		slices.SortFunc(b.full[0], func(x, y T) int { return compare(&x, &y) })
	default:
		sort.Sort(sorting[T]{b, compare})
	}
}

type sorting[T any] struct {
	*blocks[T]
	compare func(x, y *T) int
}

func (s sorting[T]) Len() int           { return s.len() }
func (s sorting[T]) Less(i, j int) bool { return s.compare(s.at(i), s.at(j)) < 0 }
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

// dataRef is the place of data in a dataList.
type dataRef struct {
	at   uint64 // in the arena or, if size is largeData, in large
	size uint32
}

const (
	// smallData is the size up to which data is copied.
	smallData = 64
	largeData = 1<<32 - 1
)

func (l *dataList) add(data []byte) dataRef {
	if len(data) > smallData {
		l.large = append(l.large, data)
		return dataRef{uint64(len(l.large) - 1), largeData}
	}
	last := len(l.arena.full) - 1
	if last >= 0 && len(l.arena.full[last])+len(data) > blockSize { // data is in one block
		for len(l.arena.full[last]) < blockSize {
			l.arena.full[last] = append(l.arena.full[last], 0)
		}
	}
	from := uint64(l.arena.len())
	for _, c := range data {
		l.arena.add(c)
	}
	return dataRef{from, uint32(len(data))}
}

// get returns the data, which belongs to the list.
func (l *dataList) get(r dataRef) []byte {
	if r.size == largeData {
		return l.large[r.at]
	}
	if r.size == 0 {
		return nil
	}
	from := r.at % blockSize
	return l.arena.full[r.at/blockSize][from : from+uint64(r.size)]
}

func (l *dataList) clear() {
	clear(l.large)
	l.arena.clear()
	l.large = l.large[:0]
}
