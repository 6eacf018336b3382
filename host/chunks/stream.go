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
	ID       abi.ID // that it states, or its position
	Bytes    []byte // one CBOR item; may be used until the next chunk is asked for
}

// errStopped ends a scan whose chunks nobody wants any more.
var errStopped = errors.New("no more chunks are wanted")

// Stream yields the chunks of what r delivers in the order of the file, while
// it is read, and holds no more than one of them. Each is checked as by [Open],
// but for this: whether two chunks have one id is not known, and neither is
// their number limited. The error that ends a stream is an *[InputError], or
// ctx's where ctx ended first.
func Stream(ctx context.Context, r io.Reader, o Options) iter.Seq2[Chunk, error] {
	o = o.withDefaults("chunks")
	return func(yield func(Chunk, error) bool) {
		defer interruptReads(ctx, r)()
		s := &scanner{file: &File{name: o.Name}, o: o, w: newWindow(ctx, r, -1, o)}
		s.stream = func(c Chunk) bool { return yield(c, nil) }
		if err := s.top(); err != nil && err != errStopped {
			yield(Chunk{}, err)
		}
	}
}
