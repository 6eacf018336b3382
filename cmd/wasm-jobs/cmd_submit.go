package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/progress"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

// ranOnly are flags of run that apply to one run, and not to its job.
var ranOnly = []string{
	"output", "outputs", "format", "concat", "workers", "store", "on", "no-store", "rerun", "engine", "verify", "verify-engine", "partial", "dead-letter",
	"bundle", "report", "receipt", "events", "grace", "log-level", "metrics", "trace-otlp",
}

func submitCommand(c *console) *cli.Command {
	flags := sharedFlags(
		&cli.StringFlag{Name: "priority", Value: "default", Usage: "0 to 255, or lowest, background, default, high or maximum"},
		&cli.IntFlag{Name: "max-concurrency", DefaultText: "no limit", Usage: "maximum number of chunks of the job that run at once, on all workers"},
		&cli.StringFlag{Name: "max-upload", Value: "4GiB", Usage: "maximum size of the data that is sent to the database"},
		&cli.StringFlag{Name: "shared", Usage: "keep module and chunks in `DIR`, which all machines share, instead of the database"},
		jsonFlag(),
	)
	for _, flag := range runFlags() {
		if !slices.Contains(ranOnly, nameOf(flag)) {
			flags = append(flags, flag)
		}
	}
	return &cli.Command{
		Name: "submit", Usage: "submit a job to the workers of a shared store, and print its id",
		UsageText: `wasm-jobs submit --store URL [flags] MODULE CHUNKS
       wasm-jobs submit --store URL [flags] MODULE --lines|--jsonl|--csv|--parquet|--arrow|--files|--range-of ...

Example: job=$(wasm-jobs submit --store postgres://jobs@db/jobs square.wasm chunks.cbor)
         wasm-jobs wait --store postgres://jobs@db/jobs $job -o result.cbor

The job is the same as with wasm-jobs run and the same flags. Data that is in the store
already is not sent again. A job that was submitted before gets the new priority,
concurrency, retries and name.`,
		ArgsUsage: "MODULE [CHUNKS]",
		Flags:     flags,
		Action: func(ctx *cli.Context) error {
			url, err := sharedStore(ctx)
			if err != nil {
				return err
			}
			s, err := parseSubmission(ctx)
			if err != nil {
				return err
			}
			o, err := parseRun(ctx)
			if err != nil {
				return err
			}
			s.url = url
			id, err := s.submit(ctx.Context, c, o)
			if err != nil {
				return err
			}
			if ctx.Bool("json") {
				return outputError(writeJSON(c.out, id))
			}
			_, err = fmt.Fprintln(c.out, id.Job)
			return outputError(err)
		},
	}
}

// handingIn has the options of submit.
type handingIn struct {
	cluster.Submission
	url, shared string
	insecure    bool
}

func parseSubmission(ctx *cli.Context) (*handingIn, error) {
	h := &handingIn{shared: ctx.String("shared"), insecure: ctx.Bool("insecure")}
	var err error
	if h.Priority, err = parsePriority(ctx.String("priority")); err != nil {
		return nil, err
	}
	if h.MaxConcurrency = ctx.Int("max-concurrency"); h.MaxConcurrency < 0 {
		return nil, usageErrorf("invalid --max-concurrency %d: want 0 (no limit) or more", h.MaxConcurrency)
	}
	h.MaxUpload, err = parseSize[int64](ctx, "max-upload")
	return h, err
}

// priorities maps names to priorities.
var priorities = map[string]int{"lowest": 0, "background": 63, "default": 127, "high": 191, "maximum": 255}

func parsePriority(s string) (int, error) {
	if n, ok := priorities[s]; ok {
		return n, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > 255 {
		return 0, usageErrorf("invalid --priority %q: want 0 to 255, or lowest, background, default, high or maximum", s)
	}
	return n, nil
}

// handedIn is the output of submit with --json.
type handedIn struct {
	Job    string `json:"job"`
	State  string `json:"state"`
	Upload struct {
		Bytes   int64 `json:"bytes"`
		Skipped int64 `json:"skipped"`
	} `json:"upload"`
}

// submit reads the parts of the job, and submits it.
func (h *handingIn) submit(ctx context.Context, c *console, o *runOptions) (*handedIn, error) {
	display := newDisplay(c, o)
	defer display.Close()
	job, closeJob, err := o.job(ctx, c, display)
	if err != nil {
		return nil, err
	}
	defer closeJob()
	s, err := openURL(ctx, h.url, h.options(display))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	h.Store = s
	if h.shared != "" {
		if h.Shared, err = cluster.SharedDir(h.shared, s); err != nil {
			return nil, usageErrorf("--shared: %w", err)
		}
	}
	last := time.Now()
	h.Progress = func(chunks, total int) {
		if time.Since(last) >= progress.Every {
			last = time.Now()
			display.Say("submit: %d of %s sent", chunks, plural(total, "chunk"))
		}
	}
	u, err := cluster.Submit(ctx, job, h.Submission)
	if err != nil {
		return nil, interrupted(ctx, submitError(err))
	}
	display.Say("submit: job %s, %s; %s sent, %s were there already", journal.Name(u.Job)[:shortName], u.State, humanize.IBytes(uint64(u.Sent)), humanize.IBytes(uint64(u.Skipped)))
	id := &handedIn{Job: journal.Name(u.Job), State: u.State}
	id.Upload.Bytes, id.Upload.Skipped = u.Sent, u.Skipped
	return id, nil
}

func (h *handingIn) options(display *progress.Display) postgres.Options {
	return postgres.Options{Create: true, Insecure: h.insecure, Notice: func(line string) { display.Say("store: %s", line) }}
}

// submitError gives an error of the store its exit code.
func submitError(err error) error {
	if _, large := errors.AsType[*cluster.TooLargeError](err); large {
		return usageErrorf("%w", err)
	}
	if exitCode(err) != exitRefused {
		return err
	}
	return storeError(err)
}

// job makes a job of files and flags, without running it, and opens the files of its results,
// which only run --on has. The caller closes it with closeJob.
func (o *runOptions) job(ctx context.Context, c *console, display *progress.Display) (job *host.Job, closeJob func(), err error) {
	job = &host.Job{Options: o.options, Settings: o.settings, Retry: o.retry}
	o.describe(job)
	if job.Module, err = readModule(o.module); err != nil {
		return nil, nil, err
	}
	modules, err := openEngine(context.WithoutCancel(ctx), compiler)
	if err != nil {
		return nil, nil, err
	}
	engine := host.NewEngine(modules)
	closing := []func(){func() { engine.Close(context.WithoutCancel(ctx)) }}
	closeAll := func() {
		for _, f := range slices.Backward(closing) {
			f()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	if job.Admitted, err = engine.Admit(ctx, job.Module, job.Options); err != nil {
		return nil, nil, o.ofModule(interrupted(ctx, err))
	}
	if o.context != "" {
		if job.Settings.Context, err = readContext(o.context); err != nil {
			return nil, nil, err
		}
	}
	if job.Settings.Command, err = o.wasi.read(ctx); err != nil {
		return nil, nil, err
	}
	if err = job.Admitted.Fits(job.Settings); err != nil {
		return nil, nil, o.ofModule(err)
	}
	if err = errors.Join(o.checkReceipt(job), o.checkConcat(job.Admitted)); err != nil {
		return nil, nil, err
	}
	if err = o.files.open(c.out); err != nil {
		return nil, nil, err
	}
	file, err := openChunks(ctx, c, o, display)
	if err != nil {
		return nil, nil, interrupted(ctx, err)
	}
	closing = append(closing, func() { file.Close() })
	for _, warning := range warningsOf(file, o) {
		display.Say("warning: %s", warning)
	}
	if err = o.checkNames(file); err != nil {
		return nil, nil, err
	}
	if job.Chunks, err = o.selection.of(ctx, file, display); err != nil {
		return nil, nil, interrupted(ctx, err)
	}
	job.MaxFailures = o.maxFailures.of(job.Chunks.Len())
	return job, closeAll, nil
}
