package linear

import (
	"bytes"
	"unsafe"

	"golang.org/x/sys/unix"
)

// share puts the content of an image into a file in memory, which nobody can
// write any more. It returns false where the system does not let it.
func (i *Image) share(content []byte) bool {
	fd, err := memoryFile()
	if err != nil {
		return false
	}
	if err := fill(fd, content); err != nil {
		unix.Close(fd)
		return false
	}
	// Private, since a shared mapping of a file that is sealed against writing
	// is refused before Linux 6.13, even if it is read-only.
	p, err := unix.MmapPtr(fd, 0, nil, uintptr(len(content)), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		unix.Close(fd)
		return false
	}
	i.file, i.shared = fd, true
	i.content = unsafe.Slice((*byte)(p), len(content))
	return true
}

func (i *Image) unshare() {
	_ = unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(i.content)), uintptr(len(i.content)))
	unix.Close(i.file)
}

// canShare reports whether this system shares images.
func canShare() bool {
	img := &Image{}
	if !img.share([]byte{unit - 1: 1}) {
		return false
	}
	img.unshare()
	return true
}

// memoryFile makes the file. Linux 6.3 and later want to hear that it will not
// be executed, earlier ones refuse the flag.
func memoryFile() (int, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("wasm-jobs-image", flags|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate("wasm-jobs-image", flags)
	}
	return fd, err
}

// fill writes content, leaving holes where it is zero, and seals the file.
func fill(fd int, content []byte) error {
	if err := unix.Ftruncate(fd, int64(len(content))); err != nil {
		return err
	}
	for from := 0; from < len(content); {
		to := from
		for to < len(content) && !bytes.Equal(content[to:to+unit], zeros[:]) {
			to += unit
		}
		if err := writeAt(fd, content[from:to], int64(from)); err != nil {
			return err
		}
		from = to + unit
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	return err
}

func writeAt(fd int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, at)
		if err != nil && err != unix.EINTR {
			return err
		}
		n = max(n, 0)
		b, at = b[n:], at+int64(n)
	}
	return nil
}

// mapped is a space in a mapping of its own, which never moves: addresses for
// the whole limit are reserved at the start and made accessible as the memory
// grows. They stay accessible when it shrinks.
type mapped struct {
	all     []byte // the reservation
	ready   uint64 // bytes that are accessible
	image   *Image // whose file is mapped at the start of all
	watch   bool   // have the kernel mark what is written of the image
	watched uint64 // bytes of which it does
}

func newSpace(limit uint64) (space, error) {
	m, err := reserve(limit)
	if err != nil {
		return nil, err
	}
	return m, nil
}

const (
	anonymous = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
	writable  = unix.PROT_READ | unix.PROT_WRITE
)

func reserve(limit uint64) (*mapped, error) {
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(max(limit, PageSize)), unix.PROT_NONE, anonymous)
	if err != nil {
		return nil, err
	}
	m := &mapped{all: unsafe.Slice((*byte)(p), max(limit, PageSize))}
	m.smallPages(0, uint64(len(m.all)))
	return m, nil
}

// smallPages keeps the kernel from making pages of 2 MiB: a byte written would
// cost that much memory, and as much writing at each reset. It is a hint, which
// kernels without large pages refuse.
func (m *mapped) smallPages(from, to uint64) {
	_ = unix.Madvise(m.all[from:to], unix.MADV_NOHUGEPAGE)
}

func (m *mapped) grow(n uint64) ([]byte, error) {
	if n > m.ready {
		if err := unix.Mprotect(m.all[m.ready:n], writable); err != nil {
			return nil, err
		}
		m.ready = n
	}
	return m.all[:n:n], nil
}

// attach maps the image. If it is mapped already, the kernel only drops the
// pages that are not the image's, which does not stop the faults of other
// threads as a change of mappings does.
func (m *mapped) attach(img *Image) ([]byte, error) {
	if _, err := m.grow(img.size); err != nil {
		return nil, err
	}
	// It fails on locked memory (mlockall(2)), which can still be mapped over.
	if m.image != img || unix.Madvise(m.all[:m.ready], unix.MADV_DONTNEED) != nil {
		if err := m.remap(img); err != nil {
			return nil, err
		}
		m.image = img
	}
	if !img.shared {
		copy(m.all, img.content)
	}
	m.watched = 0
	if n := uint64(len(img.content)); m.watch && img.shared && n > copyLimit && protect(m.all[:n]) {
		m.watched = n
	}
	return m.all[:img.size:img.size], nil
}

// drop drops the marks of s with its pages, so they are set again. Where that
// fails, pages that are only read count as written.
func (m *mapped) drop(s span) bool {
	if !m.image.shared || unix.Madvise(m.all[s.from:s.to], unix.MADV_DONTNEED) != nil {
		return false
	}
	if s.from < m.watched {
		writeProtect(m.all[s.from:min(s.to, m.watched)])
	}
	return true
}

// remap maps the file of img, if it has one, followed by empty memory.
func (m *mapped) remap(img *Image) error {
	n := uint64(0)
	if img.shared {
		n = uint64(len(img.content))
		if err := m.fix(0, n, img.file, unix.MAP_PRIVATE|unix.MAP_NORESERVE); err != nil {
			return err
		}
	}
	return m.fix(n, m.ready, -1, anonymous)
}

// fix replaces the mapping of [from, to).
func (m *mapped) fix(from, to uint64, fd, flags int) error {
	if from == to {
		return nil
	}
	at := unsafe.Pointer(unsafe.SliceData(m.all[from:to]))
	_, err := unix.MmapPtr(fd, 0, at, uintptr(to-from), writable, flags|unix.MAP_FIXED)
	m.smallPages(from, to)
	return err
}

func (m *mapped) free() error {
	return unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(m.all)), uintptr(len(m.all)))
}
