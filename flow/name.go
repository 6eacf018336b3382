package flow

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// name identifies an item: a root by its number in id order, a child by its parent
// and its number among the parent's children. It is kept as long as anything about
// the item is; the item is kept only as long as it moves.
type name struct {
	parent *name // nil for a root
	number uint32
	depth  uint16
}

func (n *name) child(number uint32) *name { return &name{n, number, n.depth + 1} }

// root returns the number of the root that the item descends from.
func (n *name) root() int {
	for n.parent != nil {
		n = n.parent
	}
	return int(n.number)
}

// compare gives item order: roots in id order, then the numbers by value, a
// parent before its children.
func (n *name) compare(m *name) int {
	a, b := n, m
	for a.depth > b.depth {
		a = a.parent
	}
	for b.depth > a.depth {
		b = b.parent
	}
	if a == b {
		return cmp.Compare(n.depth, m.depth)
	}
	for a.parent != b.parent {
		a, b = a.parent, b.parent
	}
	return cmp.Compare(a.number, b.number)
}

// id returns the id of the item in outputs and messages: an integer for an integer
// root, a text for any other root and for a child.
func (n *name) id(in Input) abi.ID {
	root := rootID(in.ID(n.root()))
	if n.parent == nil {
		return root
	}
	return abi.TextID(string(n.appendPath([]byte(idText(root)))))
}

// appendPath appends the numbers below the root.
func (n *name) appendPath(dst []byte) []byte {
	if n.parent == nil {
		return dst
	}
	dst = append(n.parent.appendPath(dst), "->"...)
	return strconv.AppendUint(dst, uint64(n.number), 10)
}

// rootID returns a root's id. A text is quoted if it is ambiguous.
func rootID(id abi.ID) abi.ID {
	text, isText := id.Text()
	if !isText || !ambiguous(text) {
		return id
	}
	return abi.TextID(`"` + strings.ReplaceAll(text, `"`, `""`) + `"`)
}

// ambiguous reports whether a text root could be taken for another id.
func ambiguous(text string) bool {
	return strings.Contains(text, "->") || strings.ContainsAny(text, `,"`) || text != "" && strings.Trim(text, "0123456789") == ""
}

func idText(id abi.ID) string {
	if text, isText := id.Text(); isText {
		return text
	}
	n, _ := id.Int()
	return strconv.FormatUint(n, 10)
}

// itemRef names an item as people write it.
type itemRef struct {
	root string // as [idText] of its rootID
	path []uint32
}

// parseItem reads an item's id: the id of its root, then "->" and a number for each
// level of children.
func parseItem(s string) (r itemRef, ok bool) {
	r.root, s = cutRoot(s)
	for s != "" {
		rest, found := strings.CutPrefix(s, "->")
		if !found {
			return r, false
		}
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		n, err := strconv.ParseUint(rest[:digits], 10, 32)
		if err != nil {
			return r, false
		}
		r.path, s = append(r.path, uint32(n)), rest[digits:]
	}
	return r, true
}

// cutRoot splits an id after the root, which may be quoted.
func cutRoot(s string) (root, rest string) {
	if strings.HasPrefix(s, `"`) {
		for i := 1; i < len(s); i++ {
			switch {
			case s[i] != '"':
			case i+1 < len(s) && s[i+1] == '"':
				i++
			default:
				return s[:i+1], s[i+1:]
			}
		}
		return s, ""
	}
	if i := strings.Index(s, "->"); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}
