package host_test

import (
	"context"
	"encoding/json"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Bounds of the cost of very many failures.
const (
	manyFailures = 100_000
	maxHeap      = 64 << 20
	maxJSON      = 16 << 20
)

// heap returns the bytes of the objects that are in use.
func heap() uint64 {
	goruntime.GC()
	goruntime.GC() // also frees memory in sync.Pools
	var stats goruntime.MemStats
	goruntime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// grown returns by how much the heap has grown.
func grown(before uint64) int64 { return int64(heap()) - int64(before) }

// talk is the text of long failures.
var talk = struct{ message, frame string }{strings.Repeat("<m>", 4<<10/3), strings.Repeat("f", 240)}

// talkative returns a failure with as much text as is allowed. Unless same is
// set, it differs for each n.
func talkative(n uint64, same bool) *abi.Failure {
	if same {
		n = 0
	}
	number := strconv.FormatUint(n, 10)
	f := &abi.Failure{Class: abi.ClassTrap, Message: number + ": " + talk.message, Stack: make([]string, 16)}
	for i := range f.Stack {
		f.Stack[i] = number + talk.frame
	}
	return f
}

// TestManyFailures bounds the memory and the size in the report of the text of
// all failures of a job.
func TestManyFailures(t *testing.T) {
	if raceDetector {
		t.Skip("slow under the race detector, and without goroutines of its own")
	}
	for name, same := range map[string]bool{"different texts": false, "equal texts": true} {
		t.Run(name, func(t *testing.T) {
			f := &fake{exec: func(chunk []byte, _ int) ([]byte, error) { return nil, talkative(numberOf(chunk), same) }}
			job := &host.Job{Chunks: chunksOf(t, numbers(manyFailures)...)}
			before := heap()
			res, err := runFake(t, f, host.Config{Workers: 2}, job)
			must(t, res, err)
			if n := grown(before); n > maxHeap {
				t.Errorf("the heap grew by %d MiB", n>>20)
			}
			written, err := json.MarshalIndent(&res.Report, "", "  ")
			if err != nil || len(written) > maxJSON {
				t.Errorf("the report has %d MiB, %v", len(written)>>20, err)
			}
			t.Logf("%d KiB of memory, a report of %d KiB, %d shortened", grown(before)>>10, len(written)>>10, res.Report.FailuresShortened)
			checkFailures(t, res, same)
			goruntime.KeepAlive(job)
		})
	}
}

// checkFailures checks that all failures are there, that some of them are
// whole, and that the others have the beginning of their message.
func checkFailures(t *testing.T, res *host.Result, same bool) {
	t.Helper()
	r, whole, bundles := &res.Report, 0, 0
	if len(r.Failures) != manyFailures || r.Chunks.Failed != manyFailures {
		t.Fatalf("%d failures, %+v", len(r.Failures), r.Chunks)
	}
	for i := range r.Failures {
		f, want := &r.Failures[i], talkative(uint64(i), same)
		if f.ID != abi.IntID(uint64(i)) || f.Index != i || f.Class != want.Class || f.Last.Class != want.Class || f.Attempts < 1 {
			t.Fatalf("failure %d is %+v", i, f)
		}
		begins := strings.TrimSuffix(f.Message, "...")
		switch {
		case !f.Shortened && strings.HasPrefix(f.Message, want.Message) && slices.Equal(f.Stack, want.Stack):
			whole++
		case !f.Shortened || f.Stack != nil || len(f.Message) < 12 || len(f.Message) > 44 || !strings.HasPrefix(want.Message, begins):
			t.Fatalf("failure %d is %+v", i, f)
		}
		if f.Last.Message == want.Message && slices.Equal(f.Last.Stack, want.Stack) {
			bundles++
		}
	}
	if whole < 40 || whole+r.FailuresShortened != manyFailures || bundles < whole || same && bundles != manyFailures {
		t.Errorf("%d failures are whole, %d shortened; %d for bundles", whole, r.FailuresShortened, bundles)
	}
}

// Short messages are kept exactly, however many there are, and a report that is
// not long is whole.
func TestFewFailuresAreWhole(t *testing.T) {
	if raceDetector {
		t.Skip("slow under the race detector, and without goroutines of its own")
	}
	for _, tt := range []struct {
		n       int
		failure func(n uint64) *abi.Failure
	}{
		{500, func(n uint64) *abi.Failure { return talkative(n, true) }},
		{manyFailures, func(n uint64) *abi.Failure { return abi.Failf(abi.ClassGuest, "record %d has no field", n) }},
	} {
		f := &fake{exec: func(chunk []byte, _ int) ([]byte, error) { return nil, tt.failure(numberOf(chunk)) }}
		res, err := runFake(t, f, host.Config{Workers: 2}, &host.Job{Chunks: chunksOf(t, numbers(tt.n)...)})
		r := must(t, res, err).Report
		for i, f := range r.Failures {
			if want := tt.failure(uint64(i)); f.Message != want.Message || !slices.Equal(f.Stack, want.Stack) || f.Shortened {
				t.Fatalf("failure %d is %v", i, &f)
			}
		}
		if b, err := json.Marshal(&r); err != nil || r.FailuresShortened != 0 || strings.Contains(string(b), "failures_shortened") {
			t.Errorf("%d shortened, %v", r.FailuresShortened, err)
		}
	}
}

// TestManyRetriesWait bounds the memory of chunks that wait for another
// attempt. Each chunk fails once before any is retried, because time is
// virtual.
func TestManyRetriesWait(t *testing.T) {
	if raceDetector {
		t.Skip("slow under the race detector, and without goroutines of its own")
	}
	const share = 5 // of the failures, and of the memory
	synctest.Test(t, func(t *testing.T) {
		job := &host.Job{
			Chunks: chunksOf(t, numbers(manyFailures/share)...),
			Retry:  host.RetryPolicy{Retries: 3, Backoff: time.Hour, BackoffMax: time.Hour, Classes: []abi.Class{abi.ClassTrap}},
		}
		before, waiting := heap(), int64(0)
		f := &fake{exec: func(chunk []byte, attempt int) ([]byte, error) {
			if attempt == 2 && waiting == 0 {
				waiting = grown(before)
			}
			return nil, talkative(numberOf(chunk), false)
		}}
		res, err := runFake(t, f, host.Config{Workers: 1}, job)
		must(t, res, err)
		if waiting == 0 || waiting > maxHeap/share || res.Report.Attempts != 2*manyFailures/share {
			t.Errorf("the heap grew by %d MiB, and %d attempts were made", waiting>>20, res.Report.Attempts)
		}
	})
}

// noted is a journal that counts attempts, and the most text that it got at
// once.
type noted struct {
	store.Journal
	attempts, most int
}

func (n *noted) Note(_ context.Context, _ store.RunKey, _ []byte, failed []store.Attempt) error {
	size := 0
	for _, a := range failed {
		size += len(a.Detail)
	}
	n.attempts, n.most = n.attempts+len(failed), max(n.most, size)
	return nil
}

// TestFailuresToNote bounds the text of failed attempts that wait for the
// journal.
func TestFailuresToNote(t *testing.T) {
	const attempts, most = 1000, 5 << 20
	f := &fake{exec: func(chunk []byte, _ int) ([]byte, error) { return nil, talkative(numberOf(chunk), true) }}
	s := store.NewMemory()
	j := &noted{Journal: s}
	res, err := runFake(t, f, host.Config{Workers: 2, Store: s, Journal: j}, &host.Job{Chunks: chunksOf(t, numbers(attempts)...)})
	must(t, res, err)
	if j.attempts != attempts || j.most > most {
		t.Errorf("%d attempts are noted, and %d KiB at once", j.attempts, j.most>>10)
	}
}
