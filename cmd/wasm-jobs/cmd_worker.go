package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	goruntime "runtime"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

func workerCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "worker", Usage: "execute jobs of a shared store, until a signal stops it",
		UsageText: `wasm-jobs worker --store URL [flags]

Example: wasm-jobs worker --store postgres://worker@db/jobs -j 8

The first SIGTERM or SIGINT ends it softly: running chunks are finished and kept, and the
rest goes back. Exit codes: 0 stopped by SIGTERM or without work; 2 usage; 6 the database
cannot be reached; 130 SIGINT.`,
		Flags: sharedFlags(
			&cli.IntFlag{Name: "workers", Aliases: []string{"j"}, DefaultText: "GOMAXPROCS", Usage: "chunks that run at once"},
			&cli.StringFlag{Name: "name", DefaultText: "host-pid", Usage: "name of the worker"},
			&cli.StringFlag{Name: "app", Value: "wasm-jobs", Usage: "name of the program that the worker is part of"},
			&cli.DurationFlag{Name: "lease", Value: 30 * time.Second, Usage: "time until its leases expire if it stops responding; at least 2s"},
			&cli.DurationFlag{Name: "idle-timeout", Usage: "end after this time without work; 0 = never"},
			&cli.DurationFlag{Name: "give-up", Value: 10 * time.Minute, Usage: "end after this time without the database"},
			&cli.DurationFlag{Name: "grace", Value: 10 * time.Second, Usage: "time that running chunks get after the first signal"},
			&cli.IntFlag{Name: "modules", Value: 8, Usage: "number of jobs whose instances are kept"},
			&cli.StringFlag{Name: "job", DefaultText: "any", Usage: "execute only `JOB`"},
			&cli.StringFlag{Name: "shared", Usage: "read modules and chunks also from `DIR`, which all machines share"},
			metricsFlag(), traceFlag(),
			&cli.StringFlag{Name: "progress", Value: "auto", Usage: "auto, plain or none"},
		),
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 0); err != nil {
				return err
			}
			return work(ctx, c)
		},
	}
}

// parseWorker reads the flags of a worker.
func parseWorker(ctx *cli.Context) (*cluster.Config, error) {
	name, _ := os.Hostname()
	w := &cluster.Config{
		Slots: goruntime.GOMAXPROCS(0), Name: ctx.String("name"), App: ctx.String("app"), Host: name, PID: os.Getpid(), Lease: ctx.Duration("lease"),
		IdleTimeout: ctx.Duration("idle-timeout"), Grace: ctx.Duration("grace"), Modules: ctx.Int("modules"),
	}
	if isChosen(ctx, "workers") {
		w.Slots = ctx.Int("workers")
	}
	if w.Name == "" {
		w.Name = fmt.Sprintf("%s-%d", name, w.PID)
	}
	switch {
	case w.Slots < 1:
		return nil, usageErrorf("invalid --workers %d: want 1 or more", w.Slots)
	case w.Lease < 2*time.Second || w.Lease > time.Hour:
		return nil, usageErrorf("invalid --lease %s: want 2s to 1h", w.Lease)
	case w.IdleTimeout < 0 || w.Grace < 0 || ctx.Duration("give-up") < time.Second:
		return nil, usageErrorf("invalid --idle-timeout, --grace or --give-up: want 0 or more, and 1s or more for --give-up")
	case w.Modules < 1:
		return nil, usageErrorf("invalid --modules %d: want 1 or more", w.Modules)
	}
	return w, checkProgress(ctx.String("progress"))
}

func work(ctx *cli.Context, c *console) error {
	url, err := sharedStore(ctx)
	if err != nil {
		return err
	}
	w, err := parseWorker(ctx)
	if err != nil {
		return err
	}
	w.Notice = func(line string) { fmt.Fprintf(c.err, "wasm-jobs: worker: %s\n", line) }
	s, err := openShared(ctx, c, url, postgres.Options{GiveUp: ctx.Duration("give-up"), Connections: min(w.Slots, 4) + 1})
	if err != nil {
		return err
	}
	defer s.Close()
	w.Store = s
	if dir := ctx.String("shared"); dir != "" {
		if w.Shared, err = cluster.SharedDir(dir, s); err != nil {
			return usageErrorf("--shared: %w", err)
		}
	}
	if w.Only, err = onlyJob(ctx, s); err != nil {
		return err
	}
	modules, err := openEngine(context.WithoutCancel(ctx.Context), compiler)
	if err != nil {
		return err
	}
	w.Engine = host.NewEngine(modules)
	defer w.Engine.Close(context.WithoutCancel(ctx.Context))
	watching, err := parseWatch(ctx)
	if err != nil {
		return err
	}
	numbers := &workerNumbers{workers: s.Workers, name: w.Name, host: w.Host, pid: w.PID}
	watched, err := watching.watchWorker(ctx.Context, c, numbers)
	if err != nil {
		return err
	}
	defer watched.close()
	w.Watcher = watched
	interrupts := make(chan os.Signal, 1) // notices SIGINT: only then is the exit code not 0
	if !signal.Ignored(os.Interrupt) {
		signal.Notify(interrupts, os.Interrupt)
	}
	defer signal.Stop(interrupts)
	c.signals.Notice(func() {
		fmt.Fprintf(c.err, "wasm-jobs: worker: stopping: running chunks get %v; a second signal stops at once\n", w.Grace)
	})
	c.signals.Drain()
	if ctx.String("progress") != "none" {
		fmt.Fprintf(c.err, "wasm-jobs: worker %s takes leases of %s, %d at once\n", w.Name, s.URL(), w.Slots)
	}
	err = cluster.Work(c.signals.Hard, c.signals.Soft, *w)
	if err == nil && len(interrupts) > 0 {
		return fmt.Errorf("%w: finished outputs are kept", host.ErrInterrupted)
	}
	return storeError(err)
}

// onlyJob returns the job of --job, by its whole id or, if the role may read records, by
// the beginning of the id.
func onlyJob(ctx *cli.Context, s *postgres.Store) (*store.JobID, error) {
	prefix := ctx.String("job")
	if prefix == "" {
		return nil, nil
	}
	if id, ok := journal.ParseName(prefix); ok {
		return &id, nil
	}
	j, err := journal.Find(ctx.Context, s, prefix)
	if _, ambiguous := errors.AsType[*journal.AmbiguousError](err); ambiguous {
		return nil, usageErrorf("--job: %w: give more of it", err)
	}
	if errors.Is(err, store.ErrNoJob) {
		return nil, unknownJob(ctx, prefix)
	}
	if err != nil {
		return nil, storeError(err)
	}
	return &j.Record.ID, nil
}
