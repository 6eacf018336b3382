package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/progress"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/stopfile"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

func runCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "run", Usage: "run a module over a file of chunks",
		UsageText: `wasm-jobs run [flags] MODULE CHUNKS
       wasm-jobs run [flags] MODULE --lines|--jsonl|--csv|--parquet|--arrow|--files|--range-of ...

Example: wasm-jobs run square.wasm chunks.cbor
         cat chunks.cbor | wasm-jobs run -j 4 --report report.json square.wasm -
         wasm-jobs run wordcount.wasm --lines big.txt --chunk-lines 1000

CHUNKS is a CBOR sequence of chunks, or one CBOR array; - is standard input.
Instead of CHUNKS, --lines, --jsonl, --csv, --parquet, --arrow, --files and --range-of make chunks, as
wasm-jobs chunks does. --range and --ids run only the chunks that either selects.

` + exitHelp,
		ArgsUsage: "MODULE [CHUNKS]",
		Flags:     runFlags(),
		Before:    checkPaths,
		Action: func(ctx *cli.Context) error {
			o, err := parseRun(ctx)
			if err != nil {
				return err
			}
			if isSet(ctx, "on") {
				return runOn(ctx.Context, c, o)
			}
			return run(ctx.Context, c, o)
		},
	}
}

// run runs one job, and writes its results.
func run(ctx context.Context, c *console, o *runOptions) error {
	soft, ctx := ctx, context.WithoutCancel(ctx) // ctx is for files and stores, which stay open until the job has ended
	c.signals.Notice(func() {
		fmt.Fprintf(c.err, "wasm-jobs: stopping: running attempts get %v; a second signal stops at once\n", o.grace)
	})
	c.signals.Cleanup(o.files.abandon)
	job := &host.Job{Options: o.options, Settings: o.settings, Retry: o.retry, Partial: o.partial, Stop: soft.Done(), Grace: o.grace}
	o.describe(job)
	var err error
	if job.Module, err = readModule(o.module); err != nil {
		return err
	}
	var display *progress.Display // set before anything is compiled
	config := engineConfig(o.engine)
	config.Compiling = func(size int) { display.Compiling(size, config.CacheDir != "") }
	modules, err := runtime.New(ctx, config)
	if err != nil {
		return err
	}
	engine := host.NewEngine(modules)
	defer engine.Close(context.WithoutCancel(ctx))
	if job.Admitted, err = engine.Admit(soft, job.Module, job.Options); err != nil {
		return o.ofModule(interrupted(soft, err))
	}
	if err := o.again.checkModule(o.module, job.Module); err != nil {
		return err
	}
	if o.context != "" {
		if job.Settings.Context, err = readContext(o.context); err != nil {
			return err
		}
	}
	if job.Settings.Command, err = o.wasi.read(soft); err != nil {
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
	display = newDisplay(c, o)
	defer display.Close()
	scanStart := time.Now()
	file, err := openChunks(soft, c, o, display)
	if err != nil {
		return interrupted(soft, err)
	}
	defer file.Close()
	o.warn(file, display)
	if err := o.checkNames(file); err != nil {
		return err
	}
	if job.Chunks, err = o.selection.of(soft, file, display); err != nil {
		return interrupted(soft, err)
	}
	if err := o.again.checkInput(o, job); err != nil {
		return err
	}
	job.Scanned = time.Since(scanStart)
	if job.Chunks.Len() > manyChunks {
		lowerGCPercent(gcPercentMany)
	}
	job.MaxFailures = o.maxFailures.of(job.Chunks.Len())
	var closeRecheck func()
	if job.Recheck, closeRecheck, err = o.recheck.open(ctx); err != nil {
		return err
	}
	defer closeRecheck()
	job.Outputs, job.Rerun = o.files.outputs != "", o.rerun
	job.Early = o.files.early(job.Admitted.Exports(abi.ExportAggregate))
	watched, err := o.watch.watchJob(soft, c, o.name)
	if err != nil {
		return err
	}
	defer watched.close()
	jobs := host.Config{Workers: o.workers, Engine: engine, Observer: watched.with(display)}
	durable, err := o.openStore(soft, o.graceOver(soft, c.signals.Hard), display)
	switch {
	case err != nil && soft.Err() != nil:
		return host.ErrInterrupted
	case err != nil && isConnection(err):
		return err
	case err != nil:
		jobs.Store = unopened{err}
	case durable != nil:
		defer durable.Close()
		jobs.Store, jobs.Journal = durable, durable
	}
	coordinator, err := host.New(ctx, jobs)
	if err != nil {
		return err
	}
	defer coordinator.Close(context.WithoutCancel(ctx))
	c.signals.Drain()
	o.files.asked, o.files.started = job.Spec(), time.Now()
	defer o.takeRequests(c, job, display)()
	result, err := coordinator.Run(c.signals.Hard, job)
	watched.finish(result, err)
	if result == nil {
		return o.ofModule(err)
	}
	result.Report.Skipped = o.source.skipped()
	if eventsErr := errors.Join(display.Finish(result), o.files.placeEvents()); eventsErr != nil {
		err = errors.Join(err, &exitError{exitStore, fmt.Errorf("events could not be written: %w", eventsErr)})
	}
	result.Report.Module.Path = o.module
	if durable != nil {
		result.Report.Store = storeReport(durable, o.store)
	}
	explainDifference(c, err)
	return o.conclude(c, result, err)
}

// warn prints the warnings of the scan.
func (o *runOptions) warn(file *chunks.File, display *progress.Display) {
	for _, warning := range warningsOf(file, o) {
		display.Say("warning: %s", warning)
	}
	if file.Len() == 0 && len(file.Warnings()) == 0 {
		display.Say("warning: %s: no chunks", o.chunks)
	}
}

// takeRequests lets wasm-jobs cancel end the job softly, until the returned function is
// called. Only jobs of a store in a directory take such requests.
func (o *runOptions) takeRequests(c *console, job *host.Job, display *progress.Display) (end func()) {
	if o.store == "" || postgres.IsURL(o.store) {
		return func() {}
	}
	name, _ := os.Hostname()
	request := &stopfile.Request{Store: o.store, Job: journal.Name(store.JobID(job.Spec().ID())), Host: name, PID: os.Getpid()}
	return request.Watch(c.signals.Hard, func() {
		display.Say("wasm-jobs cancel ends the job")
		c.signals.Ask()
	})
}

// unopened takes the place of a store that cannot be opened. The job then fails as
// with a store that breaks, and has a report.
type unopened struct{ err error }

func (u unopened) Put(context.Context, store.Action, []store.Record) error { return u.err }

func (unopened) Get(context.Context, store.Action, []store.Key, func(int, store.Value) error) error {
	return nil
}

func (u unopened) All(context.Context, store.Action) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) { yield(store.Record{}, u.err) }
}

func (unopened) Close() error { return nil }

func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return host.ErrInterrupted
	}
	return err
}

// openChunks scans the chunk file.
func openChunks(ctx context.Context, c *console, o *runOptions, display *progress.Display) (*chunks.File, error) {
	o.input.Progress = display.Scanned
	if o.source != nil {
		o.source.files.Except = slices.Concat(o.files.places(), ours(o.store), o.passOver)
		return o.source.scan(ctx, c, o.input)
	}
	return openChunkFile(ctx, c, o.chunks, o.input)
}

// newDisplay returns the display of a job.
func newDisplay(c *console, o *runOptions) *progress.Display {
	return progress.New(progress.Config{Out: c.err, Mode: o.progress, LogLevel: o.logLevel, Lines: o.source.isLines(), Events: o.files.eventsOut(), Message: failureMessage})
}

// ofModule adds the module's path to an error that refuses it.
func (o *runOptions) ofModule(err error) error {
	if _, refused := errors.AsType[*runtime.RefusedError](err); refused {
		return fmt.Errorf("%s: %w", o.module, err)
	}
	return err
}

// describe returns the specification that is recorded.
func (o *runOptions) describe(job *host.Job) {
	job.Name, job.Meta, job.ModulePath, job.ChunksPath, job.Sources = o.name, o.meta, absolute(o.module), absolute(o.chunks), o.sources()
	if o.source != nil {
		job.ChunksPath = o.source.recorded()
	}
	if o.again != nil {
		o.again.describe(job)
	}
}

// openStore opens the durable store. It returns nil if outputs stay in memory.
func (o *runOptions) openStore(ctx context.Context, hurry <-chan struct{}, display *progress.Display) (recordStore, error) {
	if o.store == "" {
		return nil, nil
	}
	if postgres.IsURL(o.store) {
		return openURL(ctx, o.store, postgres.Options{
			Create: true, Insecure: o.insecure, Notice: func(line string) { display.Say("store: %s", line) },
			Damaged: func(d postgres.Damage) { display.Say("store: %s", packLine(d)) },
		})
	}
	options := storeOptions(display.Say)
	options.Hurry = hurry
	options.Waiting = func() {
		if o.progress != "none" {
			display.Say(waitingForStore)
		}
	}
	s, err := sqlite.Open(ctx, o.store, options)
	if err != nil {
		return nil, fmt.Errorf("it cannot be opened: %w; use another --store DIR, or --no-store", err)
	}
	return s, nil
}

// graceOver returns a channel that is closed at the end of the grace period after the
// first signal, or at the second signal.
func (o *runOptions) graceOver(soft, hard context.Context) <-chan struct{} {
	over, end := context.WithCancel(hard)
	context.AfterFunc(soft, func() { time.AfterFunc(o.grace, end) })
	return over.Done()
}

// conclude writes the results, and returns the error that is the exit code.
func (o *runOptions) conclude(c *console, result *host.Result, runErr error) error {
	ctx := context.Background() // results of an interrupted job are written too
	complete := runErr == nil && (!result.HasAggregate() || result.Aggregate != nil) && (result.Report.Chunks.Succeeded == result.Report.Chunks.Total || o.partial)
	if err := o.files.write(ctx, c, result, complete, o.format); err != nil {
		return errors.Join(outputError(err), runErr)
	}
	if errors.Is(runErr, host.ErrInterrupted) && o.store != "" {
		return fmt.Errorf("%w: finished chunks are kept, and the same command continues", runErr)
	}
	if runErr != nil {
		return runErr
	}
	if n := result.Report.Chunks; n.Succeeded < n.Total { // also chunks that a redrive did not select
		return &exitError{exitFailed, nil}
	}
	return nil
}
