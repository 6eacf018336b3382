package processor

import (
	"bufio"
	"context"
	"errors"
	"io"
	"iter"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

// Format is the encoding of requests and answers in a stream of bytes.
type Format int

const (
	// CBOR is a sequence of items (RFC 8742): each request is one, and each answer
	// the map {"id": id, "output": output}, or {"id": id, "failure": {"class":
	// class, "message": message}}.
	CBOR Format = iota
	// JSONLines is one JSON value (RFC 8259) on each line: a request as package
	// host/sources reads it, or the map of an answer as package host/notation writes
	// it.
	JSONLines
)

// Requests yields the requests of a stream of bytes as they come. Ids are as in
// chunk files: the value of the key "id", as o says, or the position. They need not be
// unique. The error that ends the sequence is a *[chunks.InputError] or a
// *[sources.Error], which names the position, or ctx's. If r has a method
// SetReadDeadline, the end of ctx interrupts a read.
func Requests(ctx context.Context, r io.Reader, f Format, o chunks.Options) iter.Seq2[Request, error] {
	o.Format = chunks.Sequence
	seq := chunks.Stream(ctx, r, o)
	if f == JSONLines {
		seq = jsonLines(ctx, r, o)
	}
	return func(yield func(Request, error) bool) {
		for c, err := range seq {
			if cause, ok := errors.AsType[*sources.Error](err); ok { // which names file and line
				err = cause
			}
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			if !yield(Request{c.ID, c.Bytes}, err) || err != nil {
				return
			}
		}
	}
}

func jsonLines(ctx context.Context, r io.Reader, o chunks.Options) iter.Seq2[chunks.Chunk, error] {
	return func(yield func(chunks.Chunk, error) bool) {
		defer chunks.InterruptReads(ctx, r)()
		lines := sources.JSONLines(sources.Input{Name: o.Name, Reader: r, MaxChunk: o.MaxChunk, Stream: true})
		chunks.StreamSeq(ctx, lines, o)(yield)
	}
}

// AnswerWriter is a [Sink] that writes answers to a stream of bytes.
type AnswerWriter struct {
	W      *bufio.Writer
	Format Format
	// Flushed is called after each flush of W; may be nil.
	Flushed func() error
	// Observe is called once with each answer, the one that is written: before that if it
	// is a failure, which Observe may replace. May be nil.
	Observe func(*Answer)

	item []byte
}

// Write implements [Sink]. An output that JSON cannot express is a failure of class
// abi.
func (w *AnswerWriter) Write(a *Answer) error {
	if a.Failure == nil {
		err := w.write(a)
		form, isForm := errors.AsType[*notation.FormError](err)
		if !isForm {
			w.observe(a)
			return err
		}
		a = &Answer{ID: a.ID, Failure: abi.Failf(abi.ClassABI, "the output %v", form)}
	}
	w.observe(a)
	return w.write(a)
}

func (w *AnswerWriter) observe(a *Answer) {
	if w.Observe != nil {
		w.Observe(a)
	}
}

// write writes an answer, or nothing if JSON cannot express it.
func (w *AnswerWriter) write(a *Answer) error {
	w.item = AppendAnswer(w.item[:0], a)
	if w.Format == CBOR {
		_, err := w.W.Write(w.item)
		return err
	}
	if err := notation.WriteJSON(w.W, w.item); err != nil {
		return err
	}
	return w.W.WriteByte('\n')
}

// Flush implements [Sink].
func (w *AnswerWriter) Flush() error {
	if err := w.W.Flush(); err != nil || w.Flushed == nil {
		return err
	}
	return w.Flushed()
}

// AppendAnswer appends an answer in the format [CBOR].
func AppendAnswer(dst []byte, a *Answer) []byte {
	if a.Failure == nil {
		return abi.AppendOutput(dst, a.ID, a.Result.Output)
	}
	dst = abi.AppendHead(dst, abi.MajorMap, 2)
	dst = a.ID.AppendCBOR(abi.AppendText(dst, "id"))
	dst = abi.AppendHead(abi.AppendText(dst, "failure"), abi.MajorMap, 2)
	dst = abi.AppendText(abi.AppendText(dst, "class"), string(a.Failure.Class))
	return abi.AppendText(abi.AppendText(dst, "message"), a.Failure.Message)
}
