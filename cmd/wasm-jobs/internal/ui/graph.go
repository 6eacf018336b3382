package ui

import (
	"fmt"
	"html/template"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/flow"
)

// The size of a state in a drawing, in its own units, and the space around it.
const (
	boxWidth  = 150
	boxHeight = 44
	gapX      = 60
	gapY      = 18
)

// maxDrawn is the number of states that are drawn; the table has all of them.
const maxDrawn = 200

// graph draws the states of a flow from left to right, each in a column after the
// states that lead to it.
func graph(f *Flow) template.HTML {
	states := f.Report.States
	if len(states) == 0 || len(states) > maxDrawn {
		return ""
	}
	at, width, height := layout(states, f.Edges)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="graph" viewBox="0 0 %d %d" role="img" aria-label="States of the flow">`, width, height)
	b.WriteString(`<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path class="head" d="M0 0L8 4L0 8z"/></marker></defs>`)
	for _, e := range f.Edges {
		from, known := at[e.From]
		to, both := at[e.To]
		if known && both {
			fmt.Fprintf(&b, `<path class="edge %s" d="%s" marker-end="url(#arrow)"/>`, template.HTMLEscapeString(e.Kind), curve(from, to))
		}
	}
	for i := range states {
		box(&b, &states[i], at[states[i].Name], f.Report.Bottleneck)
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}

type point struct{ x, y int }

// curve returns the path from one state to another.
func curve(from, to point) string {
	x1, y1, x2, y2 := from.x+boxWidth, from.y+boxHeight/2, to.x, to.y+boxHeight/2
	if x2 > x1 {
		return fmt.Sprintf("M%d %dC%d %d %d %d %d %d", x1, y1, x1+gapX/2, y1, x2-gapX/2, y2, x2, y2)
	}
	low := max(from.y, to.y) + boxHeight + gapY/2 // back, below both
	return fmt.Sprintf("M%d %dC%d %d %d %d %d %dS%d %d %d %d", x1, y1, x1+gapX/2, low, x1, low, (x1+x2)/2, low, x2-gapX/2, low, x2, y2)
}

func box(b *strings.Builder, s *flow.StateReport, p point, hot *flow.Bottleneck) {
	class := "box " + s.Kind
	if hot != nil && hot.State == s.Name {
		class += " hot"
	}
	fmt.Fprintf(b, `<g><rect class="%s" x="%d" y="%d" width="%d" height="%d" rx="5"/><text x="%d" y="%d">%s</text><text class="soft" x="%d" y="%d">%s</text></g>`,
		template.HTMLEscapeString(class), p.x, p.y, boxWidth, boxHeight, p.x+8, p.y+18, template.HTMLEscapeString(short(s.Name)),
		p.x+8, p.y+35, template.HTMLEscapeString(fmt.Sprintf("%d in, %d out, %d failed", s.Entered, s.Left, s.Failed)))
}

func short(name string) string {
	if r := []rune(name); len(r) > 18 {
		return string(r[:17]) + "…"
	}
	return name
}

// layout returns the positions of all states, and the size of the drawing. A state is
// one column after the latest state that leads to it, except over edges that go back.
func layout(states []flow.StateReport, edges []Edge) (at map[string]point, width, height int) {
	order := map[string]int{}
	for i := range states {
		order[states[i].Name] = i
	}
	column := make([]int, len(states))
	for range states {
		moved := false
		for _, e := range edges {
			from, known := order[e.From]
			to, both := order[e.To]
			if known && both && from < to && column[to] < column[from]+1 {
				column[to], moved = column[from]+1, true
			}
		}
		if !moved {
			break
		}
	}
	at, rows := map[string]point{}, map[int]int{}
	for i := range states {
		c := column[i]
		p := point{4 + c*(boxWidth+gapX), 4 + rows[c]*(boxHeight+gapY)}
		rows[c]++
		at[states[i].Name] = p
		width, height = max(width, p.x+boxWidth+gapX/2), max(height, p.y+boxHeight+gapY)
	}
	return at, width, height
}
