package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/jobs"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

// submission is how run was called, for a run that redrives the job.
type submission struct {
	Module string            `json:"module"`
	Chunks string            `json:"chunks"` // "-" = standard input
	Flags  map[string]string `json:"flags,omitempty"`
	// Lists are flags that may be given again.
	Lists map[string][]string `json:"lists,omitempty"`
}

// ofTheRun are flags of one run and not of its job: where results go, how they
// are shown, and where the job is recorded.
var ofTheRun = []string{
	"output", "outputs", "format", "dead-letter", "bundle", "report", "receipt", "events", "progress", "log-level", "store", "no-store",
	"partial", "concat", "name", "meta", "workers", "grace", "verify", "verify-engine",
}

// ofTheJob are flags that make another job of it, and cannot be given to
// redrive: which chunks there are, and what can change an output.
var ofTheJob = []string{
	"memory", "context", "seed", "id-key", "chunk-format", "max-chunk", "range", "ids", "no-metering", "native-nans",
	"no-store", "name", "meta", "arg", "env", "stdin", "dir",
}

// submitted notes how run was called.
func submitted(ctx *cli.Context) ([]byte, error) {
	s := submission{Module: absolute(ctx.Args().Get(0)), Chunks: absolute(ctx.Args().Get(1)), Flags: map[string]string{}}
	for _, flag := range ctx.Command.Flags {
		name := nameOf(flag)
		if !isSet(ctx, name) || slices.Contains(ofTheRun, name) {
			continue
		}
		if _, isList := flag.(*cli.StringSliceFlag); isList {
			s.list(name, ctx.StringSlice(name))
			continue
		}
		s.Flags[name] = fmt.Sprint(ctx.Value(name))
		if name == "context" || slices.Contains(sourceKinds, name) && name != "range-of" {
			s.Flags[name] = absolute(s.Flags[name])
		}
	}
	return json.Marshal(s)
}

func (s *submission) list(name string, values []string) {
	if s.Lists == nil {
		s.Lists = map[string][]string{}
	}
	if name == "dir" {
		values = absoluteDirs(values)
	}
	s.Lists[name] = values
}

func absolute(path string) string {
	if path == "-" || path == "" {
		return path
	}
	if a, err := filepath.Abs(path); err == nil {
		return a
	}
	return path
}

func redriveCommand(c *console) *cli.Command {
	flags := []cli.Flag{
		&cli.BoolFlag{Name: "failed", Usage: "run the failed chunks again (the default)"},
		&cli.StringFlag{Name: "ids", Usage: "run the chunks with these ids again, where they have no output: `RANGE` as in 0-99,120,a"},
		&cli.StringFlag{Name: "class", Usage: "run the chunks again that failed with `CLASS`"},
		&cli.StringFlag{Name: "module", Usage: "the module is in `FILE` now"},
		&cli.StringFlag{Name: "chunks", Usage: "the chunks are in `FILE` now (- = standard input)"},
		&cli.StringSliceFlag{Name: "with-dir", KeepSpace: true, Usage: "the directory GUEST is at HOST now: `HOST:GUEST`; may be given again"},
		&cli.StringFlag{Name: "with-context", Usage: "the context is in `FILE` now"},
	}
	for _, flag := range runFlags() {
		if name := nameOf(flag); !slices.Contains(ofTheJob, name) && !slices.Contains(sourceFlagNames(), name) {
			flags = append(flags, flag)
		}
	}
	return &cli.Command{
		Name: "redrive", Usage: "run failed chunks of a recorded job again, and make its result where none is left",
		UsageText: `wasm-jobs redrive [flags] JOB

Example: wasm-jobs redrive 3f2a --timeout 5m
         wasm-jobs redrive 3f2a --class fuel --fuel 1000000000 -o result.cbor

Module, chunks and settings are those that were recorded, and must not have
changed; flags of run that are given here replace the recorded ones.

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
	again := &host.Redrive{}
	var s submission
	var spec jobs.Spec
	err := withJob(ctx, c, false, func(_ *sqlite.Store, j *jobs.Job) (err error) {
		if err := json.Unmarshal(j.Spec.Command, &s); err != nil {
			return refuse("job %s was not submitted by this command, which does not know how to run it again", jobs.Name(j.Record.ID)[:shortName])
		}
		spec, again.Job = j.Spec, j.Record.ID
		again.Only, err = chosen(ctx, j)
		return err
	})
	if err != nil {
		return err
	}
	if again.Only.Empty() {
		fmt.Fprintln(c.err, "wasm-jobs: no chunk is to be run again; the result is made where all have an output")
	}
	return resubmit(ctx, c, &s, &redriven{Redrive: again, spec: spec})
}

// chosen returns the chunks that the flags name.
func chosen(ctx *cli.Context, j *jobs.Job) (set abi.IDSet, err error) {
	given := 0
	for _, name := range []string{"failed", "ids", "class"} {
		if isSet(ctx, name) {
			given++
		}
	}
	if given > 1 {
		return set, refuse("--failed, --ids and --class exclude each other: give one of them")
	}
	if isSet(ctx, "ids") {
		return chosenIDs(ctx, j)
	}
	class := abi.Class(ctx.String("class"))
	if isSet(ctx, "class") && !slices.Contains(abi.Classes(), class) {
		return set, refuse("--class %q is none of %s", class, joinClasses(abi.Classes()))
	}
	set, err = j.Failed(ctx.Context, class)
	return set, failedStore(err)
}

// chosenIDs reads --ids. An id that is named must be one of the job's; of a
// range, any part may be missing.
func chosenIDs(ctx *cli.Context, j *jobs.Job) (set abi.IDSet, err error) {
	named, ranges, err := abi.ParseNamedIDs(ctx.String("ids"))
	if err != nil {
		return set, refuse("--ids: %w", err)
	}
	missing, err := j.Missing(ctx.Context, named)
	if err != nil {
		return set, failedStore(err)
	}
	if !missing.Empty() {
		return set, refuse("--ids: job %s has no chunk %s", jobs.Name(j.Record.ID)[:shortName], shortSet(missing))
	}
	set.AddSet(named)
	set.AddSet(ranges)
	return set, nil
}

// redriven is a job that run is to run again.
type redriven struct {
	*host.Redrive
	spec jobs.Spec
}

// check makes sure that a file is what it was.
func (r *redriven) check(what, path, flag, now, then string) error {
	if r == nil || now == then {
		return nil
	}
	return refuse("%s: this is not the %s of job %s: it has digest %s, and %s was recorded; %s names the right file",
		path, what, jobs.Name(r.Job)[:shortName], now, then, flag)
}

func (r *redriven) checkModule(path string, module []byte) error {
	if r == nil {
		return nil
	}
	return r.check("module", path, "--module FILE", digestOf(module), r.spec.Module.Digest)
}

// checkInput checks the chunks and the context.
func (r *redriven) checkInput(o *runOptions, job *host.Job) error {
	if r == nil {
		return nil
	}
	input := job.Chunks.Digest()
	path := o.chunks
	if o.source != nil {
		path = o.source.name()
	}
	if err := r.check("chunks", path, "--chunks FILE", "sha256:"+hex.EncodeToString(input[:]), r.spec.Chunks.Digest); err != nil {
		return err
	}
	context := ""
	if len(job.Settings.Context) > 0 {
		context = digestOf(job.Settings.Context)
	}
	return r.check("context", o.context, "--with-context FILE", context, r.spec.Context)
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// resubmit calls run as it was called, with the flags that are given now.
func resubmit(ctx *cli.Context, c *console, s *submission, again *redriven) error {
	flags := map[string]string{}
	for name, value := range s.Flags {
		flags[name] = value
	}
	for _, flag := range runFlags() {
		name := flag.Names()[0]
		if isSet(ctx, name) && name != "ids" {
			flags[name] = fmt.Sprint(ctx.Value(name))
		}
	}
	if isSet(ctx, "fail-fast") {
		delete(flags, "max-failures")
	} else if isSet(ctx, "max-failures") {
		delete(flags, "fail-fast")
	}
	module, chunks := s.Module, s.Chunks
	if isSet(ctx, "module") {
		module = ctx.String("module")
	}
	kind, from := "", chunks // or what they are made of
	for _, name := range sourceKinds {
		if path, ok := flags[name]; ok {
			kind, from = name, path
		}
	}
	switch {
	case isSet(ctx, "chunks") && kind == "range-of":
		return refuse("the chunks of job %s are those of a range, and in no file: leave --chunks out", jobs.Name(again.Job)[:shortName])
	case isSet(ctx, "chunks"):
		from = ctx.String("chunks")
	case from == "-":
		return refuse("the chunks of job %s came from standard input: --chunks FILE names them, or --chunks -", jobs.Name(again.Job)[:shortName])
	}
	operands := []string{"--", module, from}
	if kind != "" {
		flags[kind], operands = from, operands[:2]
	}
	if isSet(ctx, "with-context") {
		flags["context"] = ctx.String("with-context")
	}
	dirs, err := replaceDirs(s.Lists["dir"], ctx.StringSlice("with-dir"))
	if err != nil {
		return err
	}
	args := []string{"wasm-jobs", "run"}
	for name, values := range s.Lists {
		if name == "dir" {
			values = dirs
		}
		for _, value := range values {
			args = append(args, "--"+name+"="+value)
		}
	}
	for name, value := range flags {
		args = append(args, "--"+name+"="+value)
	}
	return runApp(ctx.Context, c, again, append(args, operands...))
}

// runApp is the command with run alone, as a redrive of a job.
func runApp(ctx context.Context, c *console, again *redriven, args []string) error {
	app := &cli.App{
		Name: "wasm-jobs", Writer: c.out, ErrWriter: c.err, HideHelp: true,
		Commands:                  []*cli.Command{runAgain(c, again)},
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {},
	}
	return app.RunContext(ctx, args)
}
