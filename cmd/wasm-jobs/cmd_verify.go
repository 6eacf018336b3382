package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/progress"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/host/verify"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
)

// verifyOptions are the flags of verify, parsed.
type verifyOptions struct {
	receipt string
	run     runOptions // module, chunks, context, input, selection, settings, workers
	given   []string   // names of given flags that are settings of the receipt
	sampled bool       // execute the chunks of sample, not all chunks
	sample  verify.Sample
	engine  string
	outputs string // file; "" = none
	store   string // directory; "" = none
	except  []string
	json    bool
}

// ofVerify are the flags of run that verify has too. They say how chunks are read,
// limit calls and outputs, or are settings of the receipt.
var ofVerify = []string{
	"context", "workers", "timeout", "fold-timeout", "max-output", "max-aggregate", "max-chunk", "id-key", "chunk-format",
	"limit", "range", "ids", "isolation", "seed", "memory", "stack", "native-nans", "no-metering", "store", "no-store", "progress",
	"arg", "env", "stdin", "dir", "max-dir",
}

func verifyFlags() []cli.Flag {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "sample", Usage: "execute `N|P%` of the chunks instead of all, and prove that their outputs are in the receipt"},
		&cli.Uint64Flag{Name: "sample-seed", DefaultText: "derived from the receipt", Usage: "seed that selects the chunks of the sample"},
		&cli.StringFlag{Name: "engine", Value: "compiler", Usage: "compiler or interpreter (they share no code generator)"},
		&cli.StringFlag{Name: "outputs", Aliases: []string{"against"}, Usage: "compare with the outputs in `FILE`, made by run --outputs, instead of those in the store"},
		&cli.StringSliceFlag{Name: "except", KeepSpace: true, Usage: "with --files: skip `PATH`, such as a result that the run wrote into the directory; may be given again"},
		jsonFlag(),
	}
	for _, flag := range runFlags() {
		if name := nameOf(flag); slices.Contains(ofVerify, name) || slices.Contains(sourceFlagNames(), name) {
			flags = append(flags, flag)
		}
	}
	return flags
}

func verifyCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "execute a job again, and compare it with its receipt",
		UsageText: `wasm-jobs verify [flags] RECEIPT MODULE CHUNKS

Example: wasm-jobs verify receipt.json square.wasm chunks.cbor
         wasm-jobs verify receipt.json square.wasm chunks.cbor --engine interpreter
         wasm-jobs verify receipt.json square.wasm chunks.cbor --sample 1% --outputs outputs.cbor

Settings come from the receipt; those that are given must match it. A receipt with
more memory or stack than --memory and --stack, or without metering, is refused;
--no-metering accepts it. CHUNKS, or --lines and the like, is read as run reads it.
--sample takes the outputs of the other chunks from --outputs or the store. Without
--sample-seed, the maker of the receipt could know which chunks it selects.

Exit codes:
   0    the receipt holds
   2    invalid usage, or the module, the input or a setting does not match
   4    the store failed
   5    an execution gives a different result
   130  interrupted`,
		ArgsUsage: "RECEIPT MODULE [CHUNKS]",
		Flags:     verifyFlags(),
		Action: func(ctx *cli.Context) error {
			o, err := parseVerify(ctx)
			if err != nil {
				return err
			}
			return verifyReceipt(ctx.Context, c, o)
		},
	}
}

func parseVerify(ctx *cli.Context) (*verifyOptions, error) {
	made, err := parseSource(ctx)
	switch {
	case err != nil:
		return nil, err
	case made != nil && ctx.NArg() != 2 || made == nil && ctx.NArg() != 3:
		return nil, usageErrorf("verify takes RECEIPT, MODULE and CHUNKS, or --lines or the like instead of CHUNKS, got %s", plural(ctx.NArg(), "argument"))
	}
	o := &verifyOptions{
		receipt: ctx.Args().Get(0), outputs: ctx.String("outputs"), json: ctx.Bool("json"), except: ctx.StringSlice("except"),
		run: runOptions{
			module: ctx.Args().Get(1), chunks: ctx.Args().Get(2), source: made, context: ctx.String("context"), workers: ctx.Int("workers"),
			options: runtime.Options{NoMetering: ctx.Bool("no-metering"), NativeNaNs: ctx.Bool("native-nans")},
			settings: runtime.Settings{
				Seed: ctx.Uint64("seed"), Timeout: ctx.Duration("timeout"), FoldTimeout: ctx.Duration("fold-timeout"),
				Isolation: runtime.Isolation(ctx.String("isolation")),
			},
			progress: ctx.String("progress"), logLevel: math.MaxInt8,
		},
	}
	for _, name := range []string{"seed", "memory", "native-nans", "no-metering", "arg", "env", "stdin"} {
		if isSet(ctx, name) {
			o.given = append(o.given, name)
		}
	}
	return o, errors.Join(o.parseChoices(ctx), o.parseSample(ctx), o.run.parseSizes(ctx), o.run.selection.parse(ctx))
}

func (o *verifyOptions) parseChoices(ctx *cli.Context) (err error) {
	if len(o.except) > 0 && (o.run.source == nil || o.run.source.kind != "files") {
		return usageErrorf("--except is only for --files")
	}
	for _, path := range o.except {
		if _, err := os.Stat(path); err != nil {
			return usageErrorf("--except %s: %s", path, withoutPath(err))
		}
	}
	if o.engine, err = parseEngine(ctx, "engine"); err != nil {
		return err
	}
	if !slices.Contains([]string{"reset", "instance"}, string(o.run.settings.Isolation)) {
		return usageErrorf("invalid --isolation %q: want reset or instance", o.run.settings.Isolation)
	}
	if err := checkProgress(o.run.progress); err != nil {
		return err
	}
	if isChosen(ctx, "workers") && o.run.workers < 1 {
		return usageErrorf("invalid --workers %d: want 1 or more", o.run.workers)
	}
	if o.run.settings.Timeout < 0 || o.run.settings.FoldTimeout < 0 {
		return usageErrorf("invalid --timeout or --fold-timeout: want 0 or more")
	}
	o.run.input.IDKey, o.run.input.NoIDKey = ctx.String("id-key"), ctx.String("id-key") == ""
	if o.run.input.Limit, err = parseLimit(ctx); err != nil {
		return err
	}
	if o.run.input.Format, err = chunks.ParseFormat(ctx.String("chunk-format")); err != nil {
		return usageErrorf("--chunk-format: %w", err)
	}
	if o.run.wasi, err = parseCommand(ctx); err != nil {
		return err
	}
	o.run.insecure = ctx.Bool("insecure")
	o.store, err = expectedDir(ctx)
	return err
}

// expectedDir returns the directory of the store that has the outputs to compare with,
// unless a file has them; "" = none.
func expectedDir(ctx *cli.Context) (string, error) {
	switch {
	case ctx.Bool("no-store") && isSet(ctx, "store"):
		return "", usageErrorf("--store and --no-store exclude each other: give one of them")
	case isSet(ctx, "outputs") && isSet(ctx, "store"):
		return "", usageErrorf("--outputs and --store exclude each other: give one of them")
	case isSet(ctx, "outputs") && ctx.String("outputs") == "":
		return "", usageErrorf("empty --outputs: want a file")
	case ctx.Bool("no-store") || isSet(ctx, "outputs"):
		return "", nil
	}
	return storeDir(ctx)
}

// parseSample reads the flags of the sample.
func (o *verifyOptions) parseSample(ctx *cli.Context) (err error) {
	o.sampled = isSet(ctx, "sample")
	if isSet(ctx, "sample-seed") {
		seed := ctx.Uint64("sample-seed")
		o.sample.Seed = &seed
	}
	if !o.sampled {
		if o.sample.Seed != nil {
			return usageErrorf("--sample-seed needs --sample")
		}
		return nil
	}
	text := ctx.String("sample")
	percent, share := parsePercent(text)
	if o.sample.Percent = percent; !share {
		o.sample.Count, err = strconv.Atoi(text)
	}
	switch {
	case err != nil || o.sample.Count < 0:
		return usageErrorf("invalid --sample %q: want a number of chunks, or a percentage such as 1%%", text)
	case o.sample.Count == 0 && o.sample.Percent == 0:
		return usageErrorf("invalid --sample %q: no chunk would be executed; want 1 chunk or more, or a percentage above 0", text)
	}
	return nil
}

func parsePercent(text string) (percent float64, ok bool) {
	number, ok := strings.CutSuffix(text, "%")
	if !ok {
		return 0, false
	}
	percent, err := strconv.ParseFloat(number, 64)
	return percent, err == nil && percent >= 0 && percent <= 100
}

// verifier is a verification in progress.
type verifier struct {
	*verifyOptions
	c       *console
	soft    context.Context // ends with the first signal
	display *progress.Display
	receipt *receipt.Receipt
	job     *host.Job
}

func verifyReceipt(ctx context.Context, c *console, o *verifyOptions) error {
	v := &verifier{verifyOptions: o, c: c, soft: ctx, display: newDisplay(c, &o.run)}
	defer v.display.Close()
	if err := v.identify(); err != nil {
		return err
	}
	started := time.Now()
	var prover *verify.SampleProver
	if o.sampled {
		lowerGCPercent(gcPercent) // little memory is in use: most of it would be garbage
		prover = verify.StartProver(v.soft, v.receipt, o.sample, v.expected)
		defer prover.Close()
	}
	file, err := v.scan()
	if err != nil {
		return interrupted(v.soft, err)
	}
	defer file.Close()
	scanned := time.Since(started)
	result, err := v.verify(ctx, prover)
	v.display.Close()
	if err != nil {
		return interrupted(v.soft, err)
	}
	return v.conclude(result, scanned)
}

// verify executes the job, or the chunks of a prover's sample.
func (v *verifier) verify(ctx context.Context, prover *verify.SampleProver) (*verify.Result, error) {
	x := &executor{verifier: v, ctx: context.WithoutCancel(ctx)}
	switch {
	case prover != nil:
		result, err := verify.Some(v.soft, v.job.Chunks, x, prover)
		if errors.Is(err, verify.ErrNoOutputs) {
			err = usageErrorf("%w, and the store has no such job: give --outputs FILE, or the --store DIR of the run", err)
		}
		return result, err
	case v.outputs != "":
		return verify.Against(v.soft, v.receipt, x, v.expected)
	}
	return verify.All(v.soft, v.receipt, x, v.expected)
}

// identify checks the module, the context and the given settings against the receipt.
func (v *verifier) identify() (err error) {
	if v.receipt, err = readReceipt(v.verifyOptions.receipt); err != nil {
		return err
	}
	r, o := v.receipt, &v.run
	if r.Engine.ABI != abi.Version {
		return usageErrorf("unsupported version %d of the guest ABI in the receipt: want %d", r.Engine.ABI, abi.Version)
	}
	v.job = &host.Job{
		Options:  runtime.Options{NoMetering: !r.Settings.Metering, NativeNaNs: r.Settings.NaNs == receipt.NativeNaNs},
		Settings: o.settings, Retry: host.DefaultRetry(), Stop: v.soft.Done(),
	}
	v.job.Settings.Seed, v.job.Settings.Memory, v.job.Settings.Stack = r.Settings.Seed, r.Settings.Memory, r.Settings.Stack
	v.job.Settings.Command = runtime.Command{Args: r.Settings.Args, Env: r.Settings.Env, Stdin: runtime.Stdin(r.Settings.Stdin)}
	if v.job.Module, err = readModule(o.module); err != nil {
		return err
	}
	if d := receipt.Digest(sha256.Sum256(v.job.Module)); d != r.Module {
		return usageErrorf("the module does not match the receipt: %s has %v, want %v", o.module, d, r.Module)
	}
	if err := v.identifySettings(); err != nil {
		return err
	}
	if err := v.checkLimits(); err != nil {
		return err
	}
	if err := v.identifyDirs(); err != nil {
		return err
	}
	return v.identifyContext()
}

func (v *verifier) identifySettings() error {
	s := v.receipt.Settings
	for _, name := range v.given {
		var given, has any
		switch name {
		case "seed":
			given, has = v.run.settings.Seed, s.Seed
		case "memory":
			given, has = v.run.settings.Memory, s.Memory
		case "native-nans":
			given, has = v.run.options.NativeNaNs, s.NaNs == receipt.NativeNaNs
		case "no-metering":
			given, has = v.run.options.NoMetering, !s.Metering
		case "arg":
			given, has = fmt.Sprintf("%q", v.run.wasi.Args), fmt.Sprintf("%q", s.Args)
		case "env":
			given, has = fmt.Sprintf("%q", v.run.wasi.Env), fmt.Sprintf("%q", s.Env)
		case "stdin":
			given, has = v.run.wasi.Stdin == runtime.StdinCBOR, s.Stdin == receipt.StdinCBOR
		}
		if given != has && !(name == "memory" && v.run.settings.Memory > s.Memory) { // --memory is a limit
			return usageErrorf("the setting %s does not match the receipt: got %v, want %v", name, given, has)
		}
	}
	return nil
}

// checkLimits checks the receipt's settings against the reader's limits.
func (v *verifier) checkLimits() error {
	return checkLimits(v.receipt, verify.Limits{Unmetered: v.run.options.NoMetering, Memory: v.run.settings.Memory, Stack: v.run.settings.Stack})
}

// checkLimits refuses a receipt whose job exceeds the reader's limits.
func checkLimits(r *receipt.Receipt, limits verify.Limits) error {
	err := limits.Check(&r.Settings)
	if errors.Is(err, verify.ErrUnmetered) {
		return usageErrorf("%w: --no-metering allows it", err)
	}
	if _, ok := errors.AsType[*verify.MemoryError](err); ok {
		return usageErrorf("%w: --memory SIZE allows more", err)
	}
	if _, ok := errors.AsType[*verify.StackError](err); ok {
		return usageErrorf("%w: --stack SIZE allows more", err)
	}
	return err
}

// identifyDirs reads the directories of a WASI command, and checks them against the
// receipt.
func (v *verifier) identifyDirs() error {
	command, err := v.run.wasi.read(v.soft)
	if err != nil {
		return err
	}
	given := map[string]wasi.Dir{}
	for _, d := range command.Dirs {
		given[d.Guest] = d
	}
	for _, want := range v.receipt.Settings.Dirs {
		d, ok := given[want.Guest]
		switch {
		case !ok:
			return usageErrorf("missing directory %s of the receipt's job, with %v: give it with --dir HOST:%s", want.Guest, want.Digest, want.Guest)
		case d.Tree.Digest() != want.Digest:
			return usageErrorf("the directory %s does not match the receipt: got %v, want %v", want.Guest, receipt.Digest(d.Tree.Digest()), want.Digest)
		}
		v.job.Settings.Command.Dirs = append(v.job.Settings.Command.Dirs, d)
	}
	if len(command.Dirs) > len(v.receipt.Settings.Dirs) {
		return usageErrorf("invalid --dir: too many directories, the receipt's job had %d", len(v.receipt.Settings.Dirs))
	}
	return nil
}

func (v *verifier) identifyContext() (err error) {
	want := v.receipt.Settings.Context
	switch {
	case v.run.context == "" && want != nil:
		return usageErrorf("missing context of the receipt's job, with %v: give it with --context FILE", want)
	case v.run.context == "":
		return nil
	}
	if v.job.Settings.Context, err = readContext(v.run.context); err != nil {
		return err
	}
	switch got := v.job.ReceiptSettings().Context; {
	case want == nil && got == nil:
		return nil
	case want == nil:
		return usageErrorf("the context does not match the receipt: got %s, want none", v.run.context)
	case got == nil || *got != *want:
		return usageErrorf("the context does not match the receipt: %s has %v, want %v", v.run.context, receipt.Digest(sha256.Sum256(v.job.Settings.Context)), want)
	}
	return nil
}

// scan opens the chunks, and checks them against the receipt.
func (v *verifier) scan() (*chunks.File, error) {
	v.run.store, v.run.passOver = v.store, infosOf(append(v.except, v.verifyOptions.receipt, v.outputs)...)
	file, err := openChunks(v.soft, v.c, &v.run, v.display)
	if err != nil {
		return nil, err
	}
	if v.job.Chunks, err = v.run.selection.of(v.soft, file, v.display); err != nil {
		file.Close()
		return nil, err
	}
	name, hint := v.run.chunks, ""
	switch {
	case v.run.source != nil && v.run.source.kind == "files":
		name, hint = v.run.source.name(), ", and so do new files in a directory, such as results of the run: --except PATH skips one"
	case v.run.source != nil:
		name = v.run.source.name()
	case name == "-":
		name = "standard input"
	}
	if got := receipt.Digest(v.job.Chunks.Digest()); got != v.receipt.Input {
		file.Close()
		return nil, usageErrorf("the input does not match the receipt: %s has %d chunks of %v, want %d of %v; --id-key, --limit, --range and --ids change it too%s",
			name, v.job.Chunks.Len(), got, v.receipt.Chunks, v.receipt.Input, hint)
	}
	if n := uint64(v.job.Chunks.Len()); n != v.receipt.Chunks {
		file.Close()
		return nil, usageErrorf("the receipt was changed: it says %s, and its input digest is of %d", plural(v.receipt.Chunks, "chunk"), n)
	}
	return file, nil
}

// executor executes the job of a verification, without any store.
type executor struct {
	*verifier
	ctx context.Context
}

// All implements [verify.Executor].
func (x *executor) All(context.Context) (*verify.Execution, error) {
	result, err := x.run(x.job)
	if err != nil {
		return nil, err
	}
	found := execution(result)
	if len(found.Failures) == 0 {
		found.Receipt, err = result.Receipt()
	}
	return found, err
}

// Some implements [verify.Executor].
func (x *executor) Some(ctx context.Context, numbers []uint64) (*verify.Execution, error) {
	all := x.job.Chunks.(*chunks.File) // the type that scan opens
	var ids abi.IDSet
	for _, i := range numbers {
		ids.Add(all.ID(int(i)))
	}
	some := *x.job
	some.NoFold = true
	var err error
	if some.Chunks, err = all.Select(ctx, ids); err != nil {
		return nil, err
	}
	result, err := x.run(&some)
	if err != nil {
		return nil, err
	}
	return execution(result), nil
}

func execution(result *host.Result) *verify.Execution {
	n := &result.Report.Chunks
	found := &verify.Execution{Executed: n.Succeeded + n.Failed, Engine: result.Engine(), Outputs: result.Outputs}
	for i := range result.Report.Failures {
		f := &result.Report.Failures[i]
		found.Failures = append(found.Failures, verify.Failure{ID: f.ID, Failure: &f.Failure})
	}
	return found
}

// run runs a job.
func (x *executor) run(job *host.Job) (*host.Result, error) {
	v, ctx := x.verifier, x.ctx
	modules, err := openEngine(ctx, v.engine)
	if err != nil {
		return nil, err
	}
	engine := host.NewEngine(modules)
	defer engine.Close(context.WithoutCancel(ctx))
	coordinator, err := host.New(ctx, host.Config{Workers: v.run.workers, Engine: engine, Observer: v.display})
	if err != nil {
		return nil, err
	}
	defer coordinator.Close(context.WithoutCancel(ctx))
	result, err := coordinator.Run(v.c.signals.Hard, job)
	if result == nil {
		return nil, v.run.ofModule(err)
	}
	fold, _ := errors.AsType[*host.FoldError](err)
	init, _ := errors.AsType[*runtime.InitError](err)
	if fold != nil && !isHost(err) || init != nil && !init.HostFailed() {
		return nil, &exitError{exitDiffers, fmt.Errorf("the job gives no result this time: %w", err)}
	}
	return result, err
}

// isHost reports whether an error is a failure of class host, which is not about the
// module.
func isHost(err error) bool {
	f, ok := errors.AsType[*abi.Failure](err)
	return ok && f.Class == abi.ClassHost
}

// expected opens the outputs to compare with; nil if there are none.
func (v *verifier) expected(ctx context.Context) (*verify.Expected, error) {
	switch {
	case v.outputs != "":
		return fileOutputs(ctx, v.outputs)
	case v.store != "":
		return storeOutputs(ctx, &console{err: v.display}, v.store, v.run.insecure, v.receipt)
	}
	return nil, nil
}
