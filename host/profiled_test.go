package host_test

import (
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
)

// TestProfileCountsEveryCall compares the profile of a run with its counts: each output
// is measured once, and a job whose outputs are all stored is not measured.
func TestProfileCountsEveryCall(t *testing.T) {
	f := squares()
	f.exec = func(chunk []byte, _ int) ([]byte, error) {
		if numberOf(chunk)%10 == 3 {
			return nil, abi.Failf(abi.ClassGuest, "no")
		}
		return square(chunk)
	}
	res, err := runFake(t, f, host.Config{Workers: 3}, &host.Job{Chunks: chunksOf(t, numbers(1000)...)})
	must(t, res, err)
	p, c := res.Report.Profile, res.Report.Chunks
	if p == nil || int(p.Fuel.Count) != c.Succeeded || p.Size.Count != p.Fuel.Count || int(p.Duration.Count) > res.Report.Attempts || int(p.Duration.Count) < c.Failed {
		t.Fatalf("the profile is %+v, the counts are %+v, with %d attempts", p, c, res.Report.Attempts)
	}
	succeeded, failed := 0, 0
	for i := range p.Timeline.Succeeded {
		succeeded += p.Timeline.Succeeded[i]
		failed += p.Timeline.Failed[i]
	}
	if succeeded != c.Succeeded || failed != c.Failed || len(p.Slowest) != 50 {
		t.Errorf("the timeline has %d and %d chunks, want %d and %d; %d are slowest", succeeded, failed, c.Succeeded, c.Failed, len(p.Slowest))
	}
}
