package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// claim is a claim about the whole command: the ratio of two times of one round, and
// its limit.
type claim struct {
	Name  string    `json:"name"`
	Ratio quartiles `json:"ratio"`
	Limit float64   `json:"limit"`
	Least bool      `json:"least,omitempty"` // Limit is a lower bound
}

func (c *claim) holds() bool {
	if c.Least {
		return c.Ratio.median() >= c.Limit
	}
	return c.Ratio.median() <= c.Limit
}

// timing is a time and the peak memory that belongs to it.
type timing struct {
	Name   string    `json:"name"`
	NS     quartiles `json:"ns"`
	Memory int64     `json:"memory,omitempty"` // bytes; 0 = unknown
}

// commandReport has the measurements of the command.
type commandReport struct {
	Version int         `json:"version"`
	Machine machine     `json:"machine"`
	Rounds  int         `json:"rounds"`
	Chunks  int         `json:"chunks"` // of the job of tiny chunks
	Claims  []claim     `json:"claims"`
	Timings []timing    `json:"timings"`
	Scale   []scaling   `json:"scale"`
	Flows   *aboutFlows `json:"flows,omitempty"` // nil unless flows were measured
}

// scaling is one job in the table of scale. Times are nanoseconds per chunk.
type scaling struct {
	Chunks  int     `json:"chunks"`
	NS      float64 `json:"ns"`      // without a store
	Durable float64 `json:"durable"` // with a store
	Again   float64 `json:"again"`   // when all outputs are stored
	Memory  int64   `json:"memory"`  // peak with a store, in bytes
}

// commands measures the command, run as a process.
type commands struct {
	*tools
	rounds  int
	chunks  int
	to      io.Writer
	ours    string // binary
	module  string // square, in C
	report  *commandReport
	samples map[string][]float64 // nanoseconds by name, one per round
	memory  map[string]int64
	order   []string // names in the order of their first sample
}

// measureCommand measures all claims about the command.
func measureCommand(ctx context.Context, t *tools, rounds, chunks, most int, to io.Writer) (*commandReport, error) {
	c, err := newCommands(ctx, t, rounds, chunks, to)
	if err != nil {
		return nil, err
	}
	for _, part := range []func(context.Context) error{c.tiny, c.tinyGo, c.millisecond, c.start} {
		if err := part(ctx); err != nil {
			return nil, err
		}
	}
	for _, name := range c.order {
		c.report.Timings = append(c.report.Timings, timing{name, quartilesOf(c.samples[name]), c.memory[name]})
	}
	return c.report, c.scale(ctx, most)
}

// newCommands builds the command.
func newCommands(ctx context.Context, t *tools, rounds, chunks int, to io.Writer) (c *commands, err error) {
	c = &commands{
		tools: t, rounds: rounds, chunks: chunks, to: to, samples: map[string][]float64{}, memory: map[string]int64{},
		module: filepath.Join("..", "guest-examples", "square", "c", "square.wasm"),
		report: &commandReport{Version: reportVersion, Machine: thisMachine(), Rounds: rounds, Chunks: chunks},
	}
	c.ours, err = t.binary(ctx, ourCommand)
	return c, err
}

// took adds the time of one round.
func (c *commands) took(name string, d time.Duration) {
	if c.samples[name] == nil {
		c.order = append(c.order, name)
	}
	c.samples[name] = append(c.samples[name], float64(d))
}

// claim adds a claim about the ratio of two times, named by of and to.
func (c *commands) claim(name, of, to string, limit float64, least bool) {
	ratios := make([]float64, len(c.samples[of]))
	for i := range ratios {
		ratios[i] = c.samples[of][i] / c.samples[to][i]
	}
	c.report.Claims = append(c.report.Claims, claim{name, quartilesOf(ratios), limit, least})
}

// run runs the command and returns how long it took.
func (c *commands) run(ctx context.Context, name string, args ...string) (time.Duration, error) {
	return c.process(ctx, name, append([]string{c.ours, "run", "--progress", "none"}, args...)...)
}

func (c *commands) process(ctx context.Context, name string, args ...string) (time.Duration, error) {
	start := time.Now()
	usage, err := c.finish(ctx, name, args...)
	taken := time.Since(start)
	c.memory[name] = max(c.memory[name], usage.peak)
	return taken, err
}

// usage is what a process took.
type usage struct {
	cpu  float64 // nanoseconds, user and system
	peak int64   // memory in bytes; 0 = unknown
}

// finish runs a process to its end.
func (c *commands) finish(ctx context.Context, name string, args ...string) (u usage, err error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+c.dir)
	var messages bytes.Buffer
	cmd.Stderr = &messages
	if err := cmd.Run(); err != nil {
		return u, fmt.Errorf("%s: %w: %s", name, err, lastLine(messages.Bytes()))
	}
	u.cpu = float64(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime())
	if r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.peak = r.Maxrss << 10
	}
	return u, nil
}

// numbers writes a chunk file with the numbers below n.
func (c *commands) numbers(n int) (path string, err error) {
	path = filepath.Join(c.dir, fmt.Sprintf("numbers-%d.cbor", n))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	w := bufio.NewWriter(file)
	var item []byte
	for i := range n {
		item = abi.AppendHead(item[:0], abi.MajorUint, uint64(i))
		w.Write(item) // Flush returns its error
	}
	return path, errors.Join(w.Flush(), file.Close())
}

// loop opens a loop of resets and calls in this process.
func (c *commands) loop(ctx context.Context, wasm, chunk []byte) (runner, error) {
	return openOurs(ours{})(ctx, &work{kernel: kernel{chunk: chunk}, modules: modules{abi: wasm}, tools: c.tools})
}

const (
	bareLoop   = "reset and call in a loop, a chunk"
	inMemory   = "run --no-store, a chunk"
	withStore  = "run, a chunk"
	storeAgain = "run again, a chunk"
)

// tiny runs a job of tiny chunks.
func (c *commands) tiny(ctx context.Context) error {
	fmt.Fprintf(c.to, "%d tiny chunks\n", c.chunks)
	file, err := c.numbers(c.chunks)
	if err != nil {
		return err
	}
	wasm, err := os.ReadFile(c.module)
	if err != nil {
		return err
	}
	loop, err := c.loop(ctx, wasm, abi.AppendHead(nil, abi.MajorUint, 123_456))
	if err != nil {
		return err
	}
	defer loop.close()
	w, err := newWork(ctx, kernels()[0], c.tools)
	if err != nil {
		return err
	}
	peers := []side{}
	for _, s := range sides() {
		if s.name == "wazero-new" || s.name == "extism-reused" {
			peers = append(peers, s)
		}
	}
	opened, err := openAll(ctx, peers, w)
	defer closeAll(opened)
	if err != nil {
		return err
	}
	for range c.rounds {
		if err := c.tinyRound(ctx, file, loop, opened); err != nil {
			return err
		}
	}
	c.claim("tiny chunks, --no-store, to a loop of resets and calls on one processor", inMemory, bareLoop, 2, false)
	c.claim("tiny chunks, durable, to the same loop", withStore, bareLoop, 5, false)
	c.claim("tiny chunks, durable, to --no-store", withStore, inMemory, 2.5, false)
	c.claim("tiny chunks, all stored before, to the first run", storeAgain, withStore, 0.1, false)
	for _, s := range opened {
		limit := map[string]float64{"wazero-new": 30, "extism-reused": 50}[s.side.name]
		c.claim("tiny chunks, "+s.side.name+" to run --no-store", s.side.name+", a chunk", inMemory, limit, true)
	}
	return nil
}

func (c *commands) tinyRound(ctx context.Context, file string, loop runner, peers []opened) error {
	n := time.Duration(c.chunks)
	store := filepath.Join(c.dir, "store")
	defer os.RemoveAll(store)
	start := time.Now()
	if _, err := loop.run(ctx, c.chunks); err != nil {
		return err
	}
	c.took(bareLoop, time.Since(start)/n)
	for _, one := range []struct {
		name string
		args []string
	}{{inMemory, []string{"--no-store"}}, {withStore, []string{"--store", store}}, {storeAgain, []string{"--store", store}}} {
		d, err := c.run(ctx, one.name, append(one.args, c.module, file)...)
		if err != nil {
			return err
		}
		c.took(one.name, d/n)
	}
	for _, s := range peers {
		start := time.Now()
		if _, err := s.runner.run(ctx, 1000); err != nil {
			return err
		}
		c.took(s.side.name+", a chunk", time.Since(start)/1000)
	}
	return nil
}

// tinyGo calls a guest in Go with a chunk that takes little work.
func (c *commands) tinyGo(ctx context.Context) error {
	fmt.Fprintln(c.to, "a guest in Go")
	wasm, err := buildGuest(ctx, "noopgo", c.dir)
	if err != nil {
		return err
	}
	k := kernels()[0]
	w := &work{kernel: k, modules: modules{abi: wasm, wasi: true}, want: k.chunk, tools: c.tools}
	opened, err := openAll(ctx, []side{
		inProcess("reset and call, a guest in Go", "", openOurs(ours{})),
		inProcess("a new instance of plain wazero and a call, a guest in Go", "", openWazero(false)),
	}, w)
	defer closeAll(opened)
	if err != nil {
		return err
	}
	for range c.rounds {
		for i, calls := range []int{10_000, 20} {
			start := time.Now()
			if _, err := opened[i].runner.run(ctx, calls); err != nil {
				return err
			}
			c.took(opened[i].side.name, time.Since(start)/time.Duration(calls))
		}
	}
	c.claim("a tiny call of a guest in Go on a new instance of plain wazero, to ours", opened[1].side.name, opened[0].side.name, 300, true)
	return nil
}

// millisecond runs a job of chunks of a millisecond each.
func (c *commands) millisecond(ctx context.Context) error {
	const n = 2000
	fmt.Fprintf(c.to, "%d chunks of a millisecond\n", n)
	module := filepath.Join("..", "runtime", "testdata", "kernels.wasm")
	wasm, err := os.ReadFile(module)
	if err != nil {
		return err
	}
	const montecarlo = 11 // its index in kernels.wasm
	chunk := func(rounds int) []byte {
		item := abi.AppendHead(nil, abi.MajorArray, 2)
		return abi.AppendHead(abi.AppendHead(item, abi.MajorUint, montecarlo), abi.MajorUint, uint64(rounds))
	}
	rounds, err := c.calibrate(ctx, wasm, chunk)
	if err != nil {
		return err
	}
	whole, half := filepath.Join(c.dir, "ms.cbor"), filepath.Join(c.dir, "ms-half.cbor")
	// The chunks differ, and take about the same time.
	for path, n := range map[string]int{whole: n, half: n / 2} {
		var items []byte
		for i := range n {
			items = append(items, chunk(rounds+i%7)...)
		}
		if err := os.WriteFile(path, items, 0o600); err != nil {
			return err
		}
	}
	loop, err := c.loop(ctx, wasm, chunk(rounds+3))
	if err != nil {
		return err
	}
	defer loop.close()
	for range c.rounds {
		start := time.Now()
		if _, err := loop.run(ctx, n); err != nil {
			return err
		}
		c.took("1 ms chunks: the loop", time.Since(start))
		for _, workers := range []string{"1", "2"} {
			name := "1 ms chunks: run -j " + workers
			d, err := c.run(ctx, name, "--no-store", "--chunk-format", "sequence", "-j", workers, module, whole)
			if err != nil {
				return err
			}
			c.took(name, d)
		}
		d, err := c.pair(ctx, module, half)
		if err != nil {
			return err
		}
		c.took("1 ms chunks: two processes", d)
	}
	c.claim("1 ms chunks, -j 1, to the loop", "1 ms chunks: run -j 1", "1 ms chunks: the loop", 1.02, false)
	c.claim("1 ms chunks, two processes of half each, to -j 2", "1 ms chunks: two processes", "1 ms chunks: run -j 2", 0.95, true)
	return nil
}

// calibrate returns the number of rounds that take a millisecond.
func (c *commands) calibrate(ctx context.Context, wasm []byte, chunk func(rounds int) []byte) (int, error) {
	const rounds, calls = 10_000, 50
	loop, err := c.loop(ctx, wasm, chunk(rounds))
	if err != nil {
		return 0, err
	}
	defer loop.close()
	best := time.Hour
	for range 5 {
		start := time.Now()
		if _, err := loop.run(ctx, calls); err != nil {
			return 0, err
		}
		best = min(best, time.Since(start)/calls)
	}
	return int(rounds * float64(time.Millisecond) / float64(best)), nil
}

// pair runs two processes with one worker each at the same time.
func (c *commands) pair(ctx context.Context, module, half string) (time.Duration, error) {
	start := time.Now()
	done := make(chan error, 2)
	for range 2 {
		go func() {
			cmd := exec.CommandContext(ctx, c.ours, "run", "--progress", "none", "--no-store", "--chunk-format", "sequence", "-j", "1", module, half)
			cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+c.dir)
			done <- cmd.Run()
		}()
	}
	err := errors.Join(<-done, <-done)
	return time.Since(start), err
}

// start runs jobs of ten chunks.
func (c *commands) start(ctx context.Context) error {
	fmt.Fprintln(c.to, "starting")
	module := c.module
	file, err := c.numbers(10)
	if err != nil {
		return err
	}
	small, err := c.binary(ctx, ourRunner)
	if err != nil {
		return err
	}
	chunk := filepath.Join(c.dir, "one.cbor")
	if err := os.WriteFile(chunk, []byte{7}, 0o600); err != nil {
		return err
	}
	goGuest := filepath.Join(c.dir, "start-go.wasm")
	guest, err := guestOf(ctx, "json", c.dir)
	if err == nil {
		err = os.WriteFile(goGuest, guest.abi, 0o600)
	}
	if err != nil {
		return err
	}
	texts := filepath.Join(c.dir, "start.cbor")
	if err := os.WriteFile(texts, bytes.Repeat(kernels()[len(kernels())-2].chunk, 10), 0o600); err != nil {
		return err
	}
	store := filepath.Join(c.dir, "start-store")
	if _, err := c.run(ctx, "a first job", "--store", store, module, chunk); err != nil { // creates the store
		return err
	}
	starts := []struct {
		name string
		args []string
	}{
		{"start: run --no-store, 10 chunks", []string{c.ours, "run", "--progress", "none", "--no-store", module, file}},
		{"start: run, 10 new chunks", nil},
		{"start: the smallest program, compiling", []string{small, module, chunk}},
		{"start: the smallest program, cached", []string{small, "-cache", filepath.Join(c.dir, "small"), module, chunk}},
		{"start: run --no-store, 10 chunks, a guest in Go", []string{c.ours, "run", "--progress", "none", "--no-store", goGuest, texts}},
	}
	for round := range 3*c.rounds + 1 {
		for i, s := range starts {
			if s.args == nil { // a new job each time
				fresh := filepath.Join(c.dir, "fresh.cbor")
				if err := os.WriteFile(fresh, bytes.Repeat(abi.AppendHead(nil, abi.MajorUint, uint64(1000+round)), 10), 0o600); err != nil {
					return err
				}
				s.args = []string{c.ours, "run", "--progress", "none", "--store", store, module, fresh}
			}
			d, err := c.process(ctx, starts[i].name, s.args...)
			if err != nil {
				return err
			}
			if round > 0 { // the first round fills the caches
				c.took(s.name, d)
			}
		}
	}
	c.claim("start, 10 chunks, --no-store, to the smallest program that compiles the module and calls it", starts[0].name, starts[2].name, 1.5, false)
	c.claim("start, 10 chunks, --no-store, to 30 ms", starts[0].name, c.fixed(30*time.Millisecond), 1, false)
	c.claim("start, 10 new chunks, durable, to 30 ms", starts[1].name, c.fixed(30*time.Millisecond), 1, false)
	c.claim("start, 10 chunks, a guest in Go, cached, to 150 ms", starts[4].name, c.fixed(150*time.Millisecond), 1, false)
	return nil
}

// fixed adds a constant time to compare with, and returns its name.
func (c *commands) fixed(d time.Duration) string {
	name := d.String()
	c.samples[name] = nil
	for range 3*c.rounds + 1 {
		c.samples[name] = append(c.samples[name], float64(d))
	}
	return name
}

// scale runs jobs of 10,000 chunks, 100,000 and so on, up to most.
func (c *commands) scale(ctx context.Context, most int) error {
	module := filepath.Join("..", "testdata", "wasm", "echo-merge.wasm")
	for n := 10_000; n <= most; n *= 10 {
		fmt.Fprintf(c.to, "%d chunks\n", n)
		file, err := c.numbers(n)
		if err != nil {
			return err
		}
		s := scaling{Chunks: n}
		for range max(1, min(5, 1_000_000/n)) { // small jobs are short: take the best of several
			if err := c.scaleOnce(ctx, &s, module, file); err != nil {
				return err
			}
		}
		c.report.Scale = append(c.report.Scale, s)
		if n > 10_000 {
			_ = os.Remove(file) // if it fails, close removes the directory
		}
	}
	return nil
}

func (c *commands) scaleOnce(ctx context.Context, s *scaling, module, file string) error {
	store := filepath.Join(c.dir, "scale-store")
	defer os.RemoveAll(store)
	c.memory["scale"] = 0
	for _, one := range []struct {
		to   *float64
		args []string
	}{{&s.NS, []string{"--no-store"}}, {&s.Durable, []string{"--store", store}}, {&s.Again, []string{"--store", store}}} {
		name := "scale"
		if one.to == &s.NS {
			name = "in memory" // its memory is not limited
		}
		d, err := c.run(ctx, name, append(one.args, module, file)...)
		if err != nil {
			return err
		}
		if each := float64(d) / float64(s.Chunks); *one.to == 0 || each < *one.to {
			*one.to = each
		}
	}
	s.Memory = max(s.Memory, c.memory["scale"])
	return nil
}

// flat returns the claims about the table of scale.
func (r *commandReport) flat() (claims []claim) {
	at := map[int]scaling{}
	for _, s := range r.Scale {
		at[s.Chunks] = s
	}
	base, most := at[100_000], at[10_000_000]
	if base.Chunks == 0 || most.Chunks == 0 {
		return nil
	}
	one := func(name string, ratio, limit float64) claim {
		return claim{Name: name, Ratio: quartiles{ratio, ratio, ratio}, Limit: limit}
	}
	return []claim{
		one("a chunk of 10,000,000, --no-store, to one of 100,000", most.NS/base.NS, 1.15),
		one("a chunk of 10,000,000, durable, to one of 100,000", most.Durable/base.Durable, 1.15),
		one("peak memory at 10,000,000, durable, to 300 MiB", float64(most.Memory)/(300<<20), 1),
	}
}

// tables prints the report, as Markdown.
func (r *commandReport) tables(to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 0, 1, ' ', tabwriter.Debug)
	what := fmt.Sprintf("%d tiny chunks, a guest in C", r.Chunks)
	switch {
	case r.Flows != nil:
		what = fmt.Sprintf("flows of %d roots, unless a row says otherwise; guests in C", r.Chunks)
	case r.Chunks == 0:
		what = "requests over HTTP"
	}
	fmt.Fprintf(w, "\n%d rounds; %s; %s, %d cores, %s, %s.\n\n", r.Rounds, what, r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.Go)
	fmt.Fprintln(w, "| ratio | median (quartiles) | limit | |\n|---|--:|--:|---|")
	for _, c := range append(r.Claims, r.flat()...) {
		limit, verdict := "at most ", "holds"
		if c.Least {
			limit = "at least "
		}
		if !c.holds() {
			verdict = "**falls short**"
		}
		fmt.Fprintf(w, "| %s | %s | %s%s | %s |\n", c.Name, c.Ratio.spread(digits), limit, digits(c.Limit), verdict)
	}
	fmt.Fprintln(w, "\n| time | median (quartiles) |\n|---|--:|")
	for _, t := range r.Timings {
		fmt.Fprintf(w, "| %s | %s |\n", t.Name, t.NS.spread(duration))
	}
	r.Flows.tables(w)
	if len(r.Scale) == 0 {
		return w.Flush()
	}
	fmt.Fprintln(w, "\n| chunks | time of a chunk, --no-store | durable | all stored before | peak memory, durable |\n|--:|--:|--:|--:|--:|")
	for _, s := range r.Scale {
		fmt.Fprintf(w, "| %d | %s | %s | %s | %d MiB |\n", s.Chunks, duration(s.NS), duration(s.Durable), duration(s.Again), s.Memory>>20)
	}
	return w.Flush()
}

// The lines of a Markdown file that mark the begin and the end of the tables.
const (
	flowsOpening   = "<!-- flows -->"
	flowsClosing   = "<!-- /flows -->"
	serveOpening   = "<!-- serve -->"
	serveClosing   = "<!-- /serve -->"
	commandOpening = "<!-- command -->"
	commandClosing = "<!-- /command -->"
)

func (r *commandReport) writeMarkdown(path string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	opening, closing := commandOpening, commandClosing
	switch {
	case r.Flows != nil:
		opening, closing = flowsOpening, flowsClosing
	case r.Chunks == 0:
		opening, closing = serveOpening, serveClosing
	}
	before, rest, found := strings.Cut(string(old), opening+"\n")
	_, after, closed := strings.Cut(rest, closing)
	if !found || !closed {
		return fmt.Errorf("%s: missing lines %s and %s, which mark the place of the tables: add them", path, opening, closing)
	}
	var tables strings.Builder
	if err := r.tables(&tables); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(before+opening+"\n"+tables.String()+"\n"+closing+after), 0o644)
}

// compareClaims compares the ratios with those of an older run. It returns how many are
// worse by more than the tolerance and have quartiles that do not overlap.
func compareClaims(to io.Writer, now, old *commandReport, tolerance float64) (worse int) {
	before := map[string]claim{}
	for _, c := range old.Claims {
		before[c.Name] = c
	}
	for _, c := range now.Claims {
		was, known := before[c.Name]
		if !known {
			fmt.Fprintf(to, "not compared: %s\n", c.Name)
			continue
		}
		factor, apart := c.Ratio.median()/was.Ratio.median(), c.Ratio[0] >= was.Ratio[2]
		if c.Least {
			factor, apart = 1/factor, c.Ratio[2] <= was.Ratio[0]
		}
		if factor > tolerance && apart {
			worse++
			fmt.Fprintf(to, "worse: %s: %s, was %s\n", c.Name, c.Ratio.spread(digits), was.Ratio.spread(digits))
		}
	}
	return worse
}
