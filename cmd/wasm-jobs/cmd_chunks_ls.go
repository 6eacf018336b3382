package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
)

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
		"wasm-jobs chunks ls [--json] [FILE]\n\nExample: wasm-jobs chunks ls chunks.cbor\n\n--json prints one object a line, which also has the position.",
		[]cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON lines"}, chunksOutputFlag()},
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
