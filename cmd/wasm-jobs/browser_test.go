package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// browser is a headless Chromium, driven through its pipe.
type browser struct {
	t    *testing.T
	to   io.Writer
	mu   sync.Mutex // guards all below
	next int
	wait map[int]chan json.RawMessage
	said []string // messages of the console, and errors
	page string   // session of the page
}

// openBrowser starts a browser with an empty page. The test is skipped if there is none.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil && path == "" {
			path = found
		}
	}
	if path == "" {
		t.Skip("no Chromium: apt-get install chromium")
	}
	fromTest, toBrowser, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fromBrowser, toTest, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
		"--remote-debugging-pipe", "--user-data-dir="+t.TempDir())
	cmd.ExtraFiles = []*os.File{fromTest, toTest}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fromTest.Close()
	toTest.Close()
	b := &browser{t: t, to: toBrowser, wait: map[int]chan json.RawMessage{}}
	var reading sync.WaitGroup
	reading.Go(func() { b.read(fromBrowser) })
	t.Cleanup(func() {
		toBrowser.Close() // ends the browser
		_ = cmd.Wait()
		fromBrowser.Close()
		reading.Wait()
	})
	var target struct{ TargetID, SessionID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &target)
	b.page = target.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		b.call(domain+".enable", nil, nil)
	}
	return b
}

// read takes the messages of the browser until it ends.
func (b *browser) read(from io.Reader) {
	r := bufio.NewReaderSize(from, 1<<20)
	for {
		text, err := r.ReadBytes(0)
		if err != nil {
			break
		}
		var m struct {
			ID             int
			Method         string
			Result, Params json.RawMessage
			Error          *struct{ Message string }
		}
		if json.Unmarshal(text[:len(text)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		switch {
		case m.ID != 0 && m.Error != nil:
			b.said = append(b.said, m.Error.Message)
			b.wait[m.ID] <- nil
		case m.ID != 0:
			b.wait[m.ID] <- m.Result
		case m.Method == "Log.entryAdded", m.Method == "Runtime.consoleAPICalled", m.Method == "Runtime.exceptionThrown":
			b.said = append(b.said, string(m.Params))
		}
		b.mu.Unlock()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, waiting := range b.wait {
		close(waiting)
	}
	b.wait = nil
}

// call calls a method, and reads its result into out, unless that is nil.
func (b *browser) call(method string, params map[string]any, out any) {
	b.t.Helper()
	answer := make(chan json.RawMessage, 1)
	b.mu.Lock()
	b.next++
	id := b.next
	if b.wait == nil {
		b.mu.Unlock()
		b.t.Fatal("the browser has ended")
	}
	b.wait[id] = answer
	b.mu.Unlock()
	message := map[string]any{"id": id, "method": method, "params": params}
	if params == nil {
		message["params"] = map[string]any{}
	}
	if b.page != "" {
		message["sessionId"] = b.page
	}
	text, err := json.Marshal(message)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.to.Write(append(text, 0)); err != nil {
		b.t.Fatal(err)
	}
	select {
	case result := <-answer:
		if out != nil && json.Unmarshal(result, out) != nil {
			b.t.Fatalf("%s: the browser answered %s", method, result)
		}
	case <-time.After(time.Minute):
		b.t.Fatalf("%s: the browser does not answer", method)
	}
}

// memory returns the memory of the processes that show pages, in bytes, with their share of
// what others use too; 0 if the system does not tell.
func (b *browser) memory() (bytes int) {
	b.t.Helper()
	page := b.page
	b.page = "" // of the browser, not of a page
	var out struct {
		ProcessInfo []struct {
			Type string
			ID   int
		}
	}
	b.call("SystemInfo.getProcessInfo", nil, &out)
	b.page = page
	b.call("HeapProfiler.collectGarbage", nil, nil)
	for _, p := range out.ProcessInfo {
		if p.Type == "renderer" {
			bytes += shareOf(p.ID)
		}
	}
	return bytes
}

// shareOf returns the proportional set size of a process in bytes.
func shareOf(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	_, after, _ := strings.Cut(string(text), "\nPss:")
	var kib int
	_, _ = fmt.Sscan(after, &kib) // 0 if it is missing
	return kib << 10
}

// open opens a page.
func (b *browser) open(url string) {
	b.t.Helper()
	b.call("Page.navigate", map[string]any{"url": url}, nil) // it returns when the new page has begun
	b.until("document.readyState === 'complete'")
}

// eval returns the value of an expression as text.
func (b *browser) eval(expression string) string {
	b.t.Helper()
	var out struct {
		Result struct{ Value any }
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &out)
	return fmt.Sprint(out.Result.Value)
}

// until waits until an expression is true, at most half a minute.
func (b *browser) until(expression string) {
	b.t.Helper()
	var out struct {
		Result struct{ Value bool }
	}
	b.call("Runtime.evaluate", map[string]any{"returnByValue": true, "awaitPromise": true, "expression": `new Promise(done => {
		const end = Date.now() + 30000;
		(function look() {
			let is = false;
			try { is = Boolean(` + expression + `); } catch { }
			if (is || Date.now() > end) done(is); else setTimeout(look, 30);
		})();
	})`}, &out)
	if !out.Result.Value {
		b.t.Fatalf("%s is not true; the page is %s", expression, b.eval("document.body.innerText"))
	}
}

// look sets the width of the page, and its colours: light or dark.
func (b *browser) look(width int, colours string) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": colours}}}, nil)
}

// shot writes a picture of the page, if the environment variable names a folder.
func (b *browser) shot(name string) {
	b.t.Helper()
	dir := os.Getenv("WASM_JOBS_SCREENSHOTS")
	if dir == "" {
		return
	}
	var out struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"format": "png"}, &out)
	picture, err := base64.StdEncoding.DecodeString(out.Data)
	if err == nil {
		err = os.WriteFile(dir+"/"+name+".png", picture, 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// quiet checks that no page has written to the console.
func (b *browser) quiet() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.said) > 0 {
		b.t.Errorf("the console has %s", strings.Join(b.said, "\n"))
	}
}
