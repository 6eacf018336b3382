package wasi

import (
	"encoding/binary"

	"github.com/tetratelabs/wazero/api"
)

var le = binary.LittleEndian

// view returns size bytes of m at ptr. A view stays valid during a call of the
// host, because only the guest grows its memory. A view of no bytes is valid at
// every address, because toolchains pass odd addresses for empty buffers.
func view(m api.Memory, ptr, size uint64) ([]byte, errno) {
	if uint32(size) == 0 {
		return nil, success
	}
	b, ok := m.Read(uint32(ptr), uint32(size))
	if !ok {
		return nil, errFault
	}
	return b, success
}

func writeUint64(m api.Memory, ptr, v uint64) errno {
	b, e := view(m, ptr, 8)
	if e == success {
		le.PutUint64(b, v)
	}
	return e
}

// writeUint32s writes two numbers, or neither.
func writeUint32s(m api.Memory, ptr1 uint64, v1 uint32, ptr2 uint64, v2 uint32) errno {
	b1, e1 := view(m, ptr1, 4)
	b2, e2 := view(m, ptr2, 4)
	if e1 != success || e2 != success {
		return errFault
	}
	le.PutUint32(b1, v1)
	le.PutUint32(b2, v2)
	return success
}
