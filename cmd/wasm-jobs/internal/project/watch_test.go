package project

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// watched returns a watcher of a new directory with these files.
func watched(t *testing.T, files ...string) (*Watcher, string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range append(files, "Makefile") {
		write(t, filepath.Join(dir, name), "first")
	}
	p, err := Open(dir, "wasm-jobs")
	if err != nil {
		t.Fatal(err)
	}
	w, err := p.Watch()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w, dir
}

// until calls Next until it has reported a file, and returns all files that it has.
func until(t *testing.T, w *Watcher, name string) (all []string) {
	t.Helper()
	for !slices.Contains(all, name) {
		changed, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, changed...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Events within a short time are one change. A file with its earlier content, and one
// that has come and gone, are none.
func TestChangesSettle(t *testing.T) {
	dir := t.TempDir()
	a, b, same := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "same")
	for _, path := range []string{a, b, same} {
		write(t, path, "first")
	}
	synctest.Test(t, func(t *testing.T) {
		w := &Watcher{dir: dir, events: &fsnotify.Watcher{Events: make(chan fsnotify.Event), Errors: make(chan error)}, known: map[string]string{}}
		w.compare([]string{a, b, same})
		go func() {
			w.events.Events <- fsnotify.Event{Name: same, Op: fsnotify.Write}
			w.events.Events <- fsnotify.Event{Name: filepath.Join(dir, "gone"), Op: fsnotify.Create}
			time.Sleep(time.Second)
			w.events.Events <- fsnotify.Event{Name: b, Op: fsnotify.Create}
			write(t, b, "second")
			time.Sleep(settle / 2)
			write(t, a, "second")
			for range 3 {
				w.events.Events <- fsnotify.Event{Name: a, Op: fsnotify.Write}
			}
			time.Sleep(settle)
			write(t, a, "third")
			w.events.Events <- fsnotify.Event{Name: a, Op: fsnotify.Write}
		}()
		start := time.Now()
		for _, want := range []struct {
			changed []string
			after   time.Duration
		}{{[]string{"a", "b"}, time.Second + settle}, {[]string{"a"}, time.Second + settle/2 + settle + settle}} {
			got, err := w.Next(t.Context())
			if err != nil || !slices.Equal(got, want.changed) || time.Since(start) != want.after {
				t.Errorf("%q after %v, error %v; want %q after %v", got, time.Since(start), err, want.changed, want.after)
			}
		}
	})
}

// Files in directories that are made later are watched too; those that builds and
// editors make are not.
func TestWatch(t *testing.T) {
	w, dir := watched(t, "main.c", "sub/part.c", "build/x.wasm")
	for _, name := range []string{"build/x.wasm", ".main.c.swp", "main.c~", "node_modules/x/y.js", ".git/HEAD"} {
		write(t, filepath.Join(dir, name), "second")
	}
	w.Ignore([]string{"report.json"})
	write(t, filepath.Join(dir, "report.json"), "{}")
	write(t, filepath.Join(dir, "main.c"), "second")
	if got := until(t, w, "main.c"); !slices.Equal(got, []string{"main.c"}) {
		t.Errorf("changed: %q", got)
	}
	write(t, filepath.Join(dir, "new", "deep", "a.c"), "first")
	until(t, w, filepath.Join("new", "deep", "a.c"))
	write(t, filepath.Join(dir, "new", "deep", "a.c"), "second")
	until(t, w, filepath.Join("new", "deep", "a.c"))
	if err := os.Remove(filepath.Join(dir, "sub", "part.c")); err != nil {
		t.Fatal(err)
	}
	until(t, w, filepath.Join("sub", "part.c"))
}

func TestWatchEnds(t *testing.T) {
	for name, end := range map[string]func(dir string) error{
		"removed": os.RemoveAll,
		"renamed": func(dir string) error { return os.Rename(dir, dir+"2") },
	} {
		w, dir := watched(t, "main.c")
		if err := end(dir); err != nil {
			t.Fatal(err)
		}
		var err error
		for err == nil { // files that are removed first may be reported first
			_, err = w.Next(t.Context())
		}
		if !errors.Is(err, ErrRemoved) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	w, _ := watched(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
