// Package merkle computes the Merkle tree hash of RFC 6962, section 2.1, over
// leaves that come one after another.
//
// The root stands for the leaves and their order: a leaf is hashed behind the
// byte 0x00 and an inner node behind 0x01, so that no inner node can pass for a
// leaf. A receipt's digests of inputs and outputs are such roots, which leaves
// room for proofs about one chunk.
package merkle

import (
	"crypto/sha256"
	"hash"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Prefixes of RFC 6962, section 2.1.
const (
	leafPrefix = 0x00
	nodePrefix = 0x01
)

// Tree hashes leaves as they come and keeps one hash for each complete subtree
// on its right edge: 64 at most, whatever the number of leaves. The zero Tree
// is empty and ready for use. It must not be copied after the first leaf, nor
// be used by two goroutines at once.
type Tree struct {
	edge  [64][sha256.Size]byte // edge[k] roots 2^k leaves where bit k of count is set
	count uint64
	hash  hash.Hash
	head  []byte // what stands before a leaf's item, reused from leaf to leaf
}

// Add appends a leaf. Its bytes are read before Add returns and not kept.
func (t *Tree) Add(leaf []byte) {
	t.head = append(t.head[:0], leafPrefix)
	t.push(leaf)
}

// AddEntry appends the leaf [id, item], the bytes of [abi.AppendEntry], without
// building it. The item is read before AddEntry returns and not kept.
func (t *Tree) AddEntry(id abi.ID, item []byte) {
	t.head = abi.AppendEntry(append(t.head[:0], leafPrefix), id, nil)
	t.push(item)
}

// push hashes the leaf t.head || rest and joins the subtrees that it completes:
// those of the trailing one bits of count.
func (t *Tree) push(rest []byte) {
	if t.hash == nil {
		t.hash = sha256.New()
	}
	t.hash.Reset()
	t.hash.Write(t.head)
	t.hash.Write(rest)
	t.head = t.hash.Sum(t.head[:0])
	sum := [sha256.Size]byte(t.head)
	level := 0
	for ; t.count>>level&1 == 1; level++ {
		sum = node(&t.edge[level], &sum)
	}
	t.edge[level] = sum
	t.count++
}

// node returns the hash of the inner node over two subtrees.
func node(left, right *[sha256.Size]byte) [sha256.Size]byte {
	var b [1 + 2*sha256.Size]byte
	b[0] = nodePrefix
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// Root returns the tree hash of the leaves so far; more may follow. The hash of
// no leaves is that of the empty string (RFC 6962, section 2.1).
func (t *Tree) Root() [sha256.Size]byte {
	if t.count == 0 {
		return sha256.Sum256(nil)
	}
	var root [sha256.Size]byte
	started := false
	for level := range t.edge {
		switch {
		case t.count>>level&1 == 0:
		case started:
			root = node(&t.edge[level], &root)
		default:
			root, started = t.edge[level], true
		}
	}
	return root
}

// Len returns the number of leaves.
func (t *Tree) Len() uint64 { return t.count }
