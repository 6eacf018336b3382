//go:build unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pane is a terminal of tmux, with a server of its own.
type pane struct {
	t      *testing.T
	socket string
}

// openPane starts a command in a terminal of 110 columns and 12 lines.
func openPane(t *testing.T, args ...string) *pane {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("no tmux: apt-get install tmux")
	}
	dir, err := os.MkdirTemp("", "tmux") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := filepath.Abs(os.Args[0])
	if err == nil {
		err = os.Symlink(self, filepath.Join(dir, "wasm-jobs"))
	}
	if err != nil {
		t.Fatal(err)
	}
	p := &pane{t, filepath.Join(dir, "s")}
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", p.socket, "kill-server").Run() })
	p.tmux(append([]string{"-f", "/dev/null", "new-session", "-d", "-x", "110", "-y", "12", filepath.Join(dir, "wasm-jobs")}, args...)...)
	return p
}

func (p *pane) tmux(args ...string) string {
	p.t.Helper()
	out, err := exec.Command("tmux", append([]string{"-S", p.socket}, args...)...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("tmux %v: %v, %s", args, err, out)
	}
	return string(out)
}

// until reads the screen until it has what is wanted, at most a minute.
func (p *pane) until(what string, has func(lines []string) bool) (lines []string) {
	p.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		lines = strings.Split(strings.TrimRight(p.tmux("capture-pane", "-p"), "\n"), "\n")
		if has(lines) {
			return lines
		}
	}
	p.t.Fatalf("%s: not on the screen:\n%s", what, strings.Join(lines, "\n"))
	return nil
}

// rowsOf returns the words of a view, without the rate, which only a view that is renewed has.
func rowsOf(lines []string) string {
	var all []string
	for _, line := range lines {
		words := strings.Fields(strings.Replace(line, "on a screen", "name", 1))
		if len(words) == 9 && words[0] != "JOB" {
			words = slices.Delete(words, 7, 8)
		}
		all = append(all, strings.Join(words, " "))
	}
	return strings.Join(all, "\n")
}

// TestTopInTerminal watches a job with top in a terminal of tmux, and compares the last view
// with what top prints elsewhere.
func TestTopInTerminal(t *testing.T) {
	dir := t.TempDir()
	store, chunks := filepath.Join(dir, "store"), filepath.Join(dir, "chunks.jsonl")
	var lines strings.Builder
	lines.WriteString(`{"id":0,"do":"permanent"}` + "\n")
	for i := range 20000 {
		fmt.Fprintf(&lines, `{"id":%d,"do":"work","n":%d}`+"\n", i+1, 1_000_000+i)
	}
	if err := os.WriteFile(chunks, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	p := openPane(t, "top", "--store", store, "--interval", "200ms")
	p.until("no jobs", func(lines []string) bool { return lines[0] == "no jobs" })
	run := command("run", faultyWasm, "--jsonl", chunks, "--store", store, "--progress", "none", "-j", "1", "--name", "on a screen")
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	defer run.Process.Kill()
	first := 0
	p.until("a rising count and a rate", func(lines []string) bool {
		words := strings.Fields(strings.Replace(lines[len(lines)-1], "on a screen", "name", 1))
		if len(lines) != 2 || len(words) != 9 || words[2] != "running" || words[5] != "1" || !strings.HasPrefix(words[3], "[") {
			return false
		}
		n := 0
		fmt.Sscan(strings.TrimSuffix(words[4], "/20001"), &n)
		if first == 0 {
			first = n
		}
		return first > 0 && n > first && words[7] != "0.0"
	})
	if err := run.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = run.Wait() // exit code 130
	printed, err := command("top", "--store", store).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := rowsOf(strings.Split(strings.TrimSpace(string(printed)), "\n"))
	p.until("the same as top prints:\n"+want, func(lines []string) bool { return rowsOf(lines) == want })
	p.tmux("send-keys", "C-c")
	for p.ended() == "" {
	}
}

// ended returns the error of tmux when the command in its only terminal has ended.
func (p *pane) ended() string {
	out, err := exec.Command("tmux", "-S", p.socket, "list-sessions").CombinedOutput()
	if err == nil {
		return ""
	}
	return string(out)
}
