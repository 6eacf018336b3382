package wasi

import (
	"math"

	"github.com/tetratelabs/wazero/api"
)

// onRegular makes a function with one answer for files and directories, and
// another for streams.
func onRegular(ofFiles, ofStreams errno) function {
	return func(s *State, _ api.Memory, p []uint64) errno {
		f := s.file(p[0])
		switch {
		case f == nil:
			return errBadf
		case f.node != nil:
			return ofFiles
		}
		return ofStreams
	}
}

// rest returns the bytes of a file from an offset on.
func (n *node) rest(offset uint64) []byte {
	return n.data[min(offset, uint64(len(n.data))):]
}

// readFile reads from a file at an offset, and returns how much was read.
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
	case f.stream == directory:
		return errIsdir
	case f.stream != regular:
		return errSpipe
	}
	_, e := s.readFile(m, f, p[1], p[2], p[3], p[4])
	return e
}

// positioned returns what has a place to read from: a file or a directory.
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

// fdSeek moves to a place in a file, which may be behind its end. A directory
// can be sent to its start, where it is.
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
	offset := base + p[1] // of two's complement
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
