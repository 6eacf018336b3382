//go:build unix

package main

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/telemetry"
	"github.com/wasm-jobs/wasm-jobs/host"
)

// handIn submits a job to a shared store, and returns its id.
func handIn(t *testing.T, store string, args ...string) string {
	t.Helper()
	id, err := command(append([]string{"submit", "--store", store, "--progress", "none"}, args...)...).Output()
	if err != nil {
		t.Fatalf("submit: %v", err)
	}
	return strings.TrimSpace(string(id))
}

// collectShared waits for a job of a shared store, and returns its report.
func collectShared(t *testing.T, store, id string) host.Report {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report.json")
	out, err := command("wait", "--store", store, "--progress", "none", "--report", path, "-o", filepath.Join(t.TempDir(), "out"), id).CombinedOutput()
	if _, failed := err.(*exec.ExitError); err != nil && !failed {
		t.Fatalf("wait: %v, %s", err, out)
	}
	return readReport(t, path)
}

// TestWatchedWorker compares the numbers of a worker with the reports of its jobs, and
// checks the spans that it sends.
func TestWatchedWorker(t *testing.T) {
	store := sharedDatabase(t)
	c, collector := newCollector(t)
	url, stop := startPrinting(t, "metrics on ", "worker", "--store", store, "-j", "2", "--name", "one", "--metrics", "127.0.0.1:0", "--trace-otlp", collector)
	defer stop()
	attempts, outputs, fuel := int64(0), 0, uint64(0)
	for _, args := range [][]string{{faultyWasm, "--range-of", "0-499", "--backoff", "1ms"}, {"../../guest-examples/pi/c/pi.wasm", "--range-of", "0-99"}} {
		r := collectShared(t, store, handIn(t, store, args...))
		attempts += r.Executions
		outputs += r.Chunks.Succeeded
		fuel += r.Fuel
	}
	_, page := get(t, http.MethodGet, url, "") // the first scrape: nothing of before is shown
	got := series(t, page)
	for name, want := range map[string]float64{
		telemetry.AttemptsTotal: float64(attempts), telemetry.SucceededTotal: float64(outputs), telemetry.FuelTotal: float64(fuel),
		telemetry.Slots: 2, telemetry.Executing: 0, telemetry.LostTotal: 0, telemetry.StoreErrorsTotal: 0,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, the reports have %v", name, got[name], want)
		}
	}
	stop()
	checkWorkerSpans(t, c)
}

func checkWorkerSpans(t *testing.T, c *collector) {
	t.Helper()
	parents := map[string]string{"job": "", "prepare": "job", "execute": "job", "fold": "job", "lease": "execute", "attempt": "lease"}
	count := map[string]int{}
	for _, s := range c.spans {
		count[s.Name]++
		parent := c.spans[s.ParentSpanID]
		if want, known := parents[s.Name]; !known || parent.Name != want || s.ParentSpanID != "" && parent.TraceID != s.TraceID {
			t.Errorf("the span %s has the parent %q, want %q", s.Name, parent.Name, want)
		}
		if s.Name == "job" && !strings.Contains(fmt.Sprint(s.Attributes), "wasm_jobs.worker.name {one") {
			t.Errorf("the span of a job does not name the worker: %v", s.Attributes)
		}
	}
	for name := range parents {
		if count[name] == 0 {
			t.Errorf("no span %s in %v", name, count)
		}
	}
	if count["attempt"] < 71 { // 71 chunks of the first job trap
		t.Errorf("%d spans of failed attempts, want one for each", count["attempt"])
	}
}
