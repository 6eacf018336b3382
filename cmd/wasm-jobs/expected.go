package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/packed"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/host/outputs"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/host/verify"
)

// fileOutputs opens the outputs in a CBOR file that run --outputs wrote.
func fileOutputs(ctx context.Context, path string) (*verify.Expected, error) {
	file, err := outputs.Open(path)
	if form := outputs.FormOf(packed.Trim(path)); err == nil && (form == outputs.JSONLines || form == outputs.CSV) {
		err = errors.Join(fmt.Errorf("%s: %w", path, outputs.ErrNotCBOR), file.Close())
	}
	switch {
	case errors.Is(err, outputs.ErrNotCBOR):
		return nil, usageErrorf("%w: run --outputs FILE.cbor", err)
	case errors.Is(err, outputs.ErrNotRegular):
		return nil, usageErrorf("%w", err)
	case err != nil:
		return nil, usageErrorf("%s: cannot be opened: %s", path, withoutPath(err))
	}
	if unpacked, err := packedOutputs(ctx, path); unpacked != nil || err != nil {
		return unpacked, errors.Join(err, file.Close())
	}
	all := func(ctx context.Context) outputs.Seq { return explained(file.All(ctx)) }
	return &verify.Expected{Name: path, Most: file.Most(), All: all, Close: file.Close}, nil
}

// packedOutputs opens a file of outputs that gzip or zstd has compressed; it is nil if
// the file is not. The content is read once to count its bytes, which bound the number
// of outputs.
func packedOutputs(ctx context.Context, path string) (*verify.Expected, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, usageErrorf("%s: cannot be opened: %s", path, withoutPath(err))
	}
	in := packed.NewReader(file)
	if in.Form() == "" {
		return nil, errors.Join(in.Close(), file.Close())
	}
	stop := context.AfterFunc(ctx, func() { file.Close() }) // ends the read
	size, err := io.Copy(io.Discard, in)
	in.Close()
	if !stop() {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(usageErrorf("%s: %w", path, err), file.Close())
	}
	all := func(ctx context.Context) outputs.Seq {
		return explained(func(yield func(outputs.Output, error) bool) {
			if _, err := file.Seek(0, io.SeekStart); err != nil {
				yield(outputs.Output{}, err)
				return
			}
			in := packed.NewReader(file)
			defer in.Close()
			outputs.Read(ctx, path, in)(yield)
		})
	}
	return &verify.Expected{Name: path, Most: outputs.MostIn(size), All: all, Close: file.Close}, nil
}

// explained adds to an error how to make a file of outputs.
func explained(all outputs.Seq) outputs.Seq {
	return func(yield func(outputs.Output, error) bool) {
		for o, err := range all {
			if _, ok := errors.AsType[*outputs.ItemError](err); ok {
				err = usageErrorf("%w: want a file that run --outputs wrote", err)
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

// storeOutputs opens the outputs of a receipt's job in a store. It is nil if the store
// or the job does not exist.
func storeOutputs(ctx context.Context, c *console, dir string, insecure bool, r *receipt.Receipt) (*verify.Expected, error) {
	s, err := openLooking(ctx, c, dir, insecure)
	if s == nil || err != nil {
		return nil, storeError(err)
	}
	for j, err := range journal.List(ctx, s) {
		if err != nil {
			return nil, errors.Join(storeError(err), s.Close())
		}
		if isOf(&j.Spec, r) {
			return expectedOf(c, j, "the store", s.Close), nil
		}
	}
	return nil, storeError(s.Close())
}

// isOf reports whether a receipt may describe a job.
func isOf(spec *journal.Spec, r *receipt.Receipt) bool {
	own := jobFields(spec)
	for _, f := range r.Fields() {
		if value, known := own[f.Name]; known && value != f.Value {
			return false
		}
	}
	return spec.Settings.EngineFixes == r.Engine.Fixes // otherwise the outputs have other keys
}

// expectedOf returns the outputs of a job in a store. close closes the store.
func expectedOf(c *console, j *journal.Record, name string, close func() error) *verify.Expected {
	all := func(ctx context.Context) outputs.Seq {
		said := c
		c = &console{err: io.Discard} // its warnings were printed before
		return jobOutputs(ctx, said, j)
	}
	return &verify.Expected{Name: name, Most: int64(j.Record.Total), All: all, Close: close}
}

// jobFields returns the fields of a receipt that a job's record has.
func jobFields(spec *journal.Spec) map[string]string {
	r := receipt.Receipt{Chunks: uint64(spec.Total), Settings: receipt.SettingsOf(spec)}
	fields := map[string]string{}
	for _, f := range r.Fields() {
		if f.Name == "chunks" || strings.HasPrefix(f.Name, "settings.") {
			fields[f.Name] = f.Value
		}
	}
	fields["module"], fields["input"] = spec.Module.Digest, spec.Chunks.Digest
	return fields
}
