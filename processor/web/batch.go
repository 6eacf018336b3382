package web

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
	"github.com/wasm-jobs/wasm-jobs/processor"
)

// Types of the bodies of batches: a CBOR sequence (RFC 8742), or JSON lines.
var (
	sequenceTypes = []form{"application/cbor-seq", "application/cbor"}
	linesTypes    = []form{"application/jsonl", "application/x-ndjson", "application/x-jsonlines", "application/json"}
)

// batchFormat returns the format of a batch, and the media type of its answer.
func batchFormat(h *headers) (processor.Format, form, error) {
	f, err := mediaType(h)
	switch {
	case err != nil:
		return 0, "", err
	case slices.Contains(sequenceTypes, f):
		return processor.CBOR, sequenceTypes[0], nil
	case slices.Contains(linesTypes, f):
		return processor.JSONLines, linesTypes[0], nil
	}
	return 0, "", fmt.Errorf("invalid Content-Type %.80q: want application/cbor-seq or application/jsonl", first(h.contentType))
}

// batch answers a stream of requests.
func (s *Server) batch(w *answer, r *http.Request, e *entry, h *headers) {
	format, contentType, err := batchFormat(h)
	if err != nil {
		s.fail(w, e, http.StatusUnsupportedMediaType, "type", err.Error())
		return
	}
	order := r.URL.Query().Get("order")
	if order != "" && order != "input" && order != "completion" {
		s.fail(w, e, http.StatusBadRequest, "malformed", fmt.Sprintf("invalid order %.40q: want input or completion", order))
		return
	}
	limit, err := s.clientTimeout(h)
	if err != nil {
		s.fail(w, e, http.StatusBadRequest, "malformed", err.Error())
		return
	}
	if !s.enterBatch() {
		s.reject(w, e, ReasonFull)
		return
	}
	defer s.leaveBatch()
	control := http.NewResponseController(w)
	if err := control.EnableFullDuplex(); err != nil && r.ProtoMajor == 1 {
		s.fail(w, e, http.StatusInternalServerError, string(abi.ClassHost), "requests cannot be read while answers are written: "+err.Error())
		return
	}
	b := &batch{s: s, e: e, w: w, control: control, format: format, limit: limit}
	b.run(r, contentType, order == "completion")
}

// enterBatch counts a batch. It fails if too many are open.
func (s *Server) enterBatch() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.batches >= s.config.Workers+s.config.Queue {
		return false
	}
	s.batches++
	return true
}

func (s *Server) leaveBatch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batches--
}

// batch is a batch in progress.
type batch struct {
	s       *Server
	e       *entry
	w       *answer
	control *http.ResponseController
	format  processor.Format
	limit   time.Duration // of each request, as the client asks; 0 = none
	answers uint64
}

func (b *batch) run(r *http.Request, contentType form, completion bool) {
	ctx, cancel := b.context(r)
	defer cancel()
	b.w.Header().Set("Content-Type", string(contentType))
	b.w.Header()[headerModule] = b.e.digestValue
	sink := &processor.AnswerWriter{W: bufio.NewWriterSize(b, 16<<10), Format: b.format, Flushed: b.flush, Observe: b.observe}
	err := processor.Stream(patient{ctx}, b.runner(), func(ctx context.Context) iter.Seq2[processor.Request, error] {
		return b.requests(ctx, r)
	}, sink, processor.StreamOptions{Workers: b.s.config.Workers, Window: batchWindow, Held: batchHeld, Completion: completion})
	if err != nil {
		b.end(r, sink, err)
	}
}

// context returns the context of a batch: it ends with the server, and if the client goes
// away, except when the server drains. net/http then takes the interrupted read of the
// body for a client that is gone, and requests that were read are still answered.
func (b *batch) context(r *http.Request) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	stopEnd := context.AfterFunc(b.s.hard, cancel)
	stopGone := context.AfterFunc(r.Context(), func() {
		if b.s.soft.Err() == nil {
			cancel()
		}
	})
	return ctx, func() { stopEnd(); stopGone(); cancel() }
}

// requests yields the requests of the body, until the server drains.
func (b *batch) requests(ctx context.Context, r *http.Request) iter.Seq2[processor.Request, error] {
	return func(yield func(processor.Request, error) bool) {
		soft := b.s.soft
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(soft, cancel)()
		o := b.s.config.IDs
		o.Name, o.MaxChunk = "body", b.s.config.MaxBody
		first := true
		for request, err := range processor.Requests(ctx, &body{r.Body, b.control}, b.format, o) {
			if err != nil && soft.Err() != nil {
				return
			}
			if !first && err == nil {
				b.slowDown(ctx, r)
			}
			if first = false; !yield(request, err) {
				return
			}
		}
	}
}

// slowDown waits until the client may send one more request; the POST counts as the
// first. It waits no longer than ctx.
func (b *batch) slowDown(ctx context.Context, r *http.Request) {
	if b.s.rates == nil {
		return
	}
	wait := b.s.rates.reserve(client(r), time.Now())
	if wait == 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// body is a body whose reads can be interrupted.
type body struct {
	io.Reader
	control *http.ResponseController
}

func (b *body) SetReadDeadline(t time.Time) error { return b.control.SetReadDeadline(t) }

func (b *batch) observe(a *processor.Answer) {
	b.answers++
	if a.Failure != nil {
		a.Failure = b.s.words(a.Failure)
	}
}

// Write writes a part of the answer. The client must take each part within bodyTime.
// A flush follows before the batch waits for anything else.
func (b *batch) Write(p []byte) (int, error) {
	_ = b.control.SetWriteDeadline(time.Now().Add(bodyTime))
	return b.w.Write(p)
}

// flush sends what was written. In HTTP/2, a deadline also ends streams that write
// nothing: there is none until the next write.
func (b *batch) flush() error {
	err := b.control.Flush()
	_ = b.control.SetWriteDeadline(time.Time{})
	return err
}

// end reports an error that ended a batch early. A malformed request is a [Problem] if
// no answer was written before, and otherwise the last answer. After another error, the
// answer does not end as a complete one does.
func (b *batch) end(r *http.Request, sink *processor.AnswerWriter, err error) {
	malformed := isMalformed(err)
	switch {
	case (b.w.code != 0 || b.answers > 0) && !malformed:
		panic(http.ErrAbortHandler)
	case b.w.code != 0 || b.answers > 0:
		// All requests before the malformed one are answered.
		_ = sink.Write(&processor.Answer{ID: abi.IntID(b.answers), Failure: abi.Failf(abi.ClassABI, "malformed request ends the batch: %v", err)})
		_ = sink.Flush()
		b.w.Header().Set("Connection", "close")
	case malformed && isTooLarge(err):
		b.s.fail(b.w, b.e, http.StatusRequestEntityTooLarge, "large", err.Error())
	case malformed:
		b.s.fail(b.w, b.e, http.StatusBadRequest, "malformed", err.Error())
	default:
		b.s.failWith(b.w, r, b.e, err)
	}
}

// isMalformed reports whether an error is about the requests themselves.
func isMalformed(err error) bool {
	_, isSource := errors.AsType[*sources.Error](err)
	_, isInput := errors.AsType[*chunks.InputError](err)
	return isSource || isInput
}

func isTooLarge(err error) bool {
	return errors.Is(err, chunks.ErrTooLarge) || errors.Is(err, sources.ErrTooLarge)
}

// runner returns the runner of the requests.
func (b *batch) runner() processor.Appender {
	if turner, ok := b.e.runner.(processor.Turner); ok && b.limit == 0 {
		return &batchTurner{batchRunner{b}, turner}
	}
	return &batchRunner{b}
}

// batchRunner runs the requests of a batch. Without a store, equal requests in flight
// are executed separately: finding them costs more than most requests of a batch.
type batchRunner struct{ of *batch }

func (b *batchRunner) Run(ctx context.Context, in []byte) (processor.Result[[]byte], error) {
	return b.Append(ctx, in, nil)
}

func (b *batchRunner) Append(ctx context.Context, in, dst []byte) (processor.Result[[]byte], error) {
	own := ctx
	if b.of.limit > 0 {
		limited := limitedContext(ctx, later(now(), b.of.limit))
		defer limited.release()
		own = limited
	}
	result, err := b.of.e.runner.Append(own, in, dst)
	return result, onlyOne(ctx, err)
}

// onlyOne turns an error that affects only one request of a batch into its failure.
func onlyOne(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	store, isStore := errors.AsType[*processor.StoreError](err)
	switch {
	case isStore:
		return abi.Failf(abi.ClassHost, "%v", store)
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return abi.Failf(abi.ClassTimeout, "%s", lateMessage)
	}
	return err
}

// batchTurner runs the requests of a batch in turns.
type batchTurner struct {
	batchRunner
	turner processor.Turner
}

func (b *batchTurner) Turn(ctx context.Context) (processor.Turn, error) {
	turn, err := b.turner.Turn(ctx)
	return batchTurn{turn}, err
}

type batchTurn struct{ processor.Turn }

func (t batchTurn) Append(ctx context.Context, in, dst []byte) (processor.Result[[]byte], error) {
	result, err := t.Turn.Append(ctx, in, dst)
	return result, onlyOne(ctx, err)
}
