package main

import (
	"errors"
	"fmt"
	"io/fs"
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
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

// runOptions are the flags of run, parsed.
type runOptions struct {
	module, chunks string
	source         *source       // nil if chunks is a chunk file
	passOver       []fs.FileInfo // files that --files skips, in addition to results and store
	context        string
	input          chunks.Options
	selection      selection
	options        runtime.Options
	settings       runtime.Settings
	retry          host.RetryPolicy
	workers        int
	maxFailures    failureLimit
	partial        bool
	rerun          bool
	engine         string
	recheck        recheck
	grace          time.Duration
	format         string
	wasi           commandOptions
	files          resultFiles
	progress       string
	logLevel       int32
	store          string // directory or URL; "" = memory
	insecure       bool   // the connection to the database need not be encrypted
	on             string // URL of the shared store whose workers run the job; "" = this process runs it
	name           string
	meta           map[string]string
	watch          watchOptions
	again          *redriven // nil if the whole job is run
}

func runFlags() []cli.Flag {
	return append(append(sourceFlags(), commandFlags()...), []cli.Flag{
		&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write the result as CBOR to `FILE` (- = stdout)"},
		&cli.StringFlag{Name: "outputs", Usage: "write every output to `FILE`: a CBOR chunk file, or .jsonl, .csv or .parquet; a directory, or a path with a final slash, gets a file for each output"},
		&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "json", Usage: "format of the result on stdout: json, diag or cbor"},
		&cli.BoolFlag{Name: "concat", Usage: "make the result the bytes of all outputs, which must be byte strings, in id order"},
		&cli.IntFlag{Name: "workers", Aliases: []string{"j"}, DefaultText: "GOMAXPROCS", Usage: "instances that run at once"},
		&cli.IntFlag{Name: "retries", Value: 3, Usage: "retries after the first attempt"},
		&cli.StringFlag{Name: "retry-on", Value: joinClasses(host.DefaultRetryClasses()), Usage: "`CLASSES` of failure that are retried, or none"},
		&cli.BoolFlag{Name: "retry-deterministic", Usage: "retry even if the same trap happened twice"},
		&cli.DurationFlag{Name: "backoff", Value: 50 * time.Millisecond, Usage: "time before the first retry; it doubles"},
		&cli.DurationFlag{Name: "backoff-max", Value: 5 * time.Second, Usage: "longest time before a retry"},
		&cli.DurationFlag{Name: "timeout", Value: 30 * time.Second, Usage: "limit of one attempt; 0 = none"},
		&cli.DurationFlag{Name: "fold-timeout", Value: 10 * time.Minute, Usage: "limit of one setup, aggregate or merge; 0 = none"},
		&cli.Uint64Flag{Name: "fuel", DefaultText: "off", Usage: "limit of instructions that one call of exec executes"},
		&cli.StringFlag{Name: "memory", Value: "256MiB", Usage: "limit of a guest's memory"},
		stackFlag("limit of nested calls, as metering counts them; a value other than 8MiB changes the key of outputs"),
		&cli.StringFlag{Name: "max-output", Value: "16MiB", Usage: "limit of one output"},
		&cli.StringFlag{Name: "max-aggregate", Value: "256MiB", Usage: "limit of the result of aggregate or merge"},
		&cli.StringFlag{Name: "max-chunk", Value: "64MiB", Usage: "limit of one chunk"},
		&cli.IntFlag{Name: "max-requeues", Value: 100, Usage: "how often one chunk may return to the queue without counting as failed"},
		&cli.StringFlag{Name: "context", Usage: "`FILE` with one CBOR item for the module's setup"},
		&cli.Uint64Flag{Name: "seed", Usage: "seed of the guest's random bytes"},
		&cli.StringFlag{Name: "id-key", Value: chunks.DefaultIDKey, Usage: "map key that holds a chunk's id; empty = number chunks by position"},
		&cli.StringFlag{Name: "chunk-format", Value: "auto", Usage: "auto, sequence or array"},
		limitFlag(),
		&cli.StringFlag{Name: "range", Usage: "run only the chunks whose integer ids are in `RANGES`, such as 0-99,120"},
		&cli.StringFlag{Name: "ids", Usage: "run only the chunks with `IDS`, such as a,b,7; quote a text that looks like a number or has a comma: '\"7\",\"a,b\"'"},
		&cli.StringFlag{Name: "isolation", Value: "reset", Usage: "how each call gets fresh state: reset, or a new instance"},
		&cli.BoolFlag{Name: "no-metering", Usage: "enforce neither fuel nor time inside guests; an endless loop then blocks its worker and the host's garbage collector"},
		&cli.BoolFlag{Name: "native-nans", Usage: "leave NaN bits as this machine makes them; changes the key of outputs"},
		&cli.StringFlag{Name: "store", DefaultText: "the user's cache directory", Usage: "keep outputs in `DIR`, and reuse finished ones"},
		&cli.StringFlag{Name: "on", Usage: "let workers of the shared store at `URL` run the job: submit, and wait"},
		&cli.BoolFlag{Name: "no-store", Usage: "keep outputs in memory, until the command ends"},
		&cli.StringFlag{Name: "name", DefaultText: "the module's file name", Usage: "name of the job in the store"},
		&cli.StringSliceFlag{Name: "meta", Usage: "record `KEY=VALUE` with the job; may be given again"},
		&cli.BoolFlag{Name: "rerun", Usage: "execute all chunks, even if the store has their outputs; a different output is a conflict"},
		engineFlag(),
		&cli.StringFlag{Name: "verify", Usage: "execute `P%` of the chunks twice, and stop if two outputs differ"},
		&cli.StringFlag{Name: "verify-engine", Value: "compiler", Usage: "engine of the second execution: compiler or interpreter"},
		&cli.StringFlag{Name: "max-failures", DefaultText: "unlimited", Usage: "stop once more than `N|P%` chunks have failed"},
		&cli.BoolFlag{Name: "fail-fast", Usage: "stop at the first failed chunk: --max-failures 0"},
		&cli.BoolFlag{Name: "partial", Usage: "if chunks failed, aggregate the other outputs"},
		&cli.StringFlag{Name: "dead-letter", Usage: "write the failed chunks to `FILE`, a chunk file"},
		&cli.StringFlag{Name: "bundle", Usage: "write a file for each failed chunk to `DIR`, for wasm-jobs replay"},
		reportFlag(),
		&cli.StringFlag{Name: "receipt", Usage: "if all chunks succeeded, write the job's receipt to `FILE`: a reproducible description of the job and its result"},
		&cli.StringFlag{Name: "events", Usage: "write events as JSON lines to `FILE`"},
		metricsFlag(), traceFlag(),
		&cli.DurationFlag{Name: "grace", Value: 10 * time.Second, Usage: "time for running attempts after the first SIGINT"},
		&cli.StringFlag{Name: "progress", Value: "auto", Usage: "auto, plain or none"},
		&cli.StringFlag{Name: "log-level", Value: "off", Usage: "print log lines of guests from this level on: off, debug, info, warn or error"},
	}...)
}

func parseRun(ctx *cli.Context) (*runOptions, error) {
	made, err := parseSource(ctx)
	switch {
	case err != nil:
		return nil, err
	case made != nil && ctx.NArg() != 1:
		return nil, usageErrorf("run takes MODULE and --%s, or MODULE and CHUNKS, got %s and --%s", made.kind, plural(ctx.NArg(), "argument"), made.kind)
	case made == nil && ctx.NArg() != 2:
		return nil, usageErrorf("run takes MODULE and CHUNKS, got %s; --lines, --jsonl, --csv, --parquet, --arrow, --files and --range-of make chunks from other input", plural(ctx.NArg(), "argument"))
	}
	o := &runOptions{
		module: ctx.Args().Get(0), chunks: ctx.Args().Get(1), source: made, context: ctx.String("context"),
		options:  runtime.Options{NoMetering: ctx.Bool("no-metering"), NativeNaNs: ctx.Bool("native-nans")},
		settings: runtime.Settings{Seed: ctx.Uint64("seed")},
	}
	always := func(string) bool { return true }
	runOnly := o.parseRunOnly
	if ctx.Command.Name == "submit" {
		runOnly = func(ctx *cli.Context) error {
			o.progress = ctx.String("progress")
			return checkProgress(o.progress)
		}
	}
	return o, errors.Join(runOnly(ctx), o.parseInput(ctx), o.parseSizes(ctx), o.parseLimits(ctx, always),
		o.selection.parse(ctx), o.parseRecord(ctx))
}

// parseRunOnly reads the flags that are about one run, not about its job: the files of
// results, and how results are printed and checked.
func (o *runOptions) parseRunOnly(ctx *cli.Context) error {
	o.workers, o.partial, o.rerun, o.grace = ctx.Int("workers"), ctx.Bool("partial"), ctx.Bool("rerun"), ctx.Duration("grace")
	o.format, o.progress = ctx.String("format"), ctx.String("progress")
	o.files = resultFiles{
		concat: ctx.Bool("concat"), result: ctx.String("output"), outputs: ctx.String("outputs"),
		deadLetter: ctx.String("dead-letter"), receipt: ctx.String("receipt"), events: ctx.String("events"),
		bundle: ctx.String("bundle"),
	}
	var err error
	if o.files.reports, err = reportPaths(ctx); err != nil {
		return err
	}
	if isChosen(ctx, "workers") && o.workers < 1 {
		return usageErrorf("invalid --workers %d: want 1 or more", o.workers)
	}
	if o.grace < 0 {
		return usageErrorf("invalid --grace %s: want 0 or more", o.grace)
	}
	if o.watch, err = parseWatch(ctx); err != nil {
		return err
	}
	var engineErr error
	o.engine, engineErr = parseAnyEngine(ctx)
	return errors.Join(engineErr, o.parseChoices(ctx), o.parseStore(ctx), o.recheck.parse(ctx))
}

// parseRecord reads the name and the metadata of the job.
func (o *runOptions) parseRecord(ctx *cli.Context) error {
	if o.name = ctx.String("name"); o.name == "" {
		base := filepath.Base(o.module)
		o.name = strings.TrimSuffix(base, filepath.Ext(base))
	}
	return o.parseMeta(ctx)
}

func (o *runOptions) parseMeta(ctx *cli.Context) error {
	for _, pair := range ctx.StringSlice("meta") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return usageErrorf("invalid --meta %q: want KEY=VALUE", pair)
		}
		if o.meta == nil {
			o.meta = map[string]string{}
		}
		o.meta[key] = value
	}
	return nil
}

// parseOn reads --on, the shared store whose workers run the job.
func (o *runOptions) parseOn(ctx *cli.Context) error {
	for _, name := range []string{"store", "no-store", "workers", "partial", "verify", "rerun", "engine", "metrics", "trace-otlp", "grace", "log-level"} {
		if isSet(ctx, name) {
			return usageErrorf("--on and --%s exclude each other: workers run the job, with their own flags", name)
		}
	}
	if o.on = ctx.String("on"); !postgres.IsURL(o.on) {
		return usageErrorf("invalid --on %q: want postgres://USER@HOST/DATABASE", o.on)
	}
	return nil
}

func (o *runOptions) parseChoices(ctx *cli.Context) error {
	if !slices.Contains([]string{"json", "diag", "cbor"}, o.format) {
		return usageErrorf("invalid --format %q: want json, diag or cbor", o.format)
	}
	if o.files.concat && isSet(ctx, "format") {
		return usageErrorf("--concat and --format exclude each other: give one of them")
	}
	if err := checkProgress(o.progress); err != nil {
		return err
	}
	return o.parseLogLevel(ctx)
}

func checkProgress(mode string) error {
	if !slices.Contains([]string{"auto", "plain", "none"}, mode) {
		return usageErrorf("invalid --progress %q: want auto, plain or none", mode)
	}
	return nil
}

// logOff is above all levels.
const logOff = 127

func (o *runOptions) parseLogLevel(ctx *cli.Context) error {
	levels := map[string]int32{"off": logOff, "debug": abi.LogDebug, "info": abi.LogInfo, "warn": abi.LogWarn, "error": abi.LogError}
	level, ok := levels[ctx.String("log-level")]
	if !ok {
		return usageErrorf("invalid --log-level %q: want off, debug, info, warn or error", ctx.String("log-level"))
	}
	o.logLevel = level
	return nil
}

// parseInput reads the flags of WASI commands and of the chunk file.
func (o *runOptions) parseInput(ctx *cli.Context) (err error) {
	if o.wasi, err = parseCommand(ctx); err != nil {
		return err
	}
	if o.input.Limit, err = parseLimit(ctx); err != nil {
		return err
	}
	o.input.IDKey, o.input.NoIDKey = ctx.String("id-key"), ctx.String("id-key") == ""
	if o.input.Format, err = chunks.ParseFormat(ctx.String("chunk-format")); err != nil {
		return usageErrorf("--chunk-format: %w", err)
	}
	return nil
}

// parseLimits reads the flags of limits, isolation and retries: all of them for a new
// job, only the given ones for a recorded job.
func (o *runOptions) parseLimits(ctx *cli.Context, read func(name string) bool) (err error) {
	s, r := &o.settings, &o.retry
	for name, to := range map[string]*time.Duration{
		"timeout": &s.Timeout, "fold-timeout": &s.FoldTimeout, "backoff": &r.Backoff, "backoff-max": &r.BackoffMax,
	} {
		if read(name) {
			*to = ctx.Duration(name)
		}
	}
	if read("fuel") {
		s.Fuel = ctx.Uint64("fuel")
	}
	if read("isolation") {
		s.Isolation = runtime.Isolation(ctx.String("isolation"))
	}
	if o.options.NoMetering && s.Fuel > 0 && read("fuel") {
		return usageErrorf("--fuel and --no-metering exclude each other: give one of them")
	}
	if o.options.NoMetering && o.settings.Stack > 0 && read("stack") {
		return usageErrorf("--stack and --no-metering exclude each other: give one of them")
	}
	return errors.Join(o.parseRetries(ctx, read), o.parseFailures(ctx, read), o.checkSettings())
}

func (o *runOptions) parseRetries(ctx *cli.Context, read func(name string) bool) (err error) {
	r := &o.retry
	for name, to := range map[string]*int{"retries": &r.Retries, "max-requeues": &r.MaxRequeues} {
		if read(name) {
			*to = ctx.Int(name)
		}
	}
	if read("retry-deterministic") {
		r.Deterministic = ctx.Bool("retry-deterministic")
	}
	if read("retry-on") {
		r.Classes, err = parseClasses(ctx.String("retry-on"))
	}
	return err
}

func (o *runOptions) parseStore(ctx *cli.Context) (err error) {
	o.insecure = ctx.Bool("insecure")
	if isSet(ctx, "on") {
		return o.parseOn(ctx)
	}
	switch {
	case ctx.Bool("no-store") && isSet(ctx, "store"):
		return usageErrorf("--store and --no-store exclude each other: give one of them")
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
			return nil, usageErrorf("invalid --retry-on: unknown class %q, want some of %s", name, joinClasses(abi.Classes()))
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
	if o.settings.Memory, err = parseSize[uint64](ctx, "memory"); err != nil {
		return err
	}
	if o.settings.Stack, err = parseStack(ctx); err != nil {
		return err
	}
	if err := o.parseOutputSizes(ctx, func(string) bool { return true }); err != nil {
		return err
	}
	o.input.MaxChunk, err = parseSize[int64](ctx, "max-chunk")
	return err
}

// parseOutputSizes reads the limits of outputs and aggregates that must be read.
func (o *runOptions) parseOutputSizes(ctx *cli.Context, read func(name string) bool) (err error) {
	for name, to := range map[string]*uint64{"max-output": &o.settings.MaxOutput, "max-aggregate": &o.settings.MaxAggregate} {
		if !read(name) {
			continue
		}
		if *to, err = parseSize[uint64](ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (o *runOptions) parseFailures(ctx *cli.Context, read func(name string) bool) (err error) {
	if !read("fail-fast") && !read("max-failures") {
		return nil
	}
	if ctx.Bool("fail-fast") {
		if isSet(ctx, "max-failures") {
			return usageErrorf("--fail-fast means --max-failures 0: give one of them")
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
	percent float64 // if percents
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
	return l, usageErrorf("invalid --max-failures %q: want a number of chunks, or a percentage such as 5%%", s)
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
