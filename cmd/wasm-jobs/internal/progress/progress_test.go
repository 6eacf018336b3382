package progress

import (
	"bytes"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/event"
)

// The store prints lines from the goroutines of workers, while the scheduler draws.
func TestDisplayIsShared(t *testing.T) {
	s := New(Config{Out: io.Discard, Mode: "plain"})
	s.mode = "bar"
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 50 {
				s.Say("store: an output is damaged")
			}
		})
	}
	for i := range 50 {
		s.Progress("execute", host.Counts{Total: 50, Succeeded: i})
		s.Progress("fold", host.Counts{Total: 50, Succeeded: i})
	}
	all.Wait()
	s.Close()
}

// Events that go to a pipe can be read as they happen.
func TestEventsAreFlushed(t *testing.T) {
	var out bytes.Buffer
	s := New(Config{Out: io.Discard, Mode: "none", Events: &out})
	s.Observe([]host.Event{{Kind: event.KindPhase, Message: "compile"}})
	if !bytes.HasSuffix(out.Bytes(), []byte("}\n")) {
		t.Errorf("after an event there is %q", &out)
	}
}

func TestBarWords(t *testing.T) {
	for _, tt := range []struct {
		counts  host.Counts
		elapsed time.Duration
		want    string
	}{
		{host.Counts{Total: 100}, 0, "0 s"},
		{host.Counts{Total: 100}, 2 * time.Second, "2 s"},
		{host.Counts{Total: 100, Succeeded: 50, Reused: 50}, 2 * time.Second, "2 s"},
		{host.Counts{Total: 100, Succeeded: 50}, 12400 * time.Millisecond, "12 s, 12 s left"},
		{host.Counts{Total: 100, Succeeded: 9, Failed: 1}, 12 * time.Second, "12 s, 1m48s left, 1 failed"},
		{host.Counts{Total: 100, Succeeded: 90, Reused: 80}, 90 * time.Minute, "1h30m0s, 1h30m0s left"},
		{host.Counts{Total: 100, Succeeded: 100}, time.Minute, "1m0s, 0 s left"},
	} {
		if got := barWords(tt.counts, tt.elapsed); got != tt.want {
			t.Errorf("%+v after %v: %q, want %q", tt.counts, tt.elapsed, got, tt.want)
		}
	}
}

// One is not many.
func TestSummaryHasPluralForms(t *testing.T) {
	for n, want := range map[int]string{
		1: "wasm-jobs: 1 chunk: 1 succeeded (0 reused), 0 failed; 1 attempt, 1 worker, 0s\n",
		2: "wasm-jobs: 2 chunks: 2 succeeded (0 reused), 0 failed; 2 attempts, 2 workers, 0s\n",
	} {
		var out bytes.Buffer
		result := &host.Result{}
		result.Report.Chunks.Total, result.Report.Chunks.Succeeded = n, n
		result.Report.Attempts, result.Report.Workers = n, n
		if err := New(Config{Out: &out, Mode: "plain"}).Finish(result); err != nil || out.String() != want {
			t.Errorf("%v: %q, want %q", err, out.String(), want)
		}
	}
}
