package host_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/store"
)

func TestVerifyExecutesTwice(t *testing.T) {
	plain := must2(t)(runFake(t, squares(), host.Config{}, &host.Job{Chunks: chunksOf(t, numbers(400)...)}))
	for _, workers := range []int{1, 4} {
		f, checker := squares(), squares()
		for _, engine := range []host.Engine{nil, checker} {
			f.execs.Store(0)
			res := must2(t)(runFake(t, f, host.Config{Workers: workers}, &host.Job{
				Chunks: chunksOf(t, numbers(400)...), Recheck: &host.Recheck{Share: 1, Engine: engine},
			}))
			execs := f.execs.Load()
			if engine != nil {
				execs += checker.execs.Load()
			}
			if res.Report.Verified != 400 || execs != 800 || res.Report.Attempts != 400 {
				t.Errorf("%d verified, %d executions, %d attempts", res.Report.Verified, execs, res.Report.Attempts)
			}
			if res.Report.Fuel != plain.Report.Fuel || res.Report.Digests != plain.Report.Digests {
				t.Errorf("a verified job has fuel %d, %+v", res.Report.Fuel, res.Report.Digests)
			}
		}
		checker.checkTeardown(t)
	}
}

// must2 is must for calls with two results.
func must2(t *testing.T) func(*host.Result, error) *host.Result {
	return func(res *host.Result, err error) *host.Result {
		t.Helper()
		return must(t, res, err)
	}
}

// TestVerifyChoosesTheSameChunks rechecks a quarter of the chunks. The choice
// does not depend on the workers; another seed chooses other chunks.
func TestVerifyChoosesTheSameChunks(t *testing.T) {
	chosen := func(workers int, seed uint64) string {
		var list []string
		checker := squares()
		checker.exec = func(chunk []byte, _ int) ([]byte, error) {
			checker.mu.Lock()
			defer checker.mu.Unlock()
			list = append(list, string(chunk))
			return square(chunk)
		}
		job := &host.Job{Chunks: chunksOf(t, numbers(1000)...), Recheck: &host.Recheck{Share: 0.25, Engine: checker}}
		job.Settings.Seed = seed
		res := must2(t)(runFake(t, squares(), host.Config{Workers: workers}, job))
		if n := len(list); n != res.Report.Verified || n < 150 || n > 350 {
			t.Errorf("%d of 1000 chunks were executed twice, and the report has %d", n, res.Report.Verified)
		}
		slices.Sort(list)
		return strings.Join(list, "")
	}
	first := chosen(1, 0)
	if chosen(7, 0) != first {
		t.Error("other workers verify other chunks")
	}
	if chosen(1, 1) == first {
		t.Error("another seed verifies the same chunks")
	}
}

func TestVerifyFindsDifferences(t *testing.T) {
	tests := []struct {
		name    string
		recheck func(chunk []byte) ([]byte, error)
		says    string
		output  []byte
		class   abi.Class
	}{
		{"another output", func([]byte) ([]byte, error) { return abi.Null, nil }, "gave two outputs", abi.Null, ""},
		{"a trap", func([]byte) ([]byte, error) { return nil, abi.Failf(abi.ClassTrap, "unreachable") }, "gave an output, and then failed: trap: unreachable", nil, abi.ClassTrap},
		{"a broken engine", func([]byte) ([]byte, error) { return nil, errors.New("no memory") }, "no memory", nil, abi.ClassHost},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f, checker, s := squares(), squares(), store.NewMemory()
			checker.exec = func(chunk []byte, _ int) ([]byte, error) {
				if bytes.Equal(chunk, number(17)) {
					return test.recheck(chunk)
				}
				return square(chunk)
			}
			job := &host.Job{Chunks: chunksOf(t, numbers(50)...), Recheck: &host.Recheck{Share: 1, Engine: checker}}
			res, err := runFake(t, f, host.Config{Workers: 3, Store: s}, job)
			e, ok := errors.AsType[*host.DifferenceError](err)
			if !ok {
				t.Fatalf("error %v", err)
			}
			if e.ID != abi.IntID(17) || !bytes.Equal(e.First, number(289)) || !bytes.Equal(e.Second, test.output) || (e.Failure == nil) != (test.class == "") {
				t.Errorf("difference %+v", e)
			}
			if e.Failure != nil && e.Failure.Class != test.class {
				t.Errorf("class %s", e.Failure.Class)
			}
			if text := err.Error(); strings.Contains(text, "\n") || !strings.Contains(text, "chunk 17 ") || !strings.Contains(text, test.says) {
				t.Errorf("error %q", text)
			}
			if res.Aggregate != nil {
				t.Error("there is an aggregate")
			}
			checker.checkTeardown(t)
			// An output that was not confirmed is not stored.
			checker.exec = func(chunk []byte, _ int) ([]byte, error) { return square(chunk) }
			again := must2(t)(runFake(t, f, host.Config{Workers: 3, Store: s}, job))
			if n := again.Report.Chunks; n.Reused != res.Report.Chunks.Succeeded || again.Report.Verified != 50-n.Reused || !bytes.Equal(again.Aggregate, number(40425)) {
				t.Errorf("then %+v, %d verified, aggregate %x; before that %+v", n, again.Report.Verified, again.Aggregate, res.Report.Chunks)
			}
		})
	}
}

func TestVerifyFuel(t *testing.T) {
	e := &host.DifferenceError{ID: abi.IntID(1), First: abi.Null, Second: abi.Null, Fuel: [2]uint64{3, 4}}
	if text := e.Error(); !strings.Contains(text, "used fuel 3, and then 4") {
		t.Errorf("error %q", text)
	}
}

func TestVerifyShareIsChecked(t *testing.T) {
	for _, share := range []float64{0, -1, 1.5} {
		_, err := runFake(t, squares(), host.Config{}, &host.Job{Chunks: chunksOf(t), Recheck: &host.Recheck{Share: share}})
		if err == nil || !strings.Contains(err.Error(), "Job.Recheck.Share") {
			t.Errorf("share %v: error %v", share, err)
		}
	}
}

// TestNoReceipt asks for receipts of jobs that did not succeed.
func TestNoReceipt(t *testing.T) {
	folded := must2(t)(runFake(t, squares(), host.Config{}, &host.Job{Chunks: chunksOf(t, numbers(3)...)}))
	if r, err := folded.Receipt(); err != nil || r.Chunks != 3 || r.Aggregate == nil || r.Fuel != folded.Report.Fuel {
		t.Errorf("receipt %+v, %v", r, err)
	}
	unfolded := must2(t)(runFake(t, squares(), host.Config{}, &host.Job{Chunks: chunksOf(t, numbers(3)...), NoFold: true}))
	if _, err := unfolded.Receipt(); !errors.Is(err, host.ErrNoReceipt) || unfolded.Aggregate != nil || unfolded.HasAggregate() {
		t.Errorf("a job that was not folded: %v", err)
	}
	f := squares()
	f.exec = func([]byte, int) ([]byte, error) { return nil, abi.Failf(abi.ClassGuest, "no") }
	failed := must2(t)(runFake(t, f, host.Config{}, &host.Job{Chunks: chunksOf(t, numbers(3)...), Partial: true}))
	if _, err := failed.Receipt(); !errors.Is(err, host.ErrNoReceipt) {
		t.Errorf("a job that failed: %v", err)
	}
}
