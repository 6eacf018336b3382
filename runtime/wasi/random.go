package wasi

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"math/rand/v2"
	"slices"

	"github.com/tetratelabs/wazero/api"
)

// random makes the bytes of random_get: ChaCha8 (C2SP chacha8rand) with a key that
// is the SHA-256 of the phase, the seed and the input of the call. The key is made
// only when a guest asks for bytes.
type random struct {
	keyed   bool
	stream  rand.ChaCha8
	hash    hash.Hash // kept to save allocations, like scratch
	scratch []byte
}

// key starts the stream of the current call.
func (s *State) key() {
	r := &s.random
	if r.hash == nil {
		r.hash = sha256.New()
	}
	r.hash.Reset()
	r.scratch = append(append(r.scratch[:0], "wasm-jobs random 1 "...), s.call.Phase...)
	r.scratch = binary.BigEndian.AppendUint64(append(r.scratch, 0), s.call.Seed)
	r.hash.Write(r.scratch)
	for part := range slices.Chunk(s.call.Input, piece) {
		s.charge(len(part))
		r.hash.Write(part)
	}
	r.scratch = r.hash.Sum(r.scratch[:0])
	r.stream.Seed([32]byte(r.scratch))
	r.keyed = true
}

// randomGet fills the whole buffer, however large: guests treat an error, and some
// even a short result, as a broken system. The bytes are the same whether a guest
// asks for them in one call or in many.
func randomGet(s *State, m api.Memory, p []uint64) errno {
	b, e := view(m, p[0], p[1])
	if e != success {
		return e
	}
	if !s.random.keyed {
		s.key()
	}
	for part := range slices.Chunk(b, piece) {
		s.charge(len(part))
		s.random.stream.Read(part) // never fails
	}
	return success
}
