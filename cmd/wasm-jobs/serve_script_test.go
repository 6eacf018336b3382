package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// served is a server that a test has started.
type served struct {
	cmd  *exec.Cmd
	url  string // or unix:PATH
	said *transcript
	http *http.Client
}

// transcript keeps the output of a process, and wakes goroutines that wait for a line.
type transcript struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{} // closed at each line
	over  bool
}

func (t *transcript) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		t.add(lines.Text(), false)
	}
	t.add("", true)
}

func (t *transcript) add(line string, over bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over = over; !over {
		t.lines = append(t.lines, line)
	}
	close(t.more)
	t.more = make(chan struct{})
}

// wait returns the first line with text; ok is false if the process ends without it.
func (t *transcript) wait(text string) (line string, ok bool) {
	for {
		t.mu.Lock()
		i := slices.IndexFunc(t.lines, func(line string) bool { return strings.Contains(line, text) })
		over, more := t.over, t.more
		if i >= 0 {
			line = t.lines[i]
		}
		t.mu.Unlock()
		if i >= 0 || over {
			return line, i >= 0
		}
		<-more
	}
}

func (t *transcript) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "\n") + "\n"
}

// startServer starts the command and waits until it serves.
func startServer(cmd *exec.Cmd) (*served, error) {
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &served{cmd: cmd, said: &transcript{more: make(chan struct{})}}
	go s.said.read(stderr) // until the process ends
	line, _ := s.said.wait("serving ")
	_, s.url, _ = strings.Cut(line, " on ")
	s.http = clientOf(s.url, cmd.Dir)
	return s, nil
}

// clientOf returns a client of a server. It accepts any certificate.
func clientOf(url, dir string) *http.Client {
	t := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 100}
	if path, ok := strings.CutPrefix(url, unixPrefix); ok {
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
	}
	return &http.Client{Transport: t}
}

// at returns the URL of a path.
func (s *served) at(path string) string {
	if strings.HasPrefix(s.url, unixPrefix) {
		return "http://socket" + path
	}
	return s.url + path
}

// end sends a signal, and returns the exit code.
func (s *served) end(sig os.Signal) int {
	_ = s.cmd.Process.Signal(sig) // it may have ended
	s.http.CloseIdleConnections()
	s.said.wait("\x00")
	_ = s.cmd.Wait()
	return s.cmd.ProcessState.ExitCode()
}

var servers sync.Map // *served by *testscript.TestScript

// startServing is the script command "serve FLAGS...". It starts a server, on a free
// port unless flags say otherwise, and waits until it serves.
func startServing(ts *testscript.TestScript, _ bool, args []string) {
	if !slices.Contains(args, "--listen") {
		args = append([]string{"--listen", "127.0.0.1:0"}, args...)
	}
	cmd := command(append([]string{"serve"}, args...)...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = []string{"PATH=" + ts.Getenv("PATH")}
	for _, name := range []string{"XDG_CACHE_HOME", "GORACE", "GOCOVERDIR", "TOKEN", "HOME"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	s, err := startServer(cmd)
	ts.Check(err)
	servers.Store(ts, s)
	ts.Setenv("URL", s.url)
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		servers.Delete(ts)
	})
}

func serverOf(ts *testscript.TestScript) *served {
	s, ok := servers.Load(ts)
	if !ok {
		ts.Fatalf("no server was started")
	}
	return s.(*served)
}

// stopServing is "stop [SIGNAL] CODE". It ends the server, which must exit with the
// code, and prints its stderr. "stop HUP TEXT" sends SIGHUP, and waits for a line with
// the text.
func stopServing(ts *testscript.TestScript, _ bool, args []string) {
	s := serverOf(ts)
	if args[0] == "HUP" {
		ts.Check(s.cmd.Process.Signal(syscall.SIGHUP))
		if _, ok := s.said.wait(args[1]); !ok {
			ts.Fatalf("the server ended: %s", s.said.text())
		}
		return
	}
	sig := os.Signal(syscall.SIGTERM)
	if args[0] == "INT" {
		sig, args = syscall.SIGINT, args[1:]
	}
	if code := s.end(sig); strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d: %s", code, s.said.text())
	}
	_, err := io.WriteString(ts.Stderr(), s.said.text())
	ts.Check(err)
}

// askServer is "http STATUS METHOD PATH [@FILE|BODY [HEADER...]]". It sends a request,
// and prints the headers in alphabetical order, an empty line, and the body.
func askServer(ts *testscript.TestScript, neg bool, args []string) {
	s := serverOf(ts)
	var body io.Reader
	if len(args) > 3 {
		text := args[3]
		if name, ok := strings.CutPrefix(text, "@"); ok {
			text = ts.ReadFile(name)
		}
		body = strings.NewReader(text)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, args[1], s.at(args[2]), body)
	ts.Check(err)
	for _, header := range args[min(4, len(args)):] {
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Set(name, value)
	}
	answer, err := s.http.Do(r)
	ts.Check(err)
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	ts.Check(err)
	var shown bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(answer.Header)) {
		shown.WriteString(name + ": " + answer.Header.Get(name) + "\n")
	}
	shown.WriteString("\n")
	shown.Write(got)
	_, err = ts.Stdout().Write(shown.Bytes())
	ts.Check(err)
	if strconv.Itoa(answer.StatusCode) != args[0] {
		ts.Fatalf("status %d, want %s:\n%s", answer.StatusCode, args[0], shown.Bytes())
	}
}
