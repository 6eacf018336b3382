package effects

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/flow"
)

// call makes one effect of an executor.
func call(t *testing.T, e flow.Executor, data any) (map[string]any, error) {
	t.Helper()
	p, err := e.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	b, err := cbor.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	i := p.Borrow(nil)
	defer i.Release()
	input := append([]byte{0x82, 0x58, 32}, make([]byte, 32)...)
	out, _, err := i.Call(context.Background(), abi.ExportExec, append(input, b...), nil)
	if err != nil {
		return nil, err
	}
	if err := abi.CheckItem(out); err != nil {
		t.Fatalf("the output is not one item: %v", err)
	}
	var m map[string]any
	if err := cbor.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	return m, nil
}

func wantClass(t *testing.T, err error, class abi.Class, part string) {
	t.Helper()
	f, ok := errors.AsType[*abi.Failure](err)
	if !ok || f.Class != class || !strings.Contains(f.Message, part) {
		t.Errorf("%v: want class %s with %q", err, class, part)
	}
}

func TestHTTP(t *testing.T) {
	t.Setenv("TOKEN", "hush")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/echo":
			w.Header().Set("X-Got", r.Header.Get("Authorization")+" "+r.Header.Get("X-Mine")+" "+r.Method)
			w.Header().Set("X-Key", r.Header.Get("Idempotency-Key"))
			w.WriteHeader(http.StatusTeapot)
			_, _ = w.Write([]byte("body"))
		case "/api/out":
			http.Redirect(w, r, "/secret", http.StatusFound)
		case "/api/in":
			http.Redirect(w, r, "/api/echo", http.StatusFound)
		case "/api/busy":
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
		case "/api/broken":
			w.WriteHeader(http.StatusBadGateway)
		case "/api/large":
			_, _ = w.Write(make([]byte, 2000))
		case "/api/endless":
			<-r.Context().Done()
		default:
			t.Errorf("%s was asked for", r.URL)
		}
	}))
	defer s.Close()
	h := &HTTP{Allow: []string{s.URL + "/api"}, Headers: map[string]string{"Authorization": "env:TOKEN"}, Timeout: time.Second, MaxBody: 1000}

	out, err := call(t, h, map[string]any{"method": "PUT", "url": s.URL + "/api/echo?x=%2F", "headers": map[string]string{"x-mine": "v"}, "body": []byte("b")})
	if err != nil {
		t.Fatal(err)
	}
	headers := out["headers"].(map[any]any)
	if out["status"] != uint64(http.StatusTeapot) || string(out["body"].([]byte)) != "body" || headers["x-got"] != "hush v PUT" || headers["x-key"] != strings.Repeat("0", 64) {
		t.Errorf("%v", out)
	}
	if out, err = call(t, h, map[string]any{"url": s.URL + "/api/in"}); err != nil || out["status"] != uint64(http.StatusTeapot) {
		t.Errorf("an allowed redirect: %v, %v", out, err)
	}
	host := strings.TrimPrefix(s.URL, "http://")
	for _, url := range []string{
		s.URL + "/api/out", s.URL + "/secret", s.URL + "/apiary", s.URL + "/api/../secret", s.URL + "/api/%2e%2e/secret", s.URL + "/api%2fx",
		"http://user@" + host + "/api/echo", "http://" + host + "1/api/echo", "HTTP://" + host + "/api/echo", "https://" + host + "/api/echo",
		"http://LOCALHOST/api/echo", "http://" + host + "\\@evil/api/echo", "ftp://" + host + "/api", "/api/echo", "", "http://" + host + "/api/echo\r\nX: y",
	} {
		_, err := call(t, h, map[string]any{"url": url})
		wantClass(t, err, flow.ClassEffect, "")
	}
	_, err = call(t, h, map[string]any{"url": s.URL + "/api/echo", "headers": map[string]string{"X": "a\r\nY: b"}})
	wantClass(t, err, flow.ClassEffect, "line breaks")
	_, err = call(t, h, map[string]any{"url": s.URL + "/api/echo", "headers": map[string]string{"Host": "evil"}})
	wantClass(t, err, flow.ClassEffect, "Host")
	_, err = call(t, h, map[string]any{"url": s.URL + "/api/echo", "more": 1})
	wantClass(t, err, flow.ClassEffect, "more")
	_, err = call(t, h, 5)
	wantClass(t, err, flow.ClassEffect, "map")
	_, err = call(t, h, map[string]any{"url": s.URL + "/api/large"})
	wantClass(t, err, flow.ClassEffect, "1000 bytes")
	_, err = call(t, h, map[string]any{"url": s.URL + "/api/broken"})
	wantClass(t, err, abi.ClassGuestRetryable, "502")
	_, err = call(t, h, map[string]any{"url": s.URL + "/api/endless"})
	wantClass(t, err, abi.ClassTimeout, "")
	_, err = call(t, h, map[string]any{"url": s.URL + "/api/busy"})
	if slow, ok := errors.AsType[*flow.SlowDown](err); !ok || slow.After != 7*time.Second {
		t.Errorf("429 with Retry-After: %v", err)
	}
	for _, e := range []error{err} {
		if strings.Contains(e.Error(), "hush") {
			t.Errorf("the secret is in %v", e)
		}
	}
	delete(h.Headers, "Authorization")
	h.Headers["X"] = "env:NO_SUCH_VARIABLE"
	_, err = call(t, h, map[string]any{"url": s.URL + "/api/echo"})
	wantClass(t, err, flow.ClassEffect, "NO_SUCH_VARIABLE")
}

// TestRedirectKeepsSecrets redirects to the same host and to another: the headers of the
// definition are for the first host only.
func TestRedirectKeepsSecrets(t *testing.T) {
	t.Setenv("TOKEN", "hush")
	echo := func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Got", r.Header.Get("X-Api-Key")) }
	other := httptest.NewServer(http.HandlerFunc(echo))
	defer other.Close()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, other.URL+"/again", http.StatusFound)
		case "/near":
			http.Redirect(w, r, "/echo", http.StatusFound)
		default:
			echo(w, r)
		}
	}))
	defer s.Close()
	h := &HTTP{Allow: []string{s.URL, other.URL}, Headers: map[string]string{"X-Api-Key": "env:TOKEN"}}
	for path, want := range map[string]string{"/near": "hush", "/away": ""} {
		out, err := call(t, h, map[string]any{"url": s.URL + path})
		if err != nil {
			t.Fatal(err)
		}
		if got := out["headers"].(map[any]any)["x-got"]; got != want {
			t.Errorf("%s: the header is %q, not %q", path, got, want)
		}
	}
}
