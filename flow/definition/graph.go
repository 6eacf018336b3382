package definition

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	_ "embed"
)

// Schema is the JSON Schema of definitions.
//
//go:embed schema.json
var Schema []byte

// Edge is a route from a state to another.
type Edge struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Label string `json:"label,omitempty"` // a class of failure, or join; "" = next, or a move
}

// Edges returns the routes, in declared order.
func (d *Definition) Edges() (edges []Edge) {
	for _, s := range d.States {
		if s.Next != "" {
			edges = append(edges, Edge{s.Name, s.Next, ""})
		}
		for _, to := range s.To {
			edges = append(edges, Edge{s.Name, to, ""})
		}
		if s.Children != nil {
			edges = append(edges, Edge{s.Name, s.Children.Join, "join"})
		}
		var classes []string
		for class := range s.On {
			classes = append(classes, class)
		}
		slices.Sort(classes)
		for _, class := range classes {
			edges = append(edges, Edge{s.Name, s.On[class], class})
		}
	}
	return edges
}

// Mermaid returns the flow as a Mermaid flowchart.
func (d *Definition) Mermaid() string {
	var b strings.Builder
	b.WriteString("flowchart TD\n")
	number := map[string]int{}
	for i, s := range d.States {
		number[s.Name] = i
		shape := [2]string{"[", "]"}
		if s.End || s.Failed {
			shape = [2]string{"([", "])"}
		}
		fmt.Fprintf(&b, "  s%d%s\"%s\"%s\n", i, shape[0], s.Name, shape[1])
	}
	for _, e := range d.Edges() {
		label := ""
		if e.Label != "" {
			label = fmt.Sprintf("|\"%s\"|", e.Label)
		}
		fmt.Fprintf(&b, "  s%d -->%s s%d\n", number[e.From], label, number[e.To])
	}
	return b.String()
}

// DOT returns the flow as a Graphviz graph.
func (d *Definition) DOT() string {
	var b strings.Builder
	fmt.Fprintf(&b, "digraph %q {\n", d.Name)
	for _, s := range d.States {
		shape := "box"
		if s.End || s.Failed {
			shape = "oval"
		}
		fmt.Fprintf(&b, "  %q [shape=%s];\n", s.Name, shape)
	}
	for _, e := range d.Edges() {
		label := ""
		if e.Label != "" {
			label = fmt.Sprintf(" [label=%q]", e.Label)
		}
		fmt.Fprintf(&b, "  %q -> %q%s;\n", e.From, e.To, label)
	}
	b.WriteString("}\n")
	return b.String()
}

// JSON returns the flow's states and routes.
func (d *Definition) JSON() ([]byte, error) {
	type state struct {
		Name string `json:"name"`
		Kind string `json:"kind"`
	}
	g := struct {
		Flow   string  `json:"flow"`
		Start  string  `json:"start"`
		States []state `json:"states"`
		Edges  []Edge  `json:"edges"`
	}{Flow: d.Name, Start: d.Start, Edges: d.Edges()}
	for _, s := range d.States {
		g.States = append(g.States, state{s.Name, s.Kind()})
	}
	b, err := json.MarshalIndent(g, "", "  ")
	return append(b, '\n'), err
}

// Kind returns the kind of a state: module, http, command, go, wait, end or
// failed.
func (s *State) Kind() string {
	switch {
	case s.Module != "":
		return "module"
	case s.Effect != "":
		return s.Effect
	case s.Go != "":
		return "go"
	case s.Wait > 0:
		return "wait"
	case s.Failed:
		return "failed"
	}
	return "end"
}
