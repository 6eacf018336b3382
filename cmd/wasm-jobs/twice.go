package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// twice says which chunks run executes two times, and on what.
type twice struct {
	share       float64 // 0 = none
	interpreter bool
}

func (t *twice) parse(ctx *cli.Context) error {
	engine := ctx.String("verify-engine")
	if !slices.Contains([]string{"compiler", "interpreter"}, engine) {
		return refuse("--verify-engine %q is none of compiler, interpreter", engine)
	}
	if !isSet(ctx, "verify") {
		if isSet(ctx, "verify-engine") {
			return refuse("--verify-engine is about --verify, which is not given")
		}
		return nil
	}
	percent, ok := parsePercent(ctx.String("verify"))
	if !ok {
		return refuse("--verify %q is no percentage such as 5%%", ctx.String("verify"))
	}
	t.share, t.interpreter = percent/100, engine == "interpreter"
	return nil
}

// open returns what the job is to have, nil where nothing is executed twice, and
// what ends it after the job.
func (t *twice) open(ctx context.Context) (*host.Verify, func(), error) {
	switch {
	case t.share == 0:
		return nil, func() {}, nil
	case !t.interpreter:
		return &host.Verify{Share: t.share}, func() {}, nil
	}
	modules, err := runtime.New(ctx, runtime.Config{CacheDir: compiledDir(), Interpreter: true})
	if err != nil {
		return nil, nil, err
	}
	engine := host.NewEngine(modules)
	return &host.Verify{Share: t.share, Engine: engine}, func() { engine.Close(context.WithoutCancel(ctx)) }, nil
}

// explainDifference shows the two outputs of a chunk.
func explainDifference(c *console, err error) {
	e, ok := errors.AsType[*host.DifferenceError](err)
	if !ok {
		return
	}
	var d chunkDifferences
	d.add(e.ID, e.First, e.Second, e.Failure)
	w := new(strings.Builder)
	d.print(w, "first", "second")
	_, _ = c.err.Write([]byte(w.String()))
}
