package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

// runOptions are the flags of run, parsed.
type runOptions struct {
	module, chunks string
	source         *source // nil where chunks is a chunk file
	context        string
	input          chunks.Options
	selection      selection
	options        runtime.Options
	settings       runtime.Settings
	retry          host.RetryPolicy
	workers        int
	maxFailures    failureLimit
	partial        bool
	verify         twice
	grace          time.Duration
	format         string
	wasi           commandOptions
	files          resultFiles
	progress       string
	logLevel       int32
	store          string // directory; "" = memory
	name           string
	meta           map[string]string
	command        []byte    // how run was called
	again          *redriven // nil where the whole job is run
}

func runFlags() []cli.Flag {
	return append(append(sourceFlags(), commandFlags()...), []cli.Flag{
		&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write the result as CBOR to `FILE` (- = stdout)"},
		&cli.StringFlag{Name: "outputs", Usage: "write every output to `FILE`: a CBOR sequence that is itself a chunk file, JSON lines where it ends in .jsonl, CSV in .csv; to a directory, or a path that ends in a slash, a file for each"},
		&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "json", Usage: "how the result goes to stdout: json, diag or cbor"},
		&cli.BoolFlag{Name: "concat", Usage: "the result is the bytes of all outputs, which are byte strings, one after another in id order"},
		&cli.IntFlag{Name: "workers", Aliases: []string{"j"}, DefaultText: "GOMAXPROCS", Usage: "instances that run at once"},
		&cli.IntFlag{Name: "retries", Value: 3, Usage: "retries after the first attempt"},
		&cli.StringFlag{Name: "retry-on", Value: joinClasses(host.DefaultRetryClasses()), Usage: "`CLASSES` of failure that are retried, or none"},
		&cli.BoolFlag{Name: "retry-deterministic", Usage: "retry also after the same trap twice"},
		&cli.DurationFlag{Name: "backoff", Value: 50 * time.Millisecond, Usage: "time before the first retry; it doubles"},
		&cli.DurationFlag{Name: "backoff-max", Value: 5 * time.Second, Usage: "the longest time before a retry"},
		&cli.DurationFlag{Name: "timeout", Value: 30 * time.Second, Usage: "limit of one attempt; 0 = none"},
		&cli.DurationFlag{Name: "fold-timeout", Value: 10 * time.Minute, Usage: "limit of one setup, aggregate or merge; 0 = none"},
		&cli.Uint64Flag{Name: "fuel", DefaultText: "off", Usage: "limit of executed instructions of one call of exec"},
		&cli.StringFlag{Name: "memory", Value: "256MiB", Usage: "limit of a guest's memory"},
		&cli.StringFlag{Name: "max-output", Value: "16MiB", Usage: "limit of one output"},
		&cli.StringFlag{Name: "max-aggregate", Value: "256MiB", Usage: "limit of what aggregate or merge returns"},
		&cli.StringFlag{Name: "max-chunk", Value: "64MiB", Usage: "limit of one chunk"},
		&cli.IntFlag{Name: "max-requeues", Value: 100, Usage: "uncounted returns of one chunk to the queue"},
		&cli.StringFlag{Name: "context", Usage: "`FILE` with one CBOR item for the module's setup"},
		&cli.Uint64Flag{Name: "seed", Usage: "seed of the guest's random bytes"},
		&cli.StringFlag{Name: "id-key", Value: chunks.DefaultIDKey, Usage: "map key that holds a chunk's id; empty = number chunks by position"},
		&cli.StringFlag{Name: "chunk-format", Value: "auto", Usage: "auto, sequence or array"},
		&cli.StringFlag{Name: "range", Usage: "run only the chunks whose integer ids are in `RANGES`, such as 0-99,120"},
		&cli.StringFlag{Name: "ids", Usage: "run only the chunks with `IDS`, such as a,b,7; quotes make a text of anything: '\"7\",\"a,b\"'"},
		&cli.StringFlag{Name: "isolation", Value: "reset", Usage: "how a call gets fresh state: reset, or a new instance"},
		&cli.BoolFlag{Name: "no-metering", Usage: "neither fuel nor time limits inside guests; one that loops then holds its worker, and the host's garbage collector"},
		&cli.BoolFlag{Name: "native-nans", Usage: "leave the bits of NaNs as this machine makes them; part of what names an output"},
		&cli.StringFlag{Name: "store", DefaultText: "the user's cache directory", Usage: "keep outputs in `DIR`, and take from it what is finished"},
		&cli.BoolFlag{Name: "no-store", Usage: "keep outputs in memory, and only until the command ends"},
		&cli.StringFlag{Name: "name", DefaultText: "the module's file name", Usage: "name of the job in the store"},
		&cli.StringSliceFlag{Name: "meta", Usage: "`KEY=VALUE` that is recorded with the job; may be given again"},
		&cli.StringFlag{Name: "verify", Usage: "execute `P%` of the chunks twice, and stop where the two differ"},
		&cli.StringFlag{Name: "verify-engine", Value: "compiler", Usage: "what executes them the second time: compiler or interpreter"},
		&cli.StringFlag{Name: "max-failures", DefaultText: "unlimited", Usage: "stop once more than `N|P%` chunks have failed"},
		&cli.BoolFlag{Name: "fail-fast", Usage: "stop at the first failed chunk: --max-failures 0"},
		&cli.BoolFlag{Name: "partial", Usage: "aggregate what there is where chunks failed"},
		&cli.StringFlag{Name: "dead-letter", Usage: "write the failed chunks to `FILE`, a chunk file"},
		&cli.StringFlag{Name: "bundle", Usage: "write a file for each failed chunk to `DIR`, with all that wasm-jobs replay needs to run it again"},
		&cli.StringFlag{Name: "report", Usage: "write a JSON report to `FILE`"},
		&cli.StringFlag{Name: "receipt", Usage: "write the job's receipt to `FILE`, where all of it succeeded: what it was and what it gave, the same bytes each time"},
		&cli.StringFlag{Name: "events", Usage: "write events as JSON lines to `FILE`"},
		&cli.DurationFlag{Name: "grace", Value: 10 * time.Second, Usage: "time that running attempts get after a first SIGINT"},
		&cli.StringFlag{Name: "progress", Value: "auto", Usage: "auto, plain or none"},
		&cli.StringFlag{Name: "log-level", Value: "off", Usage: "show what guests log: off, debug, info, warn or error"},
	}...)
}

func runCommand(c *console) *cli.Command { return runAgain(c, nil) }

// runAgain is run, of the chunks that are redriven where again is not nil.
func runAgain(c *console, again *redriven) *cli.Command {
	return &cli.Command{
		Name: "run", Usage: "run a module over the chunks of a file",
		UsageText: `wasm-jobs run [flags] MODULE CHUNKS
       wasm-jobs run [flags] MODULE --lines|--jsonl|--csv|--files|--range-of ...

Example: wasm-jobs run square.wasm chunks.cbor
         cat chunks.cbor | wasm-jobs run -j 4 --report report.json square.wasm -
         wasm-jobs run wordcount.wasm --lines big.txt --chunk-lines 1000

CHUNKS is a CBOR sequence of chunks, or one CBOR array; - is standard input.
Instead, chunks can be made of lines, JSON lines, CSV, files or a range, as by
wasm-jobs chunks.
--range and --ids make a job of some of them: of those that either selects.

` + exitHelp,
		ArgsUsage: "MODULE [CHUNKS]",
		Flags:     runFlags(),
		Action: func(ctx *cli.Context) error {
			o, err := parseRun(ctx)
			if err != nil {
				return err
			}
			o.again = again
			return run(ctx.Context, c, o)
		},
	}
}

func parseRun(ctx *cli.Context) (*runOptions, error) {
	made, err := parseSource(ctx)
	switch {
	case err != nil:
		return nil, err
	case made != nil && ctx.NArg() != 1:
		return nil, refuse("run takes MODULE and --%s, or MODULE and CHUNKS, and %d arguments are given besides --%s", made.kind, ctx.NArg(), made.kind)
	case made == nil && ctx.NArg() != 2:
		return nil, refuse("run takes MODULE and CHUNKS, and %d arguments are given; --lines, --jsonl, --csv, --files and --range-of make chunks of other files", ctx.NArg())
	}
	o := &runOptions{
		module: ctx.Args().Get(0), chunks: ctx.Args().Get(1), source: made, context: ctx.String("context"),
		workers: ctx.Int("workers"), partial: ctx.Bool("partial"), grace: ctx.Duration("grace"),
		format: ctx.String("format"), progress: ctx.String("progress"),
		files: resultFiles{
			concat: ctx.Bool("concat"), result: ctx.String("output"), outputs: ctx.String("outputs"),
			deadLetter: ctx.String("dead-letter"), report: ctx.String("report"), receipt: ctx.String("receipt"), events: ctx.String("events"),
			bundle: ctx.String("bundle"),
		},
		retry: host.RetryPolicy{
			Retries: ctx.Int("retries"), Backoff: ctx.Duration("backoff"), BackoffMax: ctx.Duration("backoff-max"),
			MaxRequeues: ctx.Int("max-requeues"), Deterministic: ctx.Bool("retry-deterministic"),
		},
		options:  runtime.Options{NoMetering: ctx.Bool("no-metering"), NativeNaNs: ctx.Bool("native-nans")},
		settings: runtime.Settings{Seed: ctx.Uint64("seed"), Fuel: ctx.Uint64("fuel"), Isolation: runtime.Isolation(ctx.String("isolation")), Timeout: ctx.Duration("timeout"), FoldTimeout: ctx.Duration("fold-timeout")},
	}
	return o, errors.Join(o.parseChoices(ctx), o.parseSizes(ctx), o.parseNumbers(ctx), o.parseStore(ctx),
		o.selection.parse(ctx), o.verify.parse(ctx), o.parseRecord(ctx))
}

// parseRecord reads what is recorded of the job.
func (o *runOptions) parseRecord(ctx *cli.Context) (err error) {
	if o.name = ctx.String("name"); o.name == "" {
		base := filepath.Base(o.module)
		o.name = strings.TrimSuffix(base, filepath.Ext(base))
	}
	for _, pair := range ctx.StringSlice("meta") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return refuse("--meta %q is no KEY=VALUE", pair)
		}
		if o.meta == nil {
			o.meta = map[string]string{}
		}
		o.meta[key] = value
	}
	o.command, err = submitted(ctx)
	return err
}

func (o *runOptions) parseChoices(ctx *cli.Context) (err error) {
	if !slices.Contains([]string{"json", "diag", "cbor"}, o.format) {
		return refuse("--format %q is none of json, diag, cbor", o.format)
	}
	if o.files.concat && isSet(ctx, "format") {
		return refuse("--concat and --format exclude each other: give one of them")
	}
	if o.wasi, err = parseCommand(ctx); err != nil {
		return err
	}
	if !slices.Contains([]string{"reset", "instance"}, string(o.settings.Isolation)) {
		return refuse("--isolation %q is none of reset, instance", o.settings.Isolation)
	}
	if o.options.NoMetering && o.settings.Fuel > 0 {
		return refuse("--fuel needs metering, and --no-metering turns it off: give one of them")
	}
	if !slices.Contains([]string{"auto", "plain", "none"}, o.progress) {
		return refuse("--progress %q is none of auto, plain, none", o.progress)
	}
	levels := map[string]int32{"off": 127, "debug": abi.LogDebug, "info": abi.LogInfo, "warn": abi.LogWarn, "error": abi.LogError}
	level, ok := levels[ctx.String("log-level")]
	if !ok {
		return refuse("--log-level %q is none of off, debug, info, warn, error", ctx.String("log-level"))
	}
	o.logLevel = level
	o.input.IDKey, o.input.NoIDKey = ctx.String("id-key"), ctx.String("id-key") == ""
	if o.input.Format, err = chunks.ParseFormat(ctx.String("chunk-format")); err != nil {
		return refuse("--chunk-format: %w", err)
	}
	o.retry.Classes, err = parseClasses(ctx.String("retry-on"))
	return err
}

func (o *runOptions) parseStore(ctx *cli.Context) (err error) {
	switch {
	case ctx.Bool("no-store") && isSet(ctx, "store"):
		return refuse("--store and --no-store exclude each other: give one of them")
	case ctx.Bool("no-store"):
		return nil
	}
	if o.store, err = storeDir(ctx); err != nil {
		return fmt.Errorf("%w; --no-store keeps outputs in memory", err)
	}
	return nil
}

func parseClasses(s string) ([]abi.Class, error) {
	classes := []abi.Class{}
	if s == "" || s == "none" {
		return classes, nil
	}
	for name := range strings.SplitSeq(s, ",") {
		class := abi.Class(strings.TrimSpace(name))
		if !slices.Contains(abi.Classes(), class) {
			return nil, refuse("--retry-on: %q is none of %s", name, joinClasses(abi.Classes()))
		}
		classes = append(classes, class)
	}
	return classes, nil
}

func joinClasses(classes []abi.Class) string {
	names := make([]string, len(classes))
	for i, class := range classes {
		names[i] = string(class)
	}
	return strings.Join(names, ",")
}

func (o *runOptions) parseSizes(ctx *cli.Context) (err error) {
	for name, to := range map[string]*uint64{
		"memory": &o.settings.Memory, "max-output": &o.settings.MaxOutput, "max-aggregate": &o.settings.MaxAggregate,
	} {
		if *to, err = parseSize[uint64](ctx, name); err != nil {
			return err
		}
	}
	o.input.MaxChunk, err = parseSize[int64](ctx, "max-chunk")
	return err
}

func (o *runOptions) parseNumbers(ctx *cli.Context) (err error) {
	if isSet(ctx, "workers") && o.workers < 1 {
		return refuse("--workers %d: 1 or more are needed", o.workers)
	}
	for _, name := range []string{"retries", "max-requeues"} {
		if ctx.Int(name) < 0 {
			return refuse("--%s %d is negative", name, ctx.Int(name))
		}
	}
	for _, name := range []string{"backoff", "backoff-max", "timeout", "fold-timeout", "grace"} {
		if ctx.Duration(name) < 0 {
			return refuse("--%s %s is negative", name, ctx.Duration(name))
		}
	}
	if ctx.Bool("fail-fast") {
		if isSet(ctx, "max-failures") {
			return refuse("--fail-fast is --max-failures 0: give one of them")
		}
		o.maxFailures = failureLimit{set: true}
		return nil
	}
	o.maxFailures, err = parseFailureLimit(ctx.String("max-failures"))
	return err
}

// failureLimit is a number of chunks, or a share of them.
type failureLimit struct {
	set     bool
	count   int
	percent float64 // where percents
	share   bool
}

func parseFailureLimit(s string) (l failureLimit, err error) {
	if s == "" {
		return l, nil
	}
	l.set = true
	if number, isShare := strings.CutSuffix(s, "%"); isShare {
		l.share = true
		if l.percent, err = strconv.ParseFloat(number, 64); err == nil && l.percent >= 0 && l.percent <= 100 {
			return l, nil
		}
	} else if l.count, err = strconv.Atoi(s); err == nil && l.count >= 0 {
		return l, nil
	}
	return l, refuse("--max-failures %q is neither a number of chunks nor a percentage such as 5%%", s)
}

// of returns the limit for a number of chunks; nil = none.
func (l failureLimit) of(total int) *int {
	switch {
	case !l.set:
		return nil
	case l.share:
		count := int(float64(total) * l.percent / 100)
		return &count
	}
	return &l.count
}

// cacheDir returns where this program keeps what saves work: XDG_CACHE_HOME
// where that is set, on every system.
func cacheDir() (string, error) {
	dir := os.Getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(dir) {
		var err error
		if dir, err = os.UserCacheDir(); err != nil {
			return "", err
		}
	}
	return filepath.Join(dir, "wasm-jobs"), nil
}

// compiledDir returns where compiled modules are kept, or "".
func compiledDir() string {
	dir, err := cacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "compiled")
}

// run runs one job from files to files.
func run(ctx context.Context, c *console, o *runOptions) error {
	stops := notify(ctx, func() {
		fmt.Fprintf(c.err, "wasm-jobs: stopping: running attempts get %v; once more stops at once\n", o.grace)
	}, func() {
		o.files.abandon()
		fmt.Fprintln(c.err, "wasm-jobs: "+host.ErrInterrupted.Error())
	})
	defer stops.end()
	job := &host.Job{Options: o.options, Settings: o.settings, Retry: o.retry, Partial: o.partial, Stop: stops.soft.Done(), Grace: o.grace}
	o.describe(job)
	var err error
	if job.Module, err = readModule(o.module); err != nil {
		return err
	}
	modules, err := runtime.New(ctx, runtime.Config{CacheDir: compiledDir()})
	if err != nil {
		return err
	}
	engine := host.NewEngine(modules)
	defer engine.Close(context.WithoutCancel(ctx))
	if job.Admitted, err = engine.Admit(stops.soft, job.Module, job.Options); err != nil {
		return o.ofModule(interruptedScan(stops.soft, err))
	}
	if err := o.again.checkModule(o.module, job.Module); err != nil {
		return err
	}
	if o.context != "" {
		if job.Settings.Context, err = readContext(o.context); err != nil {
			return err
		}
	}
	if job.Settings.Command, err = o.wasi.read(stops.soft); err != nil {
		return err
	}
	if err := o.checkReceipt(job); err != nil {
		return err
	}
	if err := job.Admitted.Fits(job.Settings); err != nil {
		return o.ofModule(err)
	}
	if err := errors.Join(o.checkConcat(job.Admitted), o.again.checkDirs(&o.wasi, &job.Settings.Command)); err != nil {
		return err
	}
	if err := o.files.open(c.out); err != nil {
		return err
	}
	defer o.files.discard()
	screen := newScreen(c, o)
	defer screen.close()
	scanStart := time.Now()
	file, err := openChunks(stops.soft, c, o, screen)
	if err != nil {
		return interruptedScan(stops.soft, err)
	}
	defer file.Close()
	for _, warning := range file.Warnings() {
		screen.say("warning: %s", warning)
	}
	if job.Chunks, err = o.selection.of(stops.soft, file, screen); err != nil {
		return interruptedScan(stops.soft, err)
	}
	if err := o.again.checkInput(o, job); err != nil {
		return err
	}
	scanned := time.Since(scanStart)
	if job.Chunks.Len() > manyChunks {
		lowerGCPercent(gcPercentMany)
	}
	job.MaxFailures = o.maxFailures.of(job.Chunks.Len())
	var closeSecond func()
	if job.Verify, closeSecond, err = o.verify.open(ctx); err != nil {
		return err
	}
	defer closeSecond()
	job.Outputs = o.files.outputs != ""
	config := host.Config{Workers: o.workers, Engine: engine, Observer: screen}
	durable, err := within(stops.soft, func() (*sqlite.Store, error) { return o.openStore(ctx, screen) })
	switch {
	case errors.Is(err, host.ErrInterrupted):
		return err
	case err != nil:
		config.Store = unopened{err}
	case durable != nil:
		defer durable.Close()
		config.Store = durable
	}
	coordinator, err := host.New(ctx, config)
	if err != nil {
		return err
	}
	defer coordinator.Close(context.WithoutCancel(ctx))
	result, err := coordinator.Run(stops.hard, job)
	if result == nil {
		return o.ofModule(err)
	}
	if eventsErr := screen.finish(result); eventsErr != nil {
		err = errors.Join(err, &exitError{exitStore, fmt.Errorf("events could not be written: %w", eventsErr)})
	}
	result.Report.Module.Path, result.Report.Phases.Scan = o.module, scanned.Seconds()
	if durable != nil {
		s := durable.Stats()
		result.Report.Store = &host.StoreReport{Path: o.store, Puts: s.Puts, Commits: s.Commits, Syncs: s.Syncs, Bytes: s.Bytes}
	}
	explainDifference(c, err)
	return o.conclude(c, result, err)
}

// ofModule names the module where it is refused.
func (o *runOptions) ofModule(err error) error {
	if _, refused := errors.AsType[*runtime.RefusedError](err); refused {
		return fmt.Errorf("%s: %w", o.module, err)
	}
	return err
}

// describe says what is recorded of the job.
func (o *runOptions) describe(job *host.Job) {
	job.Name, job.Meta, job.Command, job.ModulePath, job.ChunksPath = o.name, o.meta, o.command, absolute(o.module), absolute(o.chunks)
	if o.source != nil {
		job.ChunksPath = o.source.recorded()
	}
	if o.again != nil {
		job.Redrive = o.again.Redrive
		job.Name, job.Meta, job.Command = o.again.spec.Name, o.again.spec.Meta, o.again.spec.Command
	}
}

// openStore opens the durable store, or returns nil where outputs stay in
// memory.
func (o *runOptions) openStore(ctx context.Context, screen *screen) (*sqlite.Store, error) {
	if o.store == "" {
		return nil, nil
	}
	s, err := sqlite.Open(ctx, o.store, sqlite.Options{
		Notice:  func(line string) { screen.say("store: %s", line) },
		Damaged: func(d sqlite.Damage) { screen.say("store: %s", damageLine(d)) },
	})
	if err != nil {
		return nil, fmt.Errorf("it cannot be opened: %w; --store DIR takes another place, --no-store does without", err)
	}
	return s, nil
}

// unopened stands for a store that cannot be opened: a job fails on it as on
// one that breaks, and has its report.
type unopened struct{ err error }

func (u unopened) Put(context.Context, store.Action, []store.Record) error { return u.err }

func (unopened) Get(context.Context, store.Action, []store.Key, func(int, store.Value) error) error {
	return nil
}

func (u unopened) All(context.Context, store.Action) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) { yield(store.Record{}, u.err) }
}

func (unopened) Close() error { return nil }

func interruptedScan(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return host.ErrInterrupted
	}
	return err
}

// openChunks scans the chunk file.
func openChunks(ctx context.Context, c *console, o *runOptions, screen *screen) (*chunks.File, error) {
	o.input.Progress = screen.scanned
	return within(ctx, func() (*chunks.File, error) {
		if o.source != nil {
			o.source.files.Except = o.files.places()
			return o.source.scan(ctx, c, o.input)
		}
		if o.chunks == "-" {
			return chunks.Spool(ctx, c.in, o.input)
		}
		return chunks.Open(ctx, o.chunks, o.input)
	})
}

func readContext(path string) ([]byte, error) {
	b, err := readBounded(path, maxContext, "a context")
	if err != nil {
		return nil, err
	}
	if err := abi.CheckItem(b); err != nil {
		return nil, refuse("%s: the context is not one CBOR item: %w", path, err)
	}
	return b, nil
}

// conclude writes what is to be written, and says how the job ended.
func (o *runOptions) conclude(c *console, result *host.Result, runErr error) error {
	ctx := context.Background() // an interrupted job's results are written all the same
	complete := runErr == nil && (!result.HasAggregate() || result.Aggregate != nil) && (result.Report.Chunks.Succeeded == result.Report.Chunks.Total || o.partial)
	if err := o.files.write(ctx, c, result, complete, o.format); err != nil {
		return errors.Join(written(err), runErr)
	}
	if errors.Is(runErr, host.ErrInterrupted) && o.store != "" {
		return fmt.Errorf("%w: what is finished is kept, and the same command goes on", runErr)
	}
	if runErr != nil {
		return runErr
	}
	if n := result.Report.Chunks; n.Succeeded < n.Total { // those of a redrive that were not asked for too
		return &exitError{exitFailed, nil}
	}
	return nil
}
