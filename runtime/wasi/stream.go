package wasi

import (
	"io"

	"github.com/tetratelabs/wazero/api"
)

// Limits of one fd_read or fd_write.
const (
	maxSpans    = 1024     // IOV_MAX of the C library of WASI; more are EINVAL
	maxTransfer = 16 << 20 // bytes; more give a short read or write
)

// span is a buffer of the guest (witx: iovec and ciovec), inside its memory.
type span struct{ ptr, size uint32 }

// readSpans reads count spans at ptr into s.spans. They are copied, because a read
// may overwrite them, and truncated to maxTransfer bytes in all. All are inside
// memory: a call either transfers as much as it can, or returns a fault and has
// done nothing.
func (s *State) readSpans(m api.Memory, ptr, count uint64) errno {
	s.spans = s.spans[:0]
	if uint32(count) > maxSpans {
		return errInval
	}
	b, e := view(m, ptr, 8*count)
	if e != success {
		return e
	}
	s.charge(len(b))
	left := uint32(maxTransfer)
	for ; len(b) > 0; b = b[8:] {
		v := span{le.Uint32(b), le.Uint32(b[4:])}
		if _, e := view(m, uint64(v.ptr), uint64(v.size)); e != success {
			return e
		}
		v.size = min(v.size, left)
		left -= v.size
		s.spans = append(s.spans, v)
	}
	return success
}

// transfer passes the bytes of s.spans to move, in pieces that are charged, until
// move takes less than a whole piece. It returns the number of bytes taken.
func (s *State) transfer(m api.Memory, move func(s *State, part []byte) int) (n int) {
	for _, v := range s.spans {
		for v.size > 0 {
			part, _ := view(m, uint64(v.ptr), uint64(min(v.size, piece)))
			s.charge(len(part))
			moved := move(s, part)
			n += moved
			if moved < len(part) {
				return n
			}
			v.ptr += uint32(len(part))
			v.size -= uint32(len(part))
		}
	}
	return n
}

// fdRead reads from a file or from standard input. Standard input has all its
// bytes from the start: it never waits, and reads 0 bytes at the end.
func fdRead(s *State, m api.Memory, p []uint64) errno {
	f := s.file(p[0])
	switch {
	case f != nil && f.stream == directory:
		return errIsdir
	case f != nil && f.stream == regular:
		n, e := s.readFile(m, f, p[1], p[2], f.offset, p[3])
		f.offset += n
		return e
	case f == nil || f.stream != stdin:
		return errBadf
	}
	n, e := view(m, p[3], 4)
	if e != success {
		return e
	}
	if e := s.readSpans(m, p[1], p[2]); e != success {
		return e
	}
	le.PutUint32(n, uint32(s.transfer(m, takeStdin)))
	return success
}

func takeStdin(s *State, part []byte) int {
	n := copy(part, s.call.Stdin[s.read:])
	s.read += n
	return n
}

// fdWrite writes to standard output or standard error.
func fdWrite(s *State, m api.Memory, p []uint64) errno {
	f := s.file(p[0])
	if f == nil || f.stream != stdout && f.stream != stderr {
		return errBadf
	}
	n, e := view(m, p[3], 4)
	if e != success {
		return e
	}
	if e := s.readSpans(m, p[1], p[2]); e != success {
		return e
	}
	move := giveStdout
	if f.stream == stderr {
		move = giveStderr
	}
	written := s.transfer(m, move)
	if written == 0 && s.asked() > 0 {
		return errIO
	}
	le.PutUint32(n, uint32(written))
	return success
}

func giveStdout(s *State, part []byte) int { return give(s.call.Stdout, part) }
func giveStderr(s *State, part []byte) int { return give(s.call.Stderr, part) }

func give(w io.Writer, part []byte) int {
	if w == nil {
		return len(part)
	}
	n, _ := w.Write(part) // an error implies a short count
	return n
}

// asked returns the number of bytes in s.spans.
func (s *State) asked() (n int) {
	for _, v := range s.spans {
		n += int(v.size)
	}
	return n
}
