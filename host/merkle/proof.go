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
	var hash hasher
	path, sum := p.Path, leaf
	for i, last := p.Index, p.Size-1; last > 0; i, last = i>>1, last>>1 {
		if i == last && i&1 == 0 { // has nothing beside it, and is passed on
			continue
		}
		if len(path) == 0 {
			return leaf, ErrProof
		}
		if i&1 == 1 {
			sum = hash.node(&path[0], &sum)
		} else {
			sum = hash.node(&sum, &path[0])
		}
		path = path[1:]
	}
	if len(path) > 0 {
		return leaf, ErrProof
	}
	return sum, nil
}

// Prover hashes the leaves of a tree as they come, as a [Tree], and keeps what
// the proofs of some of them need: no more than 64 hashes for each. The zero
// Prover is empty and ready for use; [NewProver] makes one for a [Digester]. It
// must not be copied after the first leaf, nor be used by two goroutines at
// once.
type Prover struct {
	tree Tree
	kept []uint64     // leaves whose proofs will be asked for, ascending
	rows [MaxPath]row // by level
	next cursors
	way  []wayNode         // to a root, by level: of the leaf that was proved last
	top  [sha256.Size]byte // that root
}

// row has the nodes of a level that stand beside the way from a kept leaf to the
// root. Numbers stay as they are while several goroutines write sums.
type row struct {
	numbers []uint64 // of the nodes in their level, ascending
	sums    [][sha256.Size]byte
}

// wayNode is a node on the way from a leaf to the root.
type wayNode struct {
	number uint64
	sum    [sha256.Size]byte
}

// cursors say for each row how many of its nodes stand before the one that
// comes next.
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

// expect puts a node into a row, unless it is there; added reports whether it
// was not. Of leaves that ascend, it is the last one or the one before.
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

// Keep says that the proof of the next leaf will be asked for.
func (p *Prover) Keep() {
	index := p.tree.count
	for level := range p.rows {
		number := index>>level ^ 1
		came := number < index>>level // it is the last that came of its level
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

// note keeps a node where it is needed. With one cursors, those of a level come
// from left to right; each node comes with one of them alone, so that several
// goroutines may note what they hash.
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

// set keeps a node where it is needed, in whatever order nodes come.
func (p *Prover) set(level int, number uint64, sum [sha256.Size]byte) {
	if level >= MaxPath {
		return
	}
	if at, found := slices.BinarySearch(p.rows[level].numbers, number); found {
		p.rows[level].sums[at] = sum
	}
}

// beside returns the node beside one on the way from a kept leaf to the root.
func (p *Prover) beside(level int, number uint64) *[sha256.Size]byte {
	at, _ := slices.BinarySearch(p.rows[level].numbers, number^1)
	return &p.rows[level].sums[at]
}

// Add appends a leaf, as [Tree.Add] does.
func (p *Prover) Add(leaf []byte) {
	p.tree.seen = p.noteNext
	p.tree.Add(leaf)
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

// Proof returns the proof of a leaf that was kept. The error says that it was
// not.
func (p *Prover) Proof(index uint64) (Proof, error) {
	proof := Proof{Index: index, Size: p.tree.count}
	if _, found := slices.BinarySearch(p.kept, index); !found || index >= proof.Size {
		return proof, fmt.Errorf("merkle: leaf %d was not kept for a proof", index)
	}
	for level, i, last := 0, index, proof.Size-1; last > 0; level, i, last = level+1, i>>1, last>>1 {
		if i&1 == 1 || i < last {
			proof.Path = append(proof.Path, *p.beside(level, i))
		}
	}
	return proof, nil
}

// Proves reports whether the proof of a leaf that was kept leads from its hash
// to a root. It goes no farther up than to where the way meets that of the leaf
// before: many leaves in ascending order are proved with a hash for each node.
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
		if i&1 == 0 && i == last { // has nothing beside it
			continue
		}
		if beside := p.beside(level, i); i&1 == 1 {
			sum = p.tree.hash.node(beside, &sum)
		} else {
			sum = p.tree.hash.node(&sum, beside)
		}
	}
	if sum != root {
		return false
	}
	p.way = append(p.way[:0], way[:level]...)
	return true
}
