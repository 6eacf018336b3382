package main

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

func workersCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "workers", Usage: "list the workers of a shared store, and warn of problems",
		UsageText: "wasm-jobs workers [--store URL] [--json]\n\nExample: wasm-jobs workers",
		Flags:     sharedFlags(jsonFlag()),
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 0); err != nil {
				return err
			}
			url, err := sharedStore(ctx)
			if err != nil {
				return err
			}
			s, err := openShared(ctx, c, url, postgres.Options{})
			if err != nil {
				return err
			}
			defer s.Close()
			all, err := s.Workers(ctx.Context)
			if err != nil {
				return storeError(err)
			}
			if err := listWorkers(ctx, c, all); err != nil {
				return outputError(err)
			}
			return storeError(warnOfWorkers(ctx, c, s, all))
		},
	}
}

func listWorkers(ctx *cli.Context, c *console, all []postgres.WorkerState) error {
	if ctx.Bool("json") {
		return writeJSON(c.out, append([]postgres.WorkerState{}, all...))
	}
	t := newTable(c.out)
	if len(all) > 0 {
		t.header("NAME", "APP", "HOST", "STATE", "SLOTS", "CHUNKS", "SEEN", "ENGINE")
	}
	for _, w := range all {
		t.row(w.Name, w.App, w.Host, stateCell(w.State), fmt.Sprintf("%d/%d", w.Busy, w.Slots), w.Chunks, humanize.Time(w.Seen), w.Engine)
	}
	return t.flush()
}

// longTransaction is the age from which a transaction causes a warning.
const longTransaction = 5 * time.Minute

// warnOfWorkers warns on stderr of transactions that slow the database down and of workers
// that cannot take jobs.
func warnOfWorkers(ctx *cli.Context, c *console, s *postgres.Store, all []postgres.WorkerState) error {
	t, err := s.LongestTransaction(ctx.Context)
	if err != nil {
		return err
	}
	if warning := transactionWarning(&t); warning != "" {
		fmt.Fprintf(c.err, "wasm-jobs: warning: %s\n", warning)
	}
	for _, w := range all {
		if w.State != "gone" && w.Engine != cluster.EngineName() {
			fmt.Fprintf(c.err, "wasm-jobs: warning: worker %s has another engine than this program (%s): it gets no jobs that are submitted here\n", w.Name, w.Engine)
		}
	}
	return nil
}

// transactionWarning returns the warning of a transaction, "" if it is not open for long.
func transactionWarning(t *postgres.LongTransaction) string {
	if t.Age <= longTransaction {
		return ""
	}
	return fmt.Sprintf("a transaction of %q (process %d) has been open for %s: the database keeps old rows for it, and leases become slower", t.Application, t.PID, t.Age.Round(time.Second))
}
