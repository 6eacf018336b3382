package linear

import (
	"bytes"
	"fmt"
	"sync/atomic"
)

// unit is the number of bytes compared at once: a page of most systems. It
// divides the page size of all systems and of WebAssembly.
const unit = 4096

const (
	// grain is the resolution in bytes of the zero parts of a small image. For a
	// guest with a hundred bytes of data, a reset of 64 KiB takes 0.72 us, and
	// 0.75 us with whole units.
	grain = 256
	// minGap is the minimum number of zeros that are cleared on their own. Fewer
	// zeros are copied with the bytes around them, because starting to clear takes
	// as long as copying a few of them.
	minGap = 2048
	// maxPart is the maximum number of bytes that are written in one direction (see
	// writeAll).
	maxPart = 8 << 10
)

// tailLimit is the maximum number of zeros at the end that stay part of the
// content. The kernel scans the content in one system call; the memory after it
// takes a second one in each reset. A tiny call of a guest in Go, of 3.4 MiB with
// its zeros, takes 9.0 us with one call and 11.4 us with two.
const tailLimit = 1 << 20

var zeros [unit]byte

// Image is the content of a memory at one time. It never changes, and any number
// of goroutines and memories may use it at once; they share its bytes.
type Image struct {
	size    uint64 // of the memory
	content []byte // without many zeros at its end
	file    int    // descriptor of a file with the content, or -1
	shared  bool   // content is a mapping of file
	parts   []part // all of it, in order; small ones if Copy is likely
	refs    atomic.Int64
	closed  atomic.Bool
}

// NewImage returns an image of a memory that holds b, whose length must be in
// whole pages. It copies b without pages of zeros. The caller closes the image.
func NewImage(b []byte) (*Image, error) { return newImage(b, nil) }

// newImage asks fault before each system call. If a call fails, the image is on
// the Go heap.
func newImage(b []byte, fault fault) (*Image, error) {
	if len(b)%PageSize != 0 {
		return nil, fmt.Errorf("linear: image of %d bytes: not in whole pages", len(b))
	}
	img := &Image{size: uint64(len(b)), file: -1}
	if trimmed := trimZeros(b); len(b)-len(trimmed) > tailLimit {
		b = trimmed
	}
	if len(b) <= copyLimit {
		img.parts = partsOf(b, img.size)
	} else {
		img.parts = []part{{span{0, uint64(len(b))}, false}, {span{uint64(len(b)), img.size}, true}}
	}
	if len(b) > 0 && !img.share(b, fault) {
		img.content = bytes.Clone(b)
	}
	img.refs.Store(1)
	live.Add(1)
	return img, nil
}

// trimZeros returns b without the pages of zeros at its end.
func trimZeros(b []byte) []byte {
	for len(b) > 0 && allZero(b[len(b)-PageSize:]) {
		b = b[:len(b)-PageSize]
	}
	return b
}

// part is a span of an image that is copied, or cleared because it is zero.
type part struct {
	span
	zero bool
}

// partsOf returns the parts of a small image of size bytes with the content b, in
// order. Each has at most maxPart bytes; zeros that are cleared are at least minGap
// long, if they are not at an end of a part.
func partsOf(b []byte, size uint64) (parts []part) {
	at := uint64(0)
	for _, s := range usedSpans(b) {
		parts = cut(parts, part{span{at, s.from}, true})
		parts = cut(parts, part{s, false})
		at = s.to
	}
	return cut(parts, part{span{at, size}, true})
}

// cut appends p in pieces of at most maxPart bytes.
func cut(parts []part, p part) []part {
	for p.from < p.to {
		to := min(p.to, p.from+maxPart)
		parts = append(parts, part{span{p.from, to}, p.zero})
		p.from = to
	}
	return parts
}

// usedSpans returns the parts of b that are not zero. Zeros between them are at
// least minGap long.
func usedSpans(b []byte) (used []span) {
	for at := uint64(0); at < uint64(len(b)); at += grain {
		switch last := len(used) - 1; {
		case bytes.Equal(b[at:at+grain], zeros[:grain]):
		case last >= 0 && at-used[last].to < minGap:
			used[last].to = at + grain
		default:
			used = append(used, span{at, at + grain})
		}
	}
	return used
}

func allZero(b []byte) bool {
	for ; len(b) > 0; b = b[unit:] {
		if !bytes.Equal(b[:unit], zeros[:]) {
			return false
		}
	}
	return true
}

// Size returns the length in bytes.
func (i *Image) Size() uint64 { return i.size }

// Close frees the image once no memory is attached to it. It may be called more
// than once.
func (i *Image) Close() {
	if !i.closed.Swap(true) {
		i.release()
	}
}

// retain adds a user. It returns false if the image is gone.
func (i *Image) retain() bool {
	for {
		n := i.refs.Load()
		if n == 0 {
			return false
		}
		if i.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (i *Image) release() {
	if i.refs.Add(-1) > 0 {
		return
	}
	if i.shared {
		i.unshare()
	}
	i.content = nil
	live.Add(-1)
}

// writeBack copies s of the image to the same place in b. After the end of the
// image it writes zeros.
func (i *Image) writeBack(b []byte, s span) {
	if s.from < uint64(len(i.content)) {
		s.from += uint64(copy(b[s.from:s.to], i.content[s.from:]))
	}
	clear(b[s.from:s.to])
}

// writeAll copies the whole image to b and writes zeros after its end: from the
// last part to the first if backwards is true. If each call of writeAll begins at the
// end where the one before stopped, it finds in the processor's first cache what
// that one wrote last. A cache of 48 KiB that is passed from end to end by 64 KiB
// has nothing left of them.
func (i *Image) writeAll(b []byte, backwards bool) {
	if backwards {
		clear(b[i.size:])
		for k := len(i.parts) - 1; k >= 0; k-- {
			i.writePart(b, i.parts[k])
		}
		return
	}
	for _, p := range i.parts {
		i.writePart(b, p)
	}
	clear(b[i.size:])
}

// writePart restores one part. Small images are mostly zeros, such as an empty
// stack, and clearing takes three quarters of the time of a copy.
func (i *Image) writePart(b []byte, p part) {
	if p.zero {
		zero(b[p.from:p.to])
	} else {
		copy(b[p.from:p.to], i.content[p.from:p.to])
	}
}

// unitAt returns the unit of the image at the given offset.
func (i *Image) unitAt(at uint64) []byte {
	if at < uint64(len(i.content)) {
		return i.content[at : at+unit]
	}
	return zeros[:]
}

// writeDifferent writes back only the units of b that differ, so that the others
// stay shared.
func (i *Image) writeDifferent(b []byte) {
	for at := uint64(0); at < uint64(len(b)); at += unit {
		if want := i.unitAt(at); !bytes.Equal(b[at:at+unit], want) {
			copy(b[at:at+unit], want)
		}
	}
}

// equal reports whether b and the image are equal in s.
func (i *Image) equal(b []byte, s span) bool {
	for at := s.from; at < s.to; at += unit {
		if !bytes.Equal(b[at:at+unit], i.unitAt(at)) {
			return false
		}
	}
	return true
}
