package main

import (
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// background is a command that a script has started.
type background struct {
	cmd  *exec.Cmd
	said *transcript
	seen int // lines that "see" has passed
}

var backgrounds sync.Map // *background by *testscript.TestScript

// startBackground is the script command "start ARGUMENTS...". It starts wasm-jobs and
// does not wait for it.
func startBackground(ts *testscript.TestScript, _ bool, args []string) {
	cmd := command(args...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "GUESTS", "XDG_CACHE_HOME", "GORACE", "GOCOVERDIR", "TMPDIR"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	r, w, err := os.Pipe() // not of cmd, which could read only one of the two outputs in order
	ts.Check(err)
	cmd.Stdout, cmd.Stderr = w, w
	ts.Check(cmd.Start())
	w.Close()
	b := &background{cmd: cmd, said: &transcript{more: make(chan struct{})}}
	go func() { // until the process ends
		defer r.Close()
		b.said.read(r)
	}()
	backgrounds.Store(ts, b)
	ts.Defer(func() { _ = cmd.Process.Kill() })
}

func backgroundOf(ts *testscript.TestScript) *background {
	b, ok := backgrounds.Load(ts)
	if !ok {
		ts.Fatalf("nothing was started")
	}
	return b.(*background)
}

// see is "see TEXT". It waits for a line with the text after the line that was seen
// last.
func see(ts *testscript.TestScript, _ bool, args []string) {
	b := backgroundOf(ts)
	if n := b.said.after(b.seen, args[0]); n > 0 {
		b.seen = n
		return
	}
	ts.Fatalf("%q was not seen: %s", args[0], b.said.text())
}

// patience is the time after which a line that does not come fails the script, with what
// the command has said.
const patience = 2 * time.Minute

// after waits for a line with text after the first n, and returns the number of lines up
// to it; 0 if the process ends without it.
func (t *transcript) after(n int, text string) int {
	timeout := time.After(patience)
	for {
		t.mu.Lock()
		lines, over, more := t.lines, t.over, t.more
		t.mu.Unlock()
		for ; n < len(lines); n++ {
			if strings.Contains(lines[n], text) {
				return n + 1
			}
		}
		if over {
			return 0
		}
		select {
		case <-more:
		case <-timeout:
			return 0
		}
	}
}

// end is "end SIGNAL CODE". It sends INT or TERM, or no signal for "-", waits until the
// command ends with the exit code, and prints what it said.
func end(ts *testscript.TestScript, _ bool, args []string) {
	b := backgroundOf(ts)
	switch args[0] {
	case "INT":
		ts.Check(b.cmd.Process.Signal(syscall.SIGINT))
	case "TERM":
		ts.Check(b.cmd.Process.Signal(syscall.SIGTERM))
	}
	b.said.wait("\x00")
	_ = b.cmd.Wait()
	if code := b.cmd.ProcessState.ExitCode(); strconv.Itoa(code) != args[1] {
		ts.Fatalf("exit code %d: %s", code, b.said.text())
	}
	_, err := io.WriteString(ts.Stdout(), b.said.text())
	ts.Check(err)
}
