package merkle

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// TestSumsAreThoseOfSHA256 has messages of all sizes around blocks, with one
// hasher, with and without sums read from the state.
func TestSumsAreThoseOfSHA256(t *testing.T) {
	if !stateIsSum {
		t.Error("sums are not read from the state: the encoding is different")
	}
	defer func(was bool) { stateIsSum = was }(stateIsSum)
	for _, stateIsSum = range []bool{stateIsSum, false} {
		var h hasher
		for size := range 3 * sha256.BlockSize {
			item := bytes.Repeat([]byte{byte(size)}, size)
			check := func(what string, got [sha256.Size]byte, message ...[]byte) {
				t.Helper()
				if want := sha256.Sum256(bytes.Join(message, nil)); got != want {
					t.Fatalf("%s of %d bytes: %x, expected %x", what, size, got, want)
				}
			}
			check("a leaf", sumBy(func(sum *[32]byte) { h.leaf(sum, item) }), []byte{0}, item)
			check("an entry", sumBy(func(sum *[32]byte) { h.entry(sum, abi.IntID(7), item) }), []byte{0, 0x82, 7}, item)
			long := bytes.Repeat(item, 50)
			exported := Hasher{h}
			check("a message", exported.Sum256(item), item)
			check("a long message", exported.Sum256(long), long)
			check("a long leaf", sumBy(func(sum *[32]byte) { h.leaf(sum, long) }), []byte{0}, long)
			left, right := sha256.Sum256(item), sha256.Sum256(long)
			check("a node", sumBy(func(sum *[32]byte) { h.node(sum, &left, &right) }), []byte{1}, left[:], right[:])
			check("a message in the middle", sumBy(func(sum *[32]byte) {
				h.padded(sum, appendPadding(append([]byte("before"), item...), len("before"))[len("before"):])
			}), item)
		}
	}
}

func sumBy(f func(sum *[32]byte)) (sum [32]byte) {
	f(&sum)
	return sum
}
