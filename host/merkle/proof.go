package merkle

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// MaxPath is the length of the longest audit path: a tree has 2^64 leaves at most.
const MaxPath = 64

// Proof shows that a leaf is in a tree: its audit path (RFC 6962, section
// 2.1.1), which has the roots of the subtrees beside it from the leaf up.
type Proof struct {
	Index uint64 // of the leaf, from 0
	Size  uint64 // leaves of the tree
	Path  [][sha256.Size]byte
}

// ErrProof says that a proof has not the shape that its index and size ask for.
var ErrProof = errors.New("the audit path does not fit the index and the size")

// Root returns the root of the tree that has a leaf with this hash where the
// proof says. The proof holds where that is the root of the tree that is meant.
// The error is [ErrProof].
func (p *Proof) Root(leaf [sha256.Size]byte) ([sha256.Size]byte, error) {
	if p.Index >= p.Size || len(p.Path) > MaxPath {
		return leaf, ErrProof
	}
	path, sum := p.Path, leaf
	for i, last := p.Index, p.Size-1; last > 0; i, last = i>>1, last>>1 {
		if i == last && i&1 == 0 { // has nothing beside it, and is passed on
			continue
		}
		if len(path) == 0 {
			return leaf, ErrProof
		}
		if i&1 == 1 {
			sum = node(&path[0], &sum)
		} else {
			sum = node(&sum, &path[0])
		}
		path = path[1:]
	}
	if len(path) > 0 {
		return leaf, ErrProof
	}
	return sum, nil
}

// HashEntry returns the hash of the leaf [id, item].
func HashEntry(id abi.ID, item []byte) [sha256.Size]byte {
	var h hasher
	return h.entry(id, item)
}

// Prover hashes the leaves of a tree as they come, as a [Tree], and keeps what
// the proofs of some of them need: no more than 64 hashes for each. The zero
// Prover is empty and ready for use. It must not be copied after the first leaf,
// nor be used by two goroutines at once.
type Prover struct {
	tree Tree
	kept []keptLeaf
	rows [MaxPath]row // by level
}

// keptLeaf is a leaf whose proof will be asked for, with the part of its path
// that stands to the left of it, from the leaf up.
type keptLeaf struct {
	index uint64
	left  [][sha256.Size]byte
}

// row has the nodes of one level that are to come, and stand to the right of
// something on the way from a kept leaf to the root; ascending.
type row struct {
	nodes []comingNode
	next  int // those before it came
}

type comingNode struct {
	index uint64
	sum   [sha256.Size]byte
}

// Keep says that the proof of the next leaf will be asked for.
func (p *Prover) Keep() {
	leaf := keptLeaf{index: p.tree.count}
	for level := range p.tree.edge {
		if beside := leaf.index>>level ^ 1; beside < leaf.index>>level {
			leaf.left = append(leaf.left, p.tree.edge[level]) // the last of its level
		} else {
			p.rows[level].expect(beside)
		}
	}
	p.kept = append(p.kept, leaf)
}

func (r *row) expect(index uint64) {
	if n := len(r.nodes); n == 0 || r.nodes[n-1].index < index {
		r.nodes = append(r.nodes, comingNode{index: index})
	}
}

// note keeps a node where it is expected. Those of a level come from left to
// right.
func (p *Prover) note(level int, index uint64, sum [sha256.Size]byte) {
	if level >= MaxPath {
		return
	}
	r := &p.rows[level]
	if r.next < len(r.nodes) && r.nodes[r.next].index == index {
		r.nodes[r.next].sum = sum
		r.next++
	}
}

// Add appends a leaf, as [Tree.Add] does.
func (p *Prover) Add(leaf []byte) {
	p.tree.seen = p.note
	p.tree.Add(leaf)
}

// AddEntry appends the leaf [id, item], as [Tree.AddEntry] does.
func (p *Prover) AddEntry(id abi.ID, item []byte) {
	p.tree.seen = p.note
	p.tree.AddEntry(id, item)
}

// Len returns the number of leaves so far.
func (p *Prover) Len() uint64 { return p.tree.count }

// Root returns the root. It comes after the last leaf, and before proofs.
func (p *Prover) Root() [sha256.Size]byte {
	if p.tree.count == 0 {
		return p.tree.Root()
	}
	return p.tree.close(p.note)
}

// Proof returns the proof of a leaf that was kept. The error says that it was
// not.
func (p *Prover) Proof(index uint64) (Proof, error) {
	proof := Proof{Index: index, Size: p.tree.count}
	at, found := slices.BinarySearchFunc(p.kept, index, func(k keptLeaf, index uint64) int { return cmp.Compare(k.index, index) })
	if !found || index >= proof.Size {
		return proof, fmt.Errorf("merkle: leaf %d was not kept for a proof", index)
	}
	left := p.kept[at].left
	for level, i, last := 0, index, proof.Size-1; last > 0; level, i, last = level+1, i>>1, last>>1 {
		switch {
		case i&1 == 1:
			proof.Path, left = append(proof.Path, left[0]), left[1:]
		case i < last:
			nodes := p.rows[level].nodes
			k, _ := slices.BinarySearchFunc(nodes, i^1, func(n comingNode, index uint64) int { return cmp.Compare(n.index, index) })
			proof.Path = append(proof.Path, nodes[k].sum)
		}
	}
	return proof, nil
}
