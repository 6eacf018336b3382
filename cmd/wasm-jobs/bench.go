package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

const (
	// benchRounds is how often each thing is measured; medians are shown.
	benchRounds = 5
	// benchChunks bounds the chunks of a job that is measured.
	benchChunks = 2_000_000
	benchBytes  = 256 << 20
)

func benchCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "bench", Usage: "measure what a module costs on this machine",
		UsageText: `wasm-jobs bench [flags] MODULE CHUNKS

Example: wasm-jobs bench square.wasm chunks.cbor

It shows how long the module takes to compile, with and without a cache, to be
instantiated, reset and called; fuel and memory; how many chunks a second 1, 2
and so on workers do; and where the time goes. Nothing is stored. Where there
are fewer chunks than take --time, they are run over and over.`,
		ArgsUsage: "MODULE CHUNKS",
		Flags: append(commandFlags(), []cli.Flag{
			&cli.IntFlag{Name: "workers", Aliases: []string{"j"}, DefaultText: "GOMAXPROCS", Usage: "the most workers that are tried"},
			&cli.DurationFlag{Name: "time", Value: time.Second, Usage: "how long each measurement takes, about"},
			&cli.StringFlag{Name: "context", Usage: "`FILE` with one CBOR item for the module's setup"},
			&cli.Uint64Flag{Name: "seed", Usage: "seed of the guest's random bytes"},
			&cli.StringFlag{Name: "memory", Value: "256MiB", Usage: "limit of a guest's memory"},
			&cli.StringFlag{Name: "id-key", Value: chunks.DefaultIDKey, Usage: "map key that holds a chunk's id; empty = number chunks by position"},
			&cli.StringFlag{Name: "chunk-format", Value: "auto", Usage: "auto, sequence or array"},
			&cli.BoolFlag{Name: "json", Usage: "as JSON, times in seconds"},
		}...),
		Action: func(ctx *cli.Context) error {
			b, err := parseBench(ctx)
			if err != nil {
				return err
			}
			stops := notify(ctx.Context, func() {}, func() {})
			defer stops.end()
			if b.settings.Command, err = b.command.read(stops.soft); err != nil {
				return err
			}
			return b.run(stops.soft, c)
		},
	}
}

// bench is one measuring of a module. Times are in seconds, and medians.
type bench struct {
	module, chunks string
	settings       runtime.Settings
	command        commandOptions
	input          chunks.Options
	workers        int
	time           time.Duration
	json           bool

	wasm []byte
	file *chunks.File
	dir  string // of a cache, empty at the start
}

// benchReport is what it found.
type benchReport struct {
	Module    *runtime.Description `json:"module"`
	Chunks    int                  `json:"chunks"`
	Failed    int                  `json:"failed"` // of those that were called one by one
	Failure   *abi.Failure         `json:"failure,omitempty"`
	Isolation runtime.Isolation    `json:"isolation"`
	Compile   struct {
		Cold float64 `json:"cold"`
		Warm float64 `json:"warm"` // from the cache
	} `json:"compile"`
	Prepare  float64 `json:"prepare"`  // the first instance, with _initialize and setup, and its snapshot
	Instance float64 `json:"instance"` // a call on a new instance, beside the call itself
	Reset    float64 `json:"reset"`
	Call     float64 `json:"call"` // of exec, with its alloc
	Fuel     struct {
		Min    uint64 `json:"min"`
		Median uint64 `json:"median"`
		Max    uint64 `json:"max"`
	} `json:"fuel"` // of a chunk
	Memory uint64      `json:"memory"` // the largest of a guest, in bytes
	Peak   uint64      `json:"peak"`   // of this process, in bytes; 0 = not known
	Scale  []benchRate `json:"scale"`
}

// benchRate is how fast a whole job is.
type benchRate struct {
	Workers int     `json:"workers"`
	Chunks  int     `json:"chunks"`
	Rate    float64 `json:"rate"`    // chunks a second
	Gain    float64 `json:"gain"`    // over one worker
	Seconds float64 `json:"seconds"` // of the job
	Scan    float64 `json:"scan"`    // of them, where they go
	Prepare float64 `json:"prepare"`
	Calls   float64 `json:"calls"` // resets and calls, as measured one by one just before, shared by the workers
	Host    float64 `json:"host"`  // what execution takes beside them
	Fold    float64 `json:"fold"`  // calls of aggregate and merge, those beside execution shared by the workers
}

func parseBench(ctx *cli.Context) (*bench, error) {
	if ctx.NArg() != 2 {
		return nil, refuse("bench takes MODULE and CHUNKS, and %d arguments are given", ctx.NArg())
	}
	b := &bench{
		module: ctx.Args().Get(0), chunks: ctx.Args().Get(1), workers: ctx.Int("workers"), time: ctx.Duration("time"), json: ctx.Bool("json"),
		settings: runtime.Settings{Seed: ctx.Uint64("seed"), Timeout: 30 * time.Second, FoldTimeout: 10 * time.Minute},
		input:    chunks.Options{IDKey: ctx.String("id-key"), NoIDKey: ctx.String("id-key") == ""},
	}
	var err error
	switch {
	case isSet(ctx, "workers") && b.workers < 1:
		return nil, refuse("--workers %d: 1 or more are needed", b.workers)
	case b.time <= 0 || b.time > time.Hour:
		return nil, refuse("--time %v is not between 0 and an hour", b.time)
	}
	if b.workers == 0 {
		b.workers = goruntime.GOMAXPROCS(0)
	}
	if b.input.Format, err = chunks.ParseFormat(ctx.String("chunk-format")); err != nil {
		return nil, refuse("--chunk-format: %w", err)
	}
	if b.command, err = parseCommand(ctx); err != nil {
		return nil, err
	}
	if b.settings.Memory, err = parseSize[uint64](ctx, "memory"); err != nil {
		return nil, err
	}
	if path := ctx.String("context"); path != "" {
		if b.settings.Context, err = readContext(path); err != nil {
			return nil, err
		}
	}
	b.wasm, err = readModule(b.module)
	return b, err
}

func (b *bench) run(ctx context.Context, c *console) (err error) {
	if b.dir, err = os.MkdirTemp("", "wasm-jobs-bench-*"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if b.chunks == "-" {
		b.file, err = chunks.Spool(ctx, c.in, b.input)
	} else {
		b.file, err = chunks.Open(ctx, b.chunks, b.input)
	}
	if err != nil {
		return interruptedScan(ctx, err)
	}
	defer b.file.Close()
	if b.file.Len() == 0 {
		return refuse("%s: empty: at least one chunk is needed", b.chunks)
	}
	r := &benchReport{Chunks: b.file.Len()}
	err = b.measure(ctx, c, r)
	switch _, refused := errors.AsType[*runtime.RefusedError](err); {
	case refused:
		return fmt.Errorf("%s: %w", b.module, err)
	case err != nil:
		return interruptedScan(ctx, err)
	case b.json:
		return written(writeJSON(c.out, r))
	}
	return written(r.print(c.out))
}

func (b *bench) measure(ctx context.Context, c *console, r *benchReport) error {
	tell := func(what string) { fmt.Fprintf(c.err, "wasm-jobs: measuring %s\n", what) }
	tell("compiling")
	modules, err := b.compile(ctx, r)
	if err != nil {
		return err
	}
	defer modules.Close(context.WithoutCancel(ctx))
	tell("calls")
	fresh, err := b.calls(ctx, modules, r)
	if err != nil {
		return err
	}
	defer fresh.close()
	job, err := b.writeJob(ctx, r)
	if err != nil {
		return err
	}
	for _, workers := range benchWorkers(b.workers) {
		tell(fmt.Sprintf("%d workers", workers))
		if err := b.scale(ctx, modules, fresh, job, workers, r); err != nil {
			return err
		}
	}
	r.Peak = peakMemory()
	return nil
}

// benchWorkers are 1, 2, 4 and so on, up to the most.
func benchWorkers(most int) (all []int) {
	for n := 1; n < most; n *= 2 {
		all = append(all, n)
	}
	return append(all, most)
}

// compile compiles the module without and with what is in the cache, and
// returns the last runtime.
func (b *bench) compile(ctx context.Context, r *benchReport) (*runtime.Runtime, error) {
	var last *runtime.Runtime
	var times []float64
	for round := range 1 + benchRounds {
		if last != nil {
			if err := last.Close(ctx); err != nil {
				return nil, err
			}
		}
		var err error
		if last, err = runtime.New(ctx, runtime.Config{CacheDir: b.dir}); err != nil {
			return nil, err
		}
		start := time.Now()
		module, err := last.Compile(ctx, b.wasm, runtime.Options{})
		if err != nil {
			return nil, errors.Join(err, last.Close(context.WithoutCancel(ctx)))
		}
		took := time.Since(start).Seconds()
		if r.Module = module.Description(); round == 0 {
			r.Compile.Cold = took
		} else {
			times = append(times, took)
		}
	}
	r.Compile.Warm = median(times)
	return last, nil
}

// calls measures calls one by one: on fresh state, on that of the call before,
// and on new instances. It returns the caller of the first.
func (b *bench) calls(ctx context.Context, modules *runtime.Runtime, r *benchReport) (fresh *caller, err error) {
	module, err := modules.Compile(ctx, b.wasm, runtime.Options{})
	if err != nil {
		return nil, err
	}
	var prepared []float64
	var callers []*caller
	defer func() {
		for i, call := range callers {
			if i > 0 || err != nil {
				call.close()
			}
		}
	}()
	for _, mode := range []runtime.Isolation{runtime.IsolationReset, runtime.IsolationNone, runtime.IsolationInstance} {
		settings := b.settings
		settings.Isolation = mode
		start := time.Now()
		pool, err := module.Prepare(ctx, settings)
		if err != nil {
			return nil, err
		}
		prepared = append(prepared, time.Since(start).Seconds())
		callers = append(callers, &caller{bench: b, pool: pool, instance: pool.Lease(nil)})
	}
	r.Isolation = callers[0].pool.Isolation()
	if err := b.rounds(ctx, callers, r); err != nil {
		return nil, err
	}
	r.Prepare = median(prepared)
	reset, kept, renewed := median(callers[0].times), median(callers[1].times), median(callers[2].times)
	r.Call, r.Reset, r.Instance = kept, max(0, reset-kept), max(0, renewed-kept)
	if r.Isolation == runtime.IsolationInstance { // no state can be kept either
		r.Call, r.Reset, r.Instance = reset, 0, 0
	} else if r.Module.Command { // which cannot do without a reset
		r.Call, r.Reset, r.Instance = reset, 0, max(0, renewed-reset)
	}
	return callers[0], nil
}

func (b *bench) rounds(ctx context.Context, callers []*caller, r *benchReport) error {
	if err := callers[0].survey(ctx, r); err != nil {
		return err
	}
	for range benchRounds {
		for _, call := range callers {
			if err := call.round(ctx, b.time/benchRounds/time.Duration(len(callers))); err != nil {
				return err
			}
		}
	}
	return nil
}

// caller calls one instance with one chunk after another.
type caller struct {
	bench    *bench
	pool     *runtime.Pool
	instance *runtime.Instance
	times    []float64 // of a call, one for each round
	next     int       // chunk
	output   []byte
}

func (c *caller) close() {
	c.instance.Release()
	_ = c.pool.Close() // closing cannot fail
}

// survey calls as many chunks as there is time for, and looks at fuel and
// failures.
func (c *caller) survey(ctx context.Context, r *benchReport) error {
	var fuels []uint64
	_, err := c.some(ctx, c.bench.time/2, c.bench.file.Len(), func(fuel uint64, failure *abi.Failure) {
		if failure == nil {
			fuels = append(fuels, fuel)
			return
		}
		if r.Failed++; r.Failure == nil {
			r.Failure = failure
		}
	})
	if err == nil && len(fuels) == 0 {
		return &exitError{exitFailed, fmt.Errorf("no chunk succeeds: %w", r.Failure)}
	}
	slices.Sort(fuels)
	if len(fuels) > 0 {
		r.Fuel.Min, r.Fuel.Median, r.Fuel.Max = fuels[0], fuels[len(fuels)/2], fuels[len(fuels)-1]
	}
	return err
}

// round calls chunks for some time, from the first one on.
func (c *caller) round(ctx context.Context, d time.Duration) error {
	c.next = 0
	start := time.Now()
	n, err := c.some(ctx, d, 1<<30, func(uint64, *abi.Failure) {})
	if n > 0 {
		c.times = append(c.times, time.Since(start).Seconds()/float64(n))
	}
	return err
}

// some calls at most that many chunks, and at least one, until the time is over.
func (c *caller) some(ctx context.Context, d time.Duration, most int, each func(fuel uint64, failure *abi.Failure)) (n int, err error) {
	const atOnce = 256 // chunks that are read together
	end := time.Now().Add(d)
	file := c.bench.file
	for n < most && (n == 0 || time.Now().Before(end)) {
		from := c.next % file.Len()
		to := min(from+atOnce, file.Len())
		err := file.Read(ctx, from, to, func(_ int, chunk []byte) error {
			if n > 0 && (n == most || n%16 == 0 && time.Now().After(end)) {
				return errEnough
			}
			var fuel uint64
			var err error
			c.output, fuel, err = c.instance.Call(ctx, abi.ExportExec, chunk, c.output[:0])
			failure, failed := errors.AsType[*abi.Failure](err)
			if err != nil && !failed {
				return err
			}
			n++
			c.next++
			each(fuel, failure)
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			return n, err
		}
	}
	return n, nil
}

var errEnough = errors.New("enough")

// writeJob writes the chunks of a job that takes about as long as it should, and
// returns the file: those of the file, over and over.
func (b *bench) writeJob(ctx context.Context, r *benchReport) (path string, err error) {
	path = filepath.Join(b.dir, "chunks.cbor")
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	w := bufio.NewWriter(file)
	n, size := min(max(b.time.Seconds()/(r.Call+r.Reset), 1), benchChunks), 0
	for n >= 1 && size < benchBytes {
		err := b.file.Read(ctx, 0, int(min(n, float64(b.file.Len()))), func(_ int, chunk []byte) error {
			if n, size = n-1, size+len(chunk); size > benchBytes && size > len(chunk) {
				return errEnough
			}
			_, err := w.Write(chunk)
			return err
		})
		if err != nil && !errors.Is(err, errEnough) {
			return "", err
		}
	}
	return path, w.Flush()
}

// scale runs the job with a number of workers. What a call takes is measured
// again before each, since a machine is not always as fast.
func (b *bench) scale(ctx context.Context, modules *runtime.Runtime, fresh *caller, job string, workers int, r *benchReport) error {
	coordinator, err := host.New(ctx, host.Config{Workers: workers, Engine: host.NewEngine(modules)})
	if err != nil {
		return err
	}
	var all []benchRate
	for range benchRounds {
		if err := fresh.round(ctx, b.time/benchRounds); err != nil {
			return err
		}
		start := time.Now()
		scanned, err := chunks.Open(ctx, job, chunks.Options{NoIDKey: true, Format: chunks.Sequence})
		if err != nil {
			return err
		}
		scan := time.Since(start).Seconds()
		res, err := coordinator.Run(ctx, &host.Job{Module: b.wasm, Chunks: scanned, Settings: b.settings})
		err = errors.Join(err, scanned.Close())
		if err != nil {
			return err
		}
		all = append(all, rateOf(&res.Report, scan, fresh.times[len(fresh.times)-1]))
		r.Memory = max(r.Memory, res.Report.Instances.Memory)
	}
	slices.SortFunc(all, func(a, b benchRate) int { return int(a.Seconds*1e9) - int(b.Seconds*1e9) })
	rate := all[len(all)/2]
	if rate.Gain = 1; len(r.Scale) > 0 {
		rate.Gain = rate.Rate / r.Scale[0].Rate
	}
	r.Scale = append(r.Scale, rate)
	return nil
}

// rateOf says where the time of a job went, of which a call takes so long.
func rateOf(report *host.Report, scan, call float64) benchRate {
	p := report.Phases
	workers := float64(report.Workers)
	folding := min(p.FoldCalls/workers, p.Execute)
	rate := benchRate{
		Workers: report.Workers, Chunks: report.Chunks.Total, Seconds: scan + p.Compile + p.Prepare + p.Execute + p.Fold,
		Scan: scan, Prepare: p.Compile + p.Prepare, Fold: p.Fold + folding,
		Calls: min(call*float64(report.Attempts)/workers, p.Execute-folding),
	}
	rate.Host = p.Execute - rate.Calls - folding
	rate.Rate = float64(rate.Chunks) / rate.Seconds
	return rate
}

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

func (r *benchReport) print(out io.Writer) error {
	t := newTable(out)
	row := t.field
	row("compile, without a cache", "%s", duration(r.Compile.Cold))
	row("compile, from the cache", "%s", duration(r.Compile.Warm))
	row("first instance and snapshot", "%s", duration(r.Prepare))
	if r.Isolation == runtime.IsolationInstance {
		row("call, with a new instance", "%s", duration(r.Call))
	} else if r.Module.Command {
		row("call, with the reset before it", "%s", duration(r.Call))
		row("more with a new instance instead", "%s", duration(r.Instance))
	} else {
		row("call", "%s", duration(r.Call))
		row("reset before it", "%s", duration(r.Reset))
		row("a new instance instead", "%s", duration(r.Instance))
	}
	row("fuel of a chunk", "%d (%d to %d)", r.Fuel.Median, r.Fuel.Min, r.Fuel.Max)
	row("memory of a guest, at most", "%s", humanize.IBytes(r.Memory))
	if r.Peak > 0 {
		row("memory of this process, at most", "%s", humanize.IBytes(r.Peak))
	}
	if r.Failed > 0 {
		row("failed", "%d chunks, the first with %v", r.Failed, r.Failure)
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

// duration shows seconds with three digits.
func duration(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Microsecond:
		return d.String()
	case d < time.Millisecond:
		return fmt.Sprintf("%.3g µs", seconds*1e6)
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", seconds*1e3)
	}
	return fmt.Sprintf("%.3g s", seconds)
}
