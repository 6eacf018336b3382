//go:build unix

package main

import (
	"fmt"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

const uiTestFlow = `flow: watched
states:
  check: {module: faulty.wasm, next: done, retry: {retries: 0}, on: {exit: broken}}
  broken: {end: failed}
  done: {end: true}
`

// flowFiles writes a flow and its roots, and returns the command that runs it.
func flowFiles(t *testing.T, roots string) (run []string, store string) {
	t.Helper()
	dir := t.TempDir()
	module, err := os.ReadFile(faultyWasm)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"flow.yaml": uiTestFlow, "roots.jsonl": roots, "faulty.wasm": string(module)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	store = filepath.Join(dir, "store")
	return []string{"flow", "run", filepath.Join(dir, "flow.yaml"), "--jsonl", filepath.Join(dir, "roots.jsonl"), "--store", store, "--progress", "none"}, store
}

// TestUIFlows checks the pages of a flow with failures and hostile texts.
func TestUIFlows(t *testing.T) {
	roots := hostileLines(t) + `{"id":"gone","do":"exit"}` + "\n"
	for i := range 60 {
		roots += fmt.Sprintf(`{"id":%d,"do":"trap"}`+"\n", i)
	}
	run, store := flowFiles(t, roots)
	if out, err := command(run...).CombinedOutput(); err == nil {
		t.Fatalf("nothing failed: %.2000s", out)
	}
	base := startUI(t, store)
	_, page := get(t, "GET", base+"/flow/watched", "")
	n := len(hostileTexts)
	for _, want := range []string{
		`class="box module`, `href="/flow/watched/items?state=check"`, fmt.Sprintf("%d in, %d out, %d failed", 2*n+61, n+1, n+60), fmt.Sprintf("%d ended, %d failed", n, n+61),
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page of the flow lacks %s: %s", want, page)
		}
	}
	for path, wants := range map[string][]string{
		"items?state=failed":            {">trap<", `<a href="/flow/watched/items?state=failed&amp;class=&amp;from=50">Next</a>`},
		"items?state=failed&from=50":    {"&lt;script&gt;", ">First<", `item?id=gone"`},
		"items?state=check&class=trap":  {"unreachable", `item?id=0"`, "from=50"},
		"items?state=check&class=guest": {"&lt;script&gt;", `\x1b[31m`, `\u202e`},
		"items?state=done":              {"<code>"},
		"items?state=broken":            {`item?id=gone"`},
		"items?state=none":              {"No items that match."},
		"item?id=gone":                  {"broken", "exit", `{&#34;id&#34;:&#34;gone&#34;,&#34;do&#34;:&#34;exit&#34;}`},
		"item?id=7":                     {"check", "trap", "unreachable"},
	} {
		checkFlowPage(t, base, "/flow/watched/"+path, wants...)
	}
	_, page = get(t, "GET", base+"/flow/watched/items?state=check&class=guest", "")
	links := regexp.MustCompile(`/flow/watched/item\?id=[^"]*`).FindAllString(page, -1)
	if len(links) < n-1 {
		t.Errorf("only %d links to items", len(links))
	}
	for _, link := range links {
		checkFlowPage(t, base, html.UnescapeString(link), "guest", "permanent")
	}
	for _, path := range []string{"/flow/none/items", "/flow/watched/item?id=none", "/flow/watched/item", "/flow/none/item?id=1"} {
		if answer, _ := get(t, "GET", base+path, ""); answer.StatusCode != 404 {
			t.Errorf("%s: got %d, want 404", path, answer.StatusCode)
		}
	}
}

// checkFlowPage checks that a page has some texts, and that no text is an element or has
// control characters.
func checkFlowPage(t *testing.T, base, path string, wants ...string) {
	t.Helper()
	answer, body := get(t, "GET", base+path, "")
	for _, want := range wants {
		if answer.StatusCode != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: got %d, and it lacks %s: %.3000s", path, answer.StatusCode, want, body)
		}
	}
	if strings.Count(body, "<script") > 1 || strings.ContainsRune(body, 0x1b) {
		t.Errorf("%s: a text is not escaped", path)
	}
}

// TestUIFlowInBrowser watches a flow while it runs, without loading the page again, and then
// its failed items.
func TestUIFlowInBrowser(t *testing.T) {
	b := openBrowser(t)
	roots := `{"id":0,"do":"permanent","message":"no <b>way</b>"}` + "\n"
	for i := range 20000 {
		roots += fmt.Sprintf(`{"id":%d,"do":"work","n":%d}`+"\n", i+1, 1_000_000+i)
	}
	args, store := flowFiles(t, roots)
	base := startUI(t, store)
	b.open(base + "/flows")
	b.until("document.body.innerText.includes('No runs of flows')")
	run := command(append(args, "-j", "1")...)
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	defer run.Process.Kill()
	b.until("document.querySelector('td .running') && document.body.innerText.includes('watched')")
	b.open(base + "/flow/watched")
	b.eval("window.kept = true")
	const left = "Number(document.querySelector('tbody tr').cells[3].innerText.replaceAll(',', ''))"
	b.until("document.querySelector('svg.graph')")
	b.eval("window.before = " + left)
	b.until(left + " > window.before")
	b.look(1280, "light")
	b.shot("ui-flow")
	b.open(base + "/flow/watched/items?state=failed")
	b.until("document.body.innerText.includes('no <b>way</b>')")
	b.look(400, "dark")
	b.shot("ui-items")
	if b.eval("document.documentElement.scrollWidth > innerWidth") != "false" {
		t.Error("the page of items is wider than the window")
	}
	b.open(base + "/flow/watched")
	b.eval("window.kept = true")
	if err := run.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = run.Wait() // exit code 130
	b.until("document.querySelector('.state').innerText === 'interrupted' && window.kept")
	b.quiet()
}
