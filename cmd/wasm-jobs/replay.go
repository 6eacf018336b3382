package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/bundle"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
)

// bundleEnding is that of the files that bundles are in.
const bundleEnding = ".bundle"

// writeBundles writes a bundle for each failed chunk.
func (f *resultFiles) writeBundles(ctx context.Context, result *host.Result) error {
	if f.bundles == nil {
		return nil
	}
	return result.Failed(ctx, func(failed *host.ChunkFailure, chunk []byte) error {
		file, err := result.Bundle(failed, chunk).Encode()
		if err == nil {
			err = f.writeIn(f.bundles, failed.ID.FileName()+bundleEnding, file)
		}
		if err != nil {
			return fmt.Errorf("the bundle of chunk %v: %w", failed.ID, err)
		}
		return nil
	})
}

// replayOptions are the flags of replay, parsed.
type replayOptions struct {
	bundle, module string
	interpreter    bool
	trace          int            // lines; 0 = none
	dirs           commandOptions // of a WASI command
	dump           resultFiles
	dumped         bool // the linear memory; there is none where no instance could be made
	json           bool
}

// defaultTrace is how many lines of a trace are shown.
const defaultTrace = 1000

// maxTrace bounds that, and with it the memory that a trace takes.
const maxTrace = 1_000_000

func replayCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "replay", Usage: "run a failed chunk again from its bundle, and say whether it ends the same",
		UsageText: `wasm-jobs replay [flags] BUNDLE --module MODULE

Example: wasm-jobs run faulty.wasm chunks.cbor --bundle failed
         wasm-jobs replay failed/3.bundle --module faulty.wasm --trace

A bundle holds the chunk, the context and the settings, and how the last attempt
ended. Class, message, stack and fuel are compared. --trace runs the chunk once
more and shows the first and the last of the guest's calls.

Exit codes:
   0    it ended the same
   2    refused: usage, another module, or a bundle that is damaged
   3    _initialize or setup failed, which they did not when the bundle was made
   4    the dump or the answer could not be written
   5    it ended differently
   130  interrupted`,
		ArgsUsage: "BUNDLE",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "module", Usage: "the module is in `FILE`", Required: true},
			&cli.StringFlag{Name: "engine", Value: "compiler", Usage: "compiler or interpreter: the second shares no code generator with the first, and ends at 2,000 nested calls"},
			&cli.BoolFlag{Name: "trace", Usage: "show the calls of functions, with their arguments and results"},
			&cli.IntFlag{Name: "trace-limit", Value: defaultTrace, Usage: "show `N` lines of the trace at most: half of them from its start, half from its end"},
			&cli.StringFlag{Name: "dump-memory", Usage: "write the linear memory at the end of the call to `FILE`"},
			&cli.StringSliceFlag{Name: "dir", KeepSpace: true, Usage: "of a WASI command: the directory `HOST:GUEST` that it could read; may be given again"},
			&cli.StringFlag{Name: "max-dir", Value: "256MiB", Usage: "limit of the files of all --dir together, which are held in memory"},
			&cli.BoolFlag{Name: "json", Usage: "as JSON"},
		},
		Action: func(ctx *cli.Context) error {
			o, err := parseReplay(ctx)
			if err != nil {
				return err
			}
			return replay(ctx.Context, c, o)
		},
	}
}

func parseReplay(ctx *cli.Context) (*replayOptions, error) {
	if ctx.NArg() != 1 {
		return nil, refuse("replay takes one BUNDLE, and %d arguments are given", ctx.NArg())
	}
	o := &replayOptions{
		bundle: ctx.Args().First(), module: ctx.String("module"), interpreter: ctx.String("engine") == "interpreter",
		json: ctx.Bool("json"), dump: resultFiles{result: ctx.String("dump-memory")},
	}
	if !slices.Contains([]string{"compiler", "interpreter"}, ctx.String("engine")) {
		return nil, refuse("--engine %q is none of compiler, interpreter", ctx.String("engine"))
	}
	var err error
	if o.dirs, err = parseDirs(ctx); err != nil {
		return nil, err
	}
	limit := ctx.Int("trace-limit")
	switch {
	case ctx.Bool("trace") && (limit < 2 || limit > maxTrace):
		return nil, refuse("--trace-limit %d: 2 to %d lines are possible", limit, maxTrace)
	case ctx.Bool("trace"):
		o.trace = limit
	case isSet(ctx, "trace-limit"):
		return nil, refuse("--trace-limit bounds what --trace shows: give both")
	case o.dump.result == "-":
		return nil, refuse("--dump-memory -: standard output has the answer: give a file")
	}
	return o, nil
}

// replayed is what replay answers.
type replayed struct {
	Bundle   string     `json:"bundle"`
	Chunk    abi.ID     `json:"chunk"`
	Size     int        `json:"size"` // of the chunk, in bytes
	Module   string     `json:"module"`
	Engine   string     `json:"engine"`
	Same     bool       `json:"same"`
	Recorded ending     `json:"recorded"`
	Replayed ending     `json:"replayed"`
	Compared []compared `json:"compared"`
	Notes    []string   `json:"notes"`
	Trace    []string   `json:"trace,omitempty"`
}

// ending is how a call ended; its class is "succeeded" where it did not fail.
type ending struct {
	Class   string   `json:"class"`
	Message string   `json:"message"`
	Stack   []string `json:"stack"`
	Fuel    uint64   `json:"fuel"` // 0 = not known
}

// compared is one thing that was compared.
type compared struct {
	What string `json:"what"`
	Same bool   `json:"same"`
}

func endingOf(f *abi.Failure) ending {
	return ending{string(f.Class), f.Message, append([]string{}, f.Stack...), f.Fuel}
}

// readDirs reads the directories that the chunk could read, and makes sure that
// they are the same.
func (o *replayOptions) readDirs(ctx context.Context, b *bundle.Bundle) ([]wasi.Dir, error) {
	read, err := o.dirs.read(ctx)
	if err != nil {
		return nil, err
	}
	var dirs []wasi.Dir // in the order of the bundle
	for _, d := range b.Dirs {
		i := slices.IndexFunc(read.Dirs, func(r wasi.Dir) bool { return r.Guest == d.Guest })
		if i < 0 {
			return nil, refuse("the chunk could read a directory %s: --dir HOST:%s gives it", d.Guest, d.Guest)
		}
		if got := read.Dirs[i].Tree.Digest(); got != d.Digest {
			return nil, refuse("--dir %s: another content: it has the digest sha256:%x, and the bundle's is sha256:%x", o.dirs.dirs[i], got, d.Digest)
		}
		dirs = append(dirs, read.Dirs[i])
	}
	if len(read.Dirs) > len(dirs) {
		return nil, refuse("the chunk could read %d directories, and --dir gives %d", len(dirs), len(read.Dirs))
	}
	return dirs, nil
}

func replay(ctx context.Context, c *console, o *replayOptions) error {
	stops := notify(ctx, func() { fmt.Fprintln(c.err, "wasm-jobs: stopping; once more stops at once") }, o.dump.abandon)
	defer stops.end()
	b, err := readBundle(o.bundle)
	if err != nil {
		return err
	}
	wasm, err := readModuleOf(b, o)
	if err != nil {
		return err
	}
	if b.Settings.Command.Dirs, err = o.readDirs(stops.soft, b); err != nil {
		return err
	}
	if err := o.dump.open(c.out); err != nil {
		return err
	}
	defer o.dump.discard()
	r := &replayed{
		Bundle: o.bundle, Chunk: b.ID, Size: len(b.Chunk), Module: "sha256:" + hex.EncodeToString(b.Module.SHA256[:]), Engine: "compiler",
		Recorded: endingOf(&b.Failure), Notes: []string{},
	}
	config := runtime.Config{CacheDir: compiledDir()}
	if o.interpreter {
		r.Engine, config = "interpreter", runtime.Config{Interpreter: true}
	}
	if r.Replayed, err = call(stops.soft, config, wasm, b, o.dumpMemory); err != nil {
		return o.ofModule(interruptedScan(stops.soft, err))
	}
	if o.trace > 0 {
		if err := r.addTrace(stops.soft, config, wasm, b, o.trace); err != nil {
			return o.ofModule(interruptedScan(stops.soft, err))
		}
	}
	r.compare()
	if o.dump.result != "" && !o.dumped {
		r.note("there is no memory to write to %s: no call was made", o.dump.result)
	}
	if err := r.print(c.out, o.json); err != nil {
		return written(err)
	}
	if o.dumped {
		if err := o.dump.targets[o.dump.result].place(); err != nil {
			return written(err)
		}
	}
	if !r.Same {
		return &exitError{exitDiffers, nil}
	}
	return nil
}

func readBundle(path string) (*bundle.Bundle, error) {
	file, err := readBounded(path, bundle.MaxSize, "a bundle")
	if err != nil {
		return nil, err
	}
	b, err := bundle.Decode(file)
	if err != nil {
		return nil, refuse("bundle %s: %w", path, err)
	}
	return b, nil
}

// readModuleOf reads the module, which must be the bundle's.
func readModuleOf(b *bundle.Bundle, o *replayOptions) ([]byte, error) {
	wasm, err := readModule(o.module)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(wasm); sum != b.Module.SHA256 || len(wasm) != b.Module.Size {
		return nil, refuse("%s: this is not the module of bundle %s: it has SHA-256 %x and %d bytes, and %x and %d were recorded; --module FILE names the right one",
			o.module, o.bundle, sum, len(wasm), b.Module.SHA256, b.Module.Size)
	}
	return wasm, nil
}

func (o *replayOptions) ofModule(err error) error {
	return (&runOptions{module: o.module}).ofModule(err)
}

// dumpMemory fills the file for the linear memory.
func (o *replayOptions) dumpMemory(memory []byte) error {
	if o.dump.result == "" {
		return nil
	}
	o.dumped = true
	t := o.dump.targets[o.dump.result]
	return written(fillAll(t.file, func(w *bufio.Writer) error {
		_, err := w.Write(memory)
		return err
	}))
}

// call makes the call of a bundle on a runtime of its own. atEnd sees the
// linear memory with which it ends. The error is one of what comes before the
// call, that of atEnd, or ctx's.
func call(ctx context.Context, config runtime.Config, wasm []byte, b *bundle.Bundle, atEnd func(memory []byte) error) (e ending, err error) {
	r, err := runtime.New(ctx, config)
	if err != nil {
		return e, err
	}
	defer r.Close(context.WithoutCancel(ctx))
	m, err := r.Compile(ctx, wasm, b.Options)
	if err != nil {
		return e, err
	}
	pool, err := m.Prepare(ctx, b.Settings)
	if err != nil {
		return e, err
	}
	defer pool.Close()
	instance := pool.Lease(nil)
	defer instance.Release()
	var endErr error
	instance.AtEnd(func(memory []byte) { endErr = atEnd(memory) })
	if starter, ok := config.Calls.(*tracer); ok {
		starter.start(m.Description())
	}
	output, fuel, err := instance.Call(ctx, abi.ExportExec, b.Chunk, nil)
	if failure, ok := errors.AsType[*abi.Failure](err); ok {
		return endingOf(failure), endErr
	}
	if err != nil {
		return e, err
	}
	return ending{Class: "succeeded", Message: fmt.Sprintf("gave an output of %d bytes", len(output)), Stack: []string{}, Fuel: fuel}, endErr
}

// addTrace makes the call again, and notes which functions it calls.
func (r *replayed) addTrace(ctx context.Context, config runtime.Config, wasm []byte, b *bundle.Bundle, limit int) error {
	t := newTracer(limit)
	config.CacheDir, config.Calls = "", t
	traced, err := call(ctx, config, wasm, b, func([]byte) error { return nil })
	if err != nil {
		return err
	}
	r.Trace = t.lines()
	if traced.Class != r.Replayed.Class || traced.Message != r.Replayed.Message {
		r.note("while it was traced, which is slower, it ended otherwise: %s: %s", traced.Class, printable(traced.Message))
	}
	return nil
}

func (r *replayed) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// compare compares what can be.
func (r *replayed) compare() {
	was, is := &r.Recorded, &r.Replayed
	r.Same = true
	add := func(what string, same bool) {
		r.Compared = append(r.Compared, compared{what, same})
		r.Same = r.Same && same
	}
	add("class", was.Class == is.Class)
	add("message", was.Message == is.Message)
	add("stack", slices.Equal(was.Stack, is.Stack))
	timeout := string(abi.ClassTimeout)
	switch {
	case was.Class == timeout || is.Class == timeout:
		r.note("when a timeout comes depends on how fast this machine is: fuel is not compared, and a timeout may not come again")
	case was.Fuel == 0 || is.Fuel == 0:
		r.note("fuel is not compared: what was used is not known where metering is off or no call was made")
	default:
		add("fuel", was.Fuel == is.Fuel)
	}
	if r.Engine == "interpreter" && is.Class == string(abi.ClassHost) {
		r.note("the interpreter ends at 2,000 nested calls, with class host: --engine compiler goes as deep as the run did")
	}
	if was.Class == string(abi.ClassHost) {
		r.note("class host is about the machine of the run, and says nothing of the guest")
	}
}

func (r *replayed) print(out io.Writer, asJSON bool) error {
	if asJSON {
		return writeJSON(out, r)
	}
	b := bufio.NewWriter(out)
	for _, line := range r.Trace {
		fmt.Fprintln(b, line)
	}
	if len(r.Trace) > 0 {
		fmt.Fprintln(b)
	}
	t := newTable(b)
	row := t.field
	row("bundle", "%s", r.Bundle)
	row("chunk", "%s, %s", printable(r.Chunk.String()), humanize.IBytes(uint64(r.Size)))
	row("module", "%s", r.Module)
	row("engine", "%s", r.Engine)
	was, is := r.Recorded.texts(), r.Replayed.texts()
	for _, c := range r.Compared {
		if c.Same {
			row(c.What, "%s", was[c.What])
			continue
		}
		row(c.What, "%s", "was "+was[c.What])
		row("", "is  %s", is[c.What])
	}
	for _, note := range r.Notes {
		row("note", "%s", note)
	}
	verdict := "the same"
	if !r.Same {
		verdict = "different"
	}
	row("ended", "%s", verdict)
	return errors.Join(t.flush(), b.Flush())
}

// texts are what there is to show of each thing that is compared.
func (e *ending) texts() map[string]string {
	stack := "none"
	if len(e.Stack) > 0 {
		stack = "at " + printable(strings.Join(e.Stack, ", at "))
	}
	return map[string]string{
		"class": printable(e.Class), "message": printable(e.Message), "stack": stack, "fuel": fmt.Sprint(e.Fuel),
	}
}
