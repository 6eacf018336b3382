package progress

import (
	"bytes"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/host/profile"
)

// A hint that nothing succeeds comes once, and never without progress.
func TestHopeless(t *testing.T) {
	for mode, want := range map[string]int{"plain": 1, "none": 0} {
		var out bytes.Buffer
		d := New(Config{Out: &out, Mode: mode, LogLevel: 127})
		for failed := 99; failed < 103; failed++ {
			d.Progress("execute", host.Counts{Total: 1000, Failed: failed})
		}
		if n := strings.Count(out.String(), "chunks all failed"); n != want {
			t.Errorf("%s: %q", mode, &out)
		}
	}
}

// That a large module is compiled is told, and never without progress.
func TestCompiling(t *testing.T) {
	for _, c := range []struct {
		mode string
		size int
		kept bool
		want string
	}{
		{"plain", 1<<20 - 1, true, ""},
		{"plain", 4400000, true, "wasm-jobs: compiling 4.2 MiB, once\n"},
		{"bar", 4400000, false, "wasm-jobs: compiling 4.2 MiB\n"},
		{"none", 4400000, true, ""},
	} {
		var out bytes.Buffer
		New(Config{Out: &out, Mode: c.mode, LogLevel: 127}).Compiling(c.size, c.kept)
		if out.String() != c.want {
			t.Errorf("%+v: %q", c, &out)
		}
	}
}

func TestCostly(t *testing.T) {
	r := host.Report{}
	r.Attempts, r.Profile = 1_000_000, &profile.Profile{}
	r.Profile.Seconds = profile.Seconds{Guest: 4, Host: 6, Store: 3}
	if got := costly(&r); !strings.Contains(got, "a chunk takes 4 us and costs 9 us around it: --chunk-lines 1000 would be about 3 times faster") {
		t.Error(got)
	}
	r.Profile.Seconds = profile.Seconds{Guest: 40, Host: 6}
	if got := costly(&r); got != "" {
		t.Error(got)
	}
}

// Failures appear while the job runs. Those that are alike are one line at its end,
// with their number and ids.
func TestFailuresAreGrouped(t *testing.T) {
	var out bytes.Buffer
	d := New(Config{Out: &out, Mode: "plain", LogLevel: 127})
	f := &abi.Failure{Class: abi.ClassTrap, Message: "panic: no", Stack: []string{"pick (main.c:8)"}, Logs: []string{"before"}}
	result := &host.Result{}
	for _, n := range []uint64{0, 2, 3} {
		id := abi.IntID(n)
		d.Observe([]host.Event{{Kind: event.KindFailed, ID: &id, Attempt: 2, Failure: f}})
		result.Report.Failures = append(result.Report.Failures, host.ChunkFailure{ID: id, Failure: *f, Attempts: 2})
	}
	live := "wasm-jobs: chunk 0 failed after 2 attempts: trap: panic: no\n    at pick (main.c:8)\n    | before\n"
	if out.String() != live {
		t.Errorf("while it runs: %q, want %q", &out, live)
	}
	if err := d.Finish(result); err != nil {
		t.Fatal(err)
	}
	after := strings.TrimPrefix(out.String(), live)
	if !strings.HasPrefix(after, "wasm-jobs: 3 chunks failed alike, 0,2-3: trap: panic: no at pick (main.c:8)\n") {
		t.Errorf("at the end: %q", after)
	}
}
