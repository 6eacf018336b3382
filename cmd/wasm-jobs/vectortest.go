package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

func testCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "test", Usage: "hold a module to golden vectors: inputs, and what must come of them",
		UsageText: `wasm-jobs test [flags] MODULE VECTORS

Example: wasm-jobs test square.wasm vectors.json

VECTORS is a JSON file:

  {"vectors": [
    {"name": "two squared", "chunk": 2, "output": 4},
    {"name": "no number", "chunk": "x", "failure": {"class": "guest", "message": "not an integer"}},
    {"name": "the sum of 2 * 2 and 3 * 3", "chunks": [2, 3], "output": 13},
    {"name": "outputs add up", "aggregate": [4, 9], "ids": [7, "a"], "output": 13},
    {"name": "partial sums add up", "merge": [13, 25], "output": 38}
  ]}

Each vector has a name and one of
  chunk      a chunk for exec
  chunks     chunks for exec, each, and then aggregate over their outputs
  aggregate  outputs for aggregate; their ids are "ids", or 0, 1, ...
  merge      partial results for merge
and one of
  output     what must be returned, byte for byte
  failure    the class of the failure, and part of its message where one is given
A vector, or the file for all, may have a "context" for setup and a "seed" of
random bytes, and an "about" for people.

Items are JSON values, as deterministic CBOR but for the order of keys, which
stays. Numbers with a point or an exponent are floats. What JSON cannot say is
{"hex": "c24101"}, the bytes of any item, also within arrays and objects.

--update puts what came into the file, and says where it was something else.

Exit codes: 0 all vectors hold; 1 one does not; 2 the module or the vectors are
refused.`,
		ArgsUsage: "MODULE VECTORS",
		Flags: append(commandFlags(), []cli.Flag{
			&cli.BoolFlag{Name: "update", Usage: "write what came into the file of vectors"},
			&cli.BoolFlag{Name: "json", Usage: "as JSON"},
			&cli.DurationFlag{Name: "timeout", Value: 30 * time.Second, Usage: "limit of one call; 0 = none"},
			&cli.StringFlag{Name: "memory", Value: "256MiB", Usage: "limit of the guest's memory"},
		}...),
		Action: func(ctx *cli.Context) error {
			if ctx.NArg() != 2 {
				return refuse("test takes MODULE and VECTORS, and %d arguments are given", ctx.NArg())
			}
			o := &testOptions{module: ctx.Args().Get(0), vectors: ctx.Args().Get(1), update: ctx.Bool("update"), json: ctx.Bool("json")}
			o.settings.Timeout, o.settings.FoldTimeout = ctx.Duration("timeout"), ctx.Duration("timeout")
			if o.settings.Timeout < 0 {
				return refuse("--timeout %v is negative", o.settings.Timeout)
			}
			memory, err := parseSize[uint64](ctx, "memory")
			if err != nil {
				return err
			}
			o.settings.Memory = memory
			command, err := parseCommand(ctx)
			if err != nil {
				return err
			}
			if o.settings.Command, err = command.read(ctx.Context); err != nil {
				return err
			}
			return testModule(ctx.Context, c, o)
		},
	}
}

// testOptions are the flags of test, parsed.
type testOptions struct {
	module, vectors string
	update, json    bool
	settings        runtime.Settings
}

// verdict is what became of a vector.
type verdict struct {
	Name    string       `json:"name"`
	OK      bool         `json:"ok"`
	Updated bool         `json:"updated,omitempty"`
	Output  string       `json:"output,omitempty"` // in hex
	Failure *abi.Failure `json:"failure,omitempty"`
	Diff    []string     `json:"diff,omitempty"` // from what is expected to what came

	output []byte
}

// testReport is the result of test, as JSON.
type testReport struct {
	Module  string     `json:"module"`
	Vectors []*verdict `json:"vectors"`
	Passed  int        `json:"passed"`
	Failed  int        `json:"failed"`
	Updated int        `json:"updated"`
}

func testModule(ctx context.Context, c *console, o *testOptions) error {
	f, err := readVectors(o.vectors, o.update)
	if err != nil {
		return err
	}
	t, err := openTester(ctx, o)
	if err != nil {
		return err
	}
	defer t.close(ctx)
	report := &testReport{Module: o.module}
	for _, v := range f.Vectors {
		verdict, err := t.try(ctx, v)
		if err != nil {
			return err
		}
		if !verdict.OK && o.update {
			verdict.Updated = true
			v.update(verdict)
			report.Updated++
		}
		if verdict.OK {
			report.Passed++
		} else if !verdict.Updated {
			report.Failed++
		}
		report.Vectors = append(report.Vectors, verdict)
	}
	if report.Updated > 0 {
		if err := writeVectors(o.vectors, f); err != nil {
			return written(err)
		}
	}
	return report.tell(c.out, o.json)
}

// tell prints the report, and returns the error that is the exit code.
func (r *testReport) tell(out io.Writer, asJSON bool) error {
	var err error
	if asJSON {
		err = writeJSON(out, r)
	} else {
		_, err = io.WriteString(out, r.text())
	}
	if err == nil && r.Failed > 0 {
		return &exitError{exitFailed, nil}
	}
	return written(err)
}

func (r *testReport) text() string {
	var b strings.Builder
	for _, v := range r.Vectors {
		word := "FAIL"
		switch {
		case v.OK:
			word = "ok"
		case v.Updated:
			word = "updated"
		}
		fmt.Fprintf(&b, "%-8s%s\n", word, printable(v.Name))
		for _, line := range v.Diff {
			fmt.Fprintf(&b, "        %s\n", printable(line))
		}
	}
	fmt.Fprintf(&b, "%d vectors: %d ok, %d failed", len(r.Vectors), r.Passed, r.Failed)
	if r.Updated > 0 {
		fmt.Fprintf(&b, ", %d updated", r.Updated)
	}
	return b.String() + "\n"
}

// tester calls a module for vectors.
type tester struct {
	runtime  *runtime.Runtime
	module   *runtime.Module
	settings runtime.Settings
	pool     *runtime.Pool // for the context and the seed of the last vector; nil at first
	context  []byte
	seed     uint64
}

func openTester(ctx context.Context, o *testOptions) (*tester, error) {
	wasm, err := readModule(o.module)
	if err != nil {
		return nil, err
	}
	r, err := runtime.New(ctx, runtime.Config{CacheDir: compiledDir()})
	if err != nil {
		return nil, err
	}
	t := &tester{runtime: r, settings: o.settings}
	if t.module, err = r.Compile(ctx, wasm, runtime.Options{}); err != nil {
		return nil, errors.Join(err, r.Close(ctx))
	}
	return t, nil
}

func (t *tester) close(ctx context.Context) {
	if t.pool != nil {
		_ = t.pool.Close()
	}
	_ = t.runtime.Close(ctx)
}

// poolFor returns the instances for a vector's context and seed. Those of the
// vector before are closed where it has others: there may be as many as vectors,
// each with a memory.
func (t *tester) poolFor(ctx context.Context, v *vector) (*runtime.Pool, error) {
	if t.pool != nil && v.seed == t.seed && bytes.Equal(v.context, t.context) {
		return t.pool, nil
	}
	if t.pool != nil {
		if err := t.pool.Close(); err != nil {
			return nil, err
		}
	}
	settings := t.settings
	settings.Context, settings.Seed = v.context, v.seed
	var err error
	t.pool, err = t.module.Prepare(ctx, settings)
	t.context, t.seed = v.context, v.seed
	return t.pool, err
}

// try runs a vector. The error is that of the tester itself.
func (t *tester) try(ctx context.Context, v *vector) (*verdict, error) {
	for _, function := range []string{abi.ExportAggregate, abi.ExportMerge} {
		if v.function == function && !t.module.Exports(function) {
			return nil, refuse("vector %q needs %s, which the module does not export", v.Name, function)
		}
	}
	output, err := t.call(ctx, v)
	verdict := &verdict{Name: v.Name, output: output}
	if err != nil {
		f, ok := errors.AsType[*abi.Failure](err)
		if !ok {
			return nil, err
		}
		verdict.Failure, verdict.output = f, nil
	} else {
		verdict.Output = fmt.Sprintf("%x", output)
	}
	verdict.OK = v.matches(verdict)
	if !verdict.OK {
		verdict.Diff = v.diff(verdict)
	}
	return verdict, nil
}

func (t *tester) call(ctx context.Context, v *vector) ([]byte, error) {
	pool, err := t.poolFor(ctx, v)
	if err != nil {
		return nil, err
	}
	instance := pool.Lease(nil)
	defer instance.Release()
	call := func(function string, input []byte) ([]byte, error) {
		output, _, err := instance.Call(ctx, function, input, nil)
		return output, err
	}
	switch {
	case v.Chunk != nil:
		return call(abi.ExportExec, v.inputs[0])
	case v.Merge != nil:
		return call(abi.ExportMerge, array(v.inputs))
	case v.Aggregate != nil:
		return call(abi.ExportAggregate, entries(v.IDs, v.inputs))
	}
	ids, inOrder, err := orderOf(v.inputs)
	if err != nil {
		return nil, refuse("vector %q: %w", v.Name, err)
	}
	var outputs [][]byte
	for i, chunk := range inOrder {
		output, err := call(abi.ExportExec, chunk)
		if err != nil {
			if f, ok := errors.AsType[*abi.Failure](err); ok {
				return nil, abi.Failf(f.Class, "chunk %v: %s", ids[i], f.Message)
			}
			return nil, err
		}
		outputs = append(outputs, output)
	}
	return call(abi.ExportAggregate, entries(ids, outputs))
}

// orderOf returns ids and chunks in id order. An id is that under the default
// key, or the position.
func orderOf(items [][]byte) (ids []abi.ID, inOrder [][]byte, err error) {
	type chunk struct {
		id   abi.ID
		item []byte
	}
	var all []chunk
	for i, item := range items {
		id, ok, err := abi.FindID(item, chunks.DefaultIDKey)
		if err != nil {
			return nil, nil, fmt.Errorf("chunk at position %d: %w", i, err)
		}
		if !ok {
			id = abi.IntID(uint64(i))
		}
		all = append(all, chunk{id, item})
	}
	slices.SortStableFunc(all, func(a, b chunk) int { return a.id.Compare(b.id) })
	for i, c := range all {
		if i > 0 && c.id == ids[i-1] {
			return nil, nil, fmt.Errorf("two chunks have the id %v", c.id)
		}
		ids, inOrder = append(ids, c.id), append(inOrder, c.item)
	}
	return ids, inOrder, nil
}

func (v *vector) matches(got *verdict) bool {
	if got.Failure != nil {
		return v.Failure != nil && v.Failure.Class == got.Failure.Class && strings.Contains(got.Failure.Message, v.Failure.Message)
	}
	return v.output != nil && bytes.Equal(v.output, got.output)
}

// diff says how what came differs from what is expected.
func (v *vector) diff(got *verdict) []string {
	if v.output != nil && got.Failure == nil {
		return diffItems(v.output, got.output)
	}
	var lines []string
	switch {
	case v.output != nil:
		lines = marked("- ", diagnosisLines(v.output))
	case v.Failure != nil:
		lines = []string{fmt.Sprintf("- failure %s: %s", v.Failure.Class, v.Failure.Message)}
	default:
		lines = []string{"- nothing yet"}
	}
	if got.Failure != nil {
		return append(bounded(lines), fmt.Sprintf("+ failure %s: %s", got.Failure.Class, got.Failure.Message))
	}
	return append(bounded(lines), bounded(marked("+ ", diagnosisLines(got.output)))...)
}

// update makes what came what is expected.
func (v *vector) update(got *verdict) {
	v.Output, v.Failure = nil, nil
	if got.Failure != nil {
		v.Failure = &wantFailure{got.Failure.Class, got.Failure.Message}
		return
	}
	text, _ := appendItemJSON(nil, got.output)
	v.Output = json.RawMessage(text)
}

// printable escapes what a terminal would obey.
func printable(line string) string {
	if utf8.ValidString(line) && strings.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return line
	}
	quoted := strconv.QuoteToGraphic(line)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
