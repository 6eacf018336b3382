package wasi

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// Dir is a directory that a guest finds opened, under a name of its own.
type Dir struct {
	Guest string // what the guest calls it
	Tree  *Tree
}

// Tree is the content of a directory as it was when it was read: names, bytes
// and targets of links, in memory. It does not change and may be shared by
// states. What guests read of it is therefore what its digest is of, whatever
// becomes of the directory.
type Tree struct {
	root   *node
	digest [sha256.Size]byte
	files  int
	bytes  int64
}

// Digest returns the SHA-256 over the tree: the kind and name of each entry,
// the bytes of files and the targets of links, entries in the order of their
// names' bytes. Modes and times are not in it.
func (t *Tree) Digest() [sha256.Size]byte { return t.digest }

// Files returns the number of files, and Bytes that of the bytes in them.
func (t *Tree) Files() int { return t.files }

// Bytes returns the number of bytes of all files.
func (t *Tree) Bytes() int64 { return t.bytes }

// node is one entry of a tree.
type node struct {
	name     string
	kind     uint8  // witx: filetype; one of the three below
	data     []byte // of a file; of a link, its target
	parent   *node  // the root's is itself
	children []*node
	ino      uint64 // from 1, in the order of the digest
}

// Kinds of nodes (witx: filetype).
const (
	kindDirectory = 3
	kindRegular   = 4
	kindLink      = 7
)

// child returns the entry of a directory, or nil.
func (n *node) child(name string) *node {
	i, found := slices.BinarySearchFunc(n.children, name, func(c *node, name string) int { return cmp.Compare(c.name, name) })
	if !found {
		return nil
	}
	return n.children[i]
}

// maxEntries bounds the entries of a tree, whose names are held in memory.
const maxEntries = 1 << 18

// A TreeLimitError says that a directory holds more than is allowed.
type TreeLimitError struct {
	Bytes   int64 // the limit; 0 where there are too many entries
	Entries int
}

func (e *TreeLimitError) Error() string {
	if e.Bytes == 0 {
		return fmt.Sprintf("it has more than %d entries", e.Entries)
	}
	return fmt.Sprintf("its files have more than %d bytes", e.Bytes)
}

// ReadTree reads a directory of at most limit bytes in files. Links are kept as
// links, and never followed: not out of the directory either where one takes
// the place of what was there before. The error names the path where there is
// something else than directories, files and links, or a name that is not UTF-8,
// or a file changed while it was read; it is a *[TreeLimitError], or ctx's where
// that ended first.
func ReadTree(ctx context.Context, dir string, limit int64) (*Tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	top := &node{kind: kindDirectory}
	top.parent = top
	r := treeReader{ctx: ctx, root: root, limit: limit, hash: sha256.New(), tree: &Tree{root: top}}
	r.hash.Write([]byte("wasm-jobs directory 1\n"))
	if err := r.node(top, "."); err != nil {
		return nil, err
	}
	r.hash.Sum(r.tree.digest[:0])
	return r.tree, nil
}

// treeReader reads a tree from a root and hashes it.
type treeReader struct {
	ctx     context.Context
	root    *os.Root
	limit   int64
	hash    hash.Hash
	tree    *Tree
	entries uint64
	scratch []byte
}

// node reads and hashes what is at a path. What is hashed of it can be taken
// apart again in one way: the kind, and the name and the content with their
// lengths before them.
func (r *treeReader) node(n *node, at string) (err error) {
	r.entries++
	n.ino = r.entries
	if r.entries > maxEntries {
		return &TreeLimitError{Entries: maxEntries}
	}
	if len(at) > maxPath { // a guest has no path to it, and each level makes the next one dearer
		return fmt.Errorf("%.64s...: a path of more than %d bytes", at, maxPath)
	}
	if err := r.ctx.Err(); err != nil {
		return err
	}
	r.write([]byte{n.kind}, n.name)
	switch n.kind {
	case kindDirectory:
		return r.directory(n, at)
	case kindLink:
		target, err := r.root.Readlink(at)
		n.data = []byte(target)
		r.write(nil, target)
		return err
	}
	if n.data, err = r.file(at); err != nil {
		return err
	}
	r.tree.files++
	r.tree.bytes += int64(len(n.data))
	r.write(nil, "")
	return nil
}

// write hashes b, and s behind its length.
func (r *treeReader) write(b []byte, s string) {
	r.scratch = binary.BigEndian.AppendUint64(append(r.scratch[:0], b...), uint64(len(s)))
	r.hash.Write(append(r.scratch, s...))
}

func (r *treeReader) directory(n *node, at string) error {
	f, err := r.root.Open(at)
	if err != nil {
		return err
	}
	entries, err := f.ReadDir(maxEntries + 1)
	if closeErr := f.Close(); err == nil || errors.Is(err, io.EOF) {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if len(entries) > maxEntries {
		return &TreeLimitError{Entries: maxEntries}
	}
	for _, e := range entries {
		c := &node{name: e.Name(), parent: n}
		if c.kind, err = kindOf(e); err != nil {
			return fmt.Errorf("%s: %w", path.Join(at, e.Name()), err)
		}
		n.children = append(n.children, c)
	}
	slices.SortFunc(n.children, func(a, b *node) int { return cmp.Compare(a.name, b.name) })
	r.scratch = binary.BigEndian.AppendUint64(r.scratch[:0], uint64(len(n.children)))
	r.hash.Write(r.scratch)
	for _, c := range n.children {
		if err := r.node(c, path.Join(at, c.name)); err != nil {
			return err
		}
	}
	return nil
}

func kindOf(e fs.DirEntry) (uint8, error) {
	if !utf8.ValidString(e.Name()) {
		return 0, errors.New("a name that is not UTF-8, which WASI cannot say")
	}
	switch e.Type() {
	case fs.ModeDir:
		return kindDirectory, nil
	case fs.ModeSymlink:
		return kindLink, nil
	case 0:
		return kindRegular, nil
	}
	return 0, errors.New("neither a directory nor a file nor a link: guests cannot be given it")
}

// file reads a file, which must be the same before and after.
func (r *treeReader) file(at string) ([]byte, error) {
	f, err := r.root.Open(at)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, changedError(at)
	}
	left := r.limit - r.tree.bytes
	if before.Size() > left {
		return nil, &TreeLimitError{Bytes: r.limit}
	}
	r.scratch = binary.BigEndian.AppendUint64(r.scratch[:0], uint64(before.Size()))
	r.hash.Write(r.scratch)
	data := make([]byte, before.Size())
	for done := 0; done < len(data); {
		if err := r.ctx.Err(); err != nil {
			return nil, err
		}
		part := data[done:min(done+1<<20, len(data))]
		if _, err := io.ReadFull(f, part); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, changedError(at)
		} else if err != nil {
			return nil, err
		}
		r.hash.Write(part)
		done += len(part)
	}
	after, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		return nil, changedError(at)
	}
	return data, nil
}

func changedError(at string) error { return fmt.Errorf("%s: it changed while it was read", at) }

// Bounds of the paths of guests.
const (
	maxPath  = 4096 // bytes
	maxLinks = 40   // that one path leads through
)

// walk finds what a path leads to from a directory, which it does not leave:
// an absolute path, ".." in that directory itself and links to either give
// errNotcap. A link at the end is followed where follow is set.
func (s *State) walk(from *node, name string, follow bool) (*node, errno) {
	at, links := from, 0
	if name == "" {
		return nil, errNoent
	}
	for name != "" {
		if name[0] == '/' {
			return nil, errNotcap
		}
		part, rest, more := strings.Cut(name, "/")
		rest = strings.TrimLeft(rest, "/")
		s.charge(len(part) + 1)
		next, e := step(from, at, part)
		if e != success {
			return nil, e
		}
		if next.kind == kindLink && (more || follow) {
			if links++; links > maxLinks || len(next.data)+len(rest) >= maxPath {
				return nil, errLoop
			}
			if len(next.data) == 0 {
				return nil, errNoent
			}
			name = string(next.data)
			if more {
				name += "/" + rest
			}
			s.charge(len(name))
			continue
		}
		if more && next.kind != kindDirectory {
			return nil, errNotdir
		}
		at, name = next, rest
	}
	return at, success
}

// step goes from a directory to one of its entries.
func step(from, at *node, part string) (*node, errno) {
	switch {
	case at.kind != kindDirectory:
		return nil, errNotdir
	case part == ".":
		return at, success
	case part == ".." && at == from:
		return nil, errNotcap
	case part == "..":
		return at.parent, success
	}
	if next := at.child(part); next != nil {
		return next, success
	}
	return nil, errNoent
}
