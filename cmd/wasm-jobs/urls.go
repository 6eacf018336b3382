package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/atomicfile"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/packed"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/remote"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
)

// urlBody is the content of a URL. Its errors do not have the URL, which those that read
// it know.
type urlBody struct{ io.ReadCloser }

func (b *urlBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if own, ok := errors.AsType[*remote.Error](err); ok {
		err = &urlError{own}
	}
	return n, err
}

type urlError struct{ cause *remote.Error }

func (e *urlError) Error() string { return e.cause.Reason }
func (e *urlError) Unwrap() error { return e.cause }

// OwnPlace says that the error is about no line.
func (*urlError) OwnPlace() {}

// openBody begins to read a URL, until the first signal.
func openBody(c *console, path string) (io.ReadCloser, error) {
	ctx := context.Background()
	if c.signals != nil {
		ctx = c.signals.Soft
	}
	body, err := remote.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	return &urlBody{body}, nil
}

// spoolURL scans a chunk file at a URL.
func spoolURL(ctx context.Context, c *console, path string, o chunks.Options) (*chunks.File, error) {
	body, err := openBody(c, path)
	if err != nil {
		return nil, usageErrorf("%s: cannot be opened: %s", remote.Name(path), withoutPath(err))
	}
	defer body.Close()
	in := packed.NewReader(body)
	defer in.Close()
	if o.Name == "" {
		o.Name = remote.Name(path)
	}
	return chunks.Spool(ctx, in, o)
}

// createResult opens the file of a result, which is a path or a URL.
func createResult(path string) (*atomicfile.File, error) {
	if !remote.IsURL(path) {
		return atomicfile.Create(path)
	}
	target, err := remote.Create(context.Background(), path)
	if err != nil {
		return nil, err
	}
	return atomicfile.Upload(path, func(file *os.File) error { return target.Put(context.Background(), file) })
}
