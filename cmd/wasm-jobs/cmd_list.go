package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// listed is a line of list.
type listed struct {
	jobState
	Pending   int `json:"pending"`
	Active    int `json:"active"`
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
	*listedShared
}

// listedShared has the fields that list adds for a job that workers share.
type listedShared struct {
	Priority       int `json:"priority"`
	MaxConcurrency int `json:"max_concurrency"`
}

// isListed reports whether the flags select a job.
func isListed(ctx *cli.Context, j *journal.Record, l *listed) bool {
	if s := j.Record.Shared; s != nil {
		l.listedShared = &listedShared{s.Priority, s.MaxConcurrency}
	}
	if isSet(ctx, "state") && l.State != ctx.String("state") {
		return false
	}
	priority, err := parsePriority(ctx.String("priority"))
	return !isSet(ctx, "priority") || err == nil && l.listedShared != nil && l.listedShared.Priority == priority
}

func listCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "list the jobs of the store, the latest run first",
		UsageText: "wasm-jobs list [--store DIR] [--json]\n\nExample: wasm-jobs list",
		Flags: []cli.Flag{storeFlag(), jsonFlag(),
			&cli.StringFlag{Name: "state", Usage: "only jobs in `STATE`, such as running, active or succeeded"},
			&cli.StringFlag{Name: "priority", Usage: "only shared jobs with `PRIORITY`"},
		},
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 0); err != nil {
				return err
			}
			if isSet(ctx, "priority") {
				if _, err := parsePriority(ctx.String("priority")); err != nil {
					return err
				}
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
	all, flows := []listed{}, 0
	if s != nil {
		defer func() { err = errors.Join(err, storeError(s.Close())) }()
		for j, err := range journal.List(ctx.Context, s) {
			if err != nil {
				return storeError(err)
			}
			l := listed{jobState: stateOf(j)}
			if !isListed(ctx, j, &l) {
				continue
			}
			l.Pending, l.Active, l.Succeeded, l.Failed, err = j.Counts(ctx.Context)
			if errors.Is(err, store.ErrNoJob) { // deleted meanwhile, or lost with a damaged file
				continue
			}
			if err != nil {
				return storeError(err)
			}
			all = append(all, l)
		}
		for record, err := range s.List(ctx.Context, "") {
			if err != nil {
				return storeError(err)
			}
			if journal.IsFlow(&record) {
				flows++
			}
		}
	}
	if ctx.Bool("json") {
		return outputError(writeJSON(c.out, all))
	}
	t := newTable(c.out)
	if len(all) > 0 {
		t.header("JOB", "NAME", "STATE", "SUCCEEDED", "FAILED", "STARTED", "TOOK")
	}
	for _, l := range all {
		t.row(l.Job[:shortName], l.Name, stateCell(l.State), fmt.Sprintf("%d/%d", l.Succeeded, l.Total), l.Failed,
			l.Started.Local().Format(time.DateTime), took(&l.jobState))
	}
	if err := t.flush(); err != nil {
		return outputError(err)
	}
	if flows > 0 {
		fmt.Fprintf(c.err, "wasm-jobs: the store also has %s: see wasm-jobs flow list\n", plural(flows, "flow run"))
	}
	return nil
}
