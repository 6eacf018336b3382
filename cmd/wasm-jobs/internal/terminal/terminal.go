// Package terminal tells what a stream that people read can show.
package terminal

import (
	"io"
	"os"

	"golang.org/x/term"
)

// DefaultWidth is the width in columns of text for people if there is no terminal.
const DefaultWidth = 80

// minWidth is the smallest width that is believed. Some terminals report 0.
const minWidth = 20

// Is reports whether w is a terminal.
func Is(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Width returns the columns of the terminal w, or 0 if w is not a terminal or its size
// is not known.
func Width(w io.Writer) int {
	if !Is(w) {
		return 0
	}
	width, _, err := term.GetSize(int(w.(*os.File).Fd()))
	if err != nil || width < minWidth {
		return 0
	}
	return width
}

// Style is how a word is shown.
type Style string

// Styles, as the numbers of the escape sequence "select graphic rendition".
const (
	Bold   Style = "1"
	Red    Style = "31"
	Green  Style = "32"
	Yellow Style = "33"
)

// Colours adds styles to text for one stream. The zero value adds none.
type Colours struct{ on bool }

// ColoursOf returns the colours for w. They are on if w is a terminal. NO_COLOR turns
// them off, as no-color.org says; if it is empty, CLICOLOR_FORCE other than 0 turns them
// on, as bixense.com/clicolors says.
func ColoursOf(w io.Writer) Colours {
	switch force := os.Getenv("CLICOLOR_FORCE"); {
	case os.Getenv("NO_COLOR") != "":
		return Colours{}
	case force != "" && force != "0":
		return Colours{true}
	case os.Getenv("CLICOLOR") == "0" || os.Getenv("TERM") == "dumb":
		return Colours{}
	}
	return Colours{Is(w)}
}

// In returns text in a style.
func (c Colours) In(style Style, text string) string {
	if !c.on || text == "" {
		return text
	}
	return "\x1b[" + string(style) + "m" + text + "\x1b[0m"
}
