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

	"github.com/wasm-jobs/wasm-jobs/host/jobs"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

func deleteCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "delete", Usage: "delete a job, and the outputs that no other job has",
		UsageText: "wasm-jobs delete [--store DIR] [--json] JOB\n\nExample: wasm-jobs delete 3f2a",
		ArgsUsage: "JOB",
		Flags:     []cli.Flag{storeFlag(), jsonFlag()},
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 1); err != nil {
				return err
			}
			return withJob(ctx, c, false, func(s *sqlite.Store, j *jobs.Job) error {
				if j.State() == jobs.Running {
					return refuse("job %s is running%s: stop it first", jobs.Name(j.Record.ID)[:shortName], circumstances(new(stateOf(j))))
				}
				if err := s.Delete(ctx.Context, j.Record.ID); err != nil && !errors.Is(err, store.ErrNoJob) {
					return failedStore(err)
				}
				return reportDeleted(ctx, c, "deleted", []jobState{stateOf(j)})
			})
		},
	}
}

func reportDeleted(ctx *cli.Context, c *console, verb string, deleted []jobState) error {
	if ctx.Bool("json") {
		return written(writeJSON(c.out, deleted))
	}
	for i := range deleted {
		fmt.Fprintf(c.err, "wasm-jobs: %s job %s (%s, %d chunks)\n", verb, deleted[i].Job[:shortName], deleted[i].Name, deleted[i].Total)
	}
	return nil
}

func pruneCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "prune", Usage: "delete the jobs that were not run for longest, and give back their space",
		UsageText: `wasm-jobs prune [--store DIR] [--json] --older-than D --max-size SIZE

Jobs whose last run is older than D go, then the oldest until what is kept takes
no more than SIZE; running ones stay. Files that were set aside for damage and
outputs whose job's record was lost go with them.

Example: wasm-jobs prune --older-than 30d
         wasm-jobs prune --max-size 10GiB`,
		Flags: []cli.Flag{
			storeFlag(), jsonFlag(),
			&cli.StringFlag{Name: "older-than", Usage: "delete jobs that were not run for a `TIME` such as 12h or 30d"},
			&cli.StringFlag{Name: "max-size", Usage: "delete the oldest jobs until the store takes no more than `SIZE`"},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what --older-than would delete, and delete nothing"},
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

// pruning is what prune is to do.
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
		return nil, refuse("prune needs --older-than D, --max-size SIZE or both")
	}
	if p.aged = isSet(ctx, "older-than"); p.aged {
		if p.age, err = parseAge(ctx.String("older-than")); err != nil {
			return nil, err
		}
	}
	if p.sized = isSet(ctx, "max-size"); p.sized {
		if p.size, err = humanize.ParseBytes(ctx.String("max-size")); err != nil {
			return nil, refuse("--max-size %q is no size such as 64MiB or 10GiB", ctx.String("max-size"))
		}
		if p.dry {
			return nil, refuse("--dry-run cannot tell what --max-size would delete: what jobs share is known when it is gone")
		}
	}
	return p, nil
}

// parseAge reads a time, which may be in days.
func parseAge(s string) (time.Duration, error) {
	if number, isDays := strings.CutSuffix(s, "d"); isDays {
		if days, err := strconv.ParseFloat(number, 64); err == nil && days >= 0 && days < 100_000 {
			return time.Duration(days * 24 * float64(time.Hour)), nil
		}
	} else if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return d, nil
	}
	return 0, refuse("--older-than %q is no time such as 90m, 12h or 30d", s)
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
	if s != nil {
		defer func() { err = errors.Join(err, failedStore(s.Close())) }()
		if err := p.store(ctx, s); err != nil {
			return failedStore(err)
		}
	}
	if err := p.aside(dir); err != nil {
		return failedStore(err)
	}
	return p.report(ctx, c)
}

// store deletes jobs.
func (p *pruning) store(ctx *cli.Context, s *sqlite.Store) (err error) {
	if p.before, err = s.Size(ctx.Context); err != nil {
		return err
	}
	var all []*jobs.Job // the latest first
	for j, err := range jobs.List(ctx.Context, s) {
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
		if j.State() == jobs.Running {
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

// wants tells whether a job is to go: it is too old, or the store too large.
func (p *pruning) wants(ctx *cli.Context, s *sqlite.Store, j *jobs.Job) (bool, error) {
	if p.aged && time.Since(j.Last().Seen) > p.age {
		return true, nil
	}
	if !p.sized {
		return false, nil
	}
	size, err := s.Size(ctx.Context)
	return uint64(size.Used) > p.size, err
}

// aside removes files that were set aside: with a size any, since nothing is
// needed of them.
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
		return written(writeJSON(c.out, struct {
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
	fmt.Fprintf(c.err, "wasm-jobs: %d jobs %spruned; the store took %s and takes %s\n", len(p.deleted), would,
		humanize.IBytes(uint64(p.before.Files)), humanize.IBytes(uint64(p.after.Files)))
	return nil
}

func fsckCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "fsck", Usage: "check every checksum of the store, name what is damaged and drop it",
		UsageText: "wasm-jobs fsck [--store DIR] [--json]\n\nExit code 1 says that something was damaged; what was, is dropped.\n\nExample: wasm-jobs fsck",
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
	found := struct {
		sqlite.CheckReport
		Store   string   `json:"store"`
		Notices []string `json:"notices"`
		Names   []string `json:"names"` // of what is damaged
	}{Store: dir, Notices: []string{}, Names: []string{}}
	if !sqlite.Exists(dir) {
		if ctx.Bool("json") {
			return written(writeJSON(c.out, found))
		}
		_, err := fmt.Fprintf(c.out, "no store in %s\n", dir)
		return written(err)
	}
	s, err := sqlite.Open(ctx.Context, dir, sqlite.Options{
		Notice:  func(line string) { found.Notices = append(found.Notices, line) },
		Damaged: func(d sqlite.Damage) { found.Names = append(found.Names, damageLine(d)) },
	})
	if err != nil {
		return &exitError{exitStore, fmt.Errorf("the store cannot be opened: %w", err)}
	}
	defer func() { err = errors.Join(err, failedStore(s.Close())) }()
	last := time.Now()
	found.CheckReport, err = s.Check(ctx.Context, func(outputs int) {
		if time.Since(last) >= plainEvery {
			last = time.Now()
			fmt.Fprintf(c.err, "wasm-jobs: %d outputs checked\n", outputs)
		}
	})
	if err != nil {
		return failedStore(err)
	}
	if ctx.Bool("json") {
		err = writeJSON(c.out, found)
	} else {
		for _, line := range append(found.Notices, found.Names...) {
			fmt.Fprintf(c.out, "%s\n", line)
		}
		_, err = fmt.Fprintf(c.out, "%d outputs are sound, %d were damaged and dropped; %d jobs\n", found.Outputs, found.Damaged, found.Jobs)
	}
	if err == nil && len(found.Notices)+found.Damaged > 0 {
		return &exitError{exitFailed, nil}
	}
	return written(err)
}
