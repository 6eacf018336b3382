package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

func chunksCommand(c *console, usage cli.OnUsageErrorFunc) *cli.Command {
	command := &cli.Command{
		Name: "chunks", Usage: "make chunk files of other files, and read, split, merge and filter them",
		UsageText: `wasm-jobs chunks COMMAND [flags] [FILE...]

Example: wasm-jobs chunks from-jsonl records.jsonl -o chunks.cbor
         wasm-jobs chunks from-lines --lines 1000 big.txt | wasm-jobs run wordcount.wasm -
         wasm-jobs chunks ls chunks.cbor

FILE is - for standard input, also where none is given; -o names the file to
write, which appears when all of it is written, instead of standard output.`,
		Subcommands: []*cli.Command{
			fromCommand(c, "lines", "lines", "[FILE]", "of lines of text, with their ends: all chunks, joined, are the file", linesFlags("")),
			fromCommand(c, "jsonl", "jsonl", "[FILE]", "of JSON lines: each line is a value, and a chunk", nil),
			fromCommand(c, "csv", "csv", "[FILE]", "of CSV: each record is a map of texts, with keys from the first line", csvFlags()),
			fromCommand(c, "files", "files", "PATH...", "of files, directories and patterns: each file is a map with name, size and bytes", filesFlags()),
			fromCommand(c, "range", "range-of", "RANGES", "of the integers of ranges such as 0-999999", nil),
			chunksLsCommand(c), chunksCatCommand(c), chunksSplitCommand(c), chunksMergeCommand(c), chunksFilterCommand(c),
		},
		Action: func(ctx *cli.Context) error {
			if name := ctx.Args().First(); name != "" {
				return refuse("unknown command %q of chunks; wasm-jobs chunks --help lists them", name)
			}
			return cli.ShowSubcommandHelp(ctx)
		},
	}
	for _, sub := range command.Subcommands {
		sub.OnUsageError = usage
	}
	return command
}

func chunksOutputFlag() cli.Flag {
	return &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE` (- = stdout, also where that is a terminal)"}
}

func maxChunkFlag() cli.Flag {
	return &cli.StringFlag{Name: "max-chunk", Value: "64MiB", Usage: "limit of one chunk"}
}

// chunkFileFlags are those about how chunk files are read.
func chunkFileFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "id-key", Value: chunks.DefaultIDKey, Usage: "map key that holds a chunk's id; empty = number chunks by position"},
		&cli.StringFlag{Name: "chunk-format", Value: "auto", Usage: "auto, sequence or array"},
		maxChunkFlag(),
	}
}

func parseChunkFile(ctx *cli.Context) (o chunks.Options, err error) {
	o.IDKey, o.NoIDKey = ctx.String("id-key"), ctx.String("id-key") == ""
	if o.Format, err = chunks.ParseFormat(ctx.String("chunk-format")); err != nil {
		return o, refuse("--chunk-format: %w", err)
	}
	o.MaxChunk, err = parseSize[int64](ctx, "max-chunk")
	return o, err
}

// emit opens what is to be written, -o or standard output, and calls fill for
// it. Standard output that is a terminal gets bytes only where -o - asks so.
func emit(ctx *cli.Context, c *console, isText bool, fill func(ctx context.Context, files *resultFiles, w *bufio.Writer) error) error {
	path := ctx.String("output")
	if path == "" {
		if f, ok := c.out.(*os.File); ok && !isText && term.IsTerminal(int(f.Fd())) {
			return refuse("CBOR is not for terminals: -o FILE writes a file, a pipe takes it too, and -o - writes it all the same")
		}
		path = "-"
	}
	files := &resultFiles{result: path}
	defer files.discard()
	return untilSignal(ctx.Context, func(soft context.Context) error {
		if err := files.open(c.out); err != nil {
			return err
		}
		return files.targets[path].write(func(w *bufio.Writer) error { return fill(soft, files, w) })
	})
}

// untilSignal calls f, whose context ends with a first SIGINT or SIGTERM, and
// gives its error an exit code.
func untilSignal(ctx context.Context, f func(context.Context) error) error {
	soft, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	_, err := within(soft, func() (struct{}, error) { return struct{}{}, f(soft) })
	_, ofSource := errors.AsType[*sources.Error](err)
	_, ofChunks := errors.AsType[*chunks.InputError](err)
	_, said := errors.AsType[*exitError](err)
	switch {
	case soft.Err() != nil && err != nil:
		return &exitError{exitInterrupted, errInterrupted}
	case ofSource || ofChunks || said:
		return err
	}
	return written(err)
}

var errInterrupted = errors.New("interrupted: nothing was written under the name of a file")

func fromCommand(c *console, name, kind, args, what string, flags []cli.Flag) *cli.Command {
	return &cli.Command{
		Name: "from-" + name, Usage: "make a chunk file " + what,
		UsageText: "wasm-jobs chunks from-" + name + " [flags] " + args + "\n\nExample: " + fromExamples[name],
		ArgsUsage: args,
		Flags:     append([]cli.Flag{chunksOutputFlag(), maxChunkFlag()}, flags...),
		Action: func(ctx *cli.Context) error {
			s := &source{kind: kind, paths: ctx.Args().Slice()}
			maxChunk, err := parseSize[int64](ctx, "max-chunk")
			switch {
			case err != nil:
				return err
			case len(s.paths) == 0 && (kind == "files" || kind == "range-of"):
				return refuse("from-%s needs %s", name, args)
			case len(s.paths) > 1 && kind != "files":
				return refuse("from-%s takes one argument, and %d are given", name, len(s.paths))
			case len(s.paths) == 0:
				s.paths = []string{"-"}
			}
			if err := s.parse(ctx, ""); err != nil {
				return err
			}
			return emit(ctx, c, false, func(soft context.Context, files *resultFiles, w *bufio.Writer) error {
				s.files.Except = files.places()
				return s.write(soft, c, w, maxChunk)
			})
		},
	}
}

var fromExamples = map[string]string{
	"lines": "wasm-jobs chunks from-lines --lines 1000 big.txt -o chunks.cbor",
	"jsonl": "wasm-jobs chunks from-jsonl records.jsonl -o chunks.cbor",
	"csv":   "wasm-jobs chunks from-csv table.csv -o chunks.cbor",
	"files": "wasm-jobs chunks from-files photos 'notes/*.txt' --split 16MiB -o chunks.cbor",
	"range": "wasm-jobs chunks from-range 0-999999 -o chunks.cbor",
}

// places returns the files that are being written: those under their
// temporary names, and those that they replace.
func (f *resultFiles) places() (all []fs.FileInfo) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.order {
		for _, path := range []string{t.temp, t.path} {
			if stat, err := os.Stat(path); err == nil {
				all = append(all, stat)
			}
		}
	}
	return all
}

// write writes the source as a CBOR sequence.
func (s *source) write(ctx context.Context, c *console, w io.Writer, maxChunk int64) error {
	seq, closer, err := s.open(c, maxChunk)
	if err != nil {
		return err
	}
	defer closer.Close()
	for item, err := range seq {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			_, err = w.Write(item)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stream calls each for the chunks of a file.
func stream(ctx context.Context, c *console, path string, o chunks.Options, each func(chunks.Chunk) error) error {
	if o.Name = path; path == "-" {
		o.Name = "standard input"
	}
	file, err := openInput(c, path)
	if err != nil {
		return err
	}
	defer file.Close()
	return streamFrom(ctx, file, o, each)
}

func streamFrom(ctx context.Context, r io.Reader, o chunks.Options, each func(chunks.Chunk) error) error {
	for chunk, err := range chunks.Stream(ctx, r, o) {
		if err == nil {
			err = each(chunk)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// oneFile returns the chunk file that the arguments name.
func oneFile(ctx *cli.Context) (string, error) {
	if err := arguments(ctx, 1); err != nil {
		return "", err
	}
	if ctx.NArg() == 0 {
		return "-", nil
	}
	return ctx.Args().First(), nil
}

// readingCommand is a command that reads one chunk file.
func readingCommand(name, usage, text string, flags []cli.Flag, action func(ctx *cli.Context, path string, o chunks.Options) error) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, UsageText: text, ArgsUsage: "[FILE]", Flags: append(flags, chunkFileFlags()...),
		Action: func(ctx *cli.Context) error {
			path, err := oneFile(ctx)
			if err != nil {
				return err
			}
			o, err := parseChunkFile(ctx)
			if err != nil {
				return err
			}
			return action(ctx, path, o)
		},
	}
}

// shownBytes is how many bytes of a chunk ls shows.
const shownBytes = 16

// listedChunk is a line of ls.
type listedChunk struct {
	ID       abi.ID `json:"id"`
	Position int    `json:"position"`
	Size     int    `json:"size"`
	First    string `json:"first"` // bytes, in hexadecimal
}

func chunksLsCommand(c *console) *cli.Command {
	return readingCommand("ls", "list the chunks of a file: id, size and first bytes",
		"wasm-jobs chunks ls [--json] [FILE]\n\nExample: wasm-jobs chunks ls chunks.cbor\n\n--json gives one object a line, with the position besides.",
		[]cli.Flag{&cli.BoolFlag{Name: "json", Usage: "as JSON lines"}, chunksOutputFlag()},
		func(ctx *cli.Context, path string, o chunks.Options) error {
			return emit(ctx, c, true, func(soft context.Context, _ *resultFiles, w *bufio.Writer) error {
				encoder := json.NewEncoder(w)
				return stream(soft, c, path, o, func(chunk chunks.Chunk) error {
					l := listedChunk{chunk.ID, chunk.Position, len(chunk.Bytes), hex.EncodeToString(chunk.Bytes[:min(len(chunk.Bytes), shownBytes)])}
					if ctx.Bool("json") {
						return encoder.Encode(l)
					}
					_, err := fmt.Fprintf(w, "%-12v %10d  %s\n", l.ID, l.Size, l.First)
					return err
				})
			})
		})
}

func chunksCatCommand(c *console) *cli.Command {
	formats := []string{"json", "diag", "csv", "cbor", "raw"}
	return readingCommand("cat", "print the chunks of a file: as JSON lines, diagnostic notation, CSV, CBOR, or the contents of strings",
		`wasm-jobs chunks cat [flags] [FILE]

Example: wasm-jobs chunks cat chunks.cbor
         wasm-jobs chunks cat -f raw lines.cbor > big.txt

-f json is the inverse of from-jsonl, -f raw that of from-lines, and -f csv that of
from-csv: it takes maps with the same keys, and values that are no arrays or maps.
-f cbor makes a sequence of an array.`,
		[]cli.Flag{&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "json", Usage: "json, diag, csv, cbor, or raw: what byte strings and texts hold"}, chunksOutputFlag()},
		func(ctx *cli.Context, path string, o chunks.Options) error {
			format := ctx.String("format")
			if !slices.Contains(formats, format) {
				return refuse("--format %q is none of json, diag, csv, cbor, raw", format)
			}
			return emit(ctx, c, format != "cbor", func(soft context.Context, _ *resultFiles, w *bufio.Writer) error {
				table := csvTable{w: csv.NewWriter(w), chunks: true}
				err := stream(soft, c, path, o, func(chunk chunks.Chunk) error {
					return catChunk(w, &table, path, chunk, format)
				})
				table.w.Flush()
				return errors.Join(err, table.w.Error())
			})
		})
}

// catChunk writes a chunk in a format of cat.
func catChunk(w *bufio.Writer, table *csvTable, path string, chunk chunks.Chunk, format string) error {
	switch format {
	case "raw":
		return writeRaw(w, path, chunk)
	case "csv":
		if err := table.addChunk(chunk.Bytes); err != nil {
			return refuse("%s: chunk %v: %w", path, chunk.ID, err)
		}
		return table.w.Error()
	}
	if err := writeItem(w, chunk.Bytes, format); err != nil {
		return fmt.Errorf("chunk %v: %w", chunk.ID, err)
	}
	return nil
}

// writeRaw writes what a string holds.
func writeRaw(w io.Writer, path string, chunk chunks.Chunk) error {
	t := transcoder{rest: chunk.Bytes}
	h := t.head()
	if h.Major != abi.MajorBytes && h.Major != abi.MajorText {
		return refuse("%s: chunk %v is neither a byte string nor a text, and -f raw writes what they hold", path, chunk.ID)
	}
	_, err := w.Write(t.bytes(h))
	return err
}

func chunksMergeCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "merge", Usage: "join chunk files into one",
		UsageText: `wasm-jobs chunks merge [flags] FILE...

Example: wasm-jobs chunks merge a.cbor b.cbor -o all.cbor

The chunks of the first file come first. Two chunks of one id are refused; a chunk
that states none gets its new position as id.`,
		ArgsUsage: "FILE...",
		Flags:     append([]cli.Flag{chunksOutputFlag()}, chunkFileFlags()...),
		Action: func(ctx *cli.Context) error {
			o, err := parseChunkFile(ctx)
			if err != nil {
				return err
			}
			if ctx.NArg() == 0 {
				return refuse("merge needs FILE...")
			}
			return emit(ctx, c, false, func(soft context.Context, _ *resultFiles, w *bufio.Writer) error {
				return merge(soft, c, ctx.Args().Slice(), o, w)
			})
		},
	}
}

func merge(ctx context.Context, c *console, paths []string, o chunks.Options, w io.Writer) error {
	var seen abi.IDSet
	count := uint64(0)
	for _, path := range paths {
		err := stream(ctx, c, path, o, func(chunk chunks.Chunk) error {
			id, stated, err := statedID(chunk, o)
			if err != nil {
				return err
			}
			if !stated {
				id = abi.IntID(count)
			}
			if seen.Has(id) {
				return refuse(`%s: chunk at position %d: an earlier chunk has its id %v, too; --id-key NAME takes ids from another key, --id-key "" numbers the chunks by position`, path, chunk.Position, id)
			}
			seen.Add(id)
			count++
			_, err = w.Write(chunk.Bytes)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// statedID returns the id that a chunk states.
func statedID(chunk chunks.Chunk, o chunks.Options) (abi.ID, bool, error) {
	if o.NoIDKey {
		return abi.ID{}, false, nil
	}
	return abi.FindID(chunk.Bytes, o.IDKey)
}

func chunksFilterCommand(c *console) *cli.Command {
	return readingCommand("filter", "keep the chunks with some ids",
		`wasm-jobs chunks filter [flags] [FILE]

Example: wasm-jobs chunks filter --range 0-99,120 chunks.cbor -o some.cbor
         wasm-jobs chunks filter --ids a,b chunks.cbor -o some.cbor

What either flag selects is kept, in the order of the file. A chunk that states no
id has its position as id, and another one in the new file: run --range and
run --ids keep it.`,
		[]cli.Flag{
			&cli.StringFlag{Name: "range", Usage: "keep the chunks whose integer ids are in `RANGES`, such as 0-99,120"},
			&cli.StringFlag{Name: "ids", Usage: "keep the chunks with `IDS`, such as a,b,7; quotes make a text of anything: '\"7\",\"a,b\"'"},
			chunksOutputFlag(),
		},
		func(ctx *cli.Context, path string, o chunks.Options) error {
			var s selection
			if err := s.parse(ctx); err != nil {
				return err
			}
			if !s.made {
				return refuse("filter needs --range, --ids or both")
			}
			return emit(ctx, c, false, func(soft context.Context, _ *resultFiles, w *bufio.Writer) error {
				return s.filter(soft, c, path, o, w)
			})
		})
}

// filter writes the selected chunks. Those that are named must be there.
func (s *selection) filter(ctx context.Context, c *console, path string, o chunks.Options, w io.Writer) error {
	var found abi.IDSet
	err := stream(ctx, c, path, o, func(chunk chunks.Chunk) (err error) {
		named := s.named.Has(chunk.ID)
		if named {
			found.Add(chunk.ID)
		}
		if named || s.ranges.Has(chunk.ID) {
			_, err = w.Write(chunk.Bytes)
		}
		return err
	})
	if err != nil {
		return err
	}
	if missing := s.missing(found); !missing.Empty() {
		return refuse("%s: --ids: no chunk has the id %s", path, shortSet(missing))
	}
	return nil
}

// missing returns the named ids that are not in found.
func (s *selection) missing(found abi.IDSet) (missing abi.IDSet) {
	for lo, hi := range s.named.Ranges() {
		for n := lo; ; n++ { // each was named by itself
			if !found.Has(abi.IntID(n)) {
				missing.AddRange(n, n)
			}
			if n == hi {
				break
			}
		}
	}
	for text := range s.named.Texts() {
		if !found.Has(abi.TextID(text)) {
			missing.Add(abi.TextID(text))
		}
	}
	return missing
}
