package merkle

import (
	"crypto/sha256"
	"runtime"
	"sync"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

const (
	// portionCount and portionBytes limit the data that is hashed at once while
	// more is read. The count is a power of two: full portions become one subtree
	// each.
	portionCount = 4096
	portionBytes = 1 << 20
)

// Digester hashes entries as a [Tree] does, on all processors, while its caller
// reads on: hashing takes longer than reading small entries. It must not be used by
// two goroutines at once.
type Digester struct {
	tree    *Tree   // of the portions that are joined
	prover  *Prover // the prover that tree belongs to; nil means none
	pending []*portion
	open    *portion // being filled; nil means none
	spare   []*portion
	count   uint64
	most    int // number of portions that may be hashed at once
	hashing sync.WaitGroup
}

// portion is a run of leaves. Their hashes are valid once done has been received
// from.
type portion struct {
	ends  []int  // end of each leaf, in bytes
	bytes []byte // leaves, each with its padding
	span  Span
	done  chan struct{}
}

// NewDigester returns an empty Digester. p may be nil; otherwise it is an empty
// Prover of [NewProver], which can prove its leaves after [Digester.Root].
func NewDigester(p *Prover) *Digester {
	d := &Digester{tree: new(Tree), prover: p, most: runtime.GOMAXPROCS(0)}
	if p != nil {
		d.tree = &p.tree
		d.tree.seen = p.set
	}
	return d
}

// Add appends the leaf [id, item]. The item is copied.
func (d *Digester) Add(id abi.ID, item []byte) {
	if d.open == nil {
		d.open = d.take()
		d.open.span.Reset(d.count)
	}
	p := d.open
	start := len(p.bytes)
	p.bytes = appendPadding(abi.AppendEntry(append(p.bytes, leafPrefix), id, item), start)
	p.ends = append(p.ends, len(p.bytes))
	d.count++
	if len(p.ends) == portionCount || len(p.bytes) >= portionBytes {
		d.dispatch()
	}
}

// Len returns the number of leaves.
func (d *Digester) Len() uint64 { return d.count }

// take returns an empty portion. It waits while the maximum number of portions is
// being hashed.
func (d *Digester) take() *portion {
	if len(d.pending) >= d.most {
		d.join()
	}
	if len(d.spare) == 0 {
		return &portion{span: Span{prover: d.prover}, done: make(chan struct{}, 1)}
	}
	last := len(d.spare) - 1
	p := d.spare[last]
	d.spare = d.spare[:last]
	return p
}

// dispatch starts hashing the open portion.
func (d *Digester) dispatch() {
	p := d.open
	d.open = nil
	d.pending = append(d.pending, p)
	d.hashing.Go(func() {
		start := 0
		for _, end := range p.ends {
			p.span.hash.padded(p.span.leaf(), p.bytes[start:end])
			p.span.join()
			start = end
		}
		p.done <- struct{}{} // does not block: done has a buffer
	})
}

// join adds the oldest portion to the tree.
func (d *Digester) join() {
	p := d.pending[0]
	d.pending = append(d.pending[:0], d.pending[1:]...)
	<-p.done
	d.tree.Append(&p.span)
	p.ends, p.bytes = p.ends[:0], p.bytes[:0]
	if cap(p.bytes) > 2*portionBytes { // do not keep the memory of a large item
		p.bytes = nil
	}
	d.spare = append(d.spare, p)
}

// Root returns the root of the leaves that were added. Nothing may be added
// afterwards.
func (d *Digester) Root() [sha256.Size]byte {
	if d.open != nil {
		d.dispatch()
	}
	for len(d.pending) > 0 {
		d.join()
	}
	if d.prover != nil {
		return d.prover.Root()
	}
	return d.tree.Root()
}

// Close waits for hashing to end. It may be called at any time, and must be called
// at the end.
func (d *Digester) Close() { d.hashing.Wait() }
