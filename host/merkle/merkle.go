// Package merkle computes the Merkle tree hash of RFC 6962, section 2.1, over
// leaves that come one after another, or in spans that are hashed in parallel.
//
// The root commits to the leaves and their order: a leaf is hashed with the prefix
// 0x00 and an inner node with 0x01, so that an inner node cannot pass for a leaf.
// The digests of inputs and outputs in a receipt are such roots, which allows
// proofs about one chunk.
package merkle

import (
	"crypto/sha256"
	"errors"
	"fmt"

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
	edge  [64][sha256.Size]byte // edge[k] is the root of 2^k leaves if bit k of count is set
	count uint64
	hash  hasher
	// seen, if not nil, is called for every complete subtree with the level of its
	// root and its index within that level.
	seen func(level int, index uint64, sum [sha256.Size]byte)
}

// Add appends a leaf. Its bytes are read before Add returns and not kept.
func (t *Tree) Add(leaf []byte) {
	var sum [sha256.Size]byte
	t.hash.leaf(&sum, leaf)
	t.push(0, sum)
}

// AddHash appends a leaf whose hash is known: the SHA-256 of a zero byte and the leaf.
func (t *Tree) AddHash(sum [sha256.Size]byte) { t.push(0, sum) }

// AddEntry appends the leaf [id, item], the bytes of [abi.AppendEntry], without
// building it. The item is read before AddEntry returns and not kept.
func (t *Tree) AddEntry(id abi.ID, item []byte) {
	var sum [sha256.Size]byte
	t.hash.entry(&sum, id, item)
	t.push(0, sum)
}

// Append appends the leaves of a span, which must begin at the end of the tree;
// otherwise Append panics.
func (t *Tree) Append(s *Span) {
	if s.first != t.count {
		panic(fmt.Sprintf("merkle: invalid span: it begins at leaf %d, want %d, the size of the tree", s.first, t.count))
	}
	for _, n := range s.nodes {
		t.push(n.level, n.sum)
	}
}

// push appends a subtree of 2^level leaves to a tree whose count is a multiple of
// 2^level, and joins the subtrees that it completes: one for each consecutive one
// bit of count from level on.
func (t *Tree) push(level int, sum [sha256.Size]byte) {
	added := uint64(1) << level
	t.tell(level, sum)
	for t.count>>level&1 == 1 {
		t.hash.node(&sum, &t.edge[level], &sum)
		level++
		t.tell(level, sum)
	}
	t.edge[level] = sum
	t.count += added
}

func (t *Tree) tell(level int, sum [sha256.Size]byte) {
	if t.seen != nil {
		t.seen(level, t.count>>level, sum)
	}
}

// Span hashes consecutive leaves of a tree before the leaves in front of them are
// known, and joins them to subtrees as far as possible. The zero Span begins at the
// first leaf. It must not be used by two goroutines at once.
type Span struct {
	first, count uint64
	nodes        []subtree // from left to right; their sizes rise and then fall
	hash         hasher
	prover       *Prover // gets the nodes that it needs; nil means none
	next         cursors // of the prover's rows
}

// subtree is the root of 2^level leaves that begin at a multiple of 2^level.
type subtree struct {
	level int
	sum   [sha256.Size]byte
}

// Reset empties the span. first is the index in the tree of its next leaf, counted
// from 0.
func (s *Span) Reset(first uint64) {
	s.first, s.count, s.nodes = first, 0, s.nodes[:0]
	if s.prover != nil {
		s.next = s.prover.cursorsAt(first)
	}
}

// AddEntry appends the leaf [id, item] as [Tree.AddEntry] does.
func (s *Span) AddEntry(id abi.ID, item []byte) {
	s.hash.entry(s.leaf(), id, item)
	s.join()
}

// AppendNodes appends the subtrees of the span, for [Tree.AddNodes] elsewhere.
func (s *Span) AppendNodes(dst []byte) []byte {
	for i := range s.nodes {
		dst = append(append(dst, byte(s.nodes[i].level)), s.nodes[i].sum[:]...)
	}
	return dst
}

// AddNodes appends the leaves of a span from its subtrees, which must begin at the end of
// the tree.
func (t *Tree) AddNodes(nodes []byte) error {
	const size = 1 + sha256.Size
	for ; len(nodes) >= size; nodes = nodes[size:] {
		level := int(nodes[0])
		if level >= len(t.edge)-1 || t.count&(1<<level-1) != 0 {
			break
		}
		t.push(level, [sha256.Size]byte(nodes[1:size]))
	}
	if len(nodes) > 0 {
		return errors.New("merkle: the subtrees do not begin at the end of the tree")
	}
	return nil
}

// leaf appends a leaf, and returns where its hash belongs. The caller must write it, and
// call join.
func (s *Span) leaf() *[sha256.Size]byte {
	s.nodes = append(s.nodes, subtree{})
	return &s.nodes[len(s.nodes)-1].sum
}

// join joins the subtrees that the last leaf completes.
func (s *Span) join() {
	s.count++
	end := s.first + s.count
	last := len(s.nodes) - 1
	for s.tell(end, &s.nodes[last]); last > 0; last-- {
		left, right := &s.nodes[last-1], &s.nodes[last]
		if end>>right.level&1 != 0 || left.level != right.level {
			break
		}
		s.hash.node(&left.sum, &left.sum, &right.sum)
		left.level++
		s.tell(end, left)
	}
	s.nodes = s.nodes[:last+1]
}

// tell gives the prover a subtree that ends before the leaf end.
func (s *Span) tell(end uint64, n *subtree) {
	if s.prover != nil {
		s.prover.note(&s.next, n.level, end>>n.level-1, &n.sum)
	}
}

// Len returns the number of leaves.
func (s *Span) Len() uint64 { return s.count }

// Root returns the tree hash of the leaves so far; more may follow. The hash of no
// leaves is the hash of the empty string (RFC 6962, section 2.1).
func (t *Tree) Root() [sha256.Size]byte {
	if t.count == 0 {
		return sha256.Sum256(nil)
	}
	return t.close(nil)
}

// close joins the subtrees of the right edge, and returns the root. If ragged is
// not nil, it is called for each node that has fewer leaves than others of its
// level.
func (t *Tree) close(ragged func(level int, index uint64, sum [sha256.Size]byte)) (root [sha256.Size]byte) {
	started := false
	for level := range t.edge {
		if started && ragged != nil {
			ragged(level, t.count>>level, root)
		}
		switch {
		case t.count>>level&1 == 0:
		case started:
			t.hash.node(&root, &t.edge[level], &root)
		default:
			root, started = t.edge[level], true
		}
	}
	return root
}

// Len returns the number of leaves.
func (t *Tree) Len() uint64 { return t.count }
