package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/flow"
)

func flowRedriveCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "redrive", Usage: "put failed, held or uncertain items back, and run",
		UsageText: `wasm-jobs flow redrive [flags] --to STATE (--state STATE|--class CLASS|--items IDS) RUN

The items go to STATE, with the data with which they entered their current state, or
with --data last, if too many of their children failed, the data of their last move.
The decision is part of the run, and of its receipt. The definition and the chunks
are read from the same files as before.

Example: wasm-jobs flow redrive prices --to fetch --class effect

` + flowExitHelp,
		ArgsUsage: "RUN",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "send the items to `STATE`"},
			&cli.StringFlag{Name: "state", Usage: "items in `STATE`; failed: all failed items; uncertain: items whose effect may have been made"},
			&cli.StringFlag{Name: "class", Usage: "items that failed with `CLASS`"},
			&cli.StringFlag{Name: "data", Value: "entry", Usage: "the items' data: entry, with which they entered their state; or last, which they have now"},
			&cli.StringFlag{Name: "items", Usage: "items with `IDS`, such as 7,7->0"},
		}, redriveFlags()...),
		Action: func(ctx *cli.Context) error { return redriveFlow(ctx, c) },
	}
}

// redriveFlags are the flags of flow run, except those about the input and the name.
func redriveFlags() (flags []cli.Flag) {
	not := map[string]bool{"as": true, "id-key": true, "chunk-format": true, "range": true, "ids": true, "limit": true, "no-store": true}
	for _, name := range sourceFlagNames() {
		not[name] = true
	}
	for _, flag := range flowRunFlags() {
		if !not[nameOf(flag)] {
			flags = append(flags, flag)
		}
	}
	return flags
}

func redriveFlow(ctx *cli.Context, c *console) error {
	if err := arguments(ctx, 1); err != nil {
		return err
	}
	choice, err := parseChosen(ctx)
	if err != nil {
		return err
	}
	o := &flowOptions{retryAfter: ctx.Duration("max-retry-after")}
	always := func(string) bool { return true }
	if err := errors.Join(o.parseShared(ctx), o.parseEngines(ctx), o.parseLists(ctx), o.parseBounds(ctx, always)); err != nil {
		return err
	}
	err = withFlow(ctx, c, false, func(f *flowRecord) error {
		o.file, o.as, o.bounds = f.spec.File, f.spec.Name, f.spec.Bounds
		f.spec.Flags.restore(ctx, o)
		if o.meta == nil {
			o.meta = f.spec.Meta
		}
		if err := o.parseBounds(ctx, func(name string) bool { return name == "live" || isSet(ctx, name) }); err != nil {
			return err
		}
		if f.spec.Chunks != nil {
			if err := o.readChunks(f.spec.Chunks); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	o.decide = func() error {
		return withFlow(ctx, c, false, func(f *flowRecord) error { return choice.keep(ctx.Context, c, f) })
	}
	return runFlow(ctx.Context, c, o)
}

// redriveChoice are the items of a redrive.
type redriveChoice struct {
	to, state string
	class     abi.Class
	items     abi.IDSet
	last      bool // data
}

func parseChosen(ctx *cli.Context) (x redriveChoice, err error) {
	given := 0
	for _, name := range []string{"state", "class", "items"} {
		if ctx.String(name) != "" {
			given++
		}
	}
	if x.to = ctx.String("to"); x.to == "" || given != 1 {
		return x, usageErrorf("redrive takes --to STATE and one of --state, --class and --items")
	}
	x.state, x.class = ctx.String("state"), abi.Class(ctx.String("class"))
	if data := ctx.String("data"); data != "entry" && data != "last" {
		return x, usageErrorf("invalid --data %q: want entry or last", data)
	}
	x.last = ctx.String("data") == "last"
	if x.items, err = abi.ParseIDs(ctx.String("items")); err != nil {
		return x, usageErrorf("--items: %w", err)
	}
	return x, nil
}

func (x *redriveChoice) has(s *flow.ItemState) bool {
	switch {
	case s.Ended && !s.Failed:
		return false
	case x.state == "failed":
		return s.Failed
	case x.state != "":
		return s.State == x.state
	case x.class != "":
		return s.Failed && s.Class == x.class
	}
	return x.items.Has(s.ID)
}

// keep records the decision.
func (x *redriveChoice) keep(ctx context.Context, c *console, f *flowRecord) error {
	if f.running() {
		return usageErrorf("run %s is running: stop it first", f.spec.Name)
	}
	look, closeInput, err := f.look(ctx, c)
	if err != nil {
		return err
	}
	defer closeInput()
	known := false
	for i := range look.Flow.States {
		known = known || look.Flow.States[i].Name == x.to
	}
	if !known {
		return usageErrorf("invalid --to %q: want a state of the flow", x.to)
	}
	var all []flow.Redrive
	_, err = look.Items(ctx, func(s *flow.ItemState) error {
		if x.has(s) {
			all = append(all, flow.Redrive{ID: s.ID, From: s.At, Step: s.Steps, To: x.to, Children: s.Class == flow.ClassChildren, Last: x.last})
		}
		return nil
	})
	switch {
	case err != nil:
		return storeError(err)
	case len(all) == 0:
		return usageErrorf("run %s has no such items that failed, or are held or uncertain", f.spec.Name)
	}
	fmt.Fprintf(c.err, "wasm-jobs: %s go to state %s\n", plural(len(all), "item"), printable(x.to))
	return flow.KeepRedrives(ctx, f.store, f.spec.Name, all)
}
