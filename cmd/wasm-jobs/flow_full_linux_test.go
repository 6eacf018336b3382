package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/host/event"
)

// TestFlowFullDisk runs a flow until the store's disk is full: exit code 4. After room
// is made, the same command finishes, and executes no step again that was reported.
func TestFlowFullDisk(t *testing.T) {
	mount, ballast := smallFileSystem(t)
	dir := flowFolder(t, "flow: full\nstates:\n  work: {module: faulty.wasm, next: done}\n  done: {end: true}\n", faultyGuest)
	chunks := bigFile(t)
	run := func(name string) (stderr string, code int, executed int) {
		cmd := command("flow", "run", filepath.Join(dir, "flow.yaml"), chunks, "--store", mount, "--progress", "none", "-j", "1",
			"--events", filepath.Join(dir, name), "--report", filepath.Join(dir, name+".json"), "-o", os.DevNull)
		var text bytes.Buffer
		cmd.Stderr = &text
		var exit *exec.ExitError
		if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return text.String(), cmd.ProcessState.ExitCode(), bytes.Count(b, []byte(`"event":"`+string(event.KindSucceeded)+`"`))
	}
	stderr, code, before := run("full")
	if code != exitStore || !strings.Contains(stderr, "full") && !strings.Contains(stderr, "no space left") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "full.json")); err != nil {
		t.Errorf("no report: %v", err)
	}
	if before == 0 || before >= bigChunks {
		t.Errorf("%d of %d steps were made", before, bigChunks)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	stderr, code, after := run("room")
	if code != exitOK || before+after != bigChunks {
		t.Errorf("with room: exit code %d, %d steps, and %d before: %s", code, after, before, stderr)
	}
}

// TestFlowFullDiskEffects is the same for effects: none is made again whose result was
// recorded.
func TestFlowFullDiskEffects(t *testing.T) {
	mount, ballast := smallFileSystem(t)
	var mu sync.Mutex
	times := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		times[r.Header.Get("Idempotency-Key")]++
		mu.Unlock()
		_, _ = w.Write(bytes.Repeat([]byte(r.URL.Path), 20_000))
	}))
	defer server.Close()
	dir := flowFolder(t, fmt.Sprintf("flow: full\nstates:\n  call: {effect: http, allow: [%q], concurrency: 1, next: done}\n  done: {end: true}\n", server.URL+"/"))
	var lines strings.Builder
	for i := range bigChunks {
		fmt.Fprintf(&lines, "{\"url\":\"%s/%d\"}\n", server.URL, 100+i)
	}
	input := filepath.Join(dir, "in.jsonl")
	if err := os.WriteFile(input, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func() (string, int) {
		cmd := command("flow", "run", filepath.Join(dir, "flow.yaml"), "--jsonl", input, "--store", mount, "--progress", "none", "--allow", "http", "-o", os.DevNull)
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := run(); code != exitStore {
		t.Errorf("exit code %d: %s", code, out)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if out, code := run(); code != exitOK {
		t.Errorf("with room: exit code %d: %s", code, out)
	}
	again := 0
	for _, n := range times {
		again += n - 1
	}
	// those whose results could not be recorded: a batch or two
	if len(times) != bigChunks || again == 0 || again > bigChunks/2 {
		t.Errorf("%d different requests, %d of them again, want %d and a few", len(times), again, bigChunks)
	}
}
