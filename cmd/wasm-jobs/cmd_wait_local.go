package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// defaultMaxDir is the default of --max-dir.
const defaultMaxDir = 256 << 20

// localWait waits for a job that a process runs with a store in a directory.
type localWait struct {
	o    *runOptions
	make bool // results are asked for
}

// resultFlags are the flags of wait that ask for results.
var resultFlags = []string{"output", "outputs", "dead-letter", "report", "receipt", "bundle", "format", "concat"}

// waitLocal waits for a job of a store in a directory, and exits as its run did. It makes
// results only if a flag asks for them: they need the module and the chunks.
func waitLocal(ctx *cli.Context, c *console) error {
	w, o, err := parseWait(ctx)
	if err != nil {
		return err
	}
	if isSet(ctx, "events") {
		return usageErrorf("--events of wait needs a shared store: the command that runs the job writes its events")
	}
	l := &localWait{o: o}
	for _, name := range resultFlags {
		l.make = l.make || isSet(ctx, name)
	}
	if err := arguments(ctx, 1); err != nil {
		return err
	}
	if err := withJob(ctx, c, false, func(recordStore, *journal.Record) error { return nil }); err != nil {
		return err
	}
	if l.make {
		c.signals.Cleanup(o.files.abandon)
		if err := o.files.open(c.out); err != nil {
			return err
		}
		defer o.files.discard()
	}
	limited := ctx.Context
	if w.timeout > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(limited, w.timeout)
		defer cancel()
	}
	for {
		over := false
		err := withJob(ctx, c, false, func(s recordStore, j *journal.Record) error {
			if over = j.State() != journal.Running; !over {
				return nil
			}
			return l.end(ctx, c, s, j)
		})
		if err != nil || over {
			return err
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-limited.Done():
			if ctx.Context.Err() != nil {
				return fmt.Errorf("%w: the job goes on", host.ErrInterrupted)
			}
			return &exitError{exitTimeout, fmt.Errorf("%w: wasm-jobs wait %s waits again", errTimeout, ctx.Args().First())}
		}
	}
}

// end makes the results of a job that is over, if they are asked for, and returns the error
// that is the exit code of its run.
func (l *localWait) end(ctx *cli.Context, c *console, s recordStore, j *journal.Record) error {
	err := localEnd(j)
	if !l.make {
		if err == nil && j.State() == journal.Failed {
			err = &exitError{exitFailed, nil}
		}
		return err
	}
	return l.results(ctx, c, s, j, err)
}

// localEnd returns the error that ended the last run of a job, nil if its chunks were all
// executed or have failed.
func localEnd(j *journal.Record) error {
	code := exitStore
	switch j.State() {
	case journal.Succeeded, journal.Failed:
		return nil
	case journal.Interrupted:
		return host.ErrInterrupted
	case journal.Crashed:
		return fmt.Errorf("%w: its process stopped without recording an end", host.ErrInterrupted)
	}
	switch j.BrokenBy() {
	case "init", "fold":
		code = exitFold
	case "difference":
		code = exitDiffers
	case "input":
		code = exitRefused
	}
	return &exitError{code, fmt.Errorf("the job is %s: %s", j.State(), j.Error())}
}

// results makes the results of a job from its record, its input and the stored outputs. No
// guest is called.
func (l *localWait) results(ctx *cli.Context, c *console, s recordStore, j *journal.Record, end error) error {
	again := &redriven{Redrive: &host.Redrive{}}
	if err := again.read(j); err != nil {
		return err
	}
	o, err := l.options(ctx, again)
	if err != nil {
		return err
	}
	display := newDisplay(c, o)
	defer display.Close()
	job, closeJob, err := o.job(context.WithoutCancel(ctx.Context), c, display)
	if err != nil {
		return err
	}
	defer closeJob()
	job.Redrive, job.Outputs = nil, o.files.outputs != ""
	err = errors.Join(again.checkModule(o.module, job.Module), again.checkInput(o, job), again.checkDirs(&o.wasi, &job.Settings.Command), o.checkConcat(job.Admitted))
	if err != nil {
		return err
	}
	gathered, err := gatheredOf(ctx.Context, j, end)
	if err != nil {
		return storeError(err)
	}
	modules, err := openEngine(ctx.Context, compiler)
	if err != nil {
		return err
	}
	engine := host.NewEngine(modules)
	defer engine.Close(context.WithoutCancel(ctx.Context))
	coordinator, err := host.New(ctx.Context, host.Config{Workers: 1, Engine: engine, Store: s})
	if err != nil {
		return err
	}
	defer coordinator.Close(context.WithoutCancel(ctx.Context))
	result, err := coordinator.Gather(ctx.Context, job, gathered)
	if result == nil {
		return o.ofModule(err)
	}
	r := &result.Report
	r.Job, r.State, r.Module.Path, r.Store = journal.Name(j.Record.ID), j.State(), o.module, storeReport(s, o.store)
	return o.conclude(c, result, err)
}

// options returns the options of the run of a recorded job.
func (l *localWait) options(ctx *cli.Context, again *redriven) (*runOptions, error) {
	job := host.JobOf(&again.asked)
	o := l.o
	o.again, o.options, o.settings, o.retry = again, job.Options, job.Settings, job.Retry
	o.wasi.Command, o.settings.Command = job.Settings.Command, runtime.Command{}
	if err := errors.Join(again.parsePlaces(ctx, o), o.parseStore(ctx)); err != nil {
		return nil, err
	}
	return o, o.checkRecorded()
}

// gatheredOf returns the work that the runs of a job did.
func gatheredOf(ctx context.Context, j *journal.Record, end error) (*host.Gathered, error) {
	_, _, succeeded, _, err := j.Counts(ctx)
	if err != nil {
		return nil, err
	}
	failed, err := j.Failures(ctx)
	if err != nil {
		return nil, err
	}
	var report host.Report
	_ = json.Unmarshal(j.Last().Report, &report) // fields that cannot be read stay empty
	g := &host.Gathered{Succeeded: succeeded, Reused: report.Chunks.Reused, Attempts: report.Attempts, Some: j.State() != journal.Succeeded, Err: end}
	for i := range failed {
		g.Failed = append(g.Failed, host.GatheredFailure{Chunk: failed[i].Chunk, Failure: &failed[i].Failure, Attempts: failed[i].Attempts})
	}
	return g, nil
}
