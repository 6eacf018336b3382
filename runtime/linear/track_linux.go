package linear

import (
	"encoding/binary"
	"os"
	"runtime"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A page of a private mapping is anonymous from the first write on: it is a
// copy of the page of the file. In memory without a file, a page that was only
// read is the kernel's page of zeros. So the pages that may have been written
// are the anonymous ones, in memory or swapped out.

var systemPage = uint64(os.Getpagesize())

// pagemap is the descriptor of /proc/self/pagemap, opened once (-1 = failed).
// Any process may read its own since Linux 4.2, without physical addresses
// (Documentation/admin-guide/mm/pagemap.rst).
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
	for _, s := range []Strategy{Pagemap, Scan} {
		if honest(newTracker(s)) {
			all = append(all, s)
		}
	}
	return all
})

func newTracker(s Strategy) tracker {
	switch s {
	case Scan:
		return &scanner{}
	case Pagemap:
		return &reader{}
	}
	return nil
}

// Values of linux/fs.h.
const (
	ioctlPagemapScan = 0xC0606610 // _IOWR('f', 16, struct pm_scan_arg)

	pageIsFile    = 1 << 2
	pageIsPresent = 1 << 3
	pageIsSwapped = 1 << 4
	pageIsPfnZero = 1 << 5
)

// pageRegion is struct page_region.
type pageRegion struct{ start, end, categories uint64 }

// scanArg is struct pm_scan_arg.
type scanArg struct {
	size, flags, start, end, walkEnd  uint64
	vec                               uintptr
	vecLen, maxPages                  uint64
	inverted, mask, anyOf, returnMask uint64
}

// scanner is the tracker of Scan. It must be on the heap, as the kernel gets
// its address in a number.
type scanner struct {
	arg     scanArg
	regions [256]pageRegion
}

// written implements tracker. The kernel joins neighbouring pages itself.
func (s *scanner) written(b []byte, limit uint64, spans []span) ([]span, bool) {
	base := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	found := uint64(0)
	for at, end := base, base+uint64(len(b)); at < end; at = s.arg.walkEnd {
		n, ok := s.scan(at, end)
		if !ok || s.arg.walkEnd <= at {
			return spans, false
		}
		for _, r := range s.regions[:n] {
			found += r.end - r.start
			spans = append(spans, span{r.start - base, r.end - base})
		}
		if found > limit {
			return spans, false
		}
	}
	return spans, true
}

// scan fills s.regions with the pages in [from, to) that are present or
// swapped, and neither of the file nor the page of zeros.
func (s *scanner) scan(from, to uint64) (int, bool) {
	s.arg = scanArg{
		size:       uint64(unsafe.Sizeof(s.arg)),
		start:      from,
		end:        to,
		vec:        uintptr(unsafe.Pointer(&s.regions)),
		vecLen:     uint64(len(s.regions)),
		inverted:   pageIsFile | pageIsPfnZero,
		mask:       pageIsFile | pageIsPfnZero,
		anyOf:      pageIsPresent | pageIsSwapped,
		returnMask: pageIsFile,
	}
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pagemap()), ioctlPagemapScan, uintptr(unsafe.Pointer(&s.arg)))
	runtime.KeepAlive(s)
	return int(n), errno == 0
}

// Bits of an entry in /proc/self/pagemap.
const (
	entryFile    = 1 << 61 // or shared with another process
	entrySwapped = 1 << 62
	entryPresent = 1 << 63
)

// reader is the tracker of Pagemap. It reports pages of zeros too.
type reader struct {
	entries [1024 * 8]byte
}

// written implements tracker.
func (r *reader) written(b []byte, limit uint64, spans []span) ([]span, bool) {
	base := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) / systemPage
	last := span{}
	found := uint64(0)
	for page, pages := uint64(0), uint64(len(b))/systemPage; page < pages; {
		want := min((pages-page)*8, uint64(len(r.entries)))
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

// honest reports whether a tracker tells the truth here: it must report
// every page that was written, also with the value that it had, also after it
// was written back, and no page of the image that was only read. What a tracker
// misses would leak from one call to the next.
//
// Swapped pages are not tried: a process cannot make the kernel swap.
func honest(t tracker) bool {
	const pages = 16 // of the image; as many follow it
	half := pages * systemPage
	img, err := NewImage(slices.Repeat([]byte{1}, int(half)))
	if err != nil {
		return false
	}
	defer img.Close()
	m, err := reserve(2 * half)
	if err != nil {
		return false
	}
	defer m.free()
	if _, err := m.attach(img); err != nil {
		return false
	}
	b, err := m.grow(2 * half)
	if err != nil {
		return false
	}
	var written [2 * pages]bool
	for _, round := range [][]int{{1, 3, 4, pages, pages + 7}, {0, 1, pages - 1, 2*pages - 1}} {
		_ = allZero(b[5*systemPage:][:systemPage])
		_ = allZero(b[half+5*systemPage:][:systemPage])
		for _, page := range round {
			b[page*int(systemPage)+7] = 1
			written[page] = true
		}
		spans, ok := t.written(b, 2*half, nil)
		if !ok || !reports(spans, written[:pages], written[pages:]) {
			return false
		}
		for _, s := range spans {
			img.writeBack(b, s)
		}
	}
	return true
}

// reports reports whether spans are exactly the pages of the image that were
// written, and at least those after it.
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
