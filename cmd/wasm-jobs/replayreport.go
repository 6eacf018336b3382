package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/bundle"
	"github.com/wasm-jobs/wasm-jobs/host/guest"
	"github.com/wasm-jobs/wasm-jobs/host/replay"
)

// replayed is the result of replay, as JSON.
type replayed struct {
	Bundle   string              `json:"bundle"`
	Chunk    abi.ID              `json:"chunk"`
	Size     int                 `json:"size"` // of the chunk, in bytes
	Module   string              `json:"module"`
	Engine   string              `json:"engine"`
	Same     bool                `json:"same"`
	Recorded callResult          `json:"recorded"`
	Replayed callResult          `json:"replayed"`
	Compared []replay.Comparison `json:"compared"`
	Notes    []string            `json:"notes"`
	Trace    []string            `json:"trace,omitempty"`
}

// callResult is the result of a call. Its class is "succeeded" if it did not fail.
type callResult struct {
	Class   string   `json:"class"`
	Message string   `json:"message"`
	Stack   []string `json:"stack"`
	Logs    []string `json:"logs,omitempty"` // the last lines
	Fuel    uint64   `json:"fuel"`           // 0 = not known
	AtLeast bool     `json:"fuel_at_least,omitempty"`
}

func newReplayed(o *replayOptions, b *bundle.Bundle, r *replay.Replay) *replayed {
	a := &replayed{
		Bundle: o.bundle, Chunk: b.ID, Size: len(b.Chunk), Module: fmt.Sprintf("sha256:%x", b.Module.SHA256), Engine: o.engine, Same: r.Same(),
		Recorded: newCallResult(&r.Recorded), Replayed: newCallResult(&r.Replayed), Compared: r.Compared, Notes: []string{},
	}
	for _, n := range r.Notes {
		a.Notes = append(a.Notes, noteOf(n, r))
	}
	if f := r.Replayed.Failure; o.lowered && f != nil && f.Class == abi.ClassTimeout {
		a.Notes = append(a.Notes, fmt.Sprintf("the call was stopped after %v, before the bundle's own limit; --timeout D allows more", o.timeout))
	}
	if r.Trace != nil {
		a.Trace = traceLines(r.Trace)
	}
	return a
}

func newCallResult(r *guest.CallResult) callResult {
	if f := r.Failure; f != nil {
		return callResult{string(f.Class), failureMessage(f.Class, f.Message), append([]string{}, f.Stack...), f.Logs, r.Fuel, (&abi.Failure{Class: f.Class, Fuel: r.Fuel}).FuelAtLeast()}
	}
	return callResult{"succeeded", "gave an output of " + plural(len(r.Output), "byte"), []string{}, nil, r.Fuel, false}
}

func noteOf(n replay.Note, r *replay.Replay) string {
	switch n {
	case replay.TracedOtherwise:
		traced := newCallResult(&r.Traced)
		return fmt.Sprintf("traced, and therefore slower, it ended differently: %s: %s", traced.Class, printable(traced.Message))
	case replay.TimeoutVaries:
		return "the moment of a timeout depends on the speed of this machine: fuel is not compared, and the timeout may not happen again"
	case replay.FuelUnknown:
		return "fuel is not compared: it is unknown if metering is off or no call was made"
	case replay.BudgetNoticed:
		return "fuel is not compared: a budget that ran out is noticed at the next check, whose place depends on the build"
	case replay.InterpreterDepth:
		return "the interpreter stops at 2,000 nested calls, with class host; --engine compiler goes as deep as the run did"
	case replay.TextShortened:
		return "the run kept no more of this failure's text: the message is compared as far as it goes, and the stack is not"
	case replay.EarlierBuild:
		return "an earlier build wrote this bundle: message and stack are compared in the engine's words, as it recorded them"
	case replay.HostFailed:
		return "class host is about the machine of the run, not about the guest"
	}
	return string(n)
}

func traceLines(t *replay.Trace) (lines []string) {
	for _, line := range t.First {
		lines = append(lines, printable(line))
	}
	if t.Omitted > 0 {
		lines = append(lines, fmt.Sprintf("... %s not shown; --trace-limit shows more", plural(t.Omitted, "line")))
	}
	for _, line := range t.Last {
		lines = append(lines, printable(line))
	}
	return lines
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
		name := string(c.What)
		if c.Same {
			row(name, "%s", was[name])
			continue
		}
		row(name, "%s", "was "+was[name])
		row("", "is  %s", is[name])
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

// texts returns the printed form of each compared property, by name.
func (e *callResult) texts() map[string]string {
	stack := "none"
	if len(e.Stack) > 0 {
		stack = "at " + printable(strings.Join(e.Stack, ", at "))
	}
	fuel := fuelText(e.Fuel, e.AtLeast)
	return map[string]string{
		"class": printable(e.Class), "message": printable(e.Message), "stack": stack, "fuel": fuel,
	}
}
