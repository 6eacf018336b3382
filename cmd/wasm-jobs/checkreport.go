package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/wasm-jobs/wasm-jobs/host/guest"
	"github.com/wasm-jobs/wasm-jobs/host/guest/check"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// checkReport is the result of check, for people and as JSON.
type checkReport struct {
	Module      string               `json:"module"`
	Description *runtime.Description `json:"description"`
	Hints       []string             `json:"hints"` // possible improvements
	Found       []string             `json:"found"` // nondeterminism of the module, and its effect
	Chunks      *checkedChunks       `json:"chunks,omitempty"`
	Probes      []checkProbe         `json:"probes,omitempty"`
	Cost        *checkCost           `json:"cost,omitempty"`
	Differences int                  `json:"differences"` // in all probes
	OK          bool                 `json:"ok"`
}

// checkedChunks describes the calls.
type checkedChunks struct {
	Source   string         `json:"source"`
	Count    int            `json:"count"`
	Outputs  int            `json:"outputs"`
	Failures map[string]int `json:"failures,omitempty"` // by class and message
	Folds    int            `json:"folds"`              // calls of aggregate and merge
}

type checkProbe struct {
	Name        string            `json:"name"`
	Calls       int               `json:"calls"`
	Skipped     int               `json:"skipped"` // calls not made, or with a failure that depends on time or on the engine
	Count       int               `json:"differing"`
	Differences []checkDifference `json:"differences,omitempty"` // the first of them
}

type checkDifference struct {
	Call string `json:"call"`
	What string `json:"what"`
}

// checkCost is the cost of calls on this machine, in seconds and bytes.
type checkCost struct {
	Compile  float64 `json:"compile"`            // or load from the cache
	Call     float64 `json:"call"`               // one chunk, as in a job
	Reset    float64 `json:"reset,omitempty"`    // the reset, a part of Call
	Instance float64 `json:"instance,omitempty"` // a new instance instead of the reset; for a command, a call with a new instance
	Memory   uint64  `json:"memory"`             // linear memory after the call that used most
}

func newCheckReport(o *checkOptions, r *check.Report) *checkReport {
	d := *r.Description
	d.Problems = problemTexts(d.Problems, r.Setting)
	c := &checkReport{
		Module: o.module, Description: &d, Hints: []string{}, Found: []string{},
		Differences: r.Differences(), OK: r.OK(),
	}
	for _, hint := range r.Hints {
		c.Hints = append(c.Hints, remarkText(hint, r.Description))
	}
	for _, found := range r.Found {
		c.Found = append(c.Found, remarkText(found, r.Description))
	}
	if n := r.Chunks; n != nil {
		c.Chunks = &checkedChunks{o.source, n.Count, n.Outputs, failureCounts(d.WithoutNote, n.Failures), n.Folds}
	}
	for _, p := range r.Probes {
		c.Probes = append(c.Probes, newCheckProbe(p))
	}
	if r.Cost != nil {
		c.Cost = newCheckCost(r.Cost, r.Description)
	}
	return c
}

func newCheckProbe(p *check.Probe) checkProbe {
	c := checkProbe{Name: p.Name, Calls: p.Calls, Skipped: p.Skipped, Count: p.Count}
	for _, d := range p.Differences {
		c.Differences = append(c.Differences, checkDifference{d.Call, differenceText(&d)})
	}
	return c
}

func newCheckCost(c *check.Cost, d *runtime.Description) *checkCost {
	cost := &checkCost{Compile: c.Compile, Call: c.Times.Reset, Memory: c.Memory}
	switch {
	case d.Isolation == runtime.IsolationInstance:
	case d.Command: // it always needs the reset
		cost.Instance = c.Times.New
	default:
		cost.Reset, cost.Instance = c.Times.ResetCost(), c.Times.InstanceCost()
	}
	return cost
}

// remarks are the remarks without parameters.
var remarks = map[check.Kind]string{
	check.MergeUnused: "it exports merge and no aggregate: merge is never called",
	check.NoMerge:     "it exports aggregate and no merge: all outputs of a job come in one call, and must fit in its memory",
	check.NoNames:     "it has no function names, so stack traces show numbers: strip debug information only (-Wl,--strip-debug; in Go -ldflags=-w without -s)",
	check.NoOutputs:   "no chunk gave an output, so little was compared: give chunks for this module with --chunks FILE",
	check.NoExec:      "wasm-jobs new writes a guest that has the exports, in one of several languages",
	check.IsCommand:   "it is a WASI command: a chunk is its standard input, and its standard output is the output",
	check.ReadsClock:  "it can read the clock: each call sees one that starts at the same instant and moves with each reading",
	check.DrawsRandom: "it can draw random bytes: they follow from the seed and the bytes that are passed to the call",
	check.OpensFiles:  "it can open files: there are none",
	check.ReadsEnv:    "it can read its environment or arguments: both are empty",
	check.UsesSockets: "it can use sockets: there are none",
}

// commandRemarks replace remarks for WASI commands.
var commandRemarks = map[check.Kind]string{
	check.OpensFiles: "it can open files: it sees the files of --dir, as they are at the start of a job",
	check.ReadsEnv:   "it can read its environment or arguments: --env and --arg set them",
}

func remarkText(r check.Remark, d *runtime.Description) string {
	switch r.Kind {
	case check.LargeModule:
		return fmt.Sprintf("it has %s, which takes seconds to compile for the first time: optimise for size, or remove unused code", humanize.IBytes(uint64(d.Size)))
	case check.LargeMemory:
		return fmt.Sprintf("each instance starts with %s of memory: allocate memory when calls need it", humanize.IBytes(d.Memory.Min))
	case check.NotResettable:
		return fmt.Sprintf("a reset cannot undo %s: each call needs a new instance, which costs more", strings.Join(d.NotResettable, ", "))
	case check.LargeChunkFails:
		return fmt.Sprintf("a chunk of 1 MiB (a byte string) fails with %s: alloc should grow the memory, and exec should call fail with a message if it cannot process a chunk", d.WithoutNote(errorLine(r.Failure)))
	case check.Loose:
		return fmt.Sprintf("its result for %s is not deterministic CBOR (RFC 8949, section 4.2.1): %s", r.Call, r.Detail)
	case check.MergeFails:
		return fmt.Sprintf("merge of two aggregates fails with %s, and one aggregate of all outputs does not", errorLine(r.Failure))
	case check.GroupsMatter:
		return fmt.Sprintf("merge of the aggregates of two halves gives %s, and one aggregate of all %s: results depend on how many outputs there are and how large, since that is how they are grouped",
			resultText(&r.Difference.Now), resultText(&r.Difference.First))
	case check.LeavesState:
		return "it leaves state behind, which fresh state for each call hides: without it, " + probeText(r.Probe)
	case check.UsesRandom:
		return "it uses random bytes, which stay the same for one seed: with another --seed, " + probeText(r.Probe)
	case check.MakesNaNs:
		return "its outputs contain NaN bits that differ between machines, and are made the same here: with --native-nans, " + probeText(r.Probe)
	}
	if text := commandRemarks[r.Kind]; text != "" && d.Command {
		return text
	}
	return remarks[r.Kind]
}

// probeText describes the differences of a probe.
func probeText(p *check.Probe) string {
	d := &p.Differences[0]
	return fmt.Sprintf("%d of %s differ, such as %s, which %s", p.Count, plural(p.Calls-p.Skipped, "call"), d.Call, differenceText(d))
}

func differenceText(d *check.Difference) string {
	a, b := &d.First, &d.Now
	switch {
	case a.Failure != nil && b.Failure != nil:
		return fmt.Sprintf("failed with %s, and first with %s", errorLine(b.Failure), errorLine(a.Failure))
	case a.Failure != nil:
		return fmt.Sprintf("gave %s, and first failed with %s", resultText(b), errorLine(a.Failure))
	case b.Failure != nil:
		return fmt.Sprintf("failed with %s, and first gave %s", errorLine(b.Failure), resultText(a))
	case a.SHA256 != b.SHA256:
		return fmt.Sprintf("gave %s, and first %s", resultText(b), resultText(a))
	}
	return fmt.Sprintf("took %d fuel, and first %d", b.Fuel, a.Fuel)
}

// maxResult bounds the bytes of an output that is shown.
const maxResult = 1 << 10

// resultText shows the output of a call that succeeded.
func resultText(r *guest.CallResult) string {
	if r.Output == nil || len(r.Output) > maxResult {
		return fmt.Sprintf("an output with the SHA-256 %.16s…", r.SHA256)
	}
	return strings.Join(notation.Lines(r.Output), " ")
}

func printCheck(out io.Writer, c *checkReport, r *check.Report) error {
	t := newTable(out)
	row := t.field
	d := c.Description
	row("module", "%s, %s, sha256 %s", c.Module, humanize.IBytes(uint64(d.Size)), d.SHA256)
	for _, p := range d.Problems {
		row("problem", "%s", p)
	}
	for _, n := range d.Notes {
		row("note", "%s", n)
	}
	for _, h := range c.Hints {
		row("hint", "%s", h)
	}
	for _, f := range c.Found {
		row("found", "%s", f)
	}
	if c.Chunks != nil {
		c.printCalls(row)
	}
	if r.Cost != nil {
		printCost(row, r.Cost, c.Cost, d)
	}
	switch {
	case !d.Accepted:
		row("verdict", "refused")
	case c.Differences > 0:
		row("verdict", "%s: its outputs cannot be relied on", plural(c.Differences, "difference"))
	default:
		row("verdict", "no differences")
	}
	return t.flush()
}

func (c *checkReport) printCalls(row func(name, format string, args ...any)) {
	failed := c.Chunks.Count - c.Chunks.Outputs
	row("chunks", "%s: %s, %s; %s of aggregate and merge", c.Chunks.Source, plural(c.Chunks.Outputs, "output"), plural(failed, "failure"), plural(c.Chunks.Folds, "call"))
	for _, message := range slices.Sorted(maps.Keys(c.Chunks.Failures)) {
		row("", "%d × %s", c.Chunks.Failures[message], message)
	}
	for _, p := range c.Probes {
		if len(p.Differences) == 0 {
			row("same", "%s: bytes and fuel of %s%s", p.Name, plural(p.Calls-p.Skipped, "call"), p.note())
			continue
		}
		row("DIFFERS", "%s: %d of %s", p.Name, p.Count, plural(p.Calls, "call"))
		for _, d := range p.Differences {
			row("", "%s: %s", d.Call, d.What)
		}
	}
}

func (p *checkProbe) note() string {
	if p.Skipped == 0 {
		return ""
	}
	return fmt.Sprintf("; %d not compared", p.Skipped)
}

func printCost(row func(name, format string, args ...any), measured *check.Cost, c *checkCost, d *runtime.Description) {
	row("cost", "compiled, or loaded, in %s; memory after the largest call %s", visible(c.Compile), humanize.IBytes(c.Memory))
	switch {
	case measured.Call == "":
	case d.Isolation == runtime.IsolationInstance:
		row("", "%s takes %s, with a new instance, because a reset cannot undo %s", measured.Call, visible(c.Call), strings.Join(d.NotResettable, ", "))
	case d.Command:
		row("", "%s takes %s, with the reset before it; with a new instance instead it takes %s", measured.Call, visible(c.Call), visible(c.Instance))
	default:
		row("", "%s takes %s, of which the reset takes %s; a new instance would take %s", measured.Call, visible(c.Call), visible(c.Reset), visible(c.Instance))
	}
}

// visible is [seconds], except for times too short to measure.
func visible(s float64) string {
	if s == 0 {
		return "too short to be seen"
	}
	return seconds(s)
}
