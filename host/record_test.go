package host_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/jobs"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

func idsOf(numbers ...uint64) (set abi.IDSet) {
	for _, n := range numbers {
		set.Add(abi.IntID(n))
	}
	return set
}

// recorded returns the only job of a store.
func recorded(t *testing.T, s store.Jobs) *jobs.Job {
	t.Helper()
	j, err := jobs.Find(t.Context(), s, "")
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func statusOf(t *testing.T, s store.Jobs) *jobs.Status {
	t.Helper()
	status, err := recorded(t, s).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return status
}

func TestRecords(t *testing.T) {
	f, s := squares(), store.NewMemory()
	broken := true
	f.exec = func(chunk []byte, attempt int) ([]byte, error) {
		switch n := numberOf(chunk); {
		case n == 3 && attempt == 1:
			return nil, abi.Failf(abi.ClassTimeout, "slow")
		case n%10 == 7 && broken:
			return nil, &abi.Failure{Class: abi.ClassGuest, Message: "no way", Stack: []string{"f"}}
		}
		return square(chunk)
	}
	job := &host.Job{
		Name: "squares", Meta: map[string]string{"k": "v"}, Chunks: chunksOf(t, numbers(100)...),
		Retry: host.RetryPolicy{Retries: 1},
	}
	res, err := runFake(t, f, host.Config{Workers: 3, Store: s}, job)
	first := must(t, res, err).Report

	j := recorded(t, s)
	if j.State() != jobs.Incomplete || j.Spec.Name != "squares" || j.Spec.Meta["k"] != "v" || jobs.Name(j.Record.ID) != first.Job || first.State != jobs.Incomplete {
		t.Errorf("%s %+v, report %s %s", j.State(), j.Spec, first.Job, first.State)
	}
	status := statusOf(t, s)
	if want := "7,17,27,37,47,57,67,77,87,97"; status.Failed.IDs.String() != want || status.Failed.Count != 10 ||
		status.Succeeded.Count != 90 || status.Pending.Count != 0 || status.Active.Count != 0 {
		t.Errorf("%+v", status)
	}
	three, err := j.Chunk(t.Context(), abi.IntID(3))
	if err != nil || three.State != "succeeded" || len(three.Attempts) != 2 || three.Attempts[0].Class != abi.ClassTimeout ||
		three.Attempts[1].State != "succeeded" || three.Attempts[1].Attempt != 2 || !bytes.Equal(three.Output.Output, number(9)) || three.Output.Fuel == 0 {
		t.Errorf("%+v, %v", three, err)
	}
	seven, err := j.Chunk(t.Context(), abi.IntID(7))
	if err != nil || seven.State != "failed" || seven.Output != nil || len(seven.Attempts) != 1 ||
		seven.Attempts[0].Message != "no way" || !slices.Equal(seven.Attempts[0].Stack, []string{"f"}) || seven.Attempts[0].Worker == 0 {
		t.Errorf("%+v, %v", seven, err)
	}
	if _, err := j.Chunk(t.Context(), abi.IntID(100)); !errors.Is(err, jobs.ErrNoChunk) {
		t.Errorf("chunk 100: %v", err)
	}

	// A redrive runs what it is told, and nothing else.
	broken = false
	before := f.execs.Load()
	again := *job
	again.Redrive = &host.Redrive{Job: j.Record.ID, Only: idsOf(7, 17, 3)}
	res, err = runFake(t, f, host.Config{Workers: 3, Store: s}, &again)
	if got := must(t, res, err).Report; f.execs.Load() != before+2 || got.Chunks != (host.Counts{Total: 100, Succeeded: 92, Reused: 90}) || res.Aggregate != nil {
		t.Errorf("%d execs, %+v", f.execs.Load()-before, got.Chunks)
	}
	if status := statusOf(t, s); status.Failed.Count != 8 || status.Succeeded.Count != 92 {
		t.Errorf("%+v", status)
	}
	again.Redrive.Only, err = recorded(t, s).Failed(t.Context(), abi.ClassGuest)
	if err != nil {
		t.Fatal(err)
	}
	res, err = runFake(t, f, host.Config{Workers: 3, Store: s}, &again)
	if got := must(t, res, err); got.Report.Chunks.Succeeded != 100 || !bytes.Equal(got.Aggregate, number(328350)) || got.Report.State != jobs.Succeeded {
		t.Errorf("%+v, %x", got.Report.Chunks, got.Aggregate)
	}
	j = recorded(t, s)
	if aggregate, err := j.Aggregate(t.Context()); err != nil || !bytes.Equal(aggregate, number(328350)) || len(j.Runs) != 3 || j.State() != jobs.Succeeded {
		t.Errorf("%x, %v, %d runs, %s", aggregate, err, len(j.Runs), j.State())
	}
	count := 0
	gone, err := j.Outputs(t.Context(), func(o *jobs.Output) error {
		if o.ID != abi.IntID(uint64(count)) || !bytes.Equal(o.Output, number(uint64(count*count))) {
			t.Errorf("output %d is %v: %x", count, o.ID, o.Output)
		}
		count++
		return nil
	})
	if err != nil || count != 100 || !gone.Empty() {
		t.Errorf("%d outputs, %v gone, %v", count, gone, err)
	}
}

func TestRedriveOfAnotherJob(t *testing.T) {
	f, s := squares(), store.NewMemory()
	res, err := runFake(t, f, host.Config{Store: s}, &host.Job{Chunks: chunksOf(t, number(1))})
	must(t, res, err)
	id := recorded(t, s).Record.ID
	for name, s := range map[string]store.Store{"other chunks": s, "no records": struct{ store.Store }{s}} {
		res, err := runFake(t, f, host.Config{Store: s}, &host.Job{
			Chunks: chunksOf(t, number(2)), Redrive: &host.Redrive{Job: id, Only: idsOf(0)},
		})
		if !errors.Is(err, host.ErrOtherJob) || res != nil || f.execs.Load() != 1 {
			t.Errorf("%s: %v, %v", name, res, err)
		}
	}
}

// What a job is at can be seen while it runs, and that it failed.
func TestStatusWhileRunning(t *testing.T) {
	s := store.NewMemory()
	running, resume := make(chan struct{}), make(chan struct{})
	f := squares()
	f.exec = func(chunk []byte, _ int) ([]byte, error) {
		if numberOf(chunk) == 2 {
			close(running)
			<-resume
		}
		return square(chunk)
	}
	done := make(chan error)
	go func() {
		_, err := runFake(t, f, host.Config{Workers: 1, Store: s}, &host.Job{Chunks: chunksOf(t, numbers(4)...)})
		done <- err
	}()
	<-running
	for { // until the first sign of life
		status := statusOf(t, s)
		if status.Active.IDs.Has(abi.IntID(2)) {
			break
		}
		select {
		case err := <-done:
			t.Fatal(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	if j := recorded(t, s); j.State() != jobs.Running {
		t.Error(j.State())
	}
	close(resume)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if status := statusOf(t, s); status.Succeeded.Count != 4 {
		t.Errorf("%+v", status)
	}
}

// brokenJobs cannot note anything.
type brokenJobs struct{ store.Jobs }

func (brokenJobs) Note(context.Context, store.RunKey, []byte, []store.Attempt) error { return errDisk }

// A store that cannot note failed attempts has failed.
func TestNoteFails(t *testing.T) {
	s := brokenJobs{store.NewMemory()}
	f := squares()
	f.exec = func([]byte, int) ([]byte, error) { return nil, abi.Failf(abi.ClassGuest, "no") }
	_, err := runFake(t, f, host.Config{Store: s}, &host.Job{Chunks: chunksOf(t, numbers(3)...)})
	if _, ok := errors.AsType[*host.StoreError](err); !ok || !errors.Is(err, errDisk) {
		t.Errorf("error %v", err)
	}
}

// forgetfulJobs has lost its records, as a store has that set its file aside.
type forgetfulJobs struct{ store.Jobs }

func (forgetfulJobs) Extents(context.Context, store.JobID) iter.Seq2[store.Extent, error] {
	return func(yield func(store.Extent, error) bool) { yield(store.Extent{}, store.ErrNoJob) }
}

// TestRecordIsLost lets the job's record be gone between a run's begin and its
// look at what is there: the outputs are reused all the same.
func TestRecordIsLost(t *testing.T) {
	s := store.NewMemory()
	job := &host.Job{Chunks: chunksOf(t, numbers(10)...)}
	res, err := runFake(t, squares(), host.Config{Store: s}, job)
	must(t, res, err)
	job.Chunks = chunksOf(t, numbers(20)...)
	res, err = runFake(t, squares(), host.Config{Store: forgetfulJobs{s}}, job)
	if r := must(t, res, err).Report; r.Chunks.Reused != 10 || r.Chunks.Succeeded != 20 {
		t.Errorf("%+v", r.Chunks)
	}
}

// TestRefusedByTheEngine has a module refused when the record of its job has
// begun already: the record then says that the run is over, and how.
func TestRefusedByTheEngine(t *testing.T) {
	s := store.NewMemory()
	f := squares()
	f.refusal = &runtime.RefusedError{Problems: []string{"no"}}
	res, err := runFake(t, f, host.Config{Store: s}, &host.Job{Chunks: chunksOf(t, number(0))})
	if _, ok := errors.AsType[*runtime.RefusedError](err); !ok || res != nil {
		t.Fatalf("result %v, error %v", res, err)
	}
	if state := recorded(t, s).State(); state != jobs.Broken {
		t.Errorf("the job is %s", state)
	}
}
