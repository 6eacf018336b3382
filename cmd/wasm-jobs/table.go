package main

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/rivo/uniseg"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/terminal"
)

const (
	// columnGap is the space between two columns.
	columnGap = 2
	// minColumn is the width to which a column is shortened at most.
	minColumn = 8
	// minText is the smallest width of text that is wrapped.
	minText = 20
)

// table prints rows with aligned columns. It escapes control characters in cells,
// because names of exports, files and jobs may contain anything. On a terminal, rows of
// two cells are wrapped, and cells of longer rows are shortened, so that lines fit.
type table struct {
	out     io.Writer
	width   int // columns of the terminal; 0 = there is none
	colours terminal.Colours
	rows    [][]cell
}

// cell is a cell that may have a style.
type cell struct {
	text  string
	style terminal.Style
}

func newTable(out io.Writer) *table {
	return &table{out: out, width: terminal.Width(out), colours: terminal.ColoursOf(out)}
}

// row adds a row. A cell may be a value of any type, or a [cell].
func (t *table) row(values ...any) {
	row := make([]cell, len(values))
	for i, value := range values {
		c, ok := value.(cell)
		if !ok {
			c.text = fmt.Sprint(value)
		}
		c.text = printable(c.text)
		row[i] = c
	}
	t.rows = append(t.rows, row)
}

// header adds a row of titles.
func (t *table) header(titles ...string) {
	row := make([]cell, len(titles))
	for i, title := range titles {
		row[i] = cell{title, terminal.Bold}
	}
	t.rows = append(t.rows, row)
}

// field adds a row of a name and a value.
func (t *table) field(name, format string, args ...any) { t.row(name, fmt.Sprintf(format, args...)) }

// flush writes all rows, and returns the first error.
func (t *table) flush() error {
	if t.width > 0 {
		t.shorten()
	}
	widths := t.columns()
	w := bufio.NewWriter(t.out)
	for i, row := range t.rows {
		indent := 0
		for c, cell := range row {
			if c == len(row)-1 {
				t.last(w, cell, indent, len(row) == 2)
				break
			}
			gap := widths[i][c] - uniseg.StringWidth(cell.text)
			w.WriteString(t.colours.In(cell.style, cell.text) + strings.Repeat(" ", gap))
			indent += widths[i][c]
		}
		w.WriteString("\n")
	}
	t.rows = nil
	return w.Flush()
}

// last prints the last cell of a row. If wraps is set, it continues on more lines.
func (t *table) last(w *bufio.Writer, c cell, indent int, wraps bool) {
	if wraps && t.width-indent >= minText {
		lines := wrapText(c.text, t.width-indent)
		for _, line := range lines[:len(lines)-1] {
			w.WriteString(t.colours.In(c.style, line) + "\n" + strings.Repeat(" ", indent))
		}
		c.text = lines[len(lines)-1]
	}
	w.WriteString(t.colours.In(c.style, c.text))
}

// columns returns the width of each column in each row, with the gap after it. Only
// neighbouring rows share a width. The last cell of a row has none.
func (t *table) columns() [][]int {
	widths := make([][]int, len(t.rows))
	most := 0
	for i, row := range t.rows {
		widths[i] = make([]int, max(len(row)-1, 0))
		most = max(most, len(row)-1)
	}
	for c := range most {
		for first := 0; first < len(t.rows); {
			last, width := first, 0
			for ; last < len(t.rows) && c < len(t.rows[last])-1; last++ {
				width = max(width, uniseg.StringWidth(t.rows[last][c].text)+columnGap)
			}
			for i := first; i < last; i++ {
				widths[i][c] = width
			}
			first = max(last, first+1)
		}
	}
	return widths
}

// shorten cuts cells, if a row has more than two. The widest columns are cut first. The
// last cell of a row of two is wrapped instead, but its first may share its width with
// neighbours.
func (t *table) shorten() {
	if !slices.ContainsFunc(t.rows, func(row []cell) bool { return len(row) > 2 }) {
		return
	}
	var widths []int
	for _, row := range t.rows {
		for c, cell := range columnsOf(row) {
			if c == len(widths) {
				widths = append(widths, 0)
			}
			widths[c] = max(widths[c], uniseg.StringWidth(cell.text))
		}
	}
	total := max(len(widths)-1, 0) * columnGap
	for _, width := range widths {
		total += width
	}
	for ; total > t.width; total-- {
		widest := 0
		for c, width := range widths {
			if width >= widths[widest] {
				widest = c
			}
		}
		if widths[widest] <= minColumn {
			break
		}
		widths[widest]--
	}
	for _, row := range t.rows {
		for c, cell := range columnsOf(row) {
			row[c].text = cut(cell.text, widths[c])
		}
	}
}

// columnsOf returns the cells of a row that are cut if they are too wide.
func columnsOf(row []cell) []cell {
	if len(row) > 2 {
		return row
	}
	return row[:max(len(row)-1, 0)]
}

// cut shortens text to a width. An ellipsis stands for the rest.
func cut(text string, width int) string {
	if uniseg.StringWidth(text) <= width {
		return text
	}
	return head(text, width-1) + "…"
}

// head returns the longest beginning of text of at most width columns.
func head(text string, width int) string {
	end := 0
	for g := uniseg.NewGraphemes(text); g.Next(); {
		if width -= g.Width(); width < 0 {
			break
		}
		_, end = g.Positions()
	}
	return text[:end]
}

// wrapText breaks text into lines of a width, which must be 2 or more, at spaces if it
// can.
func wrapText(text string, width int) (lines []string) {
	for uniseg.StringWidth(text) > width {
		kept := head(text, width)
		if at := strings.LastIndexByte(kept, ' '); at > 0 && text[len(kept)] != ' ' {
			kept = kept[:at]
		}
		lines = append(lines, strings.TrimRight(kept, " "))
		text = strings.TrimLeft(text[len(kept):], " ")
	}
	return append(lines, text)
}

// stateCell returns the state of a job in its colour.
func stateCell(state string) cell {
	switch state {
	case "succeeded":
		return cell{state, terminal.Green}
	case "incomplete", "died", "broken", "failed", "cancelled", "gone":
		return cell{state, terminal.Red}
	case "running", "active", "uploading", "paused", "interrupted", "held":
		return cell{state, terminal.Yellow}
	}
	return cell{text: state}
}
