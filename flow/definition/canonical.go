package definition

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

// Canonical returns the canonical form of a definition: its JSON by RFC 8785,
// without the keys that cannot change a result (meta, limits, concurrency, rate,
// burst, retry), with start filled in, and with the digest of each module in place
// of its path.
func (d *Definition) Canonical(module func(path string) [sha256.Size]byte) []byte {
	c := canonical{module: func(n *node) *node {
		sum := module(n.text)
		return &node{kind: text, text: fmt.Sprintf("sha256:%x", sum[:])}
	}}
	return appendJSON(nil, c.top(d.root, d.Start))
}

// leftOut are the keys of states, of defaults and of the top level that cannot
// change a result.
var leftOut = []string{"meta", "limits", "concurrency", "rate", "burst", "retry"}

type canonical struct{ module func(n *node) *node }

func (c canonical) top(n *node, start string) *node {
	out := &node{kind: mapping}
	for i, key := range n.keys {
		value := n.items[i]
		switch key.text {
		case "states":
			value = c.states(value)
		case "defaults":
			value = c.without(value, nil)
		case "start":
			continue
		}
		if !slices.Contains(leftOut, key.text) {
			out.set(key.text, value)
		}
	}
	out.set("start", &node{kind: text, text: start})
	return out
}

func (n *node) set(key string, value *node) {
	n.keys, n.items = append(n.keys, &node{kind: text, text: key}), append(n.items, value)
}

func (c canonical) states(n *node) *node {
	out := &node{kind: mapping}
	for i, key := range n.keys {
		out.set(key.text, c.without(n.items[i], c.module))
	}
	return out
}

// without copies a map without the keys that cannot change a result.
func (c canonical) without(n *node, module func(n *node) *node) *node {
	if n.kind != mapping {
		return n
	}
	out := &node{kind: mapping}
	for i, key := range n.keys {
		value := n.items[i]
		switch {
		case slices.Contains(leftOut, key.text):
			continue
		case module == nil:
		case key.text == "module" || key.text == "fold":
			value = module(value)
		case key.text == "children":
			value = c.children(value)
		}
		out.set(key.text, value)
	}
	return out
}

func (c canonical) children(n *node) *node {
	out := &node{kind: mapping}
	for i, key := range n.keys {
		value := n.items[i]
		if key.text == "fold" {
			value = c.module(value)
		}
		out.set(key.text, value)
	}
	return out
}

// appendJSON appends the JSON of a node (RFC 8785).
func appendJSON(b []byte, n *node) []byte {
	switch n.kind {
	case null:
		return append(b, "null"...)
	case boolean, integer, float:
		return append(b, n.text...)
	case text:
		return appendText(b, n.text)
	case list:
		b = append(b, '[')
		for i, item := range n.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSON(b, item)
		}
		return append(b, ']')
	}
	order := make([]int, len(n.keys))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		return slices.Compare(utf16.Encode([]rune(n.keys[i].text)), utf16.Encode([]rune(n.keys[j].text)))
	})
	b = append(b, '{')
	for at, i := range order {
		if at > 0 {
			b = append(b, ',')
		}
		b = append(appendText(b, n.keys[i].text), ':')
		b = appendJSON(b, n.items[i])
	}
	return append(b, '}')
}

func appendText(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case strings.ContainsRune("\b\t\n\f\r", r):
			b = append(b, '\\', "btn.fr"[r-'\b'])
		case r < 0x20:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = append(b, string(r)...)
		}
	}
	return append(b, '"')
}

// formatFloat writes a number as ECMAScript does.
func formatFloat(f float64) string {
	switch abs := max(f, -f); {
	case f == 0:
		return "0"
	case abs >= 1e-6 && abs < 1e21:
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	s := strconv.FormatFloat(f, 'e', -1, 64)
	mantissa, exponent, _ := strings.Cut(s, "e")
	sign := exponent[:1]
	return mantissa + "e" + sign + strings.TrimLeft(exponent[1:], "0")
}
