package host

import (
	"context"

	"github.com/wasm-jobs/wasm-jobs/host/merkle"
)

// maxEarly bounds the outputs that are held because others come before them, in
// bytes.
const maxEarly = 64 << 20

// stream hashes and folds outputs in id order while others are still being
// executed, straight from the batches that were stored. It goes as far as
// batches come in order, or early by no more than it can hold: what it did not
// see is read from the store afterwards.
//
// Its fields belong to its goroutine until wait has returned, apart from the
// channels.
type stream struct {
	in    chan *batch    // stored, of consecutive chunks; has room for all there are
	calls chan foldCall  // that the folder wants to be made
	early map[int]*batch // by their first chunk
	held  int            // bytes of them
	spare []*batch       // that were used, and whose workers had got others meanwhile
	over  bool           // nothing more is held

	next   int // chunk that comes next
	tree   merkle.Tree
	folder *folder    // nil where outputs are not folded, or were perhaps before
	later  []foldCall // that nobody made
}

// newStream returns the stream of a run. Where the store may hold outputs,
// nothing is streamed.
func (r *run) newStream(ctx context.Context) *stream {
	s := &stream{in: make(chan *batch, batches*r.config.Workers), calls: make(chan foldCall), early: map[int]*batch{}}
	if !r.lookup && r.aggregates() {
		s.folder = r.newFolder(ctx)
		s.folder.submit = func(c foldCall) { s.calls <- c }
	}
	return s
}

// work takes in batches until there are no more.
func (s *stream) work(r *run) {
	defer close(s.calls)
	for b := range s.in {
		s.take(r, b)
	}
	clear(s.early)
	s.spare = nil
}

// wait ends the stream, and collects the calls that it still wants to be made.
func (s *stream) wait() {
	close(s.in)
	for c := range s.calls {
		s.later = append(s.later, c)
	}
}

// cancel ends the calls of the guest.
func (s *stream) cancel() {
	if s != nil && s.folder != nil {
		s.folder.cancel()
	}
}

// take uses a batch, with those that were waiting for it, or holds it for later.
// Either way its worker has an empty one again.
func (s *stream) take(r *run, b *batch) {
	first := b.pending[0].index
	switch {
	case first == s.next:
		s.use(r, b)
		b.giveBack()
		for b := s.early[s.next]; b != nil; b = s.early[s.next] {
			delete(s.early, s.next)
			s.held -= len(b.arena)
			s.use(r, b)
			if len(s.spare) < cap(s.in) && cap(b.arena) <= 2*flushBytes {
				s.spare = append(s.spare, b)
			}
		}
	case s.over || s.held+len(b.arena) > maxEarly:
		s.over = true
		clear(s.early)
		b.giveBack()
	default:
		s.early[first] = b
		s.held += len(b.arena)
		s.another(b.home).giveBack()
	}
}

// another returns a batch for a worker in place of one that is held: memory that
// was filled before, where there is some, as it is not to be grown into again.
func (s *stream) another(home chan<- *batch) *batch {
	last := len(s.spare) - 1
	if last < 0 {
		return newBatch(home)
	}
	b := s.spare[last]
	s.spare, b.home = s.spare[:last], home
	return b
}

func (s *stream) use(r *run, b *batch) {
	s.tree.Append(&b.span)
	for _, p := range b.pending {
		s.folder.addEntry(r.Chunks.ID(p.index), b.arena[p.middle:p.end])
	}
	s.next += len(b.pending)
}
