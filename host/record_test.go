package host_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
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
func recorded(t *testing.T, s journal.Store) *journal.Record {
	t.Helper()
	j, err := journal.Find(t.Context(), s, "")
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func statusOf(t *testing.T, s journal.Store) *journal.Status {
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
		About: host.About{Name: "squares", Meta: map[string]string{"k": "v"}}, Chunks: chunksOf(t, numbers(100)...),
		Retry: host.RetryPolicy{Retries: 1},
	}
	res, err := runFake(t, f, host.Config{Workers: 3, Store: s, Journal: s}, job)
	first := must(t, res, err).Report

	j := recorded(t, s)
	if j.State() != journal.Failed || j.Spec.Name != "squares" || j.Spec.Meta["k"] != "v" || journal.Name(j.Record.ID) != first.Job || first.State != journal.Failed {
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
	if _, err := j.Chunk(t.Context(), abi.IntID(100)); !errors.Is(err, journal.ErrNoChunk) {
		t.Errorf("chunk 100: %v", err)
	}

	// A redrive runs the chunks that it names, and nothing else.
	broken = false
	before := f.execs.Load()
	again := *job
	again.Redrive = &host.Redrive{Job: j.Record.ID, Only: idsOf(7, 17, 3)}
	res, err = runFake(t, f, host.Config{Workers: 3, Store: s, Journal: s}, &again)
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
	res, err = runFake(t, f, host.Config{Workers: 3, Store: s, Journal: s}, &again)
	if got := must(t, res, err); got.Report.Chunks.Succeeded != 100 || !bytes.Equal(got.Aggregate, number(328350)) || got.Report.State != journal.Succeeded {
		t.Errorf("%+v, %x", got.Report.Chunks, got.Aggregate)
	}
	j = recorded(t, s)
	if aggregate, err := j.Aggregate(t.Context()); err != nil || !bytes.Equal(aggregate, number(328350)) || len(j.Runs) != 3 || j.State() != journal.Succeeded {
		t.Errorf("%x, %v, %d runs, %s", aggregate, err, len(j.Runs), j.State())
	}
	count := 0
	gone, err := j.Outputs(t.Context(), func(o *journal.Output) error {
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
	res, err := runFake(t, f, host.Config{Store: s, Journal: s}, &host.Job{Chunks: chunksOf(t, number(1))})
	must(t, res, err)
	id := recorded(t, s).Record.ID
	for name, config := range map[string]host.Config{"other chunks": {Store: s, Journal: s}, "no records": {Store: s}} {
		res, err := runFake(t, f, config, &host.Job{
			Chunks: chunksOf(t, number(2)), Redrive: &host.Redrive{Job: id, Only: idsOf(0)},
		})
		if !errors.Is(err, host.ErrOtherJob) || res != nil || f.execs.Load() != 1 {
			t.Errorf("%s: %v, %v", name, res, err)
		}
	}
}

// TestFixesMakeAnotherJob checks that a fix of the engine that affects a module
// changes the job: nothing from before the fix is reused or redriven.
func TestFixesMakeAnotherJob(t *testing.T) {
	f, s := squares(), store.NewMemory()
	config := host.Config{Store: s, Journal: s}
	job := func() *host.Job { return &host.Job{Chunks: chunksOf(t, number(1))} }
	res, err := runFake(t, f, config, job())
	must(t, res, err)
	id := recorded(t, s).Record.ID
	f.description = &runtime.Description{EngineFixes: 1}
	old := job()
	old.Redrive = &host.Redrive{Job: id, Only: idsOf(0)}
	if _, err := runFake(t, f, config, old); !errors.Is(err, host.ErrOtherJob) || !strings.Contains(err.Error(), "compiled its module wrongly then: run it as a new job") {
		t.Errorf("redriven: %v", err)
	}
	res, err = runFake(t, f, config, job())
	if got := must(t, res, err); got.Report.Chunks.Reused != 0 || f.execs.Load() != 2 || got.Engine().Fixes != 1 {
		t.Errorf("%+v, %d execs, engine %+v", got.Report.Chunks, f.execs.Load(), got.Engine())
	}
	res, err = runFake(t, f, config, job())
	if got := must(t, res, err); got.Report.Chunks.Reused != 1 || f.execs.Load() != 2 {
		t.Errorf("%+v, %d execs", got.Report.Chunks, f.execs.Load())
	}
}

// The state of a job, and later its failure, can be read while it runs.
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
		_, err := runFake(t, f, host.Config{Workers: 1, Store: s, Journal: s}, &host.Job{Chunks: chunksOf(t, numbers(4)...)})
		done <- err
	}()
	<-running
	for { // until the first heartbeat
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
	if j := recorded(t, s); j.State() != journal.Running {
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

// brokenJobs is a journal whose notes fail.
type brokenJobs struct{ store.Journal }

func (brokenJobs) Note(context.Context, store.RunKey, []byte, []store.Attempt) error { return errDisk }

// If a store cannot note failed attempts, it has failed.
func TestNoteFails(t *testing.T) {
	s := store.NewMemory()
	f := squares()
	f.exec = func([]byte, int) ([]byte, error) { return nil, abi.Failf(abi.ClassGuest, "no") }
	_, err := runFake(t, f, host.Config{Store: s, Journal: brokenJobs{s}}, &host.Job{Chunks: chunksOf(t, numbers(3)...)})
	if _, ok := errors.AsType[*host.StoreError](err); !ok || !errors.Is(err, errDisk) {
		t.Errorf("error %v", err)
	}
}

// forgetfulJobs has lost its records, like a store that set its damaged file
// aside.
type forgetfulJobs struct{ store.Journal }

func (forgetfulJobs) Extents(context.Context, store.JobID) iter.Seq2[store.Extent, error] {
	return func(yield func(store.Extent, error) bool) { yield(store.Extent{}, store.ErrNoJob) }
}

// TestRecordIsLost loses the job's record after the run has begun and before it
// looks for outputs. The outputs are reused anyway.
func TestRecordIsLost(t *testing.T) {
	s := store.NewMemory()
	job := &host.Job{Chunks: chunksOf(t, numbers(10)...)}
	res, err := runFake(t, squares(), host.Config{Store: s, Journal: s}, job)
	must(t, res, err)
	job.Chunks = chunksOf(t, numbers(20)...)
	res, err = runFake(t, squares(), host.Config{Store: s, Journal: forgetfulJobs{s}}, job)
	if r := must(t, res, err).Report; r.Chunks.Reused != 10 || r.Chunks.Succeeded != 20 {
		t.Errorf("%+v", r.Chunks)
	}
}

// TestRefusedByTheEngine refuses a module after the record of its job was
// started. The record then has the end of the run and its error.
func TestRefusedByTheEngine(t *testing.T) {
	s := store.NewMemory()
	f := squares()
	f.refusal = &runtime.RefusedError{Problems: []string{"no"}}
	res, err := runFake(t, f, host.Config{Store: s, Journal: s}, &host.Job{Chunks: chunksOf(t, number(0))})
	if _, ok := errors.AsType[*runtime.RefusedError](err); !ok || res != nil {
		t.Fatalf("result %v, error %v", res, err)
	}
	if state := recorded(t, s).State(); state != journal.Errored {
		t.Errorf("the job is %s", state)
	}
}
