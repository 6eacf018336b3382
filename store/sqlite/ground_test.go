package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// look reads all outputs and jobs, and returns their numbers.
func look(t *testing.T, s *Store) (outputs, jobs int) {
	t.Helper()
	for job, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Runs(t.Context(), job.ID); err != nil {
			t.Fatal(err)
		}
		jobs++
		for _, err := range s.All(t.Context(), job.Action) {
			if err != nil {
				t.Fatal(err)
			}
			outputs++
		}
	}
	return outputs, jobs
}

// TestReadOnly reads stores on a file system that cannot be written: one that was
// closed, one with a log as a crash leaves it, and one of an older version.
func TestReadOnly(t *testing.T) {
	closed := t.TempDir()
	s, err := Open(t.Context(), closed, Options{})
	if err != nil {
		t.Fatal(err)
	}
	finish(t, s, begin(t, s, jobA), 0, 6000)
	crashed := copyStore(t, closed)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	older := t.TempDir()
	unpack(t, "version3.db.gz", filepath.Join(older, FileName))
	for _, test := range []struct {
		name, dir     string
		outputs, jobs int
	}{{"closed", closed, 6000, 1}, {"crashed", crashed, 6000, 1}, {"older", older, 160, 2}} {
		for _, why := range []error{syscall.EROFS, syscall.ENOSPC, fs.ErrPermission} {
			t.Run(fmt.Sprintf("%s, %v", test.name, why), func(t *testing.T) {
				before := filesOf(t, test.dir)
				s := open(t, test.dir, Options{ReadOnly: true, fault: func(string, string) error { return why }})
				if outputs, jobs := look(t, s); outputs != test.outputs || jobs != test.jobs {
					t.Errorf("%d outputs of %d jobs, want %d of %d", outputs, jobs, test.outputs, test.jobs)
				}
				if test.jobs == 1 {
					if n := count(t, s, store.Action{1}, elsewhere(records(0, 3))); n != 3 {
						t.Errorf("%d of 3 outputs under other orders", n)
					}
				}
				if err := s.Put(t.Context(), store.Action{1}, records(0, 1)); !errors.Is(err, ErrReadOnly) {
					t.Errorf("put: %v", err)
				}
				if after := filesOf(t, test.dir); after != before {
					t.Errorf("files before %s and after %s", before, after)
				}
			})
		}
	}
	if _, err := Open(t.Context(), filepath.Join(closed, "none"), Options{ReadOnly: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
	if _, err := Open(t.Context(), closed, Options{fault: func(string, string) error { return syscall.EROFS }}); !errors.Is(err, syscall.EROFS) {
		t.Errorf("for writing: %v", err)
	}
}

// filesOf describes the files of a directory.
func filesOf(t *testing.T, dir string) (all string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all += fmt.Sprintf("%s %d %x, ", e.Name(), len(b), checksumOf(b))
	}
	return all
}

func checksumOf(b []byte) sum {
	s, _ := checksum(store.Action{}, store.Key{}, store.Value{Output: b}, nil)
	return s
}

// TestGroundGoesAway removes or damages the directory of a store while it is in use:
// each call then works or returns an error, and so does Close.
func TestGroundGoesAway(t *testing.T) {
	for name, change := range map[string]func(dir string) error{
		"removed":   os.RemoveAll,
		"moved":     func(dir string) error { return os.Rename(dir, dir+"2") },
		"a file":    func(dir string) error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)) },
		"emptied":   func(dir string) error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)) },
		"no file":   func(dir string) error { return os.Remove(filepath.Join(dir, FileName)) },
		"truncated": func(dir string) error { return os.Truncate(filepath.Join(dir, FileName), 0) },
		"garbage":   func(dir string) error { return os.WriteFile(filepath.Join(dir, FileName), make([]byte, 9000), 0o600) },
		"a directory": func(dir string) error {
			path := filepath.Join(dir, FileName)
			return errors.Join(os.Remove(path), os.Mkdir(path, 0o700))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			s, err := Open(t.Context(), dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			run := begin(t, s, jobA)
			finish(t, s, run, 0, 100)
			if err := change(dir); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				useAll(t, s, run, records(100, 200))
			}
			t.Log("close:", s.Close())
		})
	}
}

// useAll calls every method. It logs errors, and fails only if a call hangs.
func useAll(t *testing.T, s *Store, run store.RunKey, all []store.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	note := func(op string, err error) {
		if err != nil {
			t.Log(op, err)
		}
		if ctx.Err() != nil {
			t.Errorf("%s waited for too long", op)
		}
	}
	note("put", s.Put(ctx, store.Action{1}, all))
	note("get", s.Get(ctx, store.Action{1}, []store.Key{all[0].Key}, func(int, store.Value) error { return nil }))
	for _, err := range s.All(ctx, store.Action{1}) {
		note("all", err)
	}
	note("finish", s.Finish(ctx, run, store.Action{1}, all, store.Span{First: 100, Chunks: []store.Digest{all[0].Chunk}}))
	note("note", s.Note(ctx, run, []byte("[]"), nil))
	note("end", s.End(ctx, run, []byte("{}")))
	for _, err := range s.List(ctx, "") {
		note("list", err)
	}
	_, err := s.Runs(ctx, run.Job)
	note("runs", err)
	_, err = s.Check(ctx, func(int) {})
	note("check", err)
	note("compact", s.Compact(ctx))
	note("delete", s.Delete(ctx, run.Job))
}

// TestFailingOpen makes the n-th call of a file fail while a store is opened, for
// every n: the error names the path, no file stays open, and the next Open succeeds.
func TestFailingOpen(t *testing.T) {
	cause := errors.New("told to fail")
	for _, forever := range []bool{false} {
		for n := int64(1); ; n++ {
			dir := filepath.Join(t.TempDir(), "a")
			var calls atomic.Int64
			before, files := runtime.NumGoroutine(), openFilesOf(t)
			s, err := Open(t.Context(), dir, Options{fault: func(string, string) error {
				if i := calls.Add(1); i == n || forever && i > n {
					return cause
				}
				return nil
			}})
			if err == nil {
				closeErr := s.Close()
				if calls.Load() < n {
					break
				}
				t.Logf("call %d: opened nevertheless, close: %v", n, closeErr)
			} else if !errors.Is(err, cause) && !errors.Is(err, sqlite3.IOERR) && !errors.Is(err, sqlite3.CANTOPEN) || !strings.Contains(err.Error(), dir) {
				t.Errorf("call %d: %v", n, err)
			}
			if now := openFilesOf(t); now > files {
				t.Errorf("call %d: %d files are open, and %d were", n, now, files)
			}
			if now := runtime.NumGoroutine(); now > before {
				t.Errorf("call %d: %d goroutines, and there were %d", n, now, before)
			}
			s, err = Open(t.Context(), dir, Options{Notice: func(line string) { t.Errorf("call %d: %s", n, line) }})
			if err == nil {
				err = errors.Join(s.Put(t.Context(), store.Action{1}, records(0, 3)), s.Close())
			}
			if err != nil {
				t.Fatalf("after call %d failed: %v", n, err)
			}
		}
	}
}

// openFilesOf returns how many files this process has open; 0 if the system does not
// say.
func openFilesOf(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

// TestEnginePanics makes the engine panic while it writes: this call and all later
// ones return an error, and the process goes on.
func TestEnginePanics(t *testing.T) {
	panics := false
	s, err := Open(t.Context(), t.TempDir(), Options{fault: func(op, _ string) error {
		if panics && op == "write" {
			panic("out of memory")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	run := begin(t, s, jobA)
	panics = true
	for range 2 {
		err := s.Put(t.Context(), store.Action{1}, records(0, 100))
		if !errors.Is(err, errEngine) || !strings.Contains(err.Error(), s.path) {
			t.Errorf("put: %v", err)
		}
	}
	useAll(t, s, run, records(0, 10))
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestContextEndsReading ends the context during a long query.
func TestContextEndsReading(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	ctx, cancel := context.WithCancel(t.Context())
	err := s.do(ctx, "read", func(db *database) error {
		return db.read(ctx, func(c *conn) error {
			time.AfterFunc(10*time.Millisecond, cancel)
			return c.exec("with recursive r(x) as (select 1 union all select x+1 from r) select x from r where x<0")
		})
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := s.Put(t.Context(), store.Action{1}, records(0, 10)); err != nil || count(t, s, store.Action{1}, records(0, 10)) != 10 {
		t.Errorf("afterwards: %v", err)
	}
}
