package sqlite

import (
	"errors"
	"sync"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
)

var (
	jobA = store.JobRecord{ID: store.JobID{1}, Action: store.Action{1}, Derived: []store.Action{{9}}, Total: 1 << 20, Spec: []byte(`{}`)}
	jobB = store.JobRecord{ID: store.JobID{2}, Action: store.Action{1}, Derived: []store.Action{{9}}, Total: 1 << 20, Spec: []byte(`{}`)}
)

func begin(t testing.TB, s *Store, job store.JobRecord) store.RunKey {
	t.Helper()
	run, err := s.Begin(t.Context(), job, func(func([]byte) bool) {}, []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	return run
}

// finish stores the outputs of the ids from..to-1 in one span.
func finish(t testing.TB, s *Store, run store.RunKey, from, to int) {
	t.Helper()
	all := records(from, to)
	span := store.Span{First: from, Chunks: make([]store.Digest, 0, len(all)), Detail: []byte(`{}`)}
	for i := range all {
		span.Chunks = append(span.Chunks, all[i].Chunk)
	}
	if err := s.Finish(t.Context(), run, store.Action{1}, all, span); err != nil {
		t.Fatal(err)
	}
}

// count returns how many of the records are found.
func count(t testing.TB, s *Store, action store.Action, all []store.Record) (n int) {
	t.Helper()
	var keys []store.Key
	for _, r := range all {
		keys = append(keys, r.Key)
	}
	if err := s.Get(t.Context(), action, keys, func(int, store.Value) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// rowsOf counts the rows of a table.
func rowsOf(t testing.TB, s *Store, table string) (n int64) {
	t.Helper()
	err := s.do(t.Context(), "read", func(db *database) error {
		return db.read(t.Context(), func(c *conn) error {
			_, err := c.ints("select count(*) from "+table, []*int64{&n})
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestDeleteInGroup puts into an action in the commit that deletes it.
func TestDeleteInGroup(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	before, after := newPut(store.Action{1}, records(0, 10)), newPut(store.Action{1}, records(10, 20))
	forget := &request{record: func(tx *transaction, _ *request) error { return tx.forget([]store.Action{{1}}) }}
	if _, err := s.db.write([]*request{before, forget, after}); err != nil {
		t.Fatal(err)
	}
	if n := count(t, s, store.Action{1}, records(0, 10)); n != 0 {
		t.Errorf("%d outputs are there that were deleted", n)
	}
	if n := count(t, s, store.Action{1}, records(10, 20)); n != 10 {
		t.Errorf("%d of 10 outputs are there that were put after the deletion", n)
	}
}

// TestDeleteUnderReader reads an action in a snapshot from before it was deleted and
// created again, while a commit relies on the index of the new one.
func TestDeleteUnderReader(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	finish(t, s, begin(t, s, jobA), 0, 100)
	err := s.db.read(t.Context(), func(c *conn) error {
		old, ok, err := c.locate(store.Action{1})
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		if err := s.Delete(t.Context(), jobA.ID); err != nil {
			t.Fatal(err)
		}
		run := begin(t, s, jobA)
		finish(t, s, run, 200, 250)
		finish(t, s, run, 250, 300)
		// Known chunks under other orders, in a batch with a number of its own.
		again := records(200, 300)
		for i := range again {
			again[i].Order = append([]byte{0}, again[i].Order...)
		}
		put := newPut(store.Action{1}, append(again, records(300, 310)...))
		put.record = func(tx *transaction, r *request) error {
			w, err := tx.pendingOf(r.action)
			if err != nil {
				return err
			}
			if view := w.view.index.look(c, old); view.current {
				t.Error("a view is complete before it looked")
			} else if _, err := view.catchUp(1); err != nil {
				return err
			}
			return tx.put(w, r)
		}
		return s.submit(t.Context(), put)
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := rowsOf(t, s, "outputs"); n != 110 {
		t.Errorf("%d outputs, want 110", n)
	}
}

// TestDeleteWhileOthersWork deletes a job over and over while it is begun,
// finished and read by two stores on one directory.
func TestDeleteWhileOthersWork(t *testing.T) {
	dir := t.TempDir()
	stores := []*Store{open(t, dir, Options{}), open(t, dir, Options{})}
	var group sync.WaitGroup
	for i, s := range stores {
		group.Go(func() {
			for range 20 {
				run, err := s.Begin(t.Context(), jobA, func(func([]byte) bool) {}, []byte(`{}`))
				if err != nil {
					t.Error(err)
				}
				all := records(100*i, 100*i+200)
				if err := s.Finish(t.Context(), run, store.Action{1}, all, store.Span{First: 100 * i}); err != nil && !errors.Is(err, store.ErrNoJob) {
					t.Error(err)
				}
			}
		})
		group.Go(func() {
			keys := make([]store.Key, 0, 300)
			for _, r := range records(0, 300) {
				r.Order = append([]byte{0}, r.Order...)
				keys = append(keys, r.Key)
			}
			for range 20 {
				if err := s.Get(t.Context(), store.Action{1}, keys, func(int, store.Value) error { return nil }); err != nil {
					t.Error(err)
				}
			}
		})
		group.Go(func() {
			for range 10 {
				if err := s.Delete(t.Context(), jobA.ID); err != nil && !errors.Is(err, store.ErrNoJob) {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	// Outputs that are put now are stored once, in both stores.
	for _, s := range stores {
		if err := s.Put(t.Context(), store.Action{1}, records(0, 300)); err != nil {
			t.Fatal(err)
		}
		if n := count(t, s, store.Action{1}, records(0, 300)); n != 300 {
			t.Errorf("%d of 300 outputs", n)
		}
	}
	n := 0
	for _, err := range stores[0].All(t.Context(), store.Action{1}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 300 {
		t.Errorf("%d records of 300 chunks", n)
	}
}

// TestDeleteThenShared makes another job share an output after its only job was
// deleted and before the output is deleted.
func TestDeleteThenShared(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	finish(t, s, begin(t, s, jobA), 0, 10)
	other := begin(t, s, jobB)
	finish(t, s, other, 5, 10)
	if err := s.submit(t.Context(), &request{action: store.Action{1}, merge: true}); err != nil {
		t.Fatal(err)
	}
	if err := s.record(t.Context(), func(tx *transaction) error { return tx.conn.exec("delete from jobs where digest=?", jobA.ID[:]) }); err != nil {
		t.Fatal(err)
	}
	var own []store.Digest
	for _, r := range records(0, 5) {
		own = append(own, r.Chunk)
	}
	finish(t, s, other, 0, 2)
	if err := s.remove(t.Context(), store.Action{1}, own); err != nil {
		t.Fatal(err)
	}
	if n := count(t, s, store.Action{1}, records(0, 10)); n != 7 {
		t.Errorf("%d outputs, want 7: the other job shares two of the deleted ones", n)
	}
}

// TestDeleteBigJob deletes more rows than one transaction takes.
func TestDeleteBigJob(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	const n = 5 * deleteAtOnce / 2
	run := begin(t, s, jobA)
	for i := 0; i < n; i += 1000 {
		finish(t, s, run, i, i+1000)
	}
	finish(t, s, begin(t, s, store.JobRecord{ID: store.JobID{3}, Action: store.Action{3}, Spec: []byte(`{}`)}), n, n+10)
	before := s.Stats().Commits
	if err := s.Delete(t.Context(), jobA.ID); err != nil {
		t.Fatal(err)
	}
	if commits := s.Stats().Commits - before; commits < 4 {
		t.Errorf("deleted in %d commits", commits)
	}
	for _, table := range []string{"outputs", "batches", "batch_pages", "job_ids", "attempts"} {
		if left := rowsOf(t, s, table); left != 0 {
			t.Errorf("%d rows of %s are left", left, table)
		}
	}
	if jobs, spans := rowsOf(t, s, "jobs"), rowsOf(t, s, "spans"); jobs != 1 || spans != 1 {
		t.Errorf("of the other job, %d and %d spans are left", jobs, spans)
	}
}

func TestOrphans(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	finish(t, s, begin(t, s, jobA), 0, 10)
	for _, action := range []store.Action{{9}, {7}} { // derived, and nobody's
		if err := s.Put(t.Context(), action, records(0, 10)); err != nil {
			t.Fatal(err)
		}
	}
	orphans, err := s.Orphans(t.Context())
	if err != nil || len(orphans) != 1 || orphans[0] != (store.Action{7}) {
		t.Fatalf("orphans %x, %v", orphans, err)
	}
	if n, err := s.DeleteOrphans(t.Context()); err != nil || n != 1 {
		t.Errorf("%d deleted, %v", n, err)
	}
	if n, err := s.DeleteOrphans(t.Context()); err != nil || n != 0 {
		t.Errorf("%d deleted again, %v", n, err)
	}
	for action, want := range map[store.Action]int{{1}: 10, {9}: 10, {7}: 0} {
		if n := count(t, s, action, records(0, 10)); n != want {
			t.Errorf("%d outputs of action %x, want %d", n, action[:1], want)
		}
	}
	if rows := rowsOf(t, s, "outputs"); rows != 20 {
		t.Errorf("%d rows", rows)
	}
}
