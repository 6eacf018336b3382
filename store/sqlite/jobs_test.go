package sqlite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// TestTwoStores checks that a store sees the runs and spans of another one.
func TestTwoStores(t *testing.T) {
	dir := t.TempDir()
	a, b := open(t, dir, Options{}), open(t, dir, Options{})
	first := begin(t, a, jobA)
	second := begin(t, b, jobA)
	if first.Number != 1 || second.Number != 2 {
		t.Errorf("runs %d and %d", first.Number, second.Number)
	}
	finish(t, a, first, 0, 10)
	finish(t, b, second, 10, 20)
	for _, s := range []*Store{a, b} {
		runs, err := s.Runs(t.Context(), jobA.ID)
		if err != nil || len(runs) != 2 {
			t.Errorf("%+v, %v", runs, err)
		}
		var extents []store.Extent
		for e, err := range s.Extents(t.Context(), jobA.ID) {
			if err != nil {
				t.Fatal(err)
			}
			extents = append(extents, e)
		}
		if len(extents) != 2 || extents[0].Run != 1 || extents[1].Run != 2 {
			t.Errorf("%+v", extents)
		}
		if n := count(t, s, store.Action{1}, records(0, 20)); n != 20 {
			t.Errorf("%d outputs", n)
		}
	}
	if err := b.Delete(t.Context(), jobA.ID); err != nil {
		t.Fatal(err)
	}
	if n := count(t, a, store.Action{1}, records(0, 20)); n != 0 {
		t.Errorf("%d outputs after the other's deletion", n)
	}
	err := a.Finish(t.Context(), first, store.Action{1}, records(0, 10), store.Span{})
	if !errors.Is(err, store.ErrNoJob) {
		t.Errorf("finish after the other's deletion: %v", err)
	}
}

// TestCrashKeepsSpans opens the files that a crash leaves after each Finish.
func TestCrashKeepsSpans(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	run := begin(t, s, jobA)
	for i := range 5 {
		finish(t, s, run, 100*i, 100*i+100)
		after := open(t, copyStore(t, dir), Options{Notice: func(line string) { t.Error(line) }})
		spans := 0
		for e, err := range after.Extents(t.Context(), jobA.ID) {
			if err != nil || e != (store.Extent{Run: 1, First: 100 * spans, Count: 100}) {
				t.Errorf("%+v, %v", e, err)
			}
			spans++
		}
		if n := count(t, after, store.Action{1}, records(0, 500)); spans != i+1 || n != 100*spans {
			t.Errorf("after %d spans there are %d, with %d outputs", i+1, spans, n)
		}
	}
}

// TestFinishAfterSetAside sets the file aside, with the job's record, while a run
// goes on.
func TestFinishAfterSetAside(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	run := begin(t, s, jobA)
	finish(t, s, run, 0, 10)
	if err := s.recover(t.Context(), s.db, errDamaged); err != nil {
		t.Fatal(err)
	}
	finish(t, s, run, 10, 20)
	if n := count(t, s, store.Action{1}, records(0, 20)); n != 20 {
		t.Errorf("%d of 20 outputs", n)
	}
	if err := s.Note(t.Context(), run, []byte(`[]`), nil); err != nil {
		t.Error(err)
	}
	if err := s.End(t.Context(), run, []byte(`{}`)); err != nil {
		t.Error(err)
	}
}

// TestSetAsideInARun has another process set the file aside while a run goes on: its
// outputs are kept, and the run goes on without its record.
func TestSetAsideInARun(t *testing.T) {
	dir := t.TempDir()
	var notices []string
	s := open(t, dir, Options{Notice: func(line string) { notices = append(notices, line) }})
	run := begin(t, s, jobA)
	finish(t, s, run, 0, 1000)
	for _, suffix := range []string{"", "-wal"} {
		path := filepath.Join(dir, FileName)
		if err := os.Rename(path+suffix, path+salvageInfix+"1"+suffix); err != nil {
			t.Fatal(err)
		}
	}
	finish(t, s, run, 1000, 2000)
	if err := errors.Join(s.Note(t.Context(), run, []byte("[]"), nil), s.End(t.Context(), run, []byte("{}"))); err != nil {
		t.Error(err)
	}
	if n := count(t, s, store.Action{1}, records(0, 2000)); n != 2000 {
		t.Errorf("%d outputs; %q", n, notices)
	}
}

// toVersion3 gives a file the index of version 3: a log whose first batches are in a
// table.
func toVersion3(t *testing.T, s *Store) {
	t.Helper()
	c := s.db.writer
	must := func(query string, args ...any) {
		t.Helper()
		if err := c.exec(query, args...); err != nil {
			t.Fatal(query, err)
		}
	}
	must("create table chunks(action integer not null, prefix integer not null, ord blob not null, primary key(action, prefix, ord)) without rowid")
	type key struct{ action, seq int64 }
	logs := map[key][]byte{}
	var tables []key
	if err := c.rows(func(r *columns) { tables = append(tables, key{r.int(), r.int()}) }, "select action, seq from batches"); err != nil {
		t.Fatal(err)
	}
	for _, k := range tables {
		batches, err := c.batches(k.action, k.seq-1)
		if err != nil {
			t.Fatal(err)
		}
		err = c.eachEntry(batches[:1], func(e entry) {
			b := binary.LittleEndian.AppendUint64(logs[k], bits.ReverseBytes64(e.prefix))
			logs[k] = append(binary.AppendUvarint(b, uint64(len(e.order))), e.order...)
			if k.seq%2 == 1 {
				must("insert into chunks values(?, ?, ?)", k.action, int64(bits.ReverseBytes64(e.prefix)), e.order)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, query := range []string{
		"drop table batches", "drop table batch_pages",
		"create table batches(action integer not null, seq integer not null, count integer not null, entries blob not null, primary key(action, seq)) without rowid",
		"create table actions3 as select * from actions", "drop table actions",
		"create table actions(id integer primary key autoincrement, digest blob not null unique, indexed integer not null default 0)",
		"insert into actions(id, digest) select id, digest from actions3", "drop table actions3", "pragma user_version=196611",
	} {
		must(query)
	}
	for k, log := range logs {
		if k.seq%2 == 1 {
			must("update actions set indexed=max(indexed, ?) where id=?", k.seq, k.action)
			continue
		}
		must("insert into batches values(?, ?, 1, ?)", k.action, 1000+k.seq, sealEntries(log))
	}
}

// TestVersion3 opens a file that has a log and an index of chunks.
func TestVersion3(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	all := records(0, 3000)
	fill(t, s, store.Action{3}, len(all), 500)
	finish(t, s, begin(t, s, jobA), 0, 10)
	toVersion3(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var notices []string
	s = open(t, dir, Options{Notice: func(line string) { notices = append(notices, line) }})
	if len(notices) != 1 || !strings.Contains(notices[0], "(version 3): converted its index") {
		t.Errorf("notices %q", notices)
	}
	others := slices.Clone(all)
	for i := range others {
		others[i].Order = append([]byte{0}, all[i].Order...)
	}
	if n, m := count(t, s, store.Action{3}, all), count(t, s, store.Action{3}, others); n != len(all) || m != len(all) {
		t.Errorf("%d and, under other orders, %d of %d outputs", n, m, len(all))
	}
	if err := s.Put(t.Context(), store.Action{3}, others); err != nil {
		t.Error(err)
	}
	if n := rowsOf(t, s, "outputs"); n != 3010 {
		t.Errorf("%d outputs after they were put again under other orders", n)
	}
	if report, err := s.Check(t.Context(), func(int) {}); err != nil || report != (CheckReport{Outputs: 3010, Jobs: 1}) {
		t.Errorf("%+v, %v", report, err)
	}
}

// TestVersion2 opens a file that has a row for each output: the outputs and their
// jobs are converted.
func TestVersion2(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	all := records(0, 3000)
	all[1].Output = nil
	all[2].Output = bytes.Repeat([]byte{1, 2}, packOnce)
	for i := range all {
		all[i].Fuel = uint64(i)
	}
	for action, some := range map[store.Action][]store.Record{{3}: all, {4}: all[:100]} {
		if err := s.Put(t.Context(), action, some); err != nil {
			t.Fatal(err)
		}
	}
	finish(t, s, begin(t, s, jobA), 0, 10)
	toVersion3(t, s)
	for _, query := range []string{
		"create table older as select * from outputs", "drop view outputs", "drop table packs",
		"create table outputs(action integer not null, ord blob not null, chunk blob not null, checksum blob not null, fuel integer not null, output blob not null, primary key(action, ord, chunk)) without rowid",
		"insert into outputs select * from older", "drop table older", "pragma user_version=131074",
	} {
		if err := s.db.writer.Exec(query); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var notices []string
	s = open(t, dir, Options{
		Notice:  func(line string) { notices = append(notices, line) },
		Damaged: func(d Damage) { t.Errorf("damaged: %x", d.Order) },
	})
	if len(notices) != 1 || !strings.Contains(notices[0], "converted it, with 3110 outputs") {
		t.Errorf("notices %q", notices)
	}
	i := 0
	for r, err := range s.All(t.Context(), store.Action{3}) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Chunk != all[i].Chunk || r.Fuel != all[i].Fuel || !bytes.Equal(r.Output, all[i].Output) {
			t.Errorf("output %d is another one", i)
		}
		i++
	}
	if i != len(all) {
		t.Errorf("%d of %d outputs", i, len(all))
	}
	if n := count(t, s, store.Action{4}, all[:100]); n != 100 {
		t.Errorf("%d outputs of the other action", n)
	}
	packsOf(t, s, store.Action{3})
	if report, err := s.Check(t.Context(), func(int) {}); err != nil || report != (CheckReport{Outputs: 3110, Jobs: 1}) {
		t.Errorf("%+v, %v", report, err)
	}
}

// TestOlderLayout opens a file of version 1, whose outputs had no fuel.
func TestOlderLayout(t *testing.T) {
	dir, all := sample(t, 2000)
	s := open(t, dir, Options{})
	toVersion3(t, s)
	for _, query := range []string{
		"drop table jobs", "drop table job_ids", "drop table runs", "drop table spans", "drop table attempts",
		"create table older as select action, ord, chunk, checksum, output from outputs", "drop view outputs", "drop table packs",
		"create table outputs(action integer not null, ord blob not null, chunk blob not null, checksum blob not null, output blob not null, primary key(action, ord, chunk)) without rowid",
		"insert into outputs select * from older", "drop table older", "pragma user_version=65537",
	} {
		if err := s.db.writer.Exec(query); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var notices []string
	note := func(line string) { notices = append(notices, line) }
	s = open(t, dir, Options{Notice: note})
	if len(notices) != 1 || !strings.Contains(notices[0], "computed again") || !strings.Contains(notices[0], s.path) {
		t.Errorf("notices %q", notices)
	}
	if n := rowsOf(t, s, "outputs"); n != 0 {
		t.Errorf("%d outputs of the older layout", n)
	}
	if err := s.Put(t.Context(), store.Action{1}, all); err != nil {
		t.Fatal(err)
	}
	begin(t, s, jobA)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	header, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil || binary.BigEndian.Uint32(header[60:]) != Version<<16|Version {
		t.Errorf("version %#x, %v", header[60:64], err)
	}
	s = open(t, dir, Options{Notice: note})
	if n := count(t, s, store.Action{1}, all); n != len(all) || len(notices) != 1 {
		t.Errorf("%d outputs, %q", n, notices)
	}
	if aside, err := AsideFiles(dir); err != nil || len(aside) != 0 {
		t.Errorf("set aside: %v, %v", aside, err)
	}
}

// TestCheck checks that Check finds a damaged output and deletes it.
func TestCheck(t *testing.T) {
	dir, all := sample(t, 1500)
	victim := all[42]
	sum, _ := checksum(store.Action{}, victim.Key, victim.Value, nil)
	s := open(t, dir, Options{})
	// The checksum of the page is valid: only the output's shows the damage.
	query := "update packs set body=cast(replace(body, ?1, ?2) as blob) where instr(body, ?1)"
	flipped := sum
	flipped[0] ^= 1
	if err := s.db.writer.exec(query, sum[:], flipped[:]); err != nil {
		t.Fatal(err)
	}
	begin(t, s, jobA)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var damaged []Damage
	s = open(t, dir, Options{Damaged: func(d Damage) { damaged = append(damaged, d) }})
	told := 0
	report, err := s.Check(t.Context(), func(n int) { told = n })
	if err != nil || report != (CheckReport{Outputs: 1499, Damaged: 1, Jobs: 1}) {
		t.Errorf("%+v, %v", report, err)
	}
	if told == 0 || len(damaged) != 1 || damaged[0].Chunk != victim.Chunk {
		t.Errorf("progress %d, damaged %+v", told, damaged)
	}
	if report, err = s.Check(t.Context(), func(int) {}); err != nil || report != (CheckReport{Outputs: 1499, Jobs: 1}) {
		t.Errorf("again %+v, %v", report, err)
	}
}

// TestCompact gives space back while another store reads.
func TestCompact(t *testing.T) {
	dir := t.TempDir()
	s, reader := open(t, dir, Options{}), open(t, dir, Options{})
	run := begin(t, s, jobA)
	for i := 0; i < 20_000; i += 1000 {
		finish(t, s, run, i, i+1000)
	}
	finish(t, s, begin(t, s, store.JobRecord{ID: store.JobID{3}, Action: store.Action{3}, Spec: []byte(`{}`)}), 0, 10)
	if err := s.Put(t.Context(), store.Action{3}, records(0, 10)); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), jobA.ID); err != nil {
		t.Fatal(err)
	}
	before, err := s.Size(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	err = reader.db.read(t.Context(), func(c *conn) error {
		if _, _, err := c.locate(store.Action{3}); err != nil {
			return err
		}
		return s.Compact(t.Context())
	})
	if err != nil {
		t.Fatalf("while another reads: %v", err)
	}
	if took := time.Since(start); took > busyTimeout/2 { // nobody can write meanwhile
		t.Errorf("it waited %v for the reader", took)
	}
	if err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := s.Size(t.Context())
	if err != nil || after.Files >= before.Files/2 || after.Used > before.Used {
		t.Errorf("%+v before and %+v after, %v", before, after, err)
	}
	for _, s := range []*Store{s, reader} {
		if n := count(t, s, store.Action{3}, records(0, 10)); n != 10 {
			t.Errorf("%d of 10 outputs", n)
		}
	}
}

// TestReadBesideWriter opens and reads a store while another holds its write
// transaction open.
func TestReadBesideWriter(t *testing.T) {
	dir := t.TempDir()
	if Exists(dir) {
		t.Error("Exists reports a store in an empty directory")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("looking made %v, %v", entries, err)
	}
	s := open(t, dir, Options{})
	finish(t, s, begin(t, s, jobA), 0, 10)
	if !Exists(dir) {
		t.Error("Exists reports no store")
	}
	err := s.record(t.Context(), func(*transaction) error {
		reader, err := Open(t.Context(), dir, Options{})
		if err != nil {
			return err
		}
		for _, err := range reader.List(t.Context(), "") {
			if err != nil {
				return err
			}
		}
		if _, err := reader.Runs(t.Context(), jobA.ID); err != nil {
			return err
		}
		if n := count(t, reader, store.Action{1}, records(0, 10)); n != 10 {
			t.Errorf("%d outputs", n)
		}
		return reader.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A failing write fails only its request, and records nothing of it.
func TestFinishIsAtomic(t *testing.T) {
	cause := errors.New("told to fail")
	fail := false
	s := open(t, t.TempDir(), Options{fault: func(op, _ string) error {
		if fail && (op == "write" || op == "sync") {
			return cause
		}
		return nil
	}})
	job := store.JobRecord{ID: store.JobID{1}, Action: store.Action{1}, Total: 2000, Spec: []byte(`{}`)}
	run := begin(t, s, job)
	all := records(0, 1000)
	span := store.Span{Chunks: []store.Digest{all[0].Chunk}}
	for _, fail = range []bool{true, false} {
		err := s.Finish(t.Context(), run, job.Action, all, span)
		if fail != errors.Is(err, cause) || !fail && err != nil {
			t.Errorf("with failing writes %v: %v", fail, err)
		}
		wanted := 0
		if !fail {
			wanted = 1000
		}
		fail = false
		if n := count(t, s, job.Action, all); n != wanted {
			t.Errorf("%d outputs, want %d", n, wanted)
		}
	}
}
