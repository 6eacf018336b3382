package merkle

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"hash"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// HashEntry returns the hash of the leaf [id, item].
func HashEntry(id abi.ID, item []byte) (sum [sha256.Size]byte) {
	var h hasher
	h.entry(&sum, id, item)
	return sum
}

// hasher hashes leaves and nodes without allocating memory for each. The zero
// hasher is ready for use by one goroutine.
//
// Small messages are padded here and hashed as whole blocks, so the sum is the
// state of the hash. Neither the message nor the hash is copied: a node takes 110
// ns instead of 160, a small leaf 65 instead of 110.
type hasher struct {
	hash  hash.Hash
	state encoding.BinaryAppender // of hash
	buf   []byte
	out   []byte
}

// A Hasher hashes messages with SHA-256. Small ones take 65 ns instead of 110 (see
// hasher). The zero Hasher is ready for use by one goroutine.
type Hasher struct{ hasher hasher }

// Sum256 returns the SHA-256 of a message.
func (h *Hasher) Sum256(message []byte) (sum [sha256.Size]byte) {
	h.hasher.buf = h.hasher.buf[:0]
	h.hasher.joined(&sum, message)
	return sum
}

// maxJoined is the limit for items that are copied behind their heads to be hashed
// in one piece, in bytes.
const maxJoined = 1 << 10

// The methods below write sums to where they are needed: to return them would copy each
// several times.

func (h *hasher) leaf(sum *[sha256.Size]byte, leaf []byte) {
	h.buf = append(h.buf[:0], leafPrefix)
	h.joined(sum, leaf)
}

func (h *hasher) entry(sum *[sha256.Size]byte, id abi.ID, item []byte) {
	h.buf = abi.AppendEntry(append(h.buf[:0], leafPrefix), id, nil)
	h.joined(sum, item)
}

// node computes the hash of the inner node over two subtrees; sum may be one of them.
func (h *hasher) node(sum, left, right *[sha256.Size]byte) {
	h.buf = append(append(append(h.buf[:0], nodePrefix), left[:]...), right[:]...)
	h.joined(sum, nil)
}

// joined hashes buf || rest.
func (h *hasher) joined(sum *[sha256.Size]byte, rest []byte) {
	if len(rest) <= maxJoined {
		h.buf = appendPadding(append(h.buf, rest...), 0)
		h.padded(sum, h.buf)
		return
	}
	h.reset()
	h.hash.Write(h.buf)
	h.hash.Write(rest)
	h.out = h.hash.Sum(h.out[:0])
	*sum = [sha256.Size]byte(h.out)
}

func (h *hasher) reset() {
	if h.hash == nil {
		h.hash = sha256.New()
		h.state, _ = h.hash.(encoding.BinaryAppender)
	}
	h.hash.Reset()
}

// zeros is the main part of any padding.
var zeros [sha256.BlockSize]byte

// appendPadding appends the SHA-256 padding of a message that begins at start (FIPS
// 180-4, section 5.1.1), so that it becomes whole blocks.
func appendPadding(b []byte, start int) []byte {
	size := len(b) - start
	b = append(append(b, 0x80), zeros[:(sha256.BlockSize-9-size)&(sha256.BlockSize-1)]...)
	return binary.BigEndian.AppendUint64(b, uint64(size)<<3)
}

// padded computes the SHA-256 of a message to which its padding was appended.
func (h *hasher) padded(sum *[sha256.Size]byte, blocks []byte) {
	if !stateIsSum {
		bits := binary.BigEndian.Uint64(blocks[len(blocks)-8:])
		*sum = sha256.Sum256(blocks[:bits>>3])
		return
	}
	h.reset()
	h.hash.Write(blocks)
	h.sumOfState(sum)
}

// stateMagic begins the encoding of a SHA-256 state. If only whole blocks were
// hashed, their sum comes next.
const stateMagic = "sha\x03"

func (h *hasher) sumOfState(sum *[sha256.Size]byte) {
	h.out, _ = h.state.AppendBinary(h.out[:0]) // never returns an error
	*sum = [sha256.Size]byte(h.out[len(stateMagic):])
}

// stateIsSum reports whether a sum can be read from the state of a hash. That holds
// for the encoding of Go's own package, which its magic names; with any other,
// Sum256 computes the sums.
var stateIsSum = func() bool {
	var h hasher
	for _, size := range []int{0, 13, 65, 200} {
		message := make([]byte, size)
		h.reset()
		h.hash.Write(appendPadding(message, 0))
		if h.state == nil {
			return false
		}
		state, err := h.state.AppendBinary(h.out[:0])
		h.out = state
		if err != nil || len(state) < len(stateMagic)+sha256.Size || string(state[:len(stateMagic)]) != stateMagic {
			return false
		}
		var sum [sha256.Size]byte
		if h.sumOfState(&sum); sum != sha256.Sum256(message) {
			return false
		}
	}
	return true
}()
