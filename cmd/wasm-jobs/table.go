package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// table prints rows to people, with cells in columns. What terminals would obey
// in a cell is escaped: names of exports, files and jobs may hold anything.
type table struct{ w *tabwriter.Writer }

func newTable(out io.Writer) *table { return &table{tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)} }

// row adds a row.
func (t *table) row(cells ...any) {
	for i, cell := range cells {
		if i > 0 {
			fmt.Fprint(t.w, "\t")
		}
		fmt.Fprint(t.w, printable(fmt.Sprint(cell)))
	}
	fmt.Fprintln(t.w)
}

// field adds a row of a name and a value.
func (t *table) field(name, format string, args ...any) { t.row(name, fmt.Sprintf(format, args...)) }

// flush writes all rows. Its error is the first of any.
func (t *table) flush() error { return t.w.Flush() }
