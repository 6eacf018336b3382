package main

import (
	"io"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host/journal"
)

func statusCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "show the progress of a job and its chunks, during and after a run",
		UsageText: "wasm-jobs status [--store DIR] [--json] [JOB]\n\nJOB is an id or the beginning of one; the default is the job with the latest run.\n\nExample: wasm-jobs status 3f2a",
		ArgsUsage: "[JOB]",
		Flags:     []cli.Flag{storeFlag(), jsonFlag()},
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 1); err != nil {
				return err
			}
			return withJob(ctx, c, true, func(from recordStore, j *journal.Record) error {
				s, shared, err := statusOf(ctx.Context, from, j)
				if err != nil {
					return storeError(err)
				}
				if ctx.Bool("json") {
					return outputError(writeJSON(c.out, statusReport(j, s, shared)))
				}
				return outputError(printStatus(c.out, j, s, shared))
			})
		},
	}
}

// statusReport returns the output of status with --json. The active chunks of a job that
// workers share are a list of leases.
func statusReport(j *journal.Record, s *journal.Status, shared *sharedStatus) any {
	report := struct {
		jobState
		*journal.Status
		*sharedStatus
		Active any `json:"active"`
	}{stateOf(j), s, shared, s.Active}
	if shared != nil {
		report.Active = shared.Leases
	}
	return report
}

func printStatus(out io.Writer, j *journal.Record, s *journal.Status, shared *sharedStatus) error {
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
		journal.Group
	}{{"pending", s.Pending}, {"active", s.Active}, {"succeeded", s.Succeeded}, {"failed", s.Failed}} {
		t.row(g.name, g.Count, shortText(g.IDs.String()))
	}
	if shared != nil {
		shared.print(t)
	}
	return t.flush()
}
