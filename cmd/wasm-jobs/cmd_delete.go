package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store"
)

func deleteCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "delete", Usage: "delete a job and its outputs",
		UsageText: "wasm-jobs delete [--store DIR] [--json] JOB\n\nOutputs that other jobs use are kept.\n\nExample: wasm-jobs delete 3f2a",
		ArgsUsage: "JOB",
		Flags:     []cli.Flag{storeFlag(), jsonFlag()},
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 1); err != nil {
				return err
			}
			return withJob(ctx, c, false, func(s recordStore, j *journal.Record) error {
				if j.State() == journal.Running {
					return usageErrorf("job %s is running%s: stop it before you delete it", journal.Name(j.Record.ID)[:shortName], circumstances(new(stateOf(j))))
				}
				if err := s.Delete(ctx.Context, j.Record.ID); err != nil && !errors.Is(err, store.ErrNoJob) {
					return storeError(err)
				}
				return reportDeleted(ctx, c, "deleted", []jobState{stateOf(j)})
			})
		},
	}
}

func reportDeleted(ctx *cli.Context, c *console, verb string, deleted []jobState) error {
	if ctx.Bool("json") {
		return outputError(writeJSON(c.out, deleted))
	}
	for i := range deleted {
		fmt.Fprintf(c.err, "wasm-jobs: %s job %s (%s, %s)\n", verb, deleted[i].Job[:shortName], deleted[i].Name, plural(deleted[i].Total, "chunk"))
	}
	return nil
}
