package fold

import (
	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
)

// maxEarly limits the outputs that are held until earlier ones arrive, in bytes.
const maxEarly = 64 << 20

// Batch is the outputs of consecutive chunks, at least one.
type Batch interface {
	First() int                            // index of the first chunk
	Len() int                              // number of outputs
	Size() int                             // number of bytes that are held
	Each(f func(id abi.ID, output []byte)) // in order
	Span() *merkle.Span                    // tree of the outputs
	Hold()                                 // called when the batch is kept for longer
	Free()                                 // gives the memory back
}

// Stream hashes and folds outputs in id order while others are still being
// executed. It takes batches that arrive in order, and early ones as long as it can
// hold them. Outputs that it did not see are read from the store afterwards.
//
// Its fields except the channel belong to the goroutine of Run until Run has
// returned.
type Stream struct {
	in    chan Batch
	early map[int]Batch // by their first chunk
	held  int           // number of bytes in early
	over  bool          // no more batches are held

	next int // the next chunk
	tree merkle.Tree
	fold *Fold // nil if outputs are not folded, or may have been folded before
	tee  func(id abi.ID, output []byte)
}

// NewStream returns a stream with room for a number of waiting batches. fold may be
// nil, and so may tee, which Run calls with each output that it sees in order.
func NewStream(room int, fold *Fold, tee func(id abi.ID, output []byte)) *Stream {
	return &Stream{in: make(chan Batch, room), early: map[int]Batch{}, fold: fold, tee: tee}
}

// Put gives the stream a batch, which the stream frees. It is safe for concurrent
// use.
func (s *Stream) Put(b Batch) { s.in <- b }

// Close marks the end of the batches.
func (s *Stream) Close() { close(s.in) }

// Run handles batches until the stream is closed.
func (s *Stream) Run() {
	for b := range s.in {
		s.take(b)
	}
	clear(s.early)
}

// Seen returns the tree of the outputs that the stream has seen in order: those of
// the chunks before next. Run must have returned.
func (s *Stream) Seen() (tree *merkle.Tree, next int) { return &s.tree, s.next }

// take uses a batch and those that were waiting for it, or holds it for later.
func (s *Stream) take(b Batch) {
	switch first := b.First(); {
	case first == s.next:
		s.use(b)
		for b := s.early[s.next]; b != nil; b = s.early[s.next] {
			delete(s.early, s.next)
			s.held -= b.Size()
			s.use(b)
		}
	case s.over || s.held+b.Size() > maxEarly:
		s.over = true
		clear(s.early)
		b.Free()
	default:
		s.early[first] = b
		s.held += b.Size()
		b.Hold()
	}
}

func (s *Stream) use(b Batch) {
	s.tree.Append(b.Span())
	n := b.Len()
	if s.fold != nil {
		b.Each(s.fold.Add)
	}
	if s.tee != nil {
		b.Each(s.tee)
	}
	s.next += n
	b.Free()
}
