package runtime

import "github.com/tetratelabs/wazero/experimental"

const (
	// maxPages is one below 2^16, for which compiled code sees a size of 0.
	maxPages = 65_535
)

// linearMemory is the memory of one instance, on the heap of Go.
type linearMemory struct {
	limit  uint64
	b      []byte
	denied bool // a growth beyond limit
}

// Allocate implements [experimental.MemoryAllocator].
func (m *linearMemory) Allocate(_, _ uint64) experimental.LinearMemory { return m }

// Reallocate implements [experimental.LinearMemory]. It grows by doubling, so
// that a guest which grows page by page is not copied each time.
func (m *linearMemory) Reallocate(size uint64) []byte {
	if size > m.limit {
		m.denied = true
		return nil
	}
	if size <= uint64(cap(m.b)) {
		m.b = m.b[:size]
		return m.b
	}
	grown := make([]byte, size, min(m.limit, max(size, 2*uint64(len(m.b)))))
	copy(grown, m.b)
	m.b = grown
	return m.b
}

// Free implements [experimental.LinearMemory].
func (m *linearMemory) Free() { m.b = nil }
