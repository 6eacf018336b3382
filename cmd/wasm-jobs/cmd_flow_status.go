package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/flow/definition"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// flowRecord is a run as the store has it.
type flowRecord struct {
	spec   flowSpec
	record store.JobRecord
	runs   []store.Run
	living map[int]bool // as journal.ReadRuns returns them
	store  recordStore
}

func (f *flowRecord) last() *store.Run { return &f.runs[len(f.runs)-1] }

// running reports whether the process of the run was alive when the record was read.
func (f *flowRecord) running() bool { return f.living[f.last().Number] }

// report returns the progress or the end of the run. For a run that goes on, it is
// the last sign of life; for a crashed run, it is computed from the store.
func (f *flowRecord) report(ctx context.Context, c *console) (*flow.Report, error) {
	last := flow.ReportOf(f.last())
	if !f.last().Ended.IsZero() && last != nil || f.running() && last != nil {
		return last, nil
	}
	look, closeInput, err := f.look(ctx, c)
	if err != nil {
		if last == nil {
			return nil, err
		}
		fmt.Fprintf(c.err, "wasm-jobs: warning: %v: showing its last sign of life\n", err)
		last.State = flow.Crashed
		return last, nil
	}
	defer closeInput()
	r, err := look.Items(ctx, nil)
	if err == nil && f.running() {
		r.State = flow.Running
	}
	return r, storeError(err)
}

// look opens the parts that are needed to inspect a run. The files of its input must
// still exist.
func (f *flowRecord) look(ctx context.Context, c *console) (*flow.Look, func(), error) {
	d, err := definition.Parse(f.spec.File, []byte(f.spec.Text))
	if err != nil {
		return nil, nil, err
	}
	built, _, err := d.Flow(recordedParts{f.spec})
	if err != nil {
		return nil, nil, err
	}
	var input *chunks.File
	if f.spec.Chunks == nil {
		input, err = chunks.Of([]byte{0xf6})
	} else {
		o := &flowOptions{}
		if err := o.readChunks(f.spec.Chunks); err != nil {
			return nil, nil, err
		}
		if o.chunks == "-" || o.source != nil && slices.Contains(o.source.paths, "-") {
			return nil, nil, usageErrorf("the roots of run %s came from standard input, and are not available any more", f.spec.Name)
		}
		input, err = o.openInput(ctx, c)
	}
	if err != nil {
		return nil, nil, err
	}
	look := &flow.Look{Name: f.spec.Name, Flow: built, Input: input, Bounds: f.spec.Bounds, Store: f.store, Generation: f.last().Number}
	return look, func() { input.Close() }, nil
}

// recordedParts stands for the modules of a run that is inspected.
type recordedParts struct{ spec flowSpec }

func (r recordedParts) Module(s *definition.State, _ string) (flow.Executor, error) {
	return r.executor(s)
}

func (r recordedParts) Effect(s *definition.State) (flow.Executor, error) { return r.executor(s) }

func (r recordedParts) executor(s *definition.State) (*flow.Recorded, error) {
	key, pure, err := recordedKey(r.spec.Keys[s.Name])
	return &flow.Recorded{Of: r.spec.States[s.Name], Key: key, Pure: pure}, err
}

func (r recordedParts) Fold(s *definition.State, _ string) (flow.Folder, error) {
	key, pure, err := recordedKey(r.spec.Folds[s.Name])
	return &flow.Recorded{Of: "module", Key: key, Pure: pure}, err
}

func recordedKey(text string) (key store.Action, pure bool, err error) {
	if text == "" {
		return key, false, nil
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(key) {
		return key, false, fmt.Errorf("the record of the run is damaged: %q is not a key", text)
	}
	return store.Action(b), true, nil
}

// flowRuns yields the runs of flows in a store, the latest first.
func flowRuns(ctx context.Context, s recordStore, each func(*flowRecord) (more bool, err error)) error {
	for record, err := range s.List(ctx, "") {
		if err != nil {
			return storeError(err)
		}
		if !journal.IsFlow(&record) {
			continue
		}
		f := &flowRecord{record: record, store: s}
		if err := json.Unmarshal(record.Spec, &f.spec); err != nil {
			return storeError(err)
		}
		if f.runs, f.living, err = journal.ReadRuns(ctx, s, record.ID); err != nil || len(f.runs) == 0 {
			if err == nil || errors.Is(err, store.ErrNoJob) { // deleted meanwhile
				continue
			}
			return storeError(err)
		}
		if more, err := each(f); err != nil || !more {
			return err
		}
	}
	return nil
}

// withFlow calls f with the run that the first argument names; without an argument,
// if optional is set, with the latest run.
func withFlow(ctx *cli.Context, c *console, optional bool, f func(*flowRecord) error) (err error) {
	name := ctx.Args().First()
	if name == "" && !optional {
		return usageErrorf("%s needs a RUN; wasm-jobs flow list shows them", ctx.Command.Name)
	}
	s, err := records(ctx, c)
	if err != nil {
		return err
	}
	var found *flowRecord
	if s != nil {
		defer func() { err = errors.Join(err, storeError(s.Close())) }()
		err = flowRuns(ctx.Context, s, func(r *flowRecord) (bool, error) {
			if name == "" || r.spec.Name == name {
				found = r
			}
			return found == nil, nil
		})
		if err != nil {
			return err
		}
	}
	if found == nil {
		dir, err := storeDir(ctx)
		if err != nil {
			return err
		}
		if name == "" {
			return usageErrorf("no runs of flows in the store in %s", dir)
		}
		return usageErrorf("unknown run %q in the store in %s; wasm-jobs flow list shows them", name, dir)
	}
	return f(found)
}

func flowListCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "list the runs of flows, the latest first",
		UsageText: "wasm-jobs flow list [--store DIR] [--json]",
		Flags:     []cli.Flag{storeFlag(), jsonFlag()},
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 0); err != nil {
				return err
			}
			return listFlows(ctx, c)
		},
	}
}

// listedFlow is a line of flow list --json.
type listedFlow struct {
	Run     string     `json:"run"`
	State   string     `json:"state"`
	File    string     `json:"file"`
	Started time.Time  `json:"started"`
	Items   flow.Items `json:"items"`

	Meta map[string]string `json:"meta,omitempty"`
}

func listFlows(ctx *cli.Context, c *console) (err error) {
	s, err := records(ctx, c)
	if err != nil {
		return err
	}
	all := []listedFlow{}
	if s != nil {
		defer func() { err = errors.Join(err, storeError(s.Close())) }()
		err = flowRuns(ctx.Context, s, func(f *flowRecord) (bool, error) {
			l := listedFlow{Run: f.spec.Name, File: f.spec.File, Started: f.last().Started, State: flow.Crashed, Meta: f.spec.Meta}
			if r := flow.ReportOf(f.last()); r != nil {
				l.Items = r.Items
				if !f.last().Ended.IsZero() {
					l.State = r.State
				}
			}
			if f.last().Ended.IsZero() && f.running() {
				l.State = flow.Running
			}
			all = append(all, l)
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	if ctx.Bool("json") {
		return outputError(writeJSON(c.out, all))
	}
	t := newTable(c.out)
	if len(all) > 0 {
		t.header("RUN", "STATE", "ITEMS", "ENDED", "FAILED", "STARTED", "FILE")
	}
	for _, l := range all {
		t.row(l.Run, stateCell(l.State), l.Items.Total, l.Items.Ended, l.Items.Failed, l.Started.Local().Format(time.DateTime), l.File)
	}
	return outputError(t.flush())
}

func flowStatusCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "show the progress of a run, by state, while it runs and afterwards",
		UsageText: "wasm-jobs flow status [--store DIR] [--json] [RUN]\n\nWithout RUN, the latest one. With --json, the report.",
		ArgsUsage: "[RUN]",
		Flags:     []cli.Flag{storeFlag(), jsonFlag()},
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 1); err != nil {
				return err
			}
			return withFlow(ctx, c, true, func(f *flowRecord) error {
				r, err := f.report(ctx.Context, c)
				if err != nil {
					return err
				}
				if ctx.Bool("json") {
					return outputError(writeJSON(c.out, r))
				}
				return outputError(printFlow(c, r))
			})
		},
	}
}

func printFlow(c *console, r *flow.Report) error {
	t := newTable(c.out)
	t.field("run", "%s", r.Run)
	t.field("state", "%s", r.State)
	t.field("items", "%s", itemsLine(r))
	if b := r.Bottleneck; b != nil {
		t.field("bottleneck", "%s: %s, for %.0f %% of the time", b.State, b.Cause, b.Share*100)
	}
	if err := t.flush(); err != nil {
		return err
	}
	t = newTable(c.out)
	t.header("STATE", "KIND", "ENTERED", "LEFT", "FAILED", "WAITING", "EXECUTING", "LIMITED", "RETRYING")
	for i := range r.States {
		s := &r.States[i]
		t.row(s.Name, s.Kind, s.Entered, s.Left, s.Failed, s.Waiting, s.Executing, s.Limited, s.Retrying)
	}
	return t.flush()
}

func flowItemsCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "items", Usage: "list the items of a run, and their states",
		UsageText: "wasm-jobs flow items [--state STATE] [--class CLASS] [--json] RUN\n\nOne item a line, in item order. Items that wait for their children have no state.\nExit code 1 if there are no such items.",
		ArgsUsage: "RUN",
		Flags: []cli.Flag{storeFlag(), jsonFlag(),
			&cli.StringFlag{Name: "state", Usage: "only items in `STATE`; failed: failed items"},
			&cli.StringFlag{Name: "class", Usage: "only items that failed with `CLASS`"}},
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 1); err != nil {
				return err
			}
			return withFlow(ctx, c, false, func(f *flowRecord) error { return printItems(ctx, c, f) })
		},
	}
}

func printItems(ctx *cli.Context, c *console, f *flowRecord) error {
	look, closeInput, err := f.look(ctx.Context, c)
	if err != nil {
		return err
	}
	defer closeInput()
	state, class, n := ctx.String("state"), ctx.String("class"), 0
	w := bufio.NewWriter(c.out)
	_, err = look.Items(ctx.Context, func(s *flow.ItemState) error {
		if state != "" && s.State != state && !(state == "failed" && s.Class != "") || class != "" && string(s.Class) != class {
			return nil
		}
		n++
		if ctx.Bool("json") {
			return outputError(writeLine(w, s))
		}
		_, err := fmt.Fprintln(w, printable(itemLine(s)))
		return outputError(err)
	})
	if err == nil {
		err = outputError(w.Flush())
	}
	if err == nil && n == 0 {
		err = &exitError{exitFailed, nil}
	}
	return storeError(err)
}

func itemLine(s *flow.ItemState) string {
	line := fmt.Sprintf("%s %s", idString(s.ID), s.State)
	if s.Class != "" {
		line += fmt.Sprintf(" %s: %s", s.Class, s.Message)
	}
	return line
}

// idString returns an item's id as in arguments and output.
func idString(id abi.ID) string {
	if text, isText := id.Text(); isText {
		return text
	}
	return id.String()
}

// writeLine writes a value as one line of JSON.
func writeLine(w *bufio.Writer, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		_, err = w.Write(append(b, '\n'))
	}
	return err
}

func flowInfoCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "info", Usage: "show the steps of one item",
		UsageText: "wasm-jobs flow info [--json] RUN ITEM",
		ArgsUsage: "RUN ITEM",
		Flags:     []cli.Flag{storeFlag(), jsonFlag()},
		Action: func(ctx *cli.Context) error {
			if ctx.NArg() != 2 {
				return usageErrorf("info takes RUN and ITEM, got %s", plural(ctx.NArg(), "argument"))
			}
			return withFlow(ctx, c, false, func(f *flowRecord) error { return printItem(ctx, c, f, ctx.Args().Get(1)) })
		},
	}
}

// shownItem is the output of info --json.
type shownItem struct {
	flow.ItemState
	Steps []flow.StepState `json:"steps"`
}

func printItem(ctx *cli.Context, c *console, f *flowRecord, id string) error {
	look, closeInput, err := f.look(ctx.Context, c)
	if err != nil {
		return err
	}
	defer closeInput()
	shown := shownItem{Steps: []flow.StepState{}}
	s, err := look.Item(ctx.Context, id, func(step *flow.StepState) error {
		shown.Steps = append(shown.Steps, *step)
		return nil
	})
	if errors.Is(err, flow.ErrNoItem) {
		return &exitError{exitFailed, fmt.Errorf("run %s: %w: %s", f.spec.Name, err, id)}
	}
	if err != nil {
		return storeError(err)
	}
	shown.ItemState = *s
	if ctx.Bool("json") {
		return outputError(writeJSON(c.out, &shown))
	}
	t := newTable(c.out)
	t.field("item", "%s", itemLine(s))
	for _, step := range shown.Steps {
		t.row(fmt.Sprintf("step %d", step.Step), step.State, step.Hex[0], step.Hex[1])
	}
	return outputError(t.flush())
}

func flowDeleteCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "delete", Usage: "delete a run and its journal",
		UsageText: "wasm-jobs flow delete [--yes] RUN\n\nWithout its journal, effects would be made again: a run with effects needs\n--yes. Outputs of modules stay, since other runs and jobs share them.",
		ArgsUsage: "RUN",
		Flags:     []cli.Flag{storeFlag(), &cli.BoolFlag{Name: "yes", Usage: "also if the run made effects"}},
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 1); err != nil {
				return err
			}
			return withFlow(ctx, c, false, func(f *flowRecord) error { return deleteFlow(ctx, c, f) })
		},
	}
}

func deleteFlow(ctx *cli.Context, c *console, f *flowRecord) error {
	if f.last().Ended.IsZero() && f.running() {
		return usageErrorf("run %s is running: stop it first", f.spec.Name)
	}
	if f.spec.Effect && !ctx.Bool("yes") {
		return usageErrorf("run %s has effects, and without its journal they would be made again: use --yes to delete it", f.spec.Name)
	}
	if err := f.store.Delete(ctx.Context, f.record.ID); err != nil && !errors.Is(err, store.ErrNoJob) {
		return storeError(err)
	}
	fmt.Fprintf(c.err, "wasm-jobs: deleted run %s\n", printable(f.spec.Name))
	return nil
}
