package wasi

import (
	"strings"

	"github.com/tetratelabs/wazero/api"
)

// maxFiles bounds the descriptors that are open at once.
const maxFiles = 1024

// directory returns the entry of a descriptor that is a directory. A stream
// lacks the right to what paths are for, as it says itself.
func (s *State) directory(fd uint64) (*file, errno) {
	f := s.file(fd)
	switch {
	case f == nil:
		return nil, errBadf
	case f.stream == directory:
		return f, success
	case f.stream == regular:
		return nil, errNotdir
	}
	return nil, errNotcap
}

// path reads a path of the guest's, and what it leads to from a directory.
func (s *State) path(m api.Memory, fd, ptr, size uint64, follow bool) (*file, *node, errno) {
	f, e := s.directory(fd)
	if e != success {
		return nil, nil, e
	}
	if uint32(size) > maxPath {
		return f, nil, errNametoolong
	}
	b, e := view(m, ptr, size)
	if e != success {
		return f, nil, e
	}
	s.charge(len(b))
	name := string(b)
	if strings.IndexByte(name, 0) >= 0 {
		return f, nil, errInval
	}
	n, e := s.walk(f.node, name, follow)
	return f, n, e
}

// onPath makes a function that would change what a directory holds, its
// descriptors being the parameters i and j.
func onPath(i, j int) function {
	return func(s *State, _ api.Memory, p []uint64) errno {
		if s.file(p[i]) == nil || s.file(p[j]) == nil {
			return errBadf
		}
		if _, e := s.directory(p[i]); e != success {
			return e
		}
		if _, e := s.directory(p[j]); e != success {
			return e
		}
		return errRofs
	}
}

// Bits of witx: oflags and lookupflags.
const (
	openCreate    = 1
	openDirectory = 2
	openExclusive = 4
	openTruncate  = 8
	followLinks   = 1
)

// pathOpen opens a file or a directory to be read. Nothing can be opened to be
// written, or made: errRofs.
func pathOpen(s *State, m api.Memory, p []uint64) errno {
	flags, rights, fdflags := uint32(p[4]), p[5], uint32(p[7])
	result, e := view(m, p[8], 4)
	if e != success {
		if s.file(p[0]) == nil {
			return errBadf
		}
		return e
	}
	f, n, e := s.path(m, p[0], p[2], p[3], p[1]&followLinks != 0)
	switch {
	case e == errNoent && f != nil && flags&openCreate != 0:
		return errRofs
	case e != success:
		return e
	case flags&(openCreate|openExclusive) == openCreate|openExclusive:
		return errExist
	case fdflags > maxFlags:
		return errInval
	case n.kind == kindLink:
		return errLoop
	case flags&openDirectory != 0 && n.kind != kindDirectory:
		return errNotdir
	case n.kind == kindDirectory && flags&openTruncate != 0:
		return errIsdir
	case n.kind == kindRegular && (flags&openTruncate != 0 || rights&rightWrite != 0):
		return errRofs
	}
	opened := file{stream: regular, flags: uint16(fdflags), dir: f.dir, node: n}
	if n.kind == kindDirectory {
		opened.stream = directory
	}
	fd, e := s.open(opened)
	if e == success {
		le.PutUint32(result, fd)
	}
	return e
}

// open gives a file the lowest descriptor that is free.
func (s *State) open(f file) (uint32, errno) {
	for fd := range s.files {
		if s.files[fd].stream == closed {
			s.files[fd] = f
			return uint32(fd), success
		}
	}
	if len(s.files) >= maxFiles {
		return 0, errMfile
	}
	s.files = append(s.files, f)
	return uint32(len(s.files) - 1), success
}

// pathFilestatGet writes a filestat of what a path leads to.
func pathFilestatGet(s *State, m api.Memory, p []uint64) errno {
	f, n, e := s.path(m, p[0], p[2], p[3], p[1]&followLinks != 0)
	if e != success {
		return e
	}
	b, e := view(m, p[4], filestatSize)
	if e == success {
		putFilestat(b, f.dir, n)
	}
	return e
}

// putFilestat writes what is known of a node. It has one link, and its times
// are those of the start of Unix time.
func putFilestat(b []byte, dir uint32, n *node) {
	clear(b)
	le.PutUint64(b, uint64(dir))
	le.PutUint64(b[8:], n.ino)
	b[16] = n.kind
	le.PutUint64(b[24:], 1)
	le.PutUint64(b[32:], uint64(len(n.data)))
}

// pathReadlink writes the target of a link, cut where there is no room.
func pathReadlink(s *State, m api.Memory, p []uint64) errno {
	_, n, e := s.path(m, p[0], p[1], p[2], false)
	if e != success {
		return e
	}
	if n.kind != kindLink {
		return errInval
	}
	b, e1 := view(m, p[3], p[4])
	used, e2 := view(m, p[5], 4)
	if e1 != success || e2 != success {
		return errFault
	}
	s.charge(len(n.data))
	le.PutUint32(used, uint32(copy(b, n.data)))
	return success
}

// preopen returns the directory that a descriptor was opened for in advance.
func (s *State) preopen(fd uint64) (*Dir, errno) {
	f := s.file(fd)
	if f == nil || !f.preopen {
		return nil, errBadf
	}
	return &s.Dirs[f.dir-1], success
}

// fdPrestatGet writes a prestat: tag u8, the length of the name u32 at 4. From
// errBadf guests know that there are no more.
func fdPrestatGet(s *State, m api.Memory, p []uint64) errno {
	d, e := s.preopen(p[0])
	if e != success {
		return e
	}
	b, e := view(m, p[1], 8)
	if e == success {
		clear(b)
		le.PutUint32(b[4:], uint32(len(d.Guest)))
	}
	return e
}

func fdPrestatDirName(s *State, m api.Memory, p []uint64) errno {
	d, e := s.preopen(p[0])
	if e != success {
		return e
	}
	if uint64(uint32(p[2])) < uint64(len(d.Guest)) {
		return errNametoolong
	}
	b, e := view(m, p[1], uint64(len(d.Guest)))
	if e == success {
		copy(b, d.Guest)
	}
	return e
}

// direntSize is the size of a dirent without the name behind it.
const direntSize = 24

// fdReaddir writes the entries from a cookie on, each a dirent (next cookie u64,
// ino u64 at 8, length of the name u32 at 16, filetype u8 at 20) with its name:
// ".", "..", and then in the order of the names' bytes. The last is cut where
// there is no room; a buffer that is not full says that there are no more.
func fdReaddir(s *State, m api.Memory, p []uint64) errno {
	f := s.file(p[0])
	if f == nil {
		return errBadf
	}
	if f.stream != directory {
		return errNotdir
	}
	b, e1 := view(m, p[1], p[2])
	used, e2 := view(m, p[4], 4)
	if e1 != success || e2 != success {
		return errFault
	}
	n := 0
	for cookie := p[3]; cookie < uint64(len(f.node.children))+2 && n < len(b); cookie++ {
		entry, name := f.node.entry(cookie)
		s.charge(direntSize + len(name))
		var d [direntSize]byte
		le.PutUint64(d[:], cookie+1)
		le.PutUint64(d[8:], entry.ino)
		le.PutUint32(d[16:], uint32(len(name)))
		d[20] = entry.kind
		n += copy(b[n:], d[:])
		n += copy(b[n:], name)
	}
	le.PutUint32(used, uint32(n))
	return success
}

// entry returns the entry of a directory at a cookie.
func (n *node) entry(cookie uint64) (*node, string) {
	switch cookie {
	case 0:
		return n, "."
	case 1:
		return n.parent, ".."
	}
	c := n.children[cookie-2]
	return c, c.name
}
