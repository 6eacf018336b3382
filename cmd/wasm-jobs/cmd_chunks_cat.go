package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
	"github.com/wasm-jobs/wasm-jobs/host/outputs"
)

func chunksCatCommand(c *console) *cli.Command {
	formats := []string{"json", "diag", "csv", "cbor", "raw"}
	return readingCommand("cat", "print the chunks of a file as JSON lines, diagnostic notation, CSV, CBOR or raw strings",
		`wasm-jobs chunks cat [flags] [FILE]

Example: wasm-jobs chunks cat chunks.cbor
         wasm-jobs chunks cat -f raw lines.cbor > big.txt

-f json is the inverse of from-jsonl, -f raw of from-lines, and -f csv of from-csv.
-f csv needs maps with the same keys, without arrays or maps as values. -f cbor
converts an array to a sequence, unless the first chunk is an array.`,
		[]cli.Flag{&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "json", Usage: "json, diag, csv, cbor, or raw: the contents of byte strings and texts"}, chunksOutputFlag()},
		func(ctx *cli.Context, path string, o chunks.Options) error {
			format := ctx.String("format")
			if !slices.Contains(formats, format) {
				return usageErrorf("invalid --format %q: want json, diag, csv, cbor or raw", format)
			}
			return emit(ctx, c, format != "cbor", func(soft context.Context, _ *resultFiles, w *bufio.Writer) error {
				cat := concatenation{path: path, format: format, w: w, file: chunks.NewWriter(w), table: outputs.NewChunkTable(w)}
				if err := stream(soft, c, path, o, cat.add); err != nil {
					return err
				}
				return cat.end()
			})
		})
}

// concatenation writes the chunks of a file in a format of cat.
type concatenation struct {
	path, format string
	w            *bufio.Writer
	file         *chunks.Writer // for cbor
	table        *outputs.Table // for csv
}

func (c *concatenation) add(chunk chunks.Chunk) error {
	switch c.format {
	case "raw":
		return writeRaw(c.w, c.path, chunk)
	case "cbor":
		return c.file.Write(chunk.Bytes)
	case "csv":
		if err := c.table.AddChunk(chunk.Bytes); err != nil {
			return usageErrorf("%s: chunk %v: %w", c.path, chunk.ID, err)
		}
		return nil
	}
	if err := writeItem(c.w, chunk.Bytes, c.format); err != nil {
		return fmt.Errorf("chunk %v: %w", chunk.ID, err)
	}
	return nil
}

// end writes the end of the output.
func (c *concatenation) end() error { return errors.Join(c.file.Close(), c.table.Flush()) }

// writeRaw writes the contents of a string.
func writeRaw(w io.Writer, path string, chunk chunks.Chunk) error {
	contents, _, ok := notation.Contents(chunk.Bytes)
	if !ok {
		return usageErrorf("%s: chunk %v: -f raw wants a byte string or a text", path, chunk.ID)
	}
	_, err := w.Write(contents)
	return err
}
