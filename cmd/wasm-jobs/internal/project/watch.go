package project

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is the time from the first event to the report of changes. Editors and version
// control write several files, each in steps, and remove temporary ones.
const settle = 100 * time.Millisecond

// maxDigest is the size in bytes up to which a file is compared by content, and from
// which on by size and time.
const maxDigest = 1 << 20

// ErrRemoved is the error of [Watcher.Next] after the project's directory was removed or
// renamed.
var ErrRemoved = errors.New("the directory was removed")

// made are directories of what builds make; their names, and names that begin with a
// dot, are passed over.
var made = []string{"build", "dist", "node_modules", "target", "zig-cache", "zig-out"}

// Watcher reports which files of a project change. Close must be called. Only Ignore may
// be called while another method runs.
type Watcher struct {
	dir    string
	events *fsnotify.Watcher
	known  map[string]string // state of each file, by path

	mu      sync.Mutex
	ignored map[string]bool // paths; mu
}

// Watch begins to watch the files of the project. Changes from now on are reported by
// [Watcher.Next].
func (p *Project) Watch() (*Watcher, error) {
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	w := &Watcher{dir: p.dir, events: events, known: map[string]string{}, ignored: map[string]bool{}}
	files, err := w.add(p.dir)
	if err != nil {
		return nil, errors.Join(err, events.Close())
	}
	w.compare(files) // to know them
	return w, nil
}

// Close stops watching.
func (w *Watcher) Close() error { return w.events.Close() }

// Ignore says that changes of some files, by paths relative to the project or absolute,
// are not reported: the job writes them.
func (w *Watcher) Ignore(paths []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, path := range paths {
		if !filepath.IsAbs(path) {
			path = filepath.Join(w.dir, path)
		}
		w.ignored[filepath.Clean(path)] = true
	}
}

// Next waits until files have other contents, and returns their paths relative to the
// project, in order, each once. The error is ctx's, [ErrRemoved] or one of the system.
func (w *Watcher) Next(ctx context.Context) (changed []string, err error) {
	var touched []string
	var settled <-chan time.Time
	for {
		var more []string
		select {
		case event := <-w.events.Events:
			more, err = w.handle(event)
		case err = <-w.events.Errors:
			if errors.Is(err, fsnotify.ErrEventOverflow) { // events are lost, and the files are not
				more, err = w.add(w.dir)
			}
		case <-settled:
			if changed := w.compare(touched); len(changed) > 0 {
				return changed, w.exists()
			}
			touched, settled = nil, nil
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		if touched = append(touched, more...); len(touched) > 0 && settled == nil {
			settled = time.After(settle)
		}
	}
}

// exists returns [ErrRemoved] if the project's directory is gone. The system does not
// report that while it is the working directory of a process.
func (w *Watcher) exists() error {
	if _, err := os.Stat(w.dir); errors.Is(err, fs.ErrNotExist) {
		return ErrRemoved
	}
	return nil
}

// handle returns the paths that an event is about.
func (w *Watcher) handle(event fsnotify.Event) ([]string, error) {
	if event.Name == w.dir && event.Op.Has(fsnotify.Remove|fsnotify.Rename) {
		return nil, ErrRemoved
	}
	if w.passesOver(event.Name) {
		return nil, nil
	}
	if stat, err := os.Stat(event.Name); err == nil && stat.IsDir() {
		return w.add(event.Name)
	}
	return []string{event.Name}, nil
}

// passesOver reports whether changes of a path do not count.
func (w *Watcher) passesOver(path string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ignored[path] {
		return true
	}
	name := filepath.Base(path)
	return path != w.dir && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "#") || strings.HasSuffix(name, "~") || slices.Contains(made, name))
}

// add watches a directory and those in it, and returns their files.
func (w *Watcher) add(dir string) (files []string, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && path != w.dir: // removed meanwhile
			return nil
		case err != nil:
			return err
		case entry.IsDir() && w.passesOver(path):
			return filepath.SkipDir
		case entry.IsDir():
			return w.events.Add(path)
		case !w.passesOver(path):
			files = append(files, path)
		}
		return nil
	})
	return files, err
}

// compare returns the files that are not in their known state any more, by their paths
// relative to the project, in order. Their state is known then.
func (w *Watcher) compare(paths []string) (changed []string) {
	for _, path := range paths {
		state := stateOf(path)
		if w.known[path] == state || w.passesOver(path) {
			continue
		}
		w.known[path] = state
		if name, err := filepath.Rel(w.dir, path); err == nil {
			path = name
		}
		changed = append(changed, path)
	}
	slices.Sort(changed)
	return changed
}

// stateOf returns a text that is another one when the file has another content; "" if
// there is no file.
func stateOf(path string) string {
	stat, err := os.Stat(path)
	if err != nil || !stat.Mode().IsRegular() {
		return ""
	}
	if stat.Size() <= maxDigest {
		if content, err := os.ReadFile(path); err == nil {
			return fmt.Sprintf("%x", sha256.Sum256(content))
		}
	}
	return fmt.Sprintf("%d %v", stat.Size(), stat.ModTime())
}
