package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
)

func chunksFilterCommand(c *console) *cli.Command {
	return readingCommand("filter", "keep the chunks with some ids",
		`wasm-jobs chunks filter [flags] [FILE]

Example: wasm-jobs chunks filter --range 0-99,120 chunks.cbor -o some.cbor
         wasm-jobs chunks filter --ids a,b chunks.cbor -o some.cbor

Chunks that either flag selects are kept, in the order of the file. The id of a
chunk without its own id is its position, which changes in the new file. run
--range and run --ids keep such ids.`,
		[]cli.Flag{
			&cli.StringFlag{Name: "range", Usage: "keep the chunks whose integer ids are in `RANGES`, such as 0-99,120"},
			&cli.StringFlag{Name: "ids", Usage: "keep the chunks with `IDS`, such as a,b,7; quote a text that looks like a number or has a comma: '\"7\",\"a,b\"'"},
			chunksOutputFlag(),
		},
		func(ctx *cli.Context, path string, o chunks.Options) error {
			var s selection
			if err := s.parse(ctx); err != nil {
				return err
			}
			if !s.made {
				return usageErrorf("filter needs --range, --ids or both")
			}
			return emitChunks(ctx, c, func(soft context.Context, _ *resultFiles, w *chunks.Writer) error {
				return s.filter(soft, c, path, o, w)
			})
		})
}

// filter writes the selected chunks. All chunks that --ids names must exist.
func (s *selection) filter(ctx context.Context, c *console, path string, o chunks.Options, w *chunks.Writer) error {
	var found abi.IDSet
	count, kept := 0, 0
	err := stream(ctx, c, path, o, func(chunk chunks.Chunk) error {
		count++
		named := s.named.Has(chunk.ID)
		if named {
			found.Add(chunk.ID)
		}
		if !named && !s.ranges.Has(chunk.ID) {
			return nil
		}
		kept++
		return w.Write(chunk.Bytes)
	})
	if err != nil {
		return err
	}
	if missing := s.missing(found); !missing.Empty() {
		return usageErrorf("%s: unknown --ids %s: no chunk has such an id", path, shortSet(missing))
	}
	if count > 0 && kept == 0 {
		return usageErrorf("%s: no chunk is selected: none has an id in %s", path, shortSet(s.ranges))
	}
	return nil
}

// missing returns the named ids that are not in found.
func (s *selection) missing(found abi.IDSet) (missing abi.IDSet) {
	for lo, hi := range s.named.Ranges() {
		for n := lo; ; n++ { // each id was named, so there are few
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
