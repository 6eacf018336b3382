package merkle

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sort"

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
// the proofs of some of them need: no more than 64 hashes for each. It must not
// be used by two goroutines at once.
type Prover struct {
	tree   Tree
	size   uint64
	wanted [MaxPath]row
}

// row has the nodes of one level that are wanted, ascending.
type row struct {
	nodes []wantedNode
	next  int // those before it are known
}

type wantedNode struct {
	index uint64
	sum   [sha256.Size]byte
}

// NewProver returns a prover of a tree that will have size leaves, for the
// leaves with some indices, which must be below size. It panics where one is
// not.
func NewProver(size uint64, indices []uint64) *Prover {
	p := &Prover{size: size}
	p.tree.seen = p.note
	at := slices.Clone(indices)
	slices.Sort(at)
	if len(at) > 0 && at[len(at)-1] >= size {
		panic(fmt.Sprintf("merkle: a proof of leaf %d is wanted of a tree of %d", at[len(at)-1], size))
	}
	for level, last := 0, size-1; len(at) > 0 && last > 0; level, last = level+1, last>>1 {
		at = slices.Compact(at)
		r := &p.wanted[level]
		for k, i := range at {
			if beside := i ^ 1; beside <= last {
				r.nodes = append(r.nodes, wantedNode{index: beside})
			}
			at[k] = i >> 1
		}
		slices.SortFunc(r.nodes, func(a, b wantedNode) int { return cmp.Compare(a.index, b.index) })
	}
	return p
}

// Add appends a leaf, as [Tree.Add] does.
func (p *Prover) Add(leaf []byte) { p.tree.Add(leaf) }

// AddEntry appends the leaf [id, item], as [Tree.AddEntry] does.
func (p *Prover) AddEntry(id abi.ID, item []byte) { p.tree.AddEntry(id, item) }

// Len returns the number of leaves so far.
func (p *Prover) Len() uint64 { return p.tree.count }

// note keeps a node where it is wanted. Those of a level come from left to right.
func (p *Prover) note(level int, index uint64, sum [sha256.Size]byte) {
	if level >= MaxPath {
		return
	}
	r := &p.wanted[level]
	if r.next < len(r.nodes) && r.nodes[r.next].index == index {
		r.nodes[r.next].sum = sum
		r.next++
	}
}

// Root returns the root, after the last leaf, and makes the proofs ready.
func (p *Prover) Root() [sha256.Size]byte {
	if p.tree.count == 0 {
		return p.tree.Root()
	}
	return p.tree.close(p.note)
}

// Proof returns the proof of a leaf that was asked for. It comes after Root, and
// the error says that the tree has another size than was said.
func (p *Prover) Proof(index uint64) (Proof, error) {
	proof := Proof{Index: index, Size: p.size}
	if p.tree.count != p.size {
		return proof, fmt.Errorf("merkle: %d leaves were added to a tree of %d", p.tree.count, p.size)
	}
	for level, i, last := 0, index, p.size-1; last > 0; level, i, last = level+1, i>>1, last>>1 {
		if i^1 > last {
			continue
		}
		nodes := p.wanted[level].nodes
		k := sort.Search(len(nodes), func(k int) bool { return nodes[k].index >= i^1 })
		if k == len(nodes) || nodes[k].index != i^1 {
			return proof, fmt.Errorf("merkle: no proof of leaf %d was asked for", index)
		}
		proof.Path = append(proof.Path, nodes[k].sum)
	}
	return proof, nil
}
