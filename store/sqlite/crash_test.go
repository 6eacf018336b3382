package sqlite

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// copyStore copies the file and its log in their current state, as a crash leaves
// them.
func copyStore(t *testing.T, from string) (to string) {
	t.Helper()
	to = t.TempDir()
	// If the log were copied first, pages written back to the file meanwhile would
	// be missing. A crash is one moment, so the caller must stop all writers.
	for _, name := range []string{FileName, FileName + "-wal"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// TestLikeAMap compares random interleavings of Put, Get, All, reopening and
// crashes with a map.
func TestLikeAMap(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	o := Options{
		Notice:     func(line string) { t.Errorf("seed %d: %s", seed, line) },
		fewEntries: rng.Int64N(500), // up to so many, all entries are read at once
	}
	s, err := Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Close() }()
	model := map[store.Digest]store.Record{}
	pool := records(0, 3000)
	fail := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("seed %d: %s", seed, fmt.Sprintf(format, args...))
	}
	action := store.Action{1}
	for step := range 400 {
		batch := make([]store.Record, rng.IntN(50))
		from := rng.IntN(len(pool) - 50)
		for i := range batch {
			r := pool[from+i]
			if rng.IntN(4) == 0 {
				r.Order = pool[rng.IntN(len(pool))].Order // the chunk under another id
			}
			batch[i] = r
		}
		switch rng.IntN(12) {
		case 0, 1, 2, 3, 4:
			conflicts := 0
			for i := range batch {
				if rng.IntN(40) == 0 {
					batch[i].Output = []byte("other")
				}
				if have, ok := model[batch[i].Chunk]; !ok {
					model[batch[i].Chunk] = batch[i]
				} else if !bytes.Equal(have.Output, batch[i].Output) {
					conflicts++
				}
			}
			err := s.Put(t.Context(), action, batch)
			if _, ok := errors.AsType[*store.ConflictError](err); ok != (conflicts > 0) || err != nil && !ok {
				fail("step %d: put gave %v, want %d conflicts", step, err, conflicts)
			}
		case 5, 6, 7, 8:
			if rng.IntN(2) == 0 {
				rng.Shuffle(len(batch), func(i, j int) { batch[i], batch[j] = batch[j], batch[i] })
			}
			var keys []store.Key
			for _, r := range batch {
				if rng.IntN(8) == 0 {
					r.Order = nil
				}
				keys = append(keys, r.Key)
			}
			found := map[int]bool{}
			err := s.Get(t.Context(), action, keys, func(i int, v store.Value) error {
				found[i] = true
				if !bytes.Equal(v.Output, model[keys[i].Chunk].Output) {
					fail("step %d: wrong v.Output", step)
				}
				return nil
			})
			if err != nil {
				fail("get: %v", err)
			}
			for i, k := range keys {
				if _, ok := model[k.Chunk]; ok != found[i] {
					fail("step %d: key %d found %v, want %v", step, i, found[i], ok)
				}
			}
		case 9:
			var got []store.Record
			for r, err := range s.All(t.Context(), action) {
				if err != nil {
					fail("all: %v", err)
				}
				r.Order, r.Output = bytes.Clone(r.Order), bytes.Clone(r.Output)
				got = append(got, r)
			}
			want := slices.SortedFunc(maps.Values(model), func(a, b store.Record) int {
				return compareKeys(row{order: a.Order, chunk: a.Chunk[:]}, b.Key)
			})
			if !slices.EqualFunc(got, want, func(a, b store.Record) bool {
				return a.Chunk == b.Chunk && bytes.Equal(a.Order, b.Order) && bytes.Equal(a.Output, b.Output)
			}) {
				fail("step %d: all gave %d records, want %d", step, len(got), len(want))
			}
		case 10:
			if rng.IntN(2) == 0 {
				if err := s.submit(t.Context(), &request{action: action, merge: true}); err != nil {
					fail("merge: %v", err)
				}
			}
		case 11:
			if rng.IntN(2) == 0 {
				dir = copyStore(t, dir)
			}
			if err := s.Close(); err != nil {
				fail("close: %v", err)
			}
			if s, err = Open(t.Context(), dir, o); err != nil {
				fail("open: %v", err)
			}
		}
	}
}

// TestCrashWhileWriting copies the store while it is being written. The copy must
// have all outputs that were acknowledged before it began.
func TestCrashWhileWriting(t *testing.T) {
	dir := t.TempDir()
	var disk sync.RWMutex // held for reading while a file is written
	s := open(t, dir, Options{fault: func(string, string) error {
		disk.RLock() // waits while the copy is made, so that the copy is of one moment
		defer disk.RUnlock()
		return nil
	}})
	pool := records(0, 40_000)
	var acknowledged [4]atomic.Int64
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			part := pool[w*10_000 : (w+1)*10_000]
			for i := 0; i < len(part); i += 100 {
				if err := s.Put(t.Context(), store.Action{1}, part[i:i+100]); err != nil {
					t.Error(err)
				}
				acknowledged[w].Store(int64(i + 100))
			}
		})
	}
	for range 10 {
		disk.Lock()
		var acked [4]int64
		for w := range acked {
			acked[w] = acknowledged[w].Load()
		}
		crashed := copyStore(t, dir)
		disk.Unlock()
		c, err := Open(t.Context(), crashed, Options{Notice: func(line string) { t.Error(line) }})
		if err != nil {
			t.Fatal(err)
		}
		for w := range acked {
			var keys []store.Key
			for _, r := range pool[w*10_000 : w*10_000+int(acked[w])] {
				keys = append(keys, r.Key)
			}
			found := 0
			if err := c.Get(t.Context(), store.Action{1}, keys, func(int, store.Value) error { found++; return nil }); err != nil {
				t.Fatal(err)
			}
			if found < len(keys) {
				t.Errorf("writer %d: %d of %d acknowledged outputs survived", w, found, len(keys))
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	writers.Wait()
}

// TestGroupCommit shows that Puts of several goroutines share commits.
func TestGroupCommit(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	all := records(0, 2000)
	var writers sync.WaitGroup
	for w := range 20 {
		writers.Go(func() {
			for i := w; i < len(all); i += 20 {
				if err := s.Put(t.Context(), store.Action{1}, all[i:i+1]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	stats := s.Stats()
	t.Logf("%+v", stats)
	if stats.Puts != 2000 || stats.Commits > 1000 || stats.Syncs == 0 || stats.Bytes == 0 {
		t.Errorf("%+v", stats)
	}
}

// TestFailingCalls makes the n-th write, sync or truncation fail, for every n:
// acknowledged outputs survive, and the same store works again afterwards.
func TestFailingCalls(t *testing.T) {
	all := records(0, 300)
	for n := int64(1); ; n++ {
		dir := t.TempDir()
		var calls atomic.Int64
		var healed atomic.Bool
		o := Options{fault: func(op, name string) error {
			if calls.Add(1) >= n && !healed.Load() {
				return syscall.ENOSPC
			}
			return nil
		}}
		failed := false
		note := func(err error) {
			if failed = true; !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, sqlite3.FULL) && !errors.Is(err, sqlite3.IOERR) && !errors.Is(err, sqlite3.CANTOPEN) {
				t.Errorf("call %d: %v", n, err)
			}
			if !bytes.Contains([]byte(err.Error()), []byte(dir)) {
				t.Errorf("call %d: the error does not name the path: %v", n, err)
			}
		}
		var acked []store.Key
		s, err := Open(t.Context(), dir, o)
		if err != nil {
			note(err)
		} else {
			put := func() {
				for i := 0; i < len(all); i += 100 {
					if err := s.Put(t.Context(), store.Action{1}, all[i:i+100]); err != nil {
						note(err)
						continue
					}
					for _, r := range all[i : i+100] {
						acked = append(acked, r.Key)
					}
				}
			}
			put()
			if failed && n%2 == 0 {
				healed.Store(true) // the same process goes on
				acked = nil
				put()
				if len(acked) != len(all) {
					t.Errorf("call %d: after room was made, %d outputs were put", n, len(acked))
				}
			}
			if err := s.Close(); err != nil {
				note(err)
			}
		}
		s, err = Open(t.Context(), dir, Options{Notice: func(line string) { t.Errorf("call %d: %s", n, line) }})
		if err != nil {
			t.Fatalf("call %d: open: %v", n, err)
		}
		found := 0
		if err := s.Get(t.Context(), store.Action{1}, acked, func(int, store.Value) error { found++; return nil }); err != nil || found != len(acked) {
			t.Errorf("call %d: %d of %d acknowledged, %v", n, found, len(acked), err)
		}
		if err := s.Put(t.Context(), store.Action{1}, all); err != nil {
			t.Errorf("call %d: %v", n, err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("call %d: %v", n, err)
		}
		if !failed || t.Failed() {
			t.Logf("%d calls", n)
			return
		}
	}
}

// TestProcesses makes processes race on one file; half of them put other bytes for
// every tenth chunk.
func TestProcesses(t *testing.T) {
	const processes, chunks = 4, 2000
	if dir := os.Getenv("WASM_JOBS_RACE_DIR"); dir != "" {
		race(t, dir, os.Getenv("WASM_JOBS_RACER"), chunks)
		return
	}
	dir := t.TempDir()
	var racers sync.WaitGroup
	for i := range processes {
		racers.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run=^TestProcesses$", "-test.v")
			cmd.Env = append(os.Environ(), "WASM_JOBS_RACE_DIR="+dir, "WASM_JOBS_RACER="+fmt.Sprint(i))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("racer %d: %v\n%s", i, err, out)
			}
		})
	}
	racers.Wait()
	s := open(t, dir, Options{})
	n := 0
	for _, err := range s.All(t.Context(), store.Action{1}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != chunks {
		t.Errorf("%d records of %d chunks", n, chunks)
	}
}

func race(t *testing.T, dir, racer string, chunks int) {
	s := open(t, dir, Options{Notice: func(line string) { t.Error(line) }})
	all := records(0, chunks)
	mine := func(i int) store.Record {
		r := all[i]
		if i%10 == 0 {
			r.Output = []byte(racer)
		}
		if i%3 == 0 {
			r.Order = append([]byte(racer), r.Order...) // each under its own id
		}
		return r
	}
	for i := 0; i < chunks; i += 10 {
		var batch []store.Record
		for j := range 10 {
			batch = append(batch, mine(i+j))
		}
		err := s.Put(t.Context(), store.Action{1}, batch)
		if _, conflict := errors.AsType[*store.ConflictError](err); err != nil && !conflict {
			t.Fatal(err)
		}
		stored := ""
		found := 0
		keys := []store.Key{batch[0].Key, batch[1].Key, batch[2].Key}
		if err := s.Get(t.Context(), store.Action{1}, keys, func(j int, v store.Value) error {
			if found++; j == 0 {
				stored = string(v.Output)
			}
			return nil
		}); err != nil || found != 3 {
			t.Fatalf("found %d, %v", found, err)
		}
		if (stored == racer) != (err == nil) {
			t.Fatalf("chunk %d has %s's output, and %s got %v", i, stored, racer, err)
		}
	}
}
