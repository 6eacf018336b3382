package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/atomicfile"
	"github.com/wasm-jobs/wasm-jobs/host/guest"
	"github.com/wasm-jobs/wasm-jobs/host/guest/vectors"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

func testCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "test", Usage: "test a module with inputs and expected results",
		UsageText: `wasm-jobs test [flags] MODULE VECTORS

Example: wasm-jobs test square.wasm vectors.json

VECTORS is a JSON file:

  {"vectors": [
    {"name": "two squared", "chunk": 2, "output": 4},
    {"name": "not a number", "chunk": "x",
     "failure": {"class": "guest", "message": "not an integer"}},
    {"name": "the sum of 2 * 2 and 3 * 3", "chunks": [2, 3], "output": 13},
    {"name": "outputs add up", "aggregate": [4, 9], "ids": [7, "a"],
     "output": 13},
    {"name": "partial sums add up", "merge": [13, 25], "output": 38}
  ]}

Each vector has a name, one of
  chunk      a chunk for exec
  chunks     chunks for exec, whose outputs go to aggregate
  aggregate  outputs for aggregate; their ids are "ids", or 0, 1, ...
  merge      partial results for merge
and one of
  output     the expected result, compared byte by byte
  failure    the class of the expected failure, and optionally part of its message

A vector, or the file for all its vectors, may have a "context" for setup, a "seed"
of random bytes, and an "about" for readers.

Items are JSON values. They are encoded as deterministic CBOR, except that keys keep
their order. Numbers with a point or an exponent are floats. {"hex": "c24101"}, also
within arrays and objects, is the encoding of any other item.

--update writes the actual results to the file, and prints the differences.

Exit codes: 0 all vectors pass; 1 a vector fails; 2 the module or the vectors are
refused.`,
		ArgsUsage: "MODULE VECTORS",
		Flags: append(commandFlags(), []cli.Flag{
			&cli.BoolFlag{Name: "update", Usage: "write the actual results to the file of vectors"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			&cli.DurationFlag{Name: "timeout", Value: 30 * time.Second, Usage: "limit of one call; 0 = none"},
			&cli.StringFlag{Name: "memory", Value: "256MiB", Usage: "limit of the guest's memory"},
			stackFlag("limit of the guest's nested calls"),
			engineFlag(),
		}...),
		Action: func(ctx *cli.Context) error {
			o, err := parseTest(ctx)
			if err != nil {
				return err
			}
			return testModule(ctx.Context, c, o)
		},
	}
}

func parseTest(ctx *cli.Context) (*testOptions, error) {
	if ctx.NArg() != 2 {
		return nil, usageErrorf("test takes MODULE and VECTORS, got %s", plural(ctx.NArg(), "argument"))
	}
	o := &testOptions{module: ctx.Args().Get(0), vectors: ctx.Args().Get(1), update: ctx.Bool("update"), json: ctx.Bool("json")}
	o.settings.Timeout, o.settings.FoldTimeout = ctx.Duration("timeout"), ctx.Duration("timeout")
	if o.settings.Timeout < 0 {
		return nil, usageErrorf("invalid --timeout %v: want 0 or more", o.settings.Timeout)
	}
	memory, err := parseSize[uint64](ctx, "memory")
	if err != nil {
		return nil, err
	}
	o.settings.Memory = memory
	if o.settings.Stack, err = parseStack(ctx); err != nil {
		return nil, err
	}
	if o.engine, err = parseAnyEngine(ctx); err != nil {
		return nil, err
	}
	command, err := parseCommand(ctx)
	if err != nil {
		return nil, err
	}
	o.settings.Command, err = command.read(ctx.Context)
	return o, err
}

// testOptions are the flags of test, parsed.
type testOptions struct {
	module, vectors string
	update, json    bool
	engine          string
	settings        runtime.Settings
}

// verdict is the result of a vector.
type verdict struct {
	Name    string       `json:"name"`
	OK      bool         `json:"ok"`
	Updated bool         `json:"updated,omitempty"`
	Output  string       `json:"output,omitempty"` // in hex
	Failure *abi.Failure `json:"failure,omitempty"`
	Diff    []string     `json:"diff,omitempty"` // from the expected to the actual result
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
	wasm, err := readModule(o.module)
	if err != nil {
		return err
	}
	r, err := openEngine(ctx, o.engine)
	if err != nil {
		return err
	}
	defer r.Close(ctx)
	module, err := r.Compile(ctx, wasm, runtime.Options{})
	if err != nil {
		return err
	}
	report := &testReport{Module: o.module}
	if err := report.try(ctx, module, f, o); err != nil {
		return err
	}
	if report.Updated > 0 {
		if err := writeVectors(o.vectors, f); err != nil {
			return outputError(err)
		}
	}
	return report.tell(c.out, o.json)
}

// try tries all vectors.
func (r *testReport) try(ctx context.Context, module *runtime.Module, f *vectors.File, o *testOptions) error {
	tester := vectors.NewTester(module, o.settings)
	defer tester.Close()
	for _, v := range f.Vectors {
		result, err := tester.Try(ctx, v)
		if err != nil {
			return refuseVector(err)
		}
		verdict := newVerdict(v, &result)
		switch {
		case verdict.OK:
			r.Passed++
		case o.update:
			verdict.Updated = true
			v.Expect(&result)
			r.Updated++
		default:
			r.Failed++
		}
		r.Vectors = append(r.Vectors, verdict)
	}
	return nil
}

func newVerdict(v *vectors.Vector, result *guest.CallResult) *verdict {
	d := &verdict{Name: v.Name, OK: v.Holds(result), Failure: result.Failure}
	if result.Failure == nil {
		d.Output = fmt.Sprintf("%x", result.Output)
	}
	if !d.OK {
		d.Diff = v.Diff(result)
	}
	return d
}

// refuseVector returns an error of a vector with its exit code.
func refuseVector(err error) error {
	_, missing := errors.AsType[*vectors.MissingExportError](err)
	_, input := errors.AsType[*vectors.InputError](err)
	if missing || input {
		return usageErrorf("%w", err)
	}
	return err
}

// readVectors reads and checks a file of vectors. With update, a vector needs no
// expected result.
func readVectors(path string, update bool) (*vectors.File, error) {
	text, err := readBounded(path, vectors.MaxSize, "a file of vectors")
	if err != nil {
		return nil, err
	}
	parse := vectors.Parse
	if update {
		parse = vectors.ParseDraft
	}
	f, err := parse(text)
	if errors.Is(err, vectors.ErrNothingExpected) {
		return nil, usageErrorf("%s:%w; --update fills in the actual result", path, err)
	}
	if err != nil {
		return nil, usageErrorf("%s:%w", path, err)
	}
	return f, nil
}

// writeVectors replaces the file at path atomically.
func writeVectors(path string, f *vectors.File) error {
	file, err := atomicfile.Create(path)
	if err != nil {
		return err
	}
	defer file.Discard()
	return file.Write(func(w *bufio.Writer) error {
		_, err := w.Write(f.Encode())
		return err
	})
}

// tell prints the report, and returns an error with the exit code.
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
	return outputError(err)
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
