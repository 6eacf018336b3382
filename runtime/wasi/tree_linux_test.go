package wasi

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestTreeRefusesWhatIsNoFile checks that opening a pipe does not block, and that
// names must be UTF-8.
func TestTreeRefusesWhatIsNoFile(t *testing.T) {
	dir := plant(t, map[string]string{"sub/": ""})
	if err := syscall.Mkfifo(filepath.Join(dir, "sub", "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadTree(t.Context(), dir, 100); err == nil || !strings.HasPrefix(err.Error(), "sub/pipe: ") {
		t.Errorf("a pipe: %v", err)
	}
	dir = plant(t, nil)
	deep, err := os.OpenRoot(dir)
	for range maxPath/200 + 1 { // absolute names would be too long for the system
		if err != nil {
			t.Fatal(err)
		}
		name := strings.Repeat("d", 200)
		if err = deep.Mkdir(name, 0o700); err == nil {
			parent := deep
			deep, err = parent.OpenRoot(name)
			parent.Close()
		}
	}
	deep.Close()
	if _, err := ReadTree(t.Context(), dir, 100); err == nil || !strings.Contains(err.Error(), "want a path of at most 4096 bytes") {
		t.Errorf("a path that is too long: %v", err)
	}
	dir = plant(t, nil)
	if err := os.WriteFile(filepath.Join(dir, "\xff"), nil, 0o600); err != nil {
		t.Skip("this file system has no such names: ", err)
	}
	if _, err := ReadTree(t.Context(), dir, 100); err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("a name that is not UTF-8: %v", err)
	}
}
