//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/host"
)

// job is a process of the real binary, with one worker. Its second chunk is running when
// the log line of the first is seen.
type job struct {
	t      *testing.T
	cmd    *exec.Cmd
	stderr *bufio.Reader
	report string
}

func startJob(t *testing.T, chunks string, flags ...string) *job {
	dir := t.TempDir()
	input := filepath.Join(dir, "chunks.cbor")
	if err := os.WriteFile(input, []byte(chunks), 0o600); err != nil {
		t.Fatal(err)
	}
	j := &job{t: t, report: filepath.Join(dir, "report.json")}
	args := []string{"run", "../../guest-examples/faulty/c/faulty.wasm", input, "-j", "1",
		"--log-level", "info", "--timeout", "0", "--report", j.report}
	j.cmd = &exec.Cmd{Path: os.Args[0], Args: append(append([]string{"wasm-jobs"}, args...), flags...)}
	stderr, err := j.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	j.stderr = bufio.NewReader(stderr)
	if err := j.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.cmd.Process.Kill() })
	j.see("line 1")
	return j
}

// see waits for a line with text.
func (j *job) see(text string) {
	j.t.Helper()
	for {
		line, err := j.stderr.ReadString('\n')
		if err != nil {
			j.t.Fatalf("%q was not seen: %v", text, err)
		}
		if strings.Contains(line, text) {
			return
		}
	}
}

func (j *job) signal(s os.Signal) {
	j.t.Helper()
	if err := j.cmd.Process.Signal(s); err != nil {
		j.t.Fatal(err)
	}
}

// end waits for the process to end and returns its report.
func (j *job) end() (report host.Report) {
	j.t.Helper()
	rest, _ := io.ReadAll(j.stderr)
	_ = j.cmd.Wait() // the exit code says more
	if code := j.cmd.ProcessState.ExitCode(); code != exitInterrupted {
		j.t.Errorf("exit code %d, want %d: %s", code, exitInterrupted, rest)
	}
	b, err := os.ReadFile(j.report)
	if err != nil {
		j.t.Fatal(err)
	}
	if err := json.Unmarshal(b, &report); err != nil {
		j.t.Fatal(err)
	}
	if !report.Interrupted || report.Instances.Created != report.Instances.Closed {
		j.t.Errorf("interrupted %v, %+v", report.Interrupted, report.Instances)
	}
	return report
}

// Chunks in CBOR.
const (
	trap  = "\xa1\x62do\x64trap"
	logs  = "\xa1\x62do\x63log"
	loops = "\xa1\x62do\x64loop"
	works = "\xa2\x62do\x64work\x61n\x1a\x17\xd7\x84\x00" // counts to 400,000,000
)

func TestOneSignalDrains(t *testing.T) {
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		j := startJob(t, logs+works+works+works, "--no-store", "--grace", "1h")
		j.signal(s)
		r := j.end().Chunks
		if r.Failed != 0 || r.Succeeded == 0 || r.Succeeded > 3 {
			t.Errorf("%v: %+v, want the running chunks succeeded, and the others not run", s, r)
		}
	}
}

// A closed terminal ends a job like any signal: the results so far are written, and no
// other files are left.
func TestHangupWritesResults(t *testing.T) {
	dir := t.TempDir()
	j := startJob(t, logs+trap+loops, "--no-store", "--grace", "10ms", "--retries", "0",
		"--outputs", filepath.Join(dir, "outputs.cbor"), "--dead-letter", filepath.Join(dir, "dead.cbor"), "-o", filepath.Join(dir, "result"))
	j.signal(syscall.SIGHUP)
	j.end()
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	hidden, hiddenErr := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || hiddenErr != nil || len(hidden) > 0 || len(left) != 2 {
		t.Errorf("there are %v and %v, errors %v and %v", left, hidden, err, hiddenErr)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "outputs.cbor")); err != nil || len(b) == 0 {
		t.Errorf("outputs %x, error %v", b, err)
	}
}

// A job that was started with nohup continues after the terminal is closed.
func TestIgnoredSignalStaysIgnored(t *testing.T) {
	signal.Ignore(syscall.SIGHUP) // the process inherits it
	j := startJob(t, logs+works, "--no-store", "--grace", "1h")
	signal.Reset(syscall.SIGHUP)
	j.signal(syscall.SIGHUP)
	rest, _ := io.ReadAll(j.stderr)
	_ = j.cmd.Wait() // the exit code says more
	if code := j.cmd.ProcessState.ExitCode(); code != exitOK {
		t.Errorf("exit code %d: %s", code, rest)
	}
}

func TestGraceEnds(t *testing.T) {
	j := startJob(t, logs+loops, "--no-store", "--grace", "10ms")
	j.signal(syscall.SIGINT)
	if r := j.end().Chunks; r.Succeeded != 1 || r.Failed != 0 {
		t.Errorf("%+v, want 1 succeeded", r)
	}
}

func TestTwoSignalsEndAtOnce(t *testing.T) {
	j := startJob(t, logs+loops, "--no-store", "--grace", "1h")
	j.signal(syscall.SIGINT)
	j.see("stopping")
	j.signal(syscall.SIGINT)
	if r := j.end().Chunks; r.Succeeded != 1 || r.Failed != 0 {
		t.Errorf("%+v, want 1 succeeded", r)
	}
}
