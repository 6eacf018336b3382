package sqlite

import (
	"os"
	"path/filepath"
	"testing"
)

// A lock of the system and one by SQLite, which older programs take, keep each other out.
func TestLocksOfSQLite(t *testing.T) {
	hurry := make(chan struct{})
	close(hurry)
	s := &Store{options: Options{Hurry: hurry}, vfs: registerVFS(nil)}
	defer s.vfs.unregister()
	s.options.setDefaults()
	path := filepath.Join(t.TempDir(), lockName)
	take := func(own bool) (unlock func() error, err error) {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if own {
			return s.lock(t.Context(), file)
		}
		return s.lockWithSQLite(t.Context(), file)
	}
	for _, holder := range []bool{true, false} {
		unlock, err := take(holder)
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range []bool{true, false} {
			if free, err := take(other); err == nil {
				t.Errorf("locked twice: first by the system's lock %t, then %t", holder, other)
				free()
			}
		}
		if err := unlock(); err != nil {
			t.Fatal(err)
		}
		for _, other := range []bool{true, false} {
			free, err := take(other)
			if err != nil {
				t.Fatalf("still locked for %t: %v", other, err)
			}
			if err := free(); err != nil {
				t.Error(err)
			}
		}
	}
}
