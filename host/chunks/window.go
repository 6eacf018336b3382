package chunks

import (
	"context"
	"errors"
	"io"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

const (
	// windowSize is the read-ahead of a scan, in bytes: large enough that the cost
	// of system calls does not matter, and small enough for a processor's cache.
	windowSize = 256 << 10
	// progressStep is the number of bytes between two reports of progress.
	progressStep = 1 << 20
	// emptyReads is the number of reads without data after which a reader is given
	// up.
	emptyReads = 100
)

// window is the part of the input that is in memory. It grows only as bytes
// arrive, and to no more than twice the largest item that fits its limit.
type window struct {
	ctx      context.Context
	r        io.Reader
	buf      []byte
	start    int   // of the unused bytes, in buf
	offset   int64 // of start, in the input
	limit    int   // largest size of one item, in bytes
	ended    bool  // r is at its end
	progress func(bytes, total int64)
	total    int64
	reported int64 // bytes at the last report of progress
}

func newWindow(ctx context.Context, r io.Reader, size int64, o Options) *window {
	return &window{
		ctx: ctx, r: r, total: size, progress: o.Progress,
		limit: int(min(o.MaxChunk, maxItem)),
	}
}

// bytes returns the bytes that were read and not yet used.
func (w *window) bytes() []byte { return w.buf[w.start:] }

// use moves past n of the bytes.
func (w *window) use(n int) {
	w.start += n
	w.offset += int64(n)
}

// atEnd reports whether all input was used.
func (w *window) atEnd() (bool, error) {
	err := w.want(1)
	return len(w.bytes()) == 0, err
}

// want reads until n bytes are available or the input ends, which is not an error.
func (w *window) want(n int) error {
	empty := 0
	for len(w.bytes()) < n && !w.ended {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		w.room(n)
		got, err := w.r.Read(w.buf[len(w.buf):cap(w.buf)])
		w.buf = w.buf[:len(w.buf)+got]
		w.report()
		if empty++; got > 0 {
			empty = 0
		}
		switch {
		case err == io.EOF:
			w.ended = true
		case err != nil:
			return err
		case empty == emptyReads:
			return io.ErrNoProgress
		}
	}
	return nil
}

// room makes space for n bytes, including those not yet used.
func (w *window) room(n int) {
	if w.start == 0 && len(w.buf) < cap(w.buf) {
		return
	}
	rest := w.bytes()
	if size := max(n, len(rest)+1, windowSize); size > cap(w.buf) {
		w.buf = append(make([]byte, 0, size), rest...)
	} else {
		w.buf = w.buf[:copy(w.buf[:cap(w.buf)], rest)]
	}
	w.start = 0
}

func (w *window) report() {
	bytes := w.offset + int64(len(w.bytes()))
	if w.progress != nil && bytes-w.reported >= progressStep {
		w.reported = bytes
		w.progress(bytes, w.total)
	}
}

// item returns the next item without moving past it; it is valid until the next
// call of a method. The error is [ErrTooLarge], [io.ErrUnexpectedEOF] if the input
// ends within the item, an *[abi.SyntaxError], or an error of the reader.
//
// Each retry looks at twice as many bytes as the one before, so that a large item
// is parsed no more than twice in all.
func (w *window) item() ([]byte, error) {
	for {
		b := w.bytes()
		size, err := abi.ItemSize(b)
		switch {
		case err == nil && size > w.limit:
			return nil, ErrTooLarge
		case err == nil:
			return b[:size], nil
		case !errors.Is(err, io.ErrUnexpectedEOF):
			return nil, err
		case len(b) >= w.limit || declared(b) > uint64(w.limit):
			return nil, ErrTooLarge
		case w.ended:
			return nil, io.ErrUnexpectedEOF
		}
		if err := w.want(min(max(2*len(b), 16), w.limit)); err != nil {
			return nil, err
		}
	}
}

// declared returns the smallest size that the item at the start of b can have by
// its head, in bytes. Those bytes may not exist.
func declared(b []byte) uint64 {
	h, err := abi.ReadHead(b)
	switch {
	case err != nil || h.Indefinite:
		return 0
	case h.Major >= abi.MajorBytes && h.Major <= abi.MajorMap:
		return h.Arg
	default:
		return 0
	}
}

// head returns the head of the next item and moves past it.
func (w *window) head() (abi.Head, error) {
	if err := w.want(9); err != nil {
		return abi.Head{}, err
	}
	h, err := abi.ReadHead(w.bytes())
	if err == nil {
		w.use(h.Size)
	}
	return h, err
}
