package linear

import (
	"bytes"
	"fmt"
	"sync/atomic"
)

// unit is how much is compared at once: a page of most systems. It divides
// the page of all systems and that of WebAssembly.
const unit = 4096

const (
	// grain is how exactly it is known which parts of a small image are zero, in
	// bytes. Where a guest has a hundred bytes of data, a reset of 64 KiB takes
	// 0.72 us, and 0.75 with whole units.
	grain = 256
	// minGap is how many zeros are cleared on their own, instead of being copied
	// with what stands around them: to begin to clear takes as long as to copy some
	// of them.
	minGap = 2048
)

// tailLimit is how many zeros at the end stay a part of the content, which the
// kernel looks through in one system call: what follows takes a second one in
// each reset. A tiny call of a guest in Go, of 3.4 MiB with its zeros, takes 9.0
// us with one call and 11.4 with two.
const tailLimit = 1 << 20

var zeros [unit]byte

// Image is what a memory held at one time. It never changes, and may be used
// by any number of goroutines and memories at once; they share its bytes.
type Image struct {
	size    uint64 // of the memory
	content []byte // without many zeros at its end
	file    int    // the descriptor of a file with the content, or -1
	shared  bool   // content is a mapping of file
	used    []span // of the content: all that is not zero, where Copy is likely
	refs    atomic.Int64
	closed  atomic.Bool
}

// NewImage returns an image of a memory that holds b, whose length must be in
// whole pages. It copies b, but for pages of zeros. The caller closes it.
func NewImage(b []byte) (*Image, error) {
	if len(b)%PageSize != 0 {
		return nil, fmt.Errorf("linear: image of %d bytes: not in whole pages", len(b))
	}
	img := &Image{size: uint64(len(b)), file: -1}
	if trimmed := trimZeros(b); len(b)-len(trimmed) > tailLimit {
		b = trimmed
	}
	img.used = []span{{0, uint64(len(b))}}
	if len(b) <= copyLimit {
		img.used = usedSpans(b)
	}
	if len(b) > 0 && !img.share(b) {
		img.content = bytes.Clone(b)
	}
	img.refs.Store(1)
	live.Add(1)
	return img, nil
}

// trimZeros returns b without the pages at its end that are all zero.
func trimZeros(b []byte) []byte {
	for len(b) > 0 && allZero(b[len(b)-PageSize:]) {
		b = b[:len(b)-PageSize]
	}
	return b
}

// usedSpans returns where b is not zero, as spans that are minGap apart.
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

// Size is the length in bytes.
func (i *Image) Size() uint64 { return i.size }

// Close gives the image's memory back, once no memory is attached to it any
// more. It may be called more than once.
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

// writeBack makes the bytes of b in s those of the image; zeros follow its end.
func (i *Image) writeBack(b []byte, s span) {
	if s.from < uint64(len(i.content)) {
		s.from += uint64(copy(b[s.from:s.to], i.content[s.from:]))
	}
	clear(b[s.from:s.to])
}

// writeAll makes all bytes of b those of the image, followed by zeros. Small
// images are mostly zeros, such as an empty stack, and to clear takes three
// quarters of the time of a copy.
func (i *Image) writeAll(b []byte) {
	at := uint64(0)
	for _, s := range i.used {
		clear(b[at:s.from])
		at = s.from + uint64(copy(b[s.from:s.to], i.content[s.from:]))
	}
	clear(b[at:])
}

// unitAt returns what the image holds at the given offset.
func (i *Image) unitAt(at uint64) []byte {
	if at < uint64(len(i.content)) {
		return i.content[at : at+unit]
	}
	return zeros[:]
}

// writeDifferent writes back those units of b that differ, so that the others
// stay shared.
func (i *Image) writeDifferent(b []byte) {
	for at := uint64(0); at < uint64(len(b)); at += unit {
		if want := i.unitAt(at); !bytes.Equal(b[at:at+unit], want) {
			copy(b[at:at+unit], want)
		}
	}
}

// equal reports whether the bytes of b in s are those of the image.
func (i *Image) equal(b []byte, s span) bool {
	for at := s.from; at < s.to; at += unit {
		if !bytes.Equal(b[at:at+unit], i.unitAt(at)) {
			return false
		}
	}
	return true
}
