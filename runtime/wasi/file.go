package wasi

import "github.com/tetratelabs/wazero/api"

// stream is what a descriptor stands for.
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
	flags  uint16 // witx: fdflags; kept for the guest, of no effect

	// Of files and directories only.
	preopen bool
	dir     uint32 // which of State.Dirs, from 1: the guest's number of a device
	node    *node
	offset  uint64
}

// Rights of streams (witx: rights). Those to seek and tell are not among them,
// but what keeps the C library of WASI from taking a stream for a terminal is
// that it is no character device.
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
	// filetype is that of all streams (witx: filetype unknown): what others
	// report for a pipe. Guests then buffer their output whole instead of by
	// lines, as a filter does.
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

// onFile makes a function which has the same answer for every open descriptor,
// its first parameter. It touches no memory.
func onFile(answer errno) function { return onRegular(answer, answer) }

func fdClose(s *State, _ api.Memory, p []uint64) errno {
	f := s.file(p[0])
	if f == nil {
		return errBadf
	}
	*f = file{}
	return success
}

// fdRenumber moves a descriptor over another one, which must be open, too: it
// is not a way to choose numbers.
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

// rights returns those of a descriptor, and of what can be opened through it.
func (s stream) rights() (own, inherited uint64) {
	switch s {
	case stdin:
		return rightsOfStream | rightRead, 0
	case regular:
		return rightsOfFile, 0
	case directory:
		// The C library asks for no right that cannot be inherited: without this
		// one, opening a file to write would not be refused.
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
// nlink u64 at 24, size u64 at 32, and three times. Streams differ in their ino
// alone, have one link, no size and no times.
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
