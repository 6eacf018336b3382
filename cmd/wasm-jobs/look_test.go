//go:build unix

package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/processor/web"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

// TestUIManyJobs serves a store of many jobs (10,000 with -scale): the first page has the
// latest ones. It logs how long the page takes.
func TestUIManyJobs(t *testing.T) {
	n := 200
	if *scale {
		n = 10_000
	}
	dir := t.TempDir()
	s, err := sqlite.Open(t.Context(), dir, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	zeros := strings.Repeat("0", 64)
	for i := range n {
		var id store.JobID
		copy(id[:], fmt.Sprintf("%032d", i))
		run, err := s.Begin(t.Context(), store.JobRecord{ID: id, Total: 9, Spec: fmt.Appendf(nil,
			`{"name":"job-%d","module":{"digest":"sha256:%s"},"chunks":{"digest":"sha256:%[2]s"},"settings":{"memory":65536}}`, i, zeros)},
			journal.EncodeIDs(9, func(i int) abi.ID { return abi.IntID(uint64(i)) }), []byte(`{"host":"x","pid":1,"workers":1}`))
		if err == nil {
			err = s.End(t.Context(), run, []byte(`{"state":"succeeded","chunks":{"total":9,"succeeded":9}}`))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	url := startUI(t, dir)
	for _, path := range []string{"/", "/", fmt.Sprintf("/?from=%d", n-50), "/?q=none"} {
		start := time.Now()
		_, page := get(t, "GET", url+path, "")
		t.Logf("%d jobs: %s takes %v", n, path, time.Since(start).Round(100*time.Microsecond))
		if path == "/" && (strings.Count(page, "<tr>") != 51 || !strings.Contains(page, fmt.Sprintf(">job-%d<", n-1))) {
			t.Errorf("the first page does not have the latest 50 jobs: %.2000s", page)
		}
	}
}

// spent is the cost of one process.
type spent struct {
	cpu  time.Duration
	peak int // bytes
}

func spend(t *testing.T, args ...string) spent {
	t.Helper()
	cmd := exec.Command("../../build/wasm-jobs", args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v, %.2000s", args, err, out)
	}
	p := cmd.ProcessState
	return spent{p.UserTime() + p.SystemTime(), int(p.SysUsage().(*syscall.Rusage).Maxrss) << 10}
}

// compareCosts runs two commands in turn, and logs the second one's cost as a part of the
// first one's.
func compareCosts(t *testing.T, what string, rounds int, first, second func() spent) {
	t.Helper()
	var ratios []float64
	var a, b spent
	for i := range rounds {
		x, y := spent{}, spent{}
		if i%2 == 0 {
			x, y = first(), second()
		} else {
			y, x = second(), first()
		}
		ratios = append(ratios, float64(y.cpu)/float64(x.cpu))
		a.peak, b.peak = max(a.peak, x.peak), max(b.peak, y.peak)
		a.cpu += x.cpu / time.Duration(rounds)
		b.cpu += y.cpu / time.Duration(rounds)
	}
	slices.Sort(ratios)
	t.Logf("%s: CPU %.3f of without (quartiles %.3f and %.3f, %d rounds; means %v and %v), peak memory %+d KiB", what,
		ratios[len(ratios)/2], ratios[len(ratios)/4], ratios[len(ratios)*3/4], rounds, b.cpu.Round(time.Millisecond), a.cpu.Round(time.Millisecond), (b.peak-a.peak)>>10)
}

// TestReportCost logs what --report costs jobs of a guest that does nothing, and of one that
// takes about a millisecond.
func TestReportCost(t *testing.T) {
	if !*scale {
		t.Skip("it measures: make look")
	}
	dir := t.TempDir()
	page := filepath.Join(dir, "report.html")
	for _, job := range []struct {
		name string
		args []string
	}{
		{"a guest that does nothing", []string{"../../testdata/wasm/echo.wasm", "--range-of", fmt.Sprintf("0-%d", *scaleChunks-1)}},
		{"a guest of a millisecond", []string{faultyWasm, workingChunks(t, 2000, 2_500_000)}},
	} {
		args := append([]string{"run", "--no-store", "--progress", "none", "-o", filepath.Join(dir, "out")}, job.args...)
		compareCosts(t, job.name+", --report", 9, func() spent { return spend(t, args...) }, func() spent { return spend(t, append(args, "--report", page)...) })
		if stat, err := os.Stat(page); err != nil || stat.Size() >= 1<<20 {
			t.Errorf("the page: %v, %v", stat, err)
		} else {
			t.Logf("%s: a page of %d bytes", job.name, stat.Size())
		}
	}
}

// workingChunks writes chunks for a guest that counts to n, and returns the file.
func workingChunks(t *testing.T, chunks, n int) string {
	t.Helper()
	var b []byte
	for i := range chunks {
		b = append(b, "\xa2\x62do\x64work\x61n"...)
		b = abi.AppendHead(b, abi.MajorUint, uint64(n+i))
	}
	path := filepath.Join(t.TempDir(), "chunks.cbor")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestUICost logs what a job costs while a page shows it.
func TestUICost(t *testing.T) {
	if !*scale {
		t.Skip("it measures: make look")
	}
	chunks := workingChunks(t, 2000, 2_500_000)
	run := func(store string) []string {
		return []string{"run", faultyWasm, chunks, "--store", store, "--progress", "none", "-o", os.DevNull}
	}
	alone := func() spent { return spend(t, run(t.TempDir())...) }
	compareCosts(t, "a page and two streams", 9, alone, func() spent {
		store := t.TempDir()
		url, stop := startPrinting(t, "page on ", "ui", "--store", store, "--listen", "127.0.0.1:0")
		defer stop()
		for range 2 {
			answer, err := http.Get(url + "/?live=1")
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			go io.Copy(io.Discard, answer.Body) // until the body is closed
		}
		return spend(t, run(store)...)
	})
}

// BenchmarkScrape is the time of one scrape of a server with 100 modules.
func BenchmarkScrape(b *testing.B) {
	m := newServeMetrics()
	for i := range 100 {
		for _, code := range []int{200, 422, 500, 503} {
			m.Answered(fmt.Sprint("module-", i), code, time.Millisecond)
			m.Waited(fmt.Sprint("module-", i), time.Millisecond, 1)
		}
	}
	h := m.handler(func() web.Counts { return web.Counts{} })
	request := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/metrics", nil)
	for b.Loop() {
		h.ServeHTTP(&discarded{}, request)
	}
}

// discarded is a response that nobody reads.
type discarded struct{ bytes.Buffer }

func (d *discarded) Header() http.Header { return http.Header{} }
func (d *discarded) WriteHeader(int)     {}
