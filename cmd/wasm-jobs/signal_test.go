//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/host"
)

// job is the real binary at work, on one worker: its second chunk runs when the
// log line of the first is seen.
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
		j.t.Errorf("exit code %d, expected %d: %s", code, exitInterrupted, rest)
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
	logs  = "\xa1\x62do\x63log"
	loops = "\xa1\x62do\x64loop"
	works = "\xa2\x62do\x64work\x61n\x1a\x05\xf5\xe1\x00" // counts to 100,000,000
)

func TestOneSignalDrains(t *testing.T) {
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		j := startJob(t, logs+works+works+works, "--no-store", "--grace", "1h")
		j.signal(s)
		r := j.end().Chunks
		if r.Failed != 0 || r.Succeeded == 0 || r.Succeeded > 3 {
			t.Errorf("%v: %+v, expected what ran to have succeeded, and the rest not to have run", s, r)
		}
	}
}

func TestGraceEnds(t *testing.T) {
	j := startJob(t, logs+loops, "--no-store", "--grace", "10ms")
	j.signal(syscall.SIGINT)
	if r := j.end().Chunks; r.Succeeded != 1 || r.Failed != 0 {
		t.Errorf("%+v, expected 1 to have succeeded", r)
	}
}

func TestTwoSignalsEndAtOnce(t *testing.T) {
	j := startJob(t, logs+loops, "--no-store", "--grace", "1h")
	j.signal(syscall.SIGINT)
	j.see("stopping")
	j.signal(syscall.SIGINT)
	if r := j.end().Chunks; r.Succeeded != 1 || r.Failed != 0 {
		t.Errorf("%+v, expected 1 to have succeeded", r)
	}
}
