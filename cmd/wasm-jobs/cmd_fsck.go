package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/progress"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

func fsckCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "fsck", Usage: "check the store, and drop damaged outputs",
		UsageText: "wasm-jobs fsck [--store DIR] [--json]\n\nThe exit code is 1 if something was damaged. Damaged outputs are listed, and dropped.\n\nExample: wasm-jobs fsck",
		Flags:     []cli.Flag{storeFlag(), jsonFlag()},
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 0); err != nil {
				return err
			}
			return fsck(ctx, c)
		},
	}
}

func fsck(ctx *cli.Context, c *console) (err error) {
	dir, err := storeDir(ctx)
	if err != nil {
		return err
	}
	if postgres.IsURL(dir) {
		return fsckShared(ctx, c, dir)
	}
	found := struct {
		sqlite.CheckReport
		Store       string   `json:"store"`
		Notices     []string `json:"notices"`
		Names       []string `json:"names"` // of damaged outputs
		DamagedJobs []string `json:"damaged_jobs"`
	}{Store: dir, Notices: []string{}, Names: []string{}, DamagedJobs: []string{}}
	if !sqlite.Exists(dir) {
		if ctx.Bool("json") {
			return outputError(writeJSON(c.out, found))
		}
		_, err := fmt.Fprintf(c.out, "no store in %s\n", dir)
		return outputError(err)
	}
	s, err := sqlite.Open(ctx.Context, dir, sqlite.Options{
		Notice:     func(line string) { found.Notices = append(found.Notices, line) },
		Waiting:    c.waitingForStore,
		Damaged:    func(d sqlite.Damage) { found.Names = append(found.Names, damageLine(d)) },
		CheckJob:   journal.Check,
		DamagedJob: func(d sqlite.DamagedJob) { found.DamagedJobs = append(found.DamagedJobs, damagedJobLine(d)) },
	})
	if err != nil {
		return &exitError{exitStore, fmt.Errorf("the store cannot be opened: %w", err)}
	}
	defer func() { err = errors.Join(err, storeError(s.Close())) }()
	last := time.Now()
	found.CheckReport, err = s.Check(ctx.Context, func(outputs int) {
		if time.Since(last) >= progress.Every {
			last = time.Now()
			fmt.Fprintf(c.err, "wasm-jobs: %s checked\n", plural(outputs, "output"))
		}
	})
	if err != nil {
		return storeError(err)
	}
	if ctx.Bool("json") {
		err = writeJSON(c.out, found)
	} else {
		for _, line := range slices.Concat(found.Notices, found.DamagedJobs, found.Names) {
			fmt.Fprintf(c.out, "%s\n", line)
		}
		_, err = fmt.Fprintf(c.out, "%s; %s\n", intact(found.Outputs, found.Damaged, "intact"), plural(found.Jobs, "job"))
	}
	if err == nil && len(found.Notices)+found.Damaged > 0 {
		return &exitError{exitFailed, nil}
	}
	return outputError(err)
}
