//go:build unix

package sqlite

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// TestModes makes every file of a store, and checks who may read it.
func TestModes(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	dir := filepath.Join(t.TempDir(), "a", "b")
	seen := map[string]bool{}
	look := func() {
		err := filepath.WalkDir(filepath.Dir(dir), func(path string, e fs.DirEntry, err error) error {
			info, infoErr := e.Info()
			if err := errors.Join(err, infoErr); err != nil {
				return err
			}
			want := fs.FileMode(0o600)
			if e.IsDir() {
				want = 0o700
			}
			if name := e.Name(); info.Mode().Perm() != want {
				t.Errorf("%s has mode %v", name, info.Mode())
			}
			seen[strings.Split(e.Name(), ".damaged")[0]] = true
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(t.Context(), dir, Options{fault: func(string, string) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s, store.Action{1}, 1000, 100)
	look()
	if err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	look()
	if err := s.recover(t.Context(), s.db, errDamaged); err != nil {
		t.Fatal(err)
	}
	fill(t, s, store.Action{1}, 1000, 100)
	look()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	look()
	for _, name := range []string{FileName, FileName + "-wal", FileName + "-shm", lockName} {
		if !seen[name] {
			t.Errorf("%s was not there", name)
		}
	}
}
