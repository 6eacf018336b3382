package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

func checkCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "look for what is wrong with a module, and call it in many ways",
		UsageText: `wasm-jobs check [flags] MODULE

Example: wasm-jobs check --chunks chunks.cbor square.wasm

It says whether the module is accepted and what could be better. Then it calls
the module for chunks, of --chunks or small integers, and again: in other orders,
by several workers, on new instances, on the interpreter and in another process.
All must give the same bytes and the same fuel. It also tells what the module does
that would make a difference if it were not kept from it: leaving state behind,
reading the clock, drawing random bytes, making NaNs of other bits. In the end it
says what a call, a reset and a new instance cost on this machine.

Exit codes: 0 no differences; 1 there are; 2 the module is refused; 3 _initialize
or setup failed.`,
		ArgsUsage: "MODULE",
		Flags: append(commandFlags(), []cli.Flag{
			&cli.StringFlag{Name: "chunks", Usage: "take chunks from `FILE`, a chunk file"},
			&cli.IntFlag{Name: "first", Value: 200, Usage: "how many chunks of the file are taken, in id order"},
			&cli.StringFlag{Name: "context", Usage: "`FILE` with one CBOR item for the module's setup"},
			&cli.Uint64Flag{Name: "seed", Usage: "seed of the guest's random bytes"},
			&cli.DurationFlag{Name: "timeout", Value: 30 * time.Second, Usage: "limit of one call; 0 = none"},
			&cli.StringFlag{Name: "memory", Value: "256MiB", Usage: "limit of the guest's memory"},
			&cli.BoolFlag{Name: "json", Usage: "as JSON"},
			&cli.BoolFlag{Name: "calls", Usage: "make the calls once and print what came of them, for another check", Hidden: true},
		}...),
		Action: func(ctx *cli.Context) error {
			o, err := parseCheck(ctx)
			if err != nil {
				return err
			}
			return check(ctx.Context, c, o)
		},
	}
}

// checkOptions are the flags of check, parsed.
type checkOptions struct {
	module, chunks, context string
	first                   int
	settings                runtime.Settings
	command                 commandOptions
	memory                  string // as given
	json, calls             bool
}

func parseCheck(ctx *cli.Context) (*checkOptions, error) {
	if ctx.NArg() != 1 {
		return nil, refuse("check takes one MODULE, and %d arguments are given", ctx.NArg())
	}
	o := &checkOptions{
		module: ctx.Args().First(), chunks: ctx.String("chunks"), context: ctx.String("context"), first: ctx.Int("first"),
		memory: ctx.String("memory"), json: ctx.Bool("json"), calls: ctx.Bool("calls"),
		settings: runtime.Settings{Seed: ctx.Uint64("seed"), Timeout: ctx.Duration("timeout"), FoldTimeout: ctx.Duration("timeout")},
	}
	switch {
	case o.first < 1:
		return nil, refuse("--first %d: 1 or more are needed", o.first)
	case o.settings.Timeout < 0:
		return nil, refuse("--timeout %v is negative", o.settings.Timeout)
	case o.chunks == "-":
		return nil, refuse("--chunks needs a file, since another process reads it too")
	case ctx.IsSet("first") && o.chunks == "":
		return nil, refuse("--first is of the chunks of a file: --chunks names it")
	}
	var err error
	if o.command, err = parseCommand(ctx); err != nil {
		return nil, err
	}
	o.settings.Memory, err = parseSize[uint64](ctx, "memory")
	return o, err
}

// checkReport is what check found, as JSON.
type checkReport struct {
	Module      string               `json:"module"`
	Description *runtime.Description `json:"description"`
	Hints       []string             `json:"hints"` // what could be better
	Found       []string             `json:"found"` // what the module does, and what becomes of it
	Chunks      *checkedChunks       `json:"chunks,omitempty"`
	Probes      []*probe             `json:"probes,omitempty"`
	Cost        *checkCost           `json:"cost,omitempty"`
	Differences int                  `json:"differences"` // in all probes
	OK          bool                 `json:"ok"`
}

// checkedChunks says what was called.
type checkedChunks struct {
	Source   string         `json:"source"`
	Count    int            `json:"count"`
	Outputs  int            `json:"outputs"`
	Failures map[string]int `json:"failures,omitempty"` // by class and message
	Folds    int            `json:"folds"`              // calls of aggregate and merge
}

func check(ctx context.Context, c *console, o *checkOptions) error {
	wasm, err := readModule(o.module)
	if err != nil {
		return err
	}
	if o.context != "" {
		if o.settings.Context, err = readContext(o.context); err != nil {
			return err
		}
	}
	if o.settings.Command, err = o.command.read(ctx); err != nil {
		return err
	}
	report := &checkReport{Module: o.module, Description: runtime.Inspect(wasm), Hints: []string{}, Found: []string{}}
	report.lint()
	if report.Description.Accepted {
		if err := report.probeAll(ctx, wasm, o, c.out); err != nil || o.calls {
			refused, ok := errors.AsType[*runtime.RefusedError](err)
			if !ok {
				return err
			}
			report.Description.Accepted, report.Description.Problems = false, refused.Problems
		}
	}
	report.OK = report.Description.Accepted && report.Differences == 0
	if o.json {
		err = writeJSON(c.out, report)
	} else {
		err = report.print(c.out)
	}
	switch {
	case err != nil:
		return written(err)
	case !report.Description.Accepted:
		return &exitError{exitRefused, nil}
	case !report.OK:
		return &exitError{exitFailed, nil}
	}
	return nil
}

func (r *checkReport) hint(format string, args ...any) {
	r.Hints = append(r.Hints, fmt.Sprintf(format, args...))
}

func (r *checkReport) found(format string, args ...any) {
	r.Found = append(r.Found, fmt.Sprintf(format, args...))
}

// Sizes from which a module gets a hint.
const (
	largeModule = 8 << 20
	largeMemory = 64 << 20
)

// lint looks at the module without running it.
func (r *checkReport) lint() {
	d := r.Description
	exports := func(name string) bool {
		return slices.ContainsFunc(d.Exports, func(e runtime.Item) bool { return e.Name == name })
	}
	switch {
	case exports(abi.ExportMerge) && !exports(abi.ExportAggregate):
		r.hint("it exports merge and no aggregate: merge is never called")
	case exports(abi.ExportAggregate) && !exports(abi.ExportMerge):
		r.hint("it exports aggregate and no merge: all outputs of a job come in one call, and must fit its memory")
	}
	if d.Command {
		r.found("it is a WASI command: a chunk is its standard input, and its standard output is the output")
	}
	if !d.Accepted {
		r.lintRefused(exports(abi.ExportExec) || exports(abi.ExportStart))
	}
	if d.Functions > 0 && !d.Names {
		r.hint("it has no names of functions, so stack traces show numbers: strip debug information only (-Wl,--strip-debug; in Go -ldflags=-w without -s)")
	}
	if d.Size > largeModule {
		r.hint("it has %s, which takes seconds to compile for the first time: optimise for size, or leave out what is not needed", humanize.IBytes(uint64(d.Size)))
	}
	if d.Memory != nil && d.Memory.Min > largeMemory {
		r.hint("its memory has %s from the start, for each instance: allocate what calls need", humanize.IBytes(d.Memory.Min))
	}
	r.lintImports()
	if len(d.Lasting) > 0 {
		r.hint("no reset undoes %s: each call needs a new instance, which costs more", strings.Join(d.Lasting, ", "))
	}
}

// lintRefused knows where modules come from that are made for another host.
func (r *checkReport) lintRefused(hasExec bool) {
	from := map[string]bool{}
	for _, i := range r.Description.Imports {
		from[i.Module] = true
		if i.Module == "env" && i.Name == "abort" {
			r.hint("env.abort is AssemblyScript's: compile with --use abort=, or with the SDK's own")
		}
	}
	switch {
	case from["gojs"] || from["go"]:
		r.hint("it is built for browsers: build with GOOS=wasip1 GOARCH=wasm -buildmode=c-shared")
	case from["wbg"] || from["__wbindgen_placeholder__"]:
		r.hint("it is built with wasm-bindgen, for JavaScript: export the functions of the ABI with the SDK instead")
	case from["wasi_unstable"]:
		r.hint("it is built for the WASI of before preview 1: use a newer compiler or wasi-libc")
	case from["env"]:
		r.hint("what it imports from env was undefined when it was linked: define it, or link the library that does")
	}
	if !hasExec {
		r.hint("it exports no exec: wasm-jobs new writes a guest that does, in one of several languages")
	}
}

// lintImports says what becomes of what a guest asks the outside for.
func (r *checkReport) lintImports() {
	imported := map[string]bool{}
	for _, i := range r.Description.Imports {
		if i.Module == abi.WASIModule {
			imported[i.Name] = true
		}
	}
	any := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return imported[name] })
	}
	if any("clock_time_get", "poll_oneoff") {
		r.found("it can read the clock: each call sees one that starts at the same instant and moves with each reading")
	}
	if any("random_get") {
		r.found("it can draw random bytes: they follow from the seed and the bytes that are passed to the call")
	}
	if any("path_open", "fd_readdir", "path_filestat_get") {
		if r.Description.Command {
			r.found("it can open files: there are those of --dir, as they are at the start of a job")
		} else {
			r.found("it can open files: there are none")
		}
	}
	if any("environ_get", "args_get") {
		if r.Description.Command {
			r.found("it can read its environment or arguments: they are what --env and --arg give")
		} else {
			r.found("it can read its environment or arguments: both are empty")
		}
	}
	if any("sock_accept", "sock_recv", "sock_send") {
		r.found("it can use sockets: there are none")
	}
}

func (r *checkReport) print(out io.Writer) error {
	t := newTable(out)
	row := t.field
	d := r.Description
	row("module", "%s, %s, sha256 %s", r.Module, humanize.IBytes(uint64(d.Size)), d.SHA256)
	for _, p := range d.Problems {
		row("problem", "%s", p)
	}
	for _, h := range r.Hints {
		row("hint", "%s", h)
	}
	for _, f := range r.Found {
		row("found", "%s", f)
	}
	if r.Chunks != nil {
		r.printCalls(row)
	}
	if r.Cost != nil {
		r.Cost.print(row)
	}
	switch {
	case !d.Accepted:
		row("verdict", "refused")
	case r.Differences > 0:
		row("verdict", "%d differences: its outputs cannot be relied on", r.Differences)
	default:
		row("verdict", "no differences")
	}
	return t.flush()
}

func (r *checkReport) printCalls(row func(name, format string, args ...any)) {
	failed := r.Chunks.Count - r.Chunks.Outputs
	row("chunks", "%s: %d outputs, %d failures; %d calls of aggregate and merge", r.Chunks.Source, r.Chunks.Outputs, failed, r.Chunks.Folds)
	for _, message := range slices.Sorted(maps.Keys(r.Chunks.Failures)) {
		row("", "%d × %s", r.Chunks.Failures[message], message)
	}
	for _, p := range r.Probes {
		switch {
		case len(p.Differences) > 0:
			row("DIFFERS", "%s: %d of %d calls", p.Name, p.Count, p.Calls)
			for _, d := range p.Differences {
				row("", "%s: %s", d.Call, d.What)
			}
		default:
			row("same", "%s: bytes and fuel of %d calls%s", p.Name, p.Calls-p.Skipped, p.note())
		}
	}
}
