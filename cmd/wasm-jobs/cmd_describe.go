package main

import (
	"encoding/json"
	"io"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host/journal"
)

func describeCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "describe", Usage: "show a job's module, chunks, settings and runs",
		UsageText: "wasm-jobs describe [--store DIR] [--json] JOB\n\nExample: wasm-jobs describe 3f2a",
		ArgsUsage: "JOB",
		Flags:     []cli.Flag{storeFlag(), jsonFlag()},
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 1); err != nil {
				return err
			}
			return withJob(ctx, c, false, func(_ recordStore, j *journal.Record) error {
				d := describe(j)
				if ctx.Bool("json") {
					return outputError(writeJSON(c.out, d))
				}
				return outputError(printDescribed(c.out, d))
			})
		},
	}
}

// described is a job's specification, with its runs.
type described struct {
	Job     string    `json:"job"`
	Created time.Time `json:"created"`
	journal.Spec
	Runs []describedRun `json:"runs"`
}

type describedRun struct {
	Number int `json:"number"`
	journal.Process
	State   string          `json:"state"`
	Started time.Time       `json:"started"`
	Ended   time.Time       `json:"ended,omitzero"`
	Report  json.RawMessage `json:"report,omitempty"`
}

func describe(j *journal.Record) *described {
	d := &described{Job: journal.Name(j.Record.ID), Created: j.Record.Created, Spec: j.Spec}
	for i := range j.Runs {
		run := &j.Runs[i]
		d.Runs = append(d.Runs, describedRun{run.Number, journal.ProcessOf(run), j.StateOf(run), run.Started, run.Ended, run.Report})
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
	row("chunks", "%s %s, %s", d.Chunks.Digest, d.Chunks.Path, plural(d.Total, "chunk"))
	if d.Context != "" {
		row("context", "%s", d.Context)
	}
	settings, err := json.Marshal(d.Settings)
	if err != nil {
		return err
	}
	row("options", "%s", quoteFlags(settingOptions(&d.Settings)))
	row("settings", "%s", settings)
	if d.Sources != nil {
		sources, err := json.Marshal(d.Sources)
		if err != nil {
			return err
		}
		if flags := chunkFlags(&d.Sources.Chunks); len(flags) > 0 {
			row("input", "%s", quoteFlags(flags))
		}
		row("sources", "%s", sources)
	}
	if len(d.Command) > 0 {
		row("command", "%s", d.Command)
	}
	for _, run := range d.Runs {
		end := "no end"
		if !run.Ended.IsZero() {
			end = run.Ended.Sub(run.Started).Round(time.Millisecond).String()
		}
		rerun := ""
		if run.Rerun {
			rerun = ", --rerun"
		}
		row("run", "%d: %s, process %d on %s, %s%s, %s, %s", run.Number, run.State, run.PID, run.Host, plural(run.Workers, "worker"), rerun,
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
