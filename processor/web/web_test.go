package web_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/processor"
	"github.com/wasm-jobs/wasm-jobs/processor/runnertest"
	"github.com/wasm-jobs/wasm-jobs/processor/web"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/linear"
)

func open(t testing.TB, path string, o processor.Options) *processor.Module {
	t.Helper()
	wasm, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := processor.Open(t.Context(), wasm, o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const (
	squareWasm = "../../guest-examples/square/c/square.wasm"
	faultyWasm = "../../guest-examples/faulty/c/faulty.wasm"
	noopWasm   = "../../bench/guests/noop.wasm"
)

// server is one that a test talks to. Its modules are named square and faulty.
type server struct {
	*web.Server
	url string
	t   testing.TB
}

func start(t testing.TB, c web.Config, o processor.Options) *server {
	t.Helper()
	if c.Workers == 0 {
		c.Workers = 2
	}
	o.Workers = c.Workers
	s, err := web.New(c)
	if err != nil {
		t.Fatal(err)
	}
	square, faulty := open(t, squareWasm, o), open(t, faultyWasm, o)
	if err := s.Swap(t.Context(), []web.Module{{Name: "square", Module: square}, {Name: "faulty", Module: faulty}}); err != nil {
		t.Fatal(err)
	}
	h := httptest.NewUnstartedServer(s)
	h.Config.Protocols = &http.Protocols{}
	h.Config.Protocols.SetHTTP1(true)
	h.Config.Protocols.SetUnencryptedHTTP2(true)
	h.Config.ConnContext, h.Listener = web.ConnContext, ours{h.Listener}
	h.Start()
	t.Cleanup(func() {
		if err := s.Drain(context.Background()); err != nil {
			t.Error(err)
		}
		h.Close()
		for _, m := range []*processor.Module{square, faulty} {
			if n := m.Stats(); n.Created != n.Closed {
				t.Errorf("%d instances were created and %d closed", n.Created, n.Closed)
			}
		}
	})
	return &server{s, h.URL, t}
}

// post asks the server, and returns status, header and body.
func (s *server) post(ctx context.Context, path, contentType, body string, headers ...string) (int, http.Header, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, err.Error()
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, nil, err.Error()
	}
	return answer.StatusCode, answer.Header, string(got)
}

func (s *server) square(json string, headers ...string) (int, http.Header, string) {
	s.t.Helper()
	return s.post(s.t.Context(), "/v1/square/exec", "application/json", json, headers...)
}

func (s *server) exec(json string, headers ...string) (int, http.Header, string) {
	s.t.Helper()
	return s.post(s.t.Context(), "/v1/faulty/exec", "application/json", json, headers...)
}

// until waits for a condition that another goroutine, a process or the network meets.
func until(t testing.TB, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timeout: want that %s", what)
		}
	}
}

func TestClient(t *testing.T) {
	s := start(t, web.Config{Workers: 4}, processor.Options{})
	runnertest.Run(t, func(*testing.T) processor.Runner[[]byte, []byte] {
		return &web.Client{URL: s.url + "/v1/faulty/"}
	})
	_, err := (&web.Client{URL: s.url + "/v1/nothing"}).Run(t.Context(), []byte{1})
	if status, ok := errors.AsType[*web.StatusError](err); !ok || status.Status != http.StatusNotFound || status.Problem.Class != "unknown" {
		t.Errorf("error %v", err)
	}
	got, err := (&web.Client{URL: s.url + "/v1/square"}).Run(t.Context(), []byte{7})
	if err != nil || !bytes.Equal(got.Output, []byte{0x18, 49}) || got.Fuel == 0 {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = (&web.Client{URL: s.url + "/v1/square", MaxOutput: 1}).Run(t.Context(), []byte{7})
	if failure, ok := errors.AsType[*abi.Failure](err); !ok || failure.Class != abi.ClassABI {
		t.Errorf("error %v", err)
	}
}

// Bodies that are not one whole item are refused, and nothing is executed.
func TestBodies(t *testing.T) {
	s := start(t, web.Config{MaxBody: 1000}, processor.Options{})
	whole := abi.AppendText(nil, strings.Repeat("x", 300))
	deep := strings.Repeat("\x81", 257) + "\x01"
	for _, tt := range []struct {
		name, contentType, body string
		headers                 []string
		code                    int
	}{
		{"empty", "application/cbor", "", nil, 400},
		{"empty JSON", "application/json", "", nil, 400},
		{"an empty text", "text/plain", "", nil, 200},
		{"two items", "application/cbor", "\x01\x02", nil, 400},
		{"two values", "application/json", "1 2", nil, 400},
		{"256 levels", "application/cbor", deep[1:], nil, 200},
		{"257 levels", "application/cbor", deep, nil, 400},
		{"257 levels of JSON", "application/json", strings.Repeat("[", 257) + strings.Repeat("]", 257), nil, 400},
		{"a key twice", "application/json", `{"a":1,"a":1}`, nil, 400},
		{"not UTF-8", "text/plain", "\xff", nil, 400},
		{"as large as can be", "application/octet-stream", strings.Repeat("x", 1000), nil, 200},
		{"too large", "application/octet-stream", strings.Repeat("x", 1001), nil, 413},
		{"a size that is a lie", "application/cbor", "\x5b\xff\xff\xff\xff\xff\xff\xff\xff", nil, 400},
		{"compressed", "application/cbor", "\x01", []string{"Content-Encoding", "gzip"}, 415},
		{"no type", "", "\x01", nil, 415},
		{"another type", "image/png", "\x01", nil, 415},
	} {
		if code, _, body := s.post(t.Context(), "/v1/faulty/exec", tt.contentType, tt.body, tt.headers...); code != tt.code {
			t.Errorf("%s: status %d: %s", tt.name, code, body)
		}
	}
	for n := range whole {
		if code, _, _ := s.post(t.Context(), "/v1/faulty/exec", "application/cbor", string(whole[:n])); code != 400 {
			t.Errorf("%d bytes of %d: status %d", n, len(whole), code)
		}
	}
	// Without Content-Length, and truncated.
	for body, want := range map[string]string{
		"1\r\n\x01\r\n0\r\n\r\n":                                "200 OK",
		"7d1\r\n" + strings.Repeat("x", 2001) + "\r\n0\r\n\r\n": "413 Request Entity Too Large",
		"1\r\n\x01\r\n":                                         "",
		"zz\r\n":                                                "400 Bad Request",
	} {
		if got := raw(t, s, "Transfer-Encoding: chunked\r\n\r\n"+body, body == "1\r\n\x01\r\n"); !strings.HasPrefix(got, "HTTP/1.1 "+want) && want != "" {
			t.Errorf("%.20q: %.100q", body, got)
		}
	}
	if got := raw(t, s, "X: "+strings.Repeat("x", 1<<21)+"\r\nContent-Length: 1\r\n\r\n\x01", false); got != "" && !strings.HasPrefix(got, "HTTP/1.1 431") {
		t.Errorf("headers of 2 MiB: %.100q", got)
	}
}

// A header above the limit gets a status, in HTTP/2 too.
func TestLargeHeaders(t *testing.T) {
	s := start(t, web.Config{}, processor.Options{})
	for name, client := range clients(t) {
		for size, want := range map[int]int{web.MaxHeaders - 4096: 200, web.MaxHeaders: 431, 90 << 10: 431} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/v1/square/exec", strings.NewReader("3"))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			for i := range size / 1024 {
				r.Header.Set(fmt.Sprint("X-", i), strings.Repeat("x", 1024))
			}
			answer, err := client.Do(r)
			if err != nil {
				t.Fatalf("%s, %d bytes: %v", name, size, err)
			}
			body, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			if answer.StatusCode != want || want == 431 && !strings.Contains(string(body), `"class":"large"`) {
				t.Errorf("%s, %d bytes: status %d: %s", name, size, answer.StatusCode, body)
			}
		}
	}
}

// Requests whose bodies do not come are bounded, whatever connections they are on.
func TestManyOpenRequests(t *testing.T) {
	o := &observer{}
	s := start(t, web.Config{Observer: o}, processor.Options{})
	in, out := io.Pipe()
	var all sync.WaitGroup
	const limit = 8192
	for range limit + 1 {
		all.Go(func() {
			r := httptest.NewRequest(http.MethodPost, "/v1/square/exec", in)
			r.Header.Set("Content-Type", "application/json")
			s.ServeHTTP(httptest.NewRecorder(), r)
		})
	}
	full := func() int {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.rejected[web.ReasonFull]
	}
	until(t, "a request is rejected", func() bool { return full() == 1 })
	out.Close()
	all.Wait()
	if code, _, body := s.exec("1"); code != 200 || full() != 1 {
		t.Errorf("%d rejected; then status %d: %s", full(), code, body)
	}
}

// The answer has the best type of Accept that can express the output, or that of the
// request.
func TestAccept(t *testing.T) {
	s := start(t, web.Config{}, processor.Options{})
	bytesOf := "\x42\x01\x02" // a byte string, as CBOR
	for _, tt := range []struct{ contentType, body, accept, want string }{
		{"application/json", "7", "", "application/json"},
		{"application/json", "7", "*/*", "application/json"},
		{"application/json", "7", "application/*", "application/json"},
		{"application/json", "7", "text/html, */*;q=0.1", "application/json"},
		{"application/json", "7", "text/html", "application/json"},
		{"application/json", "7", ",,,", "application/json"},
		{"application/json", "7", "application/json;q=0", "application/json"}, // better than no answer
		{"application/json", "7", "application/json;q=0, */*", "application/cbor"},
		{"application/json", "7", "application/cbor;q=0.3, application/json;q=0.7", "application/json"},
		{"application/json", "7", "application/json;q=0.3, application/cbor;q=0.7", "application/cbor"},
		{"application/json", "7", "APPLICATION/CBOR", "application/cbor"},
		{"application/json", "7", "application/json; charset=utf-8", "application/json"},
		{"application/json", "7", "text/plain, application/*;q=0.5", "application/json"},
		{"application/json", "7", "*/*, application/cbor", "application/cbor"},
		{"application/json", "7", "text/*", "application/problem+json"},
		{"application/cbor", bytesOf, "application/octet-stream, */*", "application/octet-stream"},
		{"application/cbor", "\xa2\x01\x00\x611\x00", "application/json, text/plain, */*", "application/cbor"}, // JSON cannot express it
		{"application/cbor", "\x07", "application/json, text/plain, */*", "application/json"},
		{"text/plain", "x", "application/json, text/plain, */*", "application/json"},
		{"text/plain", "x", "text/html, */*", "text/plain; charset=utf-8"},
		{"text/plain", "x", strings.Repeat("a/b,", 10_000) + "application/json", "text/plain; charset=utf-8"}, // after more than are read
	} {
		_, h, body := s.post(t.Context(), "/v1/faulty/exec", tt.contentType, tt.body, "Accept", tt.accept)
		if got := h.Get("Content-Type"); got != tt.want {
			t.Errorf("%s, Accept: %.80s: %s: %q", tt.contentType, tt.accept, got, body)
		}
	}
}

// Paths and methods that are not served.
func TestPaths(t *testing.T) {
	s := start(t, web.Config{}, processor.Options{})
	m := open(t, squareWasm, processor.Options{Workers: 1})
	if err := s.Swap(t.Context(), []web.Module{{Name: "exec", Module: m}}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		method, path string
		code         int
		allow        string
	}{
		{"POST", "/v1/exec", 200, ""},
		{"POST", "/v1/exec/exec", 200, ""},
		{"POST", "/v1/ex%65c/exec", 200, ""},
		{"POST", "/v1/exec%2Fexec", 404, ""},
		{"POST", "/v1/exec/exec/", 404, ""},
		{"POST", "//v1/exec", 404, ""},
		{"POST", "/v1/../v1/exec", 404, ""},
		{"POST", "/v1/%00/exec", 404, ""},
		{"POST", "/v1/Exec/exec", 404, ""},
		{"POST", "/v1/" + strings.Repeat("a", 5000) + "/exec", 404, ""},
		{"GET", "/v1/exec", 200, ""},
		{"HEAD", "/v1/exec", 200, ""},
		{"GET", "/v1/batch", 405, "POST"},
		{"GET", "/v1/exec/exec", 405, "POST"},
		{"OPTIONS", "/v1/exec/batch", 405, "POST"},
		{"OPTIONS", "/v1/exec", 405, "POST"},
		{"TRACE", "/v1/exec/exec", 405, "POST"},
		{"POST", "/healthz", 405, "GET, HEAD"},
	} {
		r := httptest.NewRequest(tt.method, tt.path, strings.NewReader("7"))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != tt.code || w.Header().Get("Allow") != tt.allow || strings.Count(strings.TrimSpace(w.Body.String()), "\n") > 0 && tt.code != 200 {
			t.Errorf("%s %.60s: status %d, Allow %q: %.200s", tt.method, tt.path, w.Code, w.Header().Get("Allow"), w.Body)
		}
	}
	r := httptest.NewRequest(http.MethodPost, "/v1/exec", strings.NewReader("7"))
	r.Header["Content-Type"] = []string{"application/json", "application/cbor"}
	w := httptest.NewRecorder()
	if s.ServeHTTP(w, r); w.Code != http.StatusUnsupportedMediaType {
		t.Errorf("two types: status %d", w.Code)
	}
}

// raw sends a request as it is, and returns the beginning of the answer.
func raw(t *testing.T, s *server, rest string, cut bool) string {
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "POST /v1/faulty/exec HTTP/1.1\r\nHost: x\r\nContent-Type: application/cbor\r\n"+rest) // the server may close first
	if cut {
		return ""
	}
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return line
}

// A body that does not come in time: 504, and no worker waited for it.
func TestSlowBody(t *testing.T) {
	s := start(t, web.Config{Workers: 1, Timeout: 100 * time.Millisecond}, processor.Options{})
	in, out := io.Pipe()
	defer out.Close()
	done := make(chan int)
	go func() { // until the server has answered
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/v1/faulty/exec", in)
		r.Header.Set("Content-Type", "text/plain")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			done <- 0
			return
		}
		answer.Body.Close()
		done <- answer.StatusCode
	}()
	_, _ = out.Write([]byte("x"))
	if code, _, _ := s.exec("1"); code != 200 {
		t.Errorf("another request: status %d", code)
	}
	if code := <-done; code != http.StatusGatewayTimeout {
		t.Errorf("status %d", code)
	}
}

// If all workers are busy, requests wait up to the limit, the rest are rejected at once,
// and a request that has waited too long is never executed.
func TestOverload(t *testing.T) {
	counted := &observer{}
	s := start(t, web.Config{Workers: 1, Queue: 2, MaxWait: 300 * time.Millisecond, Observer: counted}, processor.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	busy.Go(func() { s.post(ctx, "/v1/faulty/exec", "application/json", `{"do":"loop"}`) })
	until(t, "a worker is busy", func() bool { return s.Counts().Executing == 1 })
	codes := make(chan string, 2)
	for n := range 2 {
		busy.Go(func() {
			code, h, body := s.exec(fmt.Sprint(n))
			codes <- fmt.Sprint(code, h.Get("Retry-After") != "", strings.Contains(body, `"wait"`))
		})
	}
	until(t, "two wait", func() bool { return s.Counts().Queued == 2 })
	code, h, body := s.exec("5")
	if seconds, err := strconv.Atoi(h.Get("Retry-After")); code != 503 || err != nil || seconds < 1 || !strings.Contains(body, `"full"`) {
		t.Errorf("status %d, Retry-After %d: %s", code, seconds, body)
	}
	for range 2 {
		if got := <-codes; got != "503 true true" {
			t.Errorf("a request that waited: %s", got)
		}
	}
	if code, _, body := s.exec("6", "Wasm-Jobs-Timeout", "20ms"); code != 504 || !strings.Contains(body, `"deadline"`) {
		t.Errorf("status %d: %s", code, body)
	}
	cancel()
	busy.Wait()
	if code, _, _ := s.exec("8"); code != 200 { // the server has recovered
		t.Errorf("status %d", code)
	}
	counted.mu.Lock()
	defer counted.mu.Unlock()
	if counted.executed != 1 || counted.rejected[web.ReasonFull] != 1 || counted.rejected[web.ReasonWait] != 2 || counted.rejected[web.ReasonDeadline] != 1 {
		t.Errorf("%d executed, rejected %v", counted.executed, counted.rejected)
	}
}

// observer counts.
type observer struct {
	mu       sync.Mutex
	executed int
	rejected map[web.Reason]int
	codes    map[int]int
}

func (o *observer) Answered(_ string, code int, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.codes == nil {
		o.codes = map[int]int{}
	}
	o.codes[code]++
}

func (*observer) Waited(string, time.Duration, int) {}

func (o *observer) Rejected(r web.Reason) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.rejected == nil {
		o.rejected = map[web.Reason]int{}
	}
	o.rejected[r]++
}

func (o *observer) Executed(uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.executed++
}

// A client that goes away ends its guest.
func TestClientGoesAway(t *testing.T) {
	s := start(t, web.Config{Workers: 1}, processor.Options{})
	for _, path := range []string{"/v1/faulty/exec", "/v1/faulty/batch"} {
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() { // until cancel
			defer close(gone)
			s.post(ctx, path, "application/json", `{"do":"loop"}`)
		}()
		until(t, "the guest runs", func() bool { return s.Counts().Executing == 1 })
		began := time.Now()
		cancel()
		<-gone
		until(t, "the guest ends", func() bool { return s.Counts().Executing == 0 })
		t.Logf("%s: ended after %v", path, time.Since(began))
	}
}

// Equal requests of many clients are executed once. If one client goes away, the others
// still get their answer.
func TestEqualRequests(t *testing.T) {
	counted := &observer{}
	s := start(t, web.Config{Workers: 4, Observer: counted}, processor.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { s.post(ctx, "/v1/faulty/exec", "application/json", `{"do":"work","n":200000000}`) })
	until(t, "the first runs", func() bool { return s.Counts().Executing == 1 })
	for range 20 {
		all.Go(func() {
			if code, _, body := s.exec(`{"do":"work","n":200000000}`); code != 200 || body != "200000000\n" {
				t.Errorf("status %d: %s", code, body)
			}
		})
	}
	cancel()
	all.Wait()
	if n := s.Counts().Reused; n == 0 {
		t.Error("nothing was reused")
	}
}

// A batch is a dialogue: each answer comes before the next request is sent.
func TestBatchDialogue(t *testing.T) {
	s := start(t, web.Config{}, processor.Options{})
	in, out := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/v1/square/batch", in)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/jsonl")
	go func() { _, _ = io.WriteString(out, "1\n") }()
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewReader(answer.Body)
	for n := 1; n <= 10; n++ {
		line, err := lines.ReadString('\n')
		if want := fmt.Sprintf("{\"id\":%d,\"output\":%d}\n", n-1, n*n); err != nil || line != want {
			t.Fatalf("%q, %v", line, err)
		}
		if n < 10 {
			fmt.Fprintln(out, n+1)
		}
	}
	fmt.Fprintln(out, `{"a`) // the last answer describes the error
	line, _ := lines.ReadString('\n')
	if !strings.HasPrefix(line, `{"id":10,"failure":{"class":"abi","message":"malformed request ends the batch: body:11: `) {
		t.Errorf("%q", line)
	}
	if rest, err := io.ReadAll(lines); len(rest) > 0 || err != nil {
		t.Errorf("then %q, %v", rest, err)
	}
}

// Draining answers the accepted requests, ends batches after the requests that they have
// read, and rejects later requests.
func TestDrain(t *testing.T) {
	s := start(t, web.Config{Workers: 1}, processor.Options{})
	in, out := io.Pipe()
	defer out.Close()
	batch := make(chan string, 1)
	var all sync.WaitGroup
	all.Go(func() {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/v1/square/batch", in)
		r.Header.Set("Content-Type", "application/jsonl")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			batch <- err.Error()
			return
		}
		defer answer.Body.Close()
		lines := bufio.NewReader(answer.Body)
		first, _ := lines.ReadString('\n')
		batch <- first
		rest, err := io.ReadAll(lines)
		batch <- fmt.Sprintf("%s%v", rest, err)
	})
	fmt.Fprintln(out, 3)
	if got := <-batch; got != "{\"id\":0,\"output\":9}\n" {
		t.Errorf("%q", got)
	}
	codes := make(chan int, 4)
	for n := range 4 {
		all.Go(func() {
			code, _, _ := s.exec(fmt.Sprintf(`{"do":"work","n":%d}`, 30_000_000+n))
			codes <- code
		})
	}
	until(t, "all are there", func() bool { c := s.Counts(); return c.Executing+c.Queued == 4 })
	if err := s.Drain(context.Background()); err != nil {
		t.Error(err)
	}
	for range 4 {
		if code := <-codes; code != 200 {
			t.Errorf("status %d", code)
		}
	}
	if got := <-batch; got != "<nil>" {
		t.Errorf("the batch ends with %q", got)
	}
	all.Wait()
	if code, _, body := s.exec("1"); code != 503 || !strings.Contains(body, "draining") {
		t.Errorf("status %d: %s", code, body)
	}
	answer, err := http.Get(s.url + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != 503 {
		t.Errorf("status %d", answer.StatusCode)
	}
}

func TestDrainTimeIsOver(t *testing.T) {
	s := start(t, web.Config{Workers: 1}, processor.Options{})
	code := make(chan int, 1)
	go func() { // until the server gives up
		got, _, _ := s.exec(`{"do":"loop"}`)
		code <- got
	}()
	until(t, "the guest runs", func() bool { return s.Counts().Executing == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Drain(ctx); err != nil {
		t.Error(err)
	}
	if got := <-code; got != 503 {
		t.Errorf("status %d", got)
	}
}

// Modules are swapped 100 times under load: each answer comes from one of them, and no
// request fails.
func TestSwapUnderLoad(t *testing.T) {
	o := processor.Options{Workers: 2}
	r, err := runtime.New(t.Context(), runtime.Config{})
	if err != nil {
		t.Fatal(err)
	}
	o.Runtime = r
	before := linear.Live()
	s, err := web.New(web.Config{Workers: 2, MaxWait: time.Minute, Queue: 100})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s)
	defer h.Close()
	paths := []string{squareWasm, faultyWasm}
	swap := func(i int) {
		if err := s.Swap(t.Context(), []web.Module{{Name: "m", Module: open(t, paths[i%2], o)}}); err != nil {
			t.Error(err)
		}
	}
	swap(0)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var answered atomic.Int64
	var clients sync.WaitGroup
	for c := range 4 {
		clients.Go(func() {
			client := &web.Client{URL: h.URL + "/v1/m"}
			for n := uint64(4); ctx.Err() == nil; n += 7 {
				in := abi.AppendHead(nil, abi.MajorUint, n%10_000/7*7)
				got, err := client.Run(context.Background(), in)
				square := abi.AppendHead(nil, abi.MajorUint, (n%10_000/7*7)*(n%10_000/7*7))
				if err != nil || !bytes.Equal(got.Output, in) && !bytes.Equal(got.Output, square) {
					t.Errorf("client %d: %x: %x, %v", c, in, got.Output, err)
				}
				answered.Add(1)
			}
		})
	}
	for i := range 100 {
		swap(i + 1)
	}
	until(t, "there are answers", func() bool { return answered.Load() > 100 })
	cancel()
	clients.Wait()
	if err := errors.Join(s.Drain(context.Background()), r.Close(context.Background())); err != nil {
		t.Error(err)
	}
	if live := linear.Live(); live != before {
		t.Errorf("%d memories are left", live-before)
	}
}

// Hostile requests are mixed with honest ones: each honest one is answered, and rightly.
// Only the hostile ones have a time limit, which frees their worker.
func TestMisbehavingGuests(t *testing.T) {
	rounds := 10_000
	if testing.Short() {
		rounds = 300
	}
	s := start(t, web.Config{Workers: 2, Queue: 100}, processor.Options{Settings: runtime.Settings{Memory: 4 << 20}})
	hostile := []string{`{"do":"loop"}`, `{"do":"calls"}`, `{"do":"grow"}`, `{"do":"grown"}`, `{"do":"stack"}`, `{"do":"log","lines":5000}`,
		`{"do":"exit","code":0}`, `{"do":"exit","code":7}`, `{"do":"wrap"}`, `{"do":"dirty"}`, `{"do":"big","size":20000000}`, `3`}
	var clients sync.WaitGroup
	var next atomic.Int64
	for c := range uint64(4) {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(c, 5))
			for next.Add(1) <= int64(rounds) {
				if c%2 == 0 {
					if code, _, body := s.exec(hostile[random.IntN(len(hostile))], "Wasm-Jobs-Timeout", "20ms"); code == 0 || code == 503 {
						t.Errorf("status %d: %s", code, body)
					}
					continue
				}
				n := random.Uint64N(1000) * 7
				if code, _, body := s.exec(fmt.Sprint(n)); code != 200 || body != fmt.Sprintln(n) {
					t.Errorf("%d: status %d: %s", n, code, body)
				}
				if code, _, body := s.exec(`{"do":"counter"}`); code != 200 || body != "1\n" {
					t.Errorf("a guest left state behind: status %d: %s", code, body)
				}
			}
		})
	}
	clients.Wait()
}

// Guests that never end take their own workers only: on a free worker, all requests are
// answered, and Go's garbage collection does not wait for guests.
func TestHonestBesideEndless(t *testing.T) {
	s := start(t, web.Config{Workers: 3}, processor.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	var endless sync.WaitGroup
	for _, request := range []string{`{"do":"loop"}`, `{"do":"log","lines":1000000000000}`} {
		endless.Go(func() { s.post(ctx, "/v1/faulty/exec", "application/json", request) }) // until cancel
	}
	until(t, "both run", func() bool { return s.Counts().Executing == 2 })
	answered := 0
	for n := range 500 {
		if code, _, body := s.exec(fmt.Sprint(7 * n)); code == 200 && body == fmt.Sprintln(7*n) {
			answered++
		}
		if n%50 == 0 {
			goruntime.GC()
		}
	}
	if c := s.Counts(); answered != 500 || c.Executing != 2 {
		t.Errorf("%d requests were answered, and %d run", answered, c.Executing)
	}
	cancel()
	endless.Wait()
}

func FuzzExec(f *testing.F) {
	s := start(f, web.Config{MaxBody: 1 << 16}, processor.Options{Settings: runtime.Settings{Fuel: 1_000_000}})
	for _, seed := range []struct{ contentType, accept, body string }{
		{"application/cbor", "", "\x01"}, {"application/json", "application/cbor", "[1,2]"}, {"text/plain; charset=utf-8", "*/*", "x"},
		{"application/octet-stream", "text/plain;q=0.1, application/json", "x"}, {"", "", ""},
	} {
		f.Add(seed.contentType, seed.accept, seed.body)
	}
	f.Fuzz(func(t *testing.T, contentType, accept, body string) {
		r := httptest.NewRequest(http.MethodPost, "/v1/faulty/exec", strings.NewReader(body))
		r.Header["Content-Type"], r.Header["Accept"] = []string{contentType}, []string{accept}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		var p web.Problem
		switch w.Code {
		case 200:
			if contentType == "application/cbor" && accept == "" && abi.CheckItem(w.Body.Bytes()) != nil {
				t.Errorf("%x is the answer to %x", w.Body.Bytes(), body)
			}
		default:
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != w.Code || p.Class == "" || p.Message == "" {
				t.Errorf("status %d: %s", w.Code, w.Body)
			}
		}
		if contentType == "application/cbor" && (w.Code == 400) != (abi.CheckItem([]byte(body)) != nil && len(body) <= 1<<16) {
			t.Errorf("%x: status %d", body, w.Code)
		}
	})
}

func FuzzBatch(f *testing.F) {
	s := start(f, web.Config{MaxBody: 1 << 12}, processor.Options{Settings: runtime.Settings{Fuel: 1_000_000}})
	for _, body := range []string{"", "\x01\x02", "\x82\x01\x02\x03", "\xa1\x62id\x05", "\x01\x82\x01", "\x5b\x00\x00\x00\x01\x00\x00\x00\x00"} {
		f.Add(body, false)
		f.Add(body, true)
	}
	f.Fuzz(func(t *testing.T, body string, lines bool) {
		h := httptest.NewServer(s)
		defer h.Close()
		contentType := "application/cbor-seq"
		if lines {
			contentType = "application/jsonl"
		}
		code, _, got := (&server{s.Server, h.URL, t}).post(t.Context(), "/v1/faulty/batch", contentType, body)
		if code != 200 && code != 400 && code != 413 {
			t.Fatalf("status %d: %s", code, got)
		}
		if lines || code != 200 {
			return
		}
		// There is one answer for each complete item, and one for the malformed rest.
		want, rest := 0, []byte(body)
		for len(rest) > 0 {
			n, err := abi.ItemSize(rest)
			want++
			if err != nil {
				break
			}
			rest = rest[n:]
		}
		answers := 0
		for rest := []byte(got); len(rest) > 0; answers++ {
			n, err := abi.ItemSize(rest)
			if err != nil {
				t.Fatalf("invalid CBOR sequence %x: %v", got, err)
			}
			rest = rest[n:]
		}
		if answers > want {
			t.Errorf("%d answers to %d requests", answers, want)
		}
	})
}

// The longest time limit is a long one.
func TestLongestTimeLimit(t *testing.T) {
	for _, longest := range []time.Duration{0, math.MaxInt64} {
		s := start(t, web.Config{Timeout: longest}, processor.Options{})
		if code, _, body := s.square("5", "Wasm-Jobs-Timeout", time.Duration(math.MaxInt64).String()); code != 200 {
			t.Errorf("limit %s: exec: status %d, %s", longest, code, body)
		}
		if code, _, body := s.post(t.Context(), "/v1/square/batch", "application/jsonl", "5\n6\n"); code != 200 || strings.Contains(body, "failure") {
			t.Errorf("limit %s: batch: status %d, %s", longest, code, body)
		}
	}
}
