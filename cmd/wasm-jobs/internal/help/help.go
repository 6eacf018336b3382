// Package help prints the pages that describe verbs: as text of a given width, and as
// manual pages.
package help

import (
	"bufio"
	"io"
	"regexp"
	"strings"
	"sync"
	"unicode/utf8"
)

// Page describes a verb, or the command as a whole.
type Page struct {
	Name    string // as it is typed, such as "wasm-jobs run"
	Summary string // one phrase
	// Text begins with the forms of the call, one a line. Blocks after it are separated
	// by empty lines. A block in which a line begins with a space, or which begins with
	// "Example: ", keeps its lines; any other block is a paragraph.
	Text   string
	Groups []Group // of verbs or flags, in order
	More   string  // a last paragraph; may be empty
}

// Group is a list under a title.
type Group struct {
	Title   string
	Entries []Entry
}

// Entry is a verb or a flag.
type Entry struct{ Term, Text string }

// maxTerm is the widest term that has its text on the same line.
const maxTerm = 28

// Write prints the page in lines of at most width columns, which must be 20 or more. Only
// a word that is longer stands out.
func (p *Page) Write(out io.Writer, width int) error {
	w := &writer{Writer: bufio.NewWriter(out), width: width}
	w.wrap(p.Name+": "+p.Summary, 0, 2)
	for i, block := range blocks(p.Text) {
		w.WriteString("\n")
		switch {
		case i == 0:
			w.forms(strings.Split(block, "\n"))
		case preformatted(block):
			w.keep(block)
		default:
			w.wrap(block, 0, 0)
		}
	}
	for _, g := range p.Groups {
		w.group(g)
	}
	if p.More != "" {
		w.WriteString("\n")
		w.wrap(p.More, 0, 0)
	}
	return w.Flush()
}

// blocks splits a text at its empty lines.
func blocks(text string) []string {
	if text = strings.TrimSpace(text); text == "" {
		return nil
	}
	return strings.Split(text, "\n\n")
}

// preformatted reports whether a block keeps its lines.
func preformatted(block string) bool {
	return strings.HasPrefix(block, "Example: ") || strings.HasPrefix(block, " ") || strings.Contains(block, "\n ")
}

// column matches what stands before the last column of a line of a table.
var column = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^ *(\S.*?)??  +`) })

// keep prints a block with its lines. A line that is too long is broken: a command, as
// in a shell; a line of a table, in its last column.
func (w *writer) keep(block string) {
	example := strings.HasPrefix(block, "Example: ")
	for line := range strings.SplitSeq(block, "\n") {
		switch {
		case utf8.RuneCountInString(line) <= w.width:
			w.WriteString(line + "\n")
		case example:
			w.command(line)
		default:
			at := len(column().FindString(line))
			w.wrap(line, at, at)
		}
	}
}

// command prints a command in several lines, with a backslash at the end of all but the
// last.
func (w *writer) command(line string) {
	const indent = len("Example: ") + 2
	for utf8.RuneCountInString(line) > w.width {
		at := strings.LastIndexByte(line[:w.width-1], ' ')
		if at <= indent {
			break
		}
		w.WriteString(line[:at] + " \\\n")
		line = strings.Repeat(" ", indent) + line[at+1:]
	}
	w.WriteString(line + "\n")
}

type writer struct {
	*bufio.Writer
	width int
}

// forms prints the forms of the call.
func (w *writer) forms(lines []string) {
	const title = "Usage: "
	for i, line := range lines {
		prefix := strings.Repeat(" ", len(title))
		if i == 0 {
			prefix = title
		}
		w.wrap(prefix+strings.TrimSpace(line), 0, len(title)+2)
	}
}

func (w *writer) group(g Group) {
	w.WriteString("\n" + g.Title + ":\n")
	column := 0
	for _, e := range g.Entries {
		if n := utf8.RuneCountInString(e.Term); n <= maxTerm {
			column = max(column, n)
		}
	}
	column = max(column+4, 10) // two spaces before the term, and two after it
	for _, e := range g.Entries {
		term := "  " + e.Term
		if n := utf8.RuneCountInString(term); n+2 <= column {
			w.wrap(term+strings.Repeat(" ", column-n)+e.Text, column, column)
			continue
		}
		w.WriteString(term + "\n")
		w.wrap(strings.Repeat(" ", column)+e.Text, column, column)
	}
}

// wrap prints a paragraph. Its first kept columns are printed as they are; lines after
// the first have an indent.
func (w *writer) wrap(text string, kept, indent int) {
	for kept < len(text) && text[kept] == ' ' {
		kept++
	}
	line := text[:kept]
	for i, word := range strings.Fields(text[kept:]) {
		switch {
		case i == 0:
			line += word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > w.width:
			w.WriteString(line + "\n")
			line = strings.Repeat(" ", indent) + word
		default:
			line += " " + word
		}
	}
	w.WriteString(strings.TrimRight(line, " ") + "\n")
}
