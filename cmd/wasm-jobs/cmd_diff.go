package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/host/verify"
	"github.com/wasm-jobs/wasm-jobs/store"
)

func diffCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "diff", Usage: "compare two jobs",
		UsageText: `wasm-jobs diff [flags] A B

A and B are each a receipt, a file of run --outputs, or the id of a job in the store
(or its beginning). diff compares everything that both have.

Example: wasm-jobs diff monday.json tuesday.json
         wasm-jobs diff monday.cbor 3f2a

Exit codes:
   0    A and B are the same
   1    A and B differ
   2    invalid usage, or A and B cannot be compared
   4    the store failed`,
		ArgsUsage: "A B",
		Flags:     []cli.Flag{storeFlag(), jsonFlag()},
		Action: func(ctx *cli.Context) error {
			if err := twoArguments(ctx, "A and B"); err != nil {
				return err
			}
			return diff(ctx, c)
		},
	}
}

// comparison is the result of diff, as JSON.
type comparison struct {
	Same        bool                 `json:"same"`
	Compared    []string             `json:"compared"` // fields, and "chunks of outputs"
	Differences []receipt.Difference `json:"differences"`
	verify.ChunkDifferences
}

func diff(ctx *cli.Context, c *console) (err error) {
	names := [2]string{ctx.Args().Get(0), ctx.Args().Get(1)}
	var operands [2]*verify.Operand
	for i := range operands {
		if operands[i], err = openOperand(ctx, c, names[i]); err != nil {
			return err
		}
		if expected := operands[i].Expected; expected != nil {
			defer expected.Close()
		}
	}
	found, err := verify.Diff(ctx.Context, operands[0], operands[1])
	if errors.Is(err, verify.ErrNothingInCommon) {
		return usageErrorf("%s and %s have %w", names[0], names[1], err)
	}
	if err != nil {
		return err
	}
	d := &comparison{found.Same(), found.Compared, found.Differences, found.Chunks}
	return d.conclude(c, names[0], names[1], ctx.Bool("json"))
}

// openOperand opens an argument: a receipt, a file of outputs or a job.
func openOperand(ctx *cli.Context, c *console, name string) (*verify.Operand, error) {
	file, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return jobOperand(ctx, c, name)
	}
	if err != nil {
		return nil, usageErrorf("%s: cannot be opened: %s", name, withoutPath(err))
	}
	defer file.Close()
	var first [1]byte
	if _, err := file.Read(first[:]); err == nil && first[0] == '{' { // in CBOR this byte begins a text, and items of outputs are maps
		r, err := readReceipt(name)
		if err != nil {
			return nil, err
		}
		s := &verify.Operand{Fields: map[string]string{}}
		for _, f := range r.Fields() {
			s.Fields[f.Name] = f.Value
		}
		return s, nil
	}
	expected, err := fileOutputs(ctx.Context, name)
	return &verify.Operand{Fields: map[string]string{}, Expected: expected}, err
}

// jobOperand opens a job in the store.
func jobOperand(ctx *cli.Context, c *console, name string) (*verify.Operand, error) {
	s, err := records(ctx, c)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, usageErrorf("unknown operand %s: no such file, and there is no store", name)
	}
	found, err := findJob(ctx, c, s, name)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return found, nil
}

func findJob(ctx *cli.Context, c *console, s recordStore, name string) (*verify.Operand, error) {
	j, err := journal.Find(ctx.Context, s, name)
	if _, ambiguous := errors.AsType[*journal.AmbiguousError](err); ambiguous {
		return nil, usageErrorf("%w: give more digits", err)
	}
	if errors.Is(err, store.ErrNoJob) || name == "" {
		return nil, usageErrorf("unknown operand %s: neither a file nor a job in the store", name)
	}
	if err != nil {
		return nil, storeError(err)
	}
	found := &verify.Operand{Fields: jobFields(&j.Spec), Expected: expectedOf(c, j, name, s.Close)}
	aggregate, err := j.Aggregate(ctx.Context)
	if err != nil {
		return nil, storeError(err)
	}
	if aggregate != nil {
		found.Fields["aggregate"] = receipt.Digest(sha256.Sum256(aggregate)).String()
	}
	return found, nil
}

func (d *comparison) conclude(c *console, a, b string, asJSON bool) error {
	var err error
	if asJSON {
		err = writeJSON(c.out, d)
	} else {
		err = d.print(c.out, a, b)
	}
	if err != nil {
		return outputError(err)
	}
	if !d.Same {
		return &exitError{exitFailed, nil}
	}
	return nil
}

func (d *comparison) print(out io.Writer, a, b string) error {
	w := new(strings.Builder)
	if d.Same {
		fmt.Fprintf(w, "the same: %s\n", strings.Join(d.Compared, ", "))
	}
	width := max(len(a), len(b)) + 1
	for _, f := range d.Differences {
		values := []string{f.A, f.B}
		for i := range values {
			if values[i] == "" {
				values[i] = "none"
			}
		}
		fmt.Fprintf(w, "%s differs\n  %-*s %s\n  %-*s %s\n", f.Field, width, a+":", values[0], width, b+":", values[1])
	}
	printChunks(w, &d.ChunkDifferences, a, b)
	if !d.Same && !slices.Contains(d.Compared, verify.EachOutput) {
		if i := slices.IndexFunc(d.Differences, func(f receipt.Difference) bool { return f.Field == "outputs" }); i >= 0 {
			fmt.Fprintln(w, "to see the chunks that differ, compare two files of outputs, or jobs in the store")
		}
	}
	_, err := io.WriteString(out, w.String())
	return err
}
