package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/arrow"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/packed"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/parquet"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

// columnKinds are the kinds of sources whose files have typed columns.
var columnKinds = []string{"parquet", "arrow"}

func rowsFlag(prefix string) cli.Flag {
	return &cli.IntFlag{Name: prefix + "rows", Usage: "put `N` rows of Parquet or Arrow into a chunk, an array of maps; otherwise a chunk is the map of one row"}
}

// parseRows reads the number of rows of a chunk.
func (s *source) parseRows(ctx *cli.Context, flag string) error {
	if s.rows = ctx.Int(flag); s.rows < 0 || s.rows == 0 && isSet(ctx, flag) {
		return usageErrorf("invalid --%s %d: want 1 or more", flag, s.rows)
	}
	return s.parseSelect(ctx)
}

// randomFile is a file that is read at any place: of the user, or a temporary copy of
// input that can only be read from its start.
type randomFile struct {
	*os.File
	size int64
	temp bool
}

func (f *randomFile) Close() error {
	err := f.File.Close()
	if f.temp {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}

// openRandom opens a file for reading at any place. Standard input, pipes and compressed
// files are copied.
func openRandom(c *console, path string) (*randomFile, error) {
	in, err := openSource(c, path)
	if err != nil {
		return nil, notOpened(path, err)
	}
	if file, ok := in.(*unpackedFile); ok {
		if f := regular(file); f != nil {
			return f, file.Reader.Close()
		}
	}
	defer in.Close()
	temp, err := c.newUnfinished().temp("wasm-jobs-input-*")
	if err != nil {
		return nil, err
	}
	f := &randomFile{File: temp, temp: true}
	if f.size, err = io.Copy(temp, in); err != nil {
		return nil, errors.Join(unreadable(path, err), f.Close())
	}
	return f, nil
}

// regular returns a file that can be read at any place as it is, or nil.
func regular(in *unpackedFile) *randomFile {
	file, ok := in.file.(*os.File)
	if !ok {
		return nil
	}
	stat, err := file.Stat()
	if err != nil || !stat.Mode().IsRegular() || in.Form() != "" {
		return nil
	}
	return &randomFile{File: file, size: stat.Size()}
}

func unreadable(path string, err error) error {
	name := nameOfInput(path)
	if own, ok := errors.AsType[*packed.Error](err); ok {
		return &sources.Error{Name: name, Reason: own.Error(), Err: err}
	}
	return &sources.Error{Name: name, Reason: "cannot be read: " + withoutPath(err), Err: err}
}

// columnsOf yields the chunks of a file with typed columns.
func (s *source) columnsOf(c *console, path string, maxChunk int64) sources.Source {
	return func(yield func([]byte, error) bool) {
		rows, file, err := s.openRows(c, path, maxChunk)
		if err != nil {
			yield(nil, err)
			return
		}
		defer file.Close()
		mark := s.at.marker(nameOfInput(path))
		row := 1
		for chunk, err := range inGroups(rows, s.rows, maxChunk) {
			if err != nil {
				yield(nil, columnError(path, err))
				return
			}
			mark(row)
			row += max(s.rows, 1)
			if !yield(chunk, nil) {
				return
			}
		}
	}
}

// openRows opens a file, and returns its rows.
func (s *source) openRows(c *console, path string, maxChunk int64) (iter.Seq2[[]byte, error], io.Closer, error) {
	limit := int(min(maxChunk, 1<<31-1))
	if s.kind == "arrow" {
		in, err := openSource(c, path)
		if err != nil {
			return nil, nil, notOpened(path, err)
		}
		return arrow.Rows(in, arrow.Options{Columns: s.csv.Columns, MaxRow: limit}), in, nil
	}
	file, err := openRandom(c, path)
	if err != nil {
		return nil, nil, err
	}
	return s.rowsOf(file, limit), file, nil
}

// rowsOf yields the rows of a Parquet file.
func (s *source) rowsOf(file *randomFile, limit int) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		f, err := parquet.Open(file, file.size)
		if err != nil {
			yield(nil, err)
			return
		}
		f.Rows(parquet.Options{Columns: s.csv.Columns, MaxRow: limit})(yield)
	}
}

// columnError returns the error of a file with typed columns.
func columnError(path string, err error) error {
	e := &sources.Error{Name: nameOfInput(path), Reason: err.Error(), Err: sources.ErrMalformed}
	if errors.Is(err, parquet.ErrTooLarge) || errors.Is(err, arrow.ErrTooLarge) {
		e.Hint, e.Err = chunks.HintMaxChunk, sources.ErrTooLarge
	}
	return e
}

// inGroups joins rows to arrays of n; 0 = each row is a chunk.
func inGroups(rows iter.Seq2[[]byte, error], n int, maxChunk int64) iter.Seq2[[]byte, error] {
	if n == 0 {
		return rows
	}
	return func(yield func([]byte, error) bool) {
		var all, chunk []byte
		count := 0
		flush := func() bool {
			chunk = append(abi.AppendHead(chunk[:0], abi.MajorArray, uint64(count)), all...)
			all, count = all[:0], 0
			return yield(chunk, nil)
		}
		for row, err := range rows {
			if err == nil && int64(len(all)+len(row)+9) > maxChunk {
				err = fmt.Errorf("%w for a chunk of %d rows: more than %d bytes", parquet.ErrTooLarge, n, maxChunk)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			all, count = append(all, row...), count+1
			if count == n && !flush() {
				return
			}
		}
		if count > 0 {
			flush()
		}
	}
}

// hasColumns reports whether files of a kind of source have typed columns.
func hasColumns(kind string) bool { return slices.Contains(columnKinds, kind) }
