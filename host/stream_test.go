package host_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// digests returns a fake whose outputs are large, and whose fold depends on
// each group that it got, in order: any other grouping or order gives another
// aggregate.
func digests(size int) *fake {
	fold := func(input []byte) ([]byte, error) {
		sum := sha256.Sum256(input)
		return append(abi.AppendHead(nil, abi.MajorBytes, uint64(len(sum))), sum[:]...), nil
	}
	return &fake{
		exec: func(chunk []byte, _ int) ([]byte, error) {
			return append(abi.AppendHead(nil, abi.MajorBytes, uint64(size)), bytes.Repeat(chunk[len(chunk)-1:], size)...), nil
		},
		aggregate: fold,
		merge:     fold,
	}
}

// TestStream lets outputs come in every order that a job can produce. Outputs
// that come too early to be held are read from the store instead. The result is
// always the result of one worker.
func TestStream(t *testing.T) {
	for name, tt := range map[string]struct {
		chunks, size int
		slow         []uint64 // slow chunks
		fails        []uint64 // chunks that fail permanently
		late         []uint64 // chunks whose first attempt fails
	}{
		"the first comes last": {chunks: 12_000, size: 4, slow: []uint64{0}},
		"more than is held":    {chunks: 70, size: 1 << 20, slow: []uint64{0, 68}},
		"in between":           {chunks: 12_000, size: 4, slow: []uint64{5, 10_001}},
		"retries":              {chunks: 12_000, size: 4, late: []uint64{0, 9_999, 10_000, 11_999}},
		"one fails":            {chunks: 12_000, size: 4, fails: []uint64{10_345}},
		"the first fails":      {chunks: 12_000, size: 4, fails: []uint64{0}},
		"the last fails":       {chunks: 12_000, size: 4, fails: []uint64{11_999}, slow: []uint64{3}},
		"all fail":             {chunks: 3, size: 4, fails: []uint64{0, 1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			run := func(t *testing.T, workers int) *host.Result {
				f := digests(tt.size)
				exec := f.exec
				var mu sync.Mutex
				tried := map[uint64]bool{}
				f.exec = func(chunk []byte, attempt int) ([]byte, error) {
					n := numberOf(chunk)
					if slices.Contains(tt.slow, n) && workers > 1 {
						time.Sleep(time.Hour)
					}
					mu.Lock()
					first := !tried[n]
					tried[n] = true
					mu.Unlock()
					switch {
					case slices.Contains(tt.fails, n):
						return nil, abi.Failf(abi.ClassGuest, "no")
					case slices.Contains(tt.late, n) && first:
						return nil, abi.Failf(abi.ClassHost, "busy")
					}
					return exec(chunk, attempt)
				}
				job := &host.Job{Chunks: chunksOf(t, numbers(tt.chunks)...), Partial: true, Retry: host.RetryPolicy{Retries: 1, Backoff: time.Minute}}
				early := collectEarly(job)
				res, err := runFake(t, f, host.Config{Workers: workers}, job)
				early.check(t, must(t, res, err), workers == 1 && len(tt.fails) == 0)
				return res
			}
			var want *host.Result
			synctest.Test(t, func(t *testing.T) { want = run(t, 1) })
			for _, workers := range []int{2, 5} {
				t.Run(fmt.Sprint(workers), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						got := run(t, workers)
						if !bytes.Equal(got.Aggregate, want.Aggregate) || got.Report.Digests != want.Report.Digests || got.Report.Fuel != want.Report.Fuel {
							t.Errorf("aggregate %x, digests %+v, fuel %d; one worker gave %x, %+v, %d", got.Aggregate, got.Report.Digests, got.Report.Fuel,
								want.Aggregate, want.Report.Digests, want.Report.Fuel)
						}
					})
				})
			}
		})
	}
}

// earlyOutputs are the outputs that a job's Early got.
type earlyOutputs struct{ all [][]byte }

func collectEarly(job *host.Job) *earlyOutputs {
	e := &earlyOutputs{}
	job.Early = func(o host.Output) { e.all = append(e.all, abi.AppendOutput(nil, o.ID, o.Output)) }
	return e
}

// check checks that the early outputs and the rest are all outputs, in order.
// If whole is set, there must be no rest.
func (e *earlyOutputs) check(t *testing.T, res *host.Result, whole bool) {
	t.Helper()
	early := len(e.all)
	for o, err := range res.Rest(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		e.all = append(e.all, abi.AppendOutput(nil, o.ID, o.Output))
	}
	if whole && early < len(e.all) {
		t.Errorf("%d of %d outputs came early", early, len(e.all))
	}
	n := 0
	for o, err := range res.Outputs(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if n >= len(e.all) || !bytes.Equal(e.all[n], abi.AppendOutput(nil, o.ID, o.Output)) {
			t.Fatalf("output %d of chunk %v differs", n, o.ID)
		}
		n++
	}
	if n < len(e.all) {
		t.Errorf("%d outputs too many", len(e.all)-n)
	}
}

// TestEarlyAgain runs a job on a store that has its outputs: no output is
// yielded twice.
func TestEarlyAgain(t *testing.T) {
	s := store.NewMemory()
	for range 2 {
		job := &host.Job{Chunks: chunksOf(t, numbers(100)...)}
		early := collectEarly(job)
		res, err := runFake(t, digests(4), host.Config{Workers: 2, Store: s}, job)
		early.check(t, must(t, res, err), false)
	}
}
