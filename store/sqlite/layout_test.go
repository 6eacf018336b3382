package sqlite

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
)

var update = flag.Bool("update", false, "write empty.db")

// TestEmptyFile makes a store with SQLite, and compares it with the embedded one.
func TestEmptyFile(t *testing.T) {
	s := &Store{path: filepath.Join(t.TempDir(), FileName), vfs: registerVFS(nil)}
	defer s.vfs.unregister()
	c, err := s.connect(s.path)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(c.Exec("pragma journal_mode=off"), c.layOut(), c.Exec("pragma journal_mode=wal"), c.Close())
	if err != nil {
		t.Fatal(err)
	}
	made, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("empty.db", made, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(made, emptyFile) {
		t.Error("SQLite makes a different file: run go generate ./store/sqlite")
	}
}

// TestFewSyncs counts the syncs of a new store with one commit: one of the file, one of
// the log when it begins, one of the commit, and one each of the log and the file when
// the log is written back. SQLite's sync of the directory, with the log, is not counted.
func TestFewSyncs(t *testing.T) {
	dir := t.TempDir()
	for run, want := range []int64{5, 4} {
		s := openOnly(t, dir, Options{})
		all := records(10*run, 10*run+10)
		start := &store.RunStart{
			Job: store.JobRecord{ID: store.JobID{byte(run)}, Total: 10, Spec: []byte(`{}`)}, IDs: func(func([]byte) bool) {}, Info: []byte(`{}`),
			Finished: []store.Finished{
				{Action: store.Action{1}, Records: all, Span: store.Span{Chunks: []store.Digest{all[0].Chunk}, Detail: []byte{0}}},
				{Action: store.Action{2}, Records: all[:1]},
			},
			Report: []byte(`{}`),
		}
		if _, err := s.BeginLate(t.Context(), start); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if n := s.Stats().Syncs; n != want {
			t.Errorf("run %d: %d syncs, want %d", run, n, want)
		}
	}
}

// TestLeftOver opens a store after a crash at any step of its creation.
func TestLeftOver(t *testing.T) {
	for name, files := range map[string]map[string][]byte{
		"half written":  {FileName + newSuffix: emptyFile[:5000]},
		"not renamed":   {FileName + newSuffix: emptyFile},
		"an empty file": {FileName: nil, FileName + newSuffix: emptyFile},
		"a file without tables, and its logs": {
			FileName: noTables(t), FileName + "-journal": []byte("journal"), FileName + "-shm": []byte("index"),
		},
	} {
		dir := t.TempDir()
		damagedStore(t, dir, files)
		s := open(t, dir, Options{Notice: func(line string) { t.Errorf("%s: %s", name, line) }})
		if err := s.Put(t.Context(), store.Action{1}, records(0, 10)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(dir, FileName+newSuffix)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the new file is still there: %v", name, err)
		}
	}
}

// noTables returns a database without tables.
func noTables(t *testing.T) []byte {
	t.Helper()
	s := &Store{path: filepath.Join(t.TempDir(), FileName), vfs: registerVFS(nil)}
	defer s.vfs.unregister()
	c, err := s.connect(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Exec(fmt.Sprintf("pragma application_id=%d", applicationID)), c.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The first look-up in a fresh file needs no connection of its own, and leaves the
// writer as it was, also if its context ends.
func TestFreshFileIsReadByWriter(t *testing.T) {
	all := records(0, 10)
	keys := make([]store.Key, len(all))
	for i := range all {
		keys[i] = all[i].Key
	}
	for _, ends := range []bool{false, true} {
		s := open(t, t.TempDir(), Options{})
		get := func(ctx context.Context) (found int, err error) {
			err = s.Get(ctx, store.Action{1}, keys, func(int, store.Value) error { found++; return nil })
			return found, err
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if ends {
			err := s.do(ctx, "test", func(db *database) error {
				return db.read(ctx, func(c *conn) error {
					cancel()
					return ctx.Err()
				})
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("a read whose context ends: %v", err)
			}
		} else if found, err := get(ctx); found != 0 || err != nil {
			t.Errorf("%d outputs of an empty store, %v", found, err)
		}
		if n := len(s.db.readers); n != 0 {
			t.Errorf("%d connections besides the writer", n)
		}
		fill(t, s, store.Action{1}, 10, 10)
		if found, err := get(t.Context()); found != len(all) || err != nil {
			t.Errorf("%d outputs of %d, %v", found, len(all), err)
		}
		if n := len(s.db.readers); n != 1 {
			t.Errorf("%d connections besides the writer after a second look-up, want 1", n)
		}
	}
}
