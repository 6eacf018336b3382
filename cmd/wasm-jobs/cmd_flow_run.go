package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/flow/definition"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

// flowOptions are the flags of flow run, parsed.
type flowOptions struct {
	runOptions // of the input, the store and the results
	file       string
	as         string
	allow      []string // kinds of effects
	stopAt     []string
	set        []string // NAME.FIELD=VALUE
	live       int
	bounds     flow.Bounds
	retryAfter time.Duration
	remake     bool         // effects whose data changed
	effects    string       // file for their results
	replay     string       // file from which they are taken
	given      bool         // no effect is made
	seed       *uint64      // nil = the definition's
	decide     func() error // records the choice of a redrive; nil = none
}

func flowRunFlags() []cli.Flag {
	flags := slices.DeleteFunc(sourceFlags(), func(flag cli.Flag) bool { return nameOf(flag) == "as" })
	kept := []string{
		"output", "outputs", "format", "workers", "timeout", "fold-timeout", "fuel", "memory", "max-output", "max-aggregate", "max-chunk",
		"stack", "context", "seed", "retries", "retry-on", "retry-deterministic", "backoff", "backoff-max", "max-requeues", "rerun", "partial", "events", "log-level",
		"id-key", "chunk-format", "limit", "range", "ids", "store", "no-store", "max-failures", "fail-fast", "dead-letter", "report", "engine", "verify", "verify-engine", "meta", "receipt", "grace", "progress", "metrics", "trace-otlp",
	}
	for _, flag := range runFlags() {
		if slices.Contains(kept, nameOf(flag)) {
			flags = append(flags, flag)
		}
	}
	return append(flags,
		&cli.StringFlag{Name: "as", DefaultText: "the flow's name", Usage: "`NAME` of the run"},
		&cli.StringFlag{Name: "allow", Usage: "kinds of effects that may be made: http, command or both, separated by a comma"},
		&cli.StringFlag{Name: "stop-at", Usage: "`STATES`, separated by commas: items that reach them are held, and not executed"},
		&cli.StringSliceFlag{Name: "set", Usage: "another value of a limit for this run, `NAME.FIELD=VALUE`, such as shop.rate=5/s; may be given again"},
		&cli.IntFlag{Name: "live", Value: 10_000, Usage: "items in flight at once"},
		&cli.IntFlag{Name: "max-items", Value: 10_000_000, Usage: "items of the run, with all children"},
		&cli.IntFlag{Name: "max-steps", Value: 1_000, Usage: "steps of one item"},
		&cli.IntFlag{Name: "max-depth", Value: 32, Usage: "levels of children below a root"},
		&cli.DurationFlag{Name: "max-retry-after", Value: time.Hour, Usage: "the longest wait that a service may ask for"},
		&cli.StringFlag{Name: "effects", Usage: "write the results of effects to `FILE`, a CBOR sequence in item order"},
		&cli.StringFlag{Name: "replay-effects", Usage: "take the results of effects from `FILE`, and make none"},
		&cli.StringFlag{Name: "on-changed", Value: "refuse", Usage: "if the data of effects has changed since they were made: refuse the run, or rerun them"},
	)
}

const flowRunUsage = "run a flow over the chunks of a file"

func flowRunCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "run", Usage: flowRunUsage,
		UsageText: `wasm-jobs flow run [flags] FILE [CHUNKS]

FILE is a definition, YAML or JSON. CHUNKS, or a source as in wasm-jobs run, has the
roots; without either there is one root, null, with the id 0.

Example: wasm-jobs flow run prices.yaml shops.cbor

` + flowExitHelp,
		ArgsUsage: "FILE [CHUNKS]",
		Flags:     flowRunFlags(),
		Action: func(ctx *cli.Context) error {
			o, err := parseFlowRun(ctx)
			if err != nil {
				return err
			}
			return runFlow(ctx.Context, c, o)
		},
	}
}

func parseFlowRun(ctx *cli.Context) (*flowOptions, error) {
	o := &flowOptions{file: ctx.Args().First(), as: ctx.String("as"), live: ctx.Int("live"), retryAfter: ctx.Duration("max-retry-after")}
	made, err := parseSource(ctx)
	switch {
	case err != nil:
		return nil, err
	case ctx.NArg() < 1 || ctx.NArg() > 2:
		return nil, usageErrorf("flow run takes FILE and optional CHUNKS, got %s", plural(ctx.NArg(), "argument"))
	case made != nil && ctx.NArg() != 1:
		return nil, usageErrorf("flow run takes FILE and --%s, or FILE and CHUNKS", made.kind)
	}
	if strings.ContainsFunc(o.as, unicode.IsControl) || !utf8.ValidString(o.as) {
		return nil, usageErrorf("invalid --as %q: want a name without control characters", o.as)
	}
	o.source, o.chunks = made, ctx.Args().Get(1)
	return o, errors.Join(o.parseBounds(ctx, func(string) bool { return true }), o.parseShared(ctx), o.parseEngines(ctx), o.parseLists(ctx), o.parseRoots(ctx))
}

// parseEngines parses the flags of the engines, and the metadata of the run.
func (o *flowOptions) parseEngines(ctx *cli.Context) (err error) {
	if o.engine, err = parseAnyEngine(ctx); err != nil {
		return err
	}
	return errors.Join(o.recheck.parse(ctx), o.parseMeta(ctx))
}

// mostOf are the largest values of bounds. A depth is counted in 16 bits.
var mostOf = map[string]int{"live": 10_000_000, "max-items": math.MaxInt32, "max-steps": math.MaxInt32, "max-depth": 10_000}

// parseBounds parses the bounds of the run that must be read.
func (o *flowOptions) parseBounds(ctx *cli.Context, read func(name string) bool) error {
	for name, to := range map[string]*int{
		"live": &o.live, "max-items": &o.bounds.MaxItems, "max-steps": &o.bounds.MaxSteps, "max-depth": &o.bounds.MaxDepth,
	} {
		if !read(name) {
			continue
		}
		if *to = ctx.Int(name); *to < 1 || *to > mostOf[name] {
			return usageErrorf("invalid --%s %d: want 1 to %d", name, *to, mostOf[name])
		}
	}
	return nil
}

// parseRoots parses the flags that select and read the roots.
func (o *flowOptions) parseRoots(ctx *cli.Context) (err error) {
	o.input.IDKey, o.input.NoIDKey = ctx.String("id-key"), ctx.String("id-key") == ""
	if o.input.Format, err = chunks.ParseFormat(ctx.String("chunk-format")); err != nil {
		return usageErrorf("--chunk-format: %w", err)
	}
	if o.input.Limit, err = parseLimit(ctx); err != nil {
		return err
	}
	return o.selection.parse(ctx)
}

// parseShared parses the flags that have the same meaning as in run.
func (o *flowOptions) parseShared(ctx *cli.Context) (err error) {
	r := &o.runOptions
	always := func(string) bool { return true }
	r.workers, r.grace, r.format, r.progress = ctx.Int("workers"), ctx.Duration("grace"), ctx.String("format"), ctx.String("progress")
	if isSet(ctx, "max-retry-after") && ctx.Duration("max-retry-after") <= 0 {
		return usageErrorf("invalid --max-retry-after %s: want a duration above 0", ctx.Duration("max-retry-after"))
	}
	r.partial, r.rerun, r.context = ctx.Bool("partial"), ctx.Bool("rerun"), ctx.String("context")
	r.files = resultFiles{
		result: ctx.String("output"), outputs: ctx.String("outputs"), deadLetter: ctx.String("dead-letter"),
		receipt: ctx.String("receipt"), events: ctx.String("events"), effects: ctx.String("effects"),
	}
	if r.files.reports, err = flowReportPaths(ctx); err != nil {
		return err
	}
	if isParquet(r.files.outputs) {
		return usageErrorf("invalid --outputs %s: flows write items as CBOR or JSON lines; name the file .cbor or .jsonl", r.files.outputs)
	}
	if isChosen(ctx, "workers") && r.workers < 1 {
		return usageErrorf("invalid --workers %d: want 1 or more", r.workers)
	}
	if r.grace < 0 {
		return usageErrorf("invalid --grace %s: want 0 or more", r.grace)
	}
	if r.files.outputs != "" && namesDir(r.files.outputs) {
		return usageErrorf("invalid --outputs %s: the ended items of a flow are written to one file, .cbor or .jsonl", r.files.outputs)
	}
	if r.watch, err = parseWatch(ctx); err != nil {
		return err
	}
	err = errors.Join(r.parseSeed(ctx, &o.seed), r.parseChoices(ctx), r.parseSizes(ctx), r.parseLimits(ctx, always), r.parseStore(ctx))
	if err == nil && postgres.IsURL(r.store) {
		err = usageErrorf("unsupported store %s for flows: want a directory, --store DIR", shownStore(r.store))
	}
	return err
}

func (o *flowOptions) parseLists(ctx *cli.Context) error {
	o.allow, o.stopAt, o.set = splitList(ctx.String("allow")), splitList(ctx.String("stop-at")), ctx.StringSlice("set")
	for _, kind := range o.allow {
		if kind != "http" && kind != "command" {
			return usageErrorf("invalid --allow %q: want http, command or http,command", kind)
		}
	}
	o.effects, o.replay = ctx.String("effects"), ctx.String("replay-effects")
	if o.given = o.replay != ""; o.given {
		o.allow = []string{"http", "command"} // none is made
	}
	switch way := ctx.String("on-changed"); way {
	case "refuse":
	case "rerun":
		o.remake = true
	default:
		return usageErrorf("invalid --on-changed %q: want refuse or rerun", way)
	}
	return nil
}

func splitList(s string) (list []string) {
	for name := range strings.SplitSeq(s, ",") {
		if name = strings.TrimSpace(name); name != "" {
			list = append(list, name)
		}
	}
	return list
}

// flowSpec is the record of a run, with which another process can inspect it.
type flowSpec struct {
	Kind   string            `json:"kind"` // flow
	Name   string            `json:"name"`
	File   string            `json:"file"`   // the definition
	Text   string            `json:"text"`   // of it
	Chunks *spec.Chunks      `json:"chunks"` // nil = one root, null
	Bounds flow.Bounds       `json:"bounds"`
	States map[string]string `json:"states"` // kinds
	Keys   map[string]string `json:"keys"`   // actions of states, in hex
	Folds  map[string]string `json:"folds"`
	Effect bool              `json:"effects"` // it has states with effects
	Meta   map[string]string `json:"meta,omitempty"`
	Flags  recordedFlags     `json:"flags"`
}

// recordedFlags are the flags that can change a result, and that a redrive of the run
// keeps.
type recordedFlags struct {
	Context      string            `json:"context,omitempty"` // path
	Seed         *uint64           `json:"seed,omitempty"`
	Timeout      *time.Duration    `json:"timeout,omitempty"` // nil in records without flags
	FoldTimeout  time.Duration     `json:"fold_timeout,omitempty"`
	Fuel         uint64            `json:"fuel,omitempty"`
	Memory       uint64            `json:"memory,omitempty"`
	Stack        uint64            `json:"stack,omitempty"`
	MaxOutput    uint64            `json:"max_output,omitempty"`
	MaxAggregate uint64            `json:"max_aggregate,omitempty"`
	Retry        *host.RetryPolicy `json:"retry,omitempty"`
}

func (o *flowOptions) recordedFlags() recordedFlags {
	s := &o.settings
	f := recordedFlags{
		Seed: o.seed, Timeout: &s.Timeout, FoldTimeout: s.FoldTimeout, Fuel: s.Fuel, Memory: s.Memory, Stack: s.Stack,
		MaxOutput: s.MaxOutput, MaxAggregate: s.MaxAggregate, Retry: &o.retry,
	}
	if o.context != "" {
		f.Context = absolute(o.context)
	}
	return f
}

// restore sets the options that the flags of a later command do not set.
func (f *recordedFlags) restore(ctx *cli.Context, o *flowOptions) {
	if f.Timeout == nil {
		return
	}
	s := &o.settings
	for name, set := range map[string]func(){
		"context": func() { o.context = f.Context }, "seed": func() { o.seed = f.Seed },
		"timeout": func() { s.Timeout = *f.Timeout }, "fold-timeout": func() { s.FoldTimeout = f.FoldTimeout },
		"fuel": func() { s.Fuel = f.Fuel }, "memory": func() { s.Memory = f.Memory }, "stack": func() { s.Stack = f.Stack },
		"max-output": func() { s.MaxOutput = f.MaxOutput }, "max-aggregate": func() { s.MaxAggregate = f.MaxAggregate },
	} {
		if !isSet(ctx, name) {
			set()
		}
	}
	if f.Retry != nil && !slices.ContainsFunc([]string{"retries", "retry-on", "retry-deterministic", "backoff", "backoff-max", "max-requeues"}, func(name string) bool { return isSet(ctx, name) }) {
		o.retry = *f.Retry
	}
}

// runFlow runs a flow from files to files.
func runFlow(ctx context.Context, c *console, o *flowOptions) error {
	soft, ctx := ctx, context.WithoutCancel(ctx)
	c.signals.Notice(func() {
		fmt.Fprintf(c.err, "wasm-jobs: stopping: running attempts get %v; a second signal stops at once\n", o.grace)
	})
	d, err := o.definition()
	if err != nil {
		return err
	}
	engine, err := openEngine(ctx, o.engine)
	if err != nil {
		return err
	}
	defer engine.Close(context.WithoutCancel(ctx))
	f, doubts, err := bind(soft, engine, d, o.settings, o.effectsOf(d))
	if err == nil {
		err = errors.Join(o.checkContext(f), o.checkStops(f))
	}
	if err != nil {
		return interruptedFlow(soft, err)
	}
	if err := o.files.check(o.readBy(d), nil); err != nil {
		return err
	}
	if err := o.files.open(c.out); err != nil {
		return err
	}
	defer o.files.discard()
	screen := newFlowScreen(c, o.progress)
	defer screen.close()
	for i := range doubts {
		screen.say("warning: %v", &doubts[i])
	}
	input, err := o.openInput(soft, c)
	if err != nil {
		return interruptedFlow(soft, err)
	}
	defer input.Close()
	if o.decide != nil {
		if err := o.decide(); err != nil {
			return err
		}
	}
	dropped := &droppedRecords{}
	config := flow.Config{Workers: o.workers}
	s, unopenedErr := o.openFlowStore(soft, screen, dropped)
	switch {
	case unopenedErr != nil && soft.Err() != nil:
		return flow.ErrInterrupted
	case unopenedErr != nil:
		config.Store = unread{unopened{unopenedErr}}
	case s != nil:
		defer s.Close()
		config.Store, config.Records = s, s
	}
	run := o.run(f, input, screen)
	second, closeSecond, err := o.second(soft, d)
	if err != nil {
		return interruptedFlow(soft, err)
	}
	defer closeSecond()
	run.Recheck = second
	events := newFlowEvents(screen, o.files.eventsOut(), o.logLevel)
	watched, err := o.watch.watchFlow(soft, c, run.Name)
	if err != nil {
		return err
	}
	defer watched.close()
	run.Observe, run.Events = watched.with(run.Observe), watched.events(events.observer())
	results := newFlowResults(&o.files, f)
	run.Sink = results
	if run.Spec, err = json.Marshal(o.spec(d, f, run.Name)); err != nil {
		return err
	}
	run.Damaged = dropped.has
	if run.Given, err = o.readGiven(soft); err != nil {
		return err
	}
	if o.effects != "" {
		results.effects = newScroll()
		run.Effects = results.effects.write
	}
	run.Stop = soft.Done()
	c.signals.Drain()
	res, err := flow.NewRunner(config).Run(c.signals.Hard, run)
	watched.finish(res, err)
	if res == nil {
		return err
	}
	screen.finish(&res.Report)
	explainDifference(c, err)
	if eventsErr := errors.Join(events.close(), o.files.placeEvents()); eventsErr != nil {
		err = errors.Join(err, &exitError{exitStore, fmt.Errorf("events could not be written: %w", eventsErr)})
	}
	if unopenedErr != nil {
		err = &exitError{exitStore, unopenedErr}
	}
	return o.conclude(c, results, res, err)
}

// checkStops checks the states of --stop-at.
func (o *flowOptions) checkStops(f *flow.Flow) error {
	for _, name := range o.stopAt {
		if !slices.ContainsFunc(f.States, func(s flow.State) bool { return s.Name == name && !s.End && !s.Failed }) {
			return usageErrorf("--stop-at: unknown state %s: want a state of the flow that is not an end", printable(name))
		}
	}
	return nil
}

// second returns the recheck of the run, which is nil if nothing is executed twice, and
// the function that closes its engine after the run.
func (o *flowOptions) second(ctx context.Context, d *definition.Definition) (*flow.Recheck, func(), error) {
	r := &flow.Recheck{Share: o.recheck.share}
	switch {
	case r.Share == 0:
		return nil, func() {}, nil
	case !o.recheck.interpreter:
		return r, func() {}, nil
	}
	engine, err := openEngine(context.WithoutCancel(ctx), interpreter)
	if err != nil {
		return nil, nil, err
	}
	end := func() { engine.Close(context.WithoutCancel(ctx)) }
	if r.Flow, _, err = bind(ctx, engine, d, o.settings, o.effectsOf(d)); err != nil {
		end()
		return nil, nil, err
	}
	return r, end, nil
}

// unread takes the place of a store that cannot be opened: the flow fails at its
// first look-up, before any effect is made, and has a report.
type unread struct{ unopened }

func (u unread) Get(context.Context, store.Action, []store.Key, func(int, store.Value) error) error {
	return u.err
}

func interruptedFlow(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return flow.ErrInterrupted
	}
	return err
}

// run returns the request to the runner.
func (o *flowOptions) run(f *flow.Flow, input *chunks.File, screen *flowScreen) *flow.Run {
	run := &flow.Run{
		Name: o.as, Flow: f, Input: input, Bounds: o.bounds, Live: o.live, StopAt: o.stopAt,
		MaxFailures: o.maxFailures.of(input.Len()), MaxRetryAfter: o.retryAfter, Grace: o.grace, Observe: frugal(screen.observer()),
		Rerun: o.rerun, Partial: o.partial, Settings: o.recordedSettings(),
	}
	if run.Name == "" {
		run.Name = f.Name
	}
	if o.remake {
		run.OnChanged = flow.Rerun
	}
	return run
}

// manyChildren is the number of children above which memory counts more than the
// collector's time: the children of one root are held until all have ended.
const manyChildren = 200_000

// holdsMany reports whether a run holds much memory. Roots are held for a short time, so
// they count as the chunks of a job do: a busy collector would cost 14 % at 300,000.
func holdsMany(items *flow.Items) bool {
	return items.Roots > manyChunks || items.Total-items.Roots > manyChildren
}

// frugal returns an observer that makes the collector run more often if there are
// many items.
func frugal(next func(*flow.Report)) func(*flow.Report) {
	var once sync.Once
	return func(r *flow.Report) {
		if holdsMany(&r.Items) {
			once.Do(func() { lowerGCPercent(gcPercentMany) })
		}
		if next != nil {
			next(r)
		}
	}
}

// openInput scans the roots.
func (o *flowOptions) openInput(ctx context.Context, c *console) (*chunks.File, error) {
	var file *chunks.File
	var err error
	switch {
	case o.source != nil:
		o.source.files.Except = append(o.files.places(), ours(o.store)...)
		file, err = o.source.scan(ctx, c, o.input)
	case o.chunks == "":
		return chunks.Of([]byte{0xf6})
	default:
		file, err = openChunkFile(ctx, c, o.chunks, o.input)
	}
	if err != nil {
		return nil, err
	}
	for _, warning := range warningsOf(file, &o.runOptions) {
		fmt.Fprintf(c.err, "wasm-jobs: warning: %s\n", warning)
	}
	return o.selection.of(ctx, file, newDisplay(c, &o.runOptions))
}

func (o *flowOptions) openFlowStore(ctx context.Context, screen *flowScreen, dropped *droppedRecords) (*sqlite.Store, error) {
	if o.store == "" {
		return nil, nil
	}
	options := storeOptions(screen.say)
	options.Waiting = func() { screen.say(waitingForStore) }
	options.Damaged = func(d sqlite.Damage) {
		dropped.add(d.Chunk)
		screen.say("store: %s", damageLine(d))
	}
	s, err := sqlite.Open(ctx, o.store, options)
	if err != nil {
		return nil, fmt.Errorf("the store cannot be opened: %w; use another --store DIR, or --no-store", err)
	}
	return s, nil
}

// droppedRecords are the keys of damaged records that the store dropped. It is safe
// for concurrent use.
type droppedRecords struct{ keys sync.Map }

func (d *droppedRecords) add(key store.Digest) { d.keys.Store(key, true) }

func (d *droppedRecords) has(key store.Digest) bool {
	_, ok := d.keys.Load(key)
	return ok
}

// spec returns the record of the run.
func (o *flowOptions) spec(d *definition.Definition, f *flow.Flow, name string) *flowSpec {
	text, _ := readBounded(o.file, definition.MaxSize, "a definition")
	s := &flowSpec{
		Kind: "flow", Name: name, File: absolute(o.file), Text: string(text), Bounds: o.bounds, Flags: o.recordedFlags(), Meta: o.meta,
		States: map[string]string{}, Keys: map[string]string{}, Folds: map[string]string{},
	}
	if o.chunks != "" || o.source != nil {
		sources := o.chunkSources()
		s.Chunks = &sources
	}
	for i := range f.States {
		state := &f.States[i]
		if state.Exec != nil {
			action, pure := state.Exec.Action()
			s.States[state.Name] = state.Exec.Kind()
			if s.Effect = s.Effect || !pure; pure {
				s.Keys[state.Name] = fmt.Sprintf("%x", action)
			}
		}
		if c := state.Children; c != nil && c.Fold != nil {
			action, _ := c.Fold.Action()
			s.Folds[state.Name] = fmt.Sprintf("%x", action)
		}
	}
	return s
}

// conclude writes the files, and returns an error if the run did not succeed.
func (o *flowOptions) conclude(c *console, results *flowResults, res *flow.Result, runErr error) error {
	complete := runErr == nil && (res.Receipt != nil || o.partial && res.Report.State == flow.Failed && res.Report.Effects.Uncertain == 0)
	if err := results.write(c, res, complete, o.format); err != nil {
		return errors.Join(outputError(err), runErr)
	}
	switch {
	case errors.Is(runErr, flow.ErrInterrupted) && o.store != "":
		return fmt.Errorf("%w: finished steps are kept, and the same command continues the run", runErr)
	case errors.Is(runErr, flow.ErrTooManyFailures), errors.Is(runErr, flow.ErrTooManyItems):
		return &exitError{exitFailed, runErr}
	case runErr != nil:
		return runErr
	case res.Report.Effects.Uncertain > 0:
		return &exitError{exitFailed, fmt.Errorf("%d effects may have been made, and their items are held: decide with wasm-jobs flow redrive", res.Report.Effects.Uncertain)}
	case res.Report.State == flow.Failed:
		return &exitError{exitFailed, nil}
	}
	return nil
}

// definition reads the definition, with the changes that flags request.
func (o *flowOptions) definition() (*definition.Definition, error) {
	d, err := readDefinition(o.file, o.retry)
	if err != nil {
		return nil, err
	}
	if o.seed != nil {
		d.Seed = *o.seed
	}
	if o.context != "" {
		if o.settings.Context, err = readContext(o.context); err != nil {
			return nil, err
		}
	}
	return d, o.override(d)
}

// readBy returns a function that returns the paths which the flow reads; chunks includes
// those of its chunks. The paths in a definition begin in its folder.
func (o *flowOptions) readBy(d *definition.Definition) func(chunks bool) []string {
	named := []string{d.Context}
	for _, s := range d.States {
		named = append(named, s.Module, s.Fold)
		if s.Children != nil {
			named = append(named, s.Children.Fold)
		}
	}
	return func(chunks bool) []string {
		paths := append(o.inputs(chunks), o.file)
		for _, path := range named {
			if path != "" {
				paths = append(paths, filepath.Join(filepath.Dir(o.file), filepath.FromSlash(path)))
			}
		}
		return paths
	}
}

// parseSeed parses --seed, which replaces the definition's.
func (o *runOptions) parseSeed(ctx *cli.Context, to **uint64) error {
	if isSet(ctx, "seed") {
		seed := ctx.Uint64("seed")
		*to = &seed
	}
	return nil
}

// checkContext refuses a context that no module takes.
func (o *flowOptions) checkContext(f *flow.Flow) error {
	if o.context == "" {
		return nil
	}
	for i := range f.States {
		if m, ok := f.States[i].Exec.(*flow.Module); ok && m.Exports(abi.ExportSetup) {
			return nil
		}
	}
	return usageErrorf("--context %s: no module of the flow exports setup, so that none takes a context", o.context)
}

// recordedSettings are the settings that the definition does not have, and that can
// change a result.
func (o *flowOptions) recordedSettings() flow.ReceiptSettings {
	unless := func(value, normal uint64) uint64 {
		if value == normal {
			return 0
		}
		return value
	}
	s := &o.settings
	return flow.ReceiptSettings{
		Fuel: s.Fuel, Seed: o.seed, Memory: unless(s.Memory, runtime.DefaultMemory), Stack: unless(s.Stack, runtime.DefaultStack),
		MaxOutput: unless(s.MaxOutput, runtime.DefaultMaxOutput),
	}
}

// override changes limits as --set requests.
func (o *flowOptions) override(d *definition.Definition) error {
	for _, value := range o.set {
		if err := d.Set(value); err != nil {
			return usageErrorf("invalid --set %q: %w", value, err)
		}
	}
	return nil
}

// effectsOf makes effects of the allowed kinds.
func (o *flowOptions) effectsOf(d *definition.Definition) func(*definition.State) (flow.Executor, error) {
	return func(s *definition.State) (flow.Executor, error) {
		if !slices.Contains(o.allow, s.Effect) {
			return nil, fmt.Errorf("effect %s is not allowed: it would reach %s; --allow %s lets it", s.Effect, reach(s), s.Effect)
		}
		return newEffect(s)
	}
}

// reach returns the URLs or the command that an effect would use.
func reach(s *definition.State) string {
	if s.Effect == "http" {
		return strings.Join(s.Allow, ", ")
	}
	return strings.Join(s.Command, " ")
}
