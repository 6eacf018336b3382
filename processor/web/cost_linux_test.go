package web_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasm-jobs/wasm-jobs/processor"
	"github.com/wasm-jobs/wasm-jobs/processor/web"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// BenchmarkExec measures what exec of the no-op guest adds to a handler that returns its
// body, in CPU time and in allocations, without the work of net/http. For the ratio with
// it, see bench/serve.go. Use at least nine iterations: -benchtime 21x.
func BenchmarkExec(b *testing.B) {
	const limit = 30 * time.Second // the limits of bench/serve.go
	s, err := web.New(web.Config{Workers: 2, MaxWait: time.Second, Timeout: limit})
	if err != nil {
		b.Fatal(err)
	}
	m := open(b, noopWasm, processor.Options{Workers: 2, Settings: runtime.Settings{Timeout: limit}})
	if err := s.Swap(b.Context(), []web.Module{{Name: "noop", Module: m}}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Drain(context.Background()) })
	exec, echo := newAsker(b, s), newAsker(b, http.HandlerFunc(returnBody))
	const requests = 4000
	exec.ask(requests)
	var added []float64
	for b.Loop() {
		base := cpuTime(b, func() { echo.ask(requests) })
		added = append(added, (cpuTime(b, func() { exec.ask(requests) })-base)/requests)
	}
	slices.Sort(added)
	b.ReportMetric(added[len(added)/2], "ns-added/request")
	each := func(a *asker) float64 { return testing.AllocsPerRun(requests, func() { a.ask(1) }) }
	b.ReportMetric(each(exec)-each(echo), "allocs-added/request")
	b.ReportMetric(0, "ns/op") // of no meaning
}

func returnBody(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	w.Header()["Content-Type"] = r.Header["Content-Type"]
	_, _ = w.Write(body)
}

// asker calls a handler with one request after the other. It is the request's writer.
type asker struct {
	handler http.Handler
	request *http.Request
	body    *bytes.Reader
	header  http.Header
	size    int
}

func newAsker(b *testing.B, h http.Handler) *asker {
	a := &asker{handler: h, body: bytes.NewReader([]byte{0x1a, 1, 2, 3, 4})}
	a.request = httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/v1/noop/exec", nil)
	a.request.Header.Set("Content-Type", "application/cbor")
	a.request.ContentLength, a.request.Body = a.body.Size(), io.NopCloser(a.body)
	return a
}

func (a *asker) ask(n int) {
	for range n {
		a.header, a.size = http.Header{}, 0
		_, _ = a.body.Seek(0, io.SeekStart)
		a.handler.ServeHTTP(a, a.request)
		if a.size != int(a.body.Size()) {
			panic("invalid answer")
		}
	}
}

func (a *asker) Header() http.Header               { return a.header }
func (a *asker) WriteHeader(int)                   {}
func (a *asker) SetReadDeadline(time.Time) error   { return nil }
func (a *asker) Write(b []byte) (n int, err error) { a.size += len(b); return len(b), nil }

func cpuTime(b *testing.B, f func()) float64 {
	now := func() int64 {
		var at unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &at); err != nil {
			b.Fatal(err)
		}
		return at.Nano()
	}
	start := now()
	f()
	return float64(now() - start)
}
