package definition

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// kind is the type of a node.
type kind uint8

const (
	null kind = iota
	boolean
	integer
	float
	text
	list
	mapping
)

func (k kind) String() string {
	return [...]string{"null", "true or false", "an integer", "a number", "a text", "a list", "a map"}[k]
}

// node is a value of a document, with its place. Aliases are replaced by their
// values.
type node struct {
	kind
	line, column int
	text         string  // of a scalar
	keys         []*node // of a mapping, each a text
	items        []*node // of a list; the values of a mapping
}

// get returns the value of a key; nil if the key is missing.
func (n *node) get(key string) *node {
	for i, k := range n.keys {
		if k.text == key {
			return n.items[i]
		}
	}
	return nil
}

const (
	// MaxSize is the limit of a definition, in bytes.
	MaxSize = 4 << 20
	// maxNodes and maxText bound a document after its aliases are replaced.
	maxNodes = 1 << 18
	maxText  = 1 << 20
	// maxDepth bounds the nesting of lists and maps.
	maxDepth = 32
)

// reader makes nodes of a parsed document.
type reader struct {
	file    string
	anchors map[string]ast.Node
	open    map[string]bool // anchors whose value is being read
	nodes   int
	aliased int // bytes of text below aliases
	below   int // aliases
}

// read parses a document, YAML or JSON.
func read(file string, source []byte) (n *node, err error) {
	if len(source) > MaxSize {
		return nil, &Problem{File: file, Reason: fmt.Sprintf("larger than %d bytes, the limit for a definition", MaxSize)}
	}
	defer func() {
		if r := recover(); r != nil { // the parser is a dependency
			n, err = nil, &Problem{File: file, Reason: fmt.Sprintf("malformed YAML: %v", r)}
		}
	}()
	if line, column, deep := tooDeep(source); deep {
		return nil, &Problem{File: file, Line: line, Column: column, Reason: fmt.Sprintf("too deep: brackets nested more than %d levels, or a line that begins too far to the right", maxDepth)}
	}
	parsed, err := parser.ParseBytes(source, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxError(file, err)
	}
	if len(parsed.Docs) == 1 && parsed.Docs[0].Body == nil {
		return nil, &Problem{File: file, Line: 1, Column: 1, Reason: "empty document: want a map"}
	}
	if len(parsed.Docs) != 1 {
		return nil, &Problem{File: file, Line: 1, Column: 1, Reason: fmt.Sprintf("%d documents: want one, a map", len(parsed.Docs))}
	}
	r := &reader{file: file, anchors: map[string]ast.Node{}, open: map[string]bool{}}
	return r.node(parsed.Docs[0].Body, 0)
}

// tooDeep finds brackets that are nested too deep, and lines that begin too far to the
// right, after spaces or the beginnings of lists ("- - -"): the parser recurses without
// a limit. Brackets in strings may count too.
func tooDeep(source []byte) (line, column int, deep bool) {
	depth, start := 0, lineStart{at: true}
	line, column = 1, 0
	for _, c := range source {
		column++
		start.next(c)
		switch c {
		case '\n':
			line, column = line+1, 0
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(depth-1, 0)
		}
		if depth > 8*maxDepth || start.at && column > maxIndent {
			return line, column, true
		}
	}
	return 0, 0, false
}

// maxIndent bounds the bytes of a line before its first value.
const maxIndent = 1024

// lineStart tells whether a byte stands before the first value of its line.
type lineStart struct {
	at     bool
	marked bool // in an anchor or a tag
}

func (s *lineStart) next(c byte) {
	switch {
	case c == '\n':
		s.at, s.marked = true, false
	case c == ' ' || c == '\t':
		s.marked = false
	case !s.at || s.marked || c == '-' || c == '?':
	case c == '&' || c == '!':
		s.marked = true
	default:
		s.at = false
	}
}

func syntaxError(file string, err error) error {
	p := &Problem{File: file, Reason: "malformed YAML: " + oneLine(err.Error())}
	var at interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if errors.As(err, &at) {
		p.Reason = "malformed YAML: " + oneLine(at.GetMessage())
		if t := at.GetToken(); t != nil && t.Position != nil {
			p.Line, p.Column = t.Position.Line, t.Position.Column
		}
	}
	return p
}

func oneLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return strings.ToValidUTF8(s, "?")
}

func (r *reader) wrong(n *node, format string, args ...any) error {
	return &Problem{File: r.file, Line: n.line, Column: n.column, Reason: fmt.Sprintf(format, args...)}
}

func (r *reader) node(a ast.Node, depth int) (*node, error) {
	n := &node{}
	if t := a.GetToken(); t != nil && t.Position != nil {
		n.line, n.column = t.Position.Line, t.Position.Column
	}
	if r.nodes++; r.nodes > maxNodes || r.aliased > maxText {
		return nil, r.wrong(n, "too large: aliases make more than %d values or %d bytes of it", maxNodes, maxText)
	}
	if depth > maxDepth {
		return nil, r.wrong(n, "nested more than %d levels deep", maxDepth)
	}
	switch a := a.(type) {
	case *ast.MappingNode:
		return n, r.mapping(n, a.Values, depth)
	case *ast.MappingValueNode:
		return n, r.mapping(n, []*ast.MappingValueNode{a}, depth)
	case *ast.SequenceNode:
		n.kind = list
		for _, v := range a.Values {
			item, err := r.node(v, depth+1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, item)
		}
		return n, nil
	case *ast.AnchorNode:
		return r.anchor(n, a, depth)
	case *ast.AliasNode:
		return r.alias(n, a, depth)
	}
	return n, r.scalar(n, a)
}

func (r *reader) mapping(n *node, values []*ast.MappingValueNode, depth int) error {
	n.kind = mapping
	seen := map[string]int{}
	if len(values) > 0 {
		if t := values[0].Key.GetToken(); t != nil && t.Position != nil {
			n.line, n.column = t.Position.Line, t.Position.Column
		}
	}
	for _, v := range values {
		key, err := r.node(v.Key, depth+1)
		if err != nil {
			return err
		}
		if key.kind == list || key.kind == mapping {
			return r.wrong(key, "invalid key: want a text")
		}
		if line := seen[key.text]; line > 0 {
			return r.wrong(key, "duplicate key %q, first in line %d", key.text, line)
		}
		seen[key.text] = key.line
		value := &node{line: key.line, column: key.column}
		if v.Value != nil {
			if value, err = r.node(v.Value, depth+1); err != nil {
				return err
			}
		}
		n.keys, n.items = append(n.keys, key), append(n.items, value)
	}
	return nil
}

func (r *reader) scalar(n *node, a ast.Node) error {
	switch a := a.(type) {
	case *ast.NullNode:
		n.kind = null
	case *ast.BoolNode:
		n.kind, n.text = boolean, fmt.Sprint(a.Value)
	case *ast.IntegerNode:
		n.kind, n.text = integer, fmt.Sprint(a.Value)
	case *ast.FloatNode:
		n.kind, n.text = float, formatFloat(a.Value)
	case *ast.StringNode:
		n.kind, n.text = text, a.Value
	case *ast.LiteralNode:
		n.kind, n.text = text, a.Value.Value
	default:
		return r.wrong(n, "invalid %s: want a plain value", strings.ToLower(a.Type().String()))
	}
	if strings.ToValidUTF8(n.text, "") != n.text {
		return r.wrong(n, "invalid text: want UTF-8")
	}
	if r.below > 0 {
		r.aliased += len(n.text)
	}
	return nil
}

func (r *reader) anchor(n *node, a *ast.AnchorNode, depth int) (*node, error) {
	name := a.Name.String()
	if _, twice := r.anchors[name]; twice && r.below == 0 {
		return nil, r.wrong(n, "duplicate anchor %q", name)
	}
	if a.Value == nil {
		return nil, r.wrong(n, "anchor %q without a value", name)
	}
	r.anchors[name], r.open[name] = a.Value, true
	defer delete(r.open, name)
	return r.node(a.Value, depth+1)
}

func (r *reader) alias(n *node, a *ast.AliasNode, depth int) (*node, error) {
	name := a.Value.String()
	value, known := r.anchors[name]
	switch {
	case r.open[name]:
		return nil, r.wrong(n, "alias %q contains itself", name)
	case !known:
		return nil, r.wrong(n, "unknown anchor %q", name)
	}
	r.below++
	defer func() { r.below-- }()
	r.open[name] = true
	defer delete(r.open, name)
	return r.node(value, depth+1)
}
