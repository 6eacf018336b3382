package linear

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestZero writes to random places in buffers of all kinds of lengths, and checks that
// zero clears these bytes and no others.
func TestZero(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		around := bytes.Repeat([]byte{0xff}, 64+r.IntN(3000))
		from := r.IntN(64)
		to := from + r.IntN(len(around)-from)
		b := around[from:to]
		clear(b)
		for range min(r.IntN(4), len(b)) {
			b[r.IntN(len(b))] = 1 << r.IntN(8)
		}
		zero(b)
		if at := slices.IndexFunc(b, func(v byte) bool { return v != 0 }); at >= 0 {
			t.Fatalf("byte %d of %d is still %#x", at, len(b), b[at])
		}
		for at, v := range around {
			if v != 0xff && (at < from || at >= to) {
				t.Fatalf("byte %d was written, want only %d to %d", at, from, to)
			}
		}
	}
}

// TestZeroFindsEachByte has one byte that is not 0, at each place of a few blocks.
func TestZeroFindsEachByte(t *testing.T) {
	b := make([]byte, 2*PageSize/64)
	for at := range b {
		b[at] = 0x80
		if zero(b); b[at] != 0 {
			t.Fatalf("byte %d is still %#x", at, b[at])
		}
	}
}
