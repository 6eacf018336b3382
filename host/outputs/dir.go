package outputs

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"sync"
)

// Dir writes files into a directory. Each file appears under its name only when
// it is complete.
//
// Its methods are safe for concurrent use; files are written one after another.
// Unlike a file of all outputs, single files are not flushed to disk: for a
// million of them that takes minutes.
type Dir struct {
	path      string
	temporary func() string

	writing sync.Mutex // held while a file is written

	mu     sync.Mutex // guards all below
	closed bool
	temp   string // of the file that is being written, or ""
	file   *os.File
}

// ErrClosed is the error of [Dir.Write] after [Dir.Close].
var ErrClosed = errors.New("outputs: the directory is closed")

// DirOptions configure how files are written to a directory. The zero
// DirOptions work.
type DirOptions struct {
	// Temporary returns a new name, without separators, for an incomplete file.
	// A process that is killed leaves one file with such a name. If the name
	// identifies the process, a later process can remove it. nil makes random
	// names.
	Temporary func() string
}

// OpenDir creates a directory unless it exists, and checks that files can be
// created in it.
func OpenDir(path string, o DirOptions) (*Dir, error) {
	if o.Temporary == nil {
		o.Temporary = func() string { return ".output." + rand.Text() }
	}
	if err := os.MkdirAll(path, 0o777); err != nil { // less the umask
		return nil, err
	}
	d := &Dir{path: path, temporary: o.Temporary}
	if err := d.begin(); err != nil {
		return nil, err
	}
	return d, d.remove()
}

// Path returns the path of the directory as passed to OpenDir.
func (d *Dir) Path() string { return d.path }

// begin creates a temporary file.
func (d *Dir) begin() (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	temp := filepath.Join(d.path, d.temporary())
	if d.file, err = os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666); err == nil {
		d.temp = temp
	}
	return err
}

// remove removes the temporary file, if there is one.
func (d *Dir) remove() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.temp == "" {
		return nil
	}
	temp := d.temp
	d.temp = ""
	return errors.Join(d.file.Close(), os.Remove(temp))
}

// Put writes the output of a chunk to a file named after the chunk.
func (d *Dir) Put(o Output) error { return d.Write(o.ID.FileName()+".cbor", o.Output) }

// Write writes a file. Its name must not contain separators.
func (d *Dir) Write(name string, contents []byte) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.begin(); err != nil {
		return err
	}
	if _, err := d.file.Write(contents); err != nil {
		return errors.Join(err, d.remove())
	}
	return d.place(name)
}

// place renames the temporary file to name.
func (d *Dir) place(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	temp := d.temp
	d.temp = ""
	err := d.file.Close()
	if err == nil {
		err = os.Rename(temp, filepath.Join(d.path, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}

// Close removes an incomplete file, even while another goroutine writes it.
// Nothing can be written after Close.
func (d *Dir) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	return d.remove()
}
