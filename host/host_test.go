package host_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

var fakeWasm = []byte("fake")

func coordinator(t *testing.T, engine host.Engine, config host.Config) *host.Coordinator {
	t.Helper()
	config.Engine = engine
	c, err := host.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// runFake runs a job on the fake engine, and checks that everything is
// released.
func runFake(t *testing.T, f *fake, config host.Config, job *host.Job) (*host.Result, error) {
	t.Helper()
	if job.Module == nil {
		job.Module = fakeWasm
	}
	res, err := coordinator(t, f, config).Run(t.Context(), job)
	f.checkTeardown(t)
	if res != nil {
		if i := res.Report.Instances; i.Created != i.Closed {
			t.Errorf("the report has %d instances created and %d closed", i.Created, i.Closed)
		}
	}
	return res, err
}

func must(t *testing.T, res *host.Result, err error) *host.Result {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func outputsOf(t *testing.T, res *host.Result) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := res.WriteOutputs(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSum(t *testing.T) {
	for _, tt := range []struct {
		name  string
		items [][]byte
		want  uint64
	}{
		{"none", nil, 0},
		{"one", [][]byte{number(5)}, 25},
		{"two and three", [][]byte{number(2), number(3)}, 13},
		{"one chunk twice", [][]byte{number(2), number(2)}, 8},
		{"a thousand", numbers(1000), 332833500},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := squares()
			res, err := runFake(t, f, host.Config{Workers: 3}, &host.Job{Chunks: chunksOf(t, tt.items...)})
			must(t, res, err)
			if !bytes.Equal(res.Aggregate, number(tt.want)) {
				t.Errorf("the aggregate is %x, want %d", res.Aggregate, tt.want)
			}
			want := host.Counts{Total: len(tt.items), Succeeded: len(tt.items)}
			if got := res.Report; got.Chunks != want || got.Attempts != len(tt.items) || got.Retries != 0 {
				t.Errorf("report has %+v, %d attempts, %d retries", got.Chunks, got.Attempts, got.Retries)
			}
			if f.folds.Load() != 1 || f.poolsClosed.Load() != 1 {
				t.Errorf("aggregate ran %d times, %d pools were closed", f.folds.Load(), f.poolsClosed.Load())
			}
		})
	}
}

func TestAggregateOfNoChunks(t *testing.T) {
	f := squares()
	var input []byte
	f.aggregate = func(b []byte) ([]byte, error) {
		input = append([]byte{}, b...)
		return abi.Null, nil
	}
	res, err := runFake(t, f, host.Config{}, &host.Job{Chunks: chunksOf(t)})
	must(t, res, err)
	if !bytes.Equal(input, []byte{0x80}) || !bytes.Equal(res.Aggregate, abi.Null) {
		t.Errorf("aggregate was given %x, the result is %x", input, res.Aggregate)
	}
}

func TestNoAggregate(t *testing.T) {
	f := squares()
	f.aggregate, f.merge = nil, nil
	res, err := runFake(t, f, host.Config{}, &host.Job{Chunks: chunksOf(t, numbers(3)...)})
	must(t, res, err)
	if res.HasAggregate() || res.Aggregate != nil || res.Report.Digests.Aggregate != "" {
		t.Errorf("there is an aggregate: %x", res.Aggregate)
	}
}

// TestSameBytes checks the guarantee of the package: neither workers, nor the
// order in the file, nor retries change a byte.
func TestSameBytes(t *testing.T) {
	var items [][]byte
	for i := range 500 {
		id := abi.IntID(uint64(i))
		if i%3 == 0 {
			id = abi.TextID(fmt.Sprint("c", i))
		}
		items = append(items, named(id, uint64(i)))
	}
	run := func(t *testing.T, engine host.Engine, workers int, items [][]byte) string {
		t.Helper()
		job := &host.Job{Module: fakeWasm, Chunks: chunksOf(t, items...), Retry: host.RetryPolicy{Retries: 100}}
		res, err := coordinator(t, engine, host.Config{Workers: workers}).Run(t.Context(), job)
		must(t, res, err)
		if n := len(res.Report.Failures); n != 0 {
			t.Fatalf("%d chunks failed: %v", n, res.Report.Failures[0])
		}
		return fmt.Sprintf("%x\n%x\n%+v", res.Aggregate, outputsOf(t, res), res.Report.Digests)
	}
	want := run(t, squares(), 1, items)
	for _, workers := range []int{1, 2, 16} {
		t.Run(fmt.Sprint("workers=", workers), func(t *testing.T) {
			if run(t, squares(), workers, items) != want {
				t.Error("the bytes differ")
			}
			if run(t, squares(), workers, shuffled(items)) != want {
				t.Error("the bytes differ for a shuffled file")
			}
			f := squares()
			engine := &faulty{f, 3, &atomic.Int64{}}
			if run(t, engine, workers, shuffled(items)) != want {
				t.Error("the bytes differ with failed attempts")
			}
			if n, execs := engine.calls.Load(), f.execs.Load(); execs != 500 || n < 700 {
				t.Errorf("%d attempts and %d of them in the guest: nothing was injected", n, execs)
			}
			f.checkTeardown(t)
		})
	}
}

func TestRetryByClass(t *testing.T) {
	const retries, requeues = 2, 4
	for _, class := range abi.Classes() {
		for name, classes := range map[string][]abi.Class{"default": nil, "none": {}, "named": {abi.ClassGuest}} {
			t.Run(string(class)+"/"+name, func(t *testing.T) {
				f := squares()
				f.exec = func(_ []byte, attempt int) ([]byte, error) {
					return nil, abi.Failf(class, "attempt %d", attempt)
				}
				retried := slices.Contains(classes, class)
				if classes == nil {
					retried = slices.Contains(host.DefaultRetryClasses(), class)
				}
				attempts, wantRetries, message := 1, 0, "attempt 1"
				switch {
				case class == abi.ClassRequeued:
					attempts, message = requeues+1, "returned to the queue 5 times: attempt 5"
				case retried:
					attempts, wantRetries, message = retries+1, retries, "attempt 3"
				}
				job := &host.Job{Chunks: chunksOf(t, number(7)), Retry: host.RetryPolicy{Retries: retries, Classes: classes, MaxRequeues: requeues}}
				res, err := runFake(t, f, host.Config{Workers: 2}, job)
				must(t, res, err)
				last := &abi.Failure{Class: class, Message: fmt.Sprintf("attempt %d", attempts)}
				want := []host.ChunkFailure{{ID: abi.IntID(0), Failure: abi.Failure{Class: class, Message: message}, Attempts: attempts, Last: last}}
				if !reflect.DeepEqual(res.Report.Failures, want) {
					t.Errorf("failures %+v, want %+v", res.Report.Failures, want)
				}
				if res.Report.Attempts != attempts || res.Report.Retries != wantRetries || f.execs.Load() != int64(attempts) {
					t.Errorf("%d attempts with %d retries, want %d with %d", res.Report.Attempts, res.Report.Retries, attempts, wantRetries)
				}
				if res.Aggregate != nil || f.folds.Load() != 0 {
					t.Error("aggregate was called for a job with a failed chunk")
				}
			})
		}
	}
}

// An error of an engine has class host, unless it is a failure of the guest or
// the end of the context.
func TestEngineError(t *testing.T) {
	f := squares()
	f.exec = func([]byte, int) ([]byte, error) { return nil, errors.New("broken") }
	res, err := runFake(t, f, host.Config{}, &host.Job{Chunks: chunksOf(t, number(1))})
	must(t, res, err)
	if got := res.Report.Failures[0].Failure; got.Class != abi.ClassHost || got.Message != "broken" {
		t.Errorf("failure %+v", got)
	}
}

func TestRetrySucceeds(t *testing.T) {
	f := squares()
	f.exec = func(chunk []byte, attempt int) ([]byte, error) {
		if attempt <= 2 {
			return nil, abi.Failf(abi.ClassTimeout, "slow")
		}
		return square(chunk)
	}
	job := &host.Job{Chunks: chunksOf(t, numbers(20)...), Retry: host.RetryPolicy{Retries: 2, Backoff: time.Microsecond}}
	res, err := runFake(t, f, host.Config{Workers: 4}, job)
	must(t, res, err)
	if !bytes.Equal(res.Aggregate, number(2470)) || res.Report.Attempts != 60 || res.Report.Retries != 40 {
		t.Errorf("aggregate %x, %d attempts, %d retries", res.Aggregate, res.Report.Attempts, res.Report.Retries)
	}
}

func TestDeterministicTrap(t *testing.T) {
	trap := func(frames ...string) func(int) *abi.Failure {
		return func(attempt int) *abi.Failure {
			return &abi.Failure{Class: abi.ClassTrap, Message: "unreachable", Stack: frames[(attempt-1)%len(frames) : (attempt-1)%len(frames)+1]}
		}
	}
	const told = "unreachable (the same twice: deterministic)"
	for _, tt := range []struct {
		name          string
		failure       func(attempt int) *abi.Failure
		deterministic bool // RetryPolicy.Deterministic
		attempts      int
		message       string
	}{
		{"the same twice", trap("f"), false, 2, told},
		{"the same twice, retried all the same", trap("f"), true, 6, "unreachable"},
		{"other stacks", trap("f", "g"), false, 6, "unreachable"},
		{"the same after another", trap("f", "g", "g"), false, 3, told},
		{"no stack", func(int) *abi.Failure { return abi.Failf(abi.ClassTrap, "unreachable") }, false, 6, "unreachable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := squares()
			f.exec = func(_ []byte, attempt int) ([]byte, error) { return nil, tt.failure(attempt) }
			job := &host.Job{Chunks: chunksOf(t, number(1)), Retry: host.RetryPolicy{Retries: 5, Deterministic: tt.deterministic}}
			res, err := runFake(t, f, host.Config{}, job)
			must(t, res, err)
			got := res.Report.Failures[0]
			if got.Attempts != tt.attempts || got.Message != tt.message || got.Class != abi.ClassTrap {
				t.Errorf("%d attempts, %v; want %d, %s", got.Attempts, &got.Failure, tt.attempts, tt.message)
			}
			if len(tt.failure(1).Stack) != len(got.Stack) {
				t.Errorf("stack %v", got.Stack)
			}
		})
	}
}

func TestRequeuesAreNotCounted(t *testing.T) {
	f := squares()
	f.exec = func(chunk []byte, attempt int) ([]byte, error) {
		switch {
		case attempt <= 3:
			return nil, abi.Failf(abi.ClassRequeued, "not now")
		case attempt == 4:
			return nil, abi.Failf(abi.ClassGuestRetryable, "once")
		}
		return square(chunk)
	}
	job := &host.Job{Chunks: chunksOf(t, number(3)), Retry: host.RetryPolicy{Retries: 1, MaxRequeues: 3}}
	res, err := runFake(t, f, host.Config{}, job)
	must(t, res, err)
	if !bytes.Equal(res.Aggregate, number(9)) || res.Report.Attempts != 5 || res.Report.Retries != 1 {
		t.Errorf("aggregate %x, %d attempts, %d retries", res.Aggregate, res.Report.Attempts, res.Report.Retries)
	}
}

// oddsFail fails permanently on odd numbers.
func oddsFail() *fake {
	f := squares()
	f.exec = func(chunk []byte, _ int) ([]byte, error) {
		if numberOf(chunk)%2 == 1 {
			return nil, abi.Failf(abi.ClassGuest, "odd")
		}
		return square(chunk)
	}
	return f
}

func TestMaxFailures(t *testing.T) {
	for _, tt := range []struct {
		max, failed, succeeded int
	}{
		{0, 1, 1}, {1, 2, 2}, {9, 10, 10}, {10, 10, 10},
	} {
		f := oddsFail()
		job := &host.Job{Chunks: chunksOf(t, numbers(20)...), MaxFailures: &tt.max, Partial: true}
		res, err := runFake(t, f, host.Config{Workers: 1}, job)
		must(t, res, err)
		want := host.Counts{Total: 20, Succeeded: tt.succeeded, Failed: tt.failed}
		if res.Report.Chunks != want || len(res.Report.Failures) != tt.failed || f.execs.Load() != int64(tt.failed+tt.succeeded) {
			t.Errorf("MaxFailures %d: %+v, %d execs; want %+v", tt.max, res.Report.Chunks, f.execs.Load(), want)
		}
		sum := uint64(0)
		for n := range uint64(tt.succeeded) {
			sum += 4 * n * n
		}
		if !bytes.Equal(res.Aggregate, number(sum)) { // Partial folds the outputs that exist
			t.Errorf("MaxFailures %d: aggregate %x, want %x", tt.max, res.Aggregate, number(sum))
		}
	}
}

func TestPartial(t *testing.T) {
	for _, partial := range []bool{false, true} {
		res, err := runFake(t, oddsFail(), host.Config{Workers: 2}, &host.Job{Chunks: chunksOf(t, numbers(6)...), Partial: partial})
		must(t, res, err)
		if got := bytes.Equal(res.Aggregate, number(0+4+16)); got != partial {
			t.Errorf("Partial %v: aggregate %x", partial, res.Aggregate)
		}
		if res.Report.Chunks != (host.Counts{Total: 6, Succeeded: 3, Failed: 3}) {
			t.Errorf("Partial %v: %+v", partial, res.Report.Chunks)
		}
	}
}

func TestFailuresInIDOrder(t *testing.T) {
	var items, want [][]byte
	for i := range 100 {
		id := abi.IntID(uint64(i))
		if i >= 50 {
			id = abi.TextID(fmt.Sprint(i))
		}
		items = append(items, named(id, uint64(i)))
		if i%2 == 1 {
			want = append(want, items[i])
		}
	}
	res, err := runFake(t, oddsFail(), host.Config{Workers: 8}, &host.Job{Chunks: chunksOf(t, shuffled(items)...)})
	must(t, res, err)
	if !slices.IsSortedFunc(res.Report.Failures, func(a, b host.ChunkFailure) int { return a.ID.Compare(b.ID) }) {
		t.Errorf("failures are not in id order: %v", res.Report.Failures)
	}
	var letter bytes.Buffer
	if err := res.WriteDeadLetter(t.Context(), &letter); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(letter.Bytes(), append([]byte{0x98, 50}, bytes.Join(want, nil)...)) {
		t.Errorf("the dead letter is\n%x", letter.Bytes())
	}
	retry, err := chunks.Spool(t.Context(), &letter, chunks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer retry.Close()
	again, err := runFake(t, squares(), host.Config{}, &host.Job{Chunks: retry})
	must(t, again, err)
	for i, f := range res.Report.Failures {
		if retry.ID(i) != f.ID {
			t.Fatalf("the dead letter has id %v but chunk %v failed", retry.ID(i), f.ID)
		}
	}
}

func TestDeadLetterOfNone(t *testing.T) {
	res, err := runFake(t, squares(), host.Config{}, &host.Job{Chunks: chunksOf(t, number(1))})
	must(t, res, err)
	var letter bytes.Buffer
	if err := res.WriteDeadLetter(t.Context(), &letter); err != nil || letter.String() != "\x80" {
		t.Errorf("%x, %v", letter.Bytes(), err)
	}
}

func TestOutputsAreAChunkFile(t *testing.T) {
	items := [][]byte{named(abi.TextID("b"), 5), named(abi.IntID(1<<40), 3), named(abi.TextID("a"), 2)}
	file := chunksOf(t, items...)
	res, err := runFake(t, squares(), host.Config{}, &host.Job{Chunks: file})
	must(t, res, err)
	outputs, err := chunks.Spool(t.Context(), bytes.NewReader(outputsOf(t, res)), chunks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer outputs.Close()
	if outputs.Len() != file.Len() {
		t.Fatalf("%d outputs of %d chunks", outputs.Len(), file.Len())
	}
	var tree merkle.Tree
	i := 0
	for o, err := range res.Outputs(t.Context()) {
		want := number([]uint64{9, 4, 25}[i])
		if err != nil || o.ID != file.ID(i) || outputs.ID(i) != file.ID(i) || !bytes.Equal(o.Output, want) {
			t.Errorf("output %d: %v = %x, %v", i, o.ID, o.Output, err)
		}
		tree.AddEntry(o.ID, o.Output)
		i++
	}
	if want := fmt.Sprintf("sha256:%x", tree.Root()); res.Report.Digests.Outputs != want {
		t.Errorf("the digest of the outputs is %s, want %s", res.Report.Digests.Outputs, want)
	}
	for range res.Outputs(t.Context()) {
		break // ending the loop early is allowed
	}
}

func TestFoldError(t *testing.T) {
	said := abi.Failf(abi.ClassGuest, "no")
	for _, tt := range []struct {
		step string
		n    int
		f    func(f *fake)
	}{
		{abi.ExportAggregate, 3, func(f *fake) { f.aggregate = func([]byte) ([]byte, error) { return nil, said } }},
		{abi.ExportAggregate, 0, func(f *fake) { f.aggregate = func([]byte) ([]byte, error) { return nil, said } }},
		{abi.ExportMerge, 10_001, func(f *fake) { f.merge = func([]byte) ([]byte, error) { return nil, said } }},
	} {
		f := squares()
		tt.f(f)
		res, err := runFake(t, f, host.Config{Workers: 2}, &host.Job{Chunks: chunksOf(t, numbers(tt.n)...)})
		fold, ok := errors.AsType[*host.FoldError](err)
		if !ok || fold.Step != tt.step || fold.Failure != said {
			t.Errorf("%s of %d: %v", tt.step, tt.n, err)
		}
		if res == nil || res.Aggregate != nil || res.Report.Chunks.Succeeded != tt.n || res.Report.Digests.Outputs == "" {
			t.Errorf("%s of %d: result %+v", tt.step, tt.n, res)
		}
	}
}

func TestInitError(t *testing.T) {
	f := squares()
	f.prepare = &runtime.InitError{Step: abi.ExportSetup, Failure: abi.Failf(abi.ClassGuest, "no")}
	res, err := runFake(t, f, host.Config{}, &host.Job{Chunks: chunksOf(t, number(1))})
	if !errors.Is(err, f.prepare) || res == nil || f.execs.Load() != 0 {
		t.Errorf("%v, %v", res, err)
	}
	f = squares()
	f.prepare = &runtime.RefusedError{Problems: []string{"no"}}
	if res, err = runFake(t, f, host.Config{}, &host.Job{Chunks: chunksOf(t, number(1))}); !errors.Is(err, f.prepare) || res != nil {
		t.Errorf("%v, %v", res, err)
	}
}

func TestInvalid(t *testing.T) {
	minus, file := -1, chunksOf(t)
	for name, job := range map[string]*host.Job{
		"Job.Module":             {Chunks: file},
		"Job.Chunks":             {Module: fakeWasm},
		"Job.MaxFailures":        {Module: fakeWasm, Chunks: file, MaxFailures: &minus},
		"Job.Retry":              {Module: fakeWasm, Chunks: file, Retry: host.RetryPolicy{Backoff: -1}},
		"Job.Settings.Context":   {Module: fakeWasm, Chunks: file, Settings: runtime.Settings{Context: []byte{0xff}}},
		"Job.Settings.Isolation": {Module: fakeWasm, Chunks: file, Settings: runtime.Settings{Isolation: runtime.IsolationNone}},
	} {
		res, err := coordinator(t, squares(), host.Config{}).Run(t.Context(), job)
		if res != nil || err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, %v", name, res, err)
		}
	}
	if _, err := host.New(t.Context(), host.Config{Workers: -1, Engine: squares()}); err == nil || !strings.Contains(err.Error(), "Config.Workers") {
		t.Errorf("Workers -1: %v", err)
	}
}

// brokenStore fails if its functions do.
type brokenStore struct {
	store.Store
	put func(store.Action, []store.Record) error
	get func() error
}

func (s brokenStore) Put(ctx context.Context, action store.Action, records []store.Record) error {
	if s.put != nil {
		if err := s.put(action, records); err != nil {
			return err
		}
	}
	return s.Store.Put(ctx, action, records)
}

func (s brokenStore) Get(ctx context.Context, action store.Action, keys []store.Key, found func(int, store.Value) error) error {
	if s.get != nil {
		if err := s.get(); err != nil {
			return err
		}
	}
	return s.Store.Get(ctx, action, keys, found)
}

var errDisk = errors.New("disk full")

// events keeps all events of a job.
type events struct{ all []host.Event }

func (*events) Progress(string, host.Counts) {}
func (*events) Wants() event.Detail          { return event.Chunks }
func (e *events) Observe(batch []host.Event) { e.all = append(e.all, batch...) }
func (e *events) of(kind event.Kind) (of []host.Event) {
	for _, event := range e.all {
		if event.Kind == kind {
			of = append(of, event)
		}
	}
	return of
}

func TestStoreError(t *testing.T) {
	var puts atomic.Int64
	for _, tt := range []struct {
		name  string
		store brokenStore
	}{
		{"the first Put", brokenStore{put: func(store.Action, []store.Record) error { return errDisk }}},
		{"the second Put", brokenStore{put: func(store.Action, []store.Record) error {
			if puts.Add(1) >= 2 {
				return errDisk
			}
			return nil
		}}},
		{"Get", brokenStore{get: func() error { return errDisk }}},
	} {
		for _, workers := range []int{1, 4} {
			t.Run(fmt.Sprint(tt.name, "/workers=", workers), func(t *testing.T) {
				puts.Store(0)
				tt.store.Store = store.NewMemory()
				var seen events
				res, err := runFake(t, squares(), host.Config{Workers: workers, Store: tt.store, Observer: &seen}, &host.Job{Chunks: chunksOf(t, numbers(50)...)})
				if _, ok := errors.AsType[*host.StoreError](err); !ok || !errors.Is(err, errDisk) {
					t.Fatalf("error %v", err)
				}
				if res == nil || res.Aggregate != nil {
					t.Fatalf("result %v", res)
				}
				if told, counted := len(seen.of(event.KindSucceeded)), res.Report.Chunks.Succeeded; told != counted {
					t.Errorf("%d chunks reported, %d counted", told, counted)
				}
				stored := 0
				for _, err := range tt.store.All(t.Context(), firstAction(t, tt.store.Store)) {
					if err != nil {
						t.Fatal(err)
					}
					stored++
				}
				if stored < res.Report.Chunks.Succeeded {
					t.Errorf("%d outputs are stored and %d reported", stored, res.Report.Chunks.Succeeded)
				}
			})
		}
	}
}

// firstAction returns the action of fake jobs without settings.
func firstAction(t *testing.T, _ store.Store) (action store.Action) {
	t.Helper()
	s := brokenStore{Store: store.NewMemory(), put: func(a store.Action, _ []store.Record) error {
		if action == (store.Action{}) {
			action = a
		}
		return nil
	}}
	res, err := runFake(t, squares(), host.Config{Store: s}, &host.Job{Chunks: chunksOf(t, number(0))})
	must(t, res, err)
	return action
}

// If the store fails while groups are being folded, the error is the store's,
// not an error of the fold.
func TestStoreErrorWhileFolding(t *testing.T) {
	memory := store.NewMemory()
	first, err := runFake(t, squares(), host.Config{Store: memory}, &host.Job{Chunks: chunksOf(t, number(0))})
	if must(t, first, err).Report.Chunks.Succeeded != 1 { // with an output in the store, folding starts only after all chunks
		t.Fatalf("%+v", first.Report.Chunks)
	}
	var folding atomic.Bool
	var gets atomic.Int64
	failed := make(chan struct{})
	s := brokenStore{Store: memory, get: func() error {
		if folding.Load() && gets.Add(1) == 11+1+10+1 { // after those for the digest and one for an aggregate, and enough for a group
			close(failed)
			return errDisk
		}
		return nil
	}}
	f := squares()
	f.aggregate = func(input []byte) ([]byte, error) {
		<-failed // the call is running at that time
		return sumEntries(input)
	}
	phases := phases(func(phase string) { folding.Store(phase == "fold") })
	_, err = runFake(t, f, host.Config{Workers: 2, Store: s, Observer: phases}, &host.Job{Chunks: chunksOf(t, numbers(11_000)...)})
	if _, ok := errors.AsType[*host.StoreError](err); !ok {
		t.Errorf("error %v", err)
	}
}

// phases is an observer that gets each phase.
type phases func(phase string)

func (p phases) Progress(phase string, _ host.Counts) { p(phase) }
func (phases) Wants() event.Detail                    { return event.ProgressOnly }
func (phases) Observe([]host.Event)                   { panic("not wanted") }

// forgetful loses one record of each Put.
type forgetful struct{ store.Store }

func (s forgetful) Put(ctx context.Context, action store.Action, records []store.Record) error {
	return s.Store.Put(ctx, action, records[1:])
}

// An output that was stored and is missing is an error of the store, and never
// a shorter result. This holds for reading outputs and for folding them: the
// outputs after the failed chunk are folded from the store.
func TestStoreLosesOutputs(t *testing.T) {
	for _, folds := range []bool{true, false} {
		f := squares()
		if !folds {
			f.aggregate = nil
		}
		s := forgetful{store.NewMemory()}
		res, err := runFake(t, f, host.Config{Store: s}, &host.Job{Chunks: chunksOf(t, numbers(9)...)})
		err = must(t, res, err).WriteOutputs(t.Context(), io.Discard)
		if _, ok := errors.AsType[*host.StoreError](err); !ok {
			t.Errorf("folds %v: error of writing outputs: %v", folds, err)
		}
		exec := f.exec
		f.exec = func(chunk []byte, attempt int) ([]byte, error) {
			if bytes.Equal(chunk, number(2)) {
				return nil, abi.Failf(abi.ClassGuest, "no")
			}
			return exec(chunk, attempt)
		}
		s = forgetful{store.NewMemory()}
		res, err = runFake(t, f, host.Config{Workers: 1, Store: s}, &host.Job{Partial: true, Chunks: chunksOf(t, numbers(9)...)})
		if _, ok := errors.AsType[*host.StoreError](err); !ok || res.Aggregate != nil {
			t.Errorf("folds %v: error %v, aggregate %x", folds, err, res.Aggregate)
		}
	}
}

// A chunk file that is overwritten during its job gives an error, and nothing
// is stored under the digest of the old file: neither that the job succeeded,
// nor its aggregate.
func TestChunkFileChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chunks.cbor")
	write := func(b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte{1, 2, 3})
	run := func(s store.Store, change func(*fake)) (*host.Result, error) {
		file, err := chunks.Open(t.Context(), path, chunks.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		f := squares()
		change(f)
		return runFake(t, f, host.Config{Workers: 1, Store: s}, &host.Job{Chunks: file})
	}
	other := func() {
		write([]byte{1, 2, 5})
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(*fake){
		"while chunks run": func(f *fake) {
			f.exec = func(chunk []byte, _ int) ([]byte, error) { other(); return square(chunk) }
		},
		"while it is folded": func(f *fake) {
			f.aggregate = func(input []byte) ([]byte, error) { other(); return sumEntries(input) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := store.NewMemory()
			write([]byte{1, 2, 3})
			if res, err := run(s, change); !errors.Is(err, chunks.ErrChanged) || res.Aggregate != nil {
				t.Fatalf("error %v, aggregate %x", err, res.Aggregate)
			}
			write([]byte{1, 2, 3})
			res, err := run(s, func(*fake) {})
			if got := must(t, res, err).Aggregate; !bytes.Equal(got, number(14)) {
				t.Errorf("afterwards the aggregate is %x", got)
			}
		})
	}
}

func TestConflict(t *testing.T) {
	var n atomic.Uint64
	f := squares()
	f.exec = func([]byte, int) ([]byte, error) { return number(n.Add(1)), nil }
	var seen events
	// This guest returns another output each time a chunk is repeated, and one
	// batch has several such chunks.
	same := make([][]byte, 9)
	for i := range same {
		same[i] = number(1)
	}
	res, err := runFake(t, f, host.Config{Workers: 1, Observer: &seen}, &host.Job{Chunks: chunksOf(t, same...)})
	conflict, ok := errors.AsType[*store.ConflictError](err)
	if _, isStore := errors.AsType[*host.StoreError](err); !ok || !isStore {
		t.Fatalf("error %v", err)
	}
	if text := err.Error(); strings.Contains(text, "\n") || !strings.Contains(text, "chunk 1: two different outputs") {
		t.Errorf("error %q", text)
	}
	if conflict.Chunk != sha256.Sum256(number(1)) || len(seen.of(event.KindSucceeded)) != res.Report.Chunks.Succeeded {
		t.Errorf("conflict %v, %d reported, %+v", conflict, len(seen.of(event.KindSucceeded)), res.Report.Chunks)
	}
}

func TestReuse(t *testing.T) {
	f, s := squares(), store.NewMemory()
	var seen events
	c := coordinator(t, f, host.Config{Workers: 4, Store: s, Observer: &seen})
	job := &host.Job{Module: fakeWasm, Chunks: chunksOf(t, numbers(100)...)}
	first, err := c.Run(t.Context(), job)
	must(t, first, err)
	seen.all = nil
	second, err := c.Run(t.Context(), job)
	must(t, second, err)
	if f.execs.Load() != 100 || f.folds.Load() != 1 {
		t.Errorf("%d execs and %d folds in two runs", f.execs.Load(), f.folds.Load())
	}
	if want := (host.Counts{Total: 100, Succeeded: 100, Reused: 100}); second.Report.Chunks != want || second.Report.Attempts != 0 {
		t.Errorf("%+v, %d attempts", second.Report.Chunks, second.Report.Attempts)
	}
	if n := len(seen.of(event.KindReused)); n != 100 {
		t.Errorf("%d events of reuse", n)
	}
	if !bytes.Equal(first.Aggregate, second.Aggregate) || first.Report.Digests != second.Report.Digests || first.Report.Fuel != second.Report.Fuel {
		t.Errorf("%x and %x, fuel %d and %d", first.Aggregate, second.Aggregate, first.Report.Fuel, second.Report.Fuel)
	}
	// Half of the chunks have stored outputs.
	more, err := c.Run(t.Context(), &host.Job{Module: fakeWasm, Chunks: chunksOf(t, numbers(200)...)})
	must(t, more, err)
	if got := more.Report; got.Chunks.Reused != 100 || got.Attempts != 100 || !bytes.Equal(more.Aggregate, number(2646700)) {
		t.Errorf("%+v, %d attempts, %x", got.Chunks, got.Attempts, more.Aggregate)
	}
	// Settings that can change an output have their own outputs.
	other := *job
	other.Settings.Seed = 1
	seeded, err := c.Run(t.Context(), &other)
	must(t, seeded, err)
	if seeded.Report.Chunks.Reused != 0 {
		t.Errorf("another seed reuses %d outputs", seeded.Report.Chunks.Reused)
	}
	f.checkTeardown(t)
}

// The result of a job without chunks is loaded from the store too.
func TestReuseOfNothing(t *testing.T) {
	f, s := squares(), store.NewMemory()
	for range 2 {
		res, err := runFake(t, f, host.Config{Store: s}, &host.Job{Chunks: chunksOf(t)})
		if got := must(t, res, err).Aggregate; !bytes.Equal(got, number(0)) {
			t.Errorf("aggregate %x", got)
		}
	}
	if f.folds.Load() != 1 || f.created.Load() != 1 {
		t.Errorf("%d folds on %d instances", f.folds.Load(), f.created.Load())
	}
}

func TestSameChunkUnderTwoIDs(t *testing.T) {
	var items [][]byte
	for i := range 60 {
		items = append(items, number(uint64(i%3)))
	}
	for _, workers := range []int{1, 8} {
		c := coordinator(t, squares(), host.Config{Workers: workers, Store: store.NewMemory()})
		for range 2 {
			res, err := c.Run(t.Context(), &host.Job{Module: fakeWasm, Chunks: chunksOf(t, items...)})
			must(t, res, err)
			if !bytes.Equal(res.Aggregate, number(20*(1+4))) || res.Report.Chunks.Succeeded != 60 {
				t.Errorf("aggregate %x, %+v", res.Aggregate, res.Report.Chunks)
			}
		}
	}
}

// tell returns a guest function whose output depends on its whole input: a
// digest, padded to size.
func tell(name string, size int) func([]byte) ([]byte, error) {
	return func(input []byte) ([]byte, error) {
		h := sha256.New()
		h.Write([]byte(name))
		h.Write(input)
		sum := h.Sum(nil)
		size := max(len(sum), size)
		b := append(abi.AppendHead(make([]byte, 0, size+9), abi.MajorBytes, uint64(size)), sum...)
		return b[:len(b)-len(sum)+size], nil
	}
}

// naiveFold is the tree of merges as specified in abi/ABI.md.
func naiveFold(t *testing.T, outputs [][]byte, aggregate, merge func([]byte) ([]byte, error)) (result []byte, aggregates, merges int) {
	call := func(f func([]byte) ([]byte, error), group [][]byte) []byte {
		output, err := f(append(abi.AppendHead(nil, abi.MajorArray, uint64(len(group))), bytes.Join(group, nil)...))
		if err != nil {
			t.Fatal(err)
		}
		return output
	}
	groups := func(elements [][]byte, least int) (groups [][][]byte) {
		for len(elements) > 0 {
			n, size := 0, 0
			for n < len(elements) && (n < least || n < 10_000 && size+len(elements[n]) <= 8<<20) {
				size += len(elements[n])
				n++
			}
			groups = append(groups, elements[:n])
			elements = elements[n:]
		}
		return groups
	}
	var entries, partials [][]byte
	for i, o := range outputs {
		entries = append(entries, abi.AppendEntry(nil, abi.IntID(uint64(i)), o))
	}
	for _, g := range groups(entries, 1) {
		partials = append(partials, call(aggregate, g))
		aggregates++
	}
	for len(partials) > 1 {
		var next [][]byte
		for _, g := range groups(partials, 2) {
			if len(g) == 1 {
				next = append(next, g[0])
				continue
			}
			next = append(next, call(merge, g))
			merges++
		}
		partials = next
	}
	return partials[0], aggregates, merges
}

func TestMergeTree(t *testing.T) {
	for _, tt := range []struct {
		name               string
		n, output, partial int // chunks; bytes
		aggregates, merges int
	}{
		{"one group", 10_000, 0, 0, 1, 0},
		{"one more", 10_001, 0, 0, 2, 1},
		{"three groups", 20_001, 0, 0, 3, 1},
		{"large outputs and partial aggregates", 5, 3 << 20, 9 << 19, 3, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			exec := func(chunk []byte, _ int) ([]byte, error) { return tell("exec", tt.output)(chunk) }
			aggregate, merge := tell("aggregate", tt.partial), tell("merge", tt.partial)
			items := numbers(tt.n)
			var outputs [][]byte
			for _, item := range items {
				o, _ := exec(item, 1)
				outputs = append(outputs, o)
			}
			want, aggregates, merges := naiveFold(t, outputs, aggregate, merge)
			if aggregates != tt.aggregates || merges != tt.merges {
				t.Fatalf("the model has %d aggregates and %d merges", aggregates, merges)
			}
			counts := []int{1, 5}
			if tt.output > 0 {
				counts = []int{5} // megabytes take seconds under the race detector
			}
			for _, workers := range counts {
				f := &fake{exec: exec, aggregate: aggregate, merge: merge}
				res, err := runFake(t, f, host.Config{Workers: workers}, &host.Job{Chunks: chunksOf(t, items...)})
				must(t, res, err)
				if f.folds.Load() != int64(tt.aggregates) || f.merges.Load() != int64(tt.merges) {
					t.Errorf("%d workers: %d aggregates and %d merges", workers, f.folds.Load(), f.merges.Load())
				}
				if !bytes.Equal(res.Aggregate, want) {
					t.Errorf("%d workers: the result differs from the model's", workers)
				}
			}
		})
	}
}

// Without merge, one call gets all outputs, however many.
func TestAggregateWithoutMerge(t *testing.T) {
	f := squares()
	f.merge = nil
	res, err := runFake(t, f, host.Config{}, &host.Job{Chunks: chunksOf(t, numbers(10_001)...)})
	must(t, res, err)
	if f.folds.Load() != 1 || !bytes.Equal(res.Aggregate, number(333383335000)) {
		t.Errorf("%d calls, aggregate %x", f.folds.Load(), res.Aggregate)
	}
}

// A waiting retry does not hold a worker: the only worker finishes everything
// else first.
func TestWaitingRetryHoldsNoWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := squares()
		began := time.Now()
		var order []uint64
		var at []time.Duration
		f.delay = func() time.Duration { return time.Second }
		f.exec = func(chunk []byte, attempt int) ([]byte, error) {
			n := numberOf(chunk)
			order, at = append(order, n), append(at, time.Since(began))
			if n == 0 && attempt == 1 {
				return nil, abi.Failf(abi.ClassHost, "busy")
			}
			return square(chunk)
		}
		job := &host.Job{Chunks: chunksOf(t, numbers(10)...), Retry: host.RetryPolicy{Retries: 1, Backoff: time.Hour, BackoffMax: time.Hour}}
		res, err := runFake(t, f, host.Config{Workers: 1}, job)
		must(t, res, err)
		if want := []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0}; !slices.Equal(order, want) {
			t.Fatalf("the order is %v", order)
		}
		if at[9] != 10*time.Second || at[10] < 30*time.Minute || at[10] > 91*time.Minute {
			t.Errorf("the others were finished after %v, the retry after %v", at[9], at[10])
		}
		if !bytes.Equal(res.Aggregate, number(285)) {
			t.Errorf("aggregate %x", res.Aggregate)
		}
	})
}

// A retry that is due while every worker is busy waits quietly. If the
// scheduler spun, virtual time would not advance.
func TestDueRetryWaitsForAWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := squares()
		var order []uint64
		f.exec = func(chunk []byte, attempt int) ([]byte, error) {
			n := numberOf(chunk)
			order = append(order, n)
			if n == 0 && attempt == 1 {
				return nil, abi.Failf(abi.ClassHost, "busy")
			}
			time.Sleep(time.Hour)
			return square(chunk)
		}
		job := &host.Job{Chunks: chunksOf(t, numbers(2)...), Retry: host.RetryPolicy{Retries: 1, Backoff: time.Minute}}
		res, err := runFake(t, f, host.Config{Workers: 1}, job)
		must(t, res, err)
		if !slices.Equal(order, []uint64{0, 1, 0}) {
			t.Errorf("the order is %v", order)
		}
	})
}

func TestEvents(t *testing.T) {
	f := squares()
	f.exec = func(chunk []byte, attempt int) ([]byte, error) {
		switch n := numberOf(chunk); {
		case n == 1 && attempt == 1:
			return nil, abi.Failf(abi.ClassTimeout, "slow")
		case n == 2 && attempt == 1:
			return nil, abi.Failf(abi.ClassRequeued, "not now")
		case n == 3:
			return nil, abi.Failf(abi.ClassGuest, "never")
		}
		return square(chunk)
	}
	var seen events
	job := &host.Job{Chunks: chunksOf(t, numbers(5)...), Retry: host.DefaultRetry()}
	job.Retry.Backoff = 0
	res, err := runFake(t, f, host.Config{Workers: 2, Observer: &seen}, job)
	must(t, res, err)
	var phases []string
	for _, e := range seen.of(event.KindPhase) {
		phases = append(phases, e.Message)
	}
	if want := []string{"compile", "prepare", "execute", "fold"}; !slices.Equal(phases, want) {
		t.Errorf("phases %v", phases)
	}
	for kind, want := range map[event.Kind]int{
		event.KindSucceeded: 4, event.KindRetry: 1, event.KindRequeue: 1, event.KindFailed: 1, event.KindEnd: 1, event.KindReused: 0,
	} {
		if got := len(seen.of(kind)); got != want {
			t.Errorf("%d events %q, want %d", got, kind, want)
		}
	}
	retry := seen.of(event.KindRetry)[0]
	if *retry.ID != abi.IntID(1) || retry.Attempt != 1 || retry.NotBefore == nil || retry.Failure.Class != abi.ClassTimeout || retry.Worker < 1 {
		t.Errorf("retry %+v", retry)
	}
	if end := seen.all[len(seen.all)-1]; end.Kind != event.KindEnd || *end.Counts != res.Report.Chunks {
		t.Errorf("the last event is %+v", end)
	}
}

func TestObserverWithoutEvents(t *testing.T) {
	o := &progress{}
	res, err := runFake(t, squares(), host.Config{Observer: o}, &host.Job{Chunks: chunksOf(t, numbers(10)...)})
	must(t, res, err)
	if o.observed || o.last != res.Report.Chunks {
		t.Errorf("%+v", o)
	}
}

type progress struct {
	observed bool
	last     host.Counts
}

func (p *progress) Progress(_ string, c host.Counts) { p.last = c }
func (*progress) Wants() event.Detail                { return event.ProgressOnly }
func (p *progress) Observe([]host.Event)             { p.observed = true }

// Chunks whose costs differ by a factor of a thousand take at most a tenth more
// than their total work divided by the workers, plus the longest chunk. Time is
// virtual: nothing else takes any.
func TestUnevenChunks(t *testing.T) {
	const n = 3000
	const cheap, dear = time.Millisecond, time.Second
	costs := map[string]func(i uint64, rng *rand.Rand) time.Duration{
		"at random": func(_ uint64, rng *rand.Rand) time.Duration {
			return time.Duration(float64(cheap) * math.Pow(1000, rng.Float64()))
		},
		"few expensive chunks": func(_ uint64, rng *rand.Rand) time.Duration {
			if rng.IntN(100) == 0 {
				return dear
			}
			return cheap
		},
		"expensive chunks at the end": func(i uint64, _ *rand.Rand) time.Duration {
			if i >= n-40 {
				return dear
			}
			return cheap
		},
		"expensive chunks at the start": func(i uint64, _ *rand.Rand) time.Duration {
			if i < 40 {
				return dear
			}
			return cheap
		},
		"the last one": func(i uint64, _ *rand.Rand) time.Duration {
			if i == n-1 {
				return dear
			}
			return cheap
		},
		"more and more expensive": func(i uint64, _ *rand.Rand) time.Duration { return cheap + dear*time.Duration(i)/n },
	}
	for name, cost := range costs {
		for _, workers := range []int{1, 2, 3, 16} {
			t.Run(fmt.Sprint(name, "/", workers), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					rng := rand.New(rand.NewPCG(1, 2))
					var each [n]time.Duration
					var total, longest time.Duration
					for i := range each {
						each[i] = cost(uint64(i), rng)
						total, longest = total+each[i], max(longest, each[i])
					}
					f := squares()
					f.exec = func(chunk []byte, _ int) ([]byte, error) {
						time.Sleep(each[numberOf(chunk)])
						return square(chunk)
					}
					start := time.Now()
					res, err := runFake(t, f, host.Config{Workers: workers}, &host.Job{Chunks: chunksOf(t, numbers(n)...)})
					must(t, res, err)
					took, ideal := time.Since(start), total/time.Duration(workers)+longest
					if took > ideal*11/10 {
						t.Errorf("took %v, ideal is %v", took, ideal)
					}
					t.Logf("%.3f of the ideal", took.Seconds()/ideal.Seconds())
				})
			})
		}
	}
}

// TestEqualChunks has two chunks of the same bytes, one of which fails: the output of
// the other does not count for it.
func TestEqualChunks(t *testing.T) {
	f := squares()
	calls := 0
	f.exec = func(chunk []byte, _ int) ([]byte, error) {
		if calls++; calls == 1 {
			return nil, abi.Failf(abi.ClassTimeout, "late")
		}
		return square(chunk)
	}
	job := &host.Job{Chunks: chunksOf(t, number(7), number(7)), Retry: host.RetryPolicy{Retries: 0}}
	res, err := runFake(t, f, host.Config{Workers: 1}, job)
	must(t, res, err)
	if c := res.Report.Chunks; c.Succeeded != 1 || c.Failed != 1 || res.Aggregate != nil || res.Report.State != "failed" {
		t.Errorf("%+v, state %s, aggregate %x", c, res.Report.State, res.Aggregate)
	}
}
