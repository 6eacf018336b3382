package sqlite

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// elsewhere returns the records with other orders.
func elsewhere(all []store.Record) []store.Record {
	all = slices.Clone(all)
	for i := range all {
		all[i].Order = append([]byte{0}, all[i].Order...)
	}
	return all
}

// TestFewChunksOfMany looks some chunks up in an action with many: the results are
// right, and the entries of the other chunks are not read.
func TestFewChunksOfMany(t *testing.T) {
	const n = 40_000
	dir := t.TempDir()
	s := open(t, dir, Options{})
	fill(t, s, store.Action{1}, n, 10_000)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	all := records(0, n+10)
	if n := count(t, s, store.Action{1}, all[100:105]); n != 5 {
		t.Errorf("found %d of 5 under their own orders", n)
	}
	if n := count(t, s, store.Action{1}, elsewhere(all[n-5:])); n != 5 {
		t.Errorf("found %d of 5 under other orders", n)
	}
	if n := count(t, s, store.Action{1}, all[n:]); n != 0 {
		t.Errorf("found %d outputs, want none", n)
	}
	if err := s.Put(t.Context(), store.Action{1}, append(elsewhere(all[n-3:n]), all[n:]...)); err != nil {
		t.Error(err)
	}
	wrong := elsewhere(all[7:8])
	wrong[0].Output = []byte("other")
	if _, ok := errors.AsType[*store.ConflictError](s.Put(t.Context(), store.Action{1}, wrong)); !ok {
		t.Error("other bytes under another order: want a *store.ConflictError")
	}
	x := s.db.index(store.Action{1})
	if x.filter != nil || x.missed == 0 {
		t.Errorf("all entries were read, after %d look-ups", x.missed)
	}
	if rows := rowsOf(t, s, "outputs"); rows != n+10 {
		t.Errorf("%d outputs, want %d", rows, n+10)
	}
	if n := count(t, s, store.Action{1}, elsewhere(all[:2000])); n != 2000 {
		t.Errorf("found %d of 2000 under other orders", n)
	}
	if x.filter == nil {
		t.Error("after 2000 chunks under other orders, the entries were not read yet")
	}
}

// TestManyCommits puts chunks one by one: their batches are merged, and each chunk is
// found.
func TestManyCommits(t *testing.T) {
	const n = 1200
	dir := t.TempDir()
	s := open(t, dir, Options{})
	all := records(0, n)
	for i := range all {
		if err := s.Put(t.Context(), store.Action{1}, all[i:i+1]); err != nil {
			t.Fatal(err)
		}
	}
	for _, few := range []int64{fewEntries, 1} {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir, Options{fewEntries: few})
		if n := count(t, s, store.Action{1}, elsewhere(all)); n != len(all) {
			t.Errorf("%d of %d outputs", n, len(all))
		}
		if batches := rowsOf(t, s, "batches"); batches > 60 {
			t.Errorf("%d batches of %d commits", batches, n)
		}
	}
	if err := s.submit(t.Context(), &request{action: store.Action{1}, merge: true}); err != nil {
		t.Fatal(err)
	}
	pages := int64(n*(prefixSize+10))/entriesSize + 1
	if b, p := rowsOf(t, s, "batches"), rowsOf(t, s, "batch_pages"); b != 1 || p > pages+1 {
		t.Errorf("%d batches with %d pages after the merge of all, want 1 with %d", b, p, pages)
	}
	if n := count(t, s, store.Action{1}, elsewhere(all)); n != len(all) {
		t.Errorf("%d of %d outputs after the merge of all", n, len(all))
	}
}

// TestTwoIndexes has two stores on one directory that put in turn, and merge: each
// sees the outputs of the other at once.
func TestTwoIndexes(t *testing.T) {
	for _, few := range []int64{fewEntries, 1} {
		dir := t.TempDir()
		a, b := open(t, dir, Options{fewEntries: few}), open(t, dir, Options{fewEntries: few})
		all := records(0, 2010)
		for i := 0; i < 2000; i += 50 {
			if err := a.Put(t.Context(), store.Action{1}, all[i:i+50]); err != nil {
				t.Fatal(err)
			}
			if i%300 == 0 {
				if err := a.submit(t.Context(), &request{action: store.Action{1}, merge: true}); err != nil {
					t.Fatal(err)
				}
			}
			if n := count(t, b, store.Action{1}, elsewhere(all[:i+60])); n != i+50 {
				t.Fatalf("%d of %d outputs", n, i+50)
			}
			a, b = b, a
		}
	}
}

// TestDamagedBatch deletes or damages a page of a batch: the file is set aside, and
// all its outputs are copied.
func TestDamagedBatch(t *testing.T) {
	for _, query := range []string{"delete from batch_pages where id=3", "update batch_pages set entries=x'00'", "update batches set entries=x'', pages=0"} {
		dir := t.TempDir()
		s := open(t, dir, Options{})
		all := records(0, 3000)
		if err := s.Put(t.Context(), store.Action{1}, all); err != nil {
			t.Fatal(err)
		}
		if err := s.db.writer.Exec(query); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir, Options{})
		if n := count(t, s, store.Action{1}, elsewhere(all)); n != len(all) {
			t.Errorf("after %s, %d of %d outputs", query, n, len(all))
		}
		if aside, err := AsideFiles(dir); err != nil || len(aside) != 1 {
			t.Errorf("after %s, set aside: %v, %v", query, aside, err)
		}
	}
}

// FuzzEntries parses rows of batches: entries are within their row, and are written as
// they were read.
func FuzzEntries(f *testing.F) {
	b := appendEntry(appendEntry(nil, entry{1 << 63, []byte("a")}), entry{1 << 16, nil})
	for _, b := range [][]byte{nil, b, b[:len(b)-1], append(b, 0), bytes.Repeat([]byte{0xff}, 20)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		ok := eachEntry(sealEntries(bytes.Clone(b)), func(e entry) {
			if e.prefix != e.prefix>>16<<16 {
				t.Errorf("prefix %x", e.prefix)
			}
			again = appendEntry(again, e)
		})
		if len(again) > len(b) { // it may be shorter: a length has several encodings
			t.Errorf("%d bytes of entries in %d", len(again), len(b))
		}
		if ok {
			pages, counts := partition(again, 3)
			rest := len(again)
			for i, page := range pages {
				rest -= len(page)
				eachEntry(sealEntries(page), func(e entry) {
					if counts[i]--; pageOf(e.prefix, 3) != int64(i) {
						t.Errorf("prefix %x is on page %d of 3", e.prefix, i)
					}
				})
			}
			if rest != 0 || counts[0] != 0 || counts[1] != 0 || counts[2] != 0 {
				t.Errorf("%d bytes and %v entries are not on their pages", rest, counts)
			}
		}
		if eachEntry(b, func(entry) {}) && len(b) < sealSize {
			t.Error("a row without a seal passes")
		}
	})
}

// TestStoreOfVersion3 opens a store that the command wrote at version 3.
func TestStoreOfVersion3(t *testing.T) {
	dir := t.TempDir()
	unpack(t, "version3.db.gz", filepath.Join(dir, FileName))
	s := open(t, dir, Options{Damaged: func(d Damage) { t.Errorf("damaged: %x", d.Order) }})
	report, err := s.Check(t.Context(), func(int) {})
	if err != nil || report.Jobs != 2 || report.Damaged != 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	var jobs []store.JobRecord
	for job, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		jobs = append(jobs, job)
	}
	if len(jobs) != 2 || jobs[0].Total != 60 || jobs[0].Action != jobs[1].Action {
		t.Fatalf("%+v", jobs)
	}
	keys := map[store.Digest]store.Key{}
	for r, err := range s.All(t.Context(), jobs[0].Action) {
		if err != nil {
			t.Fatal(err)
		}
		keys[r.Chunk] = store.Key{Chunk: r.Chunk, Order: append([]byte{0}, r.Order...)}
	}
	for _, job := range jobs {
		found, chunks := 0, []store.Key(nil)
		for span, err := range s.Spans(t.Context(), job.ID, 0, job.Total) {
			if err != nil {
				t.Fatal(err)
			}
			for _, chunk := range span.Chunks {
				chunks = append(chunks, keys[chunk])
			}
		}
		err := s.Get(t.Context(), job.Action, chunks, func(int, store.Value) error { found++; return nil })
		if err != nil || len(chunks) != 60 || found != 60 {
			t.Errorf("%d of %d outputs of a job under other orders, %v", found, len(chunks), err)
		}
	}
	if len(keys) != 80 {
		t.Errorf("%d outputs of two jobs, which share 40 of 120", len(keys))
	}
}

// unpack writes a file of testdata.
func unpack(t testing.TB, name, to string) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// BenchmarkNew measures the time for one new chunk of an action with many outputs, in
// a store that was just opened: looking for any output, looking the chunk up, putting
// it, and closing the store. x-empty is the ratio to an action without outputs.
func BenchmarkNew(b *testing.B) {
	var empty float64
	for _, rows := range []int{0, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(rows), func(b *testing.B) {
			dir := b.TempDir()
			s := open(b, dir, Options{})
			fill(b, s, store.Action{1}, rows, 10_000)
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			n := rows
			for b.Loop() {
				newChunk(b, dir, records(n, n+1))
				n++
			}
			each := float64(b.Elapsed()) / float64(b.N)
			if rows == 0 {
				empty = each
			}
			b.ReportMetric(each/empty, "x-empty")
		})
	}
}

func newChunk(b *testing.B, dir string, chunk []store.Record) {
	s, err := Open(b.Context(), dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	for _, err := range s.All(b.Context(), store.Action{1}) {
		if err != nil {
			b.Fatal(err)
		}
		break
	}
	if n := count(b, s, store.Action{1}, chunk); n != 0 {
		b.Fatal("the chunk is there")
	}
	if err := errors.Join(s.Put(b.Context(), store.Action{1}, chunk), s.Close()); err != nil {
		b.Fatal(err)
	}
}
