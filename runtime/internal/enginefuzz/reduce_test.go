package enginefuzz

import (
	"context"
	"slices"
	"time"
)

// reduceTime limits the time of reducing one module.
const reduceTime = 30 * time.Second

// reduce returns a shorter tape whose module still differs between two variants. It
// cuts out pieces, or sets them to zero, from half of the tape down to single
// bytes, as long as that helps.
func (b *bench) reduce(ctx context.Context, data []byte, list []variant) []byte {
	end := time.Now().Add(reduceTime)
	differs := func(try []byte) bool {
		d, err := b.try(ctx, try, list)
		return d != nil && err == nil && time.Now().Before(end)
	}
	for again := true; again && time.Now().Before(end); {
		again = false
		for size := max(len(data)/2, 1); size > 0; size /= 2 {
			for at := 0; at+size <= len(data); {
				if cut := slices.Delete(slices.Clone(data), at, at+size); differs(cut) {
					data, again = cut, true
					continue
				}
				zeroed := slices.Clone(data)
				clear(zeroed[at : at+size])
				if !slices.Equal(zeroed, data) && differs(zeroed) {
					data, again = zeroed, true
				}
				at += size
			}
		}
	}
	return data
}
