package sqlite

import (
	"fmt"
	"sync/atomic"

	"github.com/ncruces/go-sqlite3/vfs"
)

// countingVFS is the system's files, with the syncs of one store counted.
type countingVFS struct {
	vfs.VFSFilename
	name  string
	syncs atomic.Int64
	cause atomic.Pointer[error] // the last error of a file, which SQLite may forget
	fault func(op, name string) error
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

// note keeps an error, and returns it.
func (v *countingVFS) note(err error) error {
	if err != nil {
		v.cause.Store(&err)
	}
	return err
}

func (v *countingVFS) Delete(name string, syncDir bool) error {
	if err := v.fault("delete", name); err != nil {
		return err
	}
	return v.VFSFilename.Delete(name, syncDir)
}

func (v *countingVFS) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, flags, err := v.VFSFilename.OpenFilename(name, flags)
	if err != nil {
		return nil, flags, err
	}
	path := ""
	if name != nil {
		path = name.String()
	}
	return &countingFile{File: f, vfs: v, name: path}, flags, nil
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
