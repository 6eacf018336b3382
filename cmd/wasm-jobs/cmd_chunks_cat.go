package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
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
	count        int
	single       *chunks.Chunk // the first chunk, if it may be an array of JSON and there is no second one yet
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
	if major := chunk.Bytes[0] >> 5; c.format == "json" && c.count == 0 && (major == abi.MajorArray || major == abi.MajorTag) {
		chunk.Bytes = slices.Clone(chunk.Bytes)
		c.single = &chunk
		c.count++
		return nil
	}
	if c.single != nil {
		if err := c.line(c.w, c.single); err != nil {
			return err
		}
		c.single = nil
	}
	c.count++
	return c.line(c.w, &chunk)
}

// line writes a chunk as a line.
func (c *concatenation) line(w *bufio.Writer, chunk *chunks.Chunk) error {
	if err := writeItem(w, chunk.Bytes, c.format); err != nil {
		return fmt.Errorf("chunk %v: %w", chunk.ID, err)
	}
	return nil
}

// end writes the end of the output.
func (c *concatenation) end() error {
	return errors.Join(c.endLines(), c.file.Close(), c.table.Flush())
}

// endLines writes a single chunk. If it is an array, another one is put around it: a file
// that is one array has the chunks in the array.
func (c *concatenation) endLines() error {
	if c.single == nil {
		return nil
	}
	var line bytes.Buffer
	b := bufio.NewWriter(&line)
	if err := errors.Join(c.line(b, c.single), b.Flush()); err != nil {
		return err
	}
	text := line.Bytes()
	if text[0] == '[' {
		text = fmt.Appendf(nil, "[%s]\n", bytes.TrimSuffix(text, []byte("\n")))
	}
	_, err := c.w.Write(text)
	return err
}

// writeRaw writes the contents of a string.
func writeRaw(w io.Writer, path string, chunk chunks.Chunk) error {
	contents, _, ok := notation.Contents(chunk.Bytes)
	if !ok {
		return usageErrorf("%s: chunk %v: -f raw wants a byte string or a text", path, chunk.ID)
	}
	_, err := w.Write(contents)
	return err
}
