package sqlite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/storetest"
)

var (
	flips = flag.Int("flips", 120, "random bit flips in TestFlippedBits")
	step  = flag.Int("step", 4093, "bytes between the cuts of TestTruncated")
)

// sample makes a store in a new directory, closes it, and returns its records.
func sample(t *testing.T, n int) (dir string, all []store.Record) {
	t.Helper()
	return makeSample(t, n, func(s *Store, action store.Action, _ int, some []store.Record) error {
		return s.Put(t.Context(), action, some)
	})
}

// recordedChunks bounds the chunks of the jobs of recordedSample. Its other outputs
// are without a job: all records are read several times after each flip.
const recordedChunks = 3000

// recordedSample is like sample, with a job for each action and a derived output for
// each job.
func recordedSample(t *testing.T, n int) (dir string, all []store.Record) {
	t.Helper()
	runs := map[store.Action]store.RunKey{}
	return makeSample(t, n, func(s *Store, action store.Action, first int, some []store.Record) error {
		if first >= recordedChunks {
			return s.Put(t.Context(), action, some)
		}
		if first == 0 {
			smallJobs(t, s)
		}
		if _, begun := runs[action]; !begun {
			derived := store.Action{9, action[0]}
			runs[action] = begin(t, s, store.JobRecord{ID: store.JobID(action), Action: action, Derived: []store.Action{derived}, Total: min(n, recordedChunks), Spec: []byte(`{}`)})
			if err := s.Put(t.Context(), derived, []store.Record{{Value: store.Value{Output: []byte("all")}}}); err != nil {
				return err
			}
		}
		span := store.Span{First: first, Detail: []byte(`{}`)}
		for _, r := range some {
			span.Chunks = append(span.Chunks, r.Chunk)
		}
		return s.Finish(t.Context(), runs[action], action, some, span)
	})
}

func makeSample(t *testing.T, n int, put func(s *Store, action store.Action, first int, some []store.Record) error) (dir string, all []store.Record) {
	t.Helper()
	dir = t.TempDir()
	s, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	all = records(0, n)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range all {
		all[i].Output = bytes.Repeat(all[i].Chunk[:], 1+rng.IntN(6))
		if i%100 == 7 {
			all[i].Output = bytes.Repeat(all[i].Chunk[:], 300) // overflows its page
		}
	}
	for i := 0; i < n; i += 500 {
		if err := put(s, store.Action{byte(i / 500 % 2)}, i, all[i:min(n, i+500)]); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, all
}

// damagedStore copies files into a new directory.
func damagedStore(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	old, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// check opens the store, checks that it returns no wrong byte and accepts all records
// again, and returns how many outputs it had.
func check(t *testing.T, dir string, all []store.Record) (had int) {
	t.Helper()
	had, _ = checkRecords(t, dir, all, nil)
	return had
}

// checkRecords is check, and compares the records of jobs with those of the store
// before it was damaged. It also returns how many jobs are whole.
func checkRecords(t *testing.T, dir string, all []store.Record, clean map[store.JobID]jobRecords) (had, whole int) {
	t.Helper()
	var notices []string
	var names damagedNames
	s, err := Open(t.Context(), dir, names.options(func(line string) {
		if notices = append(notices, line); strings.Contains(line, "\n") {
			t.Errorf("a notice of several lines: %q", line)
		}
	}))
	if err != nil {
		t.Errorf("open: %v", err)
		return 0, 0
	}
	defer func() {
		recordsAgree(t, s)
		if clean != nil {
			whole = names.compare(t, clean, recordsOf(t, s))
		}
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if t.Failed() {
			t.Log(strings.Join(notices, "\n"))
		}
	}()
	want := map[store.Digest][]byte{}
	for _, r := range all {
		want[r.Chunk] = r.Output
	}
	recordsAgree(t, s)
	for a := range 2 {
		action := store.Action{byte(a)}
		for r, err := range s.All(t.Context(), action) {
			if err != nil {
				t.Errorf("all: %v", err)
				break
			}
			wanted, ok := want[r.Chunk]
			if !ok { // not in this part
				wanted = bytes.Repeat(r.Chunk[:], len(r.Output)/len(r.Chunk))
			}
			if !bytes.Equal(wanted, r.Output) {
				t.Errorf("a wrong byte under %x", r.Order)
			}
		}
		for i := a * 500; i < len(all); i += 1000 {
			part := all[i:min(len(all), i+500)]
			var keys []store.Key
			for _, r := range part {
				keys = append(keys, r.Key)
			}
			get := func() (found int) {
				err := s.Get(t.Context(), action, keys, func(j int, v store.Value) error {
					found++
					if !bytes.Equal(v.Output, part[j].Output) {
						t.Errorf("a wrong byte under %x", keys[j].Order)
					}
					return nil
				})
				if err != nil {
					t.Errorf("get: %v", err)
				}
				return found
			}
			had += get()
			if err := s.Put(t.Context(), action, part); err != nil {
				t.Errorf("put: %v", err)
			}
			if n := get(); n != len(part) {
				t.Errorf("after all was put again, %d of %d are there", n, len(part))
			}
		}
	}
	return had, 0
}

// recordsAgree is storetest.Agree, and checks that a job with pending chunks has no
// derived output.
func recordsAgree(t *testing.T, s *Store) {
	t.Helper()
	if err := readAll(t, s); err != nil && !errors.Is(err, store.ErrNoJob) { // the file may be set aside, with the jobs
		t.Errorf("read: %v", err)
	}
	storetest.Agree(t, s)
	for a := range 2 {
		for _, err := range s.All(t.Context(), store.Action{9, byte(a)}) {
			if err != nil {
				t.Errorf("all: %v", err)
			}
			chunks := 0
			for e, err := range s.Extents(t.Context(), store.JobID{byte(a)}) {
				if err != nil {
					t.Errorf("job %d has a result, and its spans %v", a, err)
				}
				chunks += e.Count
			}
			if chunks == 0 {
				t.Errorf("job %d has a result, and no chunk that is finished", a)
			}
		}
	}
}

// readAll reads all records and outputs.
func readAll(t *testing.T, s *Store) (err error) {
	for a := range 2 {
		for _, allErr := range s.All(t.Context(), store.Action{byte(a)}) {
			err = errors.Join(err, allErr)
		}
	}
	for job, jobErr := range s.List(t.Context(), "") {
		err = errors.Join(err, jobErr)
		for span, spanErr := range s.Spans(t.Context(), job.ID, 0, 1<<20) {
			var keys []store.Key
			for _, chunk := range span.Chunks {
				keys = append(keys, store.Key{Chunk: chunk})
			}
			err = errors.Join(err, spanErr, s.Get(t.Context(), job.Action, keys, func(int, store.Value) error { return nil }))
		}
		for _, attemptErr := range s.Attempts(t.Context(), job.ID, 0, 1<<20) {
			err = errors.Join(err, attemptErr)
		}
		for _, idsErr := range s.IDs(t.Context(), job.ID) {
			err = errors.Join(err, idsErr)
		}
		_, runsErr := s.Runs(t.Context(), job.ID)
		err = errors.Join(err, runsErr)
	}
	return err
}

func TestFlippedBits(t *testing.T) {
	n := 500
	if *flips > 1000 {
		n = 30_000 // 10 MB
	}
	dir, all := recordedSample(t, n)
	clean, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", len(clean))
	records := cleanRecords(t, dir)
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	lost, worst, damagedJobs := 0, 0, 0
	for i := range *flips {
		b := bytes.Clone(clean)
		at := rng.IntN(len(b))
		if i%10 == 0 {
			at = rng.IntN(2 * pageSize) // the pages on which damage is worst
		}
		b[at] ^= 1 << rng.IntN(8)
		damagedStore(t, dir, map[string][]byte{FileName: b})
		part := all
		if *flips > 1000 {
			part = all[:3000] // enough to notice some of the flips
		}
		had, whole := checkRecords(t, dir, part, records)
		missing := len(part) - had
		lost, worst, damagedJobs = lost+missing, max(worst, missing), damagedJobs+len(records)-whole
		if i%100 == 99 {
			t.Logf("%d flips", i+1)
		}
		if t.Failed() {
			t.Fatalf("seed %d, flip %d at byte %d (page %d)", seed, i, at, at/pageSize+1)
		}
	}
	t.Logf("%d outputs lost by %d flips, at most %d by one; %d jobs of %d not whole", lost, *flips, worst, damagedJobs, *flips*len(records))
	if lost > *flips*20 {
		t.Errorf("%d outputs lost by %d flips", lost, *flips)
	}
	if damagedJobs > 3**flips {
		t.Errorf("%d jobs were damaged by %d flips", damagedJobs, *flips)
	}
}

func TestTruncated(t *testing.T) {
	const n = 500
	dir, all := recordedSample(t, n)
	clean, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	records := cleanRecords(t, dir)
	for cut := 0; cut <= min(64<<10, len(clean)); cut += *step {
		damagedStore(t, dir, map[string][]byte{FileName: clean[:len(clean)-cut]})
		had, _ := checkRecords(t, dir, all, records)
		if t.Failed() || cut == 0 && had != n {
			t.Fatalf("%d bytes cut off: %d outputs", cut, had)
		}
		if had == 0 && cut < len(clean)/4 {
			t.Errorf("%d of %d bytes cut off: no output was copied", cut, len(clean))
		}
		if cut%4096 == 4095 {
			t.Logf("%d bytes cut off", cut)
		}
	}
	for _, content := range []string{"", "x", "not a database at all", strings.Repeat("x", 3*pageSize)} {
		damagedStore(t, dir, map[string][]byte{FileName: []byte(content)})
		check(t, dir, all)
	}
}

// TestDeletedLog deletes the log of a store that was not closed.
func TestDeletedLog(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	all := records(0, 2000)
	for i := 0; i < len(all); i += 500 {
		if err := s.Put(t.Context(), store.Action{byte(i / 500 % 2)}, all[i:i+500]); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(dir, FileName+"-wal"))
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	damagedStore(t, other, map[string][]byte{FileName: file, FileName + "-wal": log})
	if had := check(t, other, all); had != len(all) {
		t.Errorf("with the log, %d outputs", had)
	}
	damagedStore(t, other, map[string][]byte{FileName: file})
	check(t, other, all)
	damagedStore(t, other, map[string][]byte{FileName + "-wal": log})
	check(t, other, all)
	damagedStore(t, other, map[string][]byte{FileName: file[:50], FileName + "-wal": log})
	if had := check(t, other, all); had != len(all) {
		t.Errorf("only from the log, %d outputs", had)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		b := bytes.Clone(log)
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		damagedStore(t, other, map[string][]byte{FileName: file, FileName + "-wal": b})
		check(t, other, all)
	}
}

func TestDamagedOutput(t *testing.T) {
	dir, all := sample(t, 100)
	path := filepath.Join(dir, FileName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	victim := all[42]
	sum, _ := checksum(store.Action{}, victim.Key, victim.Value, nil)
	at := bytes.Index(b, append(victim.Chunk[:len(victim.Chunk):len(victim.Chunk)], sum[:]...)) + len(victim.Chunk) + len(sum)
	b[at] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	var damaged []Damage
	s := open(t, dir, Options{Damaged: func(d Damage) { damaged = append(damaged, d) }})
	get := func() (found bool) {
		err := s.Get(t.Context(), store.Action{}, []store.Key{victim.Key}, func(int, store.Value) error { found = true; return nil })
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if get() || len(damaged) != 1 || damaged[0].Chunk != victim.Chunk || !bytes.Equal(damaged[0].Order, victim.Order) {
		t.Fatalf("damaged: %+v", damaged)
	}
	if err := s.Put(t.Context(), store.Action{}, []store.Record{victim}); err != nil {
		t.Fatal(err)
	}
	if !get() || len(damaged) != 1 {
		t.Errorf("put again, it is not there: %+v", damaged)
	}
}

func TestSetAside(t *testing.T) {
	const n = 2000
	dir, all := sample(t, n)
	path := filepath.Join(dir, FileName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	clear(b[:100]) // the header
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if had := check(t, dir, all); had != n {
		t.Errorf("%d of %d outputs were carried over", had, n)
	}
	aside, _ := filepath.Glob(path + damagedInfix + "*")
	if len(aside) != 1 {
		t.Errorf("set aside: %v", aside)
	}
}

// The jobs whose records cannot be copied from a file that is set aside are named.
func TestSetAsideNamesJobs(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for n := range byte(7) {
		job := store.JobRecord{ID: store.JobID{n, 0xab}, Action: store.Action{n}, Total: int(n) + 3, Spec: []byte(`{}`)}
		for range 2 {
			if _, err := s.Begin(t.Context(), job, func(func([]byte) bool) {}, []byte(`{}`)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, FileName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	clear(b[:100])                      // the header
	clear(b[12*pageSize : 14*pageSize]) // the table runs and its index
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	var notices []string
	s, err = Open(t.Context(), dir, Options{Notice: func(line string) { notices = append(notices, line) }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	last := notices[len(notices)-1]
	if !strings.HasPrefix(last, "its records of jobs are not copied: 7 jobs, ") || !strings.HasSuffix(last, ", ...; run them again, which reuses their outputs") || strings.Count(last, " chunks)") != 5 {
		t.Errorf("notices %q", notices)
	}
	named := 0
	for n := range 7 {
		if strings.Contains(last, fmt.Sprintf(" %02xab00000000 (%d chunks)", n, n+3)) {
			named++
		}
	}
	if named != 5 {
		t.Errorf("%d jobs are named in %q", named, last)
	}
}

// TestRenamesFail makes every renaming fail in turn while a damaged file is set
// aside: the error is returned, and nothing is lost.
func TestRenamesFail(t *testing.T) {
	const n = 500
	dir, all := recordedSample(t, n)
	b, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	records := cleanRecords(t, dir)
	clear(b[:100]) // the header
	cause := errors.New("told to fail")
	failed := 0
	for fails := 1; ; fails++ {
		damagedStore(t, dir, map[string][]byte{FileName: b})
		renames := 0
		s, err := Open(t.Context(), dir, Options{fault: func(op, _ string) error {
			if op == "rename" {
				if renames++; renames == fails {
					return cause
				}
			}
			return nil
		}})
		if err == nil {
			err = s.Close()
		}
		if renames < fails {
			break
		}
		failed++
		if !errors.Is(err, cause) || !strings.Contains(err.Error(), dir) {
			t.Errorf("renaming %d: %v", fails, err)
		}
		if had, whole := checkRecords(t, dir, all, records); had != n || whole != len(records) {
			t.Errorf("after renaming %d failed, %d of %d outputs and %d of %d jobs are there", fails, had, n, whole, len(records))
		}
	}
	if failed < 2 {
		t.Errorf("%d renamings failed", failed)
	}
}

// TestSetAsideInterrupted opens a store after a crash between any two of the steps
// that set a file aside.
func TestSetAsideInterrupted(t *testing.T) {
	const n = 1000
	dir, all := sample(t, n)
	b, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	damagedStore(t, dir, map[string][]byte{FileName + salvageInfix + "1": b, FileName + "-wal": nil})
	if had := check(t, dir, all); had != n {
		t.Errorf("%d of %d outputs were carried over", had, n)
	}
}

func TestNewerVersion(t *testing.T) {
	dir, _ := sample(t, 10)
	path := filepath.Join(dir, FileName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	binary.BigEndian.PutUint32(b[60:], 9<<16|9)
	damagedStore(t, dir, map[string][]byte{FileName: b})
	_, err = Open(t.Context(), dir, Options{})
	version, ok := errors.AsType[*VersionError](err)
	if !ok || version.Version != 9 || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want a *VersionError", err)
	}
	entries, _ := os.ReadDir(dir)
	after, _ := os.ReadFile(path)
	if len(entries) != 1 || !bytes.Equal(after, b) {
		t.Errorf("something was written: %v", entries)
	}
}

func TestPermissions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := open(t, dir, Options{})
	fill(t, s, store.Action{1}, 10, 10)
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, FileName): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if os.PathSeparator == '/' && info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
	}
}
