package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

var updateReceipts = flag.Bool("update-receipts", false, "write testdata/receipts again")

const receiptsDir = "../../testdata/receipts"

// receiptCase is a job whose receipt is committed, with its chunks, its outputs
// and its aggregate.
type receiptCase struct {
	name    string
	module  string
	context string // JSON; "" = none
	seed    uint64
	chunks  []string // JSON
	command runtime.Command
}

func receiptCases() []receiptCase {
	cases := []receiptCase{
		{name: "empty", module: "guest-examples/square/c/square.wasm"},
		{name: "square", module: "guest-examples/square/c/square.wasm"},
		{name: "wordcount", module: "guest-examples/wordcount/c/wordcount.wasm"},
		{name: "pi", module: "guest-examples/pi/c/pi.wasm", seed: 1<<64 - 1},
		{name: "faulty", module: "guest-examples/faulty/c/faulty.wasm", seed: 7},
		{name: "floats", module: "testdata/wasm/floats.wasm"},
		{name: "merge", module: "testdata/wasm/echo-merge.wasm"},
		{name: "context", module: "testdata/wasm/context.wasm", context: `{"scale":3}`},
		{name: "lasting", module: "testdata/wasm/lasting.wasm"},
		{name: "command", module: "testdata/command/command.wasm", command: runtime.Command{
			Args: []string{"env", "é <&> \"\\\n\u2028"}, Env: []string{"A=", "B=x, y"}, Stdin: runtime.StdinCBOR,
		}},
	}
	numbers := func(n int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprint(i))
		}
		return list
	}
	cases[1].chunks = append(numbers(300), `{"id":"negative","n":-7}`, `{"id":"large","n":4294967295}`)
	for i := range 40 {
		cases[2].chunks = append(cases[2].chunks, fmt.Sprintf(`{"id":"page %02d","text":"The %d words of page %d, and the words of others"}`, i*7%40, i, i*i))
		cases[3].chunks = append(cases[3].chunks, fmt.Sprintf(`{"id":%d,"n":%d}`, 1000-i, 1000+i))
	}
	cases[4].chunks = []string{`0`, `"text"`, `{"do":"ok","value":[1,{"a":null}]}`, `{"do":"random","size":40}`, `{"do":"random","size":40}`,
		`{"do":"clock"}`, `{"do":"counter"}`, `{"do":"counter"}`, `{"do":"dirty"}`, `{"do":"counter"}`, `{"do":"big","size":3000}`,
		`{"do":"grown"}`, `{"do":"log","lines":3}`, `{"do":"heartbeat","times":5}`, `{"do":"print"}`, `{"do":"work","n":5000}`}
	cases[5].chunks = append(numbers(24), "300", "700")
	cases[9].chunks = []string{`{"id":"map"}`, `17`, `"text"`}
	cases[6].chunks, cases[7].chunks, cases[8].chunks = numbers(70), numbers(3), numbers(9)
	return cases
}

// flags returns the flags of run for the job.
func (c *receiptCase) flags() []string {
	flags := []string{"--seed", fmt.Sprint(c.seed)}
	if c.context != "" {
		flags = append(flags, "--context", c.contextFile())
	}
	for _, arg := range c.command.Args {
		flags = append(flags, "--arg="+arg)
	}
	for _, pair := range c.command.Env {
		flags = append(flags, "--env="+pair)
	}
	if c.command.Stdin != "" {
		flags = append(flags, "--stdin", string(c.command.Stdin))
	}
	return flags
}

func (c *receiptCase) path(ending string) string { return filepath.Join(receiptsDir, c.name+ending) }

func (c *receiptCase) modulePath() string { return filepath.Join("../..", c.module) }

// contextFile returns the path of the context, or "".
func (c *receiptCase) contextFile() string {
	if c.context == "" {
		return ""
	}
	return c.path(".context.cbor")
}

// items converts JSON values to CBOR.
func items(t *testing.T, texts ...string) []byte {
	t.Helper()
	var all []byte
	for _, text := range texts {
		item, err := notation.ParseExact([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, item...)
	}
	return all
}

// job returns the job, over the committed chunk file.
func (c *receiptCase) job(t *testing.T) *host.Job {
	t.Helper()
	module, err := os.ReadFile(c.modulePath())
	if err != nil {
		t.Fatal(err)
	}
	file, err := chunks.Open(t.Context(), c.path(".cbor"), chunks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	job := &host.Job{Module: module, Chunks: file, Retry: host.DefaultRetry(), Settings: runtime.Settings{Seed: c.seed, Command: c.command}}
	if c.context != "" {
		job.Settings.Context = items(t, c.context)
	}
	return job
}

func runJob(t *testing.T, job *host.Job, config host.Config) (*host.Result, error) {
	t.Helper()
	coordinator, err := host.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer coordinator.Close(context.Background())
	return coordinator.Run(t.Context(), job)
}

// receiptOf runs a job and returns the bytes of its receipt.
func receiptOf(t *testing.T, job *host.Job, config host.Config) []byte {
	t.Helper()
	result, err := runJob(t, job, config)
	if err != nil {
		t.Fatal(err)
	}
	return bytesOf(t, result)
}

func bytesOf(t *testing.T, result *host.Result) []byte {
	t.Helper()
	if len(result.Report.Failures) > 0 {
		t.Fatalf("chunk %v failed: %v", result.Report.Failures[0].ID, &result.Report.Failures[0].Failure)
	}
	r, err := result.Receipt()
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newTestEngine(t *testing.T, interpreter bool) host.Engine {
	t.Helper()
	r, err := runtime.New(t.Context(), runtime.Config{Interpreter: interpreter})
	if err != nil {
		t.Fatal(err)
	}
	engine := host.NewEngine(r)
	t.Cleanup(func() { engine.Close(context.Background()) })
	return engine
}

// stopAfterFirst ends a job softly after a chunk has succeeded.
type stopAfterFirst struct{ stop func() }

func (s stopAfterFirst) Progress(_ string, c host.Counts) {
	if c.Succeeded > 0 {
		s.stop()
	}
}
func (stopAfterFirst) Wants() event.Detail  { return event.ProgressOnly }
func (stopAfterFirst) Observe([]host.Event) {}

// TestReceiptsAreTheSameHoweverTheJobIsRun compares the committed receipts with runs on
// both engines, with different numbers of workers, in both isolation modes, and after an
// interruption. The race detector makes the interpreter 20 times slower. Under it, the
// interpreter has only the run with most workers, because concurrency does not depend on
// the engine.
func TestReceiptsAreTheSameHoweverTheJobIsRun(t *testing.T) {
	for _, interpreter := range []bool{false, true} {
		engine := newTestEngine(t, interpreter)
		for _, c := range receiptCases() {
			t.Run(fmt.Sprintf("%s, interpreter %v", c.name, interpreter), func(t *testing.T) {
				want, err := os.ReadFile(c.path(".receipt.json"))
				if err != nil {
					t.Fatal(err)
				}
				counts := []int{1, 2, 16}
				if raceDetector && interpreter {
					counts = counts[2:]
				}
				for _, workers := range counts {
					for _, isolation := range []runtime.Isolation{runtime.IsolationReset, runtime.IsolationInstance} {
						job := c.job(t)
						job.Settings.Isolation = isolation
						if got := receiptOf(t, job, host.Config{Workers: workers, Engine: engine}); !bytes.Equal(got, want) {
							t.Errorf("%d workers, isolation %s: receipt\n%s\nwant\n%s", workers, isolation, got, want)
						}
					}
				}
				if raceDetector && interpreter {
					return
				}
				stopped, half := resumed(t, &c, engine)
				for how, got := range map[string][]byte{"stopped and resumed": stopped, "half of it known": half} {
					if !bytes.Equal(got, want) {
						t.Errorf("%s: receipt\n%s\nwant\n%s", how, got, want)
					}
				}
			})
		}
	}
}

// resumed returns two receipts: of a job that was stopped after its first chunk had
// succeeded and then resumed, and of a job for which the store had half of the outputs.
func resumed(t *testing.T, c *receiptCase, engine host.Engine) (stopped, half []byte) {
	t.Helper()
	open := func() *sqlite.Store {
		s, err := sqlite.Open(t.Context(), t.TempDir(), sqlite.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	s, stop := open(), make(chan struct{})
	job := c.job(t)
	job.Stop = stop
	config := host.Config{Workers: 1, Engine: engine, Store: s, Journal: s, Observer: stopAfterFirst{sync.OnceFunc(func() { close(stop) })}}
	if _, err := runJob(t, job, config); err != nil && !errors.Is(err, host.ErrInterrupted) {
		t.Fatal(err)
	}
	stopped = receiptOf(t, c.job(t), host.Config{Workers: 2, Engine: engine, Store: s, Journal: s})

	s, job = open(), c.job(t)
	var ids abi.IDSet
	for i := range job.Chunks.Len() / 2 {
		ids.Add(job.Chunks.ID(2 * i))
	}
	var err error
	if job.Chunks, err = job.Chunks.(*chunks.File).Select(t.Context(), ids); err != nil {
		t.Fatal(err)
	}
	if _, err := runJob(t, job, host.Config{Engine: engine, Store: s, Journal: s}); err != nil {
		t.Fatal(err)
	}
	result, err := runJob(t, c.job(t), host.Config{Workers: 2, Engine: engine, Store: s, Journal: s})
	if err != nil {
		t.Fatal(err)
	}
	if n := result.Report.Chunks; n.Total > 1 && (n.Reused == 0 || n.Reused == n.Total) {
		t.Errorf("%d of %d chunks were reused", n.Reused, n.Total)
	}
	return stopped, bytesOf(t, result)
}

// TestReceiptsAfterAKill kills the real command after a chunk has succeeded, and checks
// the receipt of the next run.
func TestReceiptsAfterAKill(t *testing.T) {
	for _, c := range receiptCases() {
		if len(c.chunks) == 0 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			flags := []string{"--store", filepath.Join(dir, "store"), "--progress", "none", "-j", "1"}
			flags = append(flags, c.flags()...)
			run := func(more ...string) *exec.Cmd {
				cmd := command(append(append([]string{"run", c.modulePath(), c.path(".cbor")}, flags...), more...)...)
				cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+dir)
				return cmd
			}
			killed := filepath.Join(dir, "killed.json")
			killAtFirst(t, run("--events", "-", "--receipt", killed, "-o", filepath.Join(dir, "o")))
			path, report := filepath.Join(dir, "receipt.json"), filepath.Join(dir, "report.json")
			if out, err := run("--receipt", path, "--report", report, "-f", "cbor").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var counts struct{ Chunks host.Counts }
			if b, err := os.ReadFile(report); err != nil || json.Unmarshal(b, &counts) != nil || counts.Chunks.Reused == 0 {
				t.Errorf("%d outputs were reused, %v: the job was not resumed", counts.Chunks.Reused, err)
			}
			got, err := os.ReadFile(path)
			want, wantErr := os.ReadFile(c.path(".receipt.json"))
			if err := errors.Join(err, wantErr); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("receipt\n%s\nexpected\n%s", got, want)
			}
		})
	}
}

// killAtFirst kills a run when it reports that a chunk succeeded.
func killAtFirst(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	events, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(events)
	for {
		var e struct{ Event string }
		if err := d.Decode(&e); err != nil {
			t.Errorf("the run ended before a chunk succeeded: %v", err)
			break
		}
		if e.Event == string(event.KindSucceeded) {
			break
		}
	}
	cmd.Process.Kill()
	_ = cmd.Wait() // killed, or at its end already
}

// TestUpdateReceipts writes the files that the other tests read, with -update-receipts.
func TestUpdateReceipts(t *testing.T) {
	if !*updateReceipts {
		t.Skip("-update-receipts writes testdata/receipts again")
	}
	engine := newTestEngine(t, false)
	for _, c := range receiptCases() {
		err := os.WriteFile(c.path(".cbor"), items(t, c.chunks...), 0o666)
		if err == nil && c.context != "" {
			err = os.WriteFile(c.contextFile(), items(t, c.context), 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
		b := receiptOf(t, c.job(t), host.Config{Engine: engine})
		if err := os.WriteFile(c.path(".receipt.json"), b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}
