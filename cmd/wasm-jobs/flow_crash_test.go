//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/flow"
)

// flowFolder makes a folder with a definition and modules.
func flowFolder(t *testing.T, definition string, modules ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, path := range modules {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "flow.yaml"), []byte(definition), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

const (
	faultyGuest = "../../guest-examples/faulty/c/faulty.wasm"
	squareGuest = "../../guest-examples/square/c/square.wasm"
	echoGuest   = "../../testdata/wasm/echo.wasm"
)

// TestFlowCrashes kills a flow again and again: stored steps are not executed again,
// and the results are the same.
func TestFlowCrashes(t *testing.T) {
	dir := flowFolder(t, `flow: crashes
states:
  work: {module: faulty.wasm, next: square, on: {guest: done}}
  square: {module: echo.wasm, next: done}
  done: {end: true}
`, faultyGuest, echoGuest)
	chunks := workFile(t)
	run := func(store string, receipt string) []string {
		return []string{"flow", "run", "--progress", "none", "--store", store, "--receipt", receipt, "--report", receipt + ".report", "-o", receipt + ".out",
			filepath.Join(dir, "flow.yaml"), chunks}
	}
	want := filepath.Join(t.TempDir(), "want")
	start := time.Now()
	if out, err := command(run(t.TempDir(), want)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	whole := time.Since(start)
	wanted, err := os.ReadFile(want)
	if err != nil {
		t.Fatal(err)
	}
	most := max(*kills, 20)
	if raceDetector {
		most = 3
	}
	for killed, store := 0, t.TempDir(); killed < most; {
		got := filepath.Join(t.TempDir(), "got")
		cmd := command(run(store, got)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(rand.Int64N(int64(whole))), func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		if timer.Stop(); err != nil {
			killed++
			checkDiedFlow(t, store)
			continue
		}
		b, err := os.ReadFile(got)
		if err != nil || !bytes.Equal(b, wanted) {
			t.Fatalf("another receipt after %d kills: %v\n%s", killed, err, b)
		}
		checkReused(t, run(store, got), got)
		store = t.TempDir()
	}
}

// checkDiedFlow asks for the status of a run whose process was killed.
func checkDiedFlow(t *testing.T, store string) {
	t.Helper()
	out, err := command("flow", "status", "--store", store, "--json", "crashes").Output()
	if err != nil {
		return // it was killed before there was a record
	}
	var r flow.Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if n := &r.Items; n.Total != n.Ended+n.Failed+n.Held+n.Live {
		t.Errorf("items are not conserved: %+v", *n)
	}
}

// checkReused runs a finished flow again: nothing is executed.
func checkReused(t *testing.T, args []string, receipt string) {
	t.Helper()
	if out, err := command(args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(receipt + ".report")
	if err != nil {
		t.Fatal(err)
	}
	var r flow.Report
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if r.Instances.Created != 0 || r.States[0].Attempts != 0 {
		t.Errorf("a finished flow made %d instances and %d attempts", r.Instances.Created, r.States[0].Attempts)
	}
}

// seenRequests counts requests by their idempotency keys.
type seenRequests struct {
	mu   sync.Mutex
	keys map[string]int
}

func (s *seenRequests) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Idempotency-Key")
	s.mu.Lock()
	s.keys[key]++
	s.mu.Unlock()
	time.Sleep(time.Millisecond)
	_, _ = fmt.Fprint(w, r.URL.Path)
}

// TestFlowEffectsCrash kills a flow that makes requests. With uncertain: hold, no
// request is made twice, and items whose request may have been made are held.
func TestFlowEffectsCrash(t *testing.T) {
	for _, hold := range []bool{false, true} {
		for killed := 0; killed < *kills; {
			killed += killEffects(t, hold)
		}
	}
}

// killEffects kills a flow that makes requests, up to eight times, and then lets it end.
func killEffects(t *testing.T, hold bool) (killed int) {
	t.Helper()
	const n = 300
	seen := &seenRequests{keys: map[string]int{}}
	server := httptest.NewServer(seen)
	uncertain := "rerun"
	if hold {
		uncertain = "hold"
	}
	dir := flowFolder(t, fmt.Sprintf(`flow: calls
states:
  call: {effect: http, allow: ["%s/"], concurrency: 8, uncertain: %s, next: done, retry: {retries: 0}}
  done: {end: true}
`, server.URL, uncertain))
	var lines bytes.Buffer
	for i := range n {
		fmt.Fprintf(&lines, "{\"url\":\"%s/%d\"}\n", server.URL, i)
	}
	input := filepath.Join(dir, "in.jsonl")
	if err := os.WriteFile(input, lines.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	store := t.TempDir()
	args := []string{"flow", "run", "--progress", "none", "--store", store, "--allow", "http", "-o", os.DevNull, filepath.Join(dir, "flow.yaml"), "--jsonl", input}
	for rounds := 0; ; rounds++ {
		cmd := command(args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if rounds < 8 {
			timer := time.AfterFunc(time.Duration(rand.Int64N(int64(400*time.Millisecond))), func() { _ = cmd.Process.Kill() })
			defer timer.Stop()
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() == exitFailed {
			break
		}
		killed++
	}
	server.Close()
	twice := 0
	for _, times := range seen.keys {
		if times > 1 {
			twice++
		}
	}
	out, _ := command("flow", "items", "--store", store, "--state", "uncertain", "calls").Output()
	held := bytes.Count(out, []byte("\n"))
	t.Logf("hold %v: %d kills, %d requests made twice, %d held", hold, killed, twice, held)
	switch {
	case hold && twice > 0:
		t.Errorf("%d requests were made twice", twice)
	case !hold && (twice > 8*killed || held > 0):
		t.Errorf("%d requests were made twice in %d kills, and %d are held", twice, killed, held)
	case hold && held > 8*killed:
		t.Errorf("%d are held after %d kills", held, killed)
	case len(seen.keys) < n-held:
		t.Errorf("%d requests were made, and %d are held, of %d", len(seen.keys), held, n)
	}
	return killed
}
