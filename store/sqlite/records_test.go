package sqlite

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// jobRecords are the records of a job in a form that can be compared.
type jobRecords struct {
	job, ids, runs  string
	action          store.Action
	spans, attempts []string
}

// recordsOf reads the records of all jobs.
func recordsOf(t *testing.T, s *Store) map[store.JobID]jobRecords {
	t.Helper()
	all := map[store.JobID]jobRecords{}
	for job, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Errorf("list: %v", err)
			break
		}
		r := jobRecords{job: asJSON(job), action: job.Action}
		for piece, err := range s.IDs(t.Context(), job.ID) {
			r.ids += asJSON(bytes.Clone(piece), err)
		}
		runs, err := s.Runs(t.Context(), job.ID)
		r.runs = asJSON(runs, err)
		for span, err := range s.Spans(t.Context(), job.ID, 0, job.Total) {
			r.spans = append(r.spans, asJSON(span, err))
		}
		for a, err := range s.Attempts(t.Context(), job.ID, 0, job.Total) {
			r.attempts = append(r.attempts, asJSON(a, err))
		}
		all[job.ID] = r
	}
	return all
}

func asJSON(all ...any) string {
	b, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// damagedNames collects what a store names as damaged.
type damagedNames struct {
	jobs    map[store.JobID]DamagedJob
	actions map[store.Action]bool // with damaged outputs
}

func (n *damagedNames) options(notice func(string)) Options {
	n.jobs, n.actions = map[store.JobID]DamagedJob{}, map[store.Action]bool{}
	return Options{
		Notice:     notice,
		Damaged:    func(d Damage) { n.actions[d.Action] = true },
		DamagedJob: func(j DamagedJob) { n.jobs[j.ID] = j },
	}
}

// compare checks that no record is wrong, and that each job is either whole or named
// as damaged. It returns the number of whole ones.
func (n *damagedNames) compare(t *testing.T, clean, got map[store.JobID]jobRecords) (whole int) {
	t.Helper()
	for id, g := range got {
		c, known := clean[id]
		if !known || g.job != c.job || g.ids != c.ids || g.runs != c.runs || !subset(g.spans, c.spans) || !subset(g.attempts, c.attempts) {
			t.Errorf("job %x has a wrong record:\n%+v\nwant\n%+v", id[:4], g, c)
		}
	}
	for id, c := range clean {
		g, there := got[id]
		named, isNamed := n.jobs[id]
		switch {
		case there && len(g.spans) == len(c.spans) && len(g.attempts) == len(c.attempts):
			whole++
		case !isNamed && !n.actions[c.action]:
			t.Errorf("job %x is not whole (there: %v, %d of %d spans, %d of %d attempts), and not named", id[:4], there, len(g.spans), len(c.spans), len(g.attempts), len(c.attempts))
		case isNamed && named.Copied != there:
			t.Errorf("job %x is named as %+v; there: %v", id[:4], named, there)
		}
	}
	return whole
}

func subset(some, all []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

// smallJobs records some jobs with attempts, spans, runs and a result.
func smallJobs(t *testing.T, s *Store) {
	t.Helper()
	for n := range byte(12) {
		all := records(1000*int(n+1), 1000*int(n+1)+60)
		action := store.Action{20, n % 5}
		job := store.JobRecord{
			ID: sha256.Sum256([]byte{n}), Action: action, Derived: []store.Action{{30, n % 5}, {31, n % 5}}, Input: store.Digest{40, n},
			Total: len(all), Spec: fmt.Appendf(nil, `{"text":%q}`, strings.Repeat("spec ", 100*int(n))),
		}
		for number := range 1 + int(n)%3 {
			run := smallRun(t, s, job, n)
			span := store.Span{First: 20 * number, Detail: []byte{n, byte(number)}}
			for _, r := range all[span.First : span.First+20] {
				span.Chunks = append(span.Chunks, r.Chunk)
			}
			failed := []store.Attempt{
				{Chunk: 20 * number, Class: "trap", Detail: fmt.Appendf(nil, `{"message":%q}`, strings.Repeat("m", 300*int(n)))},
				{Chunk: 59, Final: true, Class: "guest", Detail: []byte(`{"message":"no"}`)},
			}
			err := errors.Join(
				s.Finish(t.Context(), run, action, all[span.First:span.First+20], span),
				s.Note(t.Context(), run, []byte(`[]`), failed),
				s.Put(t.Context(), job.Derived[0], []store.Record{{Key: store.Key{Chunk: store.Digest{50, n, byte(number)}}, Value: store.Value{Output: []byte("aggregate")}}}),
			)
			if err == nil && n != 4 { // a run that was killed
				err = s.End(t.Context(), run, fmt.Appendf(nil, `{"state":"failed","text":%q}`, strings.Repeat("r", 1000*int(n))))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

func smallRun(t *testing.T, s *Store, job store.JobRecord, n byte) store.RunKey {
	t.Helper()
	pieces := slices.Values([][]byte{{n}, []byte(strings.Repeat("id", 400*int(n))), {n, n}})
	run, err := s.Begin(t.Context(), job, pieces, fmt.Appendf(nil, `{"host":"h","pid":%d}`, n))
	if err != nil {
		t.Fatal(err)
	}
	return run
}

// cleanRecords returns the records of a store that is not damaged.
func cleanRecords(t *testing.T, dir string) map[store.JobID]jobRecords {
	t.Helper()
	s, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return recordsOf(t, s)
}

// setAside opens a store whose file has content, and returns what it names as damaged.
func setAside(t *testing.T, dir string, content []byte, o Options) (s *Store, names *damagedNames) {
	t.Helper()
	damagedStore(t, dir, map[string][]byte{FileName: content})
	names = &damagedNames{}
	named := names.options(func(line string) { t.Log(line) })
	named.CheckJob = o.CheckJob
	s, err := Open(t.Context(), dir, named)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if aside, _ := AsideFiles(dir); len(aside) != 1 {
		t.Fatalf("set aside: %v", aside)
	}
	return s, names
}

// If no page with records is damaged, all jobs are copied with their results.
func TestSetAsideKeepsJobs(t *testing.T) {
	for _, test := range []struct {
		name    string
		compact bool
		damage  func(b []byte) []byte
	}{
		{"header", false, func(b []byte) []byte { clear(b[:100]); return b }},
		{"first page", false, func(b []byte) []byte { clear(b[:pageSize]); return b }},
		{"first page of a compacted file", true, func(b []byte) []byte { clear(b[:pageSize]); return b }},
		{"no checksums according to the header", false, func(b []byte) []byte { b[20] ^= 1; return b }},
		{"last bytes", false, func(b []byte) []byte { return append(b, 1, 2, 3) }},
		{"indexes of records", false, func(b []byte) []byte { flipIn(b, 10, 12, 14, 16, 18); return b }},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, all := recordedSample(t, 500)
			records := cleanRecords(t, dir)
			if test.compact {
				compactStore(t, dir)
			}
			b, err := os.ReadFile(filepath.Join(dir, FileName))
			if err != nil {
				t.Fatal(err)
			}
			damagedStore(t, dir, map[string][]byte{FileName: test.damage(b)})
			had, whole := checkRecords(t, dir, all, records)
			if had != len(all) || whole != len(records) {
				t.Errorf("%d of %d outputs and %d of %d jobs are whole", had, len(all), whole, len(records))
			}
			s := open(t, dir, Options{})
			defer s.Close()
			for i, action := range []store.Action{{9}, {30, 1}} {
				results := 0
				for _, err := range s.All(t.Context(), action) {
					if results++; err != nil {
						t.Error(err)
					}
				}
				if want := []int{1, 6}[i]; results != want {
					t.Errorf("%d results of action %x, want %d", results, action[:2], want)
				}
			}
		})
	}
}

// flipIn flips a bit in each of some pages.
func flipIn(b []byte, pages ...int) {
	for _, page := range pages {
		b[(page-1)*pageSize+3000] ^= 4
	}
}

func compactStore(t *testing.T, dir string) {
	t.Helper()
	s := open(t, dir, Options{})
	if err := errors.Join(s.Compact(t.Context()), s.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestUnsoundRecords sets files aside whose pages are sound and whose records are not.
func TestUnsoundRecords(t *testing.T) {
	const jobs = "(select id from jobs where digest=x'%x')"
	dir, _ := recordedSample(t, 500)
	records := cleanRecords(t, dir)
	clean, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	id := sha256.Sum256([]byte{5})
	for _, test := range []struct {
		sql    string
		copied bool
	}{
		{"update jobs set action=x'00' where id=JOB", false},
		{"update jobs set derived=x'00' where id=JOB", false},
		{"update jobs set derived=zeroblob(32*65) where id=JOB", false},
		{"update jobs set input=zeroblob(33) where id=JOB", false},
		{"update jobs set total=-1 where id=JOB", false},
		{"update jobs set total='many' where id=JOB", false},
		{"update jobs set total=1<<62 where id=JOB", false},
		{"update jobs set spec='{' where id=JOB", false},
		{"update jobs set spec=x'7b7d' where id=JOB", false},
		{"update job_ids set part=7 where job=JOB and part=1", false},
		{"delete from job_ids where job=JOB and part=1", false},
		{"update job_ids set ids='text' where job=JOB and part=1", false},
		{"delete from runs where job=JOB", false},
		{"delete from runs where job=JOB and number=1", false},
		{"update runs set number=9 where job=JOB and number=3", false},
		{"update runs set number=-1 where job=JOB and number=3", false},
		{"update runs set info='{' where job=JOB and number=1", false},
		{"update runs set report='}' where job=JOB and number=1", false},
		{"update runs set active=x'5b5d' where job=JOB and number=1", false},
		{"update runs set started='now' where job=JOB and number=1", false},
		{"update spans set first=-1 where job=JOB and run=1", true},
		{"update spans set first=41 where job=JOB and run=1", true},
		{"update spans set first=9223372036854775807 where job=JOB and run=1", true},
		{"update spans set count=21 where job=JOB and run=1", true},
		{"update spans set chunks=substr(chunks, 2) where job=JOB and run=1", true},
		{"update spans set chunks=x'', count=0 where job=JOB and run=1", true},
		{"update spans set run=4 where job=JOB and run=1", true},
		{"update spans set chunks=zeroblob(20*32) where job=JOB and run=1", true},
		{"update attempts set chunk=60 where job=JOB and run=1", true},
		{"update attempts set chunk=-1 where job=JOB and run=1", true},
		{"update attempts set run=0 where job=JOB and run=1", true},
		{"update attempts set final=2 where job=JOB and run=1", true},
		{"update attempts set detail='{' where job=JOB and run=1", true},
		{"update attempts set class=x'00' where job=JOB and run=1", true},
	} {
		t.Run(test.sql, func(t *testing.T) {
			damagedStore(t, dir, map[string][]byte{FileName: clean})
			change(t, dir, strings.ReplaceAll(test.sql, "JOB", fmt.Sprintf(jobs, id)))
			b, err := os.ReadFile(filepath.Join(dir, FileName))
			if err != nil {
				t.Fatal(err)
			}
			clear(b[:100])
			s, names := setAside(t, dir, b, Options{})
			got := recordsOf(t, s)
			if named, is := names.jobs[id]; !is || named.Copied != test.copied || len(names.jobs) != 1 {
				t.Errorf("damaged: %+v", names.jobs)
			}
			if whole := names.compare(t, records, got); whole != len(records)-1 {
				t.Errorf("%d of %d jobs are whole", whole, len(records))
			}
		})
	}
}

// change runs SQL on the file of a store.
func change(t *testing.T, dir, sql string) {
	t.Helper()
	s := open(t, dir, Options{})
	err := s.record(t.Context(), func(tx *transaction) error { return tx.conn.Exec(sql) })
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
}

// CheckJob decides on the records that are sound for the store.
func TestCheckJob(t *testing.T) {
	dir, _ := recordedSample(t, 500)
	records := cleanRecords(t, dir)
	b, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	clear(b[:100])
	refused := store.JobID(sha256.Sum256([]byte{3}))
	calls := 0
	s, names := setAside(t, dir, b, Options{CheckJob: func(job store.JobRecord, ids iter.Seq[[]byte]) error {
		calls++
		if job.ID != refused {
			return nil
		}
		var all [][]byte
		for piece := range ids {
			all = append(all, bytes.Clone(piece))
		}
		if len(all) != 3 || !bytes.Equal(all[2], []byte{3, 3}) || job.Total != 60 {
			t.Errorf("job %+v, ids %x", job, all)
		}
		return errors.New("not a job")
	}})
	if calls != len(records) || len(names.jobs) != 1 || names.jobs[refused] != (DamagedJob{refused, 60, false}) {
		t.Errorf("%d calls, damaged: %+v", calls, names.jobs)
	}
	if whole := names.compare(t, records, recordsOf(t, s)); whole != len(records)-1 {
		t.Errorf("%d jobs are whole", whole)
	}
}

// TestFlippedHeader flips every bit of the bytes of the header that say how the file is
// read: its page size, its versions and the room for checksums; with -flips 10000, every
// bit of the header.
func TestFlippedHeader(t *testing.T) {
	dir, all := recordedSample(t, 500)
	records := cleanRecords(t, dir)
	clean, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	from, to := 16, 22
	if *flips > 1000 {
		from, to = 0, 100
	}
	for bit := 8 * from; bit < 8*to; bit++ {
		b := bytes.Clone(clean)
		b[bit/8] ^= 1 << (bit % 8)
		damagedStore(t, dir, map[string][]byte{FileName: b})
		had, whole := checkRecords(t, dir, all, records)
		if had != len(all) || whole != len(records) {
			t.Errorf("%d of %d outputs and %d of %d jobs are whole", had, len(all), whole, len(records))
		}
		if t.Failed() {
			t.Fatalf("bit %d of byte %d", bit%8, bit/8)
		}
	}
}
