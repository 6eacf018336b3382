//go:build unix

package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

// TestFlowSecrets searches each file that a flow writes for secrets from the
// environment, which requests carry and commands get, after success and after failures
// of all kinds.
func TestFlowSecrets(t *testing.T) {
	secrets := []string{"s3cret-of-the-header", "s3cret-of-the-command"}
	seen := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == secrets[0] {
			seen++
		}
		switch r.URL.Path {
		case "/broken":
			panic(http.ErrAbortHandler)
		case "/error":
			w.WriteHeader(http.StatusInternalServerError)
		case "/slow":
			w.WriteHeader(http.StatusTooManyRequests)
		case "/away":
			http.Redirect(w, r, "http://127.0.0.1:1/elsewhere", http.StatusFound)
		case "/header":
			w.Header()["X"] = []string{"\x01"}
		}
	}))
	defer server.Close()
	server.Config.ErrorLog = nil
	dir := flowFolder(t, fmt.Sprintf(`flow: secrets
states:
  call:
    effect: http
    allow: [%q]
    headers: {Authorization: "env:TOKEN", X-Broken: "env:BROKEN"}
    concurrency: 1
    retry: {retries: 1, backoff: 1ms}
    on: {guest-retryable: say}
    next: say
  say:
    effect: command
    command: [sh, -c, 'test ${#SECRET} -gt 20']
    env: [SECRET]
    next: work
  work: {module: faulty.wasm, next: done}
  done: {end: true}
`, server.URL+"/"), faultyGuest)
	for _, broken := range []string{"fine", "line\nbreak " + secrets[0]} {
		var lines strings.Builder
		for _, path := range []string{"/ok", "/broken", "/error", "/away", "/header", "/../up"} {
			fmt.Fprintf(&lines, "{\"url\":\"%s%s\"}\n", server.URL, path)
		}
		in := func(name string) string { return filepath.Join(dir, name) }
		if err := os.WriteFile(in("in.jsonl"), []byte(lines.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := command("flow", "run", in("flow.yaml"), "--jsonl", in("in.jsonl"), "--store", in("store"), "--allow", "http,command", "--as", "run"+broken[:4],
			"--report", in("report.json"), "--events", in("events.jsonl"), "--dead-letter", in("dead.cbor"), "--effects", in("effects.cbor"), "--outputs", in("ends.cbor"),
			"--log-level", "debug")
		cmd.Env = append(os.Environ(), "TOKEN="+secrets[0], "SECRET="+secrets[1], "BROKEN="+broken)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != exitFailed {
			t.Fatalf("exit code %d: %s", code, out)
		}
		if bytes.Contains(out, []byte("s3cret")) {
			t.Errorf("a secret is printed: %s", out)
		}
	}
	if seen == 0 {
		t.Error("no request had the secret")
	}
	files := searchFiles(t, dir, secrets)
	records := searchStore(t, filepath.Join(dir, "store"), secrets)
	t.Logf("%d files and %d records", files, records)
}

// searchFiles searches all files below a directory.
func searchFiles(t *testing.T, dir string, secrets []string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		n++
		b, err := os.ReadFile(path)
		for _, s := range secrets {
			if bytes.Contains(b, []byte(s)) {
				t.Errorf("%s has %s", path, s)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// searchStore searches the records of all actions of the store's runs, which are
// compressed in its files.
func searchStore(t *testing.T, dir string, secrets []string) (n int) {
	t.Helper()
	s, err := sqlite.Open(t.Context(), dir, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var actions []store.Action
	for record, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		actions = append(append(actions, record.Action), record.Derived...)
	}
	for _, action := range actions {
		for r, err := range s.All(t.Context(), action) {
			if err != nil {
				t.Fatal(err)
			}
			n++
			for _, secret := range secrets {
				if bytes.Contains(r.Output, []byte(secret)) {
					t.Errorf("a record has a secret: %q", r.Output)
				}
			}
		}
	}
	if n == 0 {
		t.Error("no records")
	}
	return n
}
