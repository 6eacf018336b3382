package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store"
)

func topCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "top", Usage: "watch the jobs of a store, or one job, in the terminal",
		UsageText: `wasm-jobs top [--store STORE] [--json] [JOB]

On a terminal, the view is renewed until Ctrl-C or, with JOB, until the job is over.
Elsewhere, and with --json, it is printed once.

Example: wasm-jobs top
         wasm-jobs top 3f2a`,
		ArgsUsage: "[JOB]",
		Flags: []cli.Flag{storeFlag(), jsonFlag(),
			&cli.DurationFlag{Name: "interval", Value: time.Second, Usage: "time between two looks"},
		},
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 1); err != nil {
				return err
			}
			if ctx.Duration("interval") < 100*time.Millisecond {
				return usageErrorf("invalid --interval %s: want 100ms or more", ctx.Duration("interval"))
			}
			return top(ctx, c)
		},
	}
}

// maxTop is the number of jobs that top shows.
const maxTop = 20

// watched is one look of top at a store.
type watched struct {
	At   time.Time `json:"at"`
	Jobs []topJob  `json:"jobs"`
}

// topJob is a job as top shows it.
type topJob struct {
	jobState
	Pending   int             `json:"pending"`
	Active    int             `json:"active"`
	Succeeded int             `json:"succeeded"`
	Failed    int             `json:"failed"`
	Rate      *float64        `json:"chunks_per_second,omitempty"` // since the last look
	Leases    []journal.Lease `json:"leases,omitempty"`            // of one job; To is not included
}

func top(ctx *cli.Context, c *console) error {
	width, isTerminal := screenOf(c.out)
	one := ctx.Bool("json") || !isTerminal
	var before *watched
	for {
		now, err := look(ctx, c, before)
		switch {
		case err != nil:
			return err
		case ctx.Bool("json"):
			return outputError(writeJSON(c.out, now))
		}
		var frame bytes.Buffer
		if !one {
			frame.WriteString("\x1b[H\x1b[J") // the start of an empty screen
		}
		if err := now.print(&frame, width); err != nil {
			return err
		}
		if _, err := c.out.Write(frame.Bytes()); err != nil || one {
			return outputError(err)
		}
		if ctx.NArg() == 1 && now.Jobs[0].State != journal.Running && now.Jobs[0].State != "active" {
			return nil
		}
		select {
		case <-time.After(ctx.Duration("interval")):
		case <-ctx.Context.Done():
			return nil
		}
		before = now
	}
}

// screenOf returns the width of a terminal in characters.
func screenOf(out io.Writer) (width int, isTerminal bool) {
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return 80, false
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil || width < 20 {
		width = 80
	}
	return width, true
}

// look reads the jobs from the store.
func look(ctx *cli.Context, c *console, before *watched) (*watched, error) {
	now := &watched{At: time.Now(), Jobs: []topJob{}}
	add := func(j *journal.Record, leases bool) error {
		w, err := topJobOf(ctx.Context, j)
		if errors.Is(err, store.ErrNoJob) { // deleted meanwhile
			return nil
		}
		if leases && j.Last().Ended.IsZero() {
			w.Leases = leasesOf(j)
		}
		w.compare(before, now.At)
		now.Jobs = append(now.Jobs, w)
		return storeError(err)
	}
	if ctx.NArg() == 1 {
		err := withJob(ctx, c, false, func(_ recordStore, j *journal.Record) error { return add(j, true) })
		if err == nil && len(now.Jobs) == 0 {
			err = unknownJob(ctx, ctx.Args().First())
		}
		return now, err
	}
	s, err := records(ctx, c)
	if err != nil || s == nil {
		return now, err
	}
	defer s.Close()
	for j, err := range journal.List(ctx.Context, s) {
		if err != nil {
			return nil, storeError(err)
		}
		if len(now.Jobs) == maxTop {
			break
		}
		if err := add(j, false); err != nil {
			return nil, err
		}
	}
	return now, nil
}

func topJobOf(ctx context.Context, j *journal.Record) (w topJob, err error) {
	w.jobState = stateOf(j)
	w.Pending, w.Active, w.Succeeded, w.Failed, err = j.Counts(ctx)
	return w, err
}

// compare computes the rate since an earlier look.
func (w *topJob) compare(before *watched, now time.Time) {
	if before == nil {
		return
	}
	for i := range before.Jobs {
		if b := &before.Jobs[i]; b.Job == w.Job && now.After(before.At) {
			rate := float64(w.Succeeded-b.Succeeded) / now.Sub(before.At).Seconds()
			w.Rate = &rate
		}
	}
}

func (w *watched) print(out io.Writer, width int) error {
	t := newTable(out)
	if len(w.Jobs) == 0 {
		t.row("no jobs")
		return t.flush()
	}
	t.row("JOB", "NAME", "STATE", "", "SUCCEEDED", "FAILED", "ACTIVE", "A SECOND", "TOOK")
	for i := range w.Jobs {
		j := &w.Jobs[i]
		rate := ""
		if j.Rate != nil {
			rate = strconv.FormatFloat(*j.Rate, 'f', 1, 64)
		}
		name := []rune(printable(j.Name))
		t.row(j.Job[:shortName], string(name[:min(len(name), max(width/5, 8))]), j.State, gauge(j.Succeeded, j.Failed, j.Total),
			fmt.Sprintf("%d/%d", j.Succeeded, j.Total), j.Failed, j.Active, rate, took(&j.jobState))
	}
	if err := t.flush(); err != nil || len(w.Jobs) > 1 {
		return err
	}
	return w.Jobs[0].printMore(out)
}

// printMore prints the part that only the view of one job has.
func (w *topJob) printMore(out io.Writer) error {
	if w.Error != "" {
		fmt.Fprintln(out, printable(w.Error))
	}
	if len(w.Leases) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	t := newTable(out)
	t.row("WORKER", "CHUNKS", "SINCE")
	for _, l := range w.Leases[:min(len(w.Leases), maxTop)] {
		t.row(l.Worker, fmt.Sprintf("%d to %d", l.From, l.To-1), l.Since.Local().Format(time.TimeOnly))
	}
	return t.flush()
}

// gauge draws how much is finished: succeeded, failed, and left.
func gauge(succeeded, failed, total int) string {
	const size = 10
	if total == 0 {
		return "[" + strings.Repeat("#", size) + "]"
	}
	good := succeeded * size / total
	bad := (succeeded+failed)*size/total - good
	return "[" + strings.Repeat("#", good) + strings.Repeat("x", bad) + strings.Repeat(".", size-good-bad) + "]"
}

// leasesOf returns the leases of a run in progress, at its last sign of life.
func leasesOf(j *journal.Record) (leases []journal.Lease) {
	_ = json.Unmarshal(j.Last().Active, &leases) // unreadable leases are left out
	return leases
}
