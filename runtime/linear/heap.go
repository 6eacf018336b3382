package linear

// heap is a space on the Go heap. It moves when it grows.
type heap struct {
	limit uint64
	b     []byte // up to its capacity, all bytes that are not in use are 0
}

// newHeap returns an empty space. Its bytes are never nil, because nil means to
// the instance that there is no memory.
func newHeap(limit uint64) *heap { return &heap{limit, []byte{}} }

// grow implements space. It at least doubles the buffer, so that a guest that
// grows page by page is not copied each time.
func (h *heap) grow(n uint64) ([]byte, error) {
	if n > uint64(cap(h.b)) {
		b := make([]byte, n, min(h.limit, max(n, 2*uint64(len(h.b)))))
		copy(b, h.b)
		h.b = b
	}
	h.b = h.b[:n]
	return h.b[:n:n], nil
}

// attach implements space. A memory that has the right length does not move,
// because an instance whose memory is at its maximum cannot be told.
func (h *heap) attach(img *Image) ([]byte, error) {
	if uint64(len(h.b)) != img.size {
		h.b = make([]byte, img.size)
	}
	img.writeBack(h.b, span{0, img.size})
	return h.b[:img.size:img.size], nil
}

func (h *heap) drop(span) bool { return false }

func (h *heap) tracker(Strategy) tracker { return nil }

func (h *heap) free() error {
	h.b = nil
	return nil
}
