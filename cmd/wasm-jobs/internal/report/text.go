package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteText writes the report for a terminal. printable escapes control characters in
// a line.
func (d *Document) WriteText(w io.Writer, printable func(string) string) error {
	t := &textWriter{printable: printable}
	t.line("%s: %s", cut(d.title(), maxID), d.State)
	for _, s := range d.sections() {
		t.section(&s)
	}
	_, err := w.Write(t.Bytes())
	return err
}

// textWriter collects lines.
type textWriter struct {
	bytes.Buffer
	printable func(string) string
}

func (t *textWriter) line(format string, args ...any) {
	fmt.Fprintln(t, t.printable(fmt.Sprintf(format, args...)))
}

func (t *textWriter) section(s *section) {
	fmt.Fprintf(t, "\n%s\n%s\n", s.Title, strings.Repeat("-", len(s.Title)))
	if s.Note != "" {
		t.line("%s", s.Note)
	}
	for _, line := range s.Lines {
		t.line("%s", line)
	}
	if s.Table != nil {
		t.table(s.Table)
	}
	for i := range s.Failures {
		t.failure(&s.Failures[i])
	}
	if s.Code != "" {
		t.line("%s", s.Code)
	}
}

func (t *textWriter) table(of *table) {
	w := tabwriter.NewWriter(t, 0, 8, 2, ' ', 0)
	if len(of.Head) > 0 {
		fmt.Fprintln(w, strings.Join(of.Head, "\t"))
	}
	for _, row := range of.Rows {
		for i, c := range row {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, t.printable(c.Text))
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush() // to memory
}

func (t *textWriter) failure(f *failureView) {
	t.line("%s: %s (%s)", f.Class.Text, f.Message, f.Number.Text)
	t.line("  chunks %s", f.IDs)
	for _, frame := range f.Stack {
		t.line("  at %s", frame)
	}
	for _, line := range f.Logs {
		t.line("  log: %s", line)
	}
	if f.Bundle != "" {
		t.line("  bundle %s", f.Bundle)
	}
	if f.Alone != "" {
		t.line("  run the first one again: %s", f.Alone)
	}
}
