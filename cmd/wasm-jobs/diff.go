package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/jobs"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

func diffCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "diff", Usage: "say in what two jobs differ, of receipts, files of outputs or jobs in the store",
		UsageText: `wasm-jobs diff [flags] A B

A and B are each a receipt, a file of run --outputs, or the id of a job in the
store, or the beginning of one. What both are known to have is compared.

Example: wasm-jobs diff monday.json tuesday.json
         wasm-jobs diff monday.cbor 3f2a

Exit codes:
   0    they are the same
   1    they differ
   2    one of them is nothing that can be compared
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

// side is one of two things that are compared.
type side struct {
	fields map[string]string // those of a receipt that are known
	claims *claims           // nil where only digests are known
}

// comparison is what diff found, as JSON for other programs.
type comparison struct {
	Same        bool                 `json:"same"`
	Compared    []string             `json:"compared"` // fields, and "chunks of outputs"
	Differences []receipt.Difference `json:"differences"`
	chunkDifferences
}

// comparedOutputs is in the list of what was compared where outputs were, one
// by one.
const comparedOutputs = "each output"

func diff(ctx *cli.Context, c *console) (err error) {
	var sides [2]*side
	for i := range sides {
		if sides[i], err = openSide(ctx, c, ctx.Args().Get(i)); err != nil {
			return err
		}
		if sides[i].claims != nil {
			defer sides[i].claims.close()
		}
	}
	a, b := sides[0], sides[1]
	d := &comparison{Compared: []string{}, Differences: []receipt.Difference{}, chunkDifferences: chunkDifferences{Listed: []chunkDifference{}}}
	if a.claims != nil && b.claims != nil {
		err = d.compareOutputs(ctx.Context, a, b)
	} else {
		err = errors.Join(a.digest(ctx.Context), b.digest(ctx.Context))
	}
	if err != nil {
		return err
	}
	d.compareFields(a, b)
	if len(d.Compared) == 0 {
		return refuse("%s and %s have nothing in common that could be compared", ctx.Args().Get(0), ctx.Args().Get(1))
	}
	d.Same = len(d.Differences) == 0 && d.Count == 0
	return d.conclude(c, ctx.Args().Get(0), ctx.Args().Get(1), ctx.Bool("json"))
}

// openSide finds out what an argument is.
func openSide(ctx *cli.Context, c *console, name string) (*side, error) {
	file, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return jobSide(ctx, c, name)
	}
	if err != nil {
		return nil, refuse("%s: cannot be opened: %s", name, withoutPath(err))
	}
	defer file.Close()
	var first [1]byte
	if _, err := file.Read(first[:]); err == nil && first[0] == '{' { // no map, as items of outputs are
		r, err := readReceipt(name)
		if err != nil {
			return nil, err
		}
		s := &side{fields: map[string]string{}}
		for _, f := range r.Fields() {
			s.fields[f.Name] = f.Value
		}
		return s, nil
	}
	claimed, err := fileClaims(name)
	return &side{map[string]string{}, claimed}, err
}

// jobSide is a job in the store.
func jobSide(ctx *cli.Context, c *console, name string) (*side, error) {
	s, err := records(ctx, c)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, refuse("%s is no file, and there is no store with jobs", name)
	}
	found, err := findJob(ctx, c, s, name)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return found, nil
}

func findJob(ctx *cli.Context, c *console, s *sqlite.Store, name string) (*side, error) {
	j, err := jobs.Find(ctx.Context, s, name)
	if _, ambiguous := errors.AsType[*jobs.AmbiguousError](err); ambiguous {
		return nil, refuse("%w: give more of it", err)
	}
	if errors.Is(err, store.ErrNoJob) || name == "" {
		return nil, refuse("%s is neither a file nor a job in the store", name)
	}
	if err != nil {
		return nil, failedStore(err)
	}
	found := &side{jobFields(&j.Spec), jobClaims(c, j, name, s.Close)}
	aggregate, err := j.Aggregate(ctx.Context)
	if err != nil {
		return nil, failedStore(err)
	}
	if aggregate != nil {
		found.fields["aggregate"] = receipt.Digest(sha256.Sum256(aggregate)).String()
	}
	return found, nil
}

// digest computes the digest of outputs that are there.
func (s *side) digest(ctx context.Context) error {
	if s.claims == nil {
		return nil
	}
	tree := merkle.NewDigester(nil)
	defer tree.Close()
	err := s.claims.each(ctx, func(id abi.ID, output []byte) error {
		tree.Add(id, output)
		return nil
	})
	s.fields["outputs"], s.fields["chunks"] = receipt.Digest(tree.Root()).String(), fmt.Sprint(tree.Len())
	return err
}

// claim is one output that is handed from one goroutine to another; err is set
// in the last one instead.
type claim struct {
	id     abi.ID
	output []byte
	err    error
}

// pulled makes outputs that are pushed such that are pulled.
func (c *claims) pulled(ctx context.Context) (next func() (claim, bool), stop func()) {
	return iter.Pull(func(yield func(claim) bool) {
		err := c.each(ctx, func(id abi.ID, output []byte) error {
			if !yield(claim{id, output, nil}) {
				return errStopped
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStopped) {
			yield(claim{err: err})
		}
	})
}

var errStopped = errors.New("no more is wanted")

// compareOutputs goes through both side by side.
func (d *comparison) compareOutputs(ctx context.Context, a, b *side) error {
	d.Compared = append(d.Compared, comparedOutputs)
	nextA, stopA := a.claims.pulled(ctx)
	defer stopA()
	nextB, stopB := b.claims.pulled(ctx)
	defer stopB()
	x, moreA := nextA()
	y, moreB := nextB()
	for moreA || moreB {
		if err := errors.Join(x.err, y.err); err != nil {
			return err
		}
		order := 0
		switch {
		case !moreB:
			order = -1
		case !moreA:
			order = 1
		default:
			order = x.id.Compare(y.id)
		}
		switch {
		case order < 0:
			d.add(x.id, x.output, nil, nil)
		case order > 0:
			d.add(y.id, nil, y.output, nil)
		case !bytes.Equal(x.output, y.output):
			d.add(x.id, x.output, y.output, nil)
		}
		if order <= 0 {
			x, moreA = nextA()
		}
		if order >= 0 {
			y, moreB = nextB()
		}
	}
	return nil
}

// compareFields compares what is known of both.
func (d *comparison) compareFields(a, b *side) {
	for _, f := range new(receipt.Receipt).Fields() { // in their order
		x, knownA := a.fields[f.Name]
		y, knownB := b.fields[f.Name]
		if !knownA || !knownB {
			continue
		}
		d.Compared = append(d.Compared, f.Name)
		if x != y {
			d.Differences = append(d.Differences, receipt.Difference{Field: f.Name, A: x, B: y})
		}
	}
}

func (d *comparison) conclude(c *console, a, b string, asJSON bool) error {
	var err error
	if asJSON {
		err = writeJSON(c.out, d)
	} else {
		err = d.print(c.out, a, b)
	}
	if err != nil {
		return written(err)
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
	d.chunkDifferences.print(w, a, b)
	if !d.Same && !slices.Contains(d.Compared, comparedOutputs) {
		if i := slices.IndexFunc(d.Differences, func(f receipt.Difference) bool { return f.Field == "outputs" }); i >= 0 {
			fmt.Fprintln(w, "which chunks differ can be said of two files of outputs or jobs in the store")
		}
	}
	_, err := io.WriteString(out, w.String())
	return err
}
