package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/packed"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/remote"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
)

// readModule reads a module's file, up to the limit.
func readModule(path string) ([]byte, error) {
	return readBounded(path, binary.MaxModuleSize, "a module")
}

func readBounded(path string, limit int64, what string) ([]byte, error) {
	if remote.IsURL(path) {
		return readURL(path, limit, what)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, usageErrorf("%w", err)
	}
	defer file.Close()
	var b bytes.Buffer
	if stat, err := file.Stat(); err == nil {
		if stat.IsDir() {
			return nil, usageErrorf("%s is a directory: want %s", path, what)
		}
		b.Grow(int(min(stat.Size(), limit)) + bytes.MinRead) // avoids growing while a large file is read
	}
	return readAll(&b, file, path, limit, what)
}

// readURL is readBounded for a URL.
func readURL(path string, limit int64, what string) ([]byte, error) {
	file, err := remote.Open(context.Background(), path)
	if err != nil {
		return nil, usageErrorf("%w", err)
	}
	defer file.Close()
	return readAll(new(bytes.Buffer), file, remote.Name(path), limit, what)
}

func readAll(b *bytes.Buffer, file io.Reader, path string, limit int64, what string) ([]byte, error) {
	in := packed.NewReader(file)
	defer in.Close()
	if _, err := b.ReadFrom(io.LimitReader(in, limit+1)); err != nil {
		return nil, usageErrorf("%s: %s", path, withoutPath(err))
	}
	if int64(b.Len()) > limit {
		return nil, usageErrorf("%s: too large: the limit is %d bytes for %s", path, limit, what)
	}
	return b.Bytes(), nil
}

// maxContext is the limit of a context in bytes, the same as the limit of a chunk.
const maxContext = chunks.DefaultMaxChunk

// openInput opens a file for sequential reading. "-" is standard input, which stays
// open.
func openInput(c *console, path string) (io.ReadCloser, error) {
	file, err := openSource(c, path)
	switch {
	case errors.Is(err, errDirectory):
		return nil, usageErrorf("%s: %w, and a file is needed", path, err)
	case err != nil:
		return nil, usageErrorf("%s: cannot be opened: %s", nameOfInput(path), withoutPath(err))
	}
	return file, nil
}

// openSource opens a file, a URL, or standard input for "-", and reads through gzip and
// zstd. The error is that of the system, a *[remote.Error], or errDirectory.
func openSource(c *console, path string) (io.ReadCloser, error) {
	if path == "-" {
		return packed.NewReader(c.in), nil
	}
	if remote.IsURL(path) {
		body, err := openBody(c, path)
		if err != nil {
			return nil, err
		}
		return &unpackedFile{packed.NewReader(body), body}, nil
	}
	file, err := openFile(path)
	if err != nil {
		return nil, err
	}
	return &unpackedFile{packed.NewReader(file), file}, nil
}

// unpack returns the content of a compressed file, or nil.
func unpack(file io.ReadSeeker) (io.ReadCloser, error) {
	in := packed.NewReader(file)
	if in.Form() == "" {
		return nil, in.Close()
	}
	return in, nil
}

// unpackedFile closes the file below a reader too.
type unpackedFile struct {
	*packed.Reader
	file io.Closer
}

func (f *unpackedFile) Close() error {
	return errors.Join(f.Reader.Close(), f.file.Close())
}

// otherFiles are the ends of the names of files that sources read.
var otherFiles = map[string]string{
	".csv": "--csv reads CSV", ".tsv": "--csv with --delimiter tab reads TSV", ".jsonl": "--jsonl reads JSON", ".ndjson": "--jsonl reads JSON", ".json": "--jsonl reads JSON",
	".txt": "--lines reads text", ".log": "--lines reads text", ".parquet": "--parquet reads Parquet", ".arrow": "--arrow reads Arrow", ".feather": "--arrow reads Arrow",
}

// sourceNamed returns what reads a file whose name is not that of a chunk file, or "".
func sourceNamed(path string) string {
	name := strings.ToLower(nameOfInput(path))
	return otherFiles[filepath.Ext(strings.TrimSuffix(strings.TrimSuffix(name, ".gz"), ".zst"))]
}

// warningsOf returns the warnings about the chunks of a run. The name of a chunk file can
// be one, since text can be valid CBOR.
func warningsOf(file *chunks.File, o *runOptions) []string {
	if skipped := o.source.skipped(); skipped != nil && *skipped > 0 && file.Len() == 0 {
		return []string{"no chunks: all records are malformed"}
	}
	reads := sourceNamed(o.chunks)
	if o.source != nil || reads == "" || file.Len() == 0 {
		return file.Warnings()
	}
	return append(slices.Clone(file.Warnings()), nameOfInput(o.chunks)+": read as a chunk file, which is CBOR; "+reads)
}

// openChunkFile scans a chunk file.
func openChunkFile(ctx context.Context, c *console, path string, o chunks.Options) (*chunks.File, error) {
	file, err := scanChunkFile(ctx, c, path, o)
	if defect, ok := errors.AsType[*chunks.InputError](err); ok && defect.Hint != chunks.HintIDKey && defect.Hint != chunks.HintFormat && defect.Position >= 0 {
		if reads := sourceNamed(path); reads != "" {
			defect.Hint = chunks.Hint("chunk files are CBOR, and " + reads)
		}
	}
	return file, err
}

// scanChunkFile is openChunkFile without a hint from the name. A file that is compressed
// is kept as those of standard input are, since chunks are read at any place.
func scanChunkFile(ctx context.Context, c *console, path string, o chunks.Options) (*chunks.File, error) {
	if path == "-" {
		return chunks.Spool(ctx, packed.NewReader(c.in), o)
	}
	if remote.IsURL(path) {
		return spoolURL(ctx, c, path, o)
	}
	file, err := openFile(path)
	if err != nil {
		return chunks.Open(ctx, path, o) // which tells the error
	}
	defer file.Close()
	in := packed.NewReader(file)
	defer in.Close()
	if stat, err := file.Stat(); err == nil && stat.Mode().IsRegular() && in.Form() == "" {
		return chunks.Open(ctx, path, o)
	}
	if o.Name == "" {
		o.Name = path
	}
	return chunks.Spool(ctx, in, o)
}

var errDirectory = errors.New("is a directory")

// openFile opens what is not a directory. Its error is that of the system, or
// errDirectory.
func openFile(path string) (*os.File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	stat, err := file.Stat()
	if err == nil && stat.IsDir() {
		err = errDirectory
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func withoutPath(err error) string {
	if urlErr, ok := errors.AsType[*remote.Error](err); ok {
		return urlErr.Reason
	}
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err.Error()
	}
	return err.Error()
}

func readContext(path string) ([]byte, error) {
	b, err := readBounded(path, maxContext, "a context")
	if err != nil {
		return nil, err
	}
	if err := abi.CheckItem(b); err != nil {
		return nil, usageErrorf("%s: invalid context: want one CBOR item: %w", path, err)
	}
	return b, nil
}
