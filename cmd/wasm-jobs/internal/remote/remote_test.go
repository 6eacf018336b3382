package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// content is an object of several reads.
var content = bytes.Repeat([]byte("0123456789abcdef"), 40_000)

// server serves the content, and lets each response end after some bytes.
type server struct {
	ranges   bool
	validate bool // sends an ETag
	cut      int  // bytes of one response; 0 = all
	statuses []int
	change   bool // another object from the second request on
	requests []string
	puts     [][]byte
	auth     string
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests = append(s.requests, r.Method+" "+r.Header.Get("Range"))
	s.auth = r.Header.Get("Authorization")
	if len(s.statuses) > 0 {
		status := s.statuses[0]
		s.statuses = s.statuses[1:]
		w.WriteHeader(status)
		return
	}
	if r.Method == http.MethodPut {
		b, _ := io.ReadAll(r.Body)
		s.puts = append(s.puts, b)
		return
	}
	s.get(w, r)
}

func (s *server) get(w http.ResponseWriter, r *http.Request) {
	tag := `"one"`
	if s.change && len(s.requests) > 1 {
		tag = `"two"`
	}
	if s.validate {
		w.Header().Set("ETag", tag)
	}
	b, status := content, http.StatusOK
	var at int
	if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &at); n == 1 && s.ranges && (r.Header.Get("If-Range") == "" || r.Header.Get("If-Range") == tag) {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", at, len(content)-1, len(content)))
		b, status = content[at:], http.StatusPartialContent
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	w.WriteHeader(status)
	if s.cut > 0 && len(b) > s.cut {
		w.Write(b[:s.cut])
		panic(http.ErrAbortHandler)
	}
	w.Write(b)
}

func start(t *testing.T, s *server) string {
	t.Helper()
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	t.Setenv("NETRC", filepath.Join(t.TempDir(), "none"))
	return h.URL + "/x?token=secret"
}

func readURL(t *testing.T, url string) ([]byte, error) {
	t.Helper()
	r, err := Open(t.Context(), url)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// A read that breaks goes on with a range, and the bytes are those of the object.
func TestResume(t *testing.T) {
	for name, s := range map[string]*server{
		"whole":             {},
		"cut, ranges":       {ranges: true, validate: true, cut: 300_000},
		"cut, no validator": {ranges: true, cut: 300_000},
		"statuses":          {statuses: []int{503, 500}},
	} {
		got, err := readURL(t, start(t, s))
		if !bytes.Equal(got, content) || err != nil {
			t.Errorf("%s: %d bytes, error %v; %q", name, len(got), err, s.requests)
		}
	}
}

func TestFailures(t *testing.T) {
	for name, x := range map[string]struct {
		s    *server
		want string
	}{
		"missing": {&server{statuses: []int{404}}, "the server answered 404 Not Found"},
		"changed": {&server{ranges: true, validate: true, cut: 300_000, change: true}, "the object changed while it was read; run again"},
	} {
		url := start(t, x.s)
		_, err := readURL(t, url)
		want := strings.TrimSuffix(url, "?token=secret") + ": " + x.want
		if err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", name, err, want)
		}
	}
}

func TestRefused(t *testing.T) {
	for url, want := range map[string]string{
		"http://example.com/x":       "not encrypted: want https://, or a host on this machine",
		"https://u:p@example.com/x":  "a user or password in an argument can be seen by others: put it into ~/.netrc",
		"https://":                   "invalid URL",
		"GS://bucket/x?token=long":   "unsupported kind of URL: want https://HOST/PATH, s3://BUCKET/KEY, or a path",
		"file:///tmp/x":              "unsupported kind of URL",
		"s3://bucket":                "invalid URL: want s3://BUCKET/KEY",
		"https://h/x\x7f?token=long": "invalid URL",
	} {
		err := Check(url)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "p@") || strings.Contains(err.Error(), "long") {
			t.Errorf("%s: %v", url, err)
		}
	}
	if got := Recorded("https://h/x?a=1&X-Amz-Signature=abc"); got != "https://h/x" {
		t.Errorf("recorded %q", got)
	}
	if got := Recorded("https://h/x?a=1"); got != "https://h/x?a=1" {
		t.Errorf("recorded %q", got)
	}
}

// A context that ends, ends a read that waits.
func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write(content[:10])
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	}))
	defer h.Close()
	t.Setenv("NETRC", filepath.Join(t.TempDir(), "none"))
	r, err := Open(ctx, h.URL)
	if err == nil {
		_, err = io.ReadAll(r)
		r.Close()
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestPut(t *testing.T) {
	s := &server{statuses: []int{503}}
	url := start(t, s)
	file := fileOf(t, content)
	target, err := Create(t.Context(), url)
	if err == nil {
		err = target.Put(t.Context(), file)
	}
	if err != nil || len(s.puts) != 1 || !bytes.Equal(s.puts[0], content) {
		t.Fatalf("%d objects, error %v", len(s.puts), err)
	}
	s.statuses = []int{403}
	if err := target.Put(t.Context(), file); err == nil || !strings.HasSuffix(err.Error(), "/x: the server answered 403 Forbidden") {
		t.Errorf("error %v", err)
	}
}

func fileOf(t *testing.T, b []byte) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

// The credentials of .netrc are sent to their host.
func TestNetrc(t *testing.T) {
	s := &server{}
	url := start(t, s)
	path := filepath.Join(t.TempDir(), "netrc")
	if err := os.WriteFile(path, []byte("machine 127.0.0.1 login me password word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NETRC", path)
	if _, err := readURL(t, url); err != nil || s.auth != "Basic bWU6d29yZA==" {
		t.Errorf("%q, error %v", s.auth, err)
	}
}

// fake3 starts a store with one bucket, and sets the variables of the AWS tools.
func fake3(t *testing.T, wrap func(http.Handler) http.Handler) {
	t.Helper()
	store := s3mem.New()
	if err := store.CreateBucket("bucket"); err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(wrap(gofakes3.New(store).Server()))
	t.Cleanup(h.Close)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_S3": h.URL, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(name, value)
	}
}

// limited ends a response after some bytes.
type limited struct {
	http.ResponseWriter
	left int
}

func (l *limited) Write(b []byte) (int, error) {
	if len(b) > l.left {
		l.ResponseWriter.Write(b[:l.left])
		panic(http.ErrAbortHandler)
	}
	l.left -= len(b)
	return l.ResponseWriter.Write(b)
}

func TestS3(t *testing.T) {
	requests := 0
	fake3(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "a.bin") {
				requests++
				w = &limited{w, 300_000}
			}
			h.ServeHTTP(w, r)
		})
	})
	for _, key := range []string{"d/a.bin", "d/e/b.bin", "c.txt"} {
		target, err := Create(t.Context(), "s3://bucket/"+key)
		if err == nil {
			err = target.Put(t.Context(), fileOf(t, content))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	got, err := readURL(t, "s3://bucket/d/a.bin")
	if !bytes.Equal(got, content) || err != nil || requests < 3 {
		t.Errorf("%d bytes in %d requests, error %v", len(got), requests, err)
	}
	found, err := Match(t.Context(), "s3://bucket/d/**/*.bin")
	if err != nil || strings.Join(found, " ") != "s3://bucket/d/a.bin s3://bucket/d/e/b.bin" {
		t.Errorf("%q, error %v", found, err)
	}
	if _, err := readURL(t, "s3://bucket/none"); err == nil || err.Error() != "s3://bucket/none: no such object" {
		t.Errorf("error %v", err)
	}
	if _, err := Create(t.Context(), "s3://other/x"); err == nil || err.Error() != "s3://other/x: no such bucket" {
		t.Errorf("error %v", err)
	}
}
