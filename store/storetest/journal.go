package storetest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/store"
)

var (
	jobID   = store.JobID{7, 1}
	otherID = store.JobID{7, 2}
	derived = store.Action{3}
	input   = store.Digest{9}
)

// Recording is a store and the journal that belongs to it.
type Recording interface {
	store.Store
	store.Journal
}

// RunJobs tests a store against the contract of [store.Journal]. open returns an
// empty store each time it is called; the suite closes it.
func RunJobs(t *testing.T, open func(t *testing.T) Recording) {
	each(t, open, []test[Recording]{
		{"an empty store has no job", noJob},
		{"a job is recorded as it was submitted", submitted},
		{"the same job again is another run", runAgain},
		{"ids come back in pieces", idPieces},
		{"finish keeps outputs and notes the span", finish},
		{"a conflict notes no span", conflictNotesNothing},
		{"spans come in order, and only those requested", spans},
		{"attempts come by chunk", attempts},
		{"a run is seen alive, and ends", lifeAndEnd},
		{"the job with the latest run comes first", latestFirst},
		{"a deleted job is gone with its outputs", deleted},
		{"a deleted job leaves the outputs of others", deletedShared},
		{"calls after the deletion change nothing", afterDeletion},
		{"a run of a deleted job does not touch the job submitted again", afterRebirth},
		{"the same span again is noted once", spanAgain},
		{"racing runs have different numbers", racingRuns},
		{"racing spans are all noted", racingSpans},
		{"a run can be recorded late, in one commit", late},
		{"a cancelled context ends every call", cancelledJobs},
		{"after Close every call gives ErrClosed", closedJobs},
	})
}

func jobOf(id store.JobID) store.JobRecord {
	return store.JobRecord{
		ID: id, Action: action, Derived: []store.Action{derived}, Input: input, Total: 10_000, Spec: []byte(`{"name":"x"}`),
	}
}

// nothing yields no pieces: the ids of a job without chunks.
func nothing(func([]byte) bool) {}

func begin(t *testing.T, s Recording, id store.JobID) store.RunKey {
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
func every(ctx context.Context, s Recording, id store.JobID) map[string]error {
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

func noJob(t *testing.T, s Recording) {
	for name, err := range every(t.Context(), s, jobID) {
		switch name {
		case "Note", "End", "List":
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		default:
			if !errors.Is(err, store.ErrNoJob) {
				t.Errorf("%s of an unknown job: got %v, want ErrNoJob", name, err)
			}
		}
	}
	if jobs := collect(t, s.List(t.Context(), "")); len(jobs) > 0 {
		t.Errorf("jobs %v", jobs)
	}
	want(t, get(t, s, action, "z"), "-")
}

func submitted(t *testing.T, s Recording) {
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

func runAgain(t *testing.T, s Recording) {
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

func idPieces(t *testing.T, s Recording) {
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

func finish(t *testing.T, s Recording) {
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
		t.Errorf("seen at %v, and before at %v", after[0].Seen, before[0].Seen)
	}
	// A span whose outputs are stored already.
	if err := s.Finish(t.Context(), run, action, nil, store.Span{First: 5, Chunks: []store.Digest{{1}}}); err != nil {
		t.Fatal(err)
	}
	if got := collect(t, s.Extents(t.Context(), jobID)); !slices.Equal(got, []store.Extent{{Run: 1, First: 3, Count: 2}, {Run: 1, First: 5, Count: 1}}) {
		t.Errorf("%+v", got)
	}
}

func conflictNotesNothing(t *testing.T, s Recording) {
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

// aSpan returns a span of count chunks from first on.
func aSpan(first, count int) store.Span {
	return store.Span{First: first, Chunks: make([]store.Digest, count), Detail: fmt.Append(nil, first)}
}

func spans(t *testing.T, s Recording) {
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

func attempts(t *testing.T, s Recording) {
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

func lifeAndEnd(t *testing.T, s Recording) {
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

func latestFirst(t *testing.T, s Recording) {
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

// finished begins a run of a job and finishes a span with the named outputs.
func finished(t *testing.T, s Recording, id store.JobID, names ...string) {
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

func deleted(t *testing.T, s Recording) {
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
	// The job can be submitted again, and has no outputs then.
	if run := begin(t, s, jobID); run.Number != 1 || len(collect(t, s.Extents(t.Context(), jobID))) > 0 {
		t.Errorf("run %d", run.Number)
	}
	put(t, s, action, record("a", "2"))
	want(t, get(t, s, action, "a"), "2")
}

func deletedShared(t *testing.T, s Recording) {
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

func afterDeletion(t *testing.T, s Recording) {
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

// afterRebirth continues a run after its job was deleted and submitted again.
func afterRebirth(t *testing.T, s Recording) {
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

func spanAgain(t *testing.T, s Recording) {
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

func racingRuns(t *testing.T, s Recording) {
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

func racingSpans(t *testing.T, s Recording) {
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

func cancelledJobs(t *testing.T, s Recording) {
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

func closedJobs(t *testing.T, s Recording) {
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

// startOf is how a run of a job began, with ten outputs, one that is made of them, and
// a failed attempt.
func startOf(id byte) *store.RunStart {
	var all []store.Record
	span := store.Span{First: 0, Detail: []byte("detail")}
	for i := range 10 {
		all = append(all, record(string(rune('a'+i)), "1"))
		span.Chunks = append(span.Chunks, all[i].Chunk)
	}
	sum := store.Record{Key: store.Key{Chunk: store.Digest{7}}, Value: store.Value{Output: []byte("sum")}}
	return &store.RunStart{
		Job: jobOf(store.JobID{id}), IDs: nothing, Info: []byte(`{}`), Started: time.UnixMicro(1_700_000_000_000_000),
		Finished: []store.Finished{{Action: action, Records: all, Span: span}, {Action: store.Action{9}, Records: []store.Record{sum}}},
		Failed:   []store.Attempt{{Chunk: 3, Class: "trap", Detail: []byte(`{}`)}},
	}
}

// late records two runs with all that happened in them at once.
func late(t *testing.T, s Recording) {
	j, ok := s.(store.LateJournal)
	if !ok {
		t.Skip("the store is not a store.LateJournal")
	}
	going, ended := startOf(1), startOf(1)
	going.Active, ended.Report = []byte(`[1]`), []byte(`{"state":"succeeded"}`)
	for i, start := range []*store.RunStart{going, ended} {
		key, err := j.BeginLate(t.Context(), start)
		if err != nil || key != (store.RunKey{Job: store.JobID{1}, Number: i + 1}) {
			t.Fatalf("%+v, %v", key, err)
		}
	}
	runs, err := s.Runs(t.Context(), store.JobID{1})
	if err != nil || len(runs) != 2 || string(runs[0].Active) != `[1]` || !runs[0].Ended.IsZero() || runs[1].Ended.IsZero() ||
		string(runs[1].Report) != `{"state":"succeeded"}` || !runs[0].Started.Equal(going.Started) {
		t.Errorf("%+v, %v", runs, err)
	}
	extents := collect(t, s.Extents(t.Context(), store.JobID{1}))
	if len(extents) != 2 || extents[0] != (store.Extent{Run: 1, First: 0, Count: 10}) {
		t.Errorf("%+v: a span without chunks must not be recorded", extents)
	}
	if attempts := collect(t, s.Attempts(t.Context(), store.JobID{1}, 0, 10)); len(attempts) != 2 || attempts[1].Run != 2 {
		t.Errorf("%+v", attempts)
	}
	for a, n := range map[store.Action]int{action: 10, {9}: 1} {
		if got := len(collect(t, s.All(t.Context(), a))); got != n {
			t.Errorf("%d outputs of %x, want %d", got, a[0], n)
		}
	}
	lateConflict(t, j, s, ended)
}

// lateConflict records a run with an output that conflicts: everything else is kept,
// and the run has not ended.
func lateConflict(t *testing.T, j store.LateJournal, s Recording, start *store.RunStart) {
	other := store.Record{Key: store.Key{Chunk: store.Digest{8}, Order: []byte("x")}, Value: store.Value{Output: []byte("new")}}
	start.Job = jobOf(store.JobID{2})
	wrong := slices.Clone(start.Finished[0].Records)
	wrong[4].Output = []byte("another")
	start.Finished = []store.Finished{
		{Action: action, Records: wrong, Span: start.Finished[0].Span},
		{Action: action, Records: []store.Record{other}, Span: store.Span{First: 11, Chunks: []store.Digest{other.Chunk}}},
	}
	key, err := j.BeginLate(t.Context(), start)
	if c, ok := errors.AsType[*store.ConflictError](err); !ok || c.Chunk != wrong[4].Chunk || key.Number != 1 {
		t.Fatalf("%+v, %v", key, err)
	}
	if extents := collect(t, s.Extents(t.Context(), key.Job)); len(extents) != 1 || extents[0].First != 11 {
		t.Errorf("%+v", extents)
	}
	if runs, err := s.Runs(t.Context(), key.Job); err != nil || len(runs) != 1 || !runs[0].Ended.IsZero() || runs[0].Report != nil {
		t.Errorf("%+v, %v", runs, err)
	}
}
