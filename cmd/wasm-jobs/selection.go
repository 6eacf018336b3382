package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
)

// selection says which chunks of the file make the job. The zero selection
// takes all.
type selection struct {
	made   bool
	named  abi.IDSet // one by one: each must be there
	ranges abi.IDSet // of which any part may be missing
}

// parse reads --range and --ids. An empty value is refused: it is a script's
// mistake more often than a wish for a job of no chunks.
func (s *selection) parse(ctx *cli.Context) (err error) {
	for _, name := range []string{"range", "ids"} {
		if isSet(ctx, name) && strings.TrimSpace(ctx.String(name)) == "" {
			return refuse("--%s is empty: without it, all chunks are run", name)
		}
	}
	s.made = isSet(ctx, "range") || isSet(ctx, "ids")
	ranges, err := abi.ParseRanges(ctx.String("range"))
	if err != nil {
		return refuse("--range: %w", err)
	}
	if s.named, s.ranges, err = abi.ParseNamedIDs(ctx.String("ids")); err != nil {
		return refuse("--ids: %w", err)
	}
	s.ranges.AddSet(ranges)
	return nil
}

// of returns the selected chunks of file, which stays open for them.
func (s *selection) of(ctx context.Context, file *chunks.File, screen *screen) (*chunks.File, error) {
	if !s.made {
		return file, nil
	}
	if missing := file.Missing(s.named); !missing.Empty() {
		return nil, refuse("--ids: no chunk has the id %s", shortSet(missing))
	}
	if file.Len() > 0 && !s.ranges.Empty() && file.Count(s.ranges) == 0 {
		screen.say("warning: no chunk has an id in %s", shortSet(s.ranges))
	}
	var set abi.IDSet
	set.AddSet(s.named)
	set.AddSet(s.ranges)
	return file.Select(ctx, set)
}

// shortSet returns a set for a message, cut where it is long.
func shortSet(set abi.IDSet) string {
	s := set.String()
	if r := []rune(s); len(r) > 100 {
		return fmt.Sprintf("%s… (%d ids)", string(r[:100]), set.Count())
	}
	return s
}
