package sqlite

import (
	"fmt"
	"os"
	"sync/atomic"

	"github.com/ncruces/go-sqlite3/vfs"
)

// countingVFS gives access to the system's files, and counts the syncs of a store.
type countingVFS struct {
	vfs.VFSFilename
	name  string
	syncs atomic.Int64
	cause atomic.Pointer[error] // the last error of a file, since SQLite's own error may lack it
	fault func(op, name string) error
	image *image // nil = the files on disk are used
}

var vfsCount atomic.Int64

func registerVFS(fault func(op, name string) error) *countingVFS {
	if fault == nil {
		fault = func(string, string) error { return nil }
	}
	v := &countingVFS{
		VFSFilename: vfs.Find("os").(vfs.VFSFilename),
		name:        fmt.Sprintf("wasm-jobs-%d", vfsCount.Add(1)), fault: fault,
	}
	vfs.Register(v.name, v)
	return v
}

func (v *countingVFS) unregister() { vfs.Unregister(v.name) }

// note stores an error as the cause, and returns it.
func (v *countingVFS) note(err error) error {
	if err != nil {
		v.cause.Store(&err)
	}
	return err
}

func (v *countingVFS) Delete(name string, syncDir bool) error {
	if v.image != nil {
		v.image.remove(name)
		return nil
	}
	if err := v.fault("delete", name); err != nil {
		return err
	}
	return v.VFSFilename.Delete(name, syncDir)
}

func (v *countingVFS) Access(name string, flags vfs.AccessFlag) (bool, error) {
	if v.image != nil {
		return v.image.exists(name), nil
	}
	return v.VFSFilename.Access(name, flags)
}

func (v *countingVFS) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	path := ""
	if name != nil {
		path = name.String()
	}
	if v.image != nil {
		open := v.image.open
		if flags&vfs.OPEN_MAIN_DB != 0 {
			open = v.image.openMain
		}
		f, err := open(path)
		return f, flags, v.note(err)
	}
	if err := v.fault("open", path); err != nil {
		return nil, flags, v.note(err)
	}
	if err := createPrivate(path, flags); err != nil {
		return nil, flags, v.note(err)
	}
	f, flags, err := v.VFSFilename.OpenFilename(name, flags)
	if err != nil {
		return nil, flags, v.note(err)
	}
	counting := &countingFile{File: f, vfs: v, name: path}
	if flags&vfs.OPEN_WAL != 0 {
		return &logFile{countingFile: counting}, flags, nil
	}
	return counting, flags, nil
}

// createPrivate creates a file that SQLite is about to create, with a mode that only
// lets its owner read it; SQLite would use the system's default. For a database it
// also creates the index of its log.
func createPrivate(path string, flags vfs.OpenFlag) error {
	if path == "" || flags&vfs.OPEN_CREATE == 0 { // without a path, it is a temporary file, which is private
		return nil
	}
	paths := []string{path}
	if flags&vfs.OPEN_MAIN_DB != 0 {
		paths = append(paths, path+"-shm")
	}
	for _, path := range paths {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

type countingFile struct {
	vfs.File
	vfs  *countingVFS
	name string
}

func (f *countingFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.vfs.fault("write", f.name); err != nil {
		return 0, f.vfs.note(err)
	}
	n, err := f.File.WriteAt(p, off)
	return n, f.vfs.note(err)
}

func (f *countingFile) Truncate(size int64) error {
	if err := f.vfs.fault("truncate", f.name); err != nil {
		return f.vfs.note(err)
	}
	return f.vfs.note(f.File.Truncate(size))
}

func (f *countingFile) Sync(flags vfs.SyncFlag) error {
	if err := f.vfs.fault("sync", f.name); err != nil {
		return f.vfs.note(err)
	}
	f.vfs.syncs.Add(1)
	return f.vfs.note(f.File.Sync(flags))
}

func (f *countingFile) SharedMemory() vfs.SharedMemory {
	if s, ok := f.File.(vfs.FileSharedMemory); ok {
		return s.SharedMemory()
	}
	return nil
}

func (f *countingFile) HasMoved() (bool, error) {
	if m, ok := f.File.(vfs.FileHasMoved); ok {
		return m.HasMoved()
	}
	return false, nil
}

func (f *countingFile) PersistWAL() bool {
	p, ok := f.File.(vfs.FilePersistWAL)
	return ok && p.PersistWAL()
}

func (f *countingFile) SetPersistWAL(keep bool) {
	if p, ok := f.File.(vfs.FilePersistWAL); ok {
		p.SetPersistWAL(keep)
	}
}

// frameHeader is the size of the header of a frame of the log. See "WAL-mode File Format"
// in SQLite's documentation.
const frameHeader = 24

// logFile is the log of a connection. SQLite appends a frame as a header and a page, one
// directly after the other; a logFile writes both with one call. It keeps back nothing
// else, since a frame must be in the file before others may write to the log.
type logFile struct {
	*countingFile
	header  []byte // to be written at end; empty or a whole one
	end     int64  // of the last page that was written
	scratch []byte
}

func (f *logFile) WriteAt(p []byte, off int64) (int, error) {
	if len(f.header) > 0 && off == f.end+frameHeader {
		f.scratch = append(append(f.scratch[:0], f.header...), p...)
		f.header = f.header[:0]
		if _, err := f.countingFile.WriteAt(f.scratch, f.end); err != nil {
			return 0, err
		}
		f.end = off + int64(len(p))
		return len(p), nil
	}
	if err := f.flush(); err != nil {
		return 0, err
	}
	if len(p) == frameHeader && off == f.end {
		f.header = append(f.header, p...)
		return len(p), nil
	}
	n, err := f.countingFile.WriteAt(p, off)
	f.end = off + int64(n)
	return n, err
}

// flush writes a header whose page did not come.
func (f *logFile) flush() error {
	if len(f.header) == 0 {
		return nil
	}
	_, err := f.countingFile.WriteAt(f.header, f.end)
	f.header, f.end = f.header[:0], -1
	return err
}

func (f *logFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.flush(); err != nil {
		return 0, err
	}
	return f.countingFile.ReadAt(p, off)
}

func (f *logFile) Truncate(size int64) error {
	if err := f.flush(); err != nil {
		return err
	}
	return f.countingFile.Truncate(size)
}

func (f *logFile) Sync(flags vfs.SyncFlag) error {
	if err := f.flush(); err != nil {
		return err
	}
	return f.countingFile.Sync(flags)
}

func (f *logFile) Size() (int64, error) {
	if err := f.flush(); err != nil {
		return 0, err
	}
	return f.countingFile.Size()
}
