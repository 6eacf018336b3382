package wasi

import (
	"bytes"

	"github.com/tetratelabs/wazero/api"
)

// maxFiles limits the open descriptors.
const maxFiles = 1024

// directory returns the entry of a descriptor that is a directory. For a stream
// the error is a missing right, as its rights say.
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

// directories checks that two descriptors are directories.
func (s *State) directories(one, two uint64) errno {
	if s.file(one) == nil || s.file(two) == nil {
		return errBadf
	}
	if _, e := s.directory(one); e != success {
		return e
	}
	_, e := s.directory(two)
	return e
}

// lookup reads a path from the guest's memory and resolves it from a directory.
func (s *State) lookup(m api.Memory, fd, ptr, size uint64, follow follow) (*file, location, errno) {
	f, e := s.directory(fd)
	if e != success {
		return nil, location{}, e
	}
	name, e := s.name(m, ptr, size)
	if e != success {
		return f, location{}, e
	}
	p, e := s.walk(f.node, name, follow)
	return f, p, e
}

// name reads a path from the guest's memory.
func (s *State) name(m api.Memory, ptr, size uint64) (string, errno) {
	if uint32(size) >= maxPath {
		return "", errNametoolong
	}
	b, e := view(m, ptr, size)
	if e != success {
		return "", e
	}
	s.charge(len(b))
	if bytes.IndexByte(b, 0) >= 0 {
		return "", errInval
	}
	return string(b), success
}

// path resolves a path.
func (s *State) path(m api.Memory, fd, ptr, size uint64, follow follow) (*file, *node, errno) {
	f, p, e := s.lookup(m, fd, ptr, size, follow)
	switch {
	case e != success:
		return f, nil, e
	case p.node == nil:
		return f, nil, errNoent
	case p.slash && p.node.kind != kindDirectory:
		return f, nil, errNotdir
	}
	return f, p.node, success
}

// The functions below would change a directory. Each checks its arguments in the
// order of Linux on a file system that is mounted read-only (fs/namei.c). So a
// path that does not exist, or exists already, is an error if Linux finds that
// before it finds the file system read-only; otherwise the error is errRofs.

// made is the result of creating an entry.
func (s *State) made(m api.Memory, fd, ptr, size uint64, isDirectory bool) errno {
	_, p, e := s.lookup(m, fd, ptr, size, followNone)
	switch {
	case e != success:
		return e
	case p.node != nil:
		return errExist
	case p.slash && !isDirectory:
		return errNoent
	}
	return errRofs
}

func pathCreateDirectory(s *State, m api.Memory, p []uint64) errno {
	return s.made(m, p[0], p[1], p[2], true)
}

func pathSymlink(s *State, m api.Memory, p []uint64) errno {
	if _, e := s.directory(p[2]); e != success {
		return e
	}
	target, e := s.name(m, p[0], p[1])
	switch {
	case e != success:
		return e
	case target == "":
		return errNoent
	}
	return s.made(m, p[2], p[3], p[4], false)
}

func pathLink(s *State, m api.Memory, p []uint64) errno {
	if e := s.directories(p[0], p[4]); e != success {
		return e
	}
	if _, _, e := s.path(m, p[0], p[2], p[3], followFlag(p[1])); e != success {
		return e
	}
	return s.made(m, p[4], p[5], p[6], false)
}

func pathRemoveDirectory(s *State, m api.Memory, p []uint64) errno {
	_, at, e := s.lookup(m, p[0], p[1], p[2], followNone)
	switch {
	case e != success:
		return e
	case at.last == "..":
		return errNotempty
	case at.last == ".":
		return errInval
	}
	return errRofs
}

func pathUnlinkFile(s *State, m api.Memory, p []uint64) errno {
	_, at, e := s.lookup(m, p[0], p[1], p[2], followNone)
	switch {
	case e != success:
		return e
	case at.dots():
		return errIsdir
	}
	return errRofs
}

func pathRename(s *State, m api.Memory, p []uint64) errno {
	if e := s.directories(p[0], p[3]); e != success {
		return e
	}
	_, from, e := s.lookup(m, p[0], p[1], p[2], followNone)
	if e != success {
		return e
	}
	_, to, e := s.lookup(m, p[3], p[4], p[5], followNone)
	switch {
	case e != success:
		return e
	case from.dots() || to.dots():
		return errBusy
	}
	return errRofs
}

// Bits of witx: fstflags.
const (
	setAccess    = 1
	setAccessNow = 2
	setModify    = 4
	setModifyNow = 8
	setTimes     = setAccess | setAccessNow | setModify | setModifyNow
)

// timesSet is the result of setting the times of an existing node.
func timesSet(flags uint64) errno {
	flags = uint64(uint32(flags))
	if flags > setTimes || flags&(setAccess|setAccessNow) == setAccess|setAccessNow || flags&(setModify|setModifyNow) == setModify|setModifyNow {
		return errInval
	}
	return errRofs
}

// pathFilestatSetTimes does not resolve the path if there is nothing to set.
func pathFilestatSetTimes(s *State, m api.Memory, p []uint64) errno {
	if _, e := s.directory(p[0]); e != success || uint32(p[6]) == 0 {
		return e
	}
	if _, _, e := s.path(m, p[0], p[2], p[3], followFlag(p[1])); e != success {
		return e
	}
	return timesSet(p[6])
}

// Bits of witx: oflags and lookupflags.
const (
	openCreate    = 1
	openDirectory = 2
	openExclusive = 4
	openTruncate  = 8
	followLinks   = 1
)

// followFlag returns the links to follow for lookupflags.
func followFlag(flags uint64) follow {
	if flags&followLinks != 0 {
		return followAll
	}
	return followSlashes
}

// pathOpen opens a file or a directory for reading. Nothing can be opened for
// writing, or created.
func pathOpen(s *State, m api.Memory, p []uint64) errno {
	flags, rights, fdflags := uint32(p[4]), p[5], uint32(p[7])
	result, e := view(m, p[8], 4)
	if e != success {
		if s.file(p[0]) == nil {
			return errBadf
		}
		return e
	}
	if fdflags > maxFlags || flags&(openCreate|openDirectory) == openCreate|openDirectory { // Linux 6.4 and later
		if _, e := s.directory(p[0]); e != success {
			return e
		}
		return errInval
	}
	follow := followFlag(p[1])
	if flags&openCreate != 0 && (follow == followSlashes || flags&openExclusive != 0) {
		follow = followNone
	}
	f, at, e := s.lookup(m, p[0], p[2], p[3], follow)
	if e == success {
		e = at.opened(flags, rights&rightWrite != 0)
	}
	if e != success {
		return e
	}
	opened := file{stream: regular, flags: uint16(fdflags), dir: f.dir, node: at.node}
	if at.node.kind == kindDirectory {
		opened.stream = directory
	}
	fd, e := s.open(opened)
	if e == success {
		le.PutUint32(result, fd)
	}
	return e
}

// opened is the result of opening a location, with the checks in the order of
// open(2) of Linux on a file system mounted read-only (fs/namei.c, do_open and
// may_open).
func (p *location) opened(flags uint32, writes bool) errno {
	create := flags&openCreate != 0
	switch n := p.node; {
	case create && p.slash && !p.dots():
		return errIsdir
	case n == nil && create:
		return errRofs
	case n == nil:
		return errNoent
	case create && flags&openExclusive != 0:
		return errExist
	case create && n.kind == kindDirectory:
		return errIsdir
	case (flags&openDirectory != 0 || p.slash) && n.kind != kindDirectory:
		return errNotdir
	case n.kind == kindRegular && flags&openTruncate != 0:
		return errRofs
	case n.kind == kindLink:
		return errLoop
	case n.kind == kindDirectory && (writes || flags&openTruncate != 0):
		return errIsdir
	case writes:
		return errRofs
	}
	return success
}

// open gives a file the lowest free descriptor.
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

// pathFilestatGet writes the filestat of the node at a path.
func pathFilestatGet(s *State, m api.Memory, p []uint64) errno {
	f, n, e := s.path(m, p[0], p[2], p[3], followFlag(p[1]))
	if e != success {
		return e
	}
	b, e := view(m, p[4], filestatSize)
	if e == success {
		putFilestat(b, f.dir, n)
	}
	return e
}

// putFilestat writes the filestat of a node. It has one link, and its times are
// the start of Unix time.
func putFilestat(b []byte, dir uint32, n *node) {
	clear(b)
	le.PutUint64(b, uint64(dir))
	le.PutUint64(b[8:], n.ino)
	b[16] = n.kind
	le.PutUint64(b[24:], 1)
	le.PutUint64(b[32:], uint64(len(n.data)))
}

// pathReadlink writes the target of a link, truncated to the buffer.
func pathReadlink(s *State, m api.Memory, p []uint64) errno {
	_, n, e := s.path(m, p[0], p[1], p[2], followSlashes)
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

// preopen returns the directory of a descriptor that was open from the start.
func (s *State) preopen(fd uint64) (*Dir, errno) {
	f := s.file(fd)
	if f == nil || !f.preopen {
		return nil, errBadf
	}
	return &s.Dirs[f.dir-1], success
}

// fdPrestatGet writes a prestat: tag u8, the length of the name u32 at 4. After
// the last directory it returns errBadf, and guests stop asking.
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

// direntSize is the size of a dirent without the name after it.
const direntSize = 24

// fdReaddir writes the entries from a cookie on, each a dirent (next cookie u64,
// ino u64 at 8, length of the name u32 at 16, filetype u8 at 20) with its name:
// ".", "..", and then the entries by the bytes of their names. The last one is
// truncated to the buffer; a buffer that is not full means that there are no more.
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
