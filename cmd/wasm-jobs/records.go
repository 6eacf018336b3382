package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/host/outputs"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

// shortName is the number of digits of a job's id that are printed.
const shortName = 12

func storeFlag() cli.Flag {
	return &cli.StringFlag{Name: "store", DefaultText: "the user's cache directory", Usage: "`DIR` of the store"}
}

func jsonFlag() cli.Flag { return &cli.BoolFlag{Name: "json", Usage: "print JSON"} }

// looking are the verbs that change nothing, and also work on a read-only store.
var looking = []string{"list", "status", "info", "describe", "output", "wait", "cancel", "report", "ui", "top"}

// records opens the store of a command. It returns nil if the store does not exist,
// and does not create it.
func records(ctx *cli.Context, c *console) (recordStore, error) {
	dir, err := storeDir(ctx)
	if err != nil {
		return nil, err
	}
	if postgres.IsURL(dir) {
		return openShared(ctx, c, dir, postgres.Options{})
	}
	if !sqlite.Exists(dir) {
		return nil, nil
	}
	options := c.storeOptions()
	options.ReadOnly = slices.Contains(looking, ctx.Command.Name)
	s, err := sqlite.Open(ctx.Context, dir, options)
	if err != nil {
		return nil, &exitError{exitStore, fmt.Errorf("the store cannot be opened: %w", err)}
	}
	return s, nil
}

// storeOptions returns options that say what a store found damaged.
func storeOptions(say func(format string, args ...any)) sqlite.Options {
	return sqlite.Options{
		CheckJob:   journal.Check,
		Notice:     func(line string) { say("store: %s", line) },
		Damaged:    func(d sqlite.Damage) { say("store: %s", damageLine(d)) },
		DamagedJob: func(d sqlite.DamagedJob) { say("store: %s", damagedJobLine(d)) },
	}
}

// storeOptions returns options of a verb without other output on standard error.
func (c *console) storeOptions() sqlite.Options {
	o := storeOptions(func(format string, args ...any) { fmt.Fprintf(c.err, "wasm-jobs: "+format+"\n", args...) })
	o.Waiting = c.waitingForStore
	return o
}

// waitingForStore is said if the store is locked for a second.
const waitingForStore = "waiting for another command on this store"

func (c *console) waitingForStore() { fmt.Fprintln(c.err, "wasm-jobs: "+waitingForStore) }

func damageLine(d sqlite.Damage) string {
	where := ""
	if id, ok := abi.ParseOrderKey(d.Order); ok {
		where = fmt.Sprintf(" of chunk %v", id)
	}
	return fmt.Sprintf("the output%s (chunk sha256 %x) is damaged: it is dropped, and computed again when it is needed", where, d.Chunk[:8])
}

func damagedJobLine(d sqlite.DamagedJob) string {
	name := journal.Name(d.ID)
	if d.Copied {
		return fmt.Sprintf("job %s: some of its records are damaged and left out; chunks without a record are pending", name)
	}
	return fmt.Sprintf("job %s: its records are damaged, and the job was dropped", name)
}

// storeError returns an error of the store with its exit code.
func storeError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if _, done := errors.AsType[*exitError](err); done || isUnreachable(err) {
		return err
	}
	return &exitError{exitStore, fmt.Errorf("the store failed: %w", err)}
}

// withJob opens the store and calls f with the job that the first argument names. If
// optional is set and there is no argument, it is the job of the latest run.
func withJob(ctx *cli.Context, c *console, optional bool, f func(s recordStore, j *journal.Record) error) (err error) {
	prefix := strings.TrimSpace(ctx.Args().First())
	if prefix == "" && !optional {
		return usageErrorf("missing JOB: %s takes its id, or the beginning of it; wasm-jobs list shows all jobs", ctx.Command.Name)
	}
	s, err := records(ctx, c)
	if err != nil {
		return err
	}
	if s == nil {
		return unknownJob(ctx, prefix)
	}
	defer func() { err = errors.Join(err, storeError(s.Close())) }()
	j, err := journal.Find(ctx.Context, s, prefix)
	if _, ambiguous := errors.AsType[*journal.AmbiguousError](err); ambiguous {
		return usageErrorf("%w: give more digits", err)
	}
	if errors.Is(err, store.ErrNoJob) {
		return noJob(ctx, s, prefix)
	}
	if err != nil {
		return storeError(err)
	}
	return f(s, j)
}

// noJob returns the error for a job that the store does not have. A user may mean the run
// of a flow.
func noJob(ctx *cli.Context, s recordStore, prefix string) error {
	flows, named := 0, false
	err := flowRuns(ctx.Context, s, func(f *flowRecord) (bool, error) {
		flows, named = flows+1, f.spec.Name == prefix
		return !named, nil
	})
	switch {
	case err != nil:
		return err
	case named:
		verb := ctx.Command.Name
		if verb != "delete" && verb != "redrive" {
			verb = "status"
		}
		return usageErrorf("%s is the run of a flow, not a job: see wasm-jobs flow %s %s", printable(prefix), verb, printable(prefix))
	case prefix == "" && flows > 0:
		return usageErrorf("the store has no jobs, but %s: see wasm-jobs flow list", plural(flows, "flow run"))
	}
	return unknownJob(ctx, prefix)
}

func unknownJob(ctx *cli.Context, prefix string) error {
	dir, err := storeDir(ctx)
	if err != nil {
		return err
	}
	if prefix == "" {
		return usageErrorf("the store in %s has no jobs", shownStore(dir))
	}
	return usageErrorf("unknown job %q in the store in %s; wasm-jobs list shows all jobs", prefix, shownStore(dir))
}

// arguments refuses more than most arguments.
func arguments(ctx *cli.Context, most int) error {
	if ctx.NArg() > most {
		return usageErrorf("%s takes at most %d arguments, got %d", ctx.Command.Name, most, ctx.NArg())
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

func stateOf(j *journal.Record) jobState {
	last := j.Last()
	p := journal.ProcessOf(last)
	return jobState{
		Job: journal.Name(j.Record.ID), Name: j.Spec.Name, Meta: j.Spec.Meta, State: j.State(), Error: j.Error(),
		Runs: len(j.Runs), Host: p.Host, PID: p.PID,
		Started: last.Started, Seen: last.Seen, Ended: last.Ended, Total: j.Record.Total,
	}
}

// took returns the duration of the last run, as far as it is known.
func took(s *jobState) string {
	end := s.Ended
	if end.IsZero() {
		end = s.Seen
	}
	return end.Sub(s.Started).Round(time.Millisecond).String()
}

// circumstances returns the place and time of a state.
func circumstances(s *jobState) string {
	where := fmt.Sprintf("process %d on %s", s.PID, s.Host)
	switch s.State {
	case journal.Running:
		return fmt.Sprintf(" since %s, %s, last seen %s", s.Started.Local().Format(time.DateTime), where, humanize.Time(s.Seen))
	case journal.Crashed:
		return fmt.Sprintf(": %s stopped without recording an end, last seen %s; the same command continues", where, humanize.Time(s.Seen))
	}
	return fmt.Sprintf(" %s, after %s", s.Ended.Local().Format(time.DateTime), took(s))
}

// maxText bounds the bytes that are printed of many ids.
const maxText = 2000

func shortText(s string) string {
	if len(s) <= maxText {
		return s
	}
	cut := strings.LastIndexByte(s[:maxText], ',')
	return s[:max(cut, 0)] + ",... (--json has all)"
}

// chunkArgument reads the second argument, an id.
func chunkArgument(ctx *cli.Context, needed bool) (*abi.ID, error) {
	if err := arguments(ctx, 2); err != nil {
		return nil, err
	}
	if ctx.NArg() < 2 {
		if needed {
			return nil, usageErrorf("missing JOB or CHUNK: %s takes both", ctx.Command.Name)
		}
		return nil, nil
	}
	id, err := abi.ParseID(ctx.Args().Get(1))
	if err != nil {
		return nil, usageErrorf("%w", err)
	}
	return &id, nil
}

// jobOutputs yields all outputs of a job in the store. If outputs are missing, the last
// element is an error.
func jobOutputs(ctx context.Context, c *console, j *journal.Record) outputs.Seq {
	return outputs.Pushed(func(each func(outputs.Output) error) error { return eachJobOutput(ctx, c, j, each) })
}

func eachJobOutput(ctx context.Context, c *console, j *journal.Record, each func(outputs.Output) error) error {
	count := 0
	var writing error
	gone, err := j.Outputs(ctx, func(o *journal.Output) error {
		count++
		writing = each(outputs.Output{ID: o.ID, Output: o.Output})
		return writing
	})
	switch {
	case writing != nil:
		return writing
	case err != nil:
		return storeError(err)
	case !gone.Empty():
		return &exitError{exitFailed, fmt.Errorf("missing outputs, damaged or deleted: %s; run the job again", shortText(gone.String()))}
	}
	if left := j.Record.Total - count; left > 0 {
		fmt.Fprintf(c.err, "wasm-jobs: only %d of %s have an output; wasm-jobs status shows the others\n", count, plural(j.Record.Total, "chunk"))
	}
	return nil
}
