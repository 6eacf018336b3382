package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

func chunksCommand(c *console) *cli.Command {
	command := &cli.Command{
		Name: "chunks", Usage: "convert, list, split, merge and filter chunk files",
		UsageText: `wasm-jobs chunks COMMAND [flags] [FILE...]

Example: wasm-jobs chunks from-jsonl records.jsonl -o chunks.cbor
         wasm-jobs chunks from-lines --lines 1000 big.txt | wasm-jobs run wordcount.wasm -
         wasm-jobs chunks ls chunks.cbor

Without FILE, or if it is -, standard input is read. The result goes to standard
output, or with -o to a file, which appears when it is complete.`,
		Subcommands: []*cli.Command{
			fromCommand(c, "lines", "lines", "[FILE...]", "from lines of text; each chunk is a line with its line end", append(linesFlags(""), skipBadFlag())),
			fromCommand(c, "jsonl", "jsonl", "[FILE...]", "from JSON lines; each chunk is the value of a line", []cli.Flag{selectFlag(), skipBadFlag()}),
			fromCommand(c, "csv", "csv", "[FILE...]", "from CSV; each chunk is a record: a map of texts, with keys from the first line", append(csvFlags(), skipBadFlag())),
			fromCommand(c, "parquet", "parquet", "[FILE...]", "from Parquet files; each chunk is a row: a map with the names of the columns", []cli.Flag{rowsFlag(""), selectFlag()}),
			fromCommand(c, "arrow", "arrow", "[FILE...]", "from Arrow IPC files or streams; each chunk is a row: a map with the names of the columns", []cli.Flag{rowsFlag(""), selectFlag()}),
			fromCommand(c, "files", "files", "PATH...", "from files, directories and patterns; each chunk is a map with name, size and bytes", filesFlags()),
			fromCommand(c, "range", "range-of", "RANGES", "from ranges such as 0-999999; each chunk is an integer", nil),
			chunksLsCommand(c), chunksCatCommand(c), chunksSplitCommand(c), chunksMergeCommand(c), chunksFilterCommand(c),
		},
	}
	for _, sub := range command.Subcommands {
		sub.OnUsageError = onUsageError
	}
	return command
}

func chunksOutputFlag() cli.Flag {
	return &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE` (- = stdout, even if it is a terminal)"}
}

func maxChunkFlag() cli.Flag {
	return &cli.StringFlag{Name: "max-chunk", Value: "64MiB", Usage: "limit of one chunk"}
}

// chunkFileFlags say how chunk files are read.
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
		return o, usageErrorf("--chunk-format: %w", err)
	}
	o.MaxChunk, err = parseSize[int64](ctx, "max-chunk")
	return o, err
}

// emit opens the file of -o, or standard output, and calls fill with it. It writes to
// a terminal only with -o -.
func emit(ctx *cli.Context, c *console, isText bool, fill func(ctx context.Context, files *resultFiles, w *bufio.Writer) error) error {
	path := ctx.String("output")
	if path == "" {
		if f, ok := c.out.(*os.File); ok && !isText && term.IsTerminal(int(f.Fd())) {
			return usageErrorf("CBOR is not written to a terminal: use -o FILE or a pipe, or -o - to write it anyway")
		}
		path = "-"
	}
	files := &resultFiles{result: path}
	defer files.discard()
	return untilSignal(ctx.Context, c, func(soft context.Context) error {
		if err := files.open(c.out); err != nil {
			return err
		}
		return files.targets[path].Write(func(w *bufio.Writer) error { return fill(soft, files, w) })
	})
}

// emitChunks is emit for a chunk file, which reads back as the chunks that fill
// writes.
func emitChunks(ctx *cli.Context, c *console, fill func(ctx context.Context, files *resultFiles, w *chunks.Writer) error) error {
	return emit(ctx, c, false, func(soft context.Context, files *resultFiles, w *bufio.Writer) error {
		out := chunks.NewWriter(w)
		if err := fill(soft, files, out); err != nil {
			return err
		}
		return out.Close()
	})
}

// warnNoChunks warns that a file has no chunks: it may have an unexpected format.
func warnNoChunks(c *console, name string) {
	fmt.Fprintf(c.err, "wasm-jobs: warning: %s: no chunks\n", printable(name))
}

// untilSignal calls f with a context that ends with the first signal, and returns its
// error with an exit code.
func untilSignal(soft context.Context, c *console, f func(context.Context) error) error {
	c.signals.Outcome(errInterrupted)
	err := f(soft)
	_, ofSource := errors.AsType[*sources.Error](err)
	_, ofChunks := errors.AsType[*chunks.InputError](err)
	_, said := errors.AsType[*exitError](err)
	switch {
	case soft.Err() != nil && err != nil:
		return &exitError{exitInterrupted, errInterrupted}
	case ofSource || ofChunks || said:
		return err
	}
	return outputError(err)
}

var errInterrupted = errors.New("interrupted: no file was written")

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
	none := true
	err = streamFrom(ctx, file, o, func(chunk chunks.Chunk) error {
		none = false
		return each(chunk)
	})
	if err == nil && none {
		warnNoChunks(c, o.Name)
	}
	return err
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
