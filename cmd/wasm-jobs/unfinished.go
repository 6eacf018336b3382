package main

import (
	"os"
	"sync"
)

// unfinished are files and directories that a command creates under their final names,
// because they must not exist before. They are removed if the command fails, or if a
// signal ends the process before all of them are complete.
type unfinished struct {
	mu    sync.Mutex
	paths []string
}

// newUnfinished returns an unfinished whose files a signal removes.
func (c *console) newUnfinished() *unfinished {
	u := &unfinished{}
	c.signals.Cleanup(u.abandon)
	return u
}

// make calls f, which creates the file or directory at path. f does not run while
// abandon or discard removes it.
func (u *unfinished) make(path string, f func() error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	err := f()
	if err == nil {
		u.paths = append(u.paths, path)
	}
	return err
}

// temp creates a temporary file.
func (u *unfinished) temp(pattern string) (*os.File, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	file, err := os.CreateTemp("", pattern)
	if err == nil {
		u.paths = append(u.paths, file.Name())
	}
	return file, err
}

// finish keeps the files: all of them are complete.
func (u *unfinished) finish() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.paths = nil
}

// discard removes the files unless finish was called.
func (u *unfinished) discard() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.remove()
}

// abandon is discard for a process that ends abruptly: a later call of make blocks
// forever.
func (u *unfinished) abandon() {
	u.mu.Lock()
	u.remove()
}

func (u *unfinished) remove() {
	for _, path := range u.paths {
		_ = os.RemoveAll(path) // the user will see a file that cannot be removed
	}
	u.paths = nil
}
