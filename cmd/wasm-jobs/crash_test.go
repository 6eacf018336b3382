//go:build unix

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

var crashes = flag.Int("crashes", 100, "how often TestCrashLoop kills a job")

// workChunks is the number of chunks in the job of these tests. Each counts to a few
// thousand, so that the job takes a while.
const workChunks = 2000

// workFile writes a job's chunks, all different.
func workFile(t *testing.T) string {
	t.Helper()
	var b []byte
	for i := range uint32(workChunks) {
		b = append(b, "\xa2\x62do\x64work\x61n\x1a"...)
		b = binary.BigEndian.AppendUint32(b, 20_000+i)
	}
	path := filepath.Join(t.TempDir(), "chunks.cbor")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func workCommand(chunks, outputs string, flags ...string) *exec.Cmd {
	args := []string{"run", "../../guest-examples/faulty/c/faulty.wasm", chunks, "--progress", "none", "--outputs", outputs}
	return command(append(args, flags...)...)
}

// uninterrupted returns the job's outputs and aggregate without a store.
func uninterrupted(t *testing.T, chunks string) (outputs, aggregate []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "outputs")
	aggregate, err := workCommand(chunks, path, "--no-store").Output()
	if err != nil {
		t.Fatal(err)
	}
	outputs, err = os.ReadFile(path)
	if err != nil || len(outputs) == 0 || len(aggregate) == 0 {
		t.Fatalf("%d bytes of outputs, aggregate %q, %v", len(outputs), aggregate, err)
	}
	return outputs, aggregate
}

// crashLoop is the state of TestCrashLoop for a store.
type crashLoop struct {
	t        *testing.T
	chunks   string
	dir      string
	reported map[abi.ID]bool // as succeeded, by any run on the store
	phases   map[string]int  // kills by the phase that was seen last
	kills    int
	done     int // chunks that were reported before a kill, of all kills
	ended    int
	reopened time.Duration // the longest
}

// TestCrashLoop kills one job repeatedly, at random moments, and continues it. A chunk
// that was reported as done is never executed again, and the store never needs repair.
func TestCrashLoop(t *testing.T) {
	rounds := *crashes
	if raceDetector {
		rounds = min(rounds, 5) // the processes are as slow as the test
	}
	c := &crashLoop{t: t, chunks: workFile(t), phases: map[string]int{}}
	outputs, aggregate := uninterrupted(t, c.chunks)
	start := time.Now()
	c.begin()
	c.run(outputs, aggregate, time.Hour)
	whole := time.Since(start)
	c.begin()
	for c.kills < rounds {
		if c.run(outputs, aggregate, time.Duration(rand.Int64N(int64(whole)))) {
			c.begin()
		}
	}
	for !c.run(outputs, aggregate, time.Hour) {
	}
	t.Logf("%d kills, by the phase seen last: %v, with %d chunks done on average; %d runs came to their end; %v for a whole run; the longest reopening took %v",
		c.kills, c.phases, c.done/max(1, c.kills), c.ended, whole.Round(time.Millisecond), c.reopened.Round(time.Millisecond))
}

// begin starts with a new store.
func (c *crashLoop) begin() {
	c.dir, c.reported = c.t.TempDir(), map[abi.ID]bool{}
}

// run runs the job and kills it after a time. It reports whether the job had ended
// before.
func (c *crashLoop) run(outputs, aggregate []byte, after time.Duration) bool {
	path := filepath.Join(c.t.TempDir(), "outputs")
	cmd := workCommand(c.chunks, path, "--store", c.dir, "--events", "-", "-o", path+".aggregate", "-f", "cbor")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	killer := time.AfterFunc(after, func() { cmd.Process.Kill() })
	phase, isEnd := c.follow(events)
	err = cmd.Wait()
	killer.Stop()
	if strings.Contains(stderr.String(), "store:") {
		c.t.Errorf("the store needed repair: %s", &stderr)
	}
	c.reopen(isEnd)
	if err == nil {
		c.ended++
		c.compare(path, outputs, aggregate)
		return true
	}
	if !isKilled(err) {
		c.t.Fatalf("%v: %s", err, &stderr)
	}
	c.kills++
	c.done += len(c.reported)
	c.phases[phase]++
	return false
}

func isKilled(err error) bool {
	exit, ok := err.(*exec.ExitError)
	return ok && exit.ProcessState.ExitCode() == -1
}

// follow reads events to their end.
func (c *crashLoop) follow(events io.Reader) (phase string, isEnd bool) {
	phase = "start"
	lines := bufio.NewScanner(events)
	var fresh []abi.ID
	for lines.Scan() {
		var e host.Event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			break // the last line, cut off
		}
		switch e.Kind {
		case event.KindPhase:
			phase = e.Message
		case event.KindEnd:
			isEnd = true
		case event.KindFailed, event.KindRetry:
			c.t.Errorf("chunk %v: %v", e.ID, e.Failure)
		case event.KindSucceeded:
			if c.reported[*e.ID] {
				c.t.Errorf("chunk %v was reported as done, and is executed again", e.ID)
			}
			fresh = append(fresh, *e.ID)
		}
	}
	for _, id := range fresh {
		c.reported[id] = true
	}
	return phase, isEnd
}

// reopen opens the store as another program would, and looks up the job.
func (c *crashLoop) reopen(isEnd bool) {
	start := time.Now()
	s, err := sqlite.Open(c.t.Context(), c.dir, sqlite.Options{
		Notice:  func(line string) { c.t.Error(line) },
		Damaged: func(d sqlite.Damage) { c.t.Errorf("%+v is damaged", d) },
	})
	if err != nil {
		c.t.Fatal(err)
	}
	defer s.Close()
	took := time.Since(start)
	if c.reopened = max(c.reopened, took); took > 10*time.Second {
		c.t.Errorf("reopening took %v", took)
	}
	j, err := journal.Find(c.t.Context(), s, "")
	if err != nil {
		if len(c.reported) > 0 {
			c.t.Errorf("the job is not recorded: %v", err)
		}
		return
	}
	if state := j.State(); state != journal.Crashed && state != journal.Succeeded || isEnd && state != journal.Succeeded {
		c.t.Errorf("the job is %s", state)
	}
	status, err := j.Status(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	for id := range c.reported {
		if !status.Succeeded.IDs.Has(id) {
			c.t.Errorf("chunk %v was reported as done, and its status is another", id)
		}
	}
}

func (c *crashLoop) compare(path string, outputs, aggregate []byte) {
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, outputs) {
		c.t.Errorf("other outputs, %v", err)
	}
	got, err := command("output", "--store", c.dir, "--aggregate", jobOf(c.t, c.dir)).Output()
	if err != nil || !bytes.Equal(got, aggregate) {
		c.t.Errorf("aggregate %q, want %q, %v", got, aggregate, err)
	}
}

// jobOf returns the id of the only job in a store.
func jobOf(t *testing.T, dir string) string {
	t.Helper()
	out, err := command("status", "--json", "--store", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	var status struct{ Job string }
	if err := json.Unmarshal(out, &status); err != nil {
		t.Fatal(err)
	}
	return status.Job
}

// TestRacers runs one job on one store in several processes at the same time, while
// others ask for its status.
func TestRacers(t *testing.T) {
	chunks := workFile(t)
	outputs, aggregate := uninterrupted(t, chunks)
	fields := []int{2, 20}
	if raceDetector {
		fields = fields[:1]
	}
	for _, racers := range fields {
		dir := t.TempDir()
		var group sync.WaitGroup
		done := make(chan struct{})
		for i := range racers {
			path := filepath.Join(t.TempDir(), "outputs")
			group.Go(func() {
				cmd := workCommand(chunks, path, "--store", dir)
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				got, err := cmd.Output()
				written, readErr := os.ReadFile(path)
				if err != nil || readErr != nil || !bytes.Equal(got, aggregate) || !bytes.Equal(written, outputs) || stderr.Len() > 0 {
					t.Errorf("racer %d of %d: %v, %q: %s", i, racers, err, got, &stderr)
				}
			})
		}
		go func() { group.Wait(); close(done) }()
		asked := 0
		for running := true; running; asked++ {
			select {
			case <-done:
				running = false
			default:
				if out, err := command("list", "--json", "--store", dir).CombinedOutput(); err != nil {
					t.Errorf("list: %v: %s", err, out)
				}
			}
		}
		report := filepath.Join(t.TempDir(), "report")
		if out, err := workCommand(chunks, os.DevNull, "--store", dir, "--report", report).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		if r := readReport(t, report); r.Attempts != 0 || r.Instances.Created != 0 || r.Chunks.Reused != workChunks {
			t.Errorf("after %d racers: %d attempts, %+v, %+v", racers, r.Attempts, r.Instances, r.Chunks)
		}
		t.Logf("%d racers, asked %d times", racers, asked)
	}
}

func readReport(t *testing.T, path string) (r host.Report) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}
