package sqlite

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// checksumSize is how many bytes of a SHA-256 are stored for each output.
const checksumSize = 16

// sum is the checksum of an output: the first bytes of a SHA-256.
type sum [checksumSize]byte

// checksum returns the checksum of an output, over its action, key, fuel and bytes.
// It appends to scratch and returns it, to save an allocation.
func checksum(action store.Action, key store.Key, v store.Value, scratch []byte) (sum, []byte) {
	b := append(scratch[:0], action[:]...)
	b = append(b, key.Chunk[:]...)
	b = binary.AppendUvarint(b, uint64(len(key.Order)))
	b = append(b, key.Order...)
	b = binary.AppendUvarint(b, v.Fuel)
	if len(v.Output) < 4096 {
		b = append(b, v.Output...)
		full := sha256.Sum256(b)
		return sum(full[:]), b
	}
	h := sha256.New()
	h.Write(b)
	h.Write(v.Output)
	return sum(h.Sum(nil)), b
}

// row is an output in a pack, as views into the pack. chunk and sum have the right
// length but may be damaged.
type row struct {
	order, chunk, sum []byte
	store.Value
}

// key returns the key, damaged or not.
func (r *row) key() store.Key { return store.Key{Chunk: store.Digest(r.chunk), Order: r.order} }

// verify returns the key of a row, and whether the row matches its checksum.
func (r *row) verify(action store.Action, scratch *[]byte) (key store.Key, ok bool) {
	key = r.key()
	sum, grown := checksum(action, key, r.Value, *scratch)
	*scratch = grown
	return key, bytes.Equal(sum[:], r.sum)
}
