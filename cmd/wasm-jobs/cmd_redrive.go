package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// identityFlags would make it another job, so redrive does not have them: they select
// the chunks, or can change an output.
var identityFlags = []string{
	"memory", "stack", "context", "seed", "id-key", "chunk-format", "max-chunk", "limit", "range", "ids", "rerun", "no-metering", "native-nans",
	"no-store", "on", "name", "meta", "arg", "env", "stdin", "dir",
}

func redriveCommand(c *console) *cli.Command {
	flags := []cli.Flag{
		&cli.BoolFlag{Name: "failed", Usage: "run the failed chunks again (the default)"},
		&cli.StringFlag{Name: "ids", Usage: "run the chunks with ids in `RANGES` again, such as 0-99,120,a, if they have no output"},
		&cli.StringFlag{Name: "class", Usage: "run the chunks that failed with `CLASS` again"},
		&cli.StringFlag{Name: "module", Usage: "new `FILE` of the module"},
		&cli.StringFlag{Name: "chunks", Usage: "new `FILE` of the chunks (- = standard input)"},
		&cli.StringSliceFlag{Name: "with-dir", KeepSpace: true, Usage: "new place HOST of the directory GUEST, as `HOST:GUEST`; may be given again"},
		&cli.StringFlag{Name: "with-context", Usage: "new `FILE` of the context"},
	}
	for _, flag := range runFlags() {
		if name := nameOf(flag); !slices.Contains(identityFlags, name) && !slices.Contains(sourceFlagNames(), name) {
			flags = append(flags, flag)
		}
	}
	return &cli.Command{
		Name: "redrive", Usage: "run the failed chunks of a job again",
		UsageText: `wasm-jobs redrive [flags] JOB

Example: wasm-jobs redrive 3f2a --timeout 5m
         wasm-jobs redrive 3f2a --class fuel --fuel 1000000000 -o result.cbor

The module, the chunks and the settings are those of the record, and must not have
changed. Flags that are given here replace the recorded ones. The result is written
if all chunks have an output afterwards.

` + exitHelp,
		ArgsUsage: "JOB",
		Flags:     flags,
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 1); err != nil {
				return err
			}
			return redrive(ctx, c)
		},
	}
}

func redrive(ctx *cli.Context, c *console) error {
	again := &redriven{Redrive: &host.Redrive{}}
	err := withJob(ctx, c, false, func(_ recordStore, j *journal.Record) (err error) {
		if err := again.read(j); err != nil {
			return err
		}
		again.Only, err = chosen(ctx, j)
		return err
	})
	if err != nil {
		return err
	}
	o, err := again.parse(ctx)
	if err == nil {
		err = o.checkRecorded()
	}
	if err != nil {
		return err
	}
	if again.Only.Empty() {
		fmt.Fprintln(c.err, "wasm-jobs: no chunks to run again; the result is written if every chunk has an output")
	}
	return run(ctx.Context, c, o)
}

// chosen returns the chunks that the flags select.
func chosen(ctx *cli.Context, j *journal.Record) (set abi.IDSet, err error) {
	given := 0
	for _, name := range []string{"failed", "ids", "class"} {
		if isSet(ctx, name) {
			given++
		}
	}
	if given > 1 {
		return set, usageErrorf("--failed, --ids and --class exclude each other: give one of them")
	}
	if isSet(ctx, "ids") {
		return chosenIDs(ctx, j)
	}
	class := abi.Class(ctx.String("class"))
	if isSet(ctx, "class") && !slices.Contains(abi.Classes(), class) {
		return set, usageErrorf("invalid --class %q: want one of %s", class, joinClasses(abi.Classes()))
	}
	set, err = j.Failed(ctx.Context, class)
	return set, storeError(err)
}

// chosenIDs reads --ids. The job must have every single id; a range may have ids
// that the job does not have.
func chosenIDs(ctx *cli.Context, j *journal.Record) (set abi.IDSet, err error) {
	named, ranges, err := abi.ParseNamedIDs(ctx.String("ids"))
	if err != nil {
		return set, usageErrorf("--ids: %w", err)
	}
	missing, err := j.Missing(ctx.Context, named)
	if err != nil {
		return set, storeError(err)
	}
	if !missing.Empty() {
		return set, usageErrorf("unknown --ids: job %s has no chunk %s", journal.Name(j.Record.ID)[:shortName], shortSet(missing))
	}
	set.AddSet(named)
	set.AddSet(ranges)
	return set, nil
}

// redriven is a recorded job that will run again.
type redriven struct {
	*host.Redrive
	asked spec.Spec // with Sources
}

// name is the job's name in messages.
func (r *redriven) name() string { return journal.Name(r.Job)[:shortName] }

// read reads the specification from a job's record.
func (r *redriven) read(j *journal.Record) error {
	r.Job, r.asked = j.Record.ID, j.Spec
	if r.asked.Sources == nil {
		if err := r.readEarlier(); err != nil {
			return err
		}
	}
	if err := r.asked.Validate(); err != nil {
		return usageErrorf("invalid record of job %s: %w", r.name(), err)
	}
	return nil
}

// readEarlier fills in the sources of a job in a record that has none.
func (r *redriven) readEarlier() error {
	if len(r.asked.Command) == 0 { // a program recorded it: only paths are known
		r.asked.Sources = &spec.Sources{Chunks: spec.Chunks{Kind: spec.KindFile, Path: r.asked.Chunks.Path}}
		return nil
	}
	if err := readSubmission(&r.asked); err != nil {
		return usageErrorf("the record of job %s cannot be turned into flags of this command: %w", r.name(), err)
	}
	return nil
}

// parse makes the options of a run from the record and the flags. Flags replace
// recorded values.
func (r *redriven) parse(ctx *cli.Context) (*runOptions, error) {
	job := host.JobOf(&r.asked)
	o := &runOptions{again: r, options: job.Options, settings: job.Settings, retry: job.Retry}
	o.wasi.Command, o.settings.Command = job.Settings.Command, runtime.Command{}
	if limit := r.asked.Settings.MaxFailures; limit != nil {
		o.maxFailures = failureLimit{set: true, count: *limit}
	}
	given := func(name string) bool { return isSet(ctx, name) }
	return o, errors.Join(r.parsePlaces(ctx, o), o.parseRunOnly(ctx), o.parseOutputSizes(ctx, given), o.parseLimits(ctx, given))
}

// parsePlaces finds the module, chunks, context and directories.
func (r *redriven) parsePlaces(ctx *cli.Context, o *runOptions) (err error) {
	if o.module = r.asked.Module.Path; isSet(ctx, "module") {
		o.module = ctx.String("module")
	}
	if o.context = r.asked.Sources.Context; isSet(ctx, "with-context") {
		o.context = ctx.String("with-context")
	}
	switch {
	case o.module == "":
		return usageErrorf("job %s: unknown module file: give it with --module FILE", r.name())
	case o.context == "" && r.asked.Context != "":
		return usageErrorf("job %s: unknown context file: give it with --with-context FILE", r.name())
	}
	if err := r.parseChunks(ctx, o); err != nil {
		return err
	}
	switch o.wasi.limit = r.asked.Sources.MaxDir; {
	case ctx.String("max-dir") == "": // of wait, which has no such flag
		o.wasi.limit = max(o.wasi.limit, defaultMaxDir)
	case o.wasi.limit == 0 || isSet(ctx, "max-dir"):
		if o.wasi.limit, err = parseSize[int64](ctx, "max-dir"); err != nil {
			return err
		}
	}
	o.wasi.dirs, err = r.readDirs(ctx.StringSlice("with-dir"))
	return err
}

func (r *redriven) parseChunks(ctx *cli.Context, o *runOptions) error {
	from := r.asked.Sources.Chunks
	switch {
	case isSet(ctx, "chunks") && from.Kind == spec.KindRange:
		return usageErrorf("invalid --chunks: the chunks of job %s are integers of a range, not of a file; leave --chunks out", r.name())
	case isSet(ctx, "chunks"):
		from.Path, from.Paths = ctx.String("chunks"), nil
	case from.Path == "-":
		return usageErrorf("missing chunks of job %s, which came from standard input: give --chunks FILE, or --chunks -", r.name())
	case from.Path == "" && from.Kind != spec.KindRange:
		return usageErrorf("job %s: unknown chunk file: give it with --chunks FILE", r.name())
	}
	return o.readChunks(&from)
}

// describe returns the specification that is recorded.
func (r *redriven) describe(job *host.Job) {
	job.Redrive = r.Redrive
	job.Name, job.Meta, job.Priority, job.NoFold = r.asked.Name, r.asked.Meta, r.asked.Priority, r.asked.Settings.NoFold
	if job.Sources.Chunks.Path == "-" { // standard input can be read only once
		job.ChunksPath, job.Sources.Chunks = r.asked.Chunks.Path, r.asked.Sources.Chunks
	}
}

// check returns an error if a file has changed.
func (r *redriven) check(what, path, flag, now, then string) error {
	if r == nil || now == then {
		return nil
	}
	return usageErrorf("%s: not the %s of job %s: it has digest %s, want %s; give the right one with %s",
		path, what, r.name(), now, then, flag)
}

func (r *redriven) checkModule(path string, module []byte) error {
	if r == nil {
		return nil
	}
	return r.check("module", path, "--module FILE", digestOf(module), r.asked.Module.Digest)
}

// checkInput checks the chunks and the context.
func (r *redriven) checkInput(o *runOptions, job *host.Job) error {
	if r == nil {
		return nil
	}
	path := o.chunks
	if o.source != nil {
		path = o.source.name()
	}
	if err := r.check("chunks", path, "--chunks FILE", spec.Digest(job.Chunks.Digest()), r.asked.Chunks.Digest); err != nil {
		return err
	}
	context := ""
	if len(job.Settings.Context) > 0 {
		context = digestOf(job.Settings.Context)
	}
	return r.check("context", o.context, "--with-context FILE", context, r.asked.Context)
}

func digestOf(b []byte) string { return spec.Digest(sha256.Sum256(b)) }
