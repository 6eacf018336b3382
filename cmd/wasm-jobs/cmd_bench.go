package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	goruntime "runtime"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/guest/bench"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

func benchCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "bench", Usage: "measure the cost of a module on this machine",
		UsageText: `wasm-jobs bench [flags] MODULE CHUNKS

Example: wasm-jobs bench square.wasm chunks.cbor

It measures how long the module takes to compile (with and without a cache), to
instantiate, to reset and to call; fuel and memory; how many chunks a second 1, 2
and more workers execute; and how the time is spent. Nothing is stored. If the
chunks take less than --time, they run repeatedly.`,
		ArgsUsage: "MODULE CHUNKS",
		Flags: append(commandFlags(), []cli.Flag{
			&cli.IntFlag{Name: "workers", Aliases: []string{"j"}, DefaultText: "GOMAXPROCS", Usage: "measure with up to this many workers"},
			&cli.DurationFlag{Name: "time", Value: time.Second, Usage: "approximate duration of each measurement"},
			&cli.StringFlag{Name: "context", Usage: "`FILE` with one CBOR item for the module's setup"},
			&cli.Uint64Flag{Name: "seed", Usage: "seed of the guest's random bytes"},
			&cli.StringFlag{Name: "memory", Value: "256MiB", Usage: "limit of a guest's memory"},
			stackFlag("limit of a guest's nested calls"),
			&cli.StringFlag{Name: "id-key", Value: chunks.DefaultIDKey, Usage: "map key that holds a chunk's id; empty = number chunks by position"},
			&cli.StringFlag{Name: "chunk-format", Value: "auto", Usage: "auto, sequence or array"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON, with times in seconds"},
		}...),
		Action: func(ctx *cli.Context) error {
			o, err := parseBench(ctx)
			if err != nil {
				return err
			}
			if o.settings.Command, err = o.command.read(ctx.Context); err != nil {
				return err
			}
			return runBench(ctx.Context, c, o)
		},
	}
}

// benchOptions are the flags of bench, parsed, with the module.
type benchOptions struct {
	module, chunks string
	settings       runtime.Settings
	command        commandOptions
	input          chunks.Options
	workers        int
	time           time.Duration
	json           bool

	wasm []byte
}

func parseBench(ctx *cli.Context) (*benchOptions, error) {
	if ctx.NArg() != 2 {
		return nil, usageErrorf("bench takes MODULE and CHUNKS, got %s", plural(ctx.NArg(), "argument"))
	}
	o := &benchOptions{
		module: ctx.Args().Get(0), chunks: ctx.Args().Get(1), workers: ctx.Int("workers"), time: ctx.Duration("time"), json: ctx.Bool("json"),
		settings: runtime.Settings{Seed: ctx.Uint64("seed"), Timeout: 30 * time.Second, FoldTimeout: 10 * time.Minute},
		input:    chunks.Options{IDKey: ctx.String("id-key"), NoIDKey: ctx.String("id-key") == ""},
	}
	var err error
	switch {
	case isChosen(ctx, "workers") && o.workers < 1:
		return nil, usageErrorf("invalid --workers %d: want 1 or more", o.workers)
	case o.time <= 0 || o.time > time.Hour:
		return nil, usageErrorf("invalid --time %v: want more than 0, and at most 1h", o.time)
	}
	if o.workers == 0 {
		o.workers = goruntime.GOMAXPROCS(0)
	}
	if o.input.Format, err = chunks.ParseFormat(ctx.String("chunk-format")); err != nil {
		return nil, usageErrorf("--chunk-format: %w", err)
	}
	if o.command, err = parseCommand(ctx); err != nil {
		return nil, err
	}
	if o.settings.Memory, err = parseSize[uint64](ctx, "memory"); err != nil {
		return nil, err
	}
	if o.settings.Stack, err = parseStack(ctx); err != nil {
		return nil, err
	}
	if path := ctx.String("context"); path != "" {
		if o.settings.Context, err = readContext(path); err != nil {
			return nil, err
		}
	}
	o.wasm, err = readModule(o.module)
	return o, err
}

func runBench(ctx context.Context, c *console, o *benchOptions) error {
	file, err := o.open(ctx, c)
	if err != nil {
		return interrupted(ctx, err)
	}
	defer file.Close()
	r, err := bench.Run(ctx, o.wasm, file, bench.Options{
		Settings: o.settings, Time: o.time, Workers: o.workers, Job: o.job,
		Step: func(s bench.Step, workers int) { fmt.Fprintf(c.err, "wasm-jobs: measuring %s\n", stepName(s, workers)) },
	})
	if err != nil {
		return o.explain(ctx, err)
	}
	r.Peak = peakMemory()
	if o.json {
		return outputError(writeJSON(c.out, r))
	}
	return outputError(printBench(c.out, r))
}

func (o *benchOptions) open(ctx context.Context, c *console) (*chunks.File, error) {
	return openChunkFile(ctx, c, o.chunks, o.input)
}

// explain adds the file name and the exit code to an error.
func (o *benchOptions) explain(ctx context.Context, err error) error {
	if errors.Is(err, bench.ErrNoChunks) {
		return usageErrorf("%s: empty: %w", o.chunks, err)
	}
	if _, refused := errors.AsType[*runtime.RefusedError](err); refused {
		return fmt.Errorf("%s: %w", o.module, err)
	}
	err = interrupted(ctx, err)
	if _, failed := errors.AsType[*bench.NoOutputError](err); failed {
		return &exitError{exitFailed, err}
	}
	return err
}

func stepName(s bench.Step, workers int) string {
	if s == bench.Jobs {
		return plural(workers, "worker")
	}
	return string(s)
}

// job runs a whole job through a coordinator, which the package bench does not import.
func (o *benchOptions) job(ctx context.Context, modules *runtime.Runtime, path string, workers int) (t bench.JobTimes, err error) {
	coordinator, err := host.New(ctx, host.Config{Workers: workers, Engine: host.NewEngine(modules)})
	if err != nil {
		return t, err
	}
	start := time.Now()
	file, err := chunks.Open(ctx, path, chunks.Options{NoIDKey: true, Format: chunks.Sequence})
	if err != nil {
		return t, err
	}
	scan := time.Since(start).Seconds()
	res, err := coordinator.Run(ctx, &host.Job{Module: o.wasm, Chunks: file, Settings: o.settings})
	if err := errors.Join(err, file.Close()); err != nil {
		return t, err
	}
	r, p := &res.Report, &res.Report.Phases
	return bench.JobTimes{
		Workers: r.Workers, Chunks: r.Chunks.Total, Attempts: r.Attempts, Scan: scan, Compile: p.Compile, Prepare: p.Prepare,
		Execute: p.Execute, Fold: p.Fold, FoldCalls: p.FoldCalls, Memory: r.Instances.Memory,
	}, nil
}

func printBench(out io.Writer, r *bench.Report) error {
	t := newTable(out)
	row := t.field
	row("compile, without a cache", "%s", seconds(r.Compile.Cold))
	row("compile, from the cache", "%s", seconds(r.Compile.Warm))
	row("first instance and snapshot", "%s", seconds(r.Prepare))
	if r.Isolation == runtime.IsolationInstance {
		row("call, with a new instance", "%s", seconds(r.Call))
	} else if r.Module.Command {
		row("call, with the reset before it", "%s", seconds(r.Call))
		row("more with a new instance instead", "%s", seconds(r.Instance))
	} else {
		row("call", "%s", seconds(r.Call))
		row("reset before it", "%s", seconds(r.Reset))
		row("a new instance instead", "%s", seconds(r.Instance))
	}
	row("fuel of a chunk", "%d (%d to %d)", r.Fuel.Median, r.Fuel.Min, r.Fuel.Max)
	row("memory of a guest, at most", "%s", humanize.IBytes(r.Memory))
	if r.Peak > 0 {
		row("memory of this process, at most", "%s", humanize.IBytes(r.Peak))
	}
	if r.Failed > 0 {
		row("failed", "%s, the first with %s", plural(r.Failed, "chunk"), errorLine(r.Failure))
	}
	t.row("")
	t.row("workers", "chunks/s", "gain", "of a chunk's time: calls", "host", "scan", "start", "fold")
	for _, s := range r.Scale {
		share := func(part float64) string { return fmt.Sprintf("%.0f%%", 100*part/s.Seconds) }
		t.row(s.Workers, fmt.Sprintf("%.0f", s.Rate), fmt.Sprintf("%.2f", s.Gain),
			share(s.Calls), share(s.Host), share(s.Scan), share(s.Prepare), share(s.Fold))
	}
	return t.flush()
}

// seconds formats a time with three digits.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d < time.Microsecond:
		return d.String()
	case d < time.Millisecond:
		return fmt.Sprintf("%.3g µs", s*1e6)
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", s*1e3)
	}
	return fmt.Sprintf("%.3g s", s)
}
