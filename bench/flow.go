package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// flows measures runs of flows, in CPU time. A sample is one round.
type flows struct {
	*commands
	most    int    // roots of the largest run, and children of one item
	modules string // pattern of their paths
	file    string // definition of the flow of three states
	ended   string // report of the last run
}

const (
	flowStates = 3
	mostRoots  = 1_000_000 // of a run
	mostTimed  = 100_000   // roots of the runs that are compared with others
	fewRoots   = 10_000
	largeEvery = 3 // rounds: large runs take most of the time
)

// Names of samples, in CPU nanoseconds.
const (
	flowFirst   = "flow run, three states, an item and state"
	flowAgain   = "flow run again, an item and state"
	flowWatched = "flow run while others ask for its status, an item and state"
	flowBeside  = "flow run while others ask for the status of a flow in another store, an item and state"
	flowRuns    = "three runs of run, a chunk and run"
	flowStart   = "flow run, three states, one root"
	flowStatus  = "reports of status in a second of such a run"
)

func flowOf(n int) string {
	return fmt.Sprintf("flow run, %d roots, without the start, an item and state", n)
}

func flowMemory(n int) string { return fmt.Sprintf("peak memory, %d roots", n) }

func childOf(n int) string {
	return fmt.Sprintf("flow run, %d children of one item and a join, a child", n)
}

func childMemory(n int) string { return fmt.Sprintf("peak memory, %d children of one item", n) }

// measureFlows measures all claims about flows.
func measureFlows(ctx context.Context, t *tools, o *options, to io.Writer) (*commandReport, error) {
	c, err := newCommands(ctx, t, o.rounds, min(o.chunks, mostTimed), to)
	if err != nil {
		return nil, err
	}
	f := &flows{
		commands: c, most: min(o.most, mostRoots),
		modules: filepath.Join(t.dir, "noop-%d.wasm"), file: filepath.Join(t.dir, "three.yaml"), ended: filepath.Join(t.dir, "flow.json"),
	}
	if err := f.prepare(); err != nil {
		return nil, err
	}
	for round := range f.rounds {
		fmt.Fprintf(to, "flows: round %d of %d\n", round+1, f.rounds)
		parts := []func(context.Context, int) error{f.compared, f.functions}
		if round%largeEvery == 0 {
			parts = append(parts, f.scaled, f.children)
		}
		for _, part := range parts {
			if err := part(ctx, round); err != nil {
				return nil, err
			}
		}
	}
	f.conclude()
	return f.report, nil
}

// prepare writes the definitions, and modules with the same code that differ in a custom
// section: states of one module would share their outputs.
func (f *flows) prepare() error {
	code, err := os.ReadFile(filepath.Join("guests", "noop.wasm"))
	if err != nil {
		return err
	}
	var states bytes.Buffer
	states.WriteString("flow: three\nstates:\n")
	for i := range flowStates {
		section := []byte{0, 2, 1, '0' + byte(i)} // its id, its size, and a name of one byte
		err = errors.Join(err, os.WriteFile(fmt.Sprintf(f.modules, i), append(bytes.Clone(code), section...), 0o600))
		fmt.Fprintf(&states, "  s%d: {module: noop-%d.wasm, next: s%d}\n", i, i, i+1)
	}
	fmt.Fprintf(&states, "  s%d: {end: true}\n", flowStates)
	err = errors.Join(err, os.WriteFile(f.file, states.Bytes(), 0o600))
	for _, name := range []string{"children.wasm", "size.wasm"} {
		wasm, readErr := os.ReadFile(filepath.Join("guests", name))
		err = errors.Join(err, readErr, os.WriteFile(filepath.Join(f.dir, name), wasm, 0o600))
	}
	return errors.Join(err, os.WriteFile(filepath.Join(f.dir, "children.yaml"), []byte(`flow: children
states:
  a: {module: children.wasm, returns: move, to: [c, j], children: {join: j}}
  c: {module: size.wasm, next: done}
  j: {module: size.wasm, next: done}
  done: {end: true}
`), 0o600))
}

// sample adds a value of one round. Only times are listed.
func (f *flows) sample(name string, value float64, listed bool) {
	if f.samples[name] == nil && listed {
		f.order = append(f.order, name)
	}
	f.samples[name] = append(f.samples[name], value)
}

// flow runs a flow over a file.
func (f *flows) flow(ctx context.Context, store, file, chunks string) (usage, error) {
	return f.finish(ctx, "flow run", f.ours, "flow", "run", "--progress", "none", "--max-output", "64MiB", "--store", store,
		"-o", filepath.Join(f.dir, "result.cbor"), "--report", f.ended, file, chunks)
}

// steps runs the flow of three states over n roots, and returns the CPU time of an item
// and state.
func (f *flows) steps(ctx context.Context, store string, n int) (each float64, u usage, err error) {
	file, err := f.numbers(n)
	if err != nil {
		return 0, u, err
	}
	u, err = f.flow(ctx, store, f.file, file)
	return u.cpu / float64(n*flowStates), u, err
}

// inStore calls use with a store that does not exist yet, and removes it.
func (f *flows) inStore(use func(store string) error) error {
	store := filepath.Join(f.dir, "flow-store")
	defer os.RemoveAll(store)
	return use(store)
}

// compared runs the flow, the same flow again, the same while others watch it or another
// flow, and three jobs. Each round begins with another of these.
func (f *flows) compared(ctx context.Context, round int) error {
	parts := []func(context.Context, string) error{f.twice, f.watched, f.alongside, f.threeRuns}
	for i := range parts {
		if err := f.inStore(func(store string) error { return parts[(i+round)%len(parts)](ctx, store) }); err != nil {
			return err
		}
	}
	return nil
}

func (f *flows) twice(ctx context.Context, store string) error {
	first, _, err := f.steps(ctx, store, f.chunks)
	if err != nil {
		return err
	}
	again, _, err := f.steps(ctx, store, f.chunks)
	if err != nil {
		return err
	}
	f.sample(flowFirst, first, true)
	f.sample(flowAgain, again, true)
	return f.nothingExecuted()
}

// nothingExecuted checks the report of the last run.
func (f *flows) nothingExecuted() error {
	var r struct {
		Instances struct{ Created int }
		States    []struct{ Attempts, Reused int }
	}
	if err := readJSON(f.ended, &r); err != nil {
		return err
	}
	attempts, reused := 0, 0
	for _, s := range r.States {
		attempts, reused = attempts+s.Attempts, reused+s.Reused
	}
	if all := f.chunks * flowStates; attempts != 0 || r.Instances.Created != 0 || reused != all {
		return fmt.Errorf("a finished flow, run again, executed %d steps in %d instances and found %d: want 0, 0 and %d", attempts, r.Instances.Created, reused, all)
	}
	return nil
}

// threeRuns runs each module as a job of its own, over as many chunks.
func (f *flows) threeRuns(ctx context.Context, store string) error {
	file, err := f.numbers(f.chunks)
	if err != nil {
		return err
	}
	sum := 0.0
	for i := range flowStates {
		u, err := f.finish(ctx, "run", f.ours, "run", "--progress", "none", "--store", store,
			"-o", filepath.Join(f.dir, "result.cbor"), fmt.Sprintf(f.modules, i), file)
		if err != nil {
			return err
		}
		sum += u.cpu
	}
	f.sample(flowRuns, sum/float64(f.chunks*flowStates), true)
	return nil
}

// watched runs the flow while other processes ask for its status.
func (f *flows) watched(ctx context.Context, store string) error {
	each, often, err := f.whileAsked(ctx, store, store)
	f.sample(flowWatched, each, true)
	f.sample(flowStatus, often, false)
	return err
}

// alongside runs the flow while other processes ask for the status of a finished flow in
// another store. They take the same time from the machine, and nothing from the run's store.
func (f *flows) alongside(ctx context.Context, store string) error {
	other := store + "-other"
	defer os.RemoveAll(other)
	if _, _, err := f.steps(ctx, other, f.chunks); err != nil {
		return err
	}
	each, _, err := f.whileAsked(ctx, store, other)
	f.sample(flowBeside, each, true)
	return err
}

// whileAsked runs the flow while other processes ask for the status of the flow in a store.
// It returns how often a second they got a report.
func (f *flows) whileAsked(ctx context.Context, store, about string) (each, often float64, err error) {
	asking, stop := context.WithCancel(ctx)
	var asked sync.WaitGroup
	shown := 0
	start := time.Now()
	asked.Go(func() { shown = f.ask(asking, about) })
	each, _, err = f.steps(ctx, store, f.chunks)
	taken := time.Since(start)
	stop()
	asked.Wait()
	return each, float64(shown) / taken.Seconds(), err
}

// maxAsking bounds the processes that ask at once, if the machine is slower than the clock.
const maxAsking = 4

// ask asks for the status 20 times a second until ctx ends, and returns how often it got
// a report: before the run has begun, there is none.
func (f *flows) ask(ctx context.Context, store string) int {
	var shown atomic.Int64
	var all sync.WaitGroup
	free := make(chan struct{}, maxAsking)
	tick := time.NewTicker(time.Second / 20)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			all.Wait()
			return int(shown.Load())
		}
		select {
		case free <- struct{}{}:
			all.Go(func() { // it may take longer than the period
				if exec.Command(f.ours, "flow", "status", "--json", "--store", store, "three").Run() == nil {
					shown.Add(1)
				}
				<-free
			})
		default:
		}
	}
}

// scaled runs the flow over few roots and over most, and subtracts the time of a run over
// one root.
func (f *flows) scaled(ctx context.Context, _ int) error {
	start, _, err := f.fresh(ctx, 1)
	if err != nil {
		return err
	}
	start *= flowStates
	f.sample(flowStart, start, true)
	for _, n := range []int{fewRoots, f.most} {
		times := max(1, 30_000/n) // small runs are short
		sum := 0.0
		for range times {
			each, u, err := f.fresh(ctx, n)
			if err != nil {
				return err
			}
			sum += each - start/float64(n*flowStates)
			f.sample(flowMemory(n), float64(u.peak), false)
		}
		f.sample(flowOf(n), sum/float64(times), true)
	}
	return nil
}

// fresh runs the flow in a store of its own.
func (f *flows) fresh(ctx context.Context, n int) (each float64, u usage, err error) {
	err = f.inStore(func(store string) (err error) {
		each, u, err = f.steps(ctx, store, n)
		return err
	})
	return each, u, err
}

// children runs one item with as many children as the largest run has roots, for which
// the item waits.
func (f *flows) children(ctx context.Context, _ int) error {
	file := filepath.Join(f.dir, "one.cbor")
	if err := os.WriteFile(file, abi.AppendHead(nil, abi.MajorUint, uint64(f.most)), 0o600); err != nil {
		return err
	}
	return f.inStore(func(store string) error {
		u, err := f.flow(ctx, store, filepath.Join(f.dir, "children.yaml"), file)
		f.sample(childOf(f.most), u.cpu/float64(f.most), true)
		f.sample(childMemory(f.most), float64(u.peak), false)
		return err
	})
}

// aboutFlows is the part of a report that only flows have.
type aboutFlows struct {
	Peers  []peer     `json:"peers"`
	Memory []quantity `json:"memory"` // peaks of processes, in bytes
	Status quartiles  `json:"status"` // reports a second in the runs that were watched
}

type quantity struct {
	Name  string    `json:"name"`
	Value quartiles `json:"value"`
}

// conclude makes the report.
func (f *flows) conclude() {
	about := &aboutFlows{Status: quartilesOf(f.samples[flowStatus])}
	f.claim("three states, durable, to three runs of run", flowFirst, flowRuns, 1.2, false)
	if f.most > fewRoots {
		f.claim(fmt.Sprintf("an item and state of %d roots, to one of %d", f.most, fewRoots), flowOf(f.most), flowOf(fewRoots), 1.15, false)
	}
	for _, name := range []string{flowMemory(f.most), childMemory(f.most)} {
		f.against(name+", to 300 MiB", name, 300<<20)
		about.Memory = append(about.Memory, quantity{name, quartilesOf(f.samples[name])})
	}
	f.claim("a finished flow again, to the first run", flowAgain, flowFirst, 0.35, false)
	f.claim("a run while others ask for its status, to one that nobody watches", flowWatched, flowFirst, 1.05, false)
	f.claim("a run while others ask for its status, to one while they ask about another", flowWatched, flowBeside, 1.05, false)
	f.against(goStep+", to 2 µs", goStep, 2000)
	for _, p := range flowPeers() {
		if p.lead > 0 {
			f.claim("a step of "+p.name+", to ours, durable", p.sample(), durableStep.sample(), p.lead, true)
		}
		about.Peers = append(about.Peers, p.about())
	}
	for _, name := range f.order {
		f.report.Timings = append(f.report.Timings, timing{Name: "CPU: " + name, NS: quartilesOf(f.samples[name])})
	}
	f.report.Flows = about
}

// tables prints the tables that only flows have.
func (a *aboutFlows) tables(to io.Writer) {
	if a == nil {
		return
	}
	fmt.Fprintln(to, "\n| memory | median (quartiles) |\n|---|--:|")
	for _, m := range a.Memory {
		fmt.Fprintf(to, "| %s | %s |\n", m.Name, m.Value.spread(func(v float64) string { return fmt.Sprintf("%.0f MiB", v/(1<<20)) }))
	}
	fmt.Fprintf(to, "\nThe run that others watch answered %s times a second.\n", a.Status.spread(digits))
	fmt.Fprintln(to, "\n| program | version | steps in a round | what is durable, and when |\n|---|---|--:|---|")
	for _, p := range a.Peers {
		fmt.Fprintf(to, "| %s | %s | %d | %s |\n", p.Name, p.Version, p.Steps, p.Durable)
	}
}

// against adds a claim that a sample is at most a constant.
func (f *flows) against(name, of string, most float64) {
	f.samples[name] = nil
	for range f.samples[of] {
		f.samples[name] = append(f.samples[name], most)
	}
	f.claim(name, of, name, 1, false)
}
