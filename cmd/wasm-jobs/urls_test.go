package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// objects are the files of a server.
type objects struct {
	mu    sync.Mutex
	files map[string][]byte // mu
}

func (o *objects) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b, ok := o.files[r.URL.Path]
	switch {
	case r.Method == http.MethodPut && strings.HasPrefix(r.URL.Path, "/read-only"):
		w.WriteHeader(http.StatusForbidden)
	case r.Method == http.MethodPut:
		o.files[r.URL.Path], _ = io.ReadAll(r.Body)
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	default:
		w.Write(b)
	}
}

// startObjects starts a server with files, and a store of s3 with the bucket "bucket".
func startObjects(t *testing.T, files map[string][]byte) (url string, o *objects) {
	t.Helper()
	o = &objects{files: files}
	h := httptest.NewServer(o)
	t.Cleanup(h.Close)
	store := s3mem.New()
	if err := store.CreateBucket("bucket"); err != nil {
		t.Fatal(err)
	}
	s3 := httptest.NewServer(gofakes3.New(store).Server())
	t.Cleanup(s3.Close)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_S3": s3.URL, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
		"NETRC": filepath.Join(t.TempDir(), "none"), "XDG_CACHE_HOME": t.TempDir(),
	} {
		t.Setenv(name, value)
	}
	return h.URL, o
}

// runMain runs a command, and returns its exit code and what it wrote.
func runMain(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = Main(context.Background(), append([]string{"wasm-jobs"}, args...), strings.NewReader(""), &out, &err)
	return code, out.String(), err.String()
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err := w.Write(b)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

func fileBytes(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A job whose module, inputs and results are at URLs is the job over local files.
func TestURLs(t *testing.T) {
	echo := "../../testdata/wasm/echo.wasm"
	url, o := startObjects(t, map[string][]byte{
		"/echo.wasm": fileBytes(t, echo), "/a.jsonl": []byte("1\n2\n"), "/b.gz": gzipped(t, []byte("3\n4\n")), "/c.csv": []byte("n\n1\n2\n"),
		"/t.parquet": fileBytes(t, "internal/parquet/testdata/list_columns.parquet"), "/context.cbor": {0xf6},
	})
	dir := t.TempDir()
	local := filepath.Join(dir, "all.jsonl")
	if err := os.WriteFile(local, []byte("1\n2\n3\n4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want, got := filepath.Join(dir, "want.json"), filepath.Join(dir, "got.json")
	if code, _, err := runMain("run", echo, "--jsonl", local, "--no-store", "--receipt", want); code != 0 {
		t.Fatal(err)
	}
	code, _, stderr := runMain("run", url+"/echo.wasm", "--jsonl", url+"/a.jsonl", "--jsonl", url+"/b.gz?x=*", "--no-store", "--receipt", got,
		"--outputs", "s3://bucket/o.jsonl.gz", "-o", url+"/result", "--report", "s3://bucket/deep/report.json")
	if code != 0 || !bytes.Equal(fileBytes(t, want), fileBytes(t, got)) {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for _, args := range [][]string{
		{"chunks", "from-lines", "s3://bucket/o.*"},
		{"chunks", "cat", "-f", "json", url + "/result"},
		{"run", echo, url + "/result", "--no-store", "--progress", "none"},
		{"run", echo, "--csv", url + "/c.csv", "--csv-types", "auto", "--no-store", "--progress", "none"},
		{"run", echo, "--parquet", url + "/t.parquet", "--no-store", "--progress", "none"},
	} {
		if code, stdout, stderr := runMain(args...); code != 0 || stdout == "" || stderr != "" {
			t.Errorf("%q: exit code %d: %s%s", args, code, stdout, stderr)
		}
	}
	if len(o.files["/result"]) == 0 {
		t.Error("the result is empty")
	}
}

func TestURLDefects(t *testing.T) {
	echo := "../../testdata/wasm/echo.wasm"
	url, o := startObjects(t, map[string][]byte{"/a.jsonl": []byte("1\n"), "/bad.jsonl": []byte("1\n{\n"), "/cut.gz": gzipped(t, []byte("1\n2\n"))[:20]})
	for _, x := range []struct {
		code int
		want string
		args []string
	}{
		{2, url + "/none: cannot be opened: the server answered 404 Not Found", []string{"run", echo, "--jsonl", url + "/none?token=secret", "--no-store"}},
		{2, url + "/none: cannot be opened: the server answered 404 Not Found", []string{"run", echo, url + "/none", "--no-store"}},
		{2, url + "/none: the server answered 404 Not Found", []string{"run", url + "/none", url + "/a.jsonl", "--no-store"}},
		{2, url + "/bad.jsonl:2: invalid JSON", []string{"run", echo, "--jsonl", url + "/bad.jsonl?token=secret", "--no-store"}},
		{2, url + "/cut.gz: truncated gzip data: it ends after 20 bytes", []string{"run", echo, "--jsonl", url + "/cut.gz", "--no-store"}},
		{2, "s3://none/x cannot be written: no such bucket", []string{"run", echo, "--jsonl", url + "/a.jsonl", "--no-store", "-o", "s3://none/x"}},
		{2, "would replace the input " + url + "/a.jsonl", []string{"run", echo, "--jsonl", url + "/a.jsonl", "--no-store", "-o", url + "/a.jsonl"}},
		{2, "s3://bucket/x*: no object matches the pattern", []string{"run", echo, "--jsonl", "s3://bucket/x*", "--no-store"}},
		{2, "not encrypted: want https://", []string{"run", echo, "--jsonl", "http://example.com/a", "--no-store"}},
		{2, "invalid --files", []string{"run", echo, "--files", url + "/a.jsonl", "--no-store"}},
		{2, "invalid --bundle", []string{"run", echo, "--jsonl", url + "/a.jsonl", "--bundle", "s3://bucket/x", "--no-store"}},
		{4, url + "/read-only/x: the server answered 403 Forbidden", []string{"run", echo, "--jsonl", url + "/a.jsonl", "--no-store", "--progress", "none", "-o", url + "/read-only/x"}},
	} {
		code, _, stderr := runMain(x.args...)
		if code != x.code || !strings.Contains(stderr, x.want) || strings.Count(stderr, "\n") != 1 || strings.Contains(stderr, "secret") {
			t.Errorf("%q: exit code %d: %s", x.args, code, stderr)
		}
	}
	if len(o.files) != 3 {
		t.Errorf("%d files", len(o.files))
	}
}
