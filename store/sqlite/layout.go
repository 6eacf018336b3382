package sqlite

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// newSuffix is appended to the name of the store's file while a new one is written.
const newSuffix = "-new"

// errEmpty means that the file has no tables.
var errEmpty = errors.New("the file is empty")

// create creates the file if it is missing or has no bytes. The lock is held.
func (s *Store) create() (created bool, err error) {
	if s.vfs.image != nil {
		return false, nil
	}
	if err := s.vfs.fault("create", s.path); err != nil {
		return false, &fs.PathError{Op: "create", Path: s.path, Err: err}
	}
	info, err := os.Stat(s.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		err = s.layOutFile()
		return err == nil, err
	}
	return false, err
}

// emptyFile is a store without outputs and jobs, as layOut makes it. Writing it takes a
// tenth of the time that SQLite takes to make it.
//
//go:generate go test -run ^TestEmptyFile$ -update
//go:embed empty.db
var emptyFile []byte

// layOutFile creates the file, or replaces an empty one. The new file is written under
// another name, synced once, and renamed, so that it is either complete or missing. The
// first commit makes its name durable, since it syncs the directory with the new log.
// The lock is held.
func (s *Store) layOutFile() error {
	path := s.path + newSuffix
	if err := s.writeSynced(path, emptyFile); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	if err := s.removeLogs(); err != nil {
		return err
	}
	return s.rename(path, s.path)
}

// writeSynced writes a file for its owner only, and makes its content durable.
func (s *Store) writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		op string
		do func() error
	}{
		{"write", func() error { _, err := f.Write(content); return err }},
		{"sync", func() error { s.vfs.syncs.Add(1); return f.Sync() }},
	} {
		if err = s.vfs.fault(step.op, path); err != nil {
			err = &fs.PathError{Op: step.op, Path: path, Err: err}
			break
		}
		if err = step.do(); err != nil {
			break
		}
	}
	return errors.Join(err, f.Close())
}

// removeLogs removes the log, its index and the journal of an empty file: SQLite would
// use them with the next one.
func (s *Store) removeLogs() (err error) {
	for _, suffix := range []string{"-wal", "-shm", "-journal"} {
		if e := os.Remove(s.path + suffix); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// layOut creates the tables of a database that has none.
func (c *conn) layOut() error {
	if err := c.Exec(fmt.Sprintf("pragma page_size=%d; pragma application_id=%d; pragma user_version=%d",
		pageSize, applicationID, Version<<16|Version)); err != nil {
		return err
	}
	if err := c.EnableChecksums("main"); err != nil {
		return err
	}
	return c.transaction("begin immediate", func() error { return c.Exec(schema + jobSchema) })
}
