package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/progress"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
)

func limitFlag() cli.Flag {
	return &cli.IntFlag{Name: "limit", DefaultText: "all", Usage: "take only the first `N` chunks of the input, before --range and --ids"}
}

// parseLimit reads --limit; 0 = all.
func parseLimit(ctx *cli.Context) (int, error) {
	n := ctx.Int("limit")
	if isSet(ctx, "limit") && n < 1 {
		return 0, usageErrorf("invalid --limit %d: want 1 or more", n)
	}
	return n, nil
}

// selection says which chunks of the file the job has. The zero value selects all.
type selection struct {
	made   bool
	named  abi.IDSet // single ids: the file must have each of them
	ranges abi.IDSet // the file may lack any of these ids

	text spec.Selection // as it was given
}

// parse reads --range and --ids. It refuses an empty value, which is more often a
// mistake in a script than a request for a job without chunks.
func (s *selection) parse(ctx *cli.Context) error {
	for _, name := range []string{"range", "ids"} {
		if isSet(ctx, name) && strings.TrimSpace(ctx.String(name)) == "" {
			return usageErrorf("empty --%s: leave it out to run all chunks", name)
		}
	}
	if !isSet(ctx, "range") && !isSet(ctx, "ids") {
		return nil
	}
	return s.read(ctx.String("range"), ctx.String("ids"))
}

// read reads the values of --range and --ids.
func (s *selection) read(inRanges, ids string) error {
	s.made, s.text = true, spec.Selection{Ranges: inRanges, IDs: ids}
	ranges, err := abi.ParseRanges(inRanges)
	if err != nil {
		return usageErrorf("--range: %w", err)
	}
	if s.named, s.ranges, err = abi.ParseNamedIDs(ids); err != nil {
		return usageErrorf("--ids: %w", err)
	}
	s.ranges.AddSet(ranges)
	return nil
}

// spec returns the selection for the record; nil if it selects all chunks.
func (s *selection) spec() *spec.Selection {
	if !s.made {
		return nil
	}
	return &s.text
}

// of returns the selected chunks of file, which must stay open while they are used.
func (s *selection) of(ctx context.Context, file *chunks.File, display *progress.Display) (*chunks.File, error) {
	if !s.made {
		return file, nil
	}
	if missing := file.Missing(s.named); !missing.Empty() {
		return nil, usageErrorf("unknown --ids %s: no chunk has such an id", shortSet(missing))
	}
	var set abi.IDSet
	set.AddSet(s.named)
	set.AddSet(s.ranges)
	switch {
	case file.Len() == 0 || file.Count(s.ranges) > 0 || s.ranges.Empty():
	case file.Count(set) == 0:
		return nil, usageErrorf("no chunk is selected: none has an id in %s", shortSet(set))
	default:
		display.Say("warning: no chunk has an id in %s", shortSet(s.ranges))
	}
	return file.Select(ctx, set)
}

// shortSet formats a set for a message. A long set is cut.
func shortSet(set abi.IDSet) string {
	s := set.String()
	if r := []rune(s); len(r) > 100 {
		return fmt.Sprintf("%s… (%d ids)", string(r[:100]), set.Count())
	}
	return s
}
