package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host/bundle"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/host/replay"
	"github.com/wasm-jobs/wasm-jobs/host/verify"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
)

// replayOptions are the flags of replay, parsed.
type replayOptions struct {
	bundle, module string
	engine         string
	trace          int            // lines; 0 = none
	dirs           commandOptions // of a WASI command
	limits         verify.Limits
	timeout        time.Duration // of a call; 0 = none
	setupTimeout   time.Duration // of setup; 0 = none
	dump           resultFiles
	lowered        bool // timeout is lower than the bundle's
	dumped         bool // the linear memory is in dump; false if there was no instance
	json           bool
}

// defaultTrace is the default number of trace lines.
const defaultTrace = 1000

// maxTrace bounds the trace lines, and so the memory of a trace.
const maxTrace = 1_000_000

func replayCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "replay", Usage: "run a failed chunk again from its bundle",
		UsageText: `wasm-jobs replay [flags] BUNDLE --module MODULE

Example: wasm-jobs run faulty.wasm chunks.cbor --bundle failed
         wasm-jobs replay failed/3.bundle --module faulty.wasm --trace

A bundle holds the chunk, the context, the settings and the result of the last
attempt. Class, message, stack and fuel are compared. --trace runs the chunk once
more and prints the first and the last calls of the guest.

Because anybody can make a bundle, --memory, --stack and --timeout limit it here,
and a bundle without metering is refused unless --no-metering is given.

Exit codes:
   0    it ended the same
   2    invalid usage, another module, or a damaged bundle
   3    _initialize or setup failed, unlike when the bundle was made
   4    the dump or the answer could not be written
   5    it ended differently
   130  interrupted`,
		ArgsUsage: "BUNDLE",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "module", Usage: "`FILE` of the module", Required: true},
			&cli.StringFlag{Name: "engine", Value: "compiler", Usage: "compiler, or interpreter, which shares no code generator with it and stops at 2,000 nested calls"},
			&cli.BoolFlag{Name: "trace", Usage: "print the function calls, with arguments and results"},
			&cli.IntFlag{Name: "trace-limit", Value: defaultTrace, Usage: "print at most `N` lines of the trace: half from its start, half from its end"},
			&cli.StringFlag{Name: "dump-memory", Usage: "write the linear memory at the end of the call to `FILE`"},
			&cli.StringSliceFlag{Name: "dir", KeepSpace: true, Usage: "WASI command: directory `HOST:GUEST` that it could read; may be given again"},
			&cli.StringFlag{Name: "max-dir", Value: "256MiB", Usage: "limit of all files of --dir together, which are held in memory"},
			&cli.StringFlag{Name: "memory", Value: "256MiB", Usage: "refuse a bundle with a larger memory limit"},
			stackFlag("refuse a bundle with a larger stack limit"),
			&cli.DurationFlag{Name: "timeout", Value: 30 * time.Second, DefaultText: "30s, and 10m for setup", Usage: "limit of one call, unless the bundle has a lower one; 0 = none"},
			&cli.BoolFlag{Name: "no-metering", Usage: "accept a bundle without metering, although neither time nor fuel can stop its guest"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
		},
		Action: func(ctx *cli.Context) error {
			o, err := parseReplay(ctx)
			if err != nil {
				return err
			}
			return runReplay(ctx.Context, c, o)
		},
	}
}

func parseReplay(ctx *cli.Context) (*replayOptions, error) {
	if ctx.NArg() != 1 {
		return nil, usageErrorf("replay takes one BUNDLE, got %s", plural(ctx.NArg(), "argument"))
	}
	o := &replayOptions{
		bundle: ctx.Args().First(), module: ctx.String("module"),
		limits: verify.Limits{Unmetered: ctx.Bool("no-metering")}, timeout: ctx.Duration("timeout"), setupTimeout: 10 * time.Minute,
		json: ctx.Bool("json"), dump: resultFiles{result: ctx.String("dump-memory")},
	}
	var err error
	if o.engine, err = parseEngine(ctx, "engine"); err != nil {
		return nil, err
	}
	if o.dirs, err = parseDirs(ctx); err != nil {
		return nil, err
	}
	if o.limits.Memory, err = parseSize[uint64](ctx, "memory"); err != nil {
		return nil, err
	}
	if o.limits.Stack, err = parseStack(ctx); err != nil {
		return nil, err
	}
	if isSet(ctx, "timeout") {
		o.setupTimeout = o.timeout
	}
	limit := ctx.Int("trace-limit")
	switch {
	case o.timeout < 0:
		return nil, usageErrorf("invalid --timeout %v: want 0 or more", o.timeout)
	case ctx.Bool("trace") && (limit < 2 || limit > maxTrace):
		return nil, usageErrorf("invalid --trace-limit %d: want 2 to %d", limit, maxTrace)
	case ctx.Bool("trace"):
		o.trace = limit
	case isSet(ctx, "trace-limit"):
		return nil, usageErrorf("--trace-limit needs --trace")
	case o.dump.result == "-":
		return nil, usageErrorf("invalid --dump-memory -: standard output is used for the answer; give a file name")
	}
	return o, nil
}

func runReplay(ctx context.Context, c *console, o *replayOptions) error {
	c.signals.Notice(func() { fmt.Fprintln(c.err, "wasm-jobs: stopping; a second signal stops at once") })
	b, err := readBundle(o.bundle)
	if err != nil {
		return err
	}
	if err := o.checkLimits(b); err != nil {
		return err
	}
	wasm, err := o.readModule(b)
	if err != nil {
		return err
	}
	dirs, err := o.readDirs(ctx, b)
	if err != nil {
		return err
	}
	if err := o.dump.open(c.out); err != nil {
		return err
	}
	defer o.dump.discard()
	r, err := replay.Run(ctx, b, wasm, o.options(dirs))
	if err != nil {
		return (&runOptions{module: o.module}).ofModule(interrupted(ctx, err))
	}
	return o.answer(c, newReplayed(o, b, r))
}

// answer prints the result of the replay, and places the dump.
func (o *replayOptions) answer(c *console, r *replayed) error {
	if o.dump.result != "" && !o.dumped {
		r.Notes = append(r.Notes, fmt.Sprintf("there is no memory to write to %s: no call was made", o.dump.result))
	}
	if err := r.print(c.out, o.json); err != nil {
		return outputError(err)
	}
	if o.dumped {
		if err := o.dump.targets[o.dump.result].Place(); err != nil {
			return outputError(err)
		}
	}
	if !r.Same {
		return &exitError{exitDiffers, nil}
	}
	return nil
}

func (o *replayOptions) options(dirs []wasi.Dir) replay.Options {
	engine := engineConfig(o.engine)
	return replay.Options{Dirs: dirs, CacheDir: engine.CacheDir, Interpreter: engine.Interpreter, Trace: o.trace, Memory: o.dumpMemory}
}

// dumpMemory writes the linear memory to its file.
func (o *replayOptions) dumpMemory(memory []byte) error {
	if o.dump.result == "" {
		return nil
	}
	o.dumped = true
	return outputError(o.dump.targets[o.dump.result].Fill(func(w *bufio.Writer) error {
		_, err := w.Write(memory)
		return err
	}))
}

func readBundle(path string) (*bundle.Bundle, error) {
	file, err := readBounded(path, bundle.MaxSize, "a bundle")
	if err != nil {
		return nil, err
	}
	b, err := bundle.Decode(file)
	if err != nil {
		return nil, usageErrorf("bundle %s: %w", path, err)
	}
	return b, nil
}

// checkLimits refuses a bundle that exceeds the reader's limits, and lowers its
// timeouts to those limits.
func (o *replayOptions) checkLimits(b *bundle.Bundle) error {
	err := o.limits.Check(&receipt.Settings{Metering: !b.Options.NoMetering, Memory: b.Settings.Memory, Stack: b.Settings.Stack})
	if errors.Is(err, verify.ErrUnmetered) {
		return usageErrorf("bundle %s: its job had no metering, so nothing would stop an endless guest; --no-metering allows it", o.bundle)
	}
	if beyond, ok := errors.AsType[*verify.MemoryError](err); ok {
		return usageErrorf("bundle %s: memory limit too large: %d bytes, want at most %d; --memory SIZE allows more", o.bundle, beyond.Have, beyond.Limit)
	}
	if beyond, ok := errors.AsType[*verify.StackError](err); ok {
		return usageErrorf("bundle %s: stack limit too large: %d bytes, want at most %d; --stack SIZE allows more", o.bundle, beyond.Have, beyond.Limit)
	}
	o.lowered = lower(&b.Settings.Timeout, o.timeout)
	lower(&b.Settings.FoldTimeout, o.setupTimeout)
	return err
}

// lower lowers a timeout to a limit. For both, 0 means none.
func lower(timeout *time.Duration, limit time.Duration) (lowered bool) {
	if limit == 0 || *timeout > 0 && *timeout <= limit {
		return false
	}
	*timeout = limit
	return true
}

// readModule reads the module, which must be the module of the bundle.
func (o *replayOptions) readModule(b *bundle.Bundle) ([]byte, error) {
	wasm, err := readModule(o.module)
	if err != nil {
		return nil, err
	}
	if other, ok := errors.AsType[*replay.ModuleError](replay.CheckModule(b, wasm)); ok {
		return nil, usageErrorf("%s: not the module of bundle %s: it has SHA-256 %x and %d bytes, want %x and %d; give the right one with --module FILE",
			o.module, o.bundle, other.Given.SHA256, other.Given.Size, other.Recorded.SHA256, other.Recorded.Size)
	}
	return wasm, nil
}

// readDirs reads the directories that the chunk could read, and checks that they have
// not changed.
func (o *replayOptions) readDirs(ctx context.Context, b *bundle.Bundle) ([]wasi.Dir, error) {
	read, err := o.dirs.read(ctx)
	if err != nil {
		return nil, err
	}
	dirs, err := replay.MatchDirs(b, read.Dirs)
	if problem, ok := errors.AsType[*replay.DirError](err); ok {
		return nil, o.refuseDirs(problem)
	}
	return dirs, err
}

func (o *replayOptions) refuseDirs(e *replay.DirError) error {
	switch e.Problem {
	case replay.DirMissing:
		return usageErrorf("missing directory %s, which the chunk could read: give it with --dir HOST:%s", e.Guest, e.Guest)
	case replay.DirDiffers:
		i := slices.IndexFunc(o.dirs.dirs, func(d hostDir) bool { return d.guest == e.Guest })
		return usageErrorf("--dir %s: its files differ from the bundle's: digest sha256:%x, want sha256:%x", o.dirs.dirs[i], e.Given, e.Recorded)
	}
	return usageErrorf("invalid --dir: want %d directories, as the chunk had, got %d", e.Want, e.Count)
}
