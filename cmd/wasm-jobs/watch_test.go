package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/telemetry"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/tracing"
	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

// watchedTestJob is a job with successes, retries and failures of several classes.
func watchedTestJob(t *testing.T) *host.Job {
	t.Helper()
	module, err := os.ReadFile("../../guest-examples/faulty/c/faulty.wasm")
	if err != nil {
		t.Fatal(err)
	}
	list := [][]byte{}
	texts := []string{`{"do":"permanent","message":"a \"quoted\"\nline"}`, `{"do":"exit"}`, `{"do":"retryable"}`, `{"do":"trap"}`}
	for i := range 200 {
		texts = append(texts, strconv.Itoa(i))
	}
	for _, text := range texts {
		list = append(list, items(t, text))
	}
	input, err := chunks.Of(list...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { input.Close() })
	retry := host.DefaultRetry()
	retry.Backoff, retry.BackoffMax = time.Microsecond, time.Millisecond
	return &host.Job{Module: module, Chunks: input, Retry: retry}
}

// series parses the text format of Prometheus.
func series(t *testing.T, text string) map[string]float64 {
	t.Helper()
	values := map[string]float64{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "#") || line == "" {
			continue
		}
		name, value, _ := cutLast(line)
		number, err := strconv.ParseFloat(value, 64)
		if _, twice := values[name]; err != nil || twice {
			t.Errorf("line %q: invalid, or a series of before: %v", line, err)
		}
		values[name] = number
	}
	return values
}

func cutLast(line string) (before, after string, ok bool) {
	i := strings.LastIndexByte(line, ' ')
	return line[:i], line[i+1:], i >= 0
}

// TestMetricsEqualTheReport compares the numbers that were counted from events, and those
// at the end, with the report of the job.
func TestMetricsEqualTheReport(t *testing.T) {
	numbers := telemetry.NewJob()
	result, err := runJob(t, watchedTestJob(t), host.Config{Workers: 2, Observer: numbers, Engine: newTestEngine(t, false)})
	if err != nil {
		t.Fatal(err)
	}
	r := &result.Report
	classes := map[string]float64{}
	for i := range r.Failures {
		classes[fmt.Sprintf("%s{class=%q}", telemetry.FailedTotal, r.Failures[i].Class)]++
	}
	if len(classes) < 3 || r.Retries == 0 {
		t.Fatalf("%d classes and %d retries: the job is too simple", len(classes), r.Retries)
	}
	for _, moment := range []string{"from events", "at the end"} {
		var page bytes.Buffer
		numbers.Write(&page)
		got := series(t, page.String())
		want := map[string]float64{
			telemetry.Chunks: float64(r.Chunks.Total), telemetry.SucceededTotal: float64(r.Chunks.Succeeded), telemetry.ReusedTotal: float64(r.Chunks.Reused),
			telemetry.AttemptsTotal: float64(r.Attempts), telemetry.RetriesTotal: float64(r.Retries), telemetry.FuelTotal: float64(r.Fuel),
			telemetry.QueueLength: 0, telemetry.Executing: 0, telemetry.ChunkSeconds + "_count": float64(r.Chunks.Succeeded - r.Chunks.Reused),
		}
		for class, n := range classes {
			want[class] = n
		}
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s: %s is %v, want %v", moment, name, got[name], value)
			}
		}
		numbers.Finish(r)
	}
}

// TestMetricsNames checks that each series has a name of package telemetry.
func TestMetricsNames(t *testing.T) {
	numbers := telemetry.NewJob()
	numbers.Progress("execute", event.Counts{Total: 1})
	var job, server bytes.Buffer
	numbers.Write(&job)
	newServeMetrics().write(&server)
	all := series(t, job.String())
	maps.Copy(all, series(t, server.String()))
	for name := range all {
		name, _, _ = strings.Cut(name, "{")
		for _, ending := range []string{"_bucket", "_sum", "_count"} {
			name = strings.TrimSuffix(name, ending)
		}
		if !strings.Contains(strings.Join(telemetry.Names(), " ")+" ", name+" ") {
			t.Errorf("%s is not in telemetry.Names", name)
		}
	}
}

// TestMetricsServer scrapes a server, and asks it for other things.
func TestMetricsServer(t *testing.T) {
	s, err := telemetry.Listen(t.Context(), "127.0.0.1:0", telemetry.NewJob().Write)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, tt := range []struct {
		method, path string
		code         int
	}{{"GET", "/metrics", 200}, {"HEAD", "/metrics", 200}, {"POST", "/metrics", 405}, {"GET", "/", 404}} {
		request, err := http.NewRequestWithContext(t.Context(), tt.method, "http://"+s.Address()+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != tt.code || tt.path == "/metrics" && tt.method == "GET" && !bytes.Contains(body, []byte("# TYPE wasm_jobs_fuel_total counter\n")) {
			t.Errorf("%s %s: %d, want %d\n%s", tt.method, tt.path, response.StatusCode, tt.code, body)
		}
	}
}

// collectedSpan is a span as a collector sees it.
type collectedSpan struct {
	TraceID, SpanID, ParentSpanID, Name string
	Attributes                          []struct {
		Key   string
		Value struct{ StringValue, IntValue string }
	}
	Status struct {
		Code    int
		Message string
	}
}

// collector is a small collector of OTLP in JSON.
type collector struct {
	mu    sync.Mutex
	spans map[string]collectedSpan // by id
	paths map[string]int
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var request struct {
		ResourceSpans []struct {
			ScopeSpans []struct{ Spans []collectedSpan }
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paths[r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization")]++
	for _, resource := range request.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				c.spans[s.SpanID] = s
			}
		}
	}
}

func newCollector(t *testing.T) (c *collector, url string) {
	c = &collector{spans: map[string]collectedSpan{}, paths: map[string]int{}}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	return c, server.URL
}

// TestSpansHaveTheirParents runs a job, and checks the tree of the spans that arrive.
func TestSpansHaveTheirParents(t *testing.T) {
	c, url := newCollector(t)
	tracer, err := tracing.New(tracing.Config{Endpoint: url, Headers: "Authorization=Bearer%20x", Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	spans := tracer.Job("a job")
	result, err := runJob(t, watchedTestJob(t), host.Config{Workers: 2, Observer: spans, Engine: newTestEngine(t, false)})
	if err != nil {
		t.Fatal(err)
	}
	spans.Finish(&result.Report, nil)
	if err := tracer.Close(); err != nil {
		t.Fatal(err)
	}
	if c.paths["POST /v1/traces Bearer x"] == 0 {
		t.Errorf("requests: %v", c.paths)
	}
	parents := map[string]string{"lease": "execute", "attempt": "lease", "compile": "job", "prepare": "job", "execute": "job", "fold": "job"}
	count := map[string]int{}
	for id, s := range c.spans {
		count[s.Name]++
		parent := c.spans[s.ParentSpanID]
		if s.Name == "job" && s.ParentSpanID != "" || s.Name != "job" && parent.Name != parents[s.Name] || s.Name != "job" && parent.TraceID != s.TraceID {
			t.Errorf("span %s %s has the parent %q, want %q", s.Name, id, parent.Name, parents[s.Name])
		}
		if s.Name == "attempt" && (s.Status.Code != 2 || s.Status.Message == "") {
			t.Errorf("a failed attempt has the status %+v", s.Status)
		}
	}
	failed := result.Report.Retries + len(result.Report.Failures)
	if count["job"] != 1 || count["execute"] != 1 || count["lease"] == 0 || count["attempt"] != failed {
		t.Errorf("spans %v, want 1 job, 1 execute, leases, and %d attempts", count, failed)
	}
}

// TestSpansWithoutACollector checks that a job does not wait for a collector that is away or
// never answers, and that the error is known at the end.
func TestSpansWithoutACollector(t *testing.T) {
	refuses := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(refuses.Close)
	for _, url := range []string{"http://127.0.0.1:1", refuses.URL} {
		tracer, err := tracing.New(tracing.Config{Endpoint: url})
		if err != nil {
			t.Fatal(err)
		}
		tracer.Job("x").Finish(nil, context.Canceled)
		if err := tracer.Close(); err == nil {
			t.Errorf("%s: no error", url)
		}
	}
	for _, url := range []string{"", "collector:4318", "ftp://x", "http://user:password@host", "http://", "%"} {
		if _, err := tracing.New(tracing.Config{Endpoint: url}); err == nil {
			t.Errorf("the endpoint %q is accepted", url)
		}
	}
}

// TestHangingCollector runs a job whose collector accepts spans and never answers: the job
// ends, with its result and one warning.
func TestHangingCollector(t *testing.T) {
	over := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-over:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(over) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // it needs about 5 seconds
	defer cancel()
	run := command("run", faultyWasm, "--range-of", "0-20000", "--retries", "0", "--no-store", "--progress", "none", "--trace-otlp", server.URL, "--partial", "-j", "2")
	run = exec.CommandContext(ctx, run.Path, run.Args[1:]...)
	run.Args[0] = "wasm-jobs"
	var said bytes.Buffer
	run.Stderr = &said
	out, err := run.Output()
	if ctx.Err() != nil || run.ProcessState.ExitCode() != exitFailed || string(out) != "17144\n" || strings.Count(said.String(), "spans were not sent") != 1 {
		t.Errorf("%v: %s, %.3000s", err, out, said.String())
	}
}

// TestWorkerNumbers checks that a worker's own row is taken, and that the store is asked at
// most once a second.
func TestWorkerNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, broken := 0, false
		n := &workerNumbers{name: "a", host: "h", pid: 7, workers: func(context.Context) ([]postgres.WorkerState, error) {
			if asked++; broken {
				return nil, io.ErrUnexpectedEOF
			}
			return []postgres.WorkerState{
				{Name: "a", Host: "h", PID: 7, State: "gone", Slots: 9}, {Name: "a", Host: "h", PID: 8, State: "busy", Slots: 9},
				{Name: "a", Host: "h", PID: 7, State: "busy", Slots: 4, Busy: 2, Chunks: 1234, Lost: 1},
			}, nil
		}}
		n.stored.Add(2, 30)
		n.stored.Add(1, 4)
		for range 100 {
			n.write(io.Discard)
		}
		time.Sleep(2 * time.Second)
		broken = true
		var page bytes.Buffer
		n.write(&page)
		got := series(t, page.String())
		want := map[string]float64{telemetry.Slots: 4, telemetry.Executing: 2, telemetry.AttemptsTotal: 1234, telemetry.LostTotal: 1, telemetry.StoreErrorsTotal: 1,
			telemetry.SucceededTotal: 3, telemetry.FuelTotal: 34}
		if asked != 2 || !maps.Equal(got, want) {
			t.Errorf("asked %d times, %v, want 2 and %v", asked, got, want)
		}
	})
}

// TestFlowMetrics compares the numbers of a run with its report.
func TestFlowMetrics(t *testing.T) {
	r := &flow.Report{
		Items: flow.Items{Total: 9, Live: 3, Ended: 4, Failed: 2},
		States: []flow.StateReport{
			{Name: "a", Waiting: 1, Executing: 1, Limited: 1, Entered: 9, Left: 5, Failed: 1, Attempts: 8, Retries: 2, Reused: 3, Fuel: 100},
			{Name: "b", Retrying: 1, Entered: 5, Left: 4, Failed: 1, Slowed: 6},
		},
	}
	var numbers telemetry.Flow
	numbers.Write(io.Discard) // before the first report
	numbers.Observe(r)
	var page bytes.Buffer
	numbers.Write(&page)
	got := series(t, page.String())
	for name, want := range map[string]float64{
		telemetry.Items + `{progress="live"}`: 3, telemetry.Items + `{progress="ended"}`: 4, telemetry.Items + `{progress="failed"}`: 2, telemetry.Items + `{progress="held"}`: 0,
		telemetry.QueueLength: 3, telemetry.Executing: 1, telemetry.StateItems + `{state="b",progress="retrying"}`: 1, telemetry.EnteredTotal + `{state="a"}`: 9,
		telemetry.FailedTotal + `{state="b"}`: 1, telemetry.FuelTotal + `{state="a"}`: 100, telemetry.SlowedTotal + `{state="b"}`: 6, telemetry.ReusedTotal + `{state="a"}`: 3,
	} {
		if value, ok := got[name]; !ok || value != want {
			t.Errorf("%s is %v, want %v", name, value, want)
		}
	}
}

// TestFlowSpans checks the spans of a run and its states.
func TestFlowSpans(t *testing.T) {
	c, url := newCollector(t)
	tracer, err := tracing.New(tracing.Config{Endpoint: url + "/v1/traces"})
	if err != nil {
		t.Fatal(err)
	}
	spans := tracer.Flow("x")
	r := &flow.Report{States: []flow.StateReport{{Name: "a", Entered: 2, Failed: 1}, {Name: "never"}}}
	spans.Report(r)
	spans.Finish(r, nil)
	if err := tracer.Close(); err != nil || c.paths["POST /v1/traces "] == 0 {
		t.Fatal(err, c.paths)
	}
	names := map[string]string{}
	for _, s := range c.spans {
		names[s.Name] = c.spans[s.ParentSpanID].Name
	}
	if !maps.Equal(names, map[string]string{"flow": "", "state": "flow"}) {
		t.Errorf("spans and parents: %v", names)
	}
}

// watchedTestFlow is a flow with retries, routed failures and failures, over 100 integers.
func watchedTestFlow(t *testing.T) *flow.Run {
	t.Helper()
	var tried sync.Map
	try := func(_ context.Context, _ [32]byte, data []byte) ([]byte, error) {
		switch n, _ := strconv.Atoi(hostText(t, data)); {
		case n%10 == 3:
			return nil, abi.Failf(abi.ClassGuest, "never")
		case n%10 == 5:
			if _, again := tried.LoadOrStore(n, true); !again {
				return nil, abi.Failf(abi.ClassGuestRetryable, "not yet")
			}
		case n%10 == 7:
			return nil, abi.Failf(abi.ClassFuel, "too long")
		}
		return data, nil
	}
	list := [][]byte{}
	for i := range 100 {
		list = append(list, items(t, strconv.Itoa(i)))
	}
	input, err := chunks.Of(list...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { input.Close() })
	retry := host.DefaultRetry()
	retry.Backoff, retry.BackoffMax = time.Microsecond, time.Millisecond
	return &flow.Run{Name: "watched", Input: input, Flow: &flow.Flow{Name: "watched", Start: "try", States: []flow.State{
		{Name: "try", Exec: &flow.Func{Name: "try", Version: "1", Call: try}, Next: "done", On: map[abi.Class]string{abi.ClassFuel: "long"}, Retry: retry},
		{Name: "long", Exec: &flow.Func{Name: "long", Call: func(_ context.Context, _ [32]byte, data []byte) ([]byte, error) { return data, nil }}, Next: "done"},
		{Name: "done", End: true},
	}}}
}

// hostText returns an item in diagnostic notation.
func hostText(t *testing.T, item []byte) string {
	t.Helper()
	var n int
	if err := cbor.Unmarshal(item, &n); err != nil {
		t.Error(err)
	}
	return strconv.Itoa(n)
}

// TestWatchedFlow compares the numbers of a run of a flow with its report, and checks the
// spans that arrive.
func TestWatchedFlow(t *testing.T) {
	c, url := newCollector(t)
	tracer, err := tracing.New(tracing.Config{Endpoint: url})
	if err != nil {
		t.Fatal(err)
	}
	spans, numbers := tracer.Flow("watched"), &telemetry.Flow{}
	run := watchedTestFlow(t)
	run.Events = spans
	run.Observe = func(r *flow.Report) { numbers.Observe(r); spans.Report(r) }
	result, err := flow.NewRunner(flow.Config{Workers: 2}).Run(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	spans.Finish(&result.Report, nil)
	if err := tracer.Close(); err != nil {
		t.Fatal(err)
	}
	for _, moment := range []string{"from the last look", "at the end"} {
		var page bytes.Buffer
		numbers.Write(&page)
		equalsFlow(t, moment, series(t, page.String()), &result.Report)
		numbers.Observe(&result.Report)
	}
	parents, count := map[string]string{"flow": "", "state": "flow", "lease": "state", "attempt": "lease"}, map[string]int{}
	for _, s := range c.spans {
		count[s.Name]++
		parent := c.spans[s.ParentSpanID]
		if want, known := parents[s.Name]; !known || parent.Name != want || want != "" && parent.TraceID != s.TraceID {
			t.Errorf("the span %s has the parent %q, want %q", s.Name, parent.Name, want)
		}
	}
	if count["flow"] != 1 || count["state"] != 3 || count["lease"] < 2 || count["attempt"] != 30 {
		t.Errorf("spans %v, want 1 flow, 3 states, leases, and 30 failed attempts", count)
	}
}

// equalsFlow compares numbers with a report.
func equalsFlow(t *testing.T, moment string, got map[string]float64, r *flow.Report) {
	t.Helper()
	want := map[string]float64{
		telemetry.Items + `{progress="ended"}`: float64(r.Items.Ended), telemetry.Items + `{progress="failed"}`: float64(r.Items.Failed),
		telemetry.Items + `{progress="live"}`: 0, telemetry.Executing: 0, telemetry.QueueLength: 0,
	}
	retries := 0
	for i := range r.States {
		s := &r.States[i]
		retries += s.Retries
		for name, n := range map[string]int{
			telemetry.EnteredTotal: s.Entered, telemetry.LeftTotal: s.Left, telemetry.FailedTotal: s.Failed, telemetry.AttemptsTotal: s.Attempts,
			telemetry.RetriesTotal: s.Retries, telemetry.ReusedTotal: s.Reused, telemetry.SlowedTotal: s.Slowed, telemetry.FuelTotal: int(s.Fuel),
		} {
			want[fmt.Sprintf("%s{state=%q}", name, s.Name)] = float64(n)
		}
	}
	if r.Items.Failed != 10 || retries != 10 {
		t.Fatalf("%d failed and %d retries: the flow is too simple", r.Items.Failed, retries)
	}
	for name, value := range want {
		if n, ok := got[name]; !ok || n != value {
			t.Errorf("%s: %s is %v, want %v", moment, name, n, value)
		}
	}
}

var (
	seriesName = regexp.MustCompile(`wasm_jobs_[a-z_]+`)
	suffix     = regexp.MustCompile(`_(bucket|sum|count)$`)
)

// TestDashboard checks that the dashboard of Grafana asks for each metric, and for no other.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("../../deploy/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			for _, name := range seriesName.FindAllString(target.Expr, -1) {
				name = suffix.ReplaceAllString(name, "")
				shown[name] = true
				if !slices.Contains(telemetry.Names(), name) {
					t.Errorf("%s: %s is not a metric", p.Title, name)
				}
			}
		}
	}
	for _, name := range telemetry.Names() {
		if !shown[name] {
			t.Errorf("no panel shows %s", name)
		}
	}
}

// TestDocsOfMetrics checks that docs/watch.md lists each metric.
func TestDocsOfMetrics(t *testing.T) {
	text, err := os.ReadFile("../../docs/watch.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := seriesName.FindAllString(string(text), -1)
	for _, name := range telemetry.Names() {
		if !slices.Contains(listed, name) {
			t.Errorf("docs/watch.md does not list %s", name)
		}
	}
}
