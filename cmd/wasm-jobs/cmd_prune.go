package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

func pruneCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "prune", Usage: "delete old jobs to free space",
		UsageText: `wasm-jobs prune [--store DIR] [--json] --older-than D --max-size SIZE

It deletes jobs whose last run is older than D, and then the oldest until the store
takes at most SIZE. Running jobs are kept. It also deletes damaged files that were set
aside, and outputs whose job's record was lost.

Example: wasm-jobs prune --older-than 30d
         wasm-jobs prune --max-size 10GiB`,
		Flags: []cli.Flag{
			storeFlag(), jsonFlag(),
			&cli.StringFlag{Name: "older-than", Usage: "delete jobs that have not run for a `TIME` such as 12h or 30d"},
			&cli.StringFlag{Name: "max-size", Usage: "delete the oldest jobs until the store takes at most `SIZE`"},
			&cli.BoolFlag{Name: "dry-run", Usage: "print what --older-than would delete, without deleting"},
		},
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 0); err != nil {
				return err
			}
			p, err := parsePrune(ctx)
			if err != nil {
				return err
			}
			return p.run(ctx, c)
		},
	}
}

// pruning is the task of prune.
type pruning struct {
	age     time.Duration // valid with aged
	aged    bool
	size    uint64 // valid with sized
	sized   bool
	dry     bool
	deleted []jobState
	files   []sqlite.AsideFile
	orphans int
	before  sqlite.Size
	after   sqlite.Size
}

func parsePrune(ctx *cli.Context) (p *pruning, err error) {
	p = &pruning{dry: ctx.Bool("dry-run")}
	if !isSet(ctx, "older-than") && !isSet(ctx, "max-size") {
		return nil, usageErrorf("missing --older-than D or --max-size SIZE")
	}
	if p.aged = isSet(ctx, "older-than"); p.aged {
		if p.age, err = parseAge(ctx.String("older-than")); err != nil {
			return nil, err
		}
	}
	if p.sized = isSet(ctx, "max-size"); p.sized {
		if p.size, err = humanize.ParseBytes(ctx.String("max-size")); err != nil {
			return nil, usageErrorf("invalid --max-size %q: want a size such as 64MiB or 10GiB", ctx.String("max-size"))
		}
		if p.dry {
			return nil, usageErrorf("--dry-run and --max-size exclude each other: jobs share outputs, so the space that a job frees is known only after it is deleted")
		}
	}
	return p, nil
}

// parseAge reads a duration, which may be in days.
func parseAge(s string) (time.Duration, error) {
	if number, isDays := strings.CutSuffix(s, "d"); isDays {
		if days, err := strconv.ParseFloat(number, 64); err == nil && days >= 0 && days < 100_000 {
			return time.Duration(days * 24 * float64(time.Hour)), nil
		}
	} else if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return d, nil
	}
	return 0, usageErrorf("invalid --older-than %q: want a time such as 90m, 12h or 30d", s)
}

func (p *pruning) run(ctx *cli.Context, c *console) (err error) {
	dir, err := storeDir(ctx)
	if err != nil {
		return err
	}
	s, err := records(ctx, c)
	if err != nil {
		return err
	}
	if shared, ok := s.(*postgres.Store); ok {
		defer shared.Close()
		return pruneShared(ctx, c, p, shared)
	}
	if s, ok := s.(*sqlite.Store); ok {
		defer func() { err = errors.Join(err, storeError(s.Close())) }()
		if err := p.store(ctx, s); err != nil {
			return storeError(err)
		}
	}
	if err := p.aside(dir); err != nil {
		return storeError(err)
	}
	return p.report(ctx, c)
}

// store deletes jobs.
func (p *pruning) store(ctx *cli.Context, s *sqlite.Store) (err error) {
	if p.before, err = s.Size(ctx.Context); err != nil {
		return err
	}
	var all []*journal.Record // the latest first
	for j, err := range journal.List(ctx.Context, s) {
		if err != nil {
			return err
		}
		all = append(all, j)
	}
	if !p.dry {
		if err := s.Sweep(ctx.Context); err != nil {
			return err
		}
		if p.orphans, err = s.DeleteOrphans(ctx.Context); err != nil {
			return err
		}
	}
	for i := len(all) - 1; i >= 0; i-- {
		j := all[i]
		if j.State() == journal.Running {
			continue
		}
		wanted, err := p.wants(ctx, s, j)
		if err != nil {
			return err
		}
		if !wanted {
			break
		}
		if !p.dry {
			if err := s.Delete(ctx.Context, j.Record.ID); err != nil && !errors.Is(err, store.ErrNoJob) {
				return err
			}
		}
		p.deleted = append(p.deleted, stateOf(j))
	}
	if !p.dry && (len(p.deleted) > 0 || p.orphans > 0) {
		if err := s.Compact(ctx.Context); err != nil {
			return err
		}
	}
	p.after, err = s.Size(ctx.Context)
	return err
}

// wants reports whether a job must be deleted: it is too old, or the store too large.
func (p *pruning) wants(ctx *cli.Context, s *sqlite.Store, j *journal.Record) (bool, error) {
	if p.aged && time.Since(j.Last().Seen) > p.age {
		return true, nil
	}
	if !p.sized {
		return false, nil
	}
	size, err := s.Size(ctx.Context)
	return uint64(size.Used) > p.size, err
}

// aside removes files that were set aside. With --max-size it removes all of them,
// because nobody needs them.
func (p *pruning) aside(dir string) error {
	files, err := sqlite.AsideFiles(dir)
	for _, file := range files {
		if !p.sized && time.Since(file.Time) <= p.age {
			continue
		}
		if !p.dry {
			err = errors.Join(err, os.Remove(file.Path))
		}
		p.files = append(p.files, file)
	}
	return err
}

func (p *pruning) report(ctx *cli.Context, c *console) error {
	if ctx.Bool("json") {
		return outputError(writeJSON(c.out, struct {
			Jobs    []jobState         `json:"jobs"`
			Files   []sqlite.AsideFile `json:"files"`
			Orphans int                `json:"orphans"`
			Before  sqlite.Size        `json:"before"`
			After   sqlite.Size        `json:"after"`
			DryRun  bool               `json:"dry_run"`
		}{append([]jobState{}, p.deleted...), append([]sqlite.AsideFile{}, p.files...), p.orphans, p.before, p.after, p.dry}))
	}
	would, deleted, removed := "", "deleted", "removed"
	if p.dry {
		would, deleted, removed = "would be ", "would delete", "would remove"
	}
	if err := reportDeleted(ctx, c, deleted, p.deleted); err != nil {
		return err
	}
	for _, file := range p.files {
		fmt.Fprintf(c.err, "wasm-jobs: %s %s (%s)\n", removed, file.Path, humanize.IBytes(uint64(file.Size)))
	}
	fmt.Fprintf(c.err, "wasm-jobs: %s %spruned; the store took %s and takes %s\n", plural(len(p.deleted), "job"), would,
		humanize.IBytes(uint64(p.before.Files)), humanize.IBytes(uint64(p.after.Files)))
	return nil
}
