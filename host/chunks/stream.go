package chunks

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// A Chunk is one chunk of a stream.
type Chunk struct {
	Position int    // in the file, from zero
	ID       abi.ID // the stated id, or the position
	Bytes    []byte // one CBOR item; may be used until the next chunk is asked for
}

// errStopped ends a scan when its consumer wants no more chunks.
var errStopped = errors.New("no more chunks are wanted")

// Stream yields the chunks of r in file order, while r is read, and holds one of
// them at most. Each is checked as by [Open], except that duplicate ids are not
// detected and the number of chunks is not limited. The error that ends a stream is
// an *[InputError], or ctx.Err() if ctx ended first.
func Stream(ctx context.Context, r io.Reader, o Options) iter.Seq2[Chunk, error] {
	o = o.withDefaults("chunks")
	return func(yield func(Chunk, error) bool) {
		defer InterruptReads(ctx, r)()
		s := &scanner{file: &File{name: o.Name}, o: o, w: newWindow(ctx, r, -1, o)}
		s.stream = func(c Chunk) bool { return yield(c, nil) }
		if err := s.top(); err != nil && err != errStopped {
			yield(Chunk{}, err)
		}
	}
}

// StreamSeq is [Stream] over items that come from code; o.Format is not looked at.
// An error of seq ends the stream and comes back wrapped in an *[InputError].
func StreamSeq(ctx context.Context, seq iter.Seq2[[]byte, error], o Options) iter.Seq2[Chunk, error] {
	o = o.withDefaults("chunks")
	return func(yield func(Chunk, error) bool) {
		s := &scanner{file: &File{name: o.Name}, o: o, w: newWindow(ctx, nil, -1, o)}
		s.stream = func(c Chunk) bool { return yield(c, nil) }
		for item, err := range seq {
			if ctx.Err() != nil {
				err = ctx.Err()
			} else if err != nil {
				err = s.fail(err, "cannot be had: "+err.Error(), "")
			} else {
				err = s.collectOne(item, io.Discard)
			}
			if err != nil {
				if err != errStopped {
					yield(Chunk{}, err)
				}
				return
			}
			if s.full() {
				return
			}
		}
	}
}
