package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

// source is what chunks are made of, where they are not in a chunk file.
type source struct {
	kind  string   // the flag of run that names it: one of sourceKinds
	paths []string // files, or "-"; of range-of, the ranges
	lines sources.LinesOptions
	csv   sources.CSVOptions
	files sources.FilesOptions
	set   abi.IDSet // of range-of
}

// sourceKinds are the flags of run that take the place of CHUNKS.
var sourceKinds = []string{"lines", "jsonl", "csv", "files", "range-of"}

// sourceFlags are the flags of run about chunks that are made as it reads.
func sourceFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "lines", Usage: "instead of CHUNKS: each line of `FILE` is a chunk, a text with its line end (- = stdin)"},
		&cli.StringFlag{Name: "jsonl", Usage: "instead of CHUNKS: each line of `FILE` is a JSON value, and a chunk"},
		&cli.StringFlag{Name: "csv", Usage: "instead of CHUNKS: each record of `FILE` is a chunk, a map with keys from the first line"},
		&cli.StringFlag{Name: "files", Usage: "instead of CHUNKS: each file of `PATH`, a directory, pattern or file, is a chunk, a map with name, size and bytes"},
		&cli.StringFlag{Name: "range-of", Usage: "instead of CHUNKS: each integer of `RANGES`, such as 0-999999, is a chunk"},
	}, slices.Concat(linesFlags("chunk-"), csvFlags(), filesFlags())...)
}

func linesFlags(prefix string) []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: prefix + "lines", Value: 1, Usage: "`N` lines are a chunk"},
		&cli.StringFlag{Name: prefix + "bytes", Usage: "as many whole lines are a chunk as fit in `SIZE`, or one that is longer"},
		&cli.StringFlag{Name: "as", Value: "text", Usage: "lines become text, which must be UTF-8, or bytes"},
	}
}

func csvFlags() []cli.Flag {
	return []cli.Flag{&cli.StringFlag{Name: "delimiter", Value: ",", Usage: "the `CHARACTER` between the fields of CSV, or tab"}}
}

func filesFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "split", Usage: "cut files into parts of `SIZE`, each a chunk, with the keys part and offset"},
		&cli.BoolFlag{Name: "split-lines", Usage: "cut them at the ends of lines"},
	}
}

// modifiers are the flags that only a kind of source has in run.
var modifiers = map[string]string{
	"chunk-lines": "lines", "chunk-bytes": "lines", "as": "lines", "delimiter": "csv", "split": "files", "split-lines": "files",
}

// sourceFlagNames are the names of all flags about sources.
var sourceFlagNames = sync.OnceValue(func() (names []string) {
	for _, flag := range sourceFlags() {
		names = append(names, nameOf(flag))
	}
	return names
})

// parseSource reads the flags of run; it returns nil where none names a source.
func parseSource(ctx *cli.Context) (*source, error) {
	var s *source
	for _, kind := range sourceKinds {
		switch {
		case !isSet(ctx, kind):
		case s != nil:
			return nil, refuse("--%s and --%s exclude each other: give one of them", s.kind, kind)
		case ctx.String(kind) == "":
			return nil, refuse("--%s is empty", kind)
		default:
			s = &source{kind: kind, paths: []string{ctx.String(kind)}}
		}
	}
	for _, name := range sourceFlagNames() { // in one order
		if kind := modifiers[name]; kind != "" && isSet(ctx, name) && (s == nil || s.kind != kind) {
			return nil, refuse("--%s is about --%s, which is not given", name, kind)
		}
	}
	if s == nil {
		return nil, nil
	}
	return s, s.parse(ctx, "chunk-")
}

// parse reads the flags of a source of known kind.
func (s *source) parse(ctx *cli.Context, prefix string) (err error) {
	switch s.kind {
	case "lines":
		return s.parseLines(ctx, prefix+"lines", prefix+"bytes")
	case "csv":
		s.csv.Comma, err = parseDelimiter(ctx.String("delimiter"))
		return err
	case "files":
		s.files.AtLines = ctx.Bool("split-lines")
		if !isSet(ctx, "split") {
			if s.files.AtLines {
				return refuse("--split-lines says where --split cuts, which is not given")
			}
			return nil
		}
		s.files.Split, err = parseSize[int64](ctx, "split")
		return err
	case "range-of":
		if s.set, err = abi.ParseRanges(s.paths[0]); err != nil {
			return refuse("the range %w", err)
		}
	}
	return nil
}

func (s *source) parseLines(ctx *cli.Context, lines, size string) (err error) {
	s.lines.Lines = ctx.Int(lines)
	switch {
	case isSet(ctx, size) && isSet(ctx, lines):
		return refuse("--%s and --%s exclude each other: give one of them", lines, size)
	case isSet(ctx, size):
		if s.lines.Cut.Bytes, err = parseSize[int64](ctx, size); err != nil {
			return err
		}
		s.lines.Lines = 0
	case s.lines.Lines < 1:
		return refuse("--%s %d: 1 or more are needed", lines, s.lines.Lines)
	}
	if as := ctx.String("as"); as != "text" && as != "bytes" {
		return refuse("--as %q is none of text, bytes", as)
	}
	s.lines.Bytes = ctx.String("as") == "bytes"
	return nil
}

func parseDelimiter(s string) (rune, error) {
	if s == "tab" {
		return '\t', nil
	}
	r, size := utf8.DecodeRuneInString(s)
	if size == 0 || size != len(s) || r == utf8.RuneError || strings.ContainsRune("\"\r\n", r) {
		return 0, refuse("--delimiter %q is no single character that can stand between fields", s)
	}
	return r, nil
}

// name is how messages call the source.
func (s *source) name() string {
	switch {
	case s.kind == "range-of":
		return "range " + s.paths[0]
	case s.paths[0] == "-" && s.kind != "files":
		return "standard input"
	}
	return s.paths[0]
}

// recorded is what a job's record has as the path of its chunks.
func (s *source) recorded() string {
	if s.kind == "range-of" {
		return s.name()
	}
	return absolute(s.paths[0])
}

// open returns the chunks. closer ends what was opened for them.
func (s *source) open(c *console, maxChunk int64) (seq sources.Source, closer io.Closer, err error) {
	switch s.kind {
	case "range-of":
		return sources.Range(s.name(), s.set), io.NopCloser(nil), nil
	case "files":
		o := s.files
		o.MaxChunk = maxChunk
		return sources.Files(s.paths, o), io.NopCloser(nil), nil
	}
	file, err := openInput(c, s.paths[0])
	if err != nil {
		return nil, nil, err
	}
	in := sources.Input{Name: s.name(), Reader: file, MaxChunk: maxChunk}
	switch s.kind {
	case "lines":
		return sources.Lines(in, s.lines), file, nil
	case "csv":
		return sources.CSV(in, s.csv), file, nil
	}
	return sources.JSONLines(in), file, nil
}

// place says where the chunk at a position comes from; it is nil where nothing
// better than the position is known.
func (s *source) place() func(position int) string {
	switch s.kind {
	case "jsonl":
		return func(position int) string { return fmt.Sprintf("line %d", position+1) }
	case "csv":
		return func(position int) string { return fmt.Sprintf("record %d", position+1) }
	}
	return nil
}

// scan makes all chunks, and keeps them as those of standard input are kept.
func (s *source) scan(ctx context.Context, c *console, o chunks.Options) (*chunks.File, error) {
	seq, closer, err := s.open(c, o.MaxChunk)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	o.Name, o.Place = s.name(), s.place()
	file, err := chunks.FromSeq(ctx, seq, o)
	return file, sourceError(err)
}

// sourceError returns the error of a source as it is, and not as that of the
// chunk that came to nothing.
func sourceError(err error) error {
	if cause, ok := errors.AsType[*sources.Error](err); ok {
		return cause
	}
	return err
}

// openInput opens a file to be read from end to end; "-" is standard input,
// which is not closed.
func openInput(c *console, path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(c.in), nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, refuse("%s: cannot be opened: %s", path, withoutPath(err))
	}
	stat, err := file.Stat()
	if err == nil && stat.IsDir() {
		file.Close()
		return nil, refuse("%s: is a directory, and a file is needed", path)
	}
	if err != nil {
		file.Close()
		return nil, refuse("%s: cannot be opened: %s", path, withoutPath(err))
	}
	return file, nil
}

func withoutPath(err error) string {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err.Error()
	}
	return err.Error()
}
