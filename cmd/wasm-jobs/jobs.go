package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/jobs"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

// shortName is how many digits of a job's id are shown.
const shortName = 12

func storeFlag() cli.Flag {
	return &cli.StringFlag{Name: "store", DefaultText: "the user's cache directory", Usage: "the store is in `DIR`"}
}

func jsonFlag() cli.Flag { return &cli.BoolFlag{Name: "json", Usage: "as JSON"} }

// records opens the store that a command is about. It is nil where there is
// none: that is one without jobs, and none is made.
func records(ctx *cli.Context, c *console) (*sqlite.Store, error) {
	dir, err := storeDir(ctx)
	if err != nil {
		return nil, err
	}
	if !sqlite.Exists(dir) {
		return nil, nil
	}
	s, err := sqlite.Open(ctx.Context, dir, sqlite.Options{
		Notice:  func(line string) { fmt.Fprintf(c.err, "wasm-jobs: store: %s\n", line) },
		Damaged: func(d sqlite.Damage) { fmt.Fprintf(c.err, "wasm-jobs: store: %s\n", damageLine(d)) },
	})
	if err != nil {
		return nil, &exitError{exitStore, fmt.Errorf("the store cannot be opened: %w", err)}
	}
	return s, nil
}

func damageLine(d sqlite.Damage) string {
	where := ""
	if id, ok := abi.ParseOrderKey(d.Order); ok {
		where = fmt.Sprintf(" of chunk %v", id)
	}
	return fmt.Sprintf("the output%s (chunk sha256 %x) is damaged: it is dropped, and computed again when it is needed", where, d.Chunk[:8])
}

// storeDir returns the directory that --store names.
func storeDir(ctx *cli.Context) (string, error) {
	if isSet(ctx, "store") {
		if ctx.String("store") == "" {
			return "", refuse("--store needs a directory")
		}
		return ctx.String("store"), nil
	}
	dir, err := cacheDir()
	if err != nil {
		return "", refuse("no place for the store: %w; --store DIR names one", err)
	}
	return dir, nil
}

// failedStore gives an error of reading or changing the store its exit code.
func failedStore(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if _, done := errors.AsType[*exitError](err); done {
		return err
	}
	return &exitError{exitStore, fmt.Errorf("the store failed: %w", err)}
}

// withJob opens the store and calls f with the job that the first argument
// names; of no argument, with that of the latest run, where optional.
func withJob(ctx *cli.Context, c *console, optional bool, f func(s *sqlite.Store, j *jobs.Job) error) (err error) {
	prefix := strings.TrimSpace(ctx.Args().First())
	if prefix == "" && !optional {
		return refuse("%s needs a JOB: its id, or the beginning of it; wasm-jobs list shows them", ctx.Command.Name)
	}
	s, err := records(ctx, c)
	if err != nil {
		return err
	}
	if s == nil {
		return unknownJob(ctx, prefix)
	}
	defer func() { err = errors.Join(err, failedStore(s.Close())) }()
	j, err := jobs.Find(ctx.Context, s, prefix)
	if _, ambiguous := errors.AsType[*jobs.AmbiguousError](err); ambiguous {
		return refuse("%w: give more of it", err)
	}
	if errors.Is(err, store.ErrNoJob) {
		return unknownJob(ctx, prefix)
	}
	if err != nil {
		return failedStore(err)
	}
	return f(s, j)
}

func unknownJob(ctx *cli.Context, prefix string) error {
	dir, err := storeDir(ctx)
	if err != nil {
		return err
	}
	if prefix == "" {
		return refuse("no jobs in the store in %s", dir)
	}
	return refuse("no job begins with %q in the store in %s; wasm-jobs list shows them", prefix, dir)
}

// arguments refuses what is more than most arguments.
func arguments(ctx *cli.Context, most int) error {
	if ctx.NArg() > most {
		return refuse("%s takes at most %d arguments, and %d are given", ctx.Command.Name, most, ctx.NArg())
	}
	return nil
}

// jobState is a job as list and status show it.
type jobState struct {
	Job     string            `json:"job"`
	Name    string            `json:"name"`
	Meta    map[string]string `json:"meta,omitempty"`
	State   string            `json:"state"`
	Error   string            `json:"error,omitempty"`
	Runs    int               `json:"runs"`
	Host    string            `json:"host,omitempty"` // of the last run
	PID     int               `json:"pid,omitempty"`
	Started time.Time         `json:"started"`
	Seen    time.Time         `json:"seen"`
	Ended   time.Time         `json:"ended,omitzero"`
	Total   int               `json:"total"`
}

func stateOf(j *jobs.Job) jobState {
	last := j.Last()
	p := jobs.ProcessOf(last)
	return jobState{
		Job: jobs.Name(j.Record.ID), Name: j.Spec.Name, Meta: j.Spec.Meta, State: j.State(), Error: j.Error(),
		Runs: len(j.Runs), Host: p.Host, PID: p.PID,
		Started: last.Started, Seen: last.Seen, Ended: last.Ended, Total: j.Record.Total,
	}
}

// listed is a line of list.
type listed struct {
	jobState
	Pending   int `json:"pending"`
	Active    int `json:"active"`
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
}

func listCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "list the jobs of the store, those with the latest run first",
		UsageText: "wasm-jobs list [--store DIR] [--json]\n\nExample: wasm-jobs list",
		Flags:     []cli.Flag{storeFlag(), jsonFlag()},
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 0); err != nil {
				return err
			}
			return list(ctx, c)
		},
	}
}

func list(ctx *cli.Context, c *console) (err error) {
	s, err := records(ctx, c)
	if err != nil {
		return err
	}
	all := []listed{}
	if s != nil {
		defer func() { err = errors.Join(err, failedStore(s.Close())) }()
		for j, err := range jobs.List(ctx.Context, s) {
			if err != nil {
				return failedStore(err)
			}
			l := listed{jobState: stateOf(j)}
			if l.Pending, l.Active, l.Succeeded, l.Failed, err = j.Counts(ctx.Context); err != nil {
				return failedStore(err)
			}
			all = append(all, l)
		}
	}
	if ctx.Bool("json") {
		return written(writeJSON(c.out, all))
	}
	t := newTable(c.out)
	if len(all) > 0 {
		t.row("JOB", "NAME", "STATE", "SUCCEEDED", "FAILED", "STARTED", "TOOK")
	}
	for _, l := range all {
		t.row(l.Job[:shortName], l.Name, l.State, fmt.Sprintf("%d/%d", l.Succeeded, l.Total), l.Failed,
			l.Started.Local().Format(time.DateTime), took(&l.jobState))
	}
	return written(t.flush())
}

// took says how long the last run took, as far as that is known.
func took(s *jobState) string {
	end := s.Ended
	if end.IsZero() {
		end = s.Seen
	}
	return end.Sub(s.Started).Round(time.Millisecond).String()
}

func statusCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "say how far a job is, by chunk, while it runs and afterwards",
		UsageText: "wasm-jobs status [--store DIR] [--json] [JOB]\n\nJOB is an id or the beginning of one; without it, the job with the latest run.\n\nExample: wasm-jobs status 3f2a",
		ArgsUsage: "[JOB]",
		Flags:     []cli.Flag{storeFlag(), jsonFlag()},
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 1); err != nil {
				return err
			}
			return withJob(ctx, c, true, func(_ *sqlite.Store, j *jobs.Job) error {
				s, err := j.Status(ctx.Context)
				if err != nil {
					return failedStore(err)
				}
				if ctx.Bool("json") {
					return written(writeJSON(c.out, struct {
						jobState
						*jobs.Status
					}{stateOf(j), s}))
				}
				return written(printStatus(c.out, j, s))
			})
		},
	}
}

func printStatus(out io.Writer, j *jobs.Job, s *jobs.Status) error {
	t := newTable(out)
	state := stateOf(j)
	t.field("job", "%s", state.Job)
	t.field("name", "%s", state.Name)
	t.field("state", "%s%s", state.State, circumstances(&state))
	if state.Error != "" {
		t.field("error", "%s", state.Error)
	}
	for _, g := range []struct {
		name string
		jobs.Group
	}{{"pending", s.Pending}, {"active", s.Active}, {"succeeded", s.Succeeded}, {"failed", s.Failed}} {
		t.row(g.name, g.Count, shortText(g.IDs.String()))
	}
	return t.flush()
}

// circumstances say where and since when a state is.
func circumstances(s *jobState) string {
	where := fmt.Sprintf("process %d on %s", s.PID, s.Host)
	switch s.State {
	case jobs.Running:
		return fmt.Sprintf(" since %s, %s, last seen %s", s.Started.Local().Format(time.DateTime), where, humanize.Time(s.Seen))
	case jobs.Died:
		return fmt.Sprintf(": %s has given no end, last seen %s; the same command goes on", where, humanize.Time(s.Seen))
	}
	return fmt.Sprintf(" %s, after %s", s.Ended.Local().Format(time.DateTime), took(s))
}

// maxText bounds what is shown of many ids.
const maxText = 2000

func shortText(s string) string {
	if len(s) <= maxText {
		return s
	}
	cut := strings.LastIndexByte(s[:maxText], ',')
	return s[:max(cut, 0)] + ",... (--json has all)"
}

func infoCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "info", Usage: "say how one chunk of a job fared: state, attempts with errors and stacks, output and fuel",
		UsageText: "wasm-jobs info [--store DIR] [--json] JOB CHUNK\n\nCHUNK is a chunk's id; a text that looks like a number is written in double quotes.\n\nExample: wasm-jobs info 3f2a 17",
		ArgsUsage: "JOB CHUNK",
		Flags:     []cli.Flag{storeFlag(), jsonFlag()},
		Action: func(ctx *cli.Context) error {
			id, err := chunkArgument(ctx, true)
			if err != nil {
				return err
			}
			return withJob(ctx, c, false, func(_ *sqlite.Store, j *jobs.Job) error {
				chunk, err := j.Chunk(ctx.Context, *id)
				if errors.Is(err, jobs.ErrNoChunk) {
					return refuse("%w", err)
				}
				if err != nil {
					return failedStore(err)
				}
				if ctx.Bool("json") {
					return written(writeJSON(c.out, chunk))
				}
				return written(printChunk(c.out, chunk))
			})
		},
	}
}

// chunkArgument reads the second argument, an id.
func chunkArgument(ctx *cli.Context, needed bool) (*abi.ID, error) {
	if err := arguments(ctx, 2); err != nil {
		return nil, err
	}
	if ctx.NArg() < 2 {
		if needed {
			return nil, refuse("%s needs a JOB and a CHUNK", ctx.Command.Name)
		}
		return nil, nil
	}
	id, err := abi.ParseID(ctx.Args().Get(1))
	if err != nil {
		return nil, refuse("%w", err)
	}
	return &id, nil
}

func printChunk(out io.Writer, chunk *jobs.Chunk) error {
	t := newTable(out)
	t.field("chunk", "%v", chunk.ID)
	t.field("state", "%s", chunk.State)
	switch {
	case chunk.Output != nil:
		t.field("output", "%s, %d bytes, fuel %d", chunk.Output.Digest, chunk.Output.Size, chunk.Output.Fuel)
	case chunk.Digest != "":
		t.field("output", "gone: it was damaged, or deleted; the next run computes it again")
	}
	for _, a := range chunk.Attempts {
		t.field("attempt", "%s", attemptLine(&a))
		for _, frame := range a.Stack {
			t.field("", "    at %s", frame)
		}
	}
	return t.flush()
}

func attemptLine(a *jobs.Attempt) string {
	line := fmt.Sprintf("%d of run %d: %s", a.Attempt, a.Run, a.State)
	if a.State == "reused" {
		return fmt.Sprintf("run %d: the output was there", a.Run)
	}
	if a.Class != "" {
		line += fmt.Sprintf(" (%s: %s)", a.Class, a.Message)
	}
	return line + fmt.Sprintf(", worker %d on %s, %s, %v", a.Worker, a.Host, a.Start.Local().Format("2006-01-02 15:04:05.000"), a.End.Sub(a.Start).Round(time.Microsecond))
}

func describeCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "describe", Usage: "say what a job is: module, chunks, settings, metadata and runs",
		UsageText: "wasm-jobs describe [--store DIR] [--json] JOB\n\nExample: wasm-jobs describe 3f2a",
		ArgsUsage: "JOB",
		Flags:     []cli.Flag{storeFlag(), jsonFlag()},
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 1); err != nil {
				return err
			}
			return withJob(ctx, c, false, func(_ *sqlite.Store, j *jobs.Job) error {
				d := describe(j)
				if ctx.Bool("json") {
					return written(writeJSON(c.out, d))
				}
				return written(printDescribed(c.out, d))
			})
		},
	}
}

// described is a job's specification, with its runs.
type described struct {
	Job     string    `json:"job"`
	Created time.Time `json:"created"`
	jobs.Spec
	Runs []describedRun `json:"runs"`
}

type describedRun struct {
	Number int `json:"number"`
	jobs.Process
	State   string          `json:"state"`
	Started time.Time       `json:"started"`
	Ended   time.Time       `json:"ended,omitzero"`
	Report  json.RawMessage `json:"report,omitempty"`
}

func describe(j *jobs.Job) *described {
	d := &described{Job: jobs.Name(j.Record.ID), Created: j.Record.Created, Spec: j.Spec}
	for i := range j.Runs {
		run := &j.Runs[i]
		d.Runs = append(d.Runs, describedRun{run.Number, jobs.ProcessOf(run), j.StateOf(run), run.Started, run.Ended, run.Report})
	}
	return d
}

func printDescribed(out io.Writer, d *described) error {
	t := newTable(out)
	row := t.field
	row("job", "%s", d.Job)
	row("name", "%s", d.Name)
	for _, key := range slices.Sorted(mapKeys(d.Meta)) {
		row("meta", "%s=%s", key, d.Meta[key])
	}
	row("created", "%s", d.Created.Local().Format(time.DateTime))
	row("module", "%s %s", d.Module.Digest, d.Module.Path)
	row("chunks", "%s %s, %d chunks", d.Chunks.Digest, d.Chunks.Path, d.Total)
	if d.Context != "" {
		row("context", "%s", d.Context)
	}
	settings, err := json.Marshal(d.Settings)
	if err != nil {
		return err
	}
	row("settings", "%s", settings)
	if len(d.Command) > 0 {
		row("command", "%s", d.Command)
	}
	for _, run := range d.Runs {
		end := "no end"
		if !run.Ended.IsZero() {
			end = run.Ended.Sub(run.Started).Round(time.Millisecond).String()
		}
		row("run", "%d: %s, process %d on %s, %d workers, %s, %s", run.Number, run.State, run.PID, run.Host, run.Workers,
			run.Started.Local().Format(time.DateTime), end)
	}
	return t.flush()
}

func mapKeys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for key := range m {
			if !yield(key) {
				return
			}
		}
	}
}

func outputCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "output", Usage: "print or export the outputs of a job, or its aggregate, without running anything",
		UsageText: "wasm-jobs output [flags] JOB [CHUNK]\n\nExample: wasm-jobs output 3f2a > outputs.jsonl\n         wasm-jobs output 3f2a -o outputs.cbor\n         wasm-jobs output 3f2a 17 -f diag",
		ArgsUsage: "JOB [CHUNK]",
		Flags: []cli.Flag{
			storeFlag(), &cli.BoolFlag{Name: "json", Usage: "-f json"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write CBOR, or what --concat gives, to `FILE` (- = stdout): of a job a chunk file, as run --outputs does"},
			&cli.StringFlag{Name: "outputs", Usage: "write all outputs to `FILE` as run --outputs does: CBOR, .jsonl, .csv, or a file for each in a directory"},
			&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "json", Usage: "how it goes to stdout: json, diag or cbor"},
			&cli.BoolFlag{Name: "concat", Usage: "the bytes of outputs, which are byte strings, one after another in id order, as run --concat"},
			&cli.BoolFlag{Name: "aggregate", Usage: "the job's aggregate instead of its outputs"},
		},
		Action: func(ctx *cli.Context) error {
			id, err := chunkArgument(ctx, false)
			if err != nil {
				return err
			}
			format := ctx.String("format")
			switch {
			case !slices.Contains([]string{"json", "diag", "cbor"}, format):
				return refuse("--format %q is none of json, diag, cbor", format)
			case ctx.Bool("json") && isSet(ctx, "format") && format != "json":
				return refuse("--json and --format %s exclude each other: give one of them", format)
			case id != nil && ctx.Bool("aggregate"):
				return refuse("--aggregate is of the whole job: give it or a CHUNK")
			case isSet(ctx, "outputs") && (id != nil || ctx.Bool("aggregate") || ctx.Bool("concat") || isSet(ctx, "output")):
				return refuse("--outputs is all that is written: give it without CHUNK, --aggregate, --concat and --output")
			case ctx.Bool("concat") && (ctx.Bool("json") || isSet(ctx, "format")):
				return refuse("--concat and --format exclude each other: give one of them")
			case ctx.Bool("concat") && ctx.Bool("aggregate"):
				return refuse("--concat is of outputs, and --aggregate is none: give one of them")
			case ctx.Bool("concat"):
				format = concatenated
			}
			return withJob(ctx, c, false, func(_ *sqlite.Store, j *jobs.Job) error {
				return output(ctx, c, j, id, format)
			})
		},
	}
}

func output(ctx *cli.Context, c *console, j *jobs.Job, id *abi.ID, format string) error {
	files := resultFiles{result: ctx.String("output"), outputs: ctx.String("outputs")}
	if err := files.open(c.out); err != nil {
		return err
	}
	defer files.discard()
	if files.outputs != "" {
		return concluded(files.writeOutputs(func(each func(abi.ID, []byte) error) error {
			return eachJobOutput(ctx.Context, c, j, each)
		}))
	}
	to := &target{path: "-", out: c.out}
	if files.result != "" {
		if to = files.targets[files.result]; format != concatenated {
			format = "cbor"
		}
	}
	err := to.write(func(w *bufio.Writer) error {
		switch {
		case id != nil:
			return writeChunkOutput(ctx.Context, w, j, *id, format)
		case ctx.Bool("aggregate"):
			return writeAggregate(ctx.Context, w, j, format)
		}
		return writeJobOutputs(ctx.Context, c, w, j, format)
	})
	return concluded(err)
}

// concluded gives an error of writing its exit code, unless it has one.
func concluded(err error) error {
	if _, said := errors.AsType[*exitError](err); said || errors.Is(err, context.Canceled) {
		return err
	}
	return written(err)
}

func writeChunkOutput(ctx context.Context, w *bufio.Writer, j *jobs.Job, id abi.ID, format string) error {
	chunk, err := j.Chunk(ctx, id)
	switch {
	case errors.Is(err, jobs.ErrNoChunk):
		return refuse("%w", err)
	case err != nil:
		return failedStore(err)
	case chunk.Output == nil && chunk.Digest != "":
		return &exitError{exitFailed, fmt.Errorf("the output of chunk %v is gone: it was damaged or deleted; run the job again", id)}
	case chunk.Output == nil:
		return &exitError{exitFailed, fmt.Errorf("chunk %v has no output: it is %s", id, chunk.State)}
	}
	if format == concatenated {
		return writeBytes(w, id, chunk.Output.Output)
	}
	return writeItem(w, chunk.Output.Output, format)
}

func writeAggregate(ctx context.Context, w *bufio.Writer, j *jobs.Job, format string) error {
	aggregate, err := j.Aggregate(ctx)
	if err != nil {
		return failedStore(err)
	}
	if aggregate == nil {
		return &exitError{exitFailed, fmt.Errorf("job %s has no aggregate", jobs.Name(j.Record.ID)[:shortName])}
	}
	return writeItem(w, aggregate, format)
}

// writeJobOutputs writes all outputs there are. Those that are gone are an
// error in the end, and what was written is all the same.
func writeJobOutputs(ctx context.Context, c *console, w *bufio.Writer, j *jobs.Job, format string) error {
	var entry []byte
	err := eachJobOutput(ctx, c, j, func(id abi.ID, output []byte) error {
		if format == concatenated {
			return writeBytes(w, id, output)
		}
		entry = abi.AppendOutput(entry[:0], id, output)
		return writeItem(w, entry, format)
	})
	if _, gone := errors.AsType[*exitError](err); gone {
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return err
}

// eachJobOutput calls each for all outputs there are. Those that are gone are
// an error in the end.
func eachJobOutput(ctx context.Context, c *console, j *jobs.Job, each func(abi.ID, []byte) error) error {
	count := 0
	var writing error
	gone, err := j.Outputs(ctx, func(o *jobs.Output) error {
		count++
		writing = each(o.ID, o.Output)
		return writing
	})
	switch {
	case writing != nil:
		return writing
	case err != nil:
		return failedStore(err)
	case !gone.Empty():
		return &exitError{exitFailed, fmt.Errorf("outputs are gone, damaged or deleted: %s; run the job again", shortText(gone.String()))}
	}
	if left := j.Record.Total - count; left > 0 {
		fmt.Fprintf(c.err, "wasm-jobs: %d of %d chunks have an output; wasm-jobs status shows the others\n", count, j.Record.Total)
	}
	return nil
}
