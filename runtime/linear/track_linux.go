package linear

import (
	"encoding/binary"
	"runtime"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A page of a private mapping is anonymous after the first write: it is a copy of
// the page of the file. In memory without a file, a page that was only read is
// the kernel's page of zeros. So the pages that may have been written are the
// anonymous pages, in memory or swapped out.

// pagemap is the descriptor of /proc/self/pagemap, opened once (-1 = failed).
// Since Linux 4.2 any process may read its own pagemap, without physical
// addresses (Documentation/admin-guide/mm/pagemap.rst).
var pagemap = sync.OnceValue(func() int {
	fd, err := unix.Open("/proc/self/pagemap", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
})

var systemStrategies = sync.OnceValue(func() []Strategy {
	if !canShare() {
		return nil
	}
	all := []Strategy{Discard}
	for _, s := range []Strategy{Pagemap, Scan, Userfault} {
		if honest(s, nil) {
			all = append(all, s)
		}
	}
	return all
})

// systemPreferred returns the best strategy, without trying the others.
func systemPreferred() Strategy {
	if !canShare() {
		return Auto
	}
	for _, s := range []Strategy{Userfault, Scan, Pagemap} {
		if honest(s, nil) {
			return s
		}
	}
	return Discard
}

// tracker implements space.
func (m *mapped) tracker(s Strategy) tracker {
	m.watch = s == Userfault
	switch s {
	case Scan, Userfault:
		return &scanner{space: m}
	case Pagemap:
		return &reader{fault: m.fault}
	}
	return nil
}

// Values of linux/fs.h.
const (
	ioctlPagemapScan = 0xC0606610 // _IOWR('f', 16, struct pm_scan_arg)

	pageIsWritten = 1 << 1
	pageIsFile    = 1 << 2
	pageIsPresent = 1 << 3
	pageIsSwapped = 1 << 4
	pageIsPfnZero = 1 << 5

	checkWPAsync = 1 << 1 // fail if nothing is marked
)

// pageRegion is struct page_region.
type pageRegion struct{ start, end, _ uint64 }

// scanArg is struct pm_scan_arg.
type scanArg struct {
	size, flags, start, end, walkEnd  uint64
	vec                               uintptr
	vecLen, maxPages                  uint64
	inverted, mask, anyOf, returnMask uint64
}

// scanner is the tracker of Scan and Userfault. It must be on the heap, because
// the kernel gets its address as a number.
type scanner struct {
	space   *mapped
	arg     scanArg
	regions [256]pageRegion
}

// written implements tracker.
func (s *scanner) written(b []byte, limit uint64, spans []span) ([]span, bool) {
	marked := scanArg{flags: checkWPAsync, mask: pageIsWritten, returnMask: pageIsWritten}
	// Present or swapped, and neither a page of the file nor the page of zeros.
	anonymous := scanArg{
		inverted:   pageIsFile | pageIsPfnZero,
		mask:       pageIsFile | pageIsPfnZero,
		anyOf:      pageIsPresent | pageIsSwapped,
		returnMask: pageIsFile,
	}
	end := uint64(len(b))
	spans, found, ok := s.collect(b, span{0, min(s.space.watched, end)}, marked, limit, spans)
	if !ok {
		return spans, false
	}
	spans, _, ok = s.collect(b, span{min(s.space.watched, end), end}, anonymous, limit-found, spans)
	return spans, ok
}

// collect appends the pages of b that arg in r asks for. The kernel joins them to
// ranges.
func (s *scanner) collect(b []byte, r span, arg scanArg, limit uint64, spans []span) (_ []span, found uint64, ok bool) {
	base := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	for at := r.from; at < r.to; at = s.arg.walkEnd - base {
		arg.start, arg.end = base+at, base+r.to
		n, ok := s.scan(arg)
		if !ok || s.arg.walkEnd <= arg.start {
			return spans, found, false
		}
		for _, r := range s.regions[:n] {
			found += r.end - r.start
			spans = append(spans, span{r.start - base, r.end - base})
		}
		if found > limit {
			return spans, found, false
		}
	}
	return spans, found, true
}

// scan fills s.regions and sets walkEnd in s.arg.
func (s *scanner) scan(arg scanArg) (int, bool) {
	if s.space.fault.of("ioctl") != nil {
		return 0, false
	}
	arg.size = uint64(unsafe.Sizeof(arg))
	arg.vec, arg.vecLen = uintptr(unsafe.Pointer(&s.regions)), uint64(len(s.regions))
	s.arg = arg
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pagemap()), ioctlPagemapScan, uintptr(unsafe.Pointer(&s.arg)))
	runtime.KeepAlive(s)
	return int(n), errno == 0
}

// Values of linux/userfaultfd.h.
const (
	userModeOnly = 1 // lets processes without privileges use it

	ioctlUserfaultAPI      = 0xC018AA3F // _IOWR(0xAA, 0x3F, struct uffdio_api)
	ioctlUserfaultRegister = 0xC020AA00 // _IOWR(0xAA, 0x00, struct uffdio_register)
	ioctlUserfaultProtect  = 0xC018AA06 // _IOWR(0xAA, 0x06, struct uffdio_writeprotect)

	userfaultVersion     = 0xAA
	userfaultFile        = 1 << 12 // protects pages of memory files
	userfaultUnpopulated = 1 << 13 // and pages that are not in memory
	userfaultAsync       = 1 << 15 // the kernel removes the protection itself

	registerProtect = 1 << 1
	protectSet      = 1
)

// userfault is the descriptor for protecting memory of this process, opened once
// (-1 = failed). Nobody reads from it, because no faults are reported.
var userfault = sync.OnceValue(func() int {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|userModeOnly, 0, 0)
	if errno != 0 {
		return -1
	}
	arg := [3]uint64{userfaultVersion, userfaultFile | userfaultUnpopulated | userfaultAsync}
	if !userfaultCall(int(fd), ioctlUserfaultAPI, unsafe.Pointer(&arg)) {
		unix.Close(int(fd))
		return -1
	}
	return int(fd)
})

func userfaultCall(fd int, request uintptr, arg unsafe.Pointer) bool {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	return errno == 0
}

// protect makes the kernel mark the pages of b that are written from now on. The
// marks last until b is unmapped or replaced by another mapping.
func protect(b []byte) bool {
	from := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	arg := [4]uint64{from, uint64(len(b)), registerProtect}
	return userfaultCall(userfault(), ioctlUserfaultRegister, unsafe.Pointer(&arg)) && writeProtect(b)
}

// writeProtect clears the marks of the pages of b.
func writeProtect(b []byte) bool {
	from := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	arg := [3]uint64{from, uint64(len(b)), protectSet}
	return userfaultCall(userfault(), ioctlUserfaultProtect, unsafe.Pointer(&arg))
}

// Bits of an entry in /proc/self/pagemap.
const (
	entryFile    = 1 << 61 // or shared with another process
	entrySwapped = 1 << 62
	entryPresent = 1 << 63
)

// reader is the tracker of Pagemap. It also reports pages of zeros.
type reader struct {
	fault   fault
	entries [1024 * 8]byte
}

// written implements tracker.
func (r *reader) written(b []byte, limit uint64, spans []span) ([]span, bool) {
	base := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) / systemPage
	last := span{}
	found := uint64(0)
	for page, pages := uint64(0), uint64(len(b))/systemPage; page < pages; {
		want := min((pages-page)*8, uint64(len(r.entries)))
		if r.fault.of("pread") != nil {
			return spans, false
		}
		n, err := unix.Pread(pagemap(), r.entries[:want], int64(base+page)*8)
		if err != nil || n < 8 || n%8 != 0 {
			return spans, false
		}
		for i := 0; i < n; i, page = i+8, page+1 {
			if !anonymousEntry(binary.NativeEndian.Uint64(r.entries[i:])) {
				continue
			}
			found += systemPage
			if at := page * systemPage; at != last.to || last.to == 0 {
				spans = append(spans, span{at, at})
			}
			last.to = (page + 1) * systemPage
			spans[len(spans)-1].to = last.to
		}
		if found > limit {
			return spans, false
		}
	}
	return spans, true
}

func anonymousEntry(e uint64) bool {
	return e&entrySwapped != 0 || e&entryPresent != 0 && e&entryFile == 0
}

// honest reports whether the tracker of a strategy is correct on this system. It
// must report every page that was written: with its old value, by the kernel, or
// after it was written back. It must not report a page of the image that was only
// read. A page that it misses would leak from one call to the next. Tests pass a
// tracker of their own.
//
// Swapped pages are not tried: a process cannot make the kernel swap.
func honest(s Strategy, t tracker) bool {
	const pages = 64 // of the image; as many come after it
	half := pages * systemPage
	img, err := NewImage(slices.Repeat([]byte{1}, int(half)))
	if err != nil {
		return false
	}
	defer img.Close()
	m, err := reserve(2*half, nil)
	if err != nil {
		return false
	}
	defer m.free()
	own := m.tracker(s)
	if _, err := m.attach(img); err != nil || m.watch && m.watched != half {
		return false
	}
	b, err := m.grow(2 * half)
	if err != nil {
		return false
	}
	if t == nil {
		t = own
	}
	var written [2 * pages]bool
	for _, round := range [][]int{{1, 3, 4, pages, pages + 7}, {0, 1, pages - 1, 2*pages - 1}} {
		_ = allZero(b[5*systemPage:][:systemPage])
		_ = allZero(b[half+5*systemPage:][:systemPage])
		for _, page := range round {
			b[page*int(systemPage)+7] = 1
			written[page] = true
		}
		byKernel := 10 + round[0]
		if _, err := unix.Pread(img.file, b[byKernel*int(systemPage):][:1], 0); err != nil {
			return false
		}
		written[byKernel] = true
		spans, ok := t.written(b, 2*half, nil)
		if !ok || !reports(spans, written[:pages], written[pages:]) {
			return false
		}
		for _, s := range spans {
			img.writeBack(b, s)
		}
	}
	// Dropped pages do not count as written.
	for i := range written {
		written[i] = false
	}
	_ = m.drop(span{0, half})
	_ = allZero(b[:systemPage])
	spans, ok := t.written(b, 2*half, nil)
	return ok && reports(spans, written[:pages], written[pages:])
}

// reports reports whether spans are exactly the written pages of the image, and
// at least the written pages after it.
func reports(spans []span, image, after []bool) bool {
	reported := make([]bool, len(image)+len(after))
	for _, s := range spans {
		for at := s.from; at < s.to; at += systemPage {
			reported[at/systemPage] = true
		}
	}
	for i, written := range after {
		if written && !reported[len(image)+i] {
			return false
		}
	}
	return slices.Equal(reported[:len(image)], image)
}
