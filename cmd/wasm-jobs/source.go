package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/remote"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

// source is the input from which chunks are made, unless they are in a chunk file.
type source struct {
	kind  string   // the flag of run that names it: one of sourceKinds
	paths []string // files, patterns, or "-"; of range-of, the ranges
	found []string // the files of paths, in order; of files, paths
	at    places   // of the chunks
	said  bool     // that UTF-16 is converted
	lines sources.LinesOptions
	csv   sources.CSVOptions

	types   string            // of csv, as given
	columns string            // of csv, jsonl, parquet and arrow, as given
	rows    int               // of parquet and arrow: rows of a chunk, an array; 0 = a chunk is a row
	spooled map[string]string // temporary files with what is read twice, by path

	bad *badRecords // nil if malformed records end the source

	files sources.FilesOptions
	set   abi.IDSet // of range-of
}

// sourceKinds are the flags of run that take the place of CHUNKS.
var sourceKinds = []string{"lines", "jsonl", "csv", "parquet", "arrow", "files", "range-of"}

// sourceFlags are the flags of run that make chunks from other files.
func sourceFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringSliceFlag{Name: "lines", KeepSpace: true, Usage: "instead of CHUNKS: each line of `FILE`, with its line end, is a chunk, a text (- = stdin); FILE may be a pattern such as 'logs/**/*.log'; may be given again"},
		&cli.StringSliceFlag{Name: "jsonl", KeepSpace: true, Usage: "instead of CHUNKS: the JSON value of each line of `FILE` is a chunk; patterns and repetition as for --lines"},
		&cli.StringSliceFlag{Name: "csv", KeepSpace: true, Usage: "instead of CHUNKS: each record of `FILE` is a chunk, a map with keys from the first line; patterns and repetition as for --lines"},
		&cli.StringSliceFlag{Name: "parquet", KeepSpace: true, Usage: "instead of CHUNKS: each row of `FILE`, a Parquet file, is a chunk, a map with the names of the columns; patterns and repetition as for --lines"},
		&cli.StringSliceFlag{Name: "arrow", KeepSpace: true, Usage: "instead of CHUNKS: each row of `FILE`, an Arrow IPC file or stream, is a chunk, as for --parquet"},
		rowsFlag("chunk-"),
		&cli.StringSliceFlag{Name: "files", KeepSpace: true, Usage: "instead of CHUNKS: each file of `PATH`, a directory, pattern or file, is a chunk, a map with name, size and bytes; may be given again"},
		&cli.StringFlag{Name: "range-of", Usage: "instead of CHUNKS: each integer of `RANGES`, such as 0-999999, is a chunk"},
		skipBadFlag(),
	}, slices.Concat(linesFlags("chunk-"), csvFlags(), filesFlags())...)
}

func linesFlags(prefix string) []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: prefix + "lines", Value: 1, Usage: "put `N` lines into a chunk"},
		&cli.StringFlag{Name: prefix + "bytes", Usage: "put as many whole lines into a chunk as fit in `SIZE`, at least one"},
		&cli.StringFlag{Name: "as", Value: "text", Usage: "type of lines: text, which must be UTF-8, or bytes"},
	}
}

func csvFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "delimiter", Value: ",", Usage: "`CHARACTER` between the fields of CSV, or tab"},
		&cli.StringFlag{Name: "quote", Value: "double", Usage: "none: CSV without quoting, as databases write TSV"},
		&cli.StringFlag{Name: "csv-types", Value: "text", Usage: "`TYPES` of columns: auto, text or name:type,... with text, uint, int, float or bool"},
		selectFlag(),
	}
}

func selectFlag() cli.Flag {
	return &cli.StringFlag{Name: "select", Usage: "keep only these `COLUMNS` of CSV, Parquet or Arrow, or top-level keys of JSON lines, such as a,b"}
}

func filesFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "split", Usage: "split files into chunks of `SIZE`, with the keys part and offset"},
		&cli.BoolFlag{Name: "split-lines", Usage: "split only at line ends"},
	}
}

// modifiers maps flags of run to the only kind of source that has them.
var modifiers = map[string]string{
	"chunk-lines": "lines", "chunk-bytes": "lines", "as": "lines", "delimiter": "csv", "quote": "csv", "csv-types": "csv", "split": "files", "split-lines": "files",
}

// sourceFlagNames are the names of all flags about sources.
var sourceFlagNames = sync.OnceValue(func() (names []string) {
	for _, flag := range sourceFlags() {
		names = append(names, nameOf(flag))
	}
	return names
})

// parseSource reads the flags of run. It returns nil if no flag names a source.
func parseSource(ctx *cli.Context) (*source, error) {
	var s *source
	for _, kind := range sourceKinds {
		switch {
		case !isSet(ctx, kind):
		case s != nil:
			return nil, usageErrorf("--%s and --%s exclude each other: give one of them", s.kind, kind)
		default:
			s = &source{kind: kind, paths: ctx.StringSlice(kind)}
			if kind == "range-of" {
				s.paths = []string{ctx.String(kind)}
			}
			if slices.Contains(s.paths, "") {
				return nil, usageErrorf("--%s is empty", kind)
			}
		}
	}
	for _, name := range sourceFlagNames() { // in a fixed order
		if name == "as" && namesRuns(ctx) {
			continue
		}
		if kind := modifiers[name]; kind != "" && isSet(ctx, name) && (s == nil || s.kind != kind) {
			return nil, usageErrorf("--%s needs --%s", name, kind)
		}
	}
	if isSet(ctx, "select") && (s == nil || s.kind != "csv" && s.kind != "jsonl" && !hasColumns(s.kind)) {
		return nil, usageErrorf("--select needs --csv, --jsonl, --parquet or --arrow")
	}
	if isSet(ctx, "chunk-rows") && (s == nil || !hasColumns(s.kind)) {
		return nil, usageErrorf("--chunk-rows needs --parquet or --arrow")
	}
	if isSet(ctx, "skip-bad") && s == nil {
		return nil, usageErrorf("--skip-bad needs --lines, --jsonl or --csv")
	}
	if s == nil {
		return nil, nil
	}
	return s, s.parse(ctx, "chunk-")
}

// parse reads the flags of a source whose kind is set.
func (s *source) parse(ctx *cli.Context, prefix string) (err error) {
	if err := s.find(); err != nil {
		return err
	}
	if err := s.parseKind(ctx, prefix); err != nil {
		return err
	}
	return s.parseBad(ctx)
}

func (s *source) parseKind(ctx *cli.Context, prefix string) (err error) {
	switch s.kind {
	case "lines":
		return s.parseLines(ctx, prefix+"lines", prefix+"bytes")
	case "csv":
		return s.parseCSV(ctx)
	case "jsonl":
		return s.parseSelect(ctx)
	case "parquet", "arrow":
		return s.parseRows(ctx, prefix+"rows")
	case "files":
		s.files.AtLines = ctx.Bool("split-lines")
		if !isSet(ctx, "split") {
			if s.files.AtLines {
				return usageErrorf("--split-lines needs --split SIZE")
			}
			return nil
		}
		s.files.Split, err = parseSize[int64](ctx, "split")
		return err
	case "range-of":
		if s.set, err = abi.ParseRanges(s.paths[0]); err != nil {
			return usageErrorf("%w", err)
		}
	}
	return nil
}

func (s *source) parseLines(ctx *cli.Context, lines, size string) (err error) {
	s.lines.Lines = ctx.Int(lines)
	switch {
	case isSet(ctx, size) && isSet(ctx, lines):
		return usageErrorf("--%s and --%s exclude each other: give one of them", lines, size)
	case isSet(ctx, size):
		if s.lines.Cut.Bytes, err = parseSize[int64](ctx, size); err != nil {
			return err
		}
		s.lines.Lines = 0
	case s.lines.Lines < 1:
		return usageErrorf("invalid --%s %d: want 1 or more", lines, s.lines.Lines)
	}
	if namesRuns(ctx) {
		return nil
	}
	if as := ctx.String("as"); as != "text" && as != "bytes" {
		return usageErrorf("invalid --as %q: want text or bytes", as)
	}
	s.lines.Bytes = ctx.String("as") == "bytes"
	return nil
}

// namesRuns reports whether --as is the name of a run and not the type of lines: in
// flow run, which reads lines as texts.
func namesRuns(ctx *cli.Context) bool {
	return ctx.Command.Name == "run" && ctx.Command.Usage == flowRunUsage
}

func parseDelimiter(s string) (rune, error) {
	if s == "tab" || s == `\t` {
		return '\t', nil
	}
	r, size := utf8.DecodeRuneInString(s)
	if size == 0 || size != len(s) || r == utf8.RuneError || strings.ContainsRune("\"\r\n", r) {
		return 0, usageErrorf("invalid --delimiter %q: want one character, or tab", s)
	}
	return r, nil
}

// name is the source's name in messages.
func (s *source) name() string {
	switch {
	case s.kind == "range-of":
		return "range " + s.paths[0]
	case len(s.paths) > 1:
		return fmt.Sprintf("%s and %d more", nameOfInput(s.paths[0]), len(s.paths)-1)
	case remote.IsURL(s.paths[0]):
		return remote.Name(s.paths[0])
	case s.paths[0] == "-" && s.kind != "files":
		return "standard input"
	}
	return s.paths[0]
}

// recorded returns the path of the chunks for the job's record.
func (s *source) recorded() string {
	if s.kind == "range-of" {
		return s.name()
	}
	return absolute(s.paths[0])
}

// open returns the chunks. closer closes the files behind them.
func (s *source) open(c *console, maxChunk int64, limit int) (seq sources.Source, closer io.Closer, err error) {
	switch s.kind {
	case "range-of":
		return sources.Range(s.name(), s.set), io.NopCloser(nil), nil
	case "files":
		o := s.files
		o.MaxChunk, o.Unpack = maxChunk, unpack
		return sources.Files(s.paths, o), io.NopCloser(nil), nil
	}
	if s.kind == "lines" {
		return s.openLines(c, maxChunk)
	}
	if s.types == "auto" {
		if err := s.findTypes(c, maxChunk, limit); err != nil {
			return nil, nil, errors.Join(err, s.Close())
		}
	}
	return s.eachFile(c, maxChunk), s, nil
}

// of returns the chunks of one file.
func (s *source) of(in sources.Input) sources.Source {
	if s.kind == "csv" {
		return sources.CSV(in, s.csv)
	}
	if s.columns != "" {
		return sources.JSONObjects(in, s.csv.Columns)
	}
	return sources.JSONLines(in)
}

// place returns a function that describes the origin of the chunk at a position. It is
// nil if only the position is known.
func (s *source) place() func(position int) string {
	if s.kind == "jsonl" || s.kind == "csv" || hasColumns(s.kind) {
		return s.at.of
	}
	return nil
}

// scan makes all chunks, and stores them as it stores the chunks of standard input.
func (s *source) scan(ctx context.Context, c *console, o chunks.Options) (*chunks.File, error) {
	seq, closer, err := s.open(c, o.MaxChunk, o.Limit)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	o.Name, o.Place = s.name(), s.place()
	if err := s.bad.open(); err != nil {
		return nil, err
	}
	file, err := chunks.FromSeq(ctx, seq, o)
	s.bad.say(c, err)
	if badErr := s.bad.close(err); err == nil && badErr != nil {
		return nil, errors.Join(badErr, file.Close())
	}
	return file, sourceError(err)
}

// sourceError returns the error of a source without the chunk error around it.
func sourceError(err error) error {
	if cause, ok := errors.AsType[*sources.Error](err); ok {
		return cause
	}
	return err
}

// isLines reports whether each chunk is one line of a text.
func (s *source) isLines() bool {
	return s != nil && s.kind == "lines" && s.lines.Cut.Lines <= 1 && s.lines.Cut.Bytes == 0
}
