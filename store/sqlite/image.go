package sqlite

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/ncruces/go-sqlite3/vfs"
)

// image is a view of the files of a store that cannot be written, for example on a
// file system that is read-only or full. SQLite's writes (the index of the log, and
// the conversion of an older layout) stay in memory. If another process writes the
// files meanwhile, reads may or may not see it, or fail on the checksum of a page.
type image struct {
	mu    sync.Mutex
	files map[string]*imageFile
	over  []byte     // whole blocks that replace the first ones of the database; nil = none
	main  *imageFile // the database, once it is open
}

// imageFile is a file with the blocks that were written over it.
type imageFile struct {
	mu      sync.Mutex
	from    *os.File // nil if there is none
	size    int64
	written map[int64][]byte // blocks, by their numbers
}

const imageBlock = 4096

func newImage() *image { return &image{files: map[string]*imageFile{}} }

// open returns a file, which is created in memory if it does not exist. A file
// without a name is temporary.
func (m *image) open(path string) (vfs.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.files[path]; f != nil && path != "" {
		return imageHandle{f}, nil
	}
	f := &imageFile{written: map[int64][]byte{}}
	if path != "" {
		var err error
		if f.from, f.size, err = openRegular(path); err != nil {
			return nil, err
		}
		m.files[path] = f
	}
	return imageHandle{f}, nil
}

// openMain returns the database, with the blocks that replace its own.
func (m *image) openMain(path string) (vfs.File, error) {
	h, err := m.open(path)
	if err != nil || m.main != nil {
		return h, err
	}
	m.main = m.files[path]
	_, err = h.WriteAt(m.over, 0)
	return h, err
}

func openRegular(path string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

func (m *image) exists(path string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.files[path]; f != nil {
		return f.size > 0
	}
	info, err := os.Stat(path)
	return err == nil && info.Size() > 0
}

// remove empties a file.
func (m *image) remove(path string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.files[path]; f != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.size, f.from, f.written = 0, nil, map[int64][]byte{}
	}
}

func (m *image) close() (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.files {
		if f.from != nil {
			err = errors.Join(err, f.from.Close())
		}
	}
	clear(m.files)
	return err
}

// block returns the current block with a number.
func (f *imageFile) block(i int64) ([]byte, error) {
	if b := f.written[i]; b != nil {
		return b, nil
	}
	b := make([]byte, imageBlock)
	if f.from == nil {
		return b, nil
	}
	if _, err := f.from.ReadAt(b, i*imageBlock); err != nil && err != io.EOF {
		return nil, err
	}
	return b, nil
}

// each calls do with the parts of blocks that cover size bytes from an offset on.
func (f *imageFile) each(size int, off int64, do func(i int64, block []byte, from, to int) error) error {
	for done := 0; done < size; {
		i, within := (off+int64(done))/imageBlock, int((off+int64(done))%imageBlock)
		b, err := f.block(i)
		if err != nil {
			return err
		}
		n := min(size-done, imageBlock-within)
		if err := do(i, b[within:within+n], done, done+n); err != nil {
			return err
		}
		done += n
	}
	return nil
}

// imageHandle is an open file. It needs no locks: only this process sees the image,
// and all its writes come before its reads.
type imageHandle struct{ f *imageFile }

func (h imageHandle) ReadAt(p []byte, off int64) (int, error) {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	n := int(max(0, min(int64(len(p)), h.f.size-off)))
	err := h.f.each(n, off, func(_ int64, b []byte, from, to int) error {
		copy(p[from:to], b)
		return nil
	})
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (h imageHandle) WriteAt(p []byte, off int64) (int, error) {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	h.f.size = max(h.f.size, off+int64(len(p)))
	err := h.f.each(len(p), off, func(i int64, _ []byte, from, to int) error {
		whole, err := h.f.block(i)
		if err != nil {
			return err
		}
		copy(whole[(off+int64(from))%imageBlock:], p[from:to])
		h.f.written[i] = whole
		return nil
	})
	return len(p), err
}

// Truncate changes the size. It keeps the blocks that are cut off: SQLite does not
// read them again before it writes them.
func (h imageHandle) Truncate(size int64) error {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	h.f.size = size
	return nil
}

func (h imageHandle) Size() (int64, error) {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	return h.f.size, nil
}

func (imageHandle) Close() error                                    { return nil }
func (imageHandle) Sync(vfs.SyncFlag) error                         { return nil }
func (imageHandle) Lock(vfs.LockLevel) error                        { return nil }
func (imageHandle) Unlock(vfs.LockLevel) error                      { return nil }
func (imageHandle) CheckReservedLock() (bool, error)                { return false, nil }
func (imageHandle) SectorSize() int                                 { return imageBlock }
func (imageHandle) DeviceCharacteristics() vfs.DeviceCharacteristic { return 0 }
func (imageHandle) PersistWAL() bool                                { return true }
func (imageHandle) SetPersistWAL(bool)                              {}
