package wasi

import "github.com/tetratelabs/wazero/api"

// stream is a standard stream behind a descriptor.
type stream uint8

const (
	closed stream = iota
	stdin
	stdout
	stderr
	regular
	directory
)

// file is an entry of the table of descriptors.
type file struct {
	stream stream
	flags  uint16 // witx: fdflags; kept for the guest, without effect

	// Only for files and directories.
	preopen bool
	dir     uint32 // index in State.Dirs, from 1: the device number that the guest sees
	node    *node
	offset  uint64
}

// Rights of streams (witx: rights), without those to seek and tell. Even so, the
// C library of WASI would take a stream for a terminal if it were a character
// device.
const (
	rightRead      = 1 << 1
	rightSeek      = 1 << 2
	rightSetFlags  = 1 << 3
	rightTell      = 1 << 5
	rightWrite     = 1 << 6
	rightAdvise    = 1 << 7
	rightOpen      = 1 << 13
	rightReaddir   = 1 << 14
	rightReadlink  = 1 << 15
	rightPathStat  = 1 << 18
	rightFilestat  = 1 << 21
	rightPoll      = 1 << 27
	rightsOfStream = rightSetFlags | rightFilestat | rightPoll
	rightsOfFile   = rightsOfStream | rightRead | rightSeek | rightTell | rightAdvise
	rightsOfDir    = rightSetFlags | rightFilestat | rightOpen | rightReaddir | rightReadlink | rightPathStat
)

const (
	// filetype is the type of all streams (witx: filetype unknown), which other
	// runtimes report for a pipe. Guests then buffer their output fully instead of
	// by lines, as a filter does.
	filetype = 0
	// maxFlags is all of fdflags: append, dsync, nonblock, rsync and sync.
	maxFlags = 1<<5 - 1
)

// file returns the entry of an open descriptor, or nil.
func (s *State) file(fd uint64) *file {
	if n := uint32(fd); uint64(n) < uint64(len(s.files)) && s.files[n].stream != closed {
		return &s.files[n]
	}
	return nil
}

// onFile makes a function that has the same result for every open descriptor, its
// first parameter. It touches no memory.
func onFile(answer errno) function {
	return func(s *State, _ api.Memory, p []uint64) errno {
		if s.file(p[0]) == nil {
			return errBadf
		}
		return answer
	}
}

func fdClose(s *State, _ api.Memory, p []uint64) errno {
	f := s.file(p[0])
	if f == nil {
		return errBadf
	}
	*f = file{}
	return success
}

// fdRenumber moves a descriptor to the number of another one, which must be open
// too: guests cannot choose numbers this way.
func fdRenumber(s *State, _ api.Memory, p []uint64) errno {
	from, to := s.file(p[0]), s.file(p[1])
	if from == nil || to == nil {
		return errBadf
	}
	if from != to {
		*to, *from = *from, file{}
	}
	return success
}

// fdFdstatGet writes a fdstat: filetype u8, flags u16 at 2, rights u64 at 8,
// inheriting rights u64 at 16.
func fdFdstatGet(s *State, m api.Memory, p []uint64) errno {
	f := s.file(p[0])
	if f == nil {
		return errBadf
	}
	b, e := view(m, p[1], 24)
	if e != success {
		return e
	}
	clear(b)
	b[0] = filetype
	if f.node != nil {
		b[0] = f.node.kind
	}
	rights, inherited := f.stream.rights()
	le.PutUint16(b[2:], f.flags)
	le.PutUint64(b[8:], rights)
	le.PutUint64(b[16:], inherited)
	return success
}

// rights returns the rights of a descriptor, and of descriptors opened through it.
func (s stream) rights() (own, inherited uint64) {
	switch s {
	case stdin:
		return rightsOfStream | rightRead, 0
	case regular:
		return rightsOfFile, 0
	case directory:
		// The C library does not ask for rights that cannot be inherited: without
		// this one, opening a file for writing would not be refused.
		return rightsOfDir, rightsOfDir | rightsOfFile | rightWrite
	}
	return rightsOfStream | rightWrite, 0
}

func fdFdstatSetFlags(s *State, _ api.Memory, p []uint64) errno {
	f, flags := s.file(p[0]), uint32(p[1])
	if f == nil {
		return errBadf
	}
	if flags > maxFlags {
		return errInval
	}
	f.flags = uint16(flags)
	return success
}

const filestatSize = 64

// fdFilestatGet writes a filestat: dev u64, ino u64 at 8, filetype u8 at 16,
// nlink u64 at 24, size u64 at 32, and three times. Streams differ only in their
// ino; they have one link, no size and no times.
func fdFilestatGet(s *State, m api.Memory, p []uint64) errno {
	f := s.file(p[0])
	if f == nil {
		return errBadf
	}
	b, e := view(m, p[1], filestatSize)
	if e != success {
		return e
	}
	if f.node != nil {
		putFilestat(b, f.dir, f.node)
		return success
	}
	clear(b)
	le.PutUint64(b[8:], uint64(f.stream))
	b[16] = filetype
	le.PutUint64(b[24:], 1)
	return success
}
