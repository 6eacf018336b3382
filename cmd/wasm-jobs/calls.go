package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/processor"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

// callFlagNames are the flags of run that configure a call rather than a job. They
// have the same meaning in serve and pipe.
var callFlagNames = []string{
	"workers", "timeout", "fold-timeout", "fuel", "memory", "stack", "max-output", "max-chunk", "context", "seed", "isolation", "no-metering", "native-nans",
	"arg", "env", "stdin", "dir", "max-dir", "id-key", "log-level", "no-store",
}

// callFlags are the flags of commands that answer requests.
func callFlags() []cli.Flag {
	var flags []cli.Flag
	for _, flag := range runFlags() {
		if slices.Contains(callFlagNames, nameOf(flag)) {
			flags = append(flags, flag)
		}
	}
	return append(flags,
		&cli.StringFlag{Name: "store", DefaultText: "none", Usage: "reuse outputs of the store in `DIR`, also outputs of run, and keep new ones there"},
		&cli.BoolFlag{Name: "store-strict", Usage: "if the store cannot be read, fail the request instead of executing it"},
		&cli.BoolFlag{Name: "durable", Usage: "answer only after the output is in the store"},
	)
}

// callOptions are the flags of [callFlags], parsed.
type callOptions struct {
	*runOptions
	strict, durable bool
}

// parseCalls reads the flags of [callFlags].
func parseCalls(ctx *cli.Context) (*callOptions, error) {
	o := &callOptions{runOptions: &runOptions{
		context: ctx.String("context"), workers: ctx.Int("workers"),
		options:  runtime.Options{NoMetering: ctx.Bool("no-metering"), NativeNaNs: ctx.Bool("native-nans")},
		settings: runtime.Settings{Seed: ctx.Uint64("seed")},
	}, strict: ctx.Bool("store-strict"), durable: ctx.Bool("durable")}
	o.input.IDKey, o.input.NoIDKey = ctx.String("id-key"), ctx.String("id-key") == ""
	if isChosen(ctx, "workers") && o.workers < 1 {
		return nil, usageErrorf("invalid --workers %d: want 1 or more", o.workers)
	}
	ours := func(name string) bool { return slices.Contains(callFlagNames, name) }
	var wasiErr error
	o.wasi, wasiErr = parseCommand(ctx)
	return o, errors.Join(wasiErr, o.parseCallSizes(ctx, ours), o.parseLimits(ctx, ours), o.parseLogLevel(ctx), o.parseCache(ctx))
}

func (o *callOptions) parseCallSizes(ctx *cli.Context, ours func(string) bool) (err error) {
	if o.settings.Memory, err = parseSize[uint64](ctx, "memory"); err != nil {
		return err
	}
	if o.settings.Stack, err = parseStack(ctx); err != nil {
		return err
	}
	if o.input.MaxChunk, err = parseSize[int64](ctx, "max-chunk"); err != nil {
		return err
	}
	return o.parseOutputSizes(ctx, ours)
}

// parseCache reads the flags of the store. There is no store unless --store names one.
func (o *callOptions) parseCache(ctx *cli.Context) error {
	for _, name := range []string{"store-strict", "durable"} {
		if ctx.Bool(name) && !isSet(ctx, "store") {
			return usageErrorf("--%s needs --store DIR", name)
		}
	}
	if !isSet(ctx, "store") {
		return nil
	}
	return o.parseStore(ctx)
}

// callee holds the engine and the store, if any, for calls of modules. Its owner must
// call close.
type callee struct {
	c     *console
	o     *callOptions
	modes processor.Options
	store store.Store // nil without one
	told  sync.Once   // an error of the store was reported
}

// openCallee opens the engine and the store, and reads the context and directories.
func openCallee(ctx context.Context, c *console, o *callOptions) (x *callee, err error) {
	x = &callee{c: c, o: o}
	settings := o.settings
	if o.context != "" {
		if settings.Context, err = readContext(o.context); err != nil {
			return nil, err
		}
	}
	if settings.Command, err = o.wasi.read(ctx); err != nil {
		return nil, err
	}
	x.modes = processor.Options{Settings: settings, Module: o.options, Workers: o.workers}
	if o.store != "" {
		if err := x.openStore(ctx); err != nil {
			return nil, err
		}
	}
	if x.modes.Runtime, err = openEngine(ctx, compiler); err != nil {
		return nil, errors.Join(err, x.close())
	}
	return x, nil
}

// openStore opens the store, a directory or a database.
func (x *callee) openStore(ctx context.Context) error {
	notice := func(line string) { x.say("store: %s", line) }
	if postgres.IsURL(x.o.store) {
		s, err := openURL(ctx, x.o.store, postgres.Options{
			Create: true, Insecure: x.o.insecure, Notice: notice,
			Damaged: func(d postgres.Damage) { x.say("store: %s", packLine(d)) },
		})
		if err != nil {
			return err
		}
		x.store = s
		return nil
	}
	options := storeOptions(x.say)
	options.Waiting = func() { x.say(waitingForStore) }
	s, err := sqlite.Open(ctx, x.o.store, options)
	switch {
	case err != nil && ctx.Err() != nil:
		return host.ErrInterrupted
	case err != nil:
		return &exitError{exitStore, fmt.Errorf("the store cannot be opened: %w; use another --store DIR, or --no-store", err)}
	}
	x.store = s
	return nil
}

func (x *callee) close() error {
	var errs []error
	if x.modes.Runtime != nil {
		errs = append(errs, x.modes.Runtime.Close(context.Background()))
	}
	if x.store != nil {
		errs = append(errs, x.store.Close())
	}
	return errors.Join(errs...)
}

// say prints a line for people.
func (x *callee) say(format string, args ...any) {
	fmt.Fprintln(x.c.err, "wasm-jobs: "+printable(fmt.Sprintf(format, args...)))
}

// tell prints the first error of the store. Further errors are only counted.
func (x *callee) tell(err error) {
	x.told.Do(func() {
		x.say("warning: %v; requests are answered without the store, and further errors are only counted", err)
	})
}

// open opens a module. Errors name its path.
func (x *callee) open(ctx context.Context, path, name string) (*processor.Module, error) {
	wasm, err := readModule(path)
	if err != nil {
		return nil, err
	}
	o := x.modes
	if level := x.o.logLevel; level < logOff {
		o.Log = func(at int32, line string) {
			if at >= level {
				x.say("guest %s: %s", name, line)
			}
		}
	}
	m, err := processor.Open(ctx, wasm, o)
	if ctx.Err() != nil {
		return nil, host.ErrInterrupted
	}
	if _, refused := errors.AsType[*runtime.RefusedError](err); refused {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, err
}

// cache puts the store, if there is one, in front of a runner.
func (x *callee) cache(m *processor.Module, next processor.Appender) *processor.Cache {
	o := processor.CacheOptions{Action: m.Action(), Strict: x.o.strict, Durable: x.o.durable, Tell: x.tell}
	if x.store != nil {
		o.Store = x.store
	}
	return processor.NewCache(next, o)
}

// worded returns a copy of a failure whose message names flags instead of settings.
func worded(f *abi.Failure) *abi.Failure {
	words := *f
	words.Message = failureMessage(f.Class, f.Message)
	return &words
}
