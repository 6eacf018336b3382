//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/flow/definition"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
	"github.com/wasm-jobs/wasm-jobs/host/worker"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

// The two flows in examples/ run as commands and in this process, and are compared
// with plain Go.

var kills = flag.Int("kills", 3, "how often the flows in examples/ are killed")

// copyExample copies the folder of an example, with replacements in its definition.
func copyExample(t *testing.T, name string, replace ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	from := filepath.Join("..", "..", "examples", name)
	files, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(filepath.Join(from, file.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if file.Name() == "flow.yaml" {
			b = []byte(strings.NewReplacer(replace...).Replace(string(b)))
		}
		if err := os.WriteFile(filepath.Join(dir, file.Name()), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// goSource is a tree for the example words: some packages of the standard library.
func goSource(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "src", name)
}

// directories runs dirs.go, and returns the chunk file that it writes.
func directories(t *testing.T, tree string) []byte {
	t.Helper()
	cmd := exec.Command("go", "run", "../../examples/words/dirs.go", tree)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

type wordCounts map[string]uint64

// plainWords counts the words of each directory, without a flow.
func plainWords(t *testing.T, tree string) (byDir map[string]wordCounts, all wordCounts) {
	t.Helper()
	word := regexp.MustCompile(`[A-Za-z0-9]+`)
	byDir, all = map[string]wordCounts{}, wordCounts{}
	err := fs.WalkDir(os.DirFS(tree), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(tree, name))
		dir := path.Dir(name)
		if byDir[dir] == nil {
			byDir[dir] = wordCounts{}
		}
		for _, w := range word.FindAll(b, -1) {
			byDir[dir][strings.ToLower(string(w))]++
			all[strings.ToLower(string(w))]++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return byDir, all
}

// outcome is what a run of an example gives.
type outcome struct{ ends, result, receipt []byte }

func (o *outcome) equal(p *outcome) bool {
	return bytes.Equal(o.ends, p.ends) && bytes.Equal(o.result, p.result) && bytes.Equal(o.receipt, p.receipt)
}

// variant is a way to run an example in this process.
type variant struct {
	workers     int
	interpreter bool
	flaky       bool // every third attempt at a module's step fails retryably
	chunks      []byte
	given       *flow.GivenEffects
	limits      string // NAME.FIELD=VALUE
	journal     *bytes.Buffer
}

// Ended implements [flow.Sink].
func (o *outcome) Ended(e *flow.End) error {
	o.ends = e.Append(o.ends)
	return nil
}

// Dead implements [flow.Sink].
func (o *outcome) Dead(d *flow.Dead) error {
	return fmt.Errorf("item %v failed: %s: %s", d.ID, d.Class, d.Message)
}

// flakyModule is a module whose every third attempt fails.
type flakyModule struct {
	*flow.Module
	calls *atomic.Int64
}

func (m flakyModule) Open(ctx context.Context) (flow.Pool, error) {
	p, err := m.Module.Open(ctx)
	return flakyPool{p, m.calls}, err
}

type flakyPool struct {
	flow.Pool
	calls *atomic.Int64
}

func (p flakyPool) Borrow(log runtime.Log) worker.Instance {
	return flakyInstance{p.Pool.Borrow(log), p.calls}
}

type flakyInstance struct {
	worker.Instance
	calls *atomic.Int64
}

func (i flakyInstance) Call(ctx context.Context, function string, input, dst []byte) ([]byte, uint64, error) {
	if i.calls.Add(1)%3 == 0 {
		return dst, 0, abi.Failf(abi.ClassGuestRetryable, "every third")
	}
	return i.Instance.Call(ctx, function, input, dst)
}

// runExample runs an example in this process.
func runExample(t *testing.T, dir string, v variant) *outcome {
	t.Helper()
	file := filepath.Join(dir, "flow.yaml")
	d, err := readDefinition(file, queue.DefaultPolicy())
	if err != nil {
		t.Fatal(err)
	}
	if v.limits != "" {
		if err := d.Set(v.limits); err != nil {
			t.Fatal(err)
		}
	}
	name := compiler
	if v.interpreter {
		name = interpreter
	}
	engine, err := openEngine(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close(context.Background())
	f, _, err := bind(t.Context(), engine, d, flowDefaults(), func(s *definition.State) (flow.Executor, error) { return newEffect(s) })
	if err != nil {
		t.Fatal(err)
	}
	if v.flaky {
		calls := &atomic.Int64{}
		for i := range f.States {
			if m, ok := f.States[i].Exec.(*flow.Module); ok {
				f.States[i].Exec, f.States[i].Retry = flakyModule{m, calls}, queue.Policy{Retries: 1000, Classes: []abi.Class{abi.ClassGuestRetryable}}
			}
		}
	}
	input, err := chunks.FromSeq(t.Context(), func(yield func([]byte, error) bool) {
		for item := range itemsOf(t, v.chunks) {
			if !yield(item, nil) {
				return
			}
		}
	}, chunks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	o := &outcome{}
	run := &flow.Run{Flow: f, Input: input, Sink: o, Given: v.given}
	if v.journal != nil {
		run.Effects = func(leaf []byte) error { v.journal.Write(leaf); return nil }
	}
	res, err := flow.NewRunner(flow.Config{Workers: v.workers}).Run(t.Context(), run)
	if err != nil || res.Receipt == nil {
		t.Fatalf("%v, %+v", err, res)
	}
	o.result = res.Output
	if o.receipt, err = res.Receipt.Marshal(); err != nil {
		t.Fatal(err)
	}
	if s := res.Report.Instances; s.Created != s.Closed {
		t.Errorf("%d instances created, %d closed", s.Created, s.Closed)
	}
	return o
}

// itemsOf yields the items of a CBOR sequence.
func itemsOf(t *testing.T, b []byte) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			n, err := abi.ItemSize(b)
			if err != nil {
				t.Fatal(err)
			}
			if !yield(b[:n]) {
				return
			}
			b = b[n:]
		}
	}
}

// shuffled returns the items of a sequence in another order.
func shuffled(t *testing.T, b []byte) (out []byte) {
	var items [][]byte
	for item := range itemsOf(t, b) {
		items = append(items, item)
	}
	rand.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
	return bytes.Join(items, nil)
}

// endedIn decodes the data of the items that ended in a state, by id.
func endedIn[T any](t *testing.T, ends []byte, state string) map[string]T {
	t.Helper()
	all := map[string]T{}
	for item := range itemsOf(t, ends) {
		var e struct {
			ID    any             `cbor:"id"`
			State string          `cbor:"state"`
			Data  cbor.RawMessage `cbor:"data"`
		}
		if err := cbor.Unmarshal(item, &e); err != nil {
			t.Fatal(err)
		}
		if e.State != state {
			continue
		}
		var v T
		if err := cbor.Unmarshal(e.Data, &v); err != nil {
			t.Fatal(err)
		}
		all[fmt.Sprint(e.ID)] = v
	}
	return all
}

// TestExampleWords compares the flow with plain Go over the same files, in all the
// ways in which it may run.
func TestExampleWords(t *testing.T) {
	tree, dir := goSource(t, "hash"), copyExample(t, "words")
	input := directories(t, tree)
	byDir, all := plainWords(t, tree)
	first := runExample(t, dir, variant{workers: 1, chunks: input})
	var total wordCounts
	if err := cbor.Unmarshal(first.result, &total); err != nil || !maps.Equal(total, all) {
		t.Fatalf("%v: the flow counts %d words, plain Go %d", err, len(total), len(all))
	}
	got := endedIn[wordCounts](t, first.ends, "done")
	if !maps.EqualFunc(got, byDir, maps.Equal[wordCounts, wordCounts]) {
		t.Fatalf("the flow counts other words in some of %d directories, plain Go in %d", len(got), len(byDir))
	}
	for name, v := range map[string]variant{
		"2 workers": {workers: 2}, "16 workers": {workers: 16}, "interpreter": {workers: 2, interpreter: true},
		"flaky": {workers: 3, flaky: true}, "shuffled": {workers: 2, chunks: shuffled(t, input)},
	} {
		t.Run(name, func(t *testing.T) {
			if v.chunks == nil {
				v.chunks = input
			}
			if o := runExample(t, dir, v); !o.equal(first) {
				t.Errorf("other ends, result or receipt\n%s\n%s", o.receipt, first.receipt)
			}
		})
	}
}

// shop is a server that limits its clients and fails at random. It answers each key
// once, and repeats that answer.
type shop struct {
	pages    int
	mu       sync.Mutex
	random   *rand.Rand
	answers  map[string]answer
	asked    map[int]int    // different keys of a page
	times    map[string]int // answered, by key
	requests int
	failures int
}

type answer struct {
	status int
	body   string
}

func newShop(pages int) *shop {
	return &shop{pages: pages, random: rand.New(rand.NewPCG(1, 2)), answers: map[string]answer{}, asked: map[int]int{}, times: map[string]int{}}
}

func price(page int) int { return page*page%997 + 1 }

// ServeHTTP fails a third of the requests: with 429, 503 or 500, or by closing the
// connection. A page in five advises first to ask again.
func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	w.Header()["Date"] = nil
	switch n := s.random.IntN(12); {
	case n > 3:
	case n == 3:
		s.failures++
		panic(http.ErrAbortHandler)
	default:
		s.failures++
		w.WriteHeader([]int{http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusInternalServerError}[n])
		return
	}
	a := s.answer(r)
	s.times[r.Header.Get("Idempotency-Key")]++
	w.WriteHeader(a.status)
	_, _ = fmt.Fprint(w, a.body)
}

func (s *shop) answer(r *http.Request) answer {
	key := r.Header.Get("Idempotency-Key")
	if a, known := s.answers[key]; known {
		return a
	}
	var page int
	if _, err := fmt.Sscanf(r.URL.Path, "/page/%d", &page); err != nil || page >= s.pages {
		return answer{http.StatusNotFound, ""}
	}
	a := answer{http.StatusOK, fmt.Sprint(price(page))}
	if s.asked[page]++; page%5 == 0 && s.asked[page] == 1 {
		a = answer{http.StatusAccepted, "http://" + r.Host + r.URL.Path}
	}
	s.answers[key] = a
	return a
}

// restart forgets all requests, so that another run finds the same server.
func (s *shop) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers, s.asked, s.times = map[string]answer{}, map[int]int{}, map[string]int{}
	s.requests, s.failures = 0, 0
}

type shopTotal struct {
	Cents int `cbor:"cents"`
	Pages int `cbor:"pages"`
}

func (s *shop) truth() (want shopTotal) {
	for page := range s.pages {
		want.Cents += price(page)
	}
	want.Pages = s.pages
	return want
}

// startShop starts the server, and copies the example with its address.
func startShop(t *testing.T, pages int) (s *shop, dir string, input []byte) {
	t.Helper()
	s = newShop(pages)
	server := httptest.NewUnstartedServer(s)
	server.Config.ErrorLog = nil
	server.Start()
	t.Cleanup(server.Close)
	input, err := cbor.Marshal(map[string]any{"url": server.URL, "pages": pages})
	if err != nil {
		t.Fatal(err)
	}
	return s, copyExample(t, "shop", "http://127.0.0.1:8080", server.URL), input
}

// TestExampleShop compares the flow with the truth that the server knows. With the
// journal of its effects, it gives the same bytes in all the ways in which it may run.
func TestExampleShop(t *testing.T) {
	s, dir, input := startShop(t, 60)
	var journal bytes.Buffer
	first := runExample(t, dir, variant{workers: 2, chunks: input, journal: &journal})
	if got := endedIn[shopTotal](t, first.ends, "done")["0"]; got != s.truth() {
		t.Fatalf("the flow adds up %+v, and the truth is %+v", got, s.truth())
	}
	if s.failures < 10 {
		t.Fatalf("the server failed %d of %d requests only", s.failures, s.requests)
	}
	for key, times := range s.times {
		if times > 1 {
			t.Errorf("key %s was answered %d times", key, times)
		}
	}
	given, err := flow.ReadEffects(func(yield func([]byte, error) bool) {
		for leaf := range itemsOf(t, journal.Bytes()) {
			if !yield(leaf, nil) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]variant{
		"again": {workers: 2}, "slower": {workers: 1, limits: "shop.concurrency=1"},
		"1 worker": {workers: 1, given: given}, "16 workers": {workers: 16, given: given}, "interpreter": {workers: 2, interpreter: true, given: given},
		"flaky": {workers: 3, flaky: true, given: given},
	} {
		t.Run(name, func(t *testing.T) {
			s.restart()
			v.chunks = input
			if o := runExample(t, dir, v); !o.equal(first) {
				t.Errorf("other ends, result or receipt\n%s\n%s", o.receipt, first.receipt)
			}
			if v.given != nil && s.requests > 0 {
				t.Errorf("%d requests were made", s.requests)
			}
		})
	}
}

// exampleRun is an example as a command, which is killed.
type exampleRun struct {
	t      *testing.T
	dir    string
	chunks string
	flags  []string
	start  time.Duration // a run that is not killed
}

func newExampleRun(t *testing.T, dir string, input []byte, flags ...string) *exampleRun {
	t.Helper()
	e := &exampleRun{t: t, dir: dir, chunks: filepath.Join(dir, "in.cbor"), flags: flags}
	if err := os.WriteFile(e.chunks, input, 0o600); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *exampleRun) command(store, to string) *exec.Cmd {
	args := append([]string{"flow", "run", "--progress", "none", "--store", store, "--receipt", to + ".receipt", "--report", to + ".report", "-o", to + ".out", "--outputs", to + ".ends"}, e.flags...)
	return command(append(args, filepath.Join(e.dir, "flow.yaml"), e.chunks)...)
}

// finish runs to the end, and returns the files.
func (e *exampleRun) finish(store string) (*outcome, *flow.Report) {
	e.t.Helper()
	to := filepath.Join(e.t.TempDir(), "out")
	began := time.Now()
	if out, err := e.command(store, to).CombinedOutput(); err != nil {
		e.t.Fatalf("%v: %s", err, out)
	}
	e.start = time.Since(began)
	o, r := &outcome{}, &flow.Report{}
	var report []byte
	for suffix, b := range map[string]*[]byte{".receipt": &o.receipt, ".ends": &o.ends, ".out": &o.result, ".report": &report} {
		var err error
		if *b, err = os.ReadFile(to + suffix); err != nil {
			e.t.Fatal(err)
		}
	}
	if err := json.Unmarshal(report, r); err != nil {
		e.t.Fatal(err)
	}
	return o, r
}

// kill starts a run and kills it at a random moment. It reports whether the run ended
// before.
func (e *exampleRun) kill(store string) (ended bool) {
	cmd := e.command(store, filepath.Join(e.t.TempDir(), "killed"))
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	timer := time.AfterFunc(time.Duration(rand.Int64N(int64(e.start))), func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	return cmd.Wait() == nil
}

// storedSteps returns the number of outputs of the states of modules in a store, and
// the actions of the states.
func storedSteps(t *testing.T, dir, store string) (n int) {
	t.Helper()
	if _, err := os.Stat(store); err != nil {
		return 0
	}
	s, err := sqlite.Open(t.Context(), store, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, action := range actionsOf(t, dir) {
		for _, err := range s.All(t.Context(), action) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	return n
}

func actionsOf(t *testing.T, dir string) (all []store.Action) {
	t.Helper()
	d, err := readDefinition(filepath.Join(dir, "flow.yaml"), queue.DefaultPolicy())
	if err != nil {
		t.Fatal(err)
	}
	engine, err := openEngine(t.Context(), compiler)
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close(context.Background())
	settings := flowDefaults()
	settings.Memory, settings.MaxOutput, settings.MaxAggregate = 256<<20, 16<<20, 256<<20
	f, _, err := bind(t.Context(), engine, d, settings, func(s *definition.State) (flow.Executor, error) { return newEffect(s) })
	if err != nil {
		t.Fatal(err)
	}
	seen := map[store.Action]bool{}
	for i := range f.States {
		if e := f.States[i].Exec; e != nil {
			if action, pure := e.Action(); pure && !seen[action] {
				seen[action] = true
				all = append(all, action)
			}
		}
	}
	return all
}

func moduleAttempts(r *flow.Report) (n int) {
	for i := range r.States {
		if r.States[i].Kind == "module" {
			n += r.States[i].Attempts
		}
	}
	return n
}

// TestExampleWordsKilled kills the flow at random moments. The next run goes on: it
// executes no stored step again, and its files are the same.
func TestExampleWordsKilled(t *testing.T) {
	e := newExampleRun(t, copyExample(t, "words"), directories(t, goSource(t, "encoding")))
	whole := filepath.Join(t.TempDir(), "store")
	want, report := e.finish(whole)
	all, executed := storedSteps(t, e.dir, whole), moduleAttempts(report)
	twins := executed - all // steps with equal data may run at once
	if all == 0 || twins < 0 {
		t.Fatalf("%d steps are stored, %d were executed", all, executed)
	}
	midway := 0 // kills with some of the steps stored
	for killed := 0; killed < *kills || midway == 0; {
		store := filepath.Join(t.TempDir(), "store")
		if e.kill(store) {
			continue
		}
		killed++
		before := storedSteps(t, e.dir, store)
		if 0 < before && before < all {
			midway++
		}
		got, report := e.finish(store)
		if !got.equal(want) {
			t.Errorf("other files after a kill\n%s\n%s", got.receipt, want.receipt)
		}
		if n := moduleAttempts(report); n < all-before || n > all-before+max(twins, 2) {
			t.Errorf("%d of %d steps were stored, and %d were executed", before, all, n)
		}
	}
	t.Logf("%d of the kills came midway", midway)
}

// TestExampleShopKilled kills the flow at random moments. The server sees no request
// twice except those in flight at a kill, each with the same key.
func TestExampleShopKilled(t *testing.T) {
	s, dir, input := startShop(t, 60)
	e := newExampleRun(t, dir, input, "--allow", "http")
	want, _ := e.finish(filepath.Join(t.TempDir(), "store"))
	const concurrency = 8
	for killed := 0; killed < *kills; {
		s.restart()
		store := filepath.Join(t.TempDir(), "store")
		if e.kill(store) {
			continue
		}
		killed++
		got, _ := e.finish(store)
		if !got.equal(want) {
			t.Errorf("other files after a kill\n%s\n%s", got.receipt, want.receipt)
		}
		again := 0
		for _, times := range s.times {
			again += times - 1
		}
		if again > concurrency {
			t.Errorf("%d requests were answered again after one kill, and at most %d were in flight", again, concurrency)
		}
		if n := len(s.answers); n != s.pages+s.pages/5 {
			t.Errorf("the server saw %d keys, want %d", n, s.pages+s.pages/5)
		}
	}
}
