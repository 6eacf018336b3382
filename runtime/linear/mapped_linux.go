package linear

import (
	"bytes"
	"unsafe"

	"golang.org/x/sys/unix"
)

// share puts the content of an image into a sealed memory file, which cannot be
// written any more. It returns false if the system does not allow it.
func (i *Image) share(content []byte, fault fault) bool {
	if fault.of("memfd_create") != nil {
		return false
	}
	fd, err := memoryFile()
	if err != nil {
		return false
	}
	if err := fill(fd, content, fault); err != nil {
		unix.Close(fd)
		return false
	}
	// A private mapping, because Linux before 6.13 refuses a shared mapping of a
	// file that is sealed against writing, even if the mapping is read-only.
	p, err := mmap(fault, fd, nil, uint64(len(content)), unix.PROT_READ, unix.MAP_PRIVATE)
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
	if !img.share([]byte{unit - 1: 1}, nil) {
		return false
	}
	img.unshare()
	return true
}

// memoryFile creates the file. Linux 6.3 and later want to know that it will not
// be executed; earlier kernels refuse that flag.
func memoryFile() (int, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("wasm-jobs-image", flags|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate("wasm-jobs-image", flags)
	}
	return fd, err
}

// fill writes content with holes for its zeros, and seals the file.
func fill(fd int, content []byte, fault fault) error {
	if err := fault.or("ftruncate", func() error { return unix.Ftruncate(fd, int64(len(content))) }); err != nil {
		return err
	}
	for from := 0; from < len(content); {
		to := from
		for to < len(content) && !bytes.Equal(content[to:to+unit], zeros[:]) {
			to += unit
		}
		if err := fault.or("pwrite", func() error { return writeAt(fd, content[from:to], int64(from)) }); err != nil {
			return err
		}
		from = to + unit
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	return fault.or("fcntl", func() error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
		return err
	})
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

// mapped is a space in its own mapping, which never moves. Addresses for the
// whole limit are reserved at the start and become accessible as the memory
// grows. They stay accessible when it shrinks.
type mapped struct {
	all     []byte // the reservation
	ready   uint64 // accessible bytes
	image   *Image // its file is mapped at the start of all
	watch   bool   // the kernel marks written pages of the image
	watched uint64 // bytes for which it does
	fault   fault
}

// mmap maps size bytes of a file, at the given address unless that is nil.
func mmap(fault fault, fd int, at unsafe.Pointer, size uint64, protection, flags int) (p unsafe.Pointer, err error) {
	if err := fault.of("mmap"); err != nil {
		return nil, err
	}
	return unix.MmapPtr(fd, 0, at, uintptr(size), protection, flags)
}

func newSpace(limit uint64, fault fault) (space, error) {
	m, err := reserve(limit, fault)
	if err != nil {
		return nil, err
	}
	return m, nil
}

const (
	anonymous = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
	writable  = unix.PROT_READ | unix.PROT_WRITE
)

func reserve(limit uint64, fault fault) (*mapped, error) {
	p, err := mmap(fault, -1, nil, max(limit, PageSize), unix.PROT_NONE, anonymous)
	if err != nil {
		return nil, err
	}
	m := &mapped{all: unsafe.Slice((*byte)(p), max(limit, PageSize)), fault: fault}
	m.smallPages(0, uint64(len(m.all)))
	return m, nil
}

// smallPages asks the kernel not to make pages of 2 MiB: a single written byte
// would cost that much memory, and as much writing at each reset. It is a hint;
// kernels without large pages refuse it.
func (m *mapped) smallPages(from, to uint64) {
	_ = unix.Madvise(m.all[from:to], unix.MADV_NOHUGEPAGE)
}

func (m *mapped) grow(n uint64) ([]byte, error) {
	if n > m.ready {
		if err := m.fault.or("mprotect", func() error { return unix.Mprotect(m.all[m.ready:n], writable) }); err != nil {
			return nil, err
		}
		m.ready = n
	}
	return m.all[:n:n], nil
}

// attach maps the image. If it is mapped already, the kernel only drops the pages
// that differ from the image. Unlike a change of mappings, that does not block
// the page faults of other threads.
func (m *mapped) attach(img *Image) ([]byte, error) {
	if _, err := m.grow(img.size); err != nil {
		return nil, err
	}
	// This fails for locked memory (mlockall(2)), which can still be replaced by a mapping.
	if m.image != img || m.dontNeed(0, m.ready) != nil {
		if err := m.remap(img); err != nil {
			return nil, err
		}
		m.image = img
	}
	if !img.shared {
		copy(m.all, img.content)
	}
	m.watched = 0
	if n := uint64(len(img.content)); m.watch && img.shared && n > copyLimit && m.fault.of("ioctl") == nil && protect(m.all[:n]) {
		m.watched = n
	}
	return m.all[:img.size:img.size], nil
}

// dontNeed drops the pages of [from, to).
func (m *mapped) dontNeed(from, to uint64) error {
	return m.fault.or("madvise", func() error { return unix.Madvise(m.all[from:to], unix.MADV_DONTNEED) })
}

// drop also drops the marks of the pages in s, so it sets them again. If that
// fails, pages that are only read count as written.
func (m *mapped) drop(s span) bool {
	if !m.image.shared || m.dontNeed(s.from, s.to) != nil {
		return false
	}
	if s.from < m.watched && m.fault.of("ioctl") == nil {
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
	_, err := mmap(m.fault, fd, at, to-from, writable, flags|unix.MAP_FIXED)
	m.smallPages(from, to)
	return err
}

func (m *mapped) free() error {
	return unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(m.all)), uintptr(len(m.all)))
}
