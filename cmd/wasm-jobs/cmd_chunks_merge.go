package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
)

func chunksMergeCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "merge", Usage: "join chunk files into one",
		UsageText: `wasm-jobs chunks merge [flags] FILE...

Example: wasm-jobs chunks merge a.cbor b.cbor -o all.cbor

The chunks are in the order of the files. Two chunks with the same id are an error.
The id of a chunk without its own id is its position in the new file.`,
		ArgsUsage: "FILE...",
		Flags:     append([]cli.Flag{chunksOutputFlag()}, chunkFileFlags()...),
		Action: func(ctx *cli.Context) error {
			o, err := parseChunkFile(ctx)
			if err != nil {
				return err
			}
			if ctx.NArg() == 0 {
				return usageErrorf("merge: missing FILE...")
			}
			return emitChunks(ctx, c, func(soft context.Context, _ *resultFiles, w *chunks.Writer) error {
				return merge(soft, c, ctx.Args().Slice(), o, w)
			})
		},
	}
}

func merge(ctx context.Context, c *console, paths []string, o chunks.Options, w *chunks.Writer) error {
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
				return usageErrorf(`%s: chunk %d: duplicate id %v, first used by an earlier chunk; use --id-key NAME or --id-key ""`, path, chunk.Position, id)
			}
			seen.Add(id)
			count++
			return w.Write(chunk.Bytes)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// statedID returns the chunk's own id.
func statedID(chunk chunks.Chunk, o chunks.Options) (abi.ID, bool, error) {
	if o.NoIDKey {
		return abi.ID{}, false, nil
	}
	return abi.FindID(chunk.Bytes, o.IDKey)
}
