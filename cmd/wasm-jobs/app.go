package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/atomicfile"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/interrupt"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/terminal"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/verify"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1   // the job finished with failed chunks
	exitRefused     = 2   // usage, module or input, before anything ran
	exitFold        = 3   // _initialize, setup, aggregate or merge failed
	exitStore       = 4   // the store or a file of results; or the machine has no room for an instance
	exitUnreachable = 6   // a shared store cannot be reached, refuses, or has another schema
	exitTimeout     = 7   // wait --timeout passed before the job ended
	exitDiffers     = 5   // an execution, proof or signature does not match
	exitInterrupted = 130 // stopped by a signal; may be resumed
)

const exitHelp = `Exit codes:
   0    all chunks succeeded and the result was written
   1    the job finished with failed chunks
   2    invalid usage, module or input; nothing ran
   3    _initialize, setup, aggregate or merge failed
   4    the store failed, or results could not be written
   5    an execution, proof or signature does not match
   6    a shared store cannot be reached, refuses the login, or has another schema
   7    wait --timeout passed before the job ended
   130  interrupted`

// exitError ends the command with an exit code.
type exitError struct {
	code int
	err  error // nil if there is nothing left to print
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usageErrorf returns a usage error.
func usageErrorf(format string, args ...any) error {
	return &exitError{exitRefused, fmt.Errorf(format, args...)}
}

// outputError returns an error of writing results with its exit code.
func outputError(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{exitStore, fmt.Errorf("results could not be written: %w", err)}
}

// console has the standard streams of a command, and its signals.
type console struct {
	in       io.Reader
	out, err io.Writer
	signals  *interrupt.Signals
}

// Main runs one command and returns its exit code. args[0] is the program.
//
// Writing to a closed pipe returns an error. It does not kill the process, which
// would leave its temporary files behind.
func Main(ctx context.Context, args []string, in io.Reader, out, err io.Writer) int {
	signal.Ignore(syscall.SIGPIPE)
	c := &console{in: in, out: out, err: err}
	c.signals = interrupt.Watch(ctx, host.ErrInterrupted, func(err error) {
		fmt.Fprintln(c.err, "wasm-jobs: "+err.Error())
		os.Exit(exitInterrupted)
	})
	defer c.signals.End()
	c.signals.Cleanup(atomicfile.Abandon)
	runErr := c.run(args)
	if runErr == nil {
		return exitOK
	}
	if c.signals.Cut() && (exitCode(runErr) != exitInterrupted || errors.Is(runErr, context.Canceled)) {
		runErr = host.ErrInterrupted // the signal caused the error
	}
	if text := errorLine(runErr); text != "" {
		// The text may quote names from files.
		fmt.Fprintln(c.err, terminal.ColoursOf(c.err).In(terminal.Red, "wasm-jobs:"), printable(joinLines(text)))
	}
	return exitCode(runErr)
}

// run runs the command of a command line.
func (c *console) run(args []string) error {
	only := ""
	if len(args) > 1 {
		only = verbOf(args[1])
	}
	app := newApp(c, only)
	if len(args) > 1 {
		switch args[1] {
		case completeWord:
			return complete(app, args[2:], c.out)
		case manWord:
			return writeMan(app, args[2:])
		}
	}
	line, err := readLine(app, args)
	if asked, ok := errors.AsType[*helpRequest](err); ok {
		return asked.print(app, c.out)
	}
	if err != nil {
		return err
	}
	app.Metadata = map[string]any{environmentKey: line.defaults}
	return fromEnvironment(app.RunContext(c.signals.Soft, line.args), line.defaults)
}

// joinLines joins the lines of joined errors. It omits a line that ends an earlier
// one: if a store fails, each of its writers returns the same error.
func joinLines(text string) string {
	var said []string
	for line := range strings.SplitSeq(text, "\n") {
		if !slices.ContainsFunc(said, func(s string) bool { return strings.HasSuffix(s, line) }) {
			said = append(said, line)
		}
	}
	return strings.Join(said, "; ")
}

// exitCode returns the exit code of an error. No other function maps errors to codes.
func exitCode(err error) int {
	if isUnreachable(err) {
		return exitUnreachable
	}
	if exit, ok := errors.AsType[*exitError](err); ok {
		return exit.code
	}
	if errors.Is(err, host.ErrInterrupted) && errors.Is(err, sqlite.ErrBusy) {
		return exitInterrupted // it was waiting for another process
	}
	if _, ok := errors.AsType[*host.StoreError](err); ok {
		return exitStore
	}
	if _, ok := errors.AsType[*host.DifferenceError](err); ok {
		return exitDiffers
	}
	if code, ok := flowExitCode(err); ok {
		return code
	}
	if errors.Is(err, host.ErrInterrupted) || errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	if _, ok := errors.AsType[*runtime.RefusedError](err); ok {
		return exitRefused
	}
	if _, ok := errors.AsType[*chunks.InputError](err); ok {
		return exitRefused
	}
	if init, ok := errors.AsType[*runtime.InitError](err); ok {
		if init.HostFailed() { // the guest is not to blame
			return exitStore
		}
		return exitFold
	}
	if _, ok := errors.AsType[*verify.HostError](err); ok {
		return exitStore
	}
	if _, ok := errors.AsType[*host.FoldError](err); ok {
		return exitFold
	}
	return exitRefused
}

func onUsageError(_ *cli.Context, err error, _ bool) error { return usageErrorf("%w", err) }

// newApp returns the command with one verb; with all, if it has no such verb. The flags of
// all verbs take a tenth of the time of a start.
func newApp(c *console, only string) *cli.App {
	app := &cli.App{
		Name:      "wasm-jobs",
		Usage:     "run one WebAssembly function over many chunks",
		UsageText: "wasm-jobs run square.wasm chunks.cbor",
		Description: `A module exports the function exec and, optionally, aggregate. A CBOR file holds
the chunks, which are the inputs of exec. Each call starts in the same fresh
state. aggregate gets all outputs, in the order of the chunks' ids.

` + exitHelp,
		Reader: c.in, Writer: c.out, ErrWriter: c.err,
		Commands:    makeVerbs(c, only),
		HideVersion: true, HideHelp: true, // see readLine
		// --meta may hold commas.
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              onUsageError,
	}
	for _, command := range app.Commands {
		command.OnUsageError = onUsageError
		limitWorkers(command)
		for _, verb := range append(command.Subcommands, command) {
			verb.Before, verb.HideHelp = checkPaths, true
			allowInsecure(verb)
			if len(verb.Subcommands) == 0 {
				skipFlagActions(verb)
			}
		}
	}
	return app
}

// skipFlagActions hides the flags of a verb from cli while it looks for actions of flags,
// except the one that has an action: cli matches the names of all flags with regular
// expressions for that, a tenth of the CPU time of a start.
func skipFlagActions(verb *cli.Command) {
	flags, before, action := verb.Flags, verb.Before, verb.Action
	verb.Before = func(ctx *cli.Context) error {
		err := before(ctx)
		verb.Flags = slices.DeleteFunc(slices.Clone(flags), func(flag cli.Flag) bool { return nameOf(flag) != "workers" }) // see limitWorkers
		return err
	}
	verb.Action = func(ctx *cli.Context) error {
		verb.Flags = flags
		return action(ctx)
	}
}

// isSet reports whether a flag is given on the command line. The method of cli matches
// the names of all flags with regular expressions, which is slow: a run asks sixty times.
func isSet(ctx *cli.Context, name string) bool {
	return slices.Contains(ctx.LocalFlagNames(), name) && !fromVariable(ctx, name)
}

// parseSize reads a flag that is a size in bytes.
func parseSize[T int64 | uint64](ctx *cli.Context, name string) (T, error) {
	size, err := humanize.ParseBytes(ctx.String(name))
	if err != nil || size == 0 || size > 1<<40 {
		return 0, usageErrorf("invalid --%s %q: want a size such as 64KiB, 256MiB or 1000000", name, ctx.String(name))
	}
	return T(size), nil
}

// stackFlag is the flag that [parseStack] reads.
func stackFlag(usage string) cli.Flag {
	return &cli.StringFlag{Name: "stack", Value: "8MiB", Usage: usage}
}

// parseStack reads the limit of nested calls, in bytes. It is 0 for the default,
// which is not part of keys and receipts.
func parseStack(ctx *cli.Context) (uint64, error) {
	size, err := humanize.ParseBytes(ctx.String("stack"))
	switch {
	case err != nil || size < runtime.MinStack || size > runtime.MaxStack:
		return 0, usageErrorf("invalid --stack %q: want a size from %dKiB to %dMiB, such as 1MiB",
			ctx.String("stack"), runtime.MinStack>>10, runtime.MaxStack>>20)
	case size == runtime.DefaultStack:
		return 0, nil
	}
	return size, nil
}

// nameOf returns the name of a flag without its aliases. The method Names is slower,
// about a microsecond, because it uses a regular expression.
func nameOf(flag cli.Flag) string {
	switch f := flag.(type) {
	case *cli.StringFlag:
		return f.Name
	case *cli.BoolFlag:
		return f.Name
	case *cli.IntFlag:
		return f.Name
	case *cli.DurationFlag:
		return f.Name
	case *cli.Uint64Flag:
		return f.Name
	case *cli.StringSliceFlag:
		return f.Name
	}
	return flag.Names()[0]
}
