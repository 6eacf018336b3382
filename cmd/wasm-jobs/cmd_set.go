package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

func setCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "set", Usage: "change the priority or the concurrency of a job that workers execute",
		UsageText: "wasm-jobs set [--store URL] [--priority P] [--max-concurrency N] JOB\n\nExample: wasm-jobs set 3f2a --priority high",
		ArgsUsage: "JOB",
		Flags: sharedFlags(
			&cli.StringFlag{Name: "priority", Usage: "0 to 255, or lowest, background, default, high or maximum"},
			&cli.IntFlag{Name: "max-concurrency", Usage: "maximum number of chunks of the job that run at once, on all workers; 0 = no limit"},
		),
		Action: func(ctx *cli.Context) error {
			var priority, most *int
			if isSet(ctx, "priority") {
				n, err := parsePriority(ctx.String("priority"))
				if err != nil {
					return err
				}
				priority = &n
			}
			if isSet(ctx, "max-concurrency") {
				n := ctx.Int("max-concurrency")
				if n < 0 {
					return usageErrorf("invalid --max-concurrency %d: want 0 (no limit) or more", n)
				}
				most = &n
			}
			if priority == nil && most == nil {
				return usageErrorf("missing flag: want --priority, --max-concurrency or both")
			}
			return sharedJob(ctx, c, func(s *postgres.Store, j *journal.Record) error {
				done, err := s.SetJob(ctx.Context, j.Record.ID, priority, most)
				if err != nil {
					return storeError(err)
				}
				if !done {
					return usageErrorf("job %s is over, or no workers share it: there is nothing to set", journal.Name(j.Record.ID)[:shortName])
				}
				fmt.Fprintf(c.err, "wasm-jobs: job %s is set\n", journal.Name(j.Record.ID)[:shortName])
				return nil
			})
		},
	}
}
