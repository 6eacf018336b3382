package ui

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/report"
	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// storeOf returns a store with some jobs; every seventh has failed.
func storeOf(t *testing.T, jobs int) Store {
	t.Helper()
	s := store.NewMemory()
	for i := range jobs {
		var id store.JobID
		copy(id[:], fmt.Sprintf("%032d", i))
		zeros := strings.Repeat("0", 64)
		run, err := s.Begin(t.Context(), store.JobRecord{ID: id, Total: 9, Spec: []byte(fmt.Sprintf(
			`{"name":"job-%d","module":{"digest":"sha256:%s"},"chunks":{"digest":"sha256:%[2]s"},"settings":{"memory":65536}}`, i, zeros))},
			journal.EncodeIDs(9, func(i int) abi.ID { return abi.IntID(uint64(i)) }), []byte(`{"host":"x","pid":1,"workers":1}`))
		state := "succeeded"
		if i%7 == 0 {
			state = "failed"
		}
		if err == nil {
			err = s.End(t.Context(), run, []byte(fmt.Sprintf(`{"state":%q,"chunks":{"total":9,"succeeded":4,"failed":5}}`, state)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func handlerOf(s Store, flows ...Flow) http.Handler {
	return New(Config{
		Title: "store", Open: func(context.Context) (Store, error) { return s, nil }, Allowed: func(string) bool { return true },
		Report: func(_ context.Context, j *journal.Record, _ bool) (*report.Document, error) {
			return &report.Document{Report: &host.Report{Job: journal.Name(j.Record.ID)}, Name: j.Spec.Name}, nil
		},
		Alone: func(*journal.Record, abi.ID) string { return "" }, Printable: func(s string) string { return s }, Interval: time.Millisecond,
		Flows: func(context.Context, Store) ([]Flow, error) { return flows, nil },
		Flow: func(_ context.Context, _ Store, name string) (*Flow, error) {
			for i := range flows {
				if flows[i].Name == name {
					return &flows[i], nil
				}
			}
			return nil, ErrNotFound
		},
	})
}

// fetch returns a page.
func fetch(t *testing.T, h http.Handler, path string) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%s: got %d %s", path, w.Code, w.Body)
	}
	return w.Body.String()
}

var (
	named = regexp.MustCompile(`>job-(\d+)<`)
	older = regexp.MustCompile(`<a href="([^"]*)">Older</a>`)
)

// walk follows the links to older jobs, and returns the names of all jobs.
func walk(t *testing.T, h http.Handler, path string) (names map[string]bool, pages int) {
	names = map[string]bool{}
	for path != "" {
		page := fetch(t, h, path)
		found := named.FindAllStringSubmatch(page, -1)
		if pages++; len(found) > pageSize {
			t.Fatalf("%s has %d jobs", path, len(found))
		}
		for _, m := range found {
			if names[m[1]] {
				t.Errorf("job %s is on two pages", m[1])
			}
			names[m[1]] = true
		}
		next := older.FindStringSubmatch(page)
		path = ""
		if next != nil {
			path = strings.ReplaceAll(next[1], "&amp;", "&")
		}
	}
	return names, pages
}

// TestPagesOfJobs checks that the pages together have every job that is searched once.
func TestPagesOfJobs(t *testing.T) {
	for _, test := range []struct {
		jobs, want, pages int
		path              string
	}{
		{0, 0, 1, "/"}, {pageSize, pageSize, 1, "/"}, {pageSize + 1, pageSize + 1, 2, "/"}, {1200, 1200, 24, "/"},
		{1200, 172, 4, "/?state=failed"}, {1200, 1, 3, "/?q=job-1111"}, {1200, 0, 3, "/?q=none"}, {1200, 0, 3, "/?q=%3Cb%3E&state=%22"},
		{60, 0, 1, "/?from=1000000"}, {60, 60, 2, "/?from=-5"}, {60, 60, 2, "/?from=x"},
	} {
		names, pages := walk(t, handlerOf(storeOf(t, test.jobs)), test.path)
		if len(names) != test.want || pages != test.pages {
			t.Errorf("%d jobs, %s: got %d jobs on %d pages, want %d on %d", test.jobs, test.path, len(names), pages, test.want, test.pages)
		}
	}
}

// TestLiveSendsOnlyChanges checks the stream of a page.
func TestLiveSendsOnlyChanges(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	w := &stream{ResponseRecorder: httptest.NewRecorder(), cancel: cancel, left: 3}
	handlerOf(storeOf(t, 1)).ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/?live=1", nil))
	messages := strings.Split(strings.TrimSpace(w.Body.String()), "\n\n")
	if len(messages) < 3 || !strings.HasPrefix(messages[0], `data: {"job-rows":"`) || messages[1] != "data: {}" || w.Header().Get("Content-Type") != "text/event-stream" {
		t.Errorf("got %q", messages)
	}
}

// stream ends after some messages.
type stream struct {
	*httptest.ResponseRecorder
	cancel context.CancelFunc
	left   int
}

func (s *stream) Flush() {
	if s.left--; s.left == 0 {
		s.cancel()
	}
}

// TestStreamsAreBounded checks the answer to one page too many.
func TestStreamsAreBounded(t *testing.T) {
	s := &server{Config: Config{Open: func(context.Context) (Store, error) { return nil, nil }}, streams: make(chan struct{}, 1)}
	s.streams <- struct{}{}
	w := httptest.NewRecorder()
	s.page(s.jobs, "jobs")(w, httptest.NewRequestWithContext(t.Context(), "GET", "/?live=1", nil))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("got %d", w.Code)
	}
}

// TestFlowPage checks the graph and the table of a flow.
func TestFlowPage(t *testing.T) {
	f := Flow{Name: "mill", State: "running", File: "<b>", Report: &flow.Report{
		States:     []flow.StateReport{{Name: "fetch", Kind: "http", Entered: 7}, {Name: "<script>", Kind: "module", Entered: 5}, {Name: "done", Kind: "end", Entered: 3}},
		Bottleneck: &flow.Bottleneck{State: "fetch", Cause: "rate", Share: 0.5},
	}, Edges: []Edge{{"fetch", "<script>", "move"}, {"<script>", "fetch", "failure"}, {"<script>", "done", "move"}, {"fetch", "unknown", "move"}}}
	h := handlerOf(storeOf(t, 0), f, Flow{Name: "new", State: "running"})
	if page := fetch(t, h, "/flows"); !strings.Contains(page, `<a href="/flow/mill">mill</a>`) || !strings.Contains(page, "/flow/new") {
		t.Errorf("got %s", page)
	}
	page := fetch(t, h, "/flow/mill")
	for _, want := range []string{"The state fetch was held up for 50.0 % of the time, by its limit of rate.", "<svg", `class="box http hot"`, "&lt;script&gt;"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if strings.Count(page, `class="edge`) != 3 || strings.Contains(page, "<script>") {
		t.Errorf("got %s", page)
	}
	fetch(t, h, "/flow/new")
}

// TestLayout checks that no two states are at one place, also in a circle.
func TestLayout(t *testing.T) {
	var states []flow.StateReport
	var edges []Edge
	for i := range 50 {
		states = append(states, flow.StateReport{Name: fmt.Sprint(i)})
		edges = append(edges, Edge{fmt.Sprint(i), fmt.Sprint(i * i % 50), "move"}, Edge{fmt.Sprint(i), fmt.Sprint(i * 3 % 50), "move"})
	}
	at, width, height := layout(states, edges)
	taken := map[point]string{}
	for name, p := range at {
		if other := taken[p]; other != "" || p.x+boxWidth > width || p.y+boxHeight > height {
			t.Errorf("%s is at %v, as %s, in %d by %d", name, p, other, width, height)
		}
		taken[p] = name
	}
	if len(at) != len(states) {
		t.Errorf("%d of %d states have a place", len(at), len(states))
	}
}

func TestMerge(t *testing.T) {
	got := merge([]report.Row{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}}, []report.Row{{Name: "b", Value: "3"}, {Name: "c", Value: "4"}})
	want := []comparedRow{{"a", "1", "", true}, {"b", "2", "3", true}, {"c", "", "4", true}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
