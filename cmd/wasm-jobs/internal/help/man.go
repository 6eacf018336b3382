package help

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Section is the section of the manual that has the pages.
const Section = 1

// WriteMan prints the page in the man(7) language. version is shown at the foot, and
// also names the pages to see.
func (p *Page) WriteMan(out io.Writer, version string, also []string) error {
	w := &manWriter{bufio.NewWriter(out)}
	title := ManName(p.Name)
	fmt.Fprintf(w, ".TH %s %d \"\" %s \"\"\n", quoted(strings.ToUpper(title)), Section, quoted(version))
	w.section("NAME")
	w.line(title + ` \- ` + escaped(p.Summary))
	for i, block := range blocks(p.Text) {
		switch {
		case i == 0:
			w.section("SYNOPSIS")
			w.lines(block)
			w.section("DESCRIPTION")
		case preformatted(block):
			w.lines(block)
		default:
			w.macro(".PP")
			w.text(block)
		}
	}
	for _, g := range p.Groups {
		w.section(strings.ToUpper(g.Title))
		for _, e := range g.Entries {
			w.macro(".TP")
			w.line(`\fB` + escaped(e.Term) + `\fR`)
			w.text(e.Text)
		}
	}
	if p.More != "" {
		w.macro(".PP")
		w.text(p.More)
	}
	w.also(also)
	return w.Flush()
}

// ManName returns the name of a verb's page.
func ManName(verb string) string { return strings.ReplaceAll(verb, " ", "-") }

type manWriter struct{ *bufio.Writer }

func (w *manWriter) macro(text string)    { fmt.Fprintln(w, text) }
func (w *manWriter) section(title string) { w.macro(".SH " + quoted(title)) }

// line prints a line of text that is escaped already.
func (w *manWriter) line(text string) {
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	fmt.Fprintln(w, text)
}

func (w *manWriter) text(paragraph string) {
	w.line(escaped(strings.Join(strings.Fields(paragraph), " ")))
}

// lines prints lines that are not filled.
func (w *manWriter) lines(block string) {
	w.macro(".PP")
	w.macro(".nf")
	for line := range strings.SplitSeq(block, "\n") {
		w.line(escaped(line))
	}
	w.macro(".fi")
}

func (w *manWriter) also(names []string) {
	if len(names) == 0 {
		return
	}
	w.section("SEE ALSO")
	for i, name := range names {
		comma := ","
		if i == len(names)-1 {
			comma = ""
		}
		w.macro(fmt.Sprintf(".BR %s (%d)%s", escaped(name), Section, comma))
	}
}

// escaped returns text as it is written in man(7).
func escaped(text string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(text)
}

func quoted(text string) string {
	return `"` + strings.ReplaceAll(escaped(text), `"`, `\(dq`) + `"`
}
