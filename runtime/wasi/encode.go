package wasi

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"unicode/utf8"
)

// treeHead begins what a tree's digest is of.
const treeHead = "wasm-jobs directory 1\n"

// Encode returns the bytes that the tree's digest is of, which [ParseTree] reads.
func (t *Tree) Encode() []byte { return t.root.encode([]byte(treeHead)) }

func (n *node) encode(dst []byte) []byte {
	text := func(s string) {
		dst = append(binary.BigEndian.AppendUint64(dst, uint64(len(s))), s...)
	}
	dst = append(dst, n.kind)
	text(n.name)
	switch n.kind {
	case kindDirectory:
		dst = binary.BigEndian.AppendUint64(dst, uint64(len(n.children)))
		for _, c := range n.children {
			dst = c.encode(dst)
		}
	case kindLink:
		text(string(n.data))
	default:
		text(string(n.data))
		text("")
	}
	return dst
}

var errTree = errors.New("the bytes are not those of a directory's tree")

// ParseTree reads a tree that was encoded, perhaps by somebody else. The files of the
// tree are views into b.
func ParseTree(b []byte) (*Tree, error) {
	top := &node{kind: kindDirectory}
	top.parent = top
	p := &treeParser{tree: &Tree{root: top, digest: sha256.Sum256(b)}}
	rest, ok := strings.CutPrefix(string(b[:min(len(b), len(treeHead))]), treeHead)
	if !ok || rest != "" {
		return nil, errTree
	}
	p.b = b[len(treeHead):]
	if !p.node(top, 0) || len(p.b) > 0 {
		return nil, errTree
	}
	return p.tree, nil
}

// treeParser reads a tree from the front of b.
type treeParser struct {
	b       []byte
	tree    *Tree
	entries uint64
}

func (p *treeParser) number() (n uint64, ok bool) {
	if len(p.b) < 8 {
		return 0, false
	}
	n, p.b = binary.BigEndian.Uint64(p.b), p.b[8:]
	return n, true
}

func (p *treeParser) text() (text []byte, ok bool) {
	n, ok := p.number()
	if !ok || n > uint64(len(p.b)) {
		return nil, false
	}
	text, p.b = p.b[:n:n], p.b[n:]
	return text, true
}

// node reads what an entry has, whose path has so many bytes before its name.
func (p *treeParser) node(n *node, path int) bool {
	p.entries++
	n.ino = p.entries
	if p.entries > maxEntries || len(p.b) == 0 {
		return false
	}
	kind := p.b[0]
	p.b = p.b[1:]
	name, ok := p.text()
	root := n == p.tree.root
	if n.name = string(name); !ok || root != (n.name == "") || root && kind != kindDirectory || !root && !isName(n.name) {
		return false
	}
	if path += len(name) + 1; path > maxPath+2 { // one for the root, and one for a slash
		return false
	}
	switch n.kind = kind; kind {
	case kindDirectory:
		return p.directory(n, path)
	case kindLink:
		n.data, ok = p.text()
		return ok
	case kindRegular:
		n.data, ok = p.text()
		p.tree.files++
		p.tree.bytes += int64(len(n.data))
		end, whole := p.text()
		return ok && whole && len(end) == 0
	}
	return false
}

func isName(name string) bool {
	return name != "." && name != ".." && utf8.ValidString(name) && !strings.ContainsAny(name, "/\x00")
}

func (p *treeParser) directory(n *node, path int) bool {
	count, ok := p.number()
	if !ok || count > maxEntries {
		return false
	}
	for range count {
		c := &node{parent: n}
		if !p.node(c, path) {
			return false
		}
		if last := len(n.children) - 1; last >= 0 && n.children[last].name >= c.name {
			return false
		}
		n.children = append(n.children, c)
	}
	return true
}
