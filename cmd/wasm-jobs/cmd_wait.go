package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/progress"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

func waitCommand(c *console) *cli.Command {
	flags := sharedFlags(
		&cli.DurationFlag{Name: "timeout", Usage: "longest time to wait; 0 = until the job is over"},
		&cli.StringFlag{Name: "shared", Usage: "read module and chunks from `DIR`"},
	)
	for _, flag := range runFlags() {
		switch nameOf(flag) {
		case "output", "outputs", "dead-letter", "report", "receipt", "bundle", "format", "progress", "events", "concat":
			flags = append(flags, flag)
		}
	}
	return &cli.Command{
		Name: "wait", Usage: "wait for a job that workers execute, and write its results as run does",
		UsageText: "wasm-jobs wait [flags] JOB\n\nExample: wasm-jobs wait 3f2a -o result.cbor --receipt receipt.json\n\n" + exitHelp,
		ArgsUsage: "JOB",
		Flags:     flags,
		Action: func(ctx *cli.Context) error {
			name, err := storeDir(ctx)
			if err != nil {
				return err
			}
			if !postgres.IsURL(name) {
				return waitLocal(ctx, c)
			}
			w, o, err := parseWait(ctx)
			if err != nil {
				return err
			}
			return sharedJob(ctx, c, func(s *postgres.Store, j *journal.Record) error {
				if err := o.files.open(c.out); err != nil {
					return err
				}
				defer o.files.discard()
				return w.wait(ctx.Context, c, o, s, j.Record.ID)
			})
		},
	}
}

// waiting has the options of wait.
type waiting struct {
	timeout time.Duration
	shared  string
	after   int64 // the event that was shown last
}

func parseWait(ctx *cli.Context) (*waiting, *runOptions, error) {
	o := &runOptions{format: ctx.String("format"), progress: ctx.String("progress"), logLevel: 127, store: "shared"}
	o.files = resultFiles{
		concat: ctx.Bool("concat"), result: ctx.String("output"), outputs: ctx.String("outputs"), deadLetter: ctx.String("dead-letter"),
		receipt: ctx.String("receipt"), events: ctx.String("events"), bundle: ctx.String("bundle"),
	}
	var err error
	if o.files.reports, err = reportPaths(ctx); err != nil {
		return nil, nil, err
	}
	if ctx.Duration("timeout") < 0 {
		return nil, nil, usageErrorf("invalid --timeout %s: want 0 or more", ctx.Duration("timeout"))
	}
	return &waiting{timeout: ctx.Duration("timeout"), shared: ctx.String("shared")}, o, checkFormat(ctx, o)
}

var errTimeout = errors.New("timed out before the job was over")

// wait waits for a job, and writes its results to files that are open.
func (w *waiting) wait(ctx context.Context, c *console, o *runOptions, s *postgres.Store, id store.JobID) error {
	display := newDisplay(c, o)
	defer display.Close()
	limited := ctx
	if w.timeout > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, w.timeout)
		defer cancel()
	}
	p, err := cluster.Wait(limited, s, id, func(p *postgres.Progress) error { return w.show(limited, display, s, p) })
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("%w: the job goes on: wasm-jobs wait %s waits again, wasm-jobs cancel %s ends it", host.ErrInterrupted, journal.Name(id)[:shortName], journal.Name(id)[:shortName])
	case errors.Is(err, context.DeadlineExceeded):
		return &exitError{exitTimeout, fmt.Errorf("%w: wasm-jobs wait %s waits again", errTimeout, journal.Name(id)[:shortName])}
	case errors.Is(err, store.ErrNoJob):
		return usageErrorf("unknown job %s: it is not shared by workers, or was deleted", journal.Name(id)[:shortName])
	case err != nil:
		return storeError(err)
	}
	return w.write(context.WithoutCancel(ctx), c, o, s, p, display, id)
}

// show shows the progress of the job, and its new events.
func (w *waiting) show(ctx context.Context, display *progress.Display, s *postgres.Store, p *postgres.Progress) error {
	display.Progress("execute", host.Counts{Total: p.Total, Succeeded: p.Succeeded, Reused: p.Reused, Failed: p.Failed})
	if display.Wants() == 0 {
		return nil
	}
	for {
		events, err := s.Events(ctx, p.Number, w.after)
		if err != nil || len(events) == 0 {
			return err
		}
		display.Observe(cluster.Events(events))
		w.after = events[len(events)-1].N
	}
}

// write writes the results of a job that is over.
func (w *waiting) write(ctx context.Context, c *console, o *runOptions, s *postgres.Store, p *postgres.Progress, display *progress.Display, id store.JobID) error {
	record, err := journal.Find(ctx, s, journal.Name(id))
	if err != nil {
		return storeError(err)
	}
	modules, err := openEngine(ctx, compiler)
	if err != nil {
		return err
	}
	engine := host.NewEngine(modules)
	defer engine.Close(ctx)
	var shared cluster.Blobs
	if w.shared != "" {
		if shared, err = cluster.SharedDir(w.shared, s); err != nil {
			return usageErrorf("--shared: %w", err)
		}
	}
	o.module, o.files.asked = record.Spec.Module.Path, &record.Spec
	result, runErr := cluster.Collect(ctx, s, &cluster.Collection{Record: record.Record, Progress: p, Engine: engine, Shared: shared, Outputs: o.files.outputs != ""})
	if result == nil {
		return storeError(runErr)
	}
	if o.files.concat && result.HasAggregate() {
		return usageErrorf("invalid --concat: the result of the job is its aggregate, not its outputs; leave it out")
	}
	if err := fillReport(ctx, &result.Report, s, p); err != nil {
		return storeError(err)
	}
	result.Report.Module.Path = o.module
	if err := errors.Join(display.Finish(result), o.files.placeEvents()); err != nil {
		return &exitError{exitStore, fmt.Errorf("events could not be written: %w", err)}
	}
	return o.conclude(c, result, endError(runErr))
}

// endError gives the end of a job its exit code.
func endError(err error) error {
	if broken, ok := errors.AsType[*cluster.BrokenError](err); ok {
		if broken.By == "fold" || broken.By == "init" {
			return &exitError{exitFold, broken}
		}
		return &exitError{exitStore, broken}
	}
	if errors.Is(err, cluster.ErrCancelled) {
		return &exitError{exitFailed, err}
	}
	return err
}

// fillReport adds the fields of a report that only the database knows.
func fillReport(ctx context.Context, r *host.Report, s *postgres.Store, p *postgres.Progress) error {
	r.Store = storeReport(s, "")
	shared := &host.SharedReport{
		Priority: p.Priority, MaxConcurrency: p.MaxConcurrency, Executions: p.Executions, Leases: host.LeaseReport(p.Leases), Mended: p.Mended,
		Upload: host.UploadReport{Bytes: p.Sent, Skipped: p.Skipped}, WorkerList: []host.WorkerReport{},
	}
	r.SharedReport = shared
	work, err := s.WorkOn(ctx, p.Number)
	if err != nil {
		return err
	}
	r.Workers = work.Most
	for _, w := range work.Workers {
		shared.WorkerList = append(shared.WorkerList, host.WorkerReport{Name: w.Name, App: w.App, Host: w.Host, Chunks: w.Chunks, Seconds: w.Busy.Seconds(), Lost: w.Lost})
	}
	return nil
}

// runOn submits a job, and waits for it.
func runOn(ctx context.Context, c *console, o *runOptions) error {
	defer o.files.discard()
	h := &handingIn{url: o.on, insecure: o.insecure, Submission: cluster.Submission{Priority: priorities["default"], MaxUpload: 4 << 30}}
	id, err := h.submit(ctx, c, o)
	if err != nil {
		return err
	}
	s, err := openURL(ctx, o.on, postgres.Options{Insecure: o.insecure})
	if err != nil {
		return err
	}
	defer s.Close()
	record, err := journal.Find(ctx, s, id.Job)
	if err != nil {
		return storeError(err)
	}
	return new(waiting).wait(ctx, c, o, s, record.Record.ID)
}

// checkFormat rejects unknown formats.
func checkFormat(ctx *cli.Context, o *runOptions) error {
	if !slices.Contains([]string{"json", "diag", "cbor"}, o.format) {
		return usageErrorf("invalid --format %q: want json, diag or cbor", o.format)
	}
	if o.files.concat && isSet(ctx, "format") {
		return usageErrorf("--concat and --format exclude each other: give one of them")
	}
	return checkProgress(o.progress)
}
