package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestCorpus(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "b", "empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"c": "x y", "b/a": "", "a": "\xff"} {
		if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(name)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_ = os.Symlink("a", filepath.Join(dir, "link")) // if the system has links
	out, err := os.Create(filepath.Join(dir, "chunks.cbor"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	var stderr bytes.Buffer
	if code := run([]string{dir}, out, &stderr); code != 0 || stderr.String() != "corpus: 3 files, 0.0 MB\n" {
		t.Errorf("exit code %d: %s", code, stderr.String())
	}
	got, err := os.ReadFile(out.Name())
	const want = "\xa2\x62id\x61a\x64text\x41\xff" + "\xa2\x62id\x63b/a\x64text\x40" + "\xa2\x62id\x61c\x64text\x43x y"
	if string(got) != want || err != nil {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestUsage(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(nil, &stdout, &stderr); code != 2 || stdout.Len() > 0 {
		t.Errorf("without a directory: exit code %d", code)
	}
	if code := run([]string{filepath.Join(t.TempDir(), "none")}, &stdout, &stderr); code != 1 || stdout.Len() > 0 {
		t.Errorf("without such a directory: exit code %d", code)
	}
}
