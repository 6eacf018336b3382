package web_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasm-jobs/wasm-jobs/processor"
	"github.com/wasm-jobs/wasm-jobs/processor/web"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// dialogue is an open batch: the test writes requests and reads answers.
type dialogue struct {
	t    *testing.T
	out  *io.PipeWriter
	body io.ReadCloser
	*bufio.Reader
}

// talk opens a batch of JSON lines with its first request, and reads the first answer.
func talk(t *testing.T, client *http.Client, url, request, want string, headers ...string) *dialogue {
	t.Helper()
	in, out := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, in)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/jsonl")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	go func() { _, _ = io.WriteString(out, request) }() // until it is read, or the request ends
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close(); answer.Body.Close() })
	d := &dialogue{t, out, answer.Body, bufio.NewReader(answer.Body)}
	if line, err := d.ReadString('\n'); err != nil || line != want {
		t.Fatalf("the first answer is %q, %v", line, err)
	}
	return d
}

// clients are one that uses HTTP/1.1, and one that uses HTTP/2.
func clients(t *testing.T) map[string]*http.Client {
	all := map[string]*http.Client{}
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		transport := &http.Transport{Protocols: &http.Protocols{}}
		transport.Protocols.SetHTTP1(!http2)
		transport.Protocols.SetUnencryptedHTTP2(http2)
		all[name] = &http.Client{Transport: transport}
		t.Cleanup(transport.CloseIdleConnections)
	}
	return all
}

// A batch that is cut does not end like a complete one.
func TestCutBatch(t *testing.T) {
	for name, client := range clients(t) {
		s := start(t, web.Config{Workers: 1}, processor.Options{})
		d := talk(t, client, s.url+"/v1/faulty/batch", "1\n", "{\"id\":0,\"output\":1}\n")
		_, _ = io.WriteString(d.out, "{\"do\":\"loop\"}\n")
		until(t, "the guest runs", func() bool { return s.Counts().Executing == 1 })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Drain(ctx); err != nil {
			t.Error(err)
		}
		if rest, err := io.ReadAll(d); err == nil {
			t.Errorf("%s: the batch ends with %q and no error", name, rest)
		}
	}
}

// A server that drains answers the requests of a batch that it has read.
func TestDrainAnswersBatches(t *testing.T) {
	for name, client := range clients(t) {
		s := start(t, web.Config{Workers: 1}, processor.Options{})
		d := talk(t, client, s.url+"/v1/faulty/batch", "1\n", "{\"id\":0,\"output\":1}\n")
		_, _ = io.WriteString(d.out, "{\"do\":\"work\",\"n\":100000000}\n5\n")
		until(t, "the guest runs", func() bool { return s.Counts().Executing == 1 })
		if err := s.Drain(context.Background()); err != nil {
			t.Error(err)
		}
		rest, err := io.ReadAll(d)
		if !strings.HasPrefix(string(rest), "{\"id\":1,\"output\":100000000}\n") || err != nil {
			t.Errorf("%s: then %q, %v", name, rest, err)
		}
	}
}

// deadlines is a client that takes what it gets, and keeps the deadline of writes.
type deadlines struct {
	*httptest.ResponseRecorder
	writes []time.Time
}

func (d *deadlines) EnableFullDuplex() error { return nil }

func (d *deadlines) SetWriteDeadline(at time.Time) error {
	d.writes = append(d.writes, at)
	return nil
}

// While a batch waits for requests, no deadline for writing is set: in HTTP/2, it would
// end the batch.
func TestNoDeadlineBetweenAnswers(t *testing.T) {
	s := start(t, web.Config{}, processor.Options{})
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	r := httptest.NewRequest(http.MethodPost, "/v1/square/batch", strings.NewReader("1\n2\n"))
	r.Header.Set("Content-Type", "application/jsonl")
	s.ServeHTTP(w, r)
	if w.Body.String() != "{\"id\":0,\"output\":1}\n{\"id\":1,\"output\":4}\n" || len(w.writes) < 2 {
		t.Fatalf("deadlines %v; %s", w.writes, w.Body)
	}
	if last := w.writes[len(w.writes)-1]; !last.IsZero() {
		t.Errorf("the deadline after the last answer is %v", last)
	}
}

// A request of a batch has the time limit of the server, or a shorter one that the
// client asks for.
func TestTimeLimitOfBatches(t *testing.T) {
	for _, tt := range []struct {
		name    string
		config  web.Config
		options processor.Options
		headers []string
	}{
		{"of the server", web.Config{Workers: 1, Timeout: 50 * time.Millisecond}, processor.Options{}, nil},
		{"of the module", web.Config{Workers: 1}, processor.Options{Settings: runtime.Settings{Timeout: 50 * time.Millisecond}}, nil},
		{"of the client", web.Config{Workers: 1, Timeout: time.Hour}, processor.Options{}, []string{"Wasm-Jobs-Timeout", "50ms"}},
	} {
		tt.options.Settings.Fuel = 1 << 30 // ends the loop without a time limit
		s := start(t, tt.config, tt.options)
		code, _, body := s.post(t.Context(), "/v1/faulty/batch", "application/jsonl", "1\n{\"do\":\"loop\"}\n2\n", tt.headers...)
		if code != 200 || !strings.HasPrefix(body, "{\"id\":0,\"output\":1}\n{\"id\":1,\"failure\":{\"class\":\"timeout\",") || !strings.HasSuffix(body, "{\"id\":2,\"output\":2}\n") {
			t.Errorf("%s: status %d: %s", tt.name, code, body)
		}
	}
	s := start(t, web.Config{}, processor.Options{})
	if code, _, body := s.post(t.Context(), "/v1/faulty/batch", "application/jsonl", "1\n", "Wasm-Jobs-Timeout", "soon"); code != 400 {
		t.Errorf("status %d: %s", code, body)
	}
}

// A malformed request has the id of its position, which blank lines do not change.
func TestPositionOfMalformed(t *testing.T) {
	s := start(t, web.Config{}, processor.Options{})
	for body, want := range map[string]string{"1\n\nbad\n": `{"id":1,"failure":{`, "1\n\n\n2\n\nbad\n": `{"id":2,"failure":{`} {
		_, _, got := s.post(t.Context(), "/v1/square/batch", "application/jsonl", body)
		lines := strings.Split(strings.TrimSpace(got), "\n")
		if !strings.HasPrefix(lines[len(lines)-1], want) {
			t.Errorf("%q: %s", body, got)
		}
	}
}

// A module that was replaced while it was in use is closed after its last request, and
// its numbers count at any time.
func TestReplacedModules(t *testing.T) {
	s := start(t, web.Config{Workers: 1}, processor.Options{})
	d := talk(t, http.DefaultClient, s.url+"/v1/square/batch", "3\n", "{\"id\":0,\"output\":9}\n")
	instances := s.Counts().Instances
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	second := open(t, squareWasm, processor.Options{Workers: 1})
	if err := s.Swap(ended, []web.Module{{Name: "square", Module: second}}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if n := s.Counts().Instances; n < instances {
		t.Errorf("%d instances, and %d before the swap", n, instances)
	}
	fmt.Fprintln(d.out, 4)
	if line, err := d.ReadString('\n'); err != nil || line != "{\"id\":1,\"output\":16}\n" {
		t.Errorf("%q, %v", line, err)
	}
	d.out.Close()
	until(t, "the old modules are closed", func() bool { n := second.Stats(); return s.Counts().Instances == n.Created-n.Closed })
	third := open(t, squareWasm, processor.Options{Workers: 1})
	if err := s.Swap(t.Context(), []web.Module{{Name: "m", Module: third}, {Name: "m", Module: third}}); err == nil {
		t.Error("two modules have one name")
	}
	if err := s.Swap(t.Context(), []web.Module{{Name: "m", Module: third}}); err != nil {
		t.Error(err)
	}
	if n := second.Stats(); n.Created != n.Closed {
		t.Errorf("%d instances were created and %d closed", n.Created, n.Closed)
	}
}

// Drain closes modules that were replaced and whose batch it has to cut.
func TestDrainClosesReplacedModules(t *testing.T) {
	s := start(t, web.Config{Workers: 1}, processor.Options{}) // compares the instances created and closed
	d := talk(t, http.DefaultClient, s.url+"/v1/square/batch", "3\n", "{\"id\":0,\"output\":9}\n")
	defer d.out.Close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_ = s.Swap(ended, nil)
	if err := s.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if n := s.Counts().Instances; n != 0 {
		t.Errorf("%d instances are left", n)
	}
}

// A batch is read at the rate of its client, whose other requests wait for it too.
func TestRateOfBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, squareWasm, processor.Options{Workers: 1})
		s, err := web.New(web.Config{Workers: 1, Rate: 10})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Swap(t.Context(), []web.Module{{Name: "square", Module: m}}); err != nil {
			t.Fatal(err)
		}
		post := func(path, contentType, body string) (*deadlines, time.Duration) {
			start := time.Now()
			w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
			r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
			r.Header.Set("Content-Type", contentType)
			s.ServeHTTP(w, r)
			return w, time.Since(start)
		}
		w, took := post("/v1/square/batch", "application/jsonl", strings.Repeat("3\n", 40))
		if n := strings.Count(w.Body.String(), `"output":9}`); n != 40 || took < 3*time.Second-time.Millisecond || took > 3*time.Second+time.Millisecond { // the first ten are a burst
			t.Errorf("%d answers after %v", n, took)
		}
		if w, _ := post("/v1/square/exec", "application/json", "3"); w.Code != http.StatusTooManyRequests {
			t.Errorf("status %d", w.Code)
		}
		time.Sleep(100 * time.Millisecond)
		if w, _ := post("/v1/square/exec", "application/json", "3"); w.Code != http.StatusOK {
			t.Errorf("status %d", w.Code)
		}
		if err := s.Drain(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
