package chunks

import (
	"context"
	"sync"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// readSize is the limit of one read of neighbouring chunks, in bytes. A larger
// chunk takes one read of its own.
const readSize = 1 << 20

// readGap is the largest gap between two chunks, in bytes, that is read with them
// instead of making a second read: reading it takes about as long as a system call.
const readGap = 8 << 10

// buffers holds *[]byte of readSize, for [File.Read].
var buffers = sync.Pool{New: func() any { b := make([]byte, readSize); return &b }}

// Read calls each for the chunks from..to-1 in id order. A chunk's bytes are the
// file's own bytes and may be used until each returns. Chunks that lie close
// together in the file share a read.
//
// The error is the first that each returns, ctx.Err() if ctx ended, or an
// *[InputError]. The cause is [ErrChanged] if the bytes of a chunk are no longer
// one CBOR item. Read panics if from..to is not a range of chunks.
func (f *File) Read(ctx context.Context, from, to int, each func(i int, chunk []byte) error) error {
	if from < 0 || from > to || to > f.Len() {
		panic("chunks: Read of chunks that are not there")
	}
	pooled := buffers.Get().(*[]byte)
	defer buffers.Put(pooled)
	buf := *pooled
	for i := from; i < to; {
		if err := ctx.Err(); err != nil {
			return err
		}
		next, start, size := f.run(i, to)
		if size > len(buf) {
			buf = make([]byte, size)
		}
		if _, err := f.data.ReadAt(buf[:size], start); err != nil {
			return readError(f.name, start, err)
		}
		if err := f.eachOf(ctx, i, next, start, buf[:size], each); err != nil {
			return err
		}
		i = next
	}
	return nil
}

// run returns the end of the run of chunks from i on, up to at most to, that lie
// together in the file, and the offset and the size of their bytes.
func (f *File) run(i, to int) (next int, start int64, size int) {
	start, end := f.index.span(f.index.position(i))
	for next = i + 1; next < to; next++ {
		s, e := f.index.span(f.index.position(next))
		if s < end || s-end > readGap || e-start > readSize {
			break
		}
		end = e
	}
	return next, start, int(end - start)
}

// eachOf hands out the chunks i..next-1, whose bytes b were read from offset start.
func (f *File) eachOf(ctx context.Context, i, next int, start int64, b []byte, each func(int, []byte) error) error {
	for ; i < next; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		from, to := f.index.span(f.index.position(i))
		chunk := b[from-start : to-start : to-start]
		if n, err := abi.ItemSize(chunk); err != nil || n != len(chunk) {
			return changedError(f.name)
		}
		if err := each(i, chunk); err != nil {
			return err
		}
	}
	return nil
}
