package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1   // the job finished with failed chunks
	exitRefused     = 2   // usage, module or input, before anything ran
	exitFold        = 3   // _initialize, setup, aggregate or merge failed
	exitStore       = 4   // the store or a file of results
	exitDiffers     = 5   // what was computed again, or proved, is not what it was said to be
	exitInterrupted = 130 // stopped by a signal; may be resumed
)

const exitHelp = `Exit codes:
   0    all chunks succeeded and the result was written
   1    the job finished with failed chunks
   2    refused before anything ran: usage, module or input
   3    _initialize, setup, aggregate or merge failed
   4    the store failed, or results could not be written
   5    an execution, a proof or a signature gives something else than it should
   130  interrupted`

// exitError ends the command with a code of its own.
type exitError struct {
	code int
	err  error // nil where all is said
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// refuse returns a usage error.
func refuse(format string, args ...any) error {
	return &exitError{exitRefused, fmt.Errorf(format, args...)}
}

// written gives an error of writing results its exit code.
func written(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{exitStore, fmt.Errorf("results could not be written: %w", err)}
}

// console is where a command reads and writes.
type console struct {
	in       io.Reader
	out, err io.Writer
}

// Main runs one command and returns its exit code. args[0] is the program.
//
// A closed pipe is an error of writing like any other, and not the death of the
// process with its temporary files left behind.
func Main(ctx context.Context, args []string, in io.Reader, out, err io.Writer) int {
	signal.Ignore(syscall.SIGPIPE)
	c := &console{in, out, err}
	app := newApp(c)
	runErr := app.RunContext(ctx, interleave(app, args))
	if runErr == nil {
		return exitOK
	}
	if text := runErr.Error(); text != "" {
		fmt.Fprintln(c.err, "wasm-jobs: "+printable(strings.ReplaceAll(text, "\n", "; "))) // names in files may be anything
	}
	return exitCode(runErr)
}

// exitCode is the one place where an error becomes a number.
func exitCode(err error) int {
	if exit, ok := errors.AsType[*exitError](err); ok {
		return exit.code
	}
	if _, ok := errors.AsType[*host.StoreError](err); ok {
		return exitStore
	}
	if _, ok := errors.AsType[*host.DifferenceError](err); ok {
		return exitDiffers
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
	if _, ok := errors.AsType[*runtime.InitError](err); ok {
		return exitFold
	}
	if _, ok := errors.AsType[*host.FoldError](err); ok {
		return exitFold
	}
	return exitRefused
}

func newApp(c *console) *cli.App {
	usage := func(_ *cli.Context, err error, _ bool) error { return refuse("%w", err) }
	app := &cli.App{
		Name:      "wasm-jobs",
		Usage:     "run one WebAssembly function over many chunks",
		UsageText: "wasm-jobs run square.wasm chunks.cbor",
		Description: `A module exports exec, and perhaps aggregate; a CBOR file holds the chunks.
Each chunk runs on an instance in fresh state; outputs are folded in id order.

` + exitHelp,
		Reader: c.in, Writer: c.out, ErrWriter: c.err,
		Commands: []*cli.Command{runCommand(c), chunksCommand(c, usage), inspectCommand(c),
			listCommand(c), statusCommand(c), infoCommand(c), describeCommand(c), outputCommand(c),
			newCommand(c), testCommand(c), checkCommand(c), benchCommand(c),
			redriveCommand(c), replayCommand(c), verifyCommand(c), proveCommand(c), verifyProofCommand(c), diffCommand(c),
			signCommand(c), verifySignatureCommand(c), keygenCommand(c),
			deleteCommand(c), pruneCommand(c), fsckCommand(c), versionCommand(c)},
		HideVersion: true,
		// --meta may hold commas.
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              usage,
		CommandNotFound:           nil,
		Action: func(ctx *cli.Context) error {
			if name := ctx.Args().First(); name != "" {
				return refuse("unknown command %q; wasm-jobs --help lists them", name)
			}
			return cli.ShowAppHelp(ctx)
		},
	}
	for _, command := range app.Commands {
		command.OnUsageError = usage
	}
	return app
}

// isSet reports whether a flag is given. cli's own way goes through the names of
// all flags, by regular expressions, and a run asks sixty times.
func isSet(ctx *cli.Context, name string) bool { return slices.Contains(ctx.LocalFlagNames(), name) }

// parseSize reads a flag that is a size in bytes.
func parseSize[T int64 | uint64](ctx *cli.Context, name string) (T, error) {
	size, err := humanize.ParseBytes(ctx.String(name))
	if err != nil || size == 0 || size > 1<<40 {
		return 0, refuse("--%s %q is no size such as 64KiB, 256MiB or 1000000", name, ctx.String(name))
	}
	return T(size), nil
}

// nameOf returns the name of a flag without its aliases. Names searches for
// more of them with a regular expression, which takes a microsecond.
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

// interleave moves the flags of a command before its arguments, where cli
// looks for them.
func interleave(app *cli.App, args []string) []string {
	if len(args) < 3 {
		return args
	}
	command := app.Command(args[1])
	if command == nil {
		return args
	}
	words := 2 // before the flags
	if sub := command.Command(args[2]); sub != nil {
		command, words = sub, 3
	}
	takesValue := map[string]bool{}
	for _, flag := range command.Flags {
		_, isBool := flag.(*cli.BoolFlag)
		for _, name := range flag.Names() {
			takesValue[name] = !isBool
		}
	}
	flags, rest := slices.Clone(args[:words]), []string{}
	for i := words; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			rest = append(rest, args[i+1:]...)
			break
		}
		if arg == "-" || !strings.HasPrefix(arg, "-") {
			rest = append(rest, arg)
			continue
		}
		flags = append(flags, arg)
		name := strings.TrimLeft(arg, "-")
		if !strings.Contains(name, "=") && takesValue[name] && i+1 < len(args) {
			i++
			flags = append(flags, args[i])
		}
	}
	return append(append(flags, "--"), rest...)
}

func versionCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version", UsageText: "wasm-jobs version [--json]\n\nExample: wasm-jobs version",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "as JSON"}},
		Action: func(ctx *cli.Context) error {
			v := readVersion()
			if ctx.Bool("json") {
				return written(writeJSON(c.out, v))
			}
			_, err := fmt.Fprintf(c.out, "wasm-jobs %s (ABI %d, wazero %s, %s)\n", v.Version, v.ABI, v.Wazero, v.Go)
			return written(err)
		},
	}
}

// versions are those of what can change a result.
type versions struct {
	Version string `json:"version"`
	ABI     int    `json:"abi"`
	Wazero  string `json:"wazero"`
	Go      string `json:"go"`
}

func readVersion() versions {
	v := versions{Version: "unknown", ABI: abiVersion, Wazero: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Version, v.Go = info.Main.Version, info.GoVersion
	for _, d := range info.Deps {
		if d.Path == "github.com/tetratelabs/wazero" {
			v.Wazero = d.Version
		}
	}
	return v
}
