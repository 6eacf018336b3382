package chunks

import (
	"context"
	"iter"
	"math"
	"sort"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Select returns a File over only those chunks whose ids are in set. They keep
// their ids and positions; Len, Digest and the numbers that other methods take and
// return refer to the selection. Its chunks are read once for the digest, unless
// all are selected. An id of set that no chunk has is not an error: see
// [File.Missing].
//
// The selection reads through f, and holds four bytes for each chunk in addition.
// It can be used until f is closed; closing the selection does nothing.
//
// The error is ctx.Err() if ctx ended first, or one of [File.Read] or
// [File.Unchanged].
func (f *File) Select(ctx context.Context, set abi.IDSet) (*File, error) {
	selection := *f
	selection.shared = true
	if n := f.Count(set); n < f.Len() {
		order, err := f.positions(ctx, set, n)
		if err != nil {
			return nil, err
		}
		selection.index.order = order
		if selection.digest, err = selection.hash(ctx); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := f.Unchanged(); err != nil {
		return nil, err
	}
	return &selection, nil
}

// Count returns the number of chunks whose ids are in set.
func (f *File) Count(set abi.IDSet) (n int) {
	for from, to := range f.within(set) {
		n += to - from
	}
	return n
}

// Missing returns the ids of set that no chunk has.
func (f *File) Missing(set abi.IDSet) abi.IDSet {
	var missing abi.IDSet
	to := 0
	for first, last := range bounds(set) {
		var from int
		from, to = f.interval(to, first, last)
		lo, isInt := first.Int()
		hi, _ := last.Int()
		switch {
		case isInt:
			f.addGaps(&missing, lo, hi, from, to)
		case from == to:
			missing.Add(first)
		}
	}
	return missing
}

// addGaps adds the integers of lo..hi that are not ids of the chunks from..to-1.
// The ids of these chunks all lie in lo..hi.
func (f *File) addGaps(missing *abi.IDSet, lo, hi uint64, from, to int) {
	for i := from; i < to; i++ {
		n, _ := f.ID(i).Int()
		if n > lo {
			missing.AddRange(lo, n-1)
		}
		if n == math.MaxUint64 {
			return
		}
		lo = n + 1
	}
	missing.AddRange(lo, hi)
}

// within returns the chunks whose ids are in set, as ascending intervals from..to-1
// of the chunks in id order.
func (f *File) within(set abi.IDSet) iter.Seq2[int, int] {
	return func(yield func(from, to int) bool) {
		to := 0
		for first, last := range bounds(set) {
			var from int
			if from, to = f.interval(to, first, last); from < to && !yield(from, to) {
				return
			}
		}
	}
}

// bounds returns the first and the last id of each part of a set, in id order.
func bounds(set abi.IDSet) iter.Seq2[abi.ID, abi.ID] {
	return func(yield func(first, last abi.ID) bool) {
		for lo, hi := range set.Ranges() {
			if !yield(abi.IntID(lo), abi.IntID(hi)) {
				return
			}
		}
		for text := range set.Texts() {
			if !yield(abi.TextID(text), abi.TextID(text)) {
				return
			}
		}
	}
}

// interval returns the range of the chunks, from start on in id order, whose ids
// lie between first and last, both included.
func (f *File) interval(start int, first, last abi.ID) (from, to int) {
	from = start + sort.Search(f.Len()-start, func(i int) bool { return f.ID(start+i).Compare(first) >= 0 })
	to = from + sort.Search(f.Len()-from, func(i int) bool { return f.ID(from+i).Compare(last) > 0 })
	return from, to
}

// positions returns the positions in the file of the n chunks whose ids are in set,
// in id order. The result is not nil.
func (f *File) positions(ctx context.Context, set abi.IDSet, n int) ([]uint32, error) {
	order := make([]uint32, 0, n)
	for from, to := range f.within(set) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for i := from; i < to; i++ {
			order = append(order, uint32(f.Position(i)))
		}
	}
	return order, nil
}
