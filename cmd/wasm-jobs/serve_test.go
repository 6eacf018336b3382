//go:build unix

package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var serveRounds = flag.Int("serve-rounds", 5, "how often servers are ended under load")

const (
	squareWasm = "../../guest-examples/square/c/square.wasm"
	faultyWasm = "../../guest-examples/faulty/c/faulty.wasm"
)

// serveTest starts a server, which ends with the test.
func serveTest(t *testing.T, args ...string) *served {
	t.Helper()
	s, err := startServer(command(append([]string{"serve"}, args...)...))
	if err != nil {
		t.Fatal(err)
	}
	if s.url == "" {
		t.Fatalf("no server: %s", s.said.text())
	}
	t.Cleanup(func() { _ = s.cmd.Process.Kill() })
	return s
}

// square asks for the square of n; refused says that nobody listened.
func (s *served) square(n int) (refused bool, err error) {
	answer, err := s.http.Post(s.at("/v1/square/exec"), "application/json", strings.NewReader(fmt.Sprint(n)))
	if err != nil {
		return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT), err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return false, err
	}
	if want := fmt.Sprintln(n * n); answer.StatusCode != 200 || string(body) != want {
		return false, fmt.Errorf("the square of %d: status %d: %s", n, answer.StatusCode, body)
	}
	return false, nil
}

// load sends requests on connections of their own until ctx ends, each of which has to be
// answered. Those that nobody listened for are sent again.
func (s *served) load(ctx context.Context, t *testing.T, clients int) (answered *atomic.Int64, wait func()) {
	answered = &atomic.Int64{}
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			for n := c; ctx.Err() == nil; n++ {
				refused, err := s.square(n % 1000)
				for refused && ctx.Err() == nil {
					time.Sleep(time.Millisecond) // another process has to listen
					refused, err = s.square(n % 1000)
				}
				switch {
				case refused:
				case err != nil:
					t.Errorf("request %d: %v", n, err)
					return
				default:
					answered.Add(1)
				}
			}
		})
	}
	return answered, all.Wait
}

// A second server takes the place of the first at the same path, and the first ends,
// under load, again and again: no request is lost.
func TestServeTakeover(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	listen := []string{"--listen", unixPrefix + path, "--queue", "1000", "--max-wait", "1m", squareWasm}
	first := serveTest(t, listen...)
	clients := &served{url: first.url, http: clientOf(first.url, "")}
	clients.http.Transport.(*http.Transport).DisableKeepAlives = true
	ctx, cancel := context.WithCancel(t.Context())
	answered, wait := clients.load(ctx, t, 4)
	for range *serveRounds {
		before := answered.Load()
		second := serveTest(t, listen...)
		if code := first.end(syscall.SIGTERM); code != 0 {
			t.Errorf("exit code %d: %s", code, first.said.text())
		}
		for answered.Load() < before+20 && !t.Failed() {
			time.Sleep(time.Millisecond) // other processes have to work
		}
		first = second
	}
	cancel()
	wait()
	if code := first.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d: %s", code, first.said.text())
	}
	if rest, _ := os.ReadDir(dir); len(rest) > 0 {
		t.Errorf("%v is left", rest)
	}
	t.Logf("%d requests were answered", answered.Load())
}

// SIGTERM under load: every request that was accepted is answered, and the exit code is
// 0.
func TestServeEndsUnderLoad(t *testing.T) {
	for range *serveRounds {
		s := serveTest(t, "--listen", "127.0.0.1:0", "--queue", "1000", "--max-wait", "1m", squareWasm)
		ctx, cancel := context.WithCancel(t.Context())
		var answered atomic.Int64
		var all sync.WaitGroup
		for c := range 4 {
			all.Go(func() { // on one connection, until that is refused
				for n := c; ctx.Err() == nil; n++ {
					if refused, err := s.square(n % 1000); refused || closedIdle(err) {
						return
					} else if err != nil {
						t.Errorf("after %d answers: %v", answered.Load(), err)
						return
					}
					answered.Add(1)
				}
			})
		}
		for answered.Load() < 50 && !t.Failed() {
			time.Sleep(time.Millisecond) // another process has to work
		}
		if code := s.end(syscall.SIGTERM); code != 0 {
			t.Errorf("exit code %d: %s", code, s.said.text())
		}
		cancel()
		all.Wait()
	}
}

// closedIdle reports whether a server closed a connection before it read a request from
// it (RFC 9112, section 9.3): nothing was accepted.
func closedIdle(err error) bool {
	return err != nil && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || strings.Contains(err.Error(), "server closed idle connection"))
}

// SIGHUP under load, with two versions in turn: each answer is one of theirs.
func TestServeReloadsUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "square.wasm")
	versions := [][]byte{readTestFile(t, squareWasm), readTestFile(t, "../../guest-examples/square/wat/square.wasm")}
	put := func(i int) {
		if err := os.WriteFile(path+".new", versions[i%2], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	put(0)
	s := serveTest(t, "--listen", "127.0.0.1:0", "--queue", "1000", "--max-wait", "1m", path)
	ctx, cancel := context.WithCancel(t.Context())
	answered, wait := s.load(ctx, t, 4)
	for i := range *serveRounds {
		put(i + 1)
		_ = s.cmd.Process.Signal(syscall.SIGHUP)
		for read := strings.Count(s.said.text(), "modules were read again"); read <= i && !t.Failed(); read = strings.Count(s.said.text(), "modules were read again") {
			time.Sleep(time.Millisecond) // another process has to work
		}
	}
	cancel()
	wait()
	if code := s.end(syscall.SIGTERM); code != 0 || answered.Load() == 0 {
		t.Errorf("exit code %d after %d answers: %s", code, answered.Load(), s.said.text())
	}
}

func readTestFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A second signal ends a server at once, though a guest runs.
func TestServeSecondSignal(t *testing.T) {
	s := serveTest(t, "--listen", "127.0.0.1:0", "--timeout", "0", "--log-level", "info", "faulty="+faultyWasm)
	go func() { // until the server ends
		if answer, err := s.http.Post(s.at("/v1/faulty/exec"), "application/json", strings.NewReader(`{"do":"loop"}`)); err == nil {
			answer.Body.Close()
		}
	}()
	for !strings.Contains(s.metrics(t), "wasm_jobs_executing 1\n") {
		time.Sleep(time.Millisecond) // another process has to work
	}
	if err := s.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.said.wait("a second signal stops at once"); !ok {
		t.Fatal(s.said.text())
	}
	if code := s.end(syscall.SIGINT); code != exitInterrupted {
		t.Errorf("exit code %d: %s", code, s.said.text())
	}
}

// metrics returns the content of /metrics.
func (s *served) metrics(t *testing.T) string {
	answer, err := s.http.Get(s.at("/metrics"))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// post asks faulty.
func (s *served) post(body string) (code int, retryAfter bool) {
	answer, err := s.http.Post(s.at("/v1/faulty/exec"), "application/json", strings.NewReader(body))
	if err != nil {
		return 0, false
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, answer.Header.Get("Retry-After") != ""
}

// numbers returns the metrics that are integers, by name and labels.
func (s *served) numbers(t *testing.T) map[string]int {
	numbers := map[string]int{}
	for line := range strings.Lines(s.metrics(t)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.Atoi(value); err == nil {
			numbers[name] = n
		}
	}
	return numbers
}

// Requests above the bound of the queue are rejected with a Retry-After, and never
// executed; those within it are answered when a worker is free.
func TestServeRejects(t *testing.T) {
	s := serveTest(t, "--listen", "127.0.0.1:0", "-j", "1", "--queue", "4", "--max-wait", "0", "--timeout", "0", "--log-level", "info", "faulty="+faultyWasm)
	until := func(name string, want int) {
		for deadline := time.Now().Add(time.Minute); s.numbers(t)[name] != want; time.Sleep(time.Millisecond) { // another process has to work
			if time.Now().After(deadline) {
				t.Fatalf("timeout: want %d of %s: %v", want, name, s.numbers(t))
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() { // until cancel
		r, _ := http.NewRequestWithContext(ctx, http.MethodPost, s.at("/v1/faulty/exec"), strings.NewReader(`{"do":"loop"}`))
		r.Header.Set("Content-Type", "application/json")
		if answer, err := s.http.Do(r); err == nil {
			answer.Body.Close()
		}
	})
	until("wasm_jobs_executing", 1)
	for n := range 4 {
		all.Go(func() {
			if code, _ := s.post(strconv.Itoa(7 * n)); code != 200 {
				t.Errorf("a request that waited: status %d", code)
			}
		})
	}
	until("wasm_jobs_queue_length", 4)
	const above = 20
	for n := range above {
		if code, retryAfter := s.post(fmt.Sprintf(`{"do":"log","lines":%d}`, n+1)); code != http.StatusServiceUnavailable || !retryAfter {
			t.Errorf("status %d, Retry-After %v", code, retryAfter)
		}
	}
	cancel()
	all.Wait()
	until("wasm_jobs_executing", 0)
	numbers := s.numbers(t)
	if full, executed := numbers[`wasm_jobs_rejected_total{reason="full"}`], numbers[`wasm_jobs_queue_seconds_count{module="faulty"}`]; full != above || executed != 1+4 {
		t.Errorf("%d were rejected, and %d executed", full, executed)
	}
	if code := s.end(syscall.SIGTERM); code != 0 || strings.Contains(s.said.text(), "guest faulty") {
		t.Errorf("exit code %d: %s", code, s.said.text())
	}
}

// Over TLS, with HTTP/2, and with a certificate that is read again.
func TestServeTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, cert, key, "first")
	s := serveTest(t, "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key, squareWasm)
	if !strings.HasPrefix(s.url, "https://127.0.0.1:") {
		t.Fatalf("it serves on %s", s.url)
	}
	s.http.Transport.(*http.Transport).ForceAttemptHTTP2 = true
	subject := func() string {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	answer, err := s.http.Post(s.at("/v1/square/exec"), "application/json", strings.NewReader("7"))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.ProtoMajor != 2 || answer.StatusCode != 200 || subject() != "first" {
		t.Errorf("HTTP/%d, status %d, certificate %q", answer.ProtoMajor, answer.StatusCode, subject())
	}
	writeCertificate(t, cert, key, "second")
	_ = s.cmd.Process.Signal(syscall.SIGHUP)
	if _, ok := s.said.wait("modules were read again"); !ok || subject() != "second" {
		t.Errorf("certificate %q: %s", subject(), s.said.text())
	}
	if err := os.WriteFile(cert, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = s.cmd.Process.Signal(syscall.SIGHUP)
	if _, ok := s.said.wait("the old certificate stays"); !ok || subject() != "second" {
		t.Errorf("certificate %q: %s", subject(), s.said.text())
	}
	if code := s.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d: %s", code, s.said.text())
	}
}

// A reload does not wait for a batch that is still open, nor do the next reload and the
// end of the server.
func TestServeReloadsBesideABatch(t *testing.T) {
	s := serveTest(t, "--listen", "127.0.0.1:0", squareWasm)
	in, out := io.Pipe()
	defer out.Close()
	go func() { _, _ = io.WriteString(out, "3\n") }() // until it is read
	answer, err := s.http.Post(s.at("/v1/square/batch"), "application/jsonl", in)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewReader(answer.Body)
	if line, err := lines.ReadString('\n'); line != "{\"id\":0,\"output\":9}\n" {
		t.Fatalf("%q, %v", line, err)
	}
	for n := range 2 {
		_ = s.cmd.Process.Signal(syscall.SIGHUP)
		until := time.Now().Add(20 * time.Second)
		for strings.Count(s.said.text(), "modules were read again") <= n {
			if time.Now().After(until) {
				t.Fatalf("reload %d does not end: %s", n, s.said.text())
			}
			time.Sleep(time.Millisecond) // another process has to work
		}
	}
	fmt.Fprintln(out, 4)
	if line, err := lines.ReadString('\n'); line != "{\"id\":1,\"output\":16}\n" {
		t.Errorf("%q, %v", line, err)
	}
	if code := s.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d: %s", code, s.said.text())
	}
	if rest, err := io.ReadAll(lines); len(rest) > 0 || err != nil {
		t.Errorf("then %q, %v", rest, err)
	}
}

// A header of 90 KiB gets a status in each protocol.
func TestServeLargeHeaders(t *testing.T) {
	s := serveTest(t, "--listen", "127.0.0.1:0", squareWasm)
	for _, http2 := range []bool{false, true} {
		transport := &http.Transport{Protocols: &http.Protocols{}}
		transport.Protocols.SetHTTP1(!http2)
		transport.Protocols.SetUnencryptedHTTP2(http2)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.at("/v1/square/exec"), strings.NewReader("3"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 90 {
			r.Header.Set(fmt.Sprint("X-", i), strings.Repeat("x", 1<<10))
		}
		answer, err := transport.RoundTrip(r)
		if err != nil {
			t.Errorf("HTTP/2 %v: %v", http2, err)
			continue
		}
		answer.Body.Close()
		transport.CloseIdleConnections()
		if answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("HTTP/2 %v: %s", http2, answer.Status)
		}
	}
	if code := s.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d: %s", code, s.said.text())
	}
}

// A listener without room for another connection can end.
func TestListenerEndsWithoutRoom(t *testing.T) {
	l := newDrainListener(1)
	var err error
	if l.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ended := make(chan error)
	go func() { // until drain
		_, err := l.Accept()
		ended <- err
	}()
	l.drain()
	select {
	case err := <-ended:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("error %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("Accept waits for room")
	}
}

func writeCertificate(t *testing.T, certPath, keyPath, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	template.Subject.CommonName = name
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyBytes, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certPath: {Type: "CERTIFICATE", Bytes: cert}, keyPath: {Type: "PRIVATE KEY", Bytes: keyBytes}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
