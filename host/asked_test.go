package host_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// TestRedriveOfTheRecord checks that a job can be redriven from its record, its
// module and its chunks only.
func TestRedriveOfTheRecord(t *testing.T) {
	f, s := squares(), store.NewMemory()
	broken := true
	f.exec = func(chunk []byte, _ int) ([]byte, error) {
		if broken && numberOf(chunk) == 3 {
			return nil, abi.Failf(abi.ClassGuest, "no")
		}
		return square(chunk)
	}
	failures := 7
	job := &host.Job{
		About: host.About{
			Name: "n", Meta: map[string]string{"k": "v"}, Priority: 3, ModulePath: "/m.wasm",
			Sources: &spec.Sources{Chunks: spec.Chunks{Kind: spec.KindRange, Range: "0-9"}},
		},
		Chunks:  chunksOf(t, numbers(10)...),
		Options: runtime.Options{NativeNaNs: true}, NoFold: true, MaxFailures: &failures, Retry: host.RetryPolicy{Retries: 2, Backoff: 1, BackoffMax: 2, MaxRequeues: 4, Deterministic: true},
		Settings: runtime.Settings{Seed: 4, Memory: 1 << 20, Stack: 1 << 16, Fuel: 5, Timeout: time.Hour, FoldTimeout: time.Minute, MaxOutput: 6, MaxAggregate: 8, Isolation: runtime.IsolationInstance},
	}
	res, err := runFake(t, f, host.Config{Store: s, Journal: s}, job)
	must(t, res, err)
	record := recorded(t, s)
	again := host.JobOf(&record.Spec)
	again.Module, again.Chunks = fakeWasm, chunksOf(t, numbers(10)...)
	if differences := again.Spec().Same(&record.Spec); len(differences) > 0 || !reflect.DeepEqual(again.Sources, job.Sources) || again.Priority != 3 {
		t.Errorf("the job of the record differs in %v: %+v", differences, again)
	}
	broken = false
	before := f.execs.Load()
	again.Redrive = &host.Redrive{Job: record.Record.ID, Only: idsOf(3)}
	res, err = runFake(t, f, host.Config{Store: s, Journal: s}, again)
	if got := must(t, res, err); got.Report.Chunks.Succeeded != 10 || f.execs.Load() != before+1 || got.Report.Job != journal.Name(record.Record.ID) {
		t.Errorf("%+v, %d execs", got.Report.Chunks, f.execs.Load()-before)
	}
	if now := recorded(t, s); !reflect.DeepEqual(now.Spec, record.Spec) {
		t.Errorf("record %+v, before %+v", now.Spec, record.Spec)
	}
}

// TestInvalidJobsAreToldAll checks that all problems of a job are reported at
// once.
func TestInvalidJobsAreToldAll(t *testing.T) {
	job := &host.Job{
		Retry: host.RetryPolicy{Retries: -1, Backoff: -2}, Settings: runtime.Settings{Timeout: -1},
		About: host.About{Sources: &spec.Sources{Chunks: spec.Chunks{Kind: "xml"}}},
	}
	_, err := coordinator(t, squares(), host.Config{}).Run(t.Context(), job)
	for _, field := range []string{"Job.Module", "Job.Chunks", "Job.Settings.Timeout", "Job.Retry.Retries -1", "Job.Retry.Backoff", "Job.Sources.Chunks.Kind"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}
