// Bench compares ways to run a chunk of work in a WebAssembly guest: our
// runtime, plain wazero, Extism, wasmtime, a process for each chunk, and Go
// without a sandbox. It also compares flows with jobs and with other durable
// workflows. README.md says how it measures.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(os.Args) == 2 && os.Args[1] == servingFlag {
		if err := serving(ctx, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(exitFailed)
		}
		return
	}
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Exit codes.
const (
	exitOK     = 0
	exitWorse  = 1
	exitFailed = 2
)

type options struct {
	rounds    int
	json      string
	markdown  string
	compare   string
	tolerance float64
	kernels   []kernel
	sides     []side
	command   bool
	serve     bool
	flows     bool
	chunks    int
	most      int
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	worse := 0
	if err == nil {
		worse, err = bench(ctx, o, stdout)
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return exitFailed
	}
	if worse > 0 {
		return exitWorse
	}
	return exitOK
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&o.rounds, "rounds", 11, "measure each side this `number` of times")
	f.StringVar(&o.json, "json", "", "write the results to `FILE`, as JSON")
	f.StringVar(&o.markdown, "markdown", "", "write the tables into `FILE`, between the lines "+opening+" and "+closing)
	f.StringVar(&o.compare, "compare", "", "compare the ratios with those in `FILE`, which -json wrote; exit code 1 if one is worse")
	f.Float64Var(&o.tolerance, "tolerance", 1.5, "`factor` by which a ratio may be worse")
	f.BoolVar(&o.command, "command", false, "measure the whole command instead of the sides")
	f.BoolVar(&o.serve, "serve", false, "measure requests over HTTP instead of the sides")
	f.BoolVar(&o.flows, "flows", false, "measure flows instead of the sides")
	f.IntVar(&o.chunks, "chunks", 1_000_000, "`number` of tiny chunks in the command's job, and of roots in flows, at most 100,000")
	f.IntVar(&o.most, "most", 10_000_000, "`number` of chunks in the largest job of the table of scale; of roots in the largest flow and of children of one item, at most 1,000,000")
	kernelNames := f.String("kernels", "", "measure only these `kernels`, separated by commas; sha256 means all that begin with sha256-")
	sideNames := f.String("sides", "", "measure only these `sides`, separated by commas, and "+base+", which they are compared with")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q: want only flags; -h lists them", f.Arg(0))
	case o.rounds < 1:
		return o, fmt.Errorf("invalid -rounds %d: want at least 1", o.rounds)
	case o.chunks < 1:
		return o, fmt.Errorf("invalid -chunks %d: want at least 1", o.chunks)
	case o.most < 1:
		return o, fmt.Errorf("invalid -most %d: want at least 1", o.most)
	case !(o.tolerance >= 1):
		return o, fmt.Errorf("invalid -tolerance %v: want a factor of at least 1", o.tolerance)
	}
	if o.kernels, err = choose(kernels(), *kernelNames, func(k kernel, name string) bool {
		return k.name == name || strings.HasPrefix(k.name, name+"-")
	}); err != nil {
		return o, fmt.Errorf("-kernels: %w", err)
	}
	if *sideNames != "" {
		*sideNames += "," + base
	}
	if o.sides, err = choose(sides(), *sideNames, func(s side, name string) bool { return s.name == name }); err != nil {
		return o, fmt.Errorf("-sides: %w", err)
	}
	return o, nil
}

// choose returns the items that one of the names, separated by commas, selects, in the
// order of all. Without names it returns all.
func choose[T any](all []T, names string, is func(T, string) bool) ([]T, error) {
	if names == "" {
		return all, nil
	}
	wanted := strings.Split(names, ",")
	for _, name := range wanted {
		if !slices.ContainsFunc(all, func(one T) bool { return is(one, name) }) {
			return nil, fmt.Errorf("unknown name %q: README.md lists the names", name)
		}
	}
	return slices.DeleteFunc(all, func(one T) bool {
		return !slices.ContainsFunc(wanted, func(name string) bool { return is(one, name) })
	}), nil
}

// benchCommand measures, writes and compares the claims about the command. It returns
// how many ratios are worse.
func benchCommand(ctx context.Context, o options, stdout io.Writer) (worse int, err error) {
	old := &commandReport{}
	if o.compare != "" {
		if err := readJSON(o.compare, old); err != nil {
			return 0, err
		}
	}
	r, err := o.measureClaims(ctx, stdout)
	if err != nil {
		return 0, err
	}
	err = r.tables(stdout)
	if o.json != "" {
		err = errors.Join(err, writeJSON(o.json, r))
	}
	if o.markdown != "" {
		err = errors.Join(err, r.writeMarkdown(o.markdown))
	}
	if o.compare != "" && err == nil {
		worse = compareClaims(stdout, r, old, o.tolerance)
		fmt.Fprintf(stdout, "%d ratios compared; %d are worse by more than a factor of %s\n", len(r.Claims), worse, digits(o.tolerance))
	}
	return worse, err
}

// measureClaims measures the command, requests over HTTP, or flows.
func (o *options) measureClaims(ctx context.Context, stdout io.Writer) (r *commandReport, err error) {
	if o.serve {
		return measureServe(ctx, o.rounds, stdout)
	}
	t, err := newTools(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	if o.flows {
		return measureFlows(ctx, t, o, stdout)
	}
	return measureCommand(ctx, t, o.rounds, o.chunks, o.most, stdout)
}

// bench measures, writes and compares, and returns how many ratios are worse.
func bench(ctx context.Context, o options, stdout io.Writer) (worse int, err error) {
	if o.command || o.serve || o.flows {
		return benchCommand(ctx, o, stdout)
	}
	var old *report
	if o.compare != "" { // read it before minutes of measuring
		if old, err = readReport(o.compare); err != nil {
			return 0, err
		}
	}
	t, err := newTools(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	r := newReport(o.rounds)
	for _, k := range o.kernels {
		w, err := newWork(ctx, k, t)
		if err != nil {
			return 0, err
		}
		results, absents, err := measureKernel(ctx, w, o.sides, o.rounds)
		if err != nil {
			return 0, err
		}
		r.Results, r.Absent = append(r.Results, results...), append(r.Absent, absents...)
		if err := writeTable(stdout, k, results, absents); err != nil {
			return 0, err
		}
	}
	if err := o.write(r); err != nil || old == nil {
		return 0, err
	}
	fmt.Fprintln(stdout)
	worse, compared := compare(stdout, r, old, o.tolerance)
	if compared == 0 {
		return 0, fmt.Errorf("%s: missing all measured kernels and sides", o.compare)
	}
	return worse, nil
}

func (o *options) write(r *report) error {
	if o.json != "" {
		if err := r.writeJSON(o.json); err != nil {
			return err
		}
	}
	if o.markdown != "" {
		return r.writeMarkdown(o.markdown, o.kernels, o.sides)
	}
	return nil
}
