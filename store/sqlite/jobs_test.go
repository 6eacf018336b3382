package sqlite

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
)

var (
	aJob   = store.Job{ID: store.JobID{1}, Action: store.Action{1}, Derived: []store.Action{{2}}, Total: 1 << 20, Spec: []byte(`{}`)}
	noIDs  = func(func([]byte) bool) {}
	aCause = errors.New("told to fail")
)

func beginJob(t *testing.T, s *Store, job store.Job) store.RunKey {
	t.Helper()
	run, err := s.Begin(t.Context(), job, noIDs, []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	return run
}

// finishAll keeps records from..to-1 as spans of a job.
func finishAll(t *testing.T, s *Store, run store.RunKey, from, to int) {
	t.Helper()
	for i := from; i < to; i += 1000 {
		all := records(i, min(i+1000, to))
		span := store.Span{First: i, Detail: []byte("detail")}
		for _, r := range all {
			span.Chunks = append(span.Chunks, r.Chunk)
		}
		if err := s.Finish(t.Context(), run, aJob.Action, all, span); err != nil {
			t.Fatal(err)
		}
	}
}

func countAll(t *testing.T, s *Store, action store.Action) (n int) {
	t.Helper()
	for _, err := range s.All(t.Context(), action) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

func extents(t *testing.T, s *Store, job store.JobID) (chunks int) {
	t.Helper()
	for e, err := range s.Extents(t.Context(), job) {
		if err != nil {
			t.Fatal(err)
		}
		chunks += e.Count
	}
	return chunks
}

// Two processes see each other's runs, and what was finished outlives both.
func TestJobsAreShared(t *testing.T) {
	dir := t.TempDir()
	one, two := open(t, dir, Options{}), open(t, dir, Options{})
	first, second := beginJob(t, one, aJob), beginJob(t, two, aJob)
	if first.Number != 1 || second.Number != 2 {
		t.Errorf("runs %d and %d", first.Number, second.Number)
	}
	finishAll(t, one, first, 0, 3000)
	finishAll(t, two, second, 2000, 5000)
	if a, b := extents(t, one, aJob.ID), extents(t, two, aJob.ID); a != 6000 || b != 6000 {
		t.Errorf("%d and %d chunks", a, b)
	}
	// As after kill -9: the files as they are now.
	other := t.TempDir()
	for _, name := range []string{FileName, FileName + "-wal"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(other, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	crashed := open(t, other, Options{Notice: func(line string) { t.Error(line) }})
	if n, m := countAll(t, crashed, aJob.Action), extents(t, crashed, aJob.ID); n != 5000 || m != 6000 {
		t.Errorf("%d outputs and spans over %d chunks", n, m)
	}
}

// A failing write fails the request alone, and notes nothing of it.
func TestFinishIsAtomic(t *testing.T) {
	fail := false
	s := open(t, t.TempDir(), Options{fault: func(op, _ string) error {
		if fail && (op == "write" || op == "sync") {
			return aCause
		}
		return nil
	}})
	run := beginJob(t, s, aJob)
	finishAll(t, s, run, 0, 1000)
	fail = true
	all := records(1000, 2000)
	span := store.Span{First: 1000, Chunks: []store.Digest{all[0].Chunk}}
	if err := s.Finish(t.Context(), run, aJob.Action, all, span); !errors.Is(err, aCause) {
		t.Errorf("error %v", err)
	}
	fail = false
	if n, m := countAll(t, s, aJob.Action), extents(t, s, aJob.ID); n != 1000 || m != 1000 {
		t.Errorf("%d outputs and spans over %d chunks", n, m)
	}
	finishAll(t, s, run, 1000, 2000)
	if n := countAll(t, s, aJob.Action); n != 2000 {
		t.Errorf("%d outputs", n)
	}
}

// The file of an older layout is set aside.
func TestOlderVersion(t *testing.T) {
	dir, all := sample(t, 10)
	path := filepath.Join(dir, FileName)
	s := open(t, dir, Options{})
	if err := s.db.writer.Exec("pragma user_version=65537"); err != nil { // 1<<16 | 1
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var notices []string
	s = open(t, dir, Options{Notice: func(line string) { notices = append(notices, line) }})
	if err := s.Put(t.Context(), store.Action{1}, all); err != nil {
		t.Fatal(err)
	}
	if len(notices) == 0 || !strings.Contains(notices[0], "layout of version 1, and this is 2") || !strings.Contains(notices[0], path) {
		t.Errorf("%q", notices)
	}
	files, err := AsideFiles(dir)
	if err != nil || len(files) == 0 || files[0].Size == 0 {
		t.Errorf("set aside: %v, %v", files, err)
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	var damaged []Damage
	s := open(t, dir, Options{Damaged: func(d Damage) { damaged = append(damaged, d) }})
	finishAll(t, s, beginJob(t, s, aJob), 0, 3000)
	progress := func(int) {}
	if report, err := s.Check(t.Context(), progress); err != nil || report != (CheckReport{Outputs: 3000, Jobs: 1}) {
		t.Errorf("%+v, %v", report, err)
	}
	victim := records(42, 43)[0]
	if err := s.db.writer.Exec("update outputs set output=x'00' where ord=x'" + hexOf(victim.Order) + "'"); err != nil {
		t.Fatal(err)
	}
	if report, err := s.Check(t.Context(), progress); err != nil || report != (CheckReport{Outputs: 2999, Damaged: 1, Jobs: 1}) {
		t.Errorf("%+v, %v", report, err)
	}
	if len(damaged) != 1 || damaged[0].Chunk != victim.Chunk {
		t.Errorf("%+v", damaged)
	}
	if report, err := s.Check(t.Context(), progress); err != nil || report != (CheckReport{Outputs: 2999, Jobs: 1}) {
		t.Errorf("afterwards %+v, %v", report, err)
	}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	out := make([]byte, 0, 2*len(b))
	for _, c := range b {
		out = append(out, digits[c>>4], digits[c&15])
	}
	return string(out)
}

// A deleted job's space is given back, also while others read.
func TestDeleteAndCompact(t *testing.T) {
	dir := t.TempDir()
	s, reader := open(t, dir, Options{}), open(t, dir, Options{})
	finishAll(t, s, beginJob(t, s, aJob), 0, 50_000) // more than are swept at once
	other := aJob
	other.ID, other.Action = store.JobID{2}, store.Action{9}
	beginJob(t, s, other)
	if err := s.Put(t.Context(), other.Action, records(0, 100)); err != nil {
		t.Fatal(err)
	}
	before, err := s.Size(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := countAll(t, reader, aJob.Action); n != 50_000 {
		t.Errorf("%d outputs", n)
	}
	if err := s.Delete(t.Context(), aJob.ID); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"outputs", "batches", "spans", "runs"} {
		var left int64
		if _, err := s.db.writer.ints("select count(*) from "+table, []*int64{&left}); err != nil || left > 100 {
			t.Errorf("%d rows of %s are left, %v", left, table, err)
		}
	}
	if err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, m := countAll(t, reader, aJob.Action), countAll(t, reader, other.Action); n != 0 || m != 100 {
		t.Errorf("%d outputs of the deleted job and %d of the other", n, m)
	}
	after, err := s.Size(t.Context())
	if err != nil || after.Used*5 > before.Used || after.Files*2 > before.Files {
		t.Errorf("%+v before, %+v after, %v", before, after, err)
	}
}

// What nobody owns is found and deleted: actions without jobs, and the rest of
// a deletion that was cut off.
func TestOrphans(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	run := beginJob(t, s, aJob)
	finishAll(t, s, run, 0, 1000)
	if err := s.Put(t.Context(), aJob.Derived[0], records(0, 1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), store.Action{5}, records(0, 2500)); err != nil {
		t.Fatal(err)
	}
	if orphans, err := s.Orphans(t.Context()); err != nil || len(orphans) != 1 || orphans[0] != (store.Action{5}) {
		t.Errorf("%x, %v", orphans, err)
	}
	if n, err := s.DeleteOrphans(t.Context()); err != nil || n != 1 {
		t.Errorf("%d orphans, %v", n, err)
	}
	if err := s.db.writer.Exec("delete from jobs; delete from actions where digest=x'" + strings.Repeat("02", 1) + strings.Repeat("00", 31) + "'"); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	for table, want := range map[string]int64{"outputs": 1000, "spans": 0, "runs": 0, "attempts": 0} {
		var left int64
		if _, err := s.db.writer.ints("select count(*) from "+table, []*int64{&left}); err != nil || left != want {
			t.Errorf("%d rows of %s are left, %v", left, table, err)
		}
	}
}

// The file is set aside in the midst of a run: its outputs are kept, and the
// run goes on without its record.
func TestSetAsideInARun(t *testing.T) {
	dir := t.TempDir()
	var notices []string
	s := open(t, dir, Options{Notice: func(line string) { notices = append(notices, line) }})
	run := beginJob(t, s, aJob)
	finishAll(t, s, run, 0, 1000)
	// Another process finds it damaged.
	if err := os.Rename(filepath.Join(dir, FileName), filepath.Join(dir, FileName+salvageInfix+"1")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, FileName+"-wal"), filepath.Join(dir, FileName+salvageInfix+"1-wal")); err != nil {
		t.Fatal(err)
	}
	finishAll(t, s, run, 1000, 2000)
	if err := errors.Join(s.Note(t.Context(), run, []byte("[]"), nil), s.End(t.Context(), run, []byte("{}"))); err != nil {
		t.Error(err)
	}
	if n := countAll(t, s, aJob.Action); n != 2000 {
		t.Errorf("%d outputs; %q", n, notices)
	}
}

// The number of the version stands where checkVersion reads it.
func TestVersionInFile(t *testing.T) {
	dir, _ := sample(t, 1)
	b, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil || binary.BigEndian.Uint32(b[60:]) != Version<<16|Version {
		t.Errorf("%x, %v", b[60:64], err)
	}
}

func BenchmarkFinish(b *testing.B) {
	const n, batch = 100_000, 4096
	for _, spans := range []bool{false, true} {
		name := map[bool]string{false: "Put", true: "Finish"}[spans]
		b.Run(name, func(b *testing.B) {
			for range b.N {
				s, err := Open(b.Context(), b.TempDir(), Options{})
				if err != nil {
					b.Fatal(err)
				}
				run, err := s.Begin(b.Context(), aJob, noIDs, []byte("{}"))
				for i := 0; i < n && err == nil; i += batch {
					all := records(i, i+batch)
					span := store.Span{First: i, Detail: make([]byte, 2*batch)}
					for _, r := range all {
						span.Chunks = append(span.Chunks, r.Chunk)
					}
					if spans {
						err = s.Finish(b.Context(), run, aJob.Action, all, span)
					} else {
						err = s.Put(b.Context(), aJob.Action, all)
					}
				}
				if err := errors.Join(err, s.Close()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "µs/row")
		})
	}
}
