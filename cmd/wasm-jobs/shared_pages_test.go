//go:build unix

package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// sharedDatabase returns the URL of a database with the schema.
func sharedDatabase(t *testing.T) string {
	t.Helper()
	if !pgtest.Installed() {
		t.Skip("PostgreSQL is not installed: the package postgresql of Debian has it")
	}
	store := pgtest.Shared(t).Database(t)
	if out, err := command("migrate", "--store", store).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return store
}

// TestSharedPages looks at a job of a shared store, with failures, before a worker comes,
// while it works and afterwards: the pages of ui, top and report have the same numbers.
func TestSharedPages(t *testing.T) {
	store := sharedDatabase(t)
	job := handIn(t, store, faultyWasm, "--range-of", "0-99", "--backoff", "1ms", "--name", "shared <b>job</b>")
	url := startUI(t, store)
	checkPage(t, url+"/", "/job/"+job, "shared &lt;b&gt;job&lt;/b&gt;", `class="state active"`, `href="/workers"`, "0/100")
	checkPage(t, url+"/job/"+job, `id="succeeded">0<`, `id="failed">0<`)
	_, stop := startPrinting(t, "metrics on ", "worker", "--store", store, "-j", "2", "--name", "one", "--metrics", "127.0.0.1:0")
	defer stop()
	r := collectShared(t, store, job)
	if r.Chunks != (host.Counts{Total: 100, Succeeded: 86, Failed: 14}) {
		t.Fatalf("the report has %+v", r.Chunks)
	}
	checkPage(t, url+"/workers", ">one<", ">idle<")
	checkPage(t, url+"/?state=incomplete", "86/100")
	checkPage(t, url+"/job/"+job, `id="succeeded">86<`, `id="failed">14<`, "trap", "unreachable", "/chunk?id=3")
	checkPage(t, url+"/job/"+job+"/chunk?id=3", "trap", "unreachable", "Attempts")
	checkPage(t, url+"/job/"+job+"/chunk?id=4", `id="json">4<`)
	checkPage(t, url+"/job/"+job+"/report.html", `data-at="chunks.failed">14<`)
	checkPage(t, url+"/compare?a="+job+"&b="+job, "chunks")
	var seen watched
	outputOf(t, &seen, "top", "--store", store, "--json", job)
	if len(seen.Jobs) != 1 || seen.Jobs[0].Succeeded != 86 || seen.Jobs[0].Failed != 14 || seen.Jobs[0].State != "incomplete" {
		t.Errorf("top has %+v", seen.Jobs)
	}
	if text, err := command("top", "--store", store).Output(); err != nil || !strings.Contains(string(text), "[########x.]") && !strings.Contains(string(text), "[########xx]") || !strings.Contains(string(text), "86/100") {
		t.Errorf("top: %v, %s", err, text)
	}
	var again host.Report
	outputOf(t, &again, "report", "--store", store, "--json", job)
	if again.Chunks != r.Chunks || again.Fuel != r.Fuel || len(again.Failures) != len(r.Failures) || again.Digests != r.Digests {
		t.Errorf("report has %+v, %d failures; wait had %+v, %d", again.Chunks, len(again.Failures), r.Chunks, len(r.Failures))
	}
	page := filepath.Join(t.TempDir(), "report.html")
	if out, err := command("report", "--store", store, "-o", page, job).CombinedOutput(); err != nil {
		t.Errorf("report -o: %v, %s", err, out)
	}
}

// checkPage checks that a page has some texts.
func checkPage(t *testing.T, url string, wants ...string) {
	t.Helper()
	answer, body := get(t, "GET", url, "")
	for _, want := range wants {
		if answer.StatusCode != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: got %d, and it lacks %s: %.3000s", url, answer.StatusCode, want, body)
		}
	}
}

// outputOf runs a command, and reads the JSON that it prints.
func outputOf(t *testing.T, into any, args ...string) {
	t.Helper()
	out, err := command(args...).Output()
	if err == nil {
		err = json.Unmarshal(out, into)
	}
	if err != nil {
		t.Errorf("%v: %v, %s", args, err, out)
	}
}
