package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// body is an object from a byte on.
type body struct {
	io.ReadCloser
	version string // of the object; "" if the server tells none
	size    int64  // of the whole object; -1 if unknown
}

// reader reads an object, and goes on after failures.
type reader struct {
	ctx    context.Context
	name   string
	open   func(ctx context.Context, at int64, version string) (*body, error)
	cancel context.CancelFunc // of the request
	body   *body              // nil after a failure
	at     int64
	seen   bool // version and size are known
	first  body
	delays delays
	err    error
}

var errChanged = errors.New("the object changed while it was read; run again")

// resume opens the object where the last read ended, until that succeeds or will not.
func (r *reader) resume() error {
	for {
		err := r.request()
		if err == nil {
			return nil
		}
		if r.ctx.Err() != nil {
			return r.ctx.Err()
		}
		if err = r.delays.wait(r.ctx, err); err != nil {
			if r.ctx.Err() != nil {
				return err
			}
			return fail(r.name, err)
		}
	}
}

func (r *reader) request() error {
	ctx, cancel := context.WithCancel(r.ctx)
	timer := time.AfterFunc(stall, cancel)
	b, err := r.open(ctx, r.at, r.first.version)
	timer.Stop()
	if err == nil && r.seen && (b.size != r.first.size || b.version != r.first.version) {
		b.Close()
		err = errChanged
	}
	if err != nil {
		cancel()
		return err
	}
	r.body, r.cancel = b, cancel
	if !r.seen {
		r.seen, r.first = true, body{version: b.version, size: b.size}
	}
	return nil
}

func (r *reader) Read(b []byte) (int, error) {
	for r.err == nil {
		if r.body == nil {
			if r.err = r.resume(); r.err != nil {
				break
			}
		}
		n, err := r.read(b)
		if n > 0 || len(b) == 0 {
			return n, nil
		}
		if err == nil {
			continue
		}
		if err == io.EOF && (r.first.size < 0 || r.at == r.first.size) {
			r.err = io.EOF
			break
		}
		r.drop()
		if r.ctx.Err() != nil {
			r.err = r.ctx.Err()
		} else if err = r.delays.wait(r.ctx, &retryable{err: r.broken(err)}); err != nil {
			r.err = fail(r.name, err)
		}
	}
	return 0, r.err
}

// read reads once, for at most the time of stall.
func (r *reader) read(b []byte) (int, error) {
	timer := time.AfterFunc(stall, r.cancel)
	n, err := r.body.Read(b)
	timer.Stop()
	if n > 0 {
		r.at += int64(n)
		r.delays.reset()
	}
	return n, err
}

// broken describes a read that ended too early. It does not wrap [io.ErrUnexpectedEOF],
// which would be about the content.
func (r *reader) broken(err error) error {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the connection ended after %d of %d bytes", r.at, r.first.size)
	}
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("no byte within %v, after %d bytes", stall, r.at)
	}
	return fmt.Errorf("the connection broke after %d bytes: %w", r.at, err)
}

func (r *reader) drop() {
	if r.body != nil {
		r.body.Close()
		r.cancel()
	}
	r.body = nil
}

// Close ends the request.
func (r *reader) Close() error {
	r.drop()
	if r.err == nil {
		r.err = errors.New("read after close")
	}
	return nil
}
