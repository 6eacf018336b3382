package main

import (
	"context"
	"errors"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/verify"
)

// recheck says which share of the chunks run executes twice, and on which engine.
type recheck struct {
	share       float64 // 0 = none
	interpreter bool
}

func (r *recheck) parse(ctx *cli.Context) error {
	engine, err := parseEngine(ctx, "verify-engine")
	if err != nil {
		return err
	}
	if !isSet(ctx, "verify") {
		if isSet(ctx, "verify-engine") {
			return usageErrorf("--verify-engine needs --verify P%%")
		}
		return nil
	}
	percent, ok := parsePercent(ctx.String("verify"))
	if !ok {
		return usageErrorf("invalid --verify %q: want a percentage such as 5%%", ctx.String("verify"))
	}
	r.share, r.interpreter = percent/100, engine == interpreter
	return nil
}

// open returns the job's recheck, which is nil if nothing is executed twice, and the
// function that closes it after the job.
func (r *recheck) open(ctx context.Context) (*host.Recheck, func(), error) {
	switch {
	case r.share == 0:
		return nil, func() {}, nil
	case !r.interpreter:
		return &host.Recheck{Share: r.share}, func() {}, nil
	}
	modules, err := openEngine(ctx, interpreter)
	if err != nil {
		return nil, nil, err
	}
	engine := host.NewEngine(modules)
	return &host.Recheck{Share: r.share, Engine: engine}, func() { engine.Close(context.WithoutCancel(ctx)) }, nil
}

// explainDifference prints the two outputs of a chunk.
func explainDifference(c *console, err error) {
	e, ok := errors.AsType[*host.DifferenceError](err)
	if !ok {
		return
	}
	var d verify.ChunkDifferences
	d.Add(e.ID, e.First, e.Second, e.Failure)
	w := new(strings.Builder)
	printChunks(w, &d, "first", "second")
	_, _ = c.err.Write([]byte(w.String()))
}
