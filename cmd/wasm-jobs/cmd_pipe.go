package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/packed"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/processor"
)

const pipeExitHelp = `Exit codes:
   0    all requests have an output, or the reader of the answers is gone
   1    a response is a failure
   2    refused: usage, module, or a request that is malformed; those before it are answered
   3    _initialize or setup failed
   4    the store failed, or answers could not be written
   130  interrupted; requests that were read are answered`

func pipeCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "pipe", Usage: "run a module over a stream of requests, and answer as they arrive",
		UsageText: `wasm-jobs pipe [flags] MODULE

Example: cat chunks.cbor | wasm-jobs pipe square.wasm > answers.cbor
         seq 5 | wasm-jobs pipe --jsonl square.wasm

Standard input is a CBOR sequence of requests, or JSON lines, of any length, also
compressed by gzip or zstd. Each
answer is a map on standard output: {"id": id, "output": output}, or {"id": id,
"failure": {"class": class, "message": message}}. An id is the request's key "id",
or its position. There are no retries, and nothing is aggregated.

At most --window requests and answers are held at once, and ` + heldWords + `
(a single one may be larger).

` + pipeExitHelp,
		ArgsUsage: "MODULE",
		Flags: append(callFlags(),
			&cli.BoolFlag{Name: "jsonl", Usage: "requests and answers are JSON lines"},
			&cli.StringFlag{Name: "order", Value: "input", Usage: "answers come in the order of the requests (input), or as they are ready (completion)"},
			&cli.IntFlag{Name: "window", Value: processor.DefaultWindow, Usage: "limit of requests in flight"},
		),
		Action: func(ctx *cli.Context) error {
			o, err := parsePipe(ctx)
			if err != nil {
				return err
			}
			return pipe(ctx.Context, c, o)
		},
	}
}

const heldWords = "64 MiB of them"

// pipeOptions are the flags of pipe, parsed.
type pipeOptions struct {
	*callOptions
	format processor.Format
	stream processor.StreamOptions
}

func parsePipe(ctx *cli.Context) (*pipeOptions, error) {
	if ctx.NArg() != 1 {
		return nil, usageErrorf("pipe takes one MODULE, got %s", plural(ctx.NArg(), "argument"))
	}
	calls, err := parseCalls(ctx)
	if err != nil {
		return nil, err
	}
	calls.module, calls.input.Name = ctx.Args().First(), "standard input"
	o := &pipeOptions{callOptions: calls}
	o.stream = processor.StreamOptions{Workers: calls.workers, Window: ctx.Int("window")}
	if ctx.Bool("jsonl") {
		o.format = processor.JSONLines
	}
	if o.stream.Window < 1 {
		return nil, usageErrorf("invalid --window %d: want 1 or more", o.stream.Window)
	}
	o.stream.Completion, err = parseOrder("--order", ctx.String("order"))
	return o, err
}

// parseOrder parses the order of answers.
func parseOrder(name, order string) (completion bool, err error) {
	if !slices.Contains([]string{"input", "completion"}, order) {
		return false, usageErrorf("invalid %s %q: want input or completion", name, order)
	}
	return order == "completion", nil
}

// pipe answers the requests of standard input.
func pipe(soft context.Context, c *console, o *pipeOptions) (err error) {
	x, err := openCallee(soft, c, o.callOptions)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	m, err := x.open(soft, o.module, o.module)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	cache := x.cache(m, m)
	defer func() { err = errors.Join(err, cache.Close()) }()
	if x.store == nil { // equal requests are rare in a pipe, and looking for them is not free
		return o.run(soft, c, m)
	}
	return o.run(soft, c, cache)
}

// run answers requests over a runner.
func (o *pipeOptions) run(soft context.Context, c *console, runner processor.Appender) error {
	failed := false
	w := bufio.NewWriterSize(c.out, 64<<10)
	sink := &answerSink{processor.AnswerWriter{W: w, Format: o.format, Observe: func(a *processor.Answer) {
		if a.Failure != nil {
			a.Failure = worded(a.Failure)
			failed = true
		}
	}}}
	input := newPump(c.in)
	c.signals.Drain()
	err := processor.Stream(c.signals.Hard, runner, func(ctx context.Context) iter.Seq2[processor.Request, error] {
		return o.requests(ctx, soft, input)
	}, sink, o.stream)
	_, unwritten := errors.AsType[*answerError](err)
	_, unstored := errors.AsType[*processor.StoreError](err)
	switch {
	case errors.Is(err, syscall.EPIPE): // the reader of the answers is gone
	case unwritten:
		return &exitError{exitStore, err}
	case unstored:
		return &exitError{exitStore, err}
	case soft.Err() != nil:
		return host.ErrInterrupted
	case err != nil:
		return err
	}
	if failed {
		return &exitError{exitFailed, nil}
	}
	return nil
}

// requests yields the requests of the input until soft ends.
func (o *pipeOptions) requests(ctx, soft context.Context, input *pump) iter.Seq2[processor.Request, error] {
	return func(yield func(processor.Request, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(soft, cancel)()
		in := &unpackedRequests{raw: input.with(ctx)}
		defer in.Close()
		for r, err := range processor.Requests(ctx, in, o.format, o.input) {
			if err != nil && soft.Err() != nil || !yield(r, err) {
				return
			}
		}
	}
}

// unpackedRequests reads requests through gzip and zstd, and never waits for more than the
// first request to recognize them.
type unpackedRequests struct {
	raw    io.Reader
	packed *packed.Reader // nil before the first read, and if the requests are not compressed
	began  bool
}

func (u *unpackedRequests) Read(b []byte) (int, error) {
	if u.packed != nil {
		return u.packed.Read(b)
	}
	n, err := u.raw.Read(b)
	// The first byte of zstd is also the request -9 in CBOR, and may be all that comes
	// before its answer.
	if u.began || n == 0 || n == 1 && b[0] == 0x28 {
		u.began = u.began || n > 0
		return n, err
	}
	u.began = true
	u.packed = packed.NewReader(io.MultiReader(bytes.NewReader(bytes.Clone(b[:n])), u.raw))
	return u.packed.Read(b)
}

func (u *unpackedRequests) Close() error {
	if u.packed == nil {
		return nil
	}
	return u.packed.Close()
}

// answerSink wraps its errors in an answerError.
type answerSink struct{ processor.AnswerWriter }

func (s *answerSink) Write(a *processor.Answer) error { return answerErrorOf(s.AnswerWriter.Write(a)) }
func (s *answerSink) Flush() error                    { return answerErrorOf(s.AnswerWriter.Flush()) }

// answerError says that answers could not be written.
type answerError struct{ err error }

func (e *answerError) Error() string { return fmt.Sprintf("answers could not be written: %v", e.err) }
func (e *answerError) Unwrap() error { return e.err }

func answerErrorOf(err error) error {
	if err == nil {
		return nil
	}
	return &answerError{err}
}

// pump reads ahead from an input whose reads cannot be interrupted, such as a terminal,
// so that a wait for its data can be.
type pump struct {
	parts chan []byte // the data
	err   error       // valid after parts is closed
	rest  []byte
}

// newPump starts to read r. A read that blocks when the command ends stays until the
// end of the process.
func newPump(r io.Reader) *pump {
	p := &pump{parts: make(chan []byte)}
	go func() {
		defer close(p.parts)
		for p.err == nil {
			part := make([]byte, pumpSize)
			var n int
			n, p.err = r.Read(part)
			if n > 0 {
				p.parts <- part[:n]
			}
		}
	}()
	return p
}

const pumpSize = 64 << 10

// with returns a reader of the data. The end of ctx interrupts its reads.
func (p *pump) with(ctx context.Context) io.Reader { return &pumped{p, ctx} }

type pumped struct {
	*pump
	ctx context.Context
}

func (r *pumped) Read(b []byte) (int, error) {
	if len(r.rest) == 0 {
		select {
		case part, ok := <-r.parts:
			if !ok {
				return 0, r.err
			}
			r.rest = part
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
