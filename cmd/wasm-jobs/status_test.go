//go:build unix

package main

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host/journal"
)

// statusJSON is the output of status --json.
type statusJSON struct {
	jobState
	journal.Status
}

func askStatus(t *testing.T, dir string) (s statusJSON) {
	t.Helper()
	out, err := command("status", "--json", "--store", dir).Output()
	if err != nil {
		t.Fatalf("status: %v", err)
	}
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestStatusOfRunningAndDead asks for the status of a job while it runs, after its
// process was killed, and after another run has ended.
func TestStatusOfRunningAndDead(t *testing.T) {
	dir := t.TempDir()
	j := startJob(t, logs+loops+"\xa1\x62do\x62ok", "--store", dir)
	defer j.cmd.Process.Kill()
	s := askStatus(t, dir)
	for deadline := time.Now().Add(30 * time.Second); s.Active.Count == 0 && time.Now().Before(deadline); {
		s = askStatus(t, dir) // until the first sign of life
	}
	if s.State != journal.Running || s.Active.IDs.String() != "1-2" || s.Total != 3 || s.PID != j.cmd.Process.Pid {
		t.Errorf("while it runs: %+v", s)
	}
	if out, err := command("delete", "--store", dir, s.Job).CombinedOutput(); err == nil || !strings.Contains(string(out), "is running since") {
		t.Errorf("delete: %v, %s", err, out)
	}
	if out, err := command("prune", "--store", dir, "--older-than", "0s").CombinedOutput(); err != nil || !strings.Contains(string(out), "0 jobs pruned") {
		t.Errorf("prune: %v, %s", err, out)
	}
	for _, args := range [][]string{{"list"}, {"info", s.Job, "1"}, {"describe", s.Job}, {"output", s.Job}, {"fsck"}} {
		if out, err := command(append(args, "--store", dir)...).CombinedOutput(); err != nil {
			t.Errorf("%v: %v, %s", args, err, out)
		}
	}
	if err := j.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = j.cmd.Wait()
	s = askStatus(t, dir)
	if s.State != journal.Crashed || s.Active.Count != 0 || s.Pending.Count+s.Succeeded.Count != 3 {
		t.Errorf("after its death: %+v", s)
	}
	out, err := command("status", "--store", dir).Output()
	if err != nil || !strings.Contains(string(out), "stopped without recording an end") {
		t.Errorf("%s, %v", out, err)
	}

	// In the redrive, the chunk that loops runs out of time.
	again := command("redrive", "--store", dir, "--ids", "0-2", "--timeout", "1s", "--retries", "0", "--log-level", "off", s.Job)
	if out, err := again.CombinedOutput(); err == nil || !strings.Contains(string(out), "chunk 1 failed after 1 attempt: timeout") {
		t.Errorf("redrive: %v, %s", err, out)
	}
	s = askStatus(t, dir)
	if s.State != journal.Failed || s.Failed.IDs.String() != "1" || s.Succeeded.IDs.String() != "0,2" || s.Runs != 2 {
		t.Errorf("after the redrive: %+v", s)
	}
	if _, err := command("delete", "--store", dir, s.Job).Output(); err != nil {
		t.Errorf("delete: %v", err)
	}
	if exit, ok := command("status", "--store", dir, s.Job).Run().(*exec.ExitError); !ok || exit.ExitCode() != exitRefused {
		t.Errorf("after delete: %v", exit)
	}
}
