// Bench compares ways to run a chunk of work in a WebAssembly guest: our
// runtime, plain wazero, Extism, wasmtime, a process for each chunk, and Go
// without a sandbox. README.md says how it measures.
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
	f.IntVar(&o.rounds, "rounds", 11, "`number` of times that each side is measured")
	f.StringVar(&o.json, "json", "", "write the results to `FILE`, as JSON")
	f.StringVar(&o.markdown, "markdown", "", "write the tables into `FILE`, between the lines "+opening+" and "+closing)
	f.StringVar(&o.compare, "compare", "", "compare the ratios with those in `FILE`, which -json wrote; exit code 1 where one is worse")
	f.Float64Var(&o.tolerance, "tolerance", 1.5, "`factor` by which a ratio may be worse")
	f.BoolVar(&o.command, "command", false, "measure the whole command, and not the sides")
	f.IntVar(&o.chunks, "chunks", 1_000_000, "how many tiny chunks the command's job has")
	f.IntVar(&o.most, "most", 10_000_000, "how many chunks the largest job of the table of scale has")
	kernelNames := f.String("kernels", "", "measure these `kernels` alone, separated by commas; sha256 is all that begin so")
	sideNames := f.String("sides", "", "measure these `sides` alone, and "+base+", with which they are compared")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("argument %q: there are only flags; -h lists them", f.Arg(0))
	case o.rounds < 1:
		return o, fmt.Errorf("-rounds %d: at least 1 is needed", o.rounds)
	case o.chunks < 1:
		return o, fmt.Errorf("-chunks %d: at least 1 is needed", o.chunks)
	case !(o.tolerance >= 1):
		return o, fmt.Errorf("-tolerance %v: it is a factor of at least 1", o.tolerance)
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

// choose returns those of all that one of the names is for, in their order; all
// of them where there are no names.
func choose[T any](all []T, names string, is func(T, string) bool) ([]T, error) {
	if names == "" {
		return all, nil
	}
	wanted := strings.Split(names, ",")
	for _, name := range wanted {
		if !slices.ContainsFunc(all, func(one T) bool { return is(one, name) }) {
			return nil, fmt.Errorf("there is no %q; README.md lists them", name)
		}
	}
	return slices.DeleteFunc(all, func(one T) bool {
		return !slices.ContainsFunc(wanted, func(name string) bool { return is(one, name) })
	}), nil
}

// benchCommand measures, writes and compares what is claimed of the command.
func benchCommand(ctx context.Context, o options, stdout io.Writer) (worse int, err error) {
	old := &commandReport{}
	if o.compare != "" {
		if err := readJSON(o.compare, old); err != nil {
			return 0, err
		}
	}
	t, err := newTools(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	r, err := measureCommand(ctx, t, o.rounds, o.chunks, o.most, stdout)
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

// bench measures, writes and compares, and returns how many ratios are worse.
func bench(ctx context.Context, o options, stdout io.Writer) (worse int, err error) {
	if o.command {
		return benchCommand(ctx, o, stdout)
	}
	var old *report
	if o.compare != "" { // before minutes are spent
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
		return 0, fmt.Errorf("%s has none of what was measured", o.compare)
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
