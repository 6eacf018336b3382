package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
)

// verifyOptions are the flags of verify, parsed.
type verifyOptions struct {
	receipt string
	run     runOptions // module, chunks, context, input, selection, settings, workers
	given   []string   // names of the flags that state a setting of the receipt
	sample  sample
	engine  string
	outputs string // file; "" = none
	store   string // directory; "" = none
	json    bool
}

// ofVerify are the flags of run that verify has too: how chunks are read, the
// limits that decide whether there is an output, and the settings that the
// receipt has as well.
var ofVerify = []string{
	"context", "workers", "timeout", "fold-timeout", "max-output", "max-aggregate", "max-chunk", "id-key", "chunk-format",
	"range", "ids", "isolation", "seed", "memory", "native-nans", "no-metering", "store", "no-store", "progress",
	"arg", "env", "stdin", "dir", "max-dir",
}

func verifyFlags() []cli.Flag {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "sample", Usage: "execute `N|P%` of the chunks instead of all, and prove their outputs to be those of the receipt"},
		&cli.Uint64Flag{Name: "sample-seed", DefaultText: "made of the receipt", Usage: "which chunks are in the sample"},
		&cli.StringFlag{Name: "engine", Value: "compiler", Usage: "compiler or interpreter, which share no code generator"},
		&cli.StringFlag{Name: "outputs", Aliases: []string{"against"}, Usage: "the outputs that the receipt is said to be of, a `FILE` of run --outputs; without it, those in the store"},
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
		Name: "verify", Usage: "execute a job again and compare with its receipt",
		UsageText: `wasm-jobs verify [flags] RECEIPT MODULE CHUNKS

Example: wasm-jobs verify receipt.json square.wasm chunks.cbor
         wasm-jobs verify receipt.json square.wasm chunks.cbor --engine interpreter
         wasm-jobs verify receipt.json square.wasm chunks.cbor --sample 1% --outputs outputs.cbor

Settings are those of the receipt; one that is given must be the same. CHUNKS is
read as run reads it, and can be replaced by --lines and the like as there.
--sample takes the outputs of the other chunks from --outputs or the store.

Exit codes:
   0    the receipt holds
   2    the module, the input or a setting is not that of the receipt
   4    the store failed
   5    an execution gives something else
   130  interrupted`,
		ArgsUsage: "RECEIPT MODULE [CHUNKS]",
		Flags:     verifyFlags(),
		Action: func(ctx *cli.Context) error {
			o, err := parseVerify(ctx)
			if err != nil {
				return err
			}
			return verify(ctx.Context, c, o)
		},
	}
}

func parseVerify(ctx *cli.Context) (*verifyOptions, error) {
	made, err := parseSource(ctx)
	switch {
	case err != nil:
		return nil, err
	case made != nil && ctx.NArg() != 2 || made == nil && ctx.NArg() != 3:
		return nil, refuse("verify takes RECEIPT, MODULE and CHUNKS, or --lines or the like instead of CHUNKS, and %d arguments are given", ctx.NArg())
	}
	o := &verifyOptions{
		receipt: ctx.Args().Get(0), engine: ctx.String("engine"), outputs: ctx.String("outputs"), json: ctx.Bool("json"),
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
	return o, errors.Join(o.parseChoices(ctx), o.sample.parse(ctx), o.run.parseSizes(ctx), o.run.selection.parse(ctx))
}

func (o *verifyOptions) parseChoices(ctx *cli.Context) (err error) {
	if !slices.Contains([]string{"compiler", "interpreter"}, o.engine) {
		return refuse("--engine %q is none of compiler, interpreter", o.engine)
	}
	if !slices.Contains([]string{"reset", "instance"}, string(o.run.settings.Isolation)) {
		return refuse("--isolation %q is none of reset, instance", o.run.settings.Isolation)
	}
	if !slices.Contains([]string{"auto", "plain", "none"}, o.run.progress) {
		return refuse("--progress %q is none of auto, plain, none", o.run.progress)
	}
	if isSet(ctx, "workers") && o.run.workers < 1 {
		return refuse("--workers %d: 1 or more are needed", o.run.workers)
	}
	if o.run.settings.Timeout < 0 || o.run.settings.FoldTimeout < 0 {
		return refuse("--timeout and --fold-timeout are 0 or more")
	}
	o.run.input.IDKey, o.run.input.NoIDKey = ctx.String("id-key"), ctx.String("id-key") == ""
	if o.run.input.Format, err = chunks.ParseFormat(ctx.String("chunk-format")); err != nil {
		return refuse("--chunk-format: %w", err)
	}
	if o.run.wasi, err = parseCommand(ctx); err != nil {
		return err
	}
	o.store, err = claimsDir(ctx)
	return err
}

// claimsDir returns where outputs are looked for that no file has; "" = nowhere.
func claimsDir(ctx *cli.Context) (string, error) {
	switch {
	case ctx.Bool("no-store") && isSet(ctx, "store"):
		return "", refuse("--store and --no-store exclude each other: give one of them")
	case isSet(ctx, "outputs") && isSet(ctx, "store"):
		return "", refuse("--outputs and --store both say where outputs are: give one of them")
	case isSet(ctx, "outputs") && ctx.String("outputs") == "":
		return "", refuse("--outputs is empty")
	case ctx.Bool("no-store") || isSet(ctx, "outputs"):
		return "", nil
	}
	return storeDir(ctx)
}

// verification is what verify found, as JSON for other programs.
type verification struct {
	Holds    bool   `json:"holds"`
	Engine   string `json:"engine"`
	Chunks   uint64 `json:"chunks"`
	Sample   bool   `json:"sample"`
	Executed int    `json:"executed"`
	Proved   int    `json:"proved"`            // outputs of the sample that are in the receipt's tree
	Outputs  string `json:"outputs,omitempty"` // where those came from that were compared
	// Differences are of fields: A is the receipt's, B what was found.
	Differences []receipt.Difference `json:"differences"`
	chunkDifferences
	Notes []string `json:"notes,omitempty"`
	// Outputs for a sample are hashed from the start, beside all else.
	Seconds struct {
		Scan    float64 `json:"scan"`
		Execute float64 `json:"execute"` // chunks, and their fold where all are executed
		Compare float64 `json:"compare"` // what is left of it after execution
	} `json:"seconds"`
}

// chunkDifferences are the chunks whose outputs differ: of many, the first.
type chunkDifferences struct {
	Count  int               `json:"different_chunks"`
	Listed []chunkDifference `json:"different"`
}

// chunkDifference is a chunk with two outputs, in diagnostic notation, or with
// one of them and nothing, or a failure, instead of the other.
type chunkDifference struct {
	ID      abi.ID       `json:"id"`
	A       string       `json:"a,omitempty"`      // that was said to be
	B       string       `json:"b,omitempty"`      // that was found
	Offset  *int         `json:"offset,omitempty"` // of the first byte that differs
	Failure *abi.Failure `json:"failure,omitempty"`
}

const (
	// maxDifferent bounds the chunks that are named.
	maxDifferent = 20
	// maxDiagnosed bounds the outputs that are shown, in bytes, and maxNotation
	// what is shown of them.
	maxDiagnosed = 64 << 10
	maxNotation  = 300
)

// add notes a chunk. nil is no output.
func (d *chunkDifferences) add(id abi.ID, a, b []byte, failure *abi.Failure) {
	if d.Count++; d.Count > maxDifferent {
		return
	}
	at := firstDifferent(a, b)
	difference := chunkDifference{ID: id, Failure: failure}
	if a != nil && b != nil {
		difference.Offset = &at
	}
	difference.A, difference.B = notation(a, at), notation(b, at)
	d.Listed = append(d.Listed, difference)
}

// firstDifferent returns the first byte in which a and b differ.
func firstDifferent(a, b []byte) (at int) {
	for at < min(len(a), len(b)) && a[at] == b[at] {
		at++
	}
	return at
}

// notation shows an output to people, or, where it is long, what stands around a
// byte of it.
func notation(item []byte, at int) string {
	if item == nil {
		return ""
	}
	if len(item) <= maxDiagnosed {
		if diag, err := diagnostic().Diagnose(item); err == nil && len(diag) <= maxNotation {
			return diag
		}
	}
	from := min(max(0, at-8), max(0, len(item)-1))
	to := min(len(item), from+maxNotation/4)
	return fmt.Sprintf("bytes %d-%d of %d: %x", from, to-1, len(item), item[from:to])
}

func (d *chunkDifferences) print(w io.Writer, a, b string) {
	or := func(s, none string) string {
		if s == "" {
			return none
		}
		return s
	}
	for _, x := range d.Listed {
		where := ""
		if x.Offset != nil && *x.Offset > 0 {
			where = fmt.Sprintf(" (from byte %d)", *x.Offset)
		}
		found := or(x.B, "no output")
		if x.Failure != nil {
			found = "failed: " + x.Failure.Error()
		}
		fmt.Fprintf(w, "chunk %v differs%s\n  %s: %s\n  %s: %s\n", x.ID, where, a, or(x.A, "no output"), b, found)
	}
	if more := d.Count - len(d.Listed); more > 0 {
		fmt.Fprintf(w, "and %d more chunks differ\n", more)
	}
}

// verifier is one verification going on.
type verifier struct {
	*verifyOptions
	c       *console
	stops   *stops
	screen  *screen
	receipt *receipt.Receipt
	job     *host.Job
	found   verification
}

func verify(ctx context.Context, c *console, o *verifyOptions) error {
	abandon := func() { fmt.Fprintln(c.err, "wasm-jobs: "+host.ErrInterrupted.Error()) }
	v := &verifier{verifyOptions: o, c: c, stops: notify(ctx, func() {}, abandon), screen: newScreen(c, &o.run)}
	defer v.stops.end()
	defer v.screen.close()
	if err := v.identify(); err != nil {
		return err
	}
	started := time.Now()
	var proving *proving
	if o.sample.made {
		proving = v.beginProving(ctx)
		defer proving.close()
	}
	file, err := v.scan()
	if err != nil {
		return interruptedScan(v.stops.soft, err)
	}
	defer file.Close()
	v.found.Seconds.Scan = time.Since(started).Seconds()
	v.found.Engine, v.found.Chunks, v.found.Sample = o.engine, v.receipt.Chunks, o.sample.made
	v.found.Differences, v.found.Listed = []receipt.Difference{}, []chunkDifference{}
	if o.sample.made {
		err = v.verifySample(ctx, proving)
	} else {
		err = v.verifyAll(ctx)
	}
	v.screen.close()
	if err != nil {
		return interruptedScan(v.stops.soft, err)
	}
	return v.conclude()
}

// identify holds the module, the context and the settings that are given to the
// receipt.
func (v *verifier) identify() (err error) {
	if v.receipt, err = readReceipt(v.verifyOptions.receipt); err != nil {
		return err
	}
	r, o := v.receipt, &v.run
	if r.Engine.ABI != abi.Version {
		return refuse("the receipt is of version %d of the guest ABI, and this program has %d", r.Engine.ABI, abi.Version)
	}
	v.job = &host.Job{
		Options:  runtime.Options{NoMetering: !r.Settings.Metering, NativeNaNs: r.Settings.NaNs == receipt.NativeNaNs},
		Settings: o.settings, Retry: host.DefaultRetry(), Stop: v.stops.soft.Done(),
	}
	v.job.Settings.Seed, v.job.Settings.Memory = r.Settings.Seed, r.Settings.Memory
	v.job.Settings.Command = runtime.Command{Args: r.Settings.Args, Env: r.Settings.Env, Stdin: runtime.Stdin(r.Settings.Stdin)}
	if v.job.Module, err = readModule(o.module); err != nil {
		return err
	}
	if d := receipt.Digest(sha256.Sum256(v.job.Module)); d != r.Module {
		return refuse("the module is not the receipt's: %s has %v, and the receipt %v", o.module, d, r.Module)
	}
	if err := v.identifySettings(); err != nil {
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
		if given != has {
			return refuse("the setting %s is not the receipt's: %v is given, and the receipt has %v", name, given, has)
		}
	}
	return nil
}

// identifyDirs reads the directories of a WASI command, and holds them to the
// receipt.
func (v *verifier) identifyDirs() error {
	command, err := v.run.wasi.read(v.stops.soft)
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
			return refuse("the receipt's job read the directory %s, of %v: --dir HOST:%s gives it", want.Guest, want.Digest, want.Guest)
		case d.Tree.Digest() != want.Digest:
			return refuse("the directory %s is not the receipt's: the one that is given has %v, and the receipt %v", want.Guest, receipt.Digest(d.Tree.Digest()), want.Digest)
		}
		v.job.Settings.Command.Dirs = append(v.job.Settings.Command.Dirs, d)
	}
	if len(command.Dirs) > len(v.receipt.Settings.Dirs) {
		return refuse("--dir: more directories are given than the %d of the receipt's job", len(v.receipt.Settings.Dirs))
	}
	return nil
}

func (v *verifier) identifyContext() (err error) {
	want := v.receipt.Settings.Context
	switch {
	case v.run.context == "" && want != nil:
		return refuse("the receipt's job had a context, of %v: --context FILE gives it", want)
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
		return refuse("the context is not the receipt's: %s is given, and the receipt's job had none", v.run.context)
	case got == nil || *got != *want:
		return refuse("the context is not the receipt's: %s has %v, and the receipt %v", v.run.context, receipt.Digest(sha256.Sum256(v.job.Settings.Context)), want)
	}
	return nil
}

// scan opens the chunks, and holds them to the receipt.
func (v *verifier) scan() (*chunks.File, error) {
	file, err := openChunks(v.stops.soft, v.c, &v.run, v.screen)
	if err != nil {
		return nil, err
	}
	if v.job.Chunks, err = v.run.selection.of(v.stops.soft, file, v.screen); err != nil {
		file.Close()
		return nil, err
	}
	name := v.run.chunks
	switch {
	case v.run.source != nil:
		name = v.run.source.name()
	case name == "-":
		name = "standard input"
	}
	if got := receipt.Digest(v.job.Chunks.Digest()); got != v.receipt.Input {
		file.Close()
		return nil, refuse("the input is not the receipt's: %s has %d chunks of %v, and the receipt %d of %v; --id-key, --range and --ids change it too",
			name, v.job.Chunks.Len(), got, v.receipt.Chunks, v.receipt.Input)
	}
	if n := uint64(v.job.Chunks.Len()); n != v.receipt.Chunks {
		file.Close()
		return nil, refuse("the receipt says %d chunks, and its own input digest is of %d: it was changed", v.receipt.Chunks, n)
	}
	return file, nil
}

// execute runs the job, without what any store has.
func (v *verifier) execute(ctx context.Context, job *host.Job) (*host.Result, error) {
	started := time.Now()
	defer func() { v.found.Seconds.Execute = time.Since(started).Seconds() }()
	modules, err := runtime.New(ctx, runtime.Config{CacheDir: compiledDir(), Interpreter: v.engine == "interpreter"})
	if err != nil {
		return nil, err
	}
	engine := host.NewEngine(modules)
	defer engine.Close(context.WithoutCancel(ctx))
	coordinator, err := host.New(ctx, host.Config{Workers: v.run.workers, Engine: engine, Observer: v.screen})
	if err != nil {
		return nil, err
	}
	defer coordinator.Close(context.WithoutCancel(ctx))
	result, err := coordinator.Run(v.stops.hard, job)
	if result == nil {
		return nil, v.run.ofModule(err)
	}
	_, fold := errors.AsType[*host.FoldError](err)
	_, init := errors.AsType[*runtime.InitError](err)
	if fold || init {
		return nil, &exitError{exitDiffers, fmt.Errorf("the job comes to no result again: %w", err)}
	}
	v.found.Executed = result.Report.Chunks.Succeeded + result.Report.Chunks.Failed
	return result, err
}

// verifyAll executes everything.
func (v *verifier) verifyAll(ctx context.Context) error {
	result, err := v.execute(ctx, v.job)
	if err != nil {
		return err
	}
	started := time.Now()
	defer func() { v.found.Seconds.Compare = time.Since(started).Seconds() }()
	if len(result.Report.Failures) == 0 {
		again, err := result.Receipt()
		if err != nil {
			return err
		}
		v.compare(again)
	}
	if v.outputs == "" && len(v.found.Differences) == 0 && len(result.Report.Failures) == 0 {
		return nil
	}
	claimed, err := v.claims(ctx)
	if err != nil {
		return err
	}
	if claimed == nil {
		for i := range result.Report.Failures {
			f := &result.Report.Failures[i]
			v.found.add(f.ID, nil, nil, &f.Failure)
		}
		v.found.Notes = append(v.found.Notes, "--outputs FILE, or --store DIR of the run, says which chunks differ")
		return nil
	}
	defer claimed.close()
	v.found.Outputs = claimed.name
	return v.compareAll(v.stops.soft, result, claimed)
}

// compare notes the fields in which the receipt and that of the execution
// differ.
func (v *verifier) compare(again *receipt.Receipt) {
	fuel := v.receipt.Engine.Metering == again.Engine.Metering
	for _, d := range receipt.Compare(v.receipt, again) {
		switch {
		case d.Engine():
			v.found.Notes = append(v.found.Notes, fmt.Sprintf("%s is %s here, and was %s: no reason for another result", d.Field, d.B, d.A))
		case d.Field == "fuel" && !fuel:
			v.found.Notes = append(v.found.Notes, "fuel was not compared: it was counted in another way")
		default:
			v.found.Differences = append(v.found.Differences, d)
		}
	}
}

// claims opens the outputs that the receipt is said to be of; nil where there
// are none.
func (v *verifier) claims(ctx context.Context) (*claims, error) {
	switch {
	case v.outputs != "":
		return fileClaims(v.outputs)
	case v.store != "":
		return storeClaims(ctx, &console{err: v.screen}, v.store, v.receipt)
	}
	return nil, nil
}

// outputsOf hands out the outputs of an execution by their ids, which ascend.
type outputsOf struct {
	next     func() (host.Output, error, bool)
	stop     func()
	failures []host.ChunkFailure
	output   host.Output
	err      error
	there    bool // output is the next one
}

func newOutputsOf(ctx context.Context, result *host.Result) *outputsOf {
	o := &outputsOf{failures: result.Report.Failures}
	o.next, o.stop = iter.Pull2(result.Outputs(ctx))
	o.advance()
	return o
}

func (o *outputsOf) advance() {
	if o.output, o.err, o.there = o.next(); o.err != nil {
		o.there = false
	}
}

// failure returns how a chunk failed, or nil.
func (o *outputsOf) failure(id abi.ID) *abi.Failure {
	i, ok := slices.BinarySearchFunc(o.failures, id, func(f host.ChunkFailure, id abi.ID) int { return f.ID.Compare(id) })
	if !ok {
		return nil
	}
	return &o.failures[i].Failure
}

// compareAll names the chunks whose outputs are not those that were claimed.
func (v *verifier) compareAll(ctx context.Context, result *host.Result, claimed *claims) error {
	again := newOutputsOf(ctx, result)
	defer again.stop()
	tree := merkle.NewDigester(nil)
	defer tree.Close()
	err := claimed.each(ctx, func(id abi.ID, output []byte) error {
		tree.Add(id, output)
		for again.there && again.output.ID.Compare(id) < 0 {
			v.found.add(again.output.ID, nil, again.output.Output, nil)
			again.advance()
		}
		switch {
		case again.there && again.output.ID == id:
			if string(again.output.Output) != string(output) {
				v.found.add(id, output, again.output.Output, nil)
			}
			again.advance()
		case again.err == nil:
			v.found.add(id, output, nil, again.failure(id))
		}
		return again.err
	})
	for ; err == nil && again.there; again.advance() {
		v.found.add(again.output.ID, nil, again.output.Output, nil)
	}
	if err = errors.Join(err, again.err); err != nil {
		return err
	}
	if root := receipt.Digest(tree.Root()); root != v.receipt.Outputs {
		v.found.Notes = append(v.found.Notes, fmt.Sprintf("the outputs in %s are not those of the receipt: they have %v", claimed.name, root))
	}
	return nil
}

// conclude says what was found.
func (v *verifier) conclude() error {
	f := &v.found
	f.Holds = len(f.Differences) == 0 && f.Count == 0 && (!f.Sample || f.Proved == f.Executed)
	if v.json {
		if err := writeJSON(v.c.out, f); err != nil {
			return written(err)
		}
	} else if err := v.print(); err != nil {
		return written(err)
	}
	if f.Holds {
		return nil
	}
	var what []string
	for _, d := range f.Differences {
		what = append(what, d.Field)
	}
	if f.Count > 0 {
		what = append(what, fmt.Sprintf("%d chunks", f.Count))
	}
	if len(what) == 0 {
		what = append(what, fmt.Sprintf("%d outputs are not proved", f.Executed-f.Proved))
	}
	return &exitError{exitDiffers, fmt.Errorf("the receipt does not hold: different %s", strings.Join(what, ", "))}
}

func (v *verifier) print() error {
	f, w := &v.found, new(strings.Builder)
	switch {
	case f.Holds && f.Sample:
		fmt.Fprintf(w, "the receipt holds: %d of %d chunks executed again (%s), each output proved to be in it\n", f.Executed, f.Chunks, f.Engine)
	case f.Holds:
		fmt.Fprintf(w, "the receipt holds: %d chunks executed again (%s), with the same outputs and result\n", f.Executed, f.Engine)
	}
	for _, d := range f.Differences {
		or := func(s string) string {
			if s == "" {
				return "none"
			}
			return s
		}
		fmt.Fprintf(w, "%s differs\n  receipt: %s\n  found: %s\n", d.Field, or(d.A), or(d.B))
	}
	f.print(w, "claimed", "executed")
	for _, note := range f.Notes {
		fmt.Fprintf(w, "note: %s\n", note)
	}
	_, err := io.WriteString(v.c.out, w.String())
	return err
}
