package wasi

import (
	"math"

	"github.com/tetratelabs/wazero/api"
)

// lastAdvice is the largest value of witx: advice.
const lastAdvice = 5

// fdAdvise does the checks of posix_fadvise(2). It has nothing else to do, because
// files are in memory.
func fdAdvise(s *State, _ api.Memory, p []uint64) errno {
	f := s.file(p[0])
	switch {
	case f == nil:
		return errBadf
	case f.node == nil:
		return errSpipe
	case p[1] > math.MaxInt64 || p[2] > math.MaxInt64 || uint32(p[3]) > lastAdvice:
		return errInval
	}
	return success
}

// fdAllocate refuses a descriptor that is open for reading (fallocate(2)).
func fdAllocate(s *State, _ api.Memory, p []uint64) errno {
	f := s.file(p[0])
	switch {
	case f == nil:
		return errBadf
	case f.node == nil:
		return errSpipe
	case p[1] > math.MaxInt64 || p[2] > math.MaxInt64 || p[2] == 0:
		return errInval
	}
	return errBadf
}

// fdFilestatSetTimes succeeds for a stream, and for a file if there is nothing to
// set (futimens(3)).
func fdFilestatSetTimes(s *State, _ api.Memory, p []uint64) errno {
	f := s.file(p[0])
	switch {
	case f == nil:
		return errBadf
	case f.node == nil:
		return errNotcap
	case uint32(p[3]) == 0:
		return success
	}
	return timesSet(p[3])
}

// fdPwrite refuses a descriptor that is open for reading (pwrite(2)).
func fdPwrite(s *State, _ api.Memory, p []uint64) errno {
	f := s.file(p[0])
	switch {
	case f == nil:
		return errBadf
	case p[3] > math.MaxInt64:
		return errInval
	case f.node == nil:
		return errSpipe
	}
	return errBadf
}

// rest returns the bytes of a file from an offset on.
func (n *node) rest(offset uint64) []byte {
	return n.data[min(offset, uint64(len(n.data))):]
}

// readFile reads from a file at an offset. It returns the number of bytes read.
func (s *State) readFile(m api.Memory, f *file, spans, count, offset, result uint64) (uint64, errno) {
	n, e := view(m, result, 4)
	if e != success {
		return 0, e
	}
	if e := s.readSpans(m, spans, count); e != success {
		return 0, e
	}
	rest := f.node.rest(offset)
	read := s.transfer(m, func(_ *State, part []byte) int {
		n := copy(part, rest)
		rest = rest[n:]
		return n
	})
	le.PutUint32(n, uint32(read))
	return uint64(read), success
}

func fdPread(s *State, m api.Memory, p []uint64) errno {
	f := s.file(p[0])
	switch {
	case f == nil:
		return errBadf
	case p[3] > math.MaxInt64:
		return errInval
	case f.stream == directory:
		return errIsdir
	case f.stream != regular:
		return errSpipe
	}
	_, e := s.readFile(m, f, p[1], p[2], p[3], p[4])
	return e
}

// positioned returns a file or a directory, which have a position.
func (s *State) positioned(fd uint64) (*file, errno) {
	f := s.file(fd)
	switch {
	case f == nil:
		return nil, errBadf
	case f.node == nil:
		return nil, errSpipe
	}
	return f, success
}

// Ways to seek (witx: whence).
const (
	seekSet = 0
	seekCur = 1
	seekEnd = 2
)

// fdSeek sets the position in a file, which may be after its end. A directory is
// always at its start and can be set only to that.
func fdSeek(s *State, m api.Memory, p []uint64) errno {
	f, e := s.positioned(p[0])
	if e != success {
		return e
	}
	var base uint64
	switch uint32(p[2]) {
	case seekSet:
	case seekCur:
		base = f.offset
	case seekEnd:
		base = uint64(len(f.node.data))
	default:
		return errInval
	}
	offset := base + p[1] // in two's complement
	if offset > math.MaxInt64 || f.stream == directory && offset != 0 {
		return errInval
	}
	if e = writeUint64(m, p[3], offset); e == success {
		f.offset = offset
	}
	return e
}

func fdTell(s *State, m api.Memory, p []uint64) errno {
	f, e := s.positioned(p[0])
	if e != success {
		return e
	}
	return writeUint64(m, p[1], f.offset)
}
