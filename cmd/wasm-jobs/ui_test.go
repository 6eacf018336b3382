//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	neturl "net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// startUI serves the pages of a store until the test ends, and returns their URL.
func startUI(t *testing.T, store string) string {
	t.Helper()
	url, stop := startPrinting(t, "page on ", "ui", "--store", store, "--listen", "127.0.0.1:0")
	t.Cleanup(stop)
	return url
}

// startPrinting starts a command that prints a URL after some words, and returns the URL. stop
// ends the command with SIGTERM, and waits for it.
func startPrinting(t *testing.T, words string, args ...string) (url string, stop func()) {
	t.Helper()
	cmd := command(args...)
	said, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s after SIGTERM: %v", args[0], err)
		}
	})
	lines := bufio.NewReader(said)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			stop()
			t.Fatalf("%v ended without a URL: %v", args, err)
		}
		if _, after, ok := strings.Cut(strings.TrimSpace(line), words); ok {
			go io.Copy(io.Discard, lines) // until the command ends
			return after, stop
		}
	}
}

// TestUIEnds has connections that send nothing, as browsers open them in advance.
func TestUIEnds(t *testing.T) {
	var idle []net.Conn
	t.Cleanup(func() { // after the end of ui
		for _, c := range idle {
			c.Close()
		}
	})
	address := strings.TrimPrefix(startUI(t, t.TempDir()), "http://")
	for range 3 {
		c, err := net.Dial("tcp", strings.TrimSuffix(address, "/"))
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	get(t, http.MethodGet, "http://"+address, "") // the others were accepted before
}

// get requests a page, and returns its status and content.
func get(t *testing.T, method, url, host string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		r.Host = host
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(body)
}

// runFailing runs a job of the example that fails on request, and returns its id.
func runFailing(t *testing.T, store, lines string, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	chunks, report := filepath.Join(dir, "chunks.jsonl"), filepath.Join(dir, "report.json")
	if err := os.WriteFile(chunks, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"run", faultyWasm, "--jsonl", chunks, "--store", store, "--report", report, "--progress", "none", "--backoff", "1ms"}, flags...)
	said, _ := command(args...).CombinedOutput() // some chunks fail
	b, err := os.ReadFile(report)
	var r struct{ Job string }
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil || r.Job == "" {
		t.Fatalf("no report: %v; run said %.2000s", err, said)
	}
	return r.Job
}

// TestUIRefuses checks methods and hosts.
func TestUIRefuses(t *testing.T) {
	url := startUI(t, filepath.Join(t.TempDir(), "store"))
	port := url[strings.LastIndexByte(url, ':')+1:]
	for _, test := range []struct {
		method, host string
		code         int
	}{
		{"GET", "", 200}, {"HEAD", "", 200}, {"GET", "localhost:" + port, 200}, {"GET", "LOCALHOST:" + port, 200}, {"GET", "127.0.0.2:" + port, 200}, {"GET", "[::1]:" + port, 200},
		{"POST", "", 405}, {"PUT", "", 405}, {"DELETE", "", 405}, {"OPTIONS", "", 405}, {"PATCH", "", 405}, {"CONNECT", "", 405},
		{"GET", "example.com", 403}, {"GET", "example.com:" + port, 403}, {"GET", "localhost", 403}, {"GET", "localhost:1", 403}, {"GET", "127.0.0.1.example.com:" + port, 403},
		{"GET", "10.0.0.1:" + port, 403}, {"POST", "example.com:" + port, 403}, {"GET", "localhost.:" + port, 403},
	} {
		answer, body := get(t, test.method, url+"/", test.host)
		if answer.StatusCode != test.code {
			t.Errorf("%s to host %q: got %d, want %d: %s", test.method, test.host, answer.StatusCode, test.code, body)
		}
		if p := answer.Header.Get("Content-Security-Policy"); !strings.HasPrefix(p, "default-src 'none'; ") || strings.Contains(p, "unsafe") {
			t.Errorf("%s to host %q: the policy is %q", test.method, test.host, p)
		}
	}
	for path, code := range map[string]int{"/nothing": 404, "/job/abc": 404, "/job/": 404, "/flow/x": 404, "/workers": 404, "/static/../ui.go": 404, "/job/%2e%2e%2f": 404, "/compare": 200, "/flows": 200} {
		if answer, _ := get(t, "GET", url+path, ""); answer.StatusCode != code {
			t.Errorf("%s: got %d, want %d", path, answer.StatusCode, code)
		}
	}
}

// hostileTexts are not harmless in HTML, JSON, terminals and headers.
var hostileTexts = []string{
	`<script>document.title = "broken"</script>`, `"><img src=x onerror=document.title='broken'>`, `' onmouseover='x`,
	"\x1b[31mred\x1b[0m", "\u202eright to left\u2066", "line\nbreak\r\n\tand \u2028more", `</pre></details>{{.}}`, "&lt;b&gt;", "%2e%2e/..//\\", strings.Repeat("long<>", 10900),
}

// hostileLines returns chunks whose ids and messages are hostile.
func hostileLines(t *testing.T) string {
	var lines strings.Builder
	for i, text := range hostileTexts {
		for _, chunk := range []map[string]any{
			{"id": text, "do": "permanent", "message": text}, {"id": fmt.Sprint(i, text), "do": "ok", "value": map[string]string{text: text}},
		} {
			b, err := json.Marshal(chunk)
			if err != nil {
				t.Fatal(err)
			}
			lines.Write(append(b, '\n'))
		}
	}
	return lines.String()
}

var (
	opening     = regexp.MustCompile(`<[a-zA-Z/!][^>]*>`)
	quotedValue = regexp.MustCompile(`"[^"]*"`)
)

// TestUIEscapes checks that ids, messages, names and outputs stay text: no page has an
// element that they bring, nor a control character.
func TestUIEscapes(t *testing.T) {
	store := filepath.Join(t.TempDir(), "store")
	job := runFailing(t, store, hostileLines(t), "--name", hostileTexts[0], "--meta", hostileTexts[1]+"="+hostileTexts[2])
	url := startUI(t, store)
	pages := []string{"/", "/?q=%3Cscript%3E&state=%22%3E", "/job/" + job, "/job/" + job + "/report.html", "/compare?a=" + job + "&b=" + job, "/job/%3Cscript%3E", "/flow/%3Cscript%3E", "/%3Cscript%3E"}
	_, page := get(t, "GET", url+"/job/"+job, "")
	links := regexp.MustCompile(`/job/[0-9a-f]+/chunk\?id=[^"]*`).FindAllString(page, -1)
	if len(links) < len(hostileTexts)-1 {
		t.Errorf("the page of the job has only %d links to failed chunks", len(links))
	}
	for _, link := range links {
		pages = append(pages, strings.ReplaceAll(link, "&amp;", "&"))
	}
	allowed := regexp.MustCompile(`^</?(!doctype|html|head|meta|link|script src="/static/ui.js" defer|script|title|body|header|strong|a|span|main|h1|h2|p|form|label|input|select|option|button|div|table|thead|tbody|tr|th|td|progress|details|summary|pre|code|style|nav|section|svg|path|rect|text|figure|figcaption|data|bdi)\b`)
	for _, path := range pages {
		_, body := get(t, "GET", url+path, "")
		for _, element := range opening.FindAllString(body, -1) {
			if !allowed.MatchString(element) || strings.Contains(quotedValue.ReplaceAllString(element, ""), " on") {
				t.Errorf("%.80s has the element %.80s", path, element)
			}
		}
		if strings.Count(body, "<script") > 1 || strings.ContainsRune(body, 0x1b) && !strings.Contains(path, "report") {
			t.Errorf("%.80s: a text is not escaped", path)
		}
	}
}

// TestUIDownloads checks that outputs come as they are stored.
func TestUIDownloads(t *testing.T) {
	store := filepath.Join(t.TempDir(), "store")
	job := runFailing(t, store, `{"id":1,"do":"ok","value":"x"}`+"\n"+`{"id":"a b","do":"ok","value":[1,2]}`+"\n"+`{"id":3,"do":"trap"}`)
	url := startUI(t, store)
	for path, want := range map[string]string{
		"output?id=1": "\x61x", "output?id=%22a+b%22": "\x82\x01\x02",
		"output": "\xa2bid\x01foutput\x61x\xa2bidca bfoutput\x82\x01\x02",
	} {
		answer, body := get(t, "GET", url+"/job/"+job+"/"+path, "")
		if body != want || !strings.HasPrefix(answer.Header.Get("Content-Disposition"), "attachment; ") {
			t.Errorf("%s: got %q, want %q", path, body, want)
		}
	}
	for path, want := range map[string]string{"output?id=3": "the chunk has no output", "chunk?id=7": "no chunk 7", "chunk?id=%22a": "invalid id"} {
		if answer, body := get(t, "GET", url+"/job/"+job+"/"+path, ""); answer.StatusCode != 404 || !strings.Contains(body, want) {
			t.Errorf("%s: got %d %s", path, answer.StatusCode, body)
		}
	}
	_, page := get(t, "GET", url+"/job/"+job+"/chunk?id=%22a+b%22", "")
	for _, want := range []string{`<pre tabindex="0" aria-label="Output as JSON" id="json">[1,2]</pre>`, `id="diag">[1, 2]</pre>`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page of the chunk lacks %s: %s", want, page)
		}
	}
}

// TestUIInBrowser watches a job from its start, without loading a page again.
func TestUIInBrowser(t *testing.T) {
	b := openBrowser(t)
	dir := t.TempDir()
	store, chunks := filepath.Join(dir, "store"), filepath.Join(dir, "chunks.jsonl")
	var lines strings.Builder
	lines.WriteString(`{"id":0,"do":"permanent","message":"no <b>way</b>"}` + "\n")
	for i := range 20000 {
		fmt.Fprintf(&lines, `{"id":%d,"do":"work","n":1000000}`+"\n", i+1)
	}
	if err := os.WriteFile(chunks, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	b.open(startUI(t, store))
	b.until("document.body.innerText.includes('No jobs')")
	run := command("run", faultyWasm, "--jsonl", chunks, "--store", store, "--progress", "none", "--name", "watched", "-j", "1")
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	defer run.Process.Kill()
	b.until("document.querySelector('td .running') && document.body.innerText.includes('watched')")
	b.look(1280, "light")
	b.shot("ui-jobs")
	b.open(b.eval("document.querySelector('td a').href"))
	b.until("document.getElementById('succeeded')")
	b.eval("window.kept = true")
	const number = "Number(document.getElementById('succeeded').innerText.replaceAll(',', ''))"
	b.eval("window.before = " + number)
	b.until(number + " > window.before")
	b.until("document.body.innerText.includes('guest: no <b>way</b> (1)')")
	b.shot("ui-job")
	b.look(400, "dark")
	b.shot("ui-job-small")
	if err := run.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = run.Wait() // exit code 130
	b.until("document.querySelector('.state').innerText === 'interrupted' && window.kept")
	b.quiet()
}

// reorders returns the elements in which a mark for right-to-left text could reorder other
// text than its own.
const reorders = `[...document.querySelectorAll('body *')].filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.includes('\u202e')) &&
	e.childNodes.length > 1 | getComputedStyle(e).display === 'inline' && !getComputedStyle(e).unicodeBidi.includes('isolate')).map(e => e.outerHTML).join()`

// TestUIHostileInBrowser opens pages with hostile texts, and reports in files.
func TestUIHostileInBrowser(t *testing.T) {
	b := openBrowser(t)
	store, page := filepath.Join(t.TempDir(), "store"), filepath.Join(t.TempDir(), "report.html")
	for _, name := range []string{hostileTexts[1], hostileTexts[4]} {
		job := runFailing(t, store, hostileLines(t), "--name", name, "--meta", "a="+hostileTexts[4], "--report", page)
		url := startUI(t, store)
		pages := []string{"file://" + page}
		for _, path := range []string{"/", "/job/" + job, "/job/" + job + "/report.html", "/compare?a=" + job + "&b=" + job} {
			pages = append(pages, url+path)
		}
		for _, text := range hostileTexts[:len(hostileTexts)-1] { // the last one does not fit into a URL
			pages = append(pages, url+"/job/"+job+"/chunk?id="+neturl.QueryEscape(strconv.Quote(text)))
		}
		for _, path := range pages {
			b.open(path)
			title := b.eval("document.title")
			broken := strings.Contains(title, "broken") && !strings.Contains(title, "img")
			if strings.Contains(path, "/chunk?") { // its title has the id
				broken = title == "broken" || b.eval("document.body.innerText.includes('Attempts')") != "true"
			}
			if broken || b.eval("document.images.length") != "0" {
				t.Errorf("%s: a text of a guest is an element; the title is %s", path, title)
			}
			if found := b.eval(reorders); found != "" {
				t.Errorf("%s: a text of a guest reorders %.300s", path, found)
			}
			if b.eval("document.documentElement.scrollWidth > innerWidth") != "false" {
				t.Errorf("%.200s: the page is wider than the window", path)
			}
		}
	}
	b.quiet()
}

// TestReportInBrowser opens the report of a job with failures, from a file, in two
// widths, light and dark.
func TestReportInBrowser(t *testing.T) {
	b := openBrowser(t)
	dir := t.TempDir()
	chunks, page := filepath.Join(dir, "chunks.jsonl"), filepath.Join(dir, "report.html")
	var lines strings.Builder
	for i := range 3000 {
		do := fmt.Sprintf(`"do":"work","n":%d`, 1+i*i%60000)
		if i%97 == 5 {
			do = `"do":"trap"`
		}
		fmt.Fprintf(&lines, `{"id":%d,%s}`+"\n", i, do)
	}
	if err := os.WriteFile(chunks, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _ = command("run", faultyWasm, "--jsonl", chunks, "--no-store", "--progress", "none", "--report", page, "--retries", "0").CombinedOutput()
	for _, colours := range []string{"light", "dark"} {
		for _, width := range []int{1280, 400} {
			b.look(width, colours)
			b.open("file://" + page)
			if b.eval("document.documentElement.scrollWidth > innerWidth") != "false" {
				t.Errorf("%s, %d pixels: the page is wider than the window", colours, width)
			}
			if b.eval("document.querySelectorAll('svg').length") != "8" || b.eval("document.querySelector('#failures summary').innerText") != "trap: unreachable (31)" {
				t.Errorf("%s, %d pixels: got %s", colours, width, b.eval("document.body.innerText"))
			}
			b.shot(fmt.Sprintf("report-%s-%d", colours, width))
		}
	}
	b.quiet()
}
