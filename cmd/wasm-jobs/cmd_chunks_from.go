package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

func fromCommand(c *console, name, kind, args, what string, flags []cli.Flag) *cli.Command {
	return &cli.Command{
		Name: "from-" + name, Usage: "make a chunk file " + what,
		UsageText: "wasm-jobs chunks from-" + name + " [flags] " + args + "\n\nExample: " + fromExamples[name],
		ArgsUsage: args,
		Flags:     append([]cli.Flag{chunksOutputFlag(), maxChunkFlag(), limitFlag()}, flags...),
		Action: func(ctx *cli.Context) error {
			s := &source{kind: kind, paths: ctx.Args().Slice()}
			maxChunk, err := parseSize[int64](ctx, "max-chunk")
			switch {
			case err != nil:
				return err
			case len(s.paths) == 0 && (kind == "files" || kind == "range-of"):
				return usageErrorf("from-%s: missing %s", name, args)
			case len(s.paths) > 1 && kind == "range-of":
				return usageErrorf("from-%s takes one argument, got %d", name, len(s.paths))
			case len(s.paths) == 0:
				s.paths = []string{"-"}
			}
			if err := s.parse(ctx, ""); err != nil {
				return err
			}
			limit, err := parseLimit(ctx)
			if err != nil {
				return err
			}
			return emitChunks(ctx, c, func(soft context.Context, files *resultFiles, w *chunks.Writer) error {
				s.files.Except = append(files.places(), ours("")...)
				return s.write(soft, c, w, maxChunk, limit)
			})
		},
	}
}

var fromExamples = map[string]string{
	"lines":   "wasm-jobs chunks from-lines --lines 1000 big.txt -o chunks.cbor",
	"jsonl":   "wasm-jobs chunks from-jsonl records.jsonl -o chunks.cbor",
	"csv":     "wasm-jobs chunks from-csv table.csv -o chunks.cbor",
	"parquet": "wasm-jobs chunks from-parquet --select name,age people.parquet -o chunks.cbor",
	"arrow":   "wasm-jobs chunks from-arrow table.arrow -o chunks.cbor",
	"files":   "wasm-jobs chunks from-files photos 'notes/*.txt' --split 16MiB -o chunks.cbor",
	"range":   "wasm-jobs chunks from-range 0-999999 -o chunks.cbor",
}

// write writes the source as a chunk file, or as many of its first chunks as limit
// says; 0 = all.
func (s *source) write(ctx context.Context, c *console, w *chunks.Writer, maxChunk int64, limit int) error {
	seq, closer, err := s.open(c, maxChunk, limit)
	if err != nil {
		return err
	}
	defer closer.Close()
	if err := s.bad.open(); err != nil {
		return err
	}
	count, err := s.copy(ctx, w, seq, limit)
	if err := s.bad.close(err); err != nil {
		return err
	}
	s.bad.say(c, nil)
	if count == 0 {
		warnNoChunks(c, s.name())
	}
	return nil
}

// copy writes the first chunks, and returns their number.
func (s *source) copy(ctx context.Context, w *chunks.Writer, seq sources.Source, limit int) (count int, err error) {
	for item, err := range seq {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			count, err = count+1, w.Write(item)
		}
		if err != nil {
			return count, err
		}
		if count == limit {
			break
		}
	}
	return count, nil
}
