package merkle

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// MaxPath is the length of the longest audit path: a tree has 2^64 leaves at most.
const MaxPath = 64

// Proof shows that a leaf is in a tree. It is an audit path (RFC 6962, section
// 2.1.1): the roots of the sibling subtrees from the leaf up.
type Proof struct {
	Index uint64 // of the leaf, counted from 0
	Size  uint64 // number of leaves of the tree
	Path  [][sha256.Size]byte
}

// ErrProof reports a proof whose length does not fit its index and size.
var ErrProof = errors.New("the audit path does not fit the index and the size")

// Root returns the root of the tree in which a leaf with this hash has the proof's
// index. The proof holds if that is the root of the expected tree. The error is
// [ErrProof].
func (p *Proof) Root(leaf [sha256.Size]byte) ([sha256.Size]byte, error) {
	if p.Index >= p.Size || len(p.Path) > MaxPath {
		return leaf, ErrProof
	}
	var hash hasher
	path, sum := p.Path, leaf
	for i, last := p.Index, p.Size-1; last > 0; i, last = i>>1, last>>1 {
		if i == last && i&1 == 0 { // has no sibling, and moves up unchanged
			continue
		}
		if len(path) == 0 {
			return leaf, ErrProof
		}
		if i&1 == 1 {
			hash.node(&sum, &path[0], &sum)
		} else {
			hash.node(&sum, &sum, &path[0])
		}
		path = path[1:]
	}
	if len(path) > 0 {
		return leaf, ErrProof
	}
	return sum, nil
}

// Prover hashes the leaves of a tree as they come, like a [Tree], and keeps the
// nodes that some leaves need for their proofs: at most 64 hashes for each. The
// zero Prover is empty and ready for use; [NewProver] makes one for a [Digester].
// It must not be copied after the first leaf, nor be used by two goroutines at
// once.
type Prover struct {
	tree Tree
	kept []uint64     // leaves that need proofs, ascending
	rows [MaxPath]row // by level
	next cursors
	way  []wayNode         // path to a root, by level, of the leaf that was proved last
	top  [sha256.Size]byte // the root of that path
}

// row has the siblings, in one level, of the paths from kept leaves to the root.
// Numbers do not change while several goroutines write sums.
type row struct {
	numbers []uint64 // index of each node in its level, ascending
	sums    [][sha256.Size]byte
}

// wayNode is a node on the path from a leaf to the root.
type wayNode struct {
	number uint64
	sum    [sha256.Size]byte
}

// cursors holds, for each row, the number of its nodes before the next one.
type cursors [MaxPath]int

// NewProver returns an empty Prover for the proofs of the leaves at indices,
// which ascend.
func NewProver(indices []uint64) *Prover {
	p := &Prover{kept: indices}
	for level := range p.rows {
		for _, index := range indices {
			p.rows[level].expect(index>>level^1, [sha256.Size]byte{})
		}
	}
	return p
}

// expect puts a node into a row unless it is there; added reports whether it was
// missing. If leaves ascend, the node can only be the last one or the one before.
func (r *row) expect(number uint64, sum [sha256.Size]byte) (added bool) {
	at := len(r.numbers)
	for at > 0 && r.numbers[at-1] > number {
		at--
	}
	if at > 0 && r.numbers[at-1] == number {
		return false
	}
	r.numbers, r.sums = slices.Insert(r.numbers, at, number), slices.Insert(r.sums, at, sum)
	return true
}

// Keep marks the next leaf: its proof will be asked for.
func (p *Prover) Keep() {
	index := p.tree.count
	for level := range p.rows {
		number := index>>level ^ 1
		came := number < index>>level // the sibling is the latest node of its level
		var sum [sha256.Size]byte
		if came {
			sum = p.tree.edge[level]
		}
		if p.rows[level].expect(number, sum) && came {
			p.next[level]++
		}
	}
	p.kept = append(p.kept, index)
}

// cursorsAt returns the cursors of a span that begins at a leaf.
func (p *Prover) cursorsAt(first uint64) (next cursors) {
	for level := range p.rows {
		next[level], _ = slices.BinarySearch(p.rows[level].numbers, first>>level)
	}
	return next
}

// note keeps a node that a proof needs. Each cursors sees the nodes of a level from
// left to right, and each node belongs to only one cursors, so that several
// goroutines may note their hashes.
func (p *Prover) note(next *cursors, level int, number uint64, sum *[sha256.Size]byte) {
	if level >= MaxPath {
		return
	}
	numbers, at := p.rows[level].numbers, next[level]
	for at < len(numbers) && numbers[at] < number {
		at++
	}
	if at < len(numbers) && numbers[at] == number {
		p.rows[level].sums[at] = *sum
		at++
	}
	next[level] = at
}

// noteNext notes a node of a tree whose leaves come one after another.
func (p *Prover) noteNext(level int, number uint64, sum [sha256.Size]byte) {
	p.note(&p.next, level, number, &sum)
}

// set keeps a node that a proof needs. Nodes may come in any order.
func (p *Prover) set(level int, number uint64, sum [sha256.Size]byte) {
	if level >= MaxPath {
		return
	}
	if at, found := slices.BinarySearch(p.rows[level].numbers, number); found {
		p.rows[level].sums[at] = sum
	}
}

// sibling returns the sibling of a node on the path from a kept leaf to the root.
func (p *Prover) sibling(level int, number uint64) *[sha256.Size]byte {
	at, _ := slices.BinarySearch(p.rows[level].numbers, number^1)
	return &p.rows[level].sums[at]
}

// Add appends a leaf, as [Tree.Add] does.
func (p *Prover) Add(leaf []byte) {
	p.tree.seen = p.noteNext
	p.tree.Add(leaf)
}

// AddHash appends a leaf, as [Tree.AddHash] does.
func (p *Prover) AddHash(sum [sha256.Size]byte) {
	p.tree.seen = p.noteNext
	p.tree.AddHash(sum)
}

// AddEntry appends the leaf [id, item], as [Tree.AddEntry] does.
func (p *Prover) AddEntry(id abi.ID, item []byte) {
	p.tree.seen = p.noteNext
	p.tree.AddEntry(id, item)
}

// Len returns the number of leaves so far.
func (p *Prover) Len() uint64 { return p.tree.count }

// Root returns the root. It comes after the last leaf, and before proofs.
func (p *Prover) Root() [sha256.Size]byte {
	if p.tree.count == 0 {
		return p.tree.Root()
	}
	return p.tree.close(p.set)
}

// Proof returns the proof of a leaf that was kept, and an error for any other leaf.
func (p *Prover) Proof(index uint64) (Proof, error) {
	proof := Proof{Index: index, Size: p.tree.count}
	if _, found := slices.BinarySearch(p.kept, index); !found || index >= proof.Size {
		return proof, fmt.Errorf("merkle: leaf %d was not kept for a proof", index)
	}
	for level, i, last := 0, index, proof.Size-1; last > 0; level, i, last = level+1, i>>1, last>>1 {
		if i&1 == 1 || i < last {
			proof.Path = append(proof.Path, *p.sibling(level, i))
		}
	}
	return proof, nil
}

// Proves reports whether the proof of a kept leaf leads from its hash to a root. It
// stops at the first node that is also on the path of the leaf before, so that many
// leaves in ascending order are proved with one hash for each node.
func (p *Prover) Proves(index uint64, leaf, root [sha256.Size]byte) bool {
	if _, found := slices.BinarySearch(p.kept, index); !found || index >= p.tree.count {
		return false
	}
	if p.top != root {
		p.way, p.top = p.way[:0], root
	}
	var way [MaxPath]wayNode
	sum, level := leaf, 0
	for i, last := index, p.tree.count-1; last > 0; level, i, last = level+1, i>>1, last>>1 {
		way[level] = wayNode{i, sum}
		if level < len(p.way) && p.way[level] == way[level] {
			copy(p.way, way[:level])
			return true
		}
		if i&1 == 0 && i == last { // has no sibling
			continue
		}
		if sibling := p.sibling(level, i); i&1 == 1 {
			p.tree.hash.node(&sum, sibling, &sum)
		} else {
			p.tree.hash.node(&sum, &sum, sibling)
		}
	}
	if sum != root {
		return false
	}
	p.way = append(p.way[:0], way[:level]...)
	return true
}
