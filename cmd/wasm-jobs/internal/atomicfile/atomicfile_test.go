package atomicfile

import (
	"bufio"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func writeText(t *testing.T, path, text string) *File {
	t.Helper()
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Fill(func(w *bufio.Writer) error { _, err := w.WriteString(text); return err }); err != nil {
		t.Fatal(err)
	}
	return f
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func TestFileAppearsWhenItIsPlaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, strings.Repeat("n", 255)) // as long as names may be
	f := writeText(t, path, "all of it")
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("before it is placed there is a file, error %v", err)
	}
	if err := f.Place(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); string(b) != "all of it" || err != nil {
		t.Errorf("it holds %q, error %v", b, err)
	}
	f.Discard() // to no effect
	if left := names(t, dir); left != filepath.Base(path) {
		t.Errorf("there are %s", left)
	}
}

func TestDiscardLeavesWhatWasThere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "result")
	if err := os.WriteFile(path, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	f := writeText(t, path, "new")
	if err := f.Seal(); err != nil {
		t.Fatal(err)
	}
	f.Discard()
	if b, err := os.ReadFile(path); string(b) != "old" || err != nil || names(t, dir) != "result" {
		t.Errorf("it holds %q, error %v; there are %s", b, err, names(t, dir))
	}
	f = writeText(t, path, "new")
	if err := f.Place(); err != nil {
		t.Fatal(err)
	}
	stat, err := os.Stat(path)
	if b, readErr := os.ReadFile(path); string(b) != "new" || err != nil || readErr != nil || stat.Mode() != fs.FileMode(0o640) {
		t.Errorf("it holds %q with mode %v, errors %v and %v", b, stat.Mode(), err, readErr)
	}
}
