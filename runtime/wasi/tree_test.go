package wasi

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// plant makes a directory. A name that ends in a slash is a directory, and a value
// that begins with "->" is a link.
func plant(t testing.TB, entries map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range entries {
		at := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		target, isLink := strings.CutPrefix(content, "->")
		switch {
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(at, 0o755)
		case isLink:
			err = os.Symlink(target, at)
		default:
			err = os.WriteFile(at, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func readTree(t testing.TB, dir string) *Tree {
	t.Helper()
	tree, err := ReadTree(t.Context(), dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// TestTreeDigest makes every difference that guests can see. Each must change the
// digest.
func TestTreeDigest(t *testing.T) {
	seen := map[[32]byte]int{}
	for i, entries := range []map[string]string{
		nil,
		{"a": ""},
		{"a/": ""},
		{"b": ""},
		{"a": "x"},
		{"a": "", "b": ""},
		{"a/b": ""},
		{"a/": "", "b": ""},
		{"a": "x", "b": ""},
		{"a": "", "b": "x"},
		{"ab": "x"},
		{"a": "->x"},
		{"a": "->b", "b": ""},
		{"a/b": "", "a/c/": ""},
		{"a/b": "", "c/": ""},
		{"a/b/c": ""},
	} {
		digest := readTree(t, plant(t, entries)).Digest()
		if other, ok := seen[digest]; ok {
			t.Errorf("trees %d and %d have the same digest", other, i)
		}
		seen[digest] = i
	}
}

func TestTreeDigestIsOfContentAlone(t *testing.T) {
	entries := map[string]string{"z": "1", "a/b": "2", "a/c": "->b", "e/": ""}
	one, two := plant(t, entries), plant(t, entries)
	old := time.Unix(1e9, 0)
	if err := errors.Join(os.Chmod(filepath.Join(two, "z"), 0o600), os.Chtimes(filepath.Join(two, "z"), old, old),
		os.Chmod(filepath.Join(two, "a"), 0o700), os.Chtimes(filepath.Join(two, "a"), old, old)); err != nil {
		t.Fatal(err)
	}
	a, b := readTree(t, one), readTree(t, two)
	if a.Digest() != b.Digest() {
		t.Error("the digest depends on modes, times or the place of the directory")
	}
	if a.Files() != 2 || a.Bytes() != 2 {
		t.Errorf("%d files of %d bytes, expected 2 of 2", a.Files(), a.Bytes())
	}
	if err := os.WriteFile(filepath.Join(one, "z"), []byte("9"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := string(a.root.child("z").data); got != "1" {
		t.Errorf("the tree changed with the directory: %q", got)
	}
	if c := readTree(t, one); c.Digest() == a.Digest() {
		t.Error("another byte gives the same digest")
	}
}

func TestTreeRefusals(t *testing.T) {
	dir := plant(t, map[string]string{"a": "12345", "b/c": "12345"})
	over := (*TreeLimitError)(nil)
	if _, err := ReadTree(t.Context(), dir, 9); !errors.As(err, &over) || over.Bytes != 9 {
		t.Errorf("a byte too many: %v", err)
	}
	if _, err := ReadTree(t.Context(), dir, 10); err != nil {
		t.Errorf("as many as allowed: %v", err)
	}
	if _, err := ReadTree(t.Context(), filepath.Join(dir, "a"), 100); err == nil {
		t.Error("a file was read as a directory")
	}
	if _, err := ReadTree(t.Context(), filepath.Join(dir, "none"), 100); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("not a directory: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ReadTree(ctx, dir, 100); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled reading: %v", err)
	}
}
