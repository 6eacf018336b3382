package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/guest"
	"github.com/wasm-jobs/wasm-jobs/host/guest/check"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

func checkCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "check that a module is accepted and deterministic",
		UsageText: `wasm-jobs check [flags] MODULE

Example: wasm-jobs check --chunks chunks.cbor square.wasm

It reports whether the module is accepted, and possible improvements. Then it
calls the module with chunks (of --chunks, or small integers) several times: in
other orders, by several workers, on new instances, on the interpreter and in
another process. All calls must give the same bytes and the same fuel. It also
reports nondeterminism that the sandbox hides: state left behind, clock readings,
random bytes, NaN bits. Finally it reports the cost of a call, a reset and a new
instance on this machine.

Exit codes: 0 no differences; 1 differences; 2 the module is refused;
3 _initialize or setup failed.`,
		ArgsUsage: "MODULE",
		Flags: append(commandFlags(), []cli.Flag{
			&cli.StringFlag{Name: "chunks", Usage: "call the module with the chunks of `FILE`, a chunk file"},
			&cli.IntFlag{Name: "first", Value: 200, Usage: "use the first `N` chunks of the file, in id order"},
			&cli.StringFlag{Name: "context", Usage: "`FILE` with one CBOR item for the module's setup"},
			&cli.Uint64Flag{Name: "seed", Usage: "seed of the guest's random bytes"},
			&cli.DurationFlag{Name: "timeout", Value: 30 * time.Second, Usage: "limit of one call; 0 = none"},
			&cli.StringFlag{Name: "memory", Value: "256MiB", Usage: "limit of the guest's memory"},
			stackFlag("limit of the guest's nested calls"),
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			&cli.BoolFlag{Name: "calls", Usage: "make the calls once and print the results, for another check", Hidden: true},
		}...),
		Action: func(ctx *cli.Context) error {
			o, err := parseCheck(ctx)
			if err != nil {
				return err
			}
			return runCheck(ctx.Context, c, o)
		},
	}
}

// checkOptions are the flags of check, parsed.
type checkOptions struct {
	module, chunks, context string
	first                   int
	settings                runtime.Settings
	command                 commandOptions
	memory, stack           string // as given
	json, calls             bool

	source string // of the calls, once they are made
}

func parseCheck(ctx *cli.Context) (*checkOptions, error) {
	if ctx.NArg() != 1 {
		return nil, usageErrorf("check takes one MODULE, got %s", plural(ctx.NArg(), "argument"))
	}
	o := &checkOptions{
		module: ctx.Args().First(), chunks: ctx.String("chunks"), context: ctx.String("context"), first: ctx.Int("first"),
		memory: ctx.String("memory"), json: ctx.Bool("json"), calls: ctx.Bool("calls"),
		settings: runtime.Settings{Seed: ctx.Uint64("seed"), Timeout: ctx.Duration("timeout"), FoldTimeout: ctx.Duration("timeout")},
	}
	switch {
	case o.first < 1:
		return nil, usageErrorf("invalid --first %d: want 1 or more", o.first)
	case o.settings.Timeout < 0:
		return nil, usageErrorf("invalid --timeout %v: want 0 or more", o.settings.Timeout)
	case o.chunks == "-":
		return nil, usageErrorf("invalid --chunks -: want a file, because a second process reads it too")
	case ctx.IsSet("first") && o.chunks == "":
		return nil, usageErrorf("--first needs --chunks FILE")
	}
	var err error
	if o.command, err = parseCommand(ctx); err != nil {
		return nil, err
	}
	if o.settings.Stack, err = parseStack(ctx); err != nil {
		return nil, err
	}
	o.stack = ctx.String("stack")
	o.settings.Memory, err = parseSize[uint64](ctx, "memory")
	return o, err
}

func runCheck(ctx context.Context, c *console, o *checkOptions) error {
	wasm, err := o.read(ctx)
	if err != nil {
		return err
	}
	if o.calls {
		results, err := check.MakeCalls(ctx, wasm, o.options())
		if err != nil {
			return err
		}
		return outputError(json.NewEncoder(c.out).Encode(results))
	}
	r, err := check.Run(ctx, wasm, o.options())
	if err != nil {
		return err
	}
	if o.json {
		err = writeJSON(c.out, newCheckReport(o, r))
	} else {
		err = printCheck(c.out, newCheckReport(o, r), r)
	}
	switch {
	case err != nil:
		return outputError(err)
	case !r.Description.Accepted:
		return &exitError{exitRefused, nil}
	case !r.OK():
		return &exitError{exitFailed, nil}
	}
	return nil
}

// read returns the module, and reads the files of its settings.
func (o *checkOptions) read(ctx context.Context) (wasm []byte, err error) {
	if wasm, err = readModule(o.module); err != nil {
		return nil, err
	}
	if o.context != "" {
		if o.settings.Context, err = readContext(o.context); err != nil {
			return nil, err
		}
	}
	o.settings.Command, err = o.command.read(ctx)
	return wasm, err
}

func (o *checkOptions) options() check.Options {
	return check.Options{Settings: o.settings, CacheDir: engineConfig(compiler).CacheDir, Calls: o.makeCalls, Elsewhere: o.otherProcess}
}

// makeCalls returns the calls of exec, and sets o.source.
func (o *checkOptions) makeCalls(ctx context.Context, d *runtime.Description) ([]check.Call, error) {
	if o.chunks == "" {
		o.source = "the integers 0 to 19"
		if d.Command {
			o.source += " as lines of text"
		}
		return check.Samples(ctx, d)
	}
	file, err := openChunkFile(ctx, &console{in: os.Stdin}, o.chunks, chunks.Options{})
	if err != nil {
		return nil, err
	}
	defer file.Close()
	calls, err := check.ReadCalls(ctx, file, o.first)
	if errors.Is(err, check.ErrNoCalls) {
		return nil, usageErrorf("%s: no chunks", o.chunks)
	}
	o.source = fmt.Sprintf("%s of %s", plural(len(calls), "chunk"), o.chunks)
	if len(calls) < file.Len() {
		o.source = fmt.Sprintf("the first %d of %s of %s", len(calls), plural(file.Len(), "chunk"), o.chunks)
	}
	return calls, err
}

// otherProcess makes the calls in a new process of the same program.
func (o *checkOptions) otherProcess(ctx context.Context) ([]guest.CallResult, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{os.Args[0], "check", "--calls", "--memory", o.memory, "--stack", o.stack, "--timeout", o.settings.Timeout.String(),
		"--seed", strconv.FormatUint(o.settings.Seed, 10)}
	if o.chunks != "" {
		args = append(args, "--chunks", o.chunks, "--first", strconv.Itoa(o.first))
	}
	if o.context != "" {
		args = append(args, "--context", o.context)
	}
	args = append(args, o.command.flags()...)
	child := exec.CommandContext(ctx, self)
	child.Args = append(args, "--", o.module)
	var stderr bytes.Buffer
	child.Stderr = &stderr
	out, err := child.Output()
	if err != nil {
		return nil, fmt.Errorf("another process ended with %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	var results []guest.CallResult
	if err := json.Unmarshal(out, &results); err != nil {
		return nil, fmt.Errorf("another process printed no outcomes: %w", err)
	}
	return results, nil
}
