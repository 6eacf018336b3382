package journal

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// lateMemory is a store in memory that counts what would be commits.
type lateMemory struct {
	*store.Memory
	commits atomic.Int64
	fails   error // of BeginLate
}

func (m *lateMemory) BeginLate(ctx context.Context, s *store.RunStart) (store.RunKey, error) {
	if m.fails != nil {
		return store.RunKey{}, m.fails
	}
	m.commits.Add(1)
	key, err := m.Memory.Begin(ctx, s.Job, s.IDs, s.Info)
	var conflicts []error
	for _, f := range s.Finished {
		conflicts = append(conflicts, m.Memory.Finish(ctx, key, f.Action, f.Records, f.Span))
	}
	err = errors.Join(append(conflicts, err, m.Memory.Note(ctx, key, s.Active, s.Failed))...)
	if err == nil && s.Report != nil {
		err = m.Memory.End(ctx, key, s.Report)
	}
	return key, err
}

func (m *lateMemory) Finish(ctx context.Context, run store.RunKey, a store.Action, records []store.Record, s store.Span) error {
	m.commits.Add(1)
	return m.Memory.Finish(ctx, run, a, records, s)
}

func (m *lateMemory) Note(ctx context.Context, run store.RunKey, active []byte, failed []store.Attempt) error {
	m.commits.Add(1)
	return m.Memory.Note(ctx, run, active, failed)
}

func (m *lateMemory) End(ctx context.Context, run store.RunKey, report []byte) error {
	m.commits.Add(1)
	return m.Memory.End(ctx, run, report)
}

var (
	lateJob    = store.JobID{1}
	lateAction = store.Action{1}
)

func beginHeld(t *testing.T, m *lateMemory) *Recorder {
	t.Helper()
	r, err := Begin(t.Context(), m, store.JobRecord{ID: lateJob, Action: lateAction, Total: 9, Spec: []byte(`{}`)},
		func(func([]byte) bool) {}, Process{}, func() []Lease { return nil }, true)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// finishHeld finishes a chunk, with bytes that are used again afterwards.
func finishHeld(t *testing.T, r *Recorder, chunk byte, output string) {
	t.Helper()
	record := store.Record{Key: store.Key{Chunk: store.Digest{chunk}, Order: []byte{chunk}}, Value: store.Value{Output: []byte(output)}}
	span := store.Span{First: int(chunk), Chunks: []store.Digest{record.Chunk}, Detail: []byte("d")}
	if err := r.Finish(t.Context(), lateAction, []store.Record{record}, span); err != nil {
		t.Fatal(err)
	}
	clear(record.Order)
	clear(record.Output)
	clear(span.Chunks)
	clear(span.Detail)
}

// lateRuns returns the runs, and the outputs by their first byte.
func lateRuns(t *testing.T, m *lateMemory) (runs []store.Run, outputs map[byte]string) {
	t.Helper()
	runs, err := m.Runs(t.Context(), lateJob)
	if err != nil && !errors.Is(err, store.ErrNoJob) {
		t.Fatal(err)
	}
	outputs = map[byte]string{}
	for record, err := range m.All(t.Context(), lateAction) {
		if err != nil {
			t.Fatal(err)
		}
		outputs[record.Chunk[0]] = string(record.Output)
		if len(record.Order) > 0 && record.Order[0] != record.Chunk[0] {
			t.Errorf("chunk %d has order %d", record.Chunk[0], record.Order[0])
		}
	}
	return runs, outputs
}

func TestShortRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &lateMemory{Memory: store.NewMemory()}
		r := beginHeld(t, m)
		if runs, _ := lateRuns(t, m); len(runs) != 0 {
			t.Error("it is recorded already")
		}
		finishHeld(t, r, 1, "one")
		r.Observe([]event.Event{{Kind: event.KindFailed, Chunk: 2, Failure: &abi.Failure{Class: abi.ClassTrap}}})
		if !r.Keep(store.Action{2}, store.Record{Value: store.Value{Output: []byte("sum")}}) {
			t.Error("the aggregate is not held")
		}
		if err := r.End(t.Context(), []byte(`{"state":"x"}`)); err != nil {
			t.Fatal(err)
		}
		runs, outputs := lateRuns(t, m)
		if m.commits.Load() != 1 || len(runs) != 1 || string(runs[0].Report) != `{"state":"x"}` || outputs[1] != "one" {
			t.Errorf("%d commits, %+v, %q", m.commits.Load(), runs, outputs)
		}
		for a, err := range m.Attempts(t.Context(), lateJob, 0, 9) {
			if err != nil || a.Run != 1 || a.Chunk != 2 {
				t.Errorf("%+v, %v", a, err)
			}
		}
	})
}

func TestLongRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &lateMemory{Memory: store.NewMemory()}
		r := beginHeld(t, m)
		finishHeld(t, r, 1, "one")
		time.Sleep(firstSign + time.Millisecond)
		synctest.Wait()
		runs, outputs := lateRuns(t, m)
		if m.commits.Load() != 1 || len(runs) != 1 || !runs[0].Ended.IsZero() || outputs[1] != "one" {
			t.Errorf("%d commits, %+v, %q", m.commits.Load(), runs, outputs)
		}
		finishHeld(t, r, 2, "two")
		if _, outputs := lateRuns(t, m); outputs[2] != "two" {
			t.Error("what came later is not recorded at once")
		}
		if r.Keep(lateAction, store.Record{}) {
			t.Error("the aggregate is held, after all that goes into it was recorded")
		}
		if err := r.End(t.Context(), []byte(`{}`)); err != nil {
			t.Fatal(err)
		}
		if runs, _ := lateRuns(t, m); len(runs) != 1 || runs[0].Ended.IsZero() {
			t.Errorf("%+v", runs)
		}
	})
}

func TestHeldIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &lateMemory{Memory: store.NewMemory()}
		r := beginHeld(t, m)
		finishHeld(t, r, 1, strings.Repeat("x", maxHeld/2))
		if m.commits.Load() != 0 {
			t.Error("recorded before there is much")
		}
		finishHeld(t, r, 2, strings.Repeat("x", maxHeld/2))
		if m.commits.Load() != 1 {
			t.Error("much is held")
		}
		if err := r.End(t.Context(), []byte(`{}`)); err != nil {
			t.Fatal(err)
		}
	})
}

// TestHeldConflict ends a run one of whose outputs is there as another: the end is
// not recorded, and may be amended.
func TestHeldConflict(t *testing.T) {
	for _, flushed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m := &lateMemory{Memory: store.NewMemory()}
			first := beginHeld(t, m)
			finishHeld(t, first, 1, "one")
			if err := first.End(t.Context(), []byte(`{}`)); err != nil {
				t.Fatal(err)
			}
			r := beginHeld(t, m)
			finishHeld(t, r, 1, "another")
			finishHeld(t, r, 2, "two")
			var err error
			if flushed {
				err = r.Flush()
				if again := r.End(t.Context(), []byte(`{"state":"errored"}`)); again != nil {
					t.Errorf("the error comes again: %v", again)
				}
			} else {
				err = r.End(t.Context(), []byte(`{"state":"succeeded"}`))
				if runs, _ := lateRuns(t, m); len(runs) != 2 || runs[1].Report != nil {
					t.Errorf("%+v", runs)
				}
				if amended := r.Amend(t.Context(), []byte(`{"state":"errored"}`)); amended != nil {
					t.Error(amended)
				}
			}
			if c, ok := errors.AsType[*store.ConflictError](err); !ok || c.Chunk != (store.Digest{1}) {
				t.Errorf("error %v", err)
			}
			runs, outputs := lateRuns(t, m)
			if string(runs[1].Report) != `{"state":"errored"}` || outputs[1] != "one" || outputs[2] != "two" {
				t.Errorf("%+v, %q", runs, outputs)
			}
		})
	}
}

// TestHeldFails cannot record the run after 100 ms: the job is told, once.
func TestHeldFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &lateMemory{Memory: store.NewMemory(), fails: syscall.ENOSPC}
		r := beginHeld(t, m)
		finishHeld(t, r, 1, "one")
		if err := <-r.Broken(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("error %v", err)
		}
		if err := r.End(t.Context(), []byte(`{}`)); err != nil {
			t.Errorf("the error comes again: %v", err)
		}
		if runs, _ := lateRuns(t, m); len(runs) != 0 {
			t.Errorf("%+v", runs)
		}
	})
}
