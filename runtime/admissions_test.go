package runtime

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

func tinyModule(t *testing.T) []byte {
	t.Helper()
	wasm, err := os.ReadFile("../guest-examples/square/c/square.wasm")
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// TestAdmissions stores an admission and loads it again. It must not be loaded
// if any bit of it is damaged, for another module, for other options, or by
// another build of the program.
func TestAdmissions(t *testing.T) {
	wasm := tinyModule(t)
	digest := sha256.Sum256(wasm)
	c := openAdmissions(t.TempDir())
	if a := c.get(digest, Options{}); a != nil {
		t.Fatal("there is one before any was kept")
	}
	want := admitted(wasm, Options{})
	c.put(digest, Options{}, want)
	got := c.get(digest, Options{})
	if !reflect.DeepEqual(got.Description, want.Description) || got.Stack != want.Stack ||
		len(got.Globals) != len(want.Globals) || !bytes.Equal(got.wasm, want.wasm) {
		t.Errorf("kept %+v, and got %+v", want, got)
	}
	for i, g := range got.Globals {
		if g.Export != want.Globals[i].Export || g.Type != want.Globals[i].Type {
			t.Errorf("global %d is %+v, want %+v", i, g, want.Globals[i])
		}
	}
	other := c
	other.program += "x"
	if c.get(digest, Options{NoMetering: true}) != nil || c.get(sha256.Sum256(nil), Options{}) != nil || other.get(digest, Options{}) != nil {
		t.Error("loaded for another module, options or build")
	}
	path := c.path(digest, Options{})
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(file); at += 1 + at/50 {
		damaged := bytes.Clone(file)
		damaged[at] ^= 1 << (at % 8)
		write(t, path, damaged)
		if c.get(digest, Options{}) != nil {
			t.Fatalf("a flipped bit in byte %d is not noticed", at)
		}
		write(t, path, file[:at])
		if c.get(digest, Options{}) != nil {
			t.Fatalf("a file of %d bytes is not noticed", at)
		}
	}
	c.put(digest, Options{}, want)
	if c.get(digest, Options{}) == nil {
		t.Error("it is not kept again")
	}
}

// A valid file for another module, under the name of this one.
func TestAdmissionOfAnother(t *testing.T) {
	wasm := tinyModule(t)
	c := openAdmissions(t.TempDir())
	c.put(sha256.Sum256(wasm), Options{}, admitted(wasm, Options{}))
	file, err := os.ReadFile(c.path(sha256.Sum256(wasm), Options{}))
	if err != nil {
		t.Fatal(err)
	}
	write(t, c.path([32]byte{1}, Options{}), file)
	if c.get([32]byte{1}, Options{}) != nil {
		t.Error("another module's admission is taken")
	}
}

func TestTrim(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	add := func(name string, size int, age time.Duration) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, path, make([]byte, size))
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	oldest := add("wazero-x/a", 400, 4*time.Hour)
	second := add("admitted/b", 400, 3*time.Hour)
	stays := []string{
		add("admitted/c", 400, 2*time.Hour),
		add("wazero-x/d", 400, time.Hour),
		add("admitted/new-1", 5000, time.Minute), // is being written
		add("not-ours", 5000, 5*time.Hour),
		add("nor/this", 5000, 5*time.Hour),
	}
	trim(dir, 1000)
	for _, path := range []string{oldest, second} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	for _, path := range stays {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
