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

// Dir is a directory that is open from the start, under its own name for the guest.
type Dir struct {
	Guest string // the name for the guest
	Tree  *Tree
}

// Tree is the content of a directory when it was read: names, bytes and targets of
// links, in memory. It does not change and may be shared by states. Guests
// therefore read exactly the content of its digest, even if the directory changes
// later.
type Tree struct {
	root   *node
	digest [sha256.Size]byte
	files  int
	bytes  int64
}

// Digest returns the SHA-256 of the tree: the kind and name of each entry, the
// bytes of files and the targets of links. Entries are in the order of the bytes
// of their names. Modes and times are not included.
func (t *Tree) Digest() [sha256.Size]byte { return t.digest }

// Files returns the number of files.
func (t *Tree) Files() int { return t.files }

// Bytes returns the number of bytes of all files.
func (t *Tree) Bytes() int64 { return t.bytes }

// node is one entry of a tree.
type node struct {
	name     string
	kind     uint8  // witx: filetype; one of the three below
	data     []byte // the bytes of a file, or the target of a link
	parent   *node  // the root is its own parent
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

// maxEntries limits the entries of a tree, whose names are in memory.
const maxEntries = 1 << 18

// A TreeLimitError means that a directory is too large.
type TreeLimitError struct {
	Bytes   int64 // the limit; 0 if there are too many entries
	Entries int
}

func (e *TreeLimitError) Error() string {
	if e.Bytes == 0 {
		return fmt.Sprintf("it has more than %d entries", e.Entries)
	}
	return fmt.Sprintf("its files have more than %d bytes", e.Bytes)
}

// ReadTree reads a directory with at most limit bytes in files. Links are kept as
// links and never followed, even if a link replaces another entry while the
// directory is read. It is an error if an entry is not a directory, file or link,
// if a name is not UTF-8, or if a file changes while it is read; the error names
// the path. The error can also be a *[TreeLimitError], or the error of ctx if ctx
// ends first.
func ReadTree(ctx context.Context, dir string, limit int64) (*Tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	top := &node{kind: kindDirectory}
	top.parent = top
	r := treeReader{ctx: ctx, root: root, limit: limit, hash: sha256.New(), tree: &Tree{root: top}}
	r.hash.Write([]byte(treeHead))
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

// node reads and hashes the entry at a path. The hashed bytes can be parsed in only
// one way: the kind, and then the name and the content, each after its length.
func (r *treeReader) node(n *node, at string) (err error) {
	r.entries++
	n.ino = r.entries
	if r.entries > maxEntries {
		return &TreeLimitError{Entries: maxEntries}
	}
	if len(at) > maxPath { // a guest has no path to it, and each level makes the next one more expensive
		return fmt.Errorf("%.64s...: too large: want a path of at most %d bytes", at, maxPath)
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

// write hashes b, and then the length of s and s.
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
		return 0, errors.New("invalid name: want UTF-8, as WASI requires")
	}
	switch e.Type() {
	case fs.ModeDir:
		return kindDirectory, nil
	case fs.ModeSymlink:
		return kindLink, nil
	case 0:
		return kindRegular, nil
	}
	return 0, errors.New("unsupported kind of file: want a directory, file or link")
}

// file reads a file, which must not change meanwhile.
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

// Limits of the paths of guests.
const (
	maxPath  = 4096 // bytes
	maxLinks = 40   // followed in one path
)

// follow says which links at the end of a path are followed.
type follow uint8

const (
	followNone    follow = iota // none: the call creates or removes the link itself
	followSlashes               // links with slashes after them
	followAll
)

// location is the result of resolving a path.
type location struct {
	node  *node  // nil: the directory has no such entry
	last  string // the last part of the path, or of the last link's target
	slash bool   // slashes come after it
}

// dots reports whether the last part is not a name.
func (p *location) dots() bool { return p.last == "." || p.last == ".." }

// walk resolves a path from a directory, which it does not leave: an absolute path,
// ".." in that directory itself and links to either give errNotcap. Only the last
// entry of the path may be missing.
func (s *State) walk(from *node, name string, follow follow) (p location, e errno) {
	if name == "" {
		return p, errNoent
	}
	at := from
	for links := 0; ; {
		if name[0] == '/' {
			return p, errNotcap
		}
		part, rest, slash := strings.Cut(name, "/")
		rest = strings.TrimLeft(rest, "/")
		s.charge(len(part) + 1)
		next, e := step(from, at, part)
		last := rest == ""
		if e != success && (e != errNoent || !last) {
			return p, e
		}
		p = location{next, part, slash}
		if next != nil && next.kind == kindLink && (!last || follow == followAll || slash && follow == followSlashes) {
			if links++; links > maxLinks || len(next.data)+len(rest) >= maxPath {
				return p, errLoop
			}
			if len(next.data) == 0 {
				return p, errNoent
			}
			name = string(next.data)
			if slash {
				name += "/" + rest
			}
			s.charge(len(name))
			continue
		}
		if last {
			return p, success
		}
		if next.kind != kindDirectory {
			return p, errNotdir
		}
		at, name = next, rest
	}
}

// maxName is the maximum length of the name of an entry, in bytes (NAME_MAX of Linux).
const maxName = 255

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
	case len(part) > maxName:
		return nil, errNametoolong
	}
	if next := at.child(part); next != nil {
		return next, success
	}
	return nil, errNoent
}
