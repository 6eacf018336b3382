package chunks

import (
	"crypto/sha256"
	"runtime"
	"sync"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
)

const (
	// portionCount and portionBytes bound what is hashed at once, beside the
	// reading.
	portionCount = 4096
	portionBytes = 1 << 20
)

// digester makes the input digest of chunks that come in id order. Hashing
// takes longer than all else that a scan does with small chunks, so it goes on
// beside it, on the other processors.
type digester struct {
	tree    merkle.Tree // of the portions that were joined
	pending []*portion  // being hashed, the oldest first
	open    *portion    // being filled; nil = none
	spare   []*portion
	count   uint64
	most    int // portions that are hashed at once
	hashing sync.WaitGroup
}

// portion is a run of entries, with what is hashed of them once done has been
// received from.
type portion struct {
	ids   []abi.ID
	ends  []int // of each chunk, in bytes
	bytes []byte
	span  merkle.Span
	done  chan struct{}
}

func newDigester() *digester { return &digester{most: runtime.GOMAXPROCS(0)} }

// add takes a copy of the chunk.
func (d *digester) add(id abi.ID, chunk []byte) {
	if d.open == nil {
		d.open = d.take()
		d.open.span.Reset(d.count)
	}
	p := d.open
	p.ids = append(p.ids, id)
	p.bytes = append(p.bytes, chunk...)
	p.ends = append(p.ends, len(p.bytes))
	d.count++
	if len(p.ids) == portionCount || len(p.bytes) >= portionBytes {
		d.dispatch()
	}
}

// take returns an empty portion, once fewer than the most are being hashed.
func (d *digester) take() *portion {
	if len(d.pending) >= d.most {
		d.join()
	}
	if len(d.spare) == 0 {
		return &portion{done: make(chan struct{}, 1)}
	}
	last := len(d.spare) - 1
	p := d.spare[last]
	d.spare = d.spare[:last]
	return p
}

// dispatch lets the open portion be hashed.
func (d *digester) dispatch() {
	p := d.open
	d.open = nil
	d.pending = append(d.pending, p)
	d.hashing.Go(func() {
		start := 0
		for i, end := range p.ends {
			p.span.AddEntry(p.ids[i], p.bytes[start:end])
			start = end
		}
		p.done <- struct{}{} // has room
	})
}

// join takes in the oldest portion.
func (d *digester) join() {
	p := d.pending[0]
	d.pending = append(d.pending[:0], d.pending[1:]...)
	<-p.done
	d.tree.Append(&p.span)
	p.ids, p.ends, p.bytes = p.ids[:0], p.ends[:0], p.bytes[:0]
	if cap(p.bytes) > 2*portionBytes { // a large chunk is no reason to keep that much
		p.bytes = nil
	}
	d.spare = append(d.spare, p)
}

// root returns the digest of what was added. Nothing may be added afterwards.
func (d *digester) root() [sha256.Size]byte {
	if d.open != nil {
		d.dispatch()
	}
	for len(d.pending) > 0 {
		d.join()
	}
	return d.tree.Root()
}

// close waits for what is still being hashed.
func (d *digester) close() { d.hashing.Wait() }
