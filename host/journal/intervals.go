package journal

import (
	"cmp"
	"slices"
)

// interval is the range of chunks from..to-1.
type interval struct{ from, to int }

// intervals, once merged, ascend and do not touch.
type intervals []interval

// merged sorts intervals and joins those that overlap or touch.
func (x intervals) merged() intervals {
	slices.SortFunc(x, func(a, b interval) int { return cmp.Compare(a.from, b.from) })
	out := x[:0]
	for _, i := range x {
		switch last := len(out) - 1; {
		case i.from >= i.to:
		case last >= 0 && i.from <= out[last].to:
			out[last].to = max(out[last].to, i.to)
		default:
			out = append(out, i)
		}
	}
	return out
}

// without returns the chunks of x that are not in y. Both must be merged.
func (x intervals) without(y intervals) (out intervals) {
	for _, i := range x {
		for len(y) > 0 && y[0].to <= i.from {
			y = y[1:]
		}
		rest := y
		for len(rest) > 0 && rest[0].from < i.to && i.from < i.to {
			if rest[0].from > i.from {
				out = append(out, interval{i.from, rest[0].from})
			}
			i.from = rest[0].to
			rest = rest[1:]
		}
		if i.from < i.to {
			out = append(out, i)
		}
	}
	return out
}

func (x intervals) count() (n int) {
	for _, i := range x {
		n += i.to - i.from
	}
	return n
}

func (x intervals) has(chunk int) bool {
	_, found := slices.BinarySearchFunc(x, chunk, func(i interval, c int) int {
		switch {
		case i.to <= c:
			return -1
		case i.from > c:
			return 1
		}
		return 0
	})
	return found
}
