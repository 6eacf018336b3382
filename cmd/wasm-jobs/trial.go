package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/project"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/terminal"
	"github.com/wasm-jobs/wasm-jobs/host/verify"
)

// trial tries a project in rounds.
type trial struct {
	project *project.Project
	watcher *project.Watcher
	limit   int           // of chunks
	dir     string        // for the outputs of this round and of the one before
	json    *json.Encoder // nil: the screen gets text
	screen  *screen
}

// roundResult has the findings of a round, as JSON. Parts after one that failed are nil.
type roundResult struct {
	Changed []string                 `json:"changed"` // files; empty in the first round
	Build   buildResult              `json:"build"`
	Vectors *testReport              `json:"vectors,omitempty"`
	Run     *runResult               `json:"run,omitempty"`
	Differs *verify.ChunkDifferences `json:"differs,omitempty"` // outputs, from the run before to this one
	Errors  []string                 `json:"errors,omitempty"`  // why a part is missing
}

type buildResult struct {
	OK      bool     `json:"ok"`
	Seconds float64  `json:"seconds"`
	Error   []string `json:"error,omitempty"` // the output from the first error on
}

type runResult struct {
	Exit    int      `json:"exit"`
	Seconds float64  `json:"seconds"`
	Result  any      `json:"result,omitempty"`
	Said    []string `json:"said"` // lines of standard error
}

// round builds the project, tests its vectors and runs its first chunks. The error is
// ctx's, or of writing.
func (t *trial) round(ctx context.Context, changed []string) error {
	r := &roundResult{Changed: append([]string{}, changed...)}
	t.screen.last = "" // the round before may have been cut short
	if len(changed) > 0 {
		t.screen.list("changed", changed)
	}
	if t.build(ctx, r) {
		t.test(ctx, r)
		t.run(ctx, r)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	t.screen.list("", []string{""})
	if t.json != nil {
		return outputError(t.json.Encode(r))
	}
	return outputError(t.screen.err)
}

// build reports whether there is a module to try.
func (t *trial) build(ctx context.Context, r *roundResult) bool {
	start := time.Now()
	output, err := t.project.Build(ctx)
	r.Build = buildResult{OK: err == nil, Seconds: time.Since(start).Seconds()}
	switch {
	case ctx.Err() != nil:
		return false
	case err == nil:
		t.screen.say("build", terminal.Green, "ok, %.2f s", r.Build.Seconds)
		return true
	}
	r.Build.Error = project.Fault(output)
	if strings.TrimSpace(output) == "" {
		r.Build.Error = []string{err.Error()}
	}
	t.screen.say("build", terminal.Red, "failed: %s", r.Build.Error[0])
	t.screen.list("", r.Build.Error[1:])
	return false
}

// test tests the vectors.
func (t *trial) test(ctx context.Context, r *roundResult) {
	call, err := t.project.Call(ctx, "test")
	if err != nil {
		t.fault(ctx, r, "vectors", "test", err)
		return
	}
	var out, errs bytes.Buffer
	err = t.project.Run(ctx, call, []string{"--json"}, &out, &errs)
	report := &testReport{}
	if json.Unmarshal(out.Bytes(), report) != nil {
		if said := strings.TrimPrefix(strings.TrimSpace(errs.String()), "wasm-jobs: "); said != "" {
			err = errors.New(said)
		}
		t.fault(ctx, r, "vectors", "test", err)
		return
	}
	r.Vectors = report
	if report.Failed == 0 {
		t.screen.say("vectors", terminal.Green, "%d ok", report.Passed)
		return
	}
	t.screen.say("vectors", terminal.Red, "%d ok, %d failed", report.Passed, report.Failed)
	for _, v := range report.Vectors {
		if !v.OK {
			t.screen.list("", append([]string{"FAIL " + v.Name}, v.Diff...))
		}
	}
}

// fault notes that a part of a round could not be tried.
func (t *trial) fault(ctx context.Context, r *roundResult, part, target string, err error) {
	if ctx.Err() != nil {
		return
	}
	text := fmt.Sprint(err)
	if errors.Is(err, project.ErrNoCall) {
		text = fmt.Sprintf("the target %s of the Makefile does not call $(WASM_JOBS) %s", target, target)
	}
	r.Errors = append(r.Errors, part+": "+text)
	t.screen.say(part, terminal.Red, "%s", text)
}

// run runs the first chunks.
func (t *trial) run(ctx context.Context, r *roundResult) {
	call, err := t.project.Call(ctx, "run")
	if err != nil {
		t.fault(ctx, r, "run", "run", err)
		return
	}
	t.watcher.Ignore(resultsOfCall(call))
	var out bytes.Buffer
	said := &runMessages{line: func(line string) {
		if ctx.Err() != nil {
			return // a run that is cut short says so
		}
		r.Run.Said = append(r.Run.Said, line)
		t.screen.list("run", []string{line})
	}}
	r.Run = &runResult{Said: []string{}}
	now := filepath.Join(t.dir, "now.cbor")
	start := time.Now()
	err = t.project.Run(ctx, call, t.arguments(call, now), &out, said)
	if ctx.Err() != nil {
		return
	}
	r.Run.Seconds = time.Since(start).Seconds()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		r.Run.Exit = exit.ExitCode()
	} else if err != nil {
		t.fault(ctx, r, "run", "run", err)
	}
	if r.Run.Exit > exitFailed {
		t.screen.say("run", terminal.Red, "failed: exit code %d", r.Run.Exit)
	}
	t.result(r, out.Bytes())
	t.compare(ctx, r, now)
}

// result shows the standard output of a run.
func (t *trial) result(r *roundResult, out []byte) {
	out = bytes.TrimSpace(out)
	if len(out) == 0 {
		return
	}
	r.Run.Result = string(out)
	if json.Valid(out) {
		r.Run.Result = json.RawMessage(out)
	}
	t.screen.list("result", strings.Split(string(out), "\n"))
}

// arguments returns those that a run gets in addition to its own.
func (t *trial) arguments(call, outputs string) (args []string) {
	if !hasFlag(call, "limit") {
		args = append(args, "--limit", strconv.Itoa(t.limit))
	}
	switch {
	case hasFlag(call, "store"):
		args = append(args, "--rerun") // so that logs are shown each time
	case !hasFlag(call, "no-store", "on"):
		args = append(args, "--no-store")
	}
	if !hasFlag(call, "grace") {
		args = append(args, "--grace", "0s") // a change ends it at once
	}
	if !hasFlag(call, "log-level") {
		args = append(args, "--log-level", "info")
	}
	if !hasFlag(call, "outputs", "on") {
		args = append(args, "--outputs", outputs)
	}
	return args
}

// compare shows which outputs differ from those of the run before.
func (t *trial) compare(ctx context.Context, r *roundResult, now string) {
	before := filepath.Join(t.dir, "before.cbor")
	defer os.Rename(now, before) // a run that fails may have no outputs
	var operands [2]*verify.Operand
	for i, path := range []string{before, now} {
		if _, err := os.Stat(path); err != nil {
			return
		}
		expected, err := fileOutputs(ctx, path)
		if err != nil {
			t.fault(ctx, r, "differs", "run", err)
			return
		}
		defer expected.Close()
		operands[i] = &verify.Operand{Fields: map[string]string{}, Expected: expected}
	}
	found, err := verify.Diff(ctx, operands[0], operands[1])
	if err != nil {
		t.fault(ctx, r, "differs", "run", err)
		return
	}
	if r.Differs = &found.Chunks; r.Differs.Count > 0 {
		var text strings.Builder
		printChunks(&text, r.Differs, "before", "now")
		t.screen.list("differs", strings.Split(strings.TrimSpace(text.String()), "\n"))
	}
}

// flagsOfCall yields the flags of a shell command, without dashes, and their values if
// the next word or the text after = may be one.
func flagsOfCall(call string, yield func(name, value string)) {
	words := strings.Fields(call)
	for i, word := range words {
		if !strings.HasPrefix(word, "-") {
			continue
		}
		name, value, joined := strings.Cut(strings.TrimLeft(word, "-"), "=")
		if !joined && i+1 < len(words) {
			value = words[i+1]
		}
		yield(name, strings.Trim(value, `'"`))
	}
}

// hasFlag reports whether a shell command has one of some flags.
func hasFlag(call string, names ...string) (found bool) {
	flagsOfCall(call, func(name, _ string) { found = found || slices.Contains(names, name) })
	return found
}

// resultsOfCall returns the files that a call of run writes.
func resultsOfCall(call string) (paths []string) {
	flagsOfCall(call, func(name, value string) {
		if name == "o" || slices.Contains(runResults, name) {
			paths = append(paths, value)
		}
	})
	return paths
}

// runMessages calls line for each line that is written, without its end.
type runMessages struct {
	line func(string)
	rest []byte
}

func (w *runMessages) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		line, rest, ok := bytes.Cut(w.rest, []byte{'\n'})
		if !ok {
			return len(p), nil
		}
		w.line(strings.TrimPrefix(string(line), "wasm-jobs: "))
		w.rest = rest
	}
}

// maxShown is the number of lines of one part of a round on the screen.
const maxShown = 20

// screen prints rounds in two columns: the part of a round, and text. It keeps the first
// error of writing.
type screen struct {
	out     io.Writer
	colours terminal.Colours
	last    string // the part of the last line
	err     error
}

// say prints one line of a part, in a colour.
func (s *screen) say(part string, style terminal.Style, format string, args ...any) {
	s.print(part, s.colours.In(style, printable(fmt.Sprintf(format, args...))))
}

// list prints lines of a part, whose name stands before the first one.
func (s *screen) list(part string, lines []string) {
	for _, line := range lines[:min(len(lines), maxShown)] {
		s.print(part, printable(strings.ReplaceAll(line, "\t", "    ")))
	}
	if more := len(lines) - maxShown; more > 0 {
		s.print(part, fmt.Sprintf("and %s", plural(more, "more line")))
	}
}

func (s *screen) print(part, line string) {
	shown := part
	if part == s.last {
		shown = ""
	}
	s.last = part
	if _, err := io.WriteString(s.out, strings.TrimRight(fmt.Sprintf("%-8s %s", shown, line), " ")+"\n"); s.err == nil {
		s.err = err
	}
}
