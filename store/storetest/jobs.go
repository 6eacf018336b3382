package storetest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
)

var (
	jobID   = store.JobID{7, 1}
	otherID = store.JobID{7, 2}
	derived = store.Action{3}
	input   = store.Digest{9}
)

// RunJobs holds a store to the contract of [store.Jobs]. open returns an empty
// store each time it is called; the suite closes it.
func RunJobs(t *testing.T, open func(t *testing.T) store.Jobs) {
	each(t, open, []test[store.Jobs]{
		{"an empty store has no job", noJob},
		{"a job is recorded as it was submitted", submitted},
		{"the same job again is another run", runAgain},
		{"ids come back in pieces", idPieces},
		{"finish keeps outputs and notes the span", finish},
		{"a conflict notes no span", conflictNotesNothing},
		{"spans come in order, and those that are asked for", spans},
		{"attempts come by chunk", attempts},
		{"a run has signs of life and an end", lifeAndEnd},
		{"the job with the latest run comes first", latestFirst},
		{"a deleted job is gone with its outputs", deleted},
		{"a deleted job leaves the outputs of others", deletedShared},
		{"what comes after the deletion harms nothing", afterDeletion},
		{"a run of a deleted job is none of the job that came again", afterRebirth},
		{"the same span again is noted once", spanAgain},
		{"racing runs have numbers of their own", racingRuns},
		{"racing spans are all noted", racingSpans},
		{"a cancelled context is obeyed", cancelledJobs},
		{"after close every call says so", closedJobs},
	})
}

func jobOf(id store.JobID) store.Job {
	return store.Job{
		ID: id, Action: action, Derived: []store.Action{derived}, Input: input, Total: 10_000, Spec: []byte(`{"name":"x"}`),
	}
}

// nothing is the ids of a job without chunks.
func nothing(func([]byte) bool) {}

func begin(t *testing.T, s store.Jobs, id store.JobID) store.RunKey {
	t.Helper()
	key, err := s.Begin(t.Context(), jobOf(id), nothing, []byte(`{}`))
	if err != nil {
		t.Fatalf("begin: %v", err)
	}
	return key
}

// collect returns all that a sequence yields.
func collect[T any](t *testing.T, seq iter.Seq2[T, error]) (all []T) {
	t.Helper()
	for item, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, item)
	}
	return all
}

func firstError[T any](seq iter.Seq2[T, error]) error {
	for _, err := range seq {
		if err != nil {
			return err
		}
	}
	return nil
}

// every calls all methods for a job and returns their errors by name.
func every(ctx context.Context, s store.Jobs, id store.JobID) map[string]error {
	run := store.RunKey{Job: id, Number: 1}
	errs := map[string]error{
		"Finish": s.Finish(ctx, run, action, []store.Record{record("z", "1")}, store.Span{}),
		"Note":   s.Note(ctx, run, []byte("[]"), nil), "End": s.End(ctx, run, []byte("{}")),
		"List": firstError(s.List(ctx, "")), "IDs": firstError(s.IDs(ctx, id)), "Extents": firstError(s.Extents(ctx, id)),
		"Spans": firstError(s.Spans(ctx, id, 0, 1)), "Attempts": firstError(s.Attempts(ctx, id, 0, 1)), "Delete": s.Delete(ctx, id),
	}
	_, errs["Runs"] = s.Runs(ctx, id)
	return errs
}

func noJob(t *testing.T, s store.Jobs) {
	for name, err := range every(t.Context(), s, jobID) {
		switch name {
		case "Note", "End", "List":
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		default:
			if !errors.Is(err, store.ErrNoJob) {
				t.Errorf("%s of an unknown job gave %v", name, err)
			}
		}
	}
	if jobs := collect(t, s.List(t.Context(), "")); len(jobs) > 0 {
		t.Errorf("jobs %v", jobs)
	}
	want(t, get(t, s, action, "z"), "-")
}

func submitted(t *testing.T, s store.Jobs) {
	key, err := s.Begin(t.Context(), jobOf(jobID), nothing, []byte(`{"pid":1}`))
	if err != nil || key != (store.RunKey{Job: jobID, Number: 1}) {
		t.Fatalf("%+v, %v", key, err)
	}
	jobs := collect(t, s.List(t.Context(), ""))
	if len(jobs) != 1 || jobs[0].Created.IsZero() {
		t.Fatalf("%+v", jobs)
	}
	got := jobs[0]
	if got.ID != jobID || got.Action != action || !slices.Equal(got.Derived, []store.Action{derived}) || got.Input != input ||
		got.Total != 10_000 || string(got.Spec) != `{"name":"x"}` {
		t.Errorf("%+v", got)
	}
	runs, err := s.Runs(t.Context(), jobID)
	if err != nil || len(runs) != 1 || runs[0].RunKey != key || runs[0].Started.IsZero() || runs[0].Seen.Before(runs[0].Started) ||
		!runs[0].Ended.IsZero() || string(runs[0].Info) != `{"pid":1}` || len(runs[0].Report) > 0 {
		t.Errorf("%+v, %v", runs, err)
	}
}

func runAgain(t *testing.T, s store.Jobs) {
	begin(t, s, jobID)
	created := collect(t, s.List(t.Context(), ""))[0].Created
	again := jobOf(jobID)
	again.Spec = []byte(`{"name":"y"}`)
	key, err := s.Begin(t.Context(), again, func(func([]byte) bool) { t.Error("ids are asked for again") }, []byte(`{}`))
	if err != nil || key.Number != 2 {
		t.Errorf("%+v, %v", key, err)
	}
	jobs := collect(t, s.List(t.Context(), ""))
	if len(jobs) != 1 || string(jobs[0].Spec) != `{"name":"y"}` || !jobs[0].Created.Equal(created) {
		t.Errorf("%+v", jobs)
	}
}

func idPieces(t *testing.T, s store.Jobs) {
	pieces := []string{"first", "second", "third"}
	scratch := make([]byte, 0, 100)
	_, err := s.Begin(t.Context(), jobOf(jobID), func(yield func([]byte) bool) {
		for _, piece := range pieces {
			if scratch = append(scratch[:0], piece...); !yield(scratch) {
				return
			}
		}
	}, []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for piece, err := range s.IDs(t.Context(), jobID) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(piece))
	}
	if !slices.Equal(got, pieces) {
		t.Errorf("%q", got)
	}
}

func finish(t *testing.T, s store.Jobs) {
	run := begin(t, s, jobID)
	before, _ := s.Runs(t.Context(), jobID)
	span := store.Span{First: 3, Chunks: []store.Digest{key("a").Chunk, key("b").Chunk}, Detail: []byte("detail")}
	if err := s.Finish(t.Context(), run, action, []store.Record{record("a", "1"), record("b", "2")}, span); err != nil {
		t.Fatal(err)
	}
	want(t, get(t, s, action, "a", "b"), "1", "2")
	got := collect(t, s.Spans(t.Context(), jobID, 0, 10))
	if len(got) != 1 || got[0].Run != 1 || got[0].First != 3 || !slices.Equal(got[0].Chunks, span.Chunks) || string(got[0].Detail) != "detail" {
		t.Errorf("%+v", got)
	}
	if after, _ := s.Runs(t.Context(), jobID); after[0].Seen.Before(before[0].Seen) {
		t.Errorf("seen %v, and before %v", after[0].Seen, before[0].Seen)
	}
	// A span of outputs that were there.
	if err := s.Finish(t.Context(), run, action, nil, store.Span{First: 5, Chunks: []store.Digest{{1}}}); err != nil {
		t.Fatal(err)
	}
	if got := collect(t, s.Extents(t.Context(), jobID)); !slices.Equal(got, []store.Extent{{Run: 1, First: 3, Count: 2}, {Run: 1, First: 5, Count: 1}}) {
		t.Errorf("%+v", got)
	}
}

func conflictNotesNothing(t *testing.T, s store.Jobs) {
	run := begin(t, s, jobID)
	put(t, s, action, record("a", "1"))
	span := store.Span{Chunks: []store.Digest{key("a").Chunk, key("b").Chunk}}
	err := s.Finish(t.Context(), run, action, []store.Record{record("a", "2"), record("b", "2")}, span)
	if _, ok := errors.AsType[*store.ConflictError](err); !ok {
		t.Errorf("error %v", err)
	}
	if got := collect(t, s.Extents(t.Context(), jobID)); len(got) > 0 {
		t.Errorf("%+v", got)
	}
	want(t, get(t, s, action, "a"), "1")
}

// aSpan returns a span of count chunks.
func aSpan(first, count int) store.Span {
	return store.Span{First: first, Chunks: make([]store.Digest, count), Detail: fmt.Append(nil, first)}
}

func spans(t *testing.T, s store.Jobs) {
	run := begin(t, s, jobID)
	second := begin(t, s, jobID)
	var all []store.Extent
	for i := range 150 {
		first := 20 * ((i * 37) % 150)
		if err := s.Finish(t.Context(), run, action, nil, aSpan(first, 10)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Finish(t.Context(), second, action, nil, aSpan(40, 30)); err != nil {
		t.Fatal(err)
	}
	for i := range 150 {
		all = append(all, store.Extent{Run: 1, First: 20 * i, Count: 10})
	}
	all = slices.Insert(all, 3, store.Extent{Run: 2, First: 40, Count: 30})
	if got := collect(t, s.Extents(t.Context(), jobID)); !slices.Equal(got, all) {
		t.Errorf("extents %v", got)
	}
	for _, within := range [][2]int{{0, 10_000}, {0, 1}, {10, 20}, {65, 66}, {49, 61}, {2980, 2990}, {5000, 6000}} {
		var wanted, got []store.Extent
		for _, e := range all {
			if e.First < within[1] && e.First+e.Count > within[0] {
				wanted = append(wanted, e)
			}
		}
		for _, span := range collect(t, s.Spans(t.Context(), jobID, within[0], within[1])) {
			if string(span.Detail) != fmt.Sprint(span.First) {
				t.Errorf("span %d has the detail %s", span.First, span.Detail)
			}
			got = append(got, store.Extent{Run: span.Run, First: span.First, Count: len(span.Chunks)})
		}
		if !slices.Equal(got, wanted) {
			t.Errorf("within %v: %v, want %v", within, got, wanted)
		}
	}
}

func attempts(t *testing.T, s store.Jobs) {
	run := begin(t, s, jobID)
	for note := range 3 {
		var failed []store.Attempt
		for chunk := 999; chunk >= 0; chunk-- {
			failed = append(failed, store.Attempt{Chunk: chunk, Final: note == 2, Class: "trap", Detail: fmt.Append(nil, note)})
		}
		if err := s.Note(t.Context(), run, []byte("[]"), failed); err != nil {
			t.Fatal(err)
		}
	}
	for _, within := range [][2]int{{0, 10_000}, {0, 1}, {333, 777}, {999, 1000}} {
		n := 0
		for a, err := range s.Attempts(t.Context(), jobID, within[0], within[1]) {
			if err != nil {
				t.Fatal(err)
			}
			if a.Chunk != within[0]+n/3 || string(a.Detail) != fmt.Sprint(n%3) || a.Run != 1 || a.Final != (n%3 == 2) || a.Class != "trap" {
				t.Fatalf("attempt %d within %v: %+v", n, within, a)
			}
			n++
		}
		if n != 3*(min(within[1], 1000)-within[0]) {
			t.Errorf("%d attempts within %v", n, within)
		}
	}
}

func lifeAndEnd(t *testing.T, s store.Jobs) {
	run := begin(t, s, jobID)
	if err := s.Note(t.Context(), run, []byte(`[1]`), nil); err != nil {
		t.Fatal(err)
	}
	runs, err := s.Runs(t.Context(), jobID)
	if err != nil || string(runs[0].Active) != `[1]` || !runs[0].Ended.IsZero() {
		t.Errorf("%+v, %v", runs, err)
	}
	if err := s.End(t.Context(), run, []byte(`{"state":"succeeded"}`)); err != nil {
		t.Fatal(err)
	}
	runs, err = s.Runs(t.Context(), jobID)
	if err != nil || runs[0].Ended.IsZero() || runs[0].Ended.Before(runs[0].Started) || string(runs[0].Report) != `{"state":"succeeded"}` {
		t.Errorf("%+v, %v", runs, err)
	}
}

func latestFirst(t *testing.T, s store.Jobs) {
	begin(t, s, jobID)
	begin(t, s, otherID)
	begin(t, s, store.JobID{8})
	begin(t, s, jobID)
	for prefix, want := range map[string][]store.JobID{
		"": {jobID, {8}, otherID}, "07": {jobID, otherID}, "0701": {jobID}, "08": {{8}}, "1": nil,
	} {
		var got []store.JobID
		for _, j := range collect(t, s.List(t.Context(), prefix)) {
			got = append(got, j.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %x, want %x", prefix, got, want)
		}
	}
}

// finished notes a span with outputs of a job.
func finished(t *testing.T, s store.Jobs, id store.JobID, names ...string) {
	t.Helper()
	run := begin(t, s, id)
	var records []store.Record
	var span store.Span
	for _, name := range names {
		records = append(records, record(name, "1"))
		span.Chunks = append(span.Chunks, key(name).Chunk)
	}
	if err := s.Finish(t.Context(), run, action, records, span); err != nil {
		t.Fatal(err)
	}
}

func deleted(t *testing.T, s store.Jobs) {
	finished(t, s, jobID, "a", "b")
	put(t, s, derived, record("sum", "3"))
	put(t, s, other, record("a", "0"))
	if err := s.Delete(t.Context(), jobID); err != nil {
		t.Fatal(err)
	}
	want(t, get(t, s, action, "a", "b"), "-", "-")
	want(t, get(t, s, derived, "sum"), "-")
	want(t, get(t, s, other, "a"), "0")
	if err := s.Delete(t.Context(), jobID); !errors.Is(err, store.ErrNoJob) {
		t.Errorf("again: %v", err)
	}
	// It can come again, and has nothing.
	if run := begin(t, s, jobID); run.Number != 1 || len(collect(t, s.Extents(t.Context(), jobID))) > 0 {
		t.Errorf("run %d", run.Number)
	}
	put(t, s, action, record("a", "2"))
	want(t, get(t, s, action, "a"), "2")
}

func deletedShared(t *testing.T, s store.Jobs) {
	finished(t, s, jobID, "a", "b", "c")
	finished(t, s, otherID, "b", "d")
	sums := []store.Record{{Key: store.Key{Chunk: input, Order: []byte("i")}, Value: store.Value{Output: []byte("6")}}, record("sum", "3")}
	put(t, s, derived, sums...)
	if err := s.Delete(t.Context(), jobID); err != nil {
		t.Fatal(err)
	}
	want(t, get(t, s, action, "a", "b", "c", "d"), "-", "1", "-", "1")
	want(t, all(t, s, derived), "sum=3")
	put(t, s, action, record("a", "2"))
	want(t, get(t, s, action, "a", "b"), "2", "1")
}

func afterDeletion(t *testing.T, s store.Jobs) {
	run := begin(t, s, jobID)
	if err := s.Delete(t.Context(), jobID); err != nil {
		t.Fatal(err)
	}
	noJob(t, s)
	if err := s.Finish(t.Context(), run, action, []store.Record{record("a", "1")}, aSpan(0, 1)); !errors.Is(err, store.ErrNoJob) {
		t.Errorf("finish: %v", err)
	}
	want(t, get(t, s, action, "a"), "-")
}

// afterRebirth lets a run go on whose job was deleted and submitted again.
func afterRebirth(t *testing.T, s store.Jobs) {
	begin(t, s, jobID)
	old := begin(t, s, jobID)
	if err := s.Delete(t.Context(), jobID); err != nil {
		t.Fatal(err)
	}
	begin(t, s, jobID)
	if err := s.Finish(t.Context(), old, action, []store.Record{record("a", "1")}, aSpan(0, 1)); !errors.Is(err, store.ErrNoJob) {
		t.Errorf("finish: %v", err)
	}
	if err := s.Note(t.Context(), old, []byte(`[1]`), []store.Attempt{{Class: "trap", Detail: []byte("{}")}}); err != nil {
		t.Errorf("note: %v", err)
	}
	if err := s.End(t.Context(), old, []byte(`{}`)); err != nil {
		t.Errorf("end: %v", err)
	}
	want(t, get(t, s, action, "a"), "-")
	if n := len(collect(t, s.Attempts(t.Context(), jobID, 0, 10))); n > 0 {
		t.Errorf("%d attempts", n)
	}
	if runs, err := s.Runs(t.Context(), jobID); err != nil || len(runs) != 1 || !runs[0].Ended.IsZero() || len(runs[0].Active) > 0 {
		t.Errorf("%+v, %v", runs, err)
	}
}

func spanAgain(t *testing.T, s store.Jobs) {
	run := begin(t, s, jobID)
	for _, count := range []int{10, 10, 20} {
		if err := s.Finish(t.Context(), run, action, nil, aSpan(5, count)); err != nil {
			t.Fatal(err)
		}
	}
	if got := collect(t, s.Extents(t.Context(), jobID)); !slices.Equal(got, []store.Extent{{Run: 1, First: 5, Count: 20}}) {
		t.Errorf("%+v", got)
	}
	if got := collect(t, s.Spans(t.Context(), jobID, 0, 100)); len(got) != 1 || len(got[0].Chunks) != 20 {
		t.Errorf("%d spans", len(got))
	}
}

func racingRuns(t *testing.T, s store.Jobs) {
	var group sync.WaitGroup
	numbers := make([]int, 20)
	for i := range numbers {
		group.Go(func() {
			run, err := s.Begin(t.Context(), jobOf(jobID), nothing, []byte(`{}`))
			if err != nil {
				t.Error(err)
			}
			numbers[i] = run.Number
		})
	}
	group.Wait()
	slices.Sort(numbers)
	for i, n := range numbers {
		if n != i+1 {
			t.Fatalf("numbers %v", numbers)
		}
	}
}

func racingSpans(t *testing.T, s store.Jobs) {
	run := begin(t, s, jobID)
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			name := fmt.Sprint("chunk", i)
			span := store.Span{First: i, Chunks: []store.Digest{key(name).Chunk}}
			if err := s.Finish(t.Context(), run, action, []store.Record{record(name, "1")}, span); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for i, span := range collect(t, s.Spans(t.Context(), jobID, 0, 20)) {
		if span.First != i || span.Chunks[0] != key(fmt.Sprint("chunk", i)).Chunk {
			t.Errorf("span %d: %+v", i, span)
		}
	}
	if n := len(all(t, s, action)); n != 20 {
		t.Errorf("%d outputs", n)
	}
}

func cancelledJobs(t *testing.T, s store.Jobs) {
	begin(t, s, jobID)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	errs := every(ctx, s, jobID)
	_, errs["Begin"] = s.Begin(ctx, jobOf(jobID), nothing, []byte(`{}`))
	for name, err := range errs {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if runs, err := s.Runs(t.Context(), jobID); err != nil || len(runs) != 1 {
		t.Errorf("%d runs, %v", len(runs), err)
	}
}

func closedJobs(t *testing.T, s store.Jobs) {
	begin(t, s, jobID)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	errs := every(t.Context(), s, jobID)
	_, errs["Begin"] = s.Begin(t.Context(), jobOf(jobID), nothing, []byte(`{}`))
	for name, err := range errs {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
