package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/atomicfile"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/host/outputs"
)

func outputCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "output", Usage: "print or write a job's outputs, or its aggregate",
		UsageText: "wasm-jobs output [flags] JOB [CHUNK]\n\nExample: wasm-jobs output 3f2a > outputs.jsonl\n         wasm-jobs output 3f2a -o outputs.cbor\n         wasm-jobs output 3f2a 17 -f diag",
		ArgsUsage: "JOB [CHUNK]",
		Flags: []cli.Flag{
			storeFlag(), &cli.BoolFlag{Name: "json", Usage: "-f json"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write CBOR, or the bytes of --concat, to `FILE` (- = stdout); all outputs of a job make a chunk file, as with run --outputs"},
			&cli.StringFlag{Name: "outputs", Usage: "write all outputs to `FILE`, as run --outputs does: CBOR, .jsonl, .csv, or a directory with a file for each"},
			&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "json", Usage: "format on stdout: json, diag or cbor"},
			&cli.BoolFlag{Name: "concat", Usage: "write the bytes of all outputs, which must be byte strings, in id order, as run --concat does"},
			&cli.BoolFlag{Name: "aggregate", Usage: "print the job's aggregate instead of its outputs"},
		},
		Action: func(ctx *cli.Context) error {
			id, err := chunkArgument(ctx, false)
			if err != nil {
				return err
			}
			format := ctx.String("format")
			switch {
			case !slices.Contains([]string{"json", "diag", "cbor"}, format):
				return usageErrorf("invalid --format %q: want json, diag or cbor", format)
			case ctx.Bool("json") && isSet(ctx, "format") && format != "json":
				return usageErrorf("--json and --format %s exclude each other: give one of them", format)
			case id != nil && ctx.Bool("aggregate"):
				return usageErrorf("--aggregate and CHUNK exclude each other: give one of them")
			case isSet(ctx, "outputs") && (id != nil || ctx.Bool("aggregate") || ctx.Bool("concat") || isSet(ctx, "output")):
				return usageErrorf("--outputs excludes CHUNK, --aggregate, --concat and --output: give it without them")
			case ctx.Bool("concat") && (ctx.Bool("json") || isSet(ctx, "format")):
				return usageErrorf("--concat and --format exclude each other: give one of them")
			case ctx.Bool("concat") && ctx.Bool("aggregate"):
				return usageErrorf("--concat and --aggregate exclude each other: give one of them")
			case ctx.Bool("concat"):
				format = concatenated
			}
			return withJob(ctx, c, false, func(_ recordStore, j *journal.Record) error {
				return output(ctx, c, j, id, format)
			})
		},
	}
}

func output(ctx *cli.Context, c *console, j *journal.Record, id *abi.ID, format string) error {
	files := resultFiles{result: ctx.String("output"), outputs: ctx.String("outputs")}
	if err := files.open(c.out); err != nil {
		return err
	}
	defer files.discard()
	c.signals.Cleanup(files.abandon)
	if files.outputs != "" {
		return concluded(files.writeOutputs(jobOutputs(ctx.Context, c, j), nil))
	}
	to := atomicfile.To(c.out)
	if files.result != "" {
		if to = files.targets[files.result]; format != concatenated {
			format = "cbor"
		}
	}
	err := to.Write(func(w *bufio.Writer) error {
		switch {
		case id != nil:
			return writeChunkOutput(ctx.Context, w, j, *id, format)
		case ctx.Bool("aggregate"):
			return writeAggregate(ctx.Context, w, j, format)
		}
		return writeJobOutputs(ctx.Context, c, w, j, format)
	})
	return concluded(err)
}

// concluded returns an error of writing with its exit code, unless it has one.
func concluded(err error) error {
	if _, said := errors.AsType[*exitError](err); said || errors.Is(err, context.Canceled) {
		return err
	}
	return outputError(err)
}

func writeChunkOutput(ctx context.Context, w *bufio.Writer, j *journal.Record, id abi.ID, format string) error {
	chunk, err := j.Chunk(ctx, id)
	switch {
	case errors.Is(err, journal.ErrNoChunk):
		return usageErrorf("%w", err)
	case err != nil:
		return storeError(err)
	case chunk.Output == nil && chunk.Digest != "":
		return &exitError{exitFailed, fmt.Errorf("missing output of chunk %v: it was damaged or deleted; run the job again", id)}
	case chunk.Output == nil:
		return &exitError{exitFailed, fmt.Errorf("chunk %v has no output: it is %s", id, chunk.State)}
	}
	if format == concatenated {
		return writeBytes(w, id, chunk.Output.Output)
	}
	return writeItem(w, chunk.Output.Output, format)
}

func writeAggregate(ctx context.Context, w *bufio.Writer, j *journal.Record, format string) error {
	aggregate, err := j.Aggregate(ctx)
	if err != nil {
		return storeError(err)
	}
	if aggregate == nil {
		return &exitError{exitFailed, fmt.Errorf("job %s has no aggregate", journal.Name(j.Record.ID)[:shortName])}
	}
	return writeItem(w, aggregate, format)
}

// writeJobOutputs writes all outputs of the store. If outputs are missing, it writes
// the others and then returns an error.
func writeJobOutputs(ctx context.Context, c *console, w *bufio.Writer, j *journal.Record, format string) error {
	write := func(all outputs.Seq) error { return writeOutputLines(w, format, all) }
	if format == concatenated {
		write = func(all outputs.Seq) error { return writeConcat(w, all) }
	}
	err := write(jobOutputs(ctx, c, j))
	if _, gone := errors.AsType[*exitError](err); gone {
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return err
}
