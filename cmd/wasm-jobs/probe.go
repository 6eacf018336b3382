package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// A probe makes the same calls in another way, and compares.

// probeCall is one call of the module.
type probeCall struct {
	name     string // for people
	function string
	input    []byte
}

// outcome is what came of a call. Its output is kept where it is small.
type outcome struct {
	SHA256  string       `json:"sha256,omitempty"`
	Failure *abi.Failure `json:"failure,omitempty"`
	Fuel    uint64       `json:"fuel"`
	Done    bool         `json:"done"`

	output []byte
	memory uint64
}

// Bounds of what is kept and shown.
const (
	keptOutputs     = 64 << 20 // bytes of all outputs of the chunks
	shownOutput     = 1 << 10  // bytes of an output that a difference shows
	shownDifference = 3        // of one probe
	slowProbe       = 10 * time.Second
	probeWorkers    = 4
)

// probe is one way to make the calls, and how it differed from the first way.
type probe struct {
	Name        string       `json:"name"`
	Calls       int          `json:"calls"`
	Skipped     int          `json:"skipped"` // not made, or of a failure that depends on time or on the engine
	Count       int          `json:"differing"`
	Differences []difference `json:"differences,omitempty"` // the first of them
}

type difference struct {
	Call string `json:"call"`
	What string `json:"what"`
}

func (p *probe) note() string {
	if p.Skipped == 0 {
		return ""
	}
	return fmt.Sprintf("; %d not compared", p.Skipped)
}

// compare returns how other differs from base.
func compare(name string, calls []probeCall, base, other []outcome) *probe {
	p := &probe{Name: name, Calls: len(calls)}
	for i := range calls {
		a, b := &base[i], &other[i]
		if !a.comparable() || !b.comparable() {
			p.Skipped++
			continue
		}
		what := a.differs(b)
		if what == "" {
			continue
		}
		if p.Count++; p.Count <= shownDifference {
			p.Differences = append(p.Differences, difference{calls[i].name, what})
		}
	}
	return p
}

// comparable is false for calls that were not made, and for failures that do not
// depend on the guest alone.
func (o *outcome) comparable() bool {
	return o.Done && (o.Failure == nil || o.Failure.Class != abi.ClassTimeout && o.Failure.Class != abi.ClassHost)
}

// differs says how b differs from o; "" = it does not.
func (o *outcome) differs(b *outcome) string {
	switch {
	case o.Failure != nil && b.Failure != nil:
		if o.Failure.Class == b.Failure.Class && o.Failure.Message == b.Failure.Message {
			return ""
		}
		return fmt.Sprintf("failed with %v, and first with %v", b.Failure, o.Failure)
	case o.Failure != nil:
		return fmt.Sprintf("gave %s, and first failed with %v", b.show(), o.Failure)
	case b.Failure != nil:
		return fmt.Sprintf("failed with %v, and first gave %s", b.Failure, o.show())
	case o.SHA256 != b.SHA256:
		return fmt.Sprintf("gave %s, and first %s", b.show(), o.show())
	case o.Fuel != b.Fuel:
		return fmt.Sprintf("took %d fuel, and first %d", b.Fuel, o.Fuel)
	}
	return ""
}

func (o *outcome) show() string {
	if o.output == nil || len(o.output) > shownOutput {
		return "an output with the SHA-256 " + o.SHA256[:16] + "…"
	}
	return strings.Join(diagnosisLines(o.output), " ")
}

// prober makes calls.
type prober struct {
	module *runtime.Module
	o      *checkOptions
	calls  []probeCall
}

// way is how calls are made.
type way struct {
	module    *runtime.Module // nil = the prober's
	isolation runtime.Isolation
	seed      uint64 // added to the job's
	order     []int  // of calls; nil = as they stand
	workers   int    // 0 = 1
	within    time.Duration
}

// run makes all calls. What the guest does wrong is in the outcomes.
func (p *prober) run(ctx context.Context, w way) ([]outcome, error) {
	if w.module == nil {
		w.module = p.module
	}
	settings := p.o.settings
	settings.Isolation, settings.Seed = w.isolation, settings.Seed+w.seed
	pool, err := w.module.Prepare(ctx, settings)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	outcomes := make([]outcome, len(p.calls))
	if w.order == nil {
		w.order = inOrder(len(p.calls))
	}
	var next atomic.Int64
	start := time.Now()
	work := func() error {
		instance := pool.Lease(nil)
		defer instance.Release()
		for {
			n := int(next.Add(1)) - 1
			if n >= len(w.order) || w.within > 0 && time.Since(start) > w.within {
				return nil
			}
			i := w.order[n]
			outcome, err := callOnce(ctx, instance, &p.calls[i])
			if outcomes[i] = outcome; err != nil {
				return err
			}
		}
	}
	return outcomes, parallel(max(w.workers, 1), work)
}

// parallel runs work n times at once, and waits for all.
func parallel(n int, work func() error) error {
	if n == 1 {
		return work()
	}
	errs := make([]error, n)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { errs[i] = work() })
	}
	wait.Wait()
	return errors.Join(errs...)
}

// callOnce makes a call. The error is ctx's.
func callOnce(ctx context.Context, instance *runtime.Instance, c *probeCall) (outcome, error) {
	output, fuel, err := instance.Call(ctx, c.function, c.input, nil)
	o := outcome{Done: true, Fuel: fuel, memory: instance.MemorySize()}
	if err != nil {
		failure, ok := errors.AsType[*abi.Failure](err)
		if !ok {
			return o, err
		}
		o.Failure = &abi.Failure{Class: failure.Class, Message: failure.Message}
		return o, nil
	}
	digest := sha256.Sum256(output)
	o.SHA256, o.output = hex.EncodeToString(digest[:]), output
	return o, nil
}

func inOrder(n int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	return order
}

func reversed(n int) []int {
	order := inOrder(n)
	slices.Reverse(order)
	return order
}

// shuffled is the same order in each run of the command.
func shuffled(n int) []int { return rand.New(rand.NewPCG(1, 2)).Perm(n) }

// probeAll compiles the module and makes all probes. With --calls it only
// prints what came of the calls.
func (r *checkReport) probeAll(ctx context.Context, wasm []byte, o *checkOptions, out io.Writer) error {
	compiler, err := runtime.New(ctx, runtime.Config{CacheDir: compiledDir()})
	if err != nil {
		return err
	}
	defer compiler.Close(ctx)
	start := time.Now()
	p := &prober{o: o}
	if p.module, err = compiler.Compile(ctx, wasm, runtime.Options{}); err != nil {
		return err
	}
	compiled := time.Since(start)
	chunkCalls, source, err := sampleCalls(ctx, o, r.Description.Command)
	if err != nil {
		return err
	}
	p.calls = chunkCalls
	first, err := p.run(ctx, way{})
	if err != nil {
		return err
	}
	folds := foldCalls(p.module, chunkCalls, first)
	if len(folds) > 0 {
		if first, err = p.runFolds(ctx, folds, first); err != nil {
			return err
		}
	}
	if o.calls {
		return written(json.NewEncoder(out).Encode(first))
	}
	r.describeCalls(source, chunkCalls, first)
	if err := r.probeOthers(ctx, wasm, p, first); err != nil {
		return err
	}
	r.checkOutputs(p, first)
	if err := r.probeLarge(ctx, p); err != nil {
		return err
	}
	r.Cost, err = measureCost(ctx, p, first, compiled)
	return err
}

// runFolds adds the calls of aggregate and merge, and returns the outcomes of
// all calls.
func (p *prober) runFolds(ctx context.Context, folds []probeCall, first []outcome) ([]outcome, error) {
	alone := &prober{module: p.module, o: p.o, calls: folds}
	outcomes, err := alone.run(ctx, way{})
	if err != nil {
		return nil, err
	}
	p.calls = append(p.calls, folds...)
	first = append(first, outcomes...)
	// A merge of what the two halves gave.
	n := len(first)
	if len(folds) == 4 && p.module.Exports(abi.ExportMerge) && first[n-2].Failure == nil && first[n-1].Failure == nil {
		merge := probeCall{"merge of two halves", abi.ExportMerge, array([][]byte{first[n-2].output, first[n-1].output})}
		alone.calls = []probeCall{merge}
		merged, err := alone.run(ctx, way{})
		if err != nil {
			return nil, err
		}
		p.calls, first = append(p.calls, merge), append(first, merged...)
	}
	return first, nil
}

// sampleCalls returns the calls of exec. Commands read texts.
func sampleCalls(ctx context.Context, o *checkOptions, command bool) (calls []probeCall, source string, err error) {
	if o.chunks == "" && command {
		for n := range 20 {
			calls = append(calls, probeCall{fmt.Sprintf("chunk %d", n), abi.ExportExec, abi.AppendText(nil, strconv.Itoa(n)+"\n")})
		}
		return calls, "the integers 0 to 19 as lines of text", nil
	}
	if o.chunks == "" {
		for n := range uint64(20) {
			calls = append(calls, probeCall{fmt.Sprintf("chunk %d", n), abi.ExportExec, abi.AppendHead(nil, abi.MajorUint, n)})
		}
		return calls, "the integers 0 to 19", nil
	}
	file, err := chunks.Open(ctx, o.chunks, chunks.Options{})
	if err != nil {
		return nil, "", err
	}
	defer file.Close()
	n := min(file.Len(), o.first)
	if n == 0 {
		return nil, "", refuse("%s has no chunks", o.chunks)
	}
	err = file.Read(ctx, 0, n, func(i int, chunk []byte) error {
		calls = append(calls, probeCall{fmt.Sprintf("chunk %v", file.ID(i)), abi.ExportExec, bytes.Clone(chunk)})
		return nil
	})
	source = fmt.Sprintf("%d chunks of %s", n, o.chunks)
	if n < file.Len() {
		source = fmt.Sprintf("the first %d of %d chunks of %s", n, file.Len(), o.chunks)
	}
	return calls, source, err
}

// foldCalls returns calls of aggregate with no output, with all, and with each
// half of them, where these are few enough.
func foldCalls(m *runtime.Module, calls []probeCall, outcomes []outcome) []probeCall {
	if !m.Exports(abi.ExportAggregate) {
		return nil
	}
	var outputs [][]byte
	size := 0
	for _, o := range outcomes {
		if o.Failure == nil {
			outputs = append(outputs, o.output)
			size += len(o.output)
		}
	}
	if size > keptOutputs {
		return nil
	}
	call := func(name string, from, to int) probeCall {
		ids := []abi.ID{}
		for n := from; n < to; n++ {
			ids = append(ids, abi.IntID(uint64(n)))
		}
		return probeCall{name, abi.ExportAggregate, entries(ids, outputs[from:to])}
	}
	folds := []probeCall{call("aggregate of nothing", 0, 0)}
	if n := len(outputs); n > 0 {
		folds = append(folds, call("aggregate of all outputs", 0, n))
		if n > 1 {
			folds = append(folds, call("aggregate of the first half", 0, n/2), call("aggregate of the second half", n/2, n))
		}
	}
	return folds
}

func (r *checkReport) describeCalls(source string, chunkCalls []probeCall, first []outcome) {
	r.Chunks = &checkedChunks{Source: source, Count: len(chunkCalls), Folds: len(first) - len(chunkCalls), Failures: map[string]int{}}
	for _, o := range first[:len(chunkCalls)] {
		if o.Failure == nil {
			r.Chunks.Outputs++
			continue
		}
		r.Chunks.Failures[o.Failure.Error()]++
	}
	if r.Chunks.Outputs == 0 {
		r.hint("no chunk gave an output, so little was compared: --chunks FILE takes chunks that the module is for")
	}
}

// probeOthers makes the calls in all other ways.
func (r *checkReport) probeOthers(ctx context.Context, wasm []byte, p *prober, first []outcome) error {
	interpreter, err := runtime.New(ctx, runtime.Config{Interpreter: true})
	if err != nil {
		return err
	}
	defer interpreter.Close(ctx)
	interpreted, err := interpreter.Compile(ctx, wasm, runtime.Options{})
	if err != nil {
		return err
	}
	n := len(p.calls)
	for _, other := range []struct {
		name string
		way  way
	}{
		{"the same again", way{}},
		{"in reverse order", way{order: reversed(n)}},
		{"in another order", way{order: shuffled(n)}},
		{fmt.Sprintf("by %d workers", probeWorkers), way{order: shuffled(n), workers: probeWorkers}},
		{"on a new instance for each call", way{isolation: runtime.IsolationInstance, within: slowProbe}},
		{"on the interpreter", way{module: interpreted, within: slowProbe}},
	} {
		outcomes, err := p.run(ctx, other.way)
		if err != nil {
			return err
		}
		r.add(compare(other.name, p.calls, first, outcomes))
	}
	outcomes, err := otherProcess(ctx, p.o)
	if err != nil {
		return err
	}
	if len(outcomes) != n {
		return fmt.Errorf("another process made %d calls, and this one %d: the module or the chunks are being changed", len(outcomes), n)
	}
	r.add(compare("in another process", p.calls, first, outcomes))
	return r.probeImpurity(ctx, wasm, p, first, interpreter)
}

func (r *checkReport) add(p *probe) {
	r.Probes = append(r.Probes, p)
	r.Differences += p.Count
}

// otherProcess makes the calls in a process of its own, with the same program.
func otherProcess(ctx context.Context, o *checkOptions) ([]outcome, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{os.Args[0], "check", "--calls", "--memory", o.memory, "--timeout", o.settings.Timeout.String(),
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
	var outcomes []outcome
	if err := json.Unmarshal(out, &outcomes); err != nil {
		return nil, fmt.Errorf("another process printed no outcomes: %w", err)
	}
	return outcomes, nil
}

// largeChunk is what a guest should at least have room for.
const largeChunk = 1 << 20

// probeLarge passes a long byte string, which a guest need not be made for: but
// it should find room for it.
func (r *checkReport) probeLarge(ctx context.Context, p *prober) error {
	chunk := append(abi.AppendHead(nil, abi.MajorBytes, largeChunk), make([]byte, largeChunk)...)
	large := &prober{module: p.module, o: p.o, calls: []probeCall{{"a chunk of 1 MiB", abi.ExportExec, chunk}}}
	outcomes, err := large.run(ctx, way{})
	if err != nil {
		return err
	}
	f := outcomes[0].Failure
	if f != nil && slices.Contains([]abi.Class{abi.ClassMemory, abi.ClassABI, abi.ClassTrap}, f.Class) {
		r.hint("a chunk of 1 MiB, a byte string, fails with %v: alloc should grow the memory, and exec fail with a message where it cannot do a chunk", f)
	}
	return nil
}

// probeImpurity makes the calls in ways in which no job does, to see what the
// module would do there.
func (r *checkReport) probeImpurity(ctx context.Context, wasm []byte, p *prober, first []outcome, interpreter *runtime.Runtime) error {
	if r.Description.Isolation != runtime.IsolationInstance {
		left, err := p.run(ctx, way{isolation: runtime.IsolationNone})
		if err != nil {
			return err
		}
		if told := compare("", p.calls, first, left).told(); told != "" {
			r.found("it leaves state behind, which fresh state for each call takes away: without, %s", told)
		}
	}
	seeded, err := p.run(ctx, way{seed: 1})
	if err != nil {
		return err
	}
	if told := compare("", p.calls, first, seeded).told(); told != "" {
		r.found("it uses random bytes, which stay the same for one seed: with another --seed, %s", told)
	}
	native, err := interpreter.Compile(ctx, wasm, runtime.Options{NativeNaNs: true})
	if err != nil {
		return err
	}
	nans, err := p.run(ctx, way{module: native, within: slowProbe})
	if err != nil {
		return err
	}
	for i := range nans { // leaving NaNs alone takes less fuel
		nans[i].Fuel = first[i].Fuel
	}
	if told := compare("", p.calls, first, nans).told(); told != "" {
		r.found("its outputs have bits of NaNs that machines make differently, and that are made the same here: with --native-nans, %s", told)
	}
	return nil
}

// told says what differs; "" = nothing.
func (p *probe) told() string {
	if p.Count == 0 {
		return ""
	}
	d := p.Differences[0]
	return fmt.Sprintf("%d of %d calls differ, such as %s, which %s", p.Count, p.Calls-p.Skipped, d.Call, d.What)
}

// checkOutputs looks at what the calls gave.
func (r *checkReport) checkOutputs(p *prober, first []outcome) {
	var all, merged *outcome
	loose := false
	for i := range first {
		switch p.calls[i].name {
		case "aggregate of all outputs":
			all = &first[i]
		case "merge of two halves":
			merged = &first[i]
		}
		if o := &first[i]; o.Failure == nil && !loose {
			if place, ok := deterministic(o.output); !ok {
				loose = true
				r.hint("what it gives for %s is no deterministic CBOR (RFC 8949, section 4.2.1): %s", p.calls[i].name, place)
			}
		}
	}
	if merged == nil || all.Failure != nil {
		return
	}
	if merged.Failure != nil {
		r.hint("merge of two aggregates fails with %v, and one aggregate of all outputs does not", merged.Failure)
	} else if merged.SHA256 != all.SHA256 {
		r.hint("merge of the aggregates of two halves gives %s, and one aggregate of all %s: results depend on how many outputs there are and how large, since that is how they are grouped", merged.show(), all.show())
	}
}

// deterministic reports whether an item has the shortest heads and floats, no
// indefinite lengths and sorted keys, and otherwise what it has instead.
func deterministic(item []byte) (place string, ok bool) {
	place, _ = loosePlace(item)
	return place, place == ""
}

func loosePlace(item []byte) (place string, rest []byte) {
	h, err := abi.ReadHead(item)
	if err != nil {
		return err.Error(), nil
	}
	head, rest := item[:h.Size], item[h.Size:]
	switch {
	case h.Indefinite:
		return "something of indefinite length", nil
	case h.Major == abi.MajorSimple:
		if head[0] >= 0xf9 && len(appendFloatBits(head)) != len(head) {
			return "a float that is longer than needed", nil
		}
		return "", rest
	case len(abi.AppendHead(nil, h.Major, h.Arg)) != h.Size:
		return fmt.Sprintf("a head of %d bytes for %d", h.Size, h.Arg), nil
	}
	switch h.Major {
	case abi.MajorBytes, abi.MajorText:
		return "", rest[h.Arg:]
	case abi.MajorTag:
		return loosePlace(rest)
	case abi.MajorArray:
		for n := uint64(0); n < h.Arg && place == ""; n++ {
			place, rest = loosePlace(rest)
		}
	case abi.MajorMap:
		var last []byte
		for n := uint64(0); n < h.Arg && place == ""; n++ {
			start := rest
			if place, rest = loosePlace(rest); place != "" {
				return place, nil
			}
			key := start[:len(start)-len(rest)]
			if n > 0 && bytes.Compare(last, key) >= 0 {
				return "the keys of a map are not in bytewise order", nil
			}
			last = key
			place, rest = loosePlace(rest)
		}
	}
	return place, rest
}

// appendFloatBits returns the shortest encoding of an encoded float.
func appendFloatBits(item []byte) []byte {
	text, _ := appendItemJSON(nil, item)
	if f, err := strconv.ParseFloat(string(text), 64); err == nil {
		return appendFloat(nil, f)
	}
	return item[:min(len(item), 3)] // infinities and NaNs have three bytes
}

// checkCost is what calls cost on this machine, in seconds and bytes.
type checkCost struct {
	Compile  float64 `json:"compile"`            // or loading what was compiled before
	Call     float64 `json:"call"`               // as it is in a job, of one chunk
	Reset    float64 `json:"reset,omitempty"`    // the part of it that the reset is
	Instance float64 `json:"instance,omitempty"` // what a new instance would be instead
	Memory   uint64  `json:"memory"`             // linear memory after the call that has most

	resettable bool
	command    bool // Instance is then a call with a new one
	reasons    []string
	chunk      string
}

func measureCost(ctx context.Context, p *prober, first []outcome, compiled time.Duration) (*checkCost, error) {
	d := p.module.Description()
	cost := &checkCost{Compile: compiled.Seconds(), resettable: d.Isolation != runtime.IsolationInstance, reasons: d.Lasting}
	call := -1
	for i, o := range first {
		cost.Memory = max(cost.Memory, o.memory)
		if o.Failure == nil && p.calls[i].function == abi.ExportExec && (call < 0 || o.Fuel < first[call].Fuel) {
			call = i // the shortest, beside which a reset is seen best
		}
	}
	if call < 0 {
		return cost, nil
	}
	cost.chunk = p.calls[call].name
	time := func(isolation runtime.Isolation) (float64, error) {
		return p.median(ctx, isolation, &p.calls[call])
	}
	var err error
	if cost.Call, err = time(""); err != nil || !cost.resettable {
		return cost, err
	}
	if cost.command = d.Command; cost.command { // which cannot do without a reset
		cost.Instance, err = time(runtime.IsolationInstance)
		return cost, err
	}
	bare, err := time(runtime.IsolationNone)
	if err != nil {
		return cost, err
	}
	fresh, err := time(runtime.IsolationInstance)
	cost.Reset, cost.Instance = max(0, cost.Call-bare), max(0, fresh-bare)
	return cost, err
}

// Bounds of a measurement.
const (
	measuredCalls = 101
	measuredTime  = time.Second
)

// median returns the seconds that a call takes; 0 where it fails.
func (p *prober) median(ctx context.Context, isolation runtime.Isolation, call *probeCall) (float64, error) {
	settings := p.o.settings
	settings.Isolation = isolation
	pool, err := p.module.Prepare(ctx, settings)
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	instance := pool.Lease(nil)
	defer instance.Release()
	var times []float64
	var output []byte
	for began := time.Now(); len(times) < measuredCalls && (len(times) < 3 || time.Since(began) < measuredTime); {
		start := time.Now()
		output, _, err = instance.Call(ctx, call.function, call.input, output[:0])
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if err != nil { // of what calls without a reset leave behind
			break
		}
		times = append(times, time.Since(start).Seconds())
	}
	if len(times) == 0 {
		return 0, nil
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}

func (c *checkCost) print(row func(name, format string, args ...any)) {
	row("cost", "compiled, or loaded, in %s; memory after the largest call %s", seconds(c.Compile), humanize.IBytes(c.Memory))
	switch {
	case c.chunk == "":
	case c.command:
		row("", "%s takes %s, with the reset before it; with a new instance instead it takes %s", c.chunk, seconds(c.Call), seconds(c.Instance))
	case c.resettable:
		row("", "%s takes %s, of which the reset is %s; a new instance would be %s", c.chunk, seconds(c.Call), seconds(c.Reset), seconds(c.Instance))
	default:
		row("", "%s takes %s, with a new instance, since no reset undoes %s", c.chunk, seconds(c.Call), strings.Join(c.reasons, ", "))
	}
}

// seconds returns a time with three digits.
func seconds(s float64) string {
	if s == 0 {
		return "too short to be seen"
	}
	d := time.Duration(s * float64(time.Second))
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d >= unit {
			return d.Round(unit / 100).String()
		}
	}
	return d.String()
}
