package wasmjobs_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The limits of TestVoice: CONTRIBUTING.md has the rules, with examples.
const maxPerThousand = 2.0

var (
	word = regexp.MustCompile(`[A-Za-z][A-Za-z'’-]*`)
	// dialect are the words that the project once used instead of "if" and of
	// nouns. Other uses of them are rare enough to be counted as well.
	dialect = map[string]*regexp.Regexp{
		"where": regexp.MustCompile(`(?i)\bwhere\b`),
		"what":  regexp.MustCompile(`(?i)\bwhat\b`),
	}
	// negations are messages that nobody searches for.
	negations = regexp.MustCompile(`\b(is|are) (no|none of) [a-z]`)
	// existential sentences are plain English: "there is no store".
	existential = regexp.MustCompile(`\b[Tt]here (is|are) no(ne of)? `)
	codeBlock   = regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
)

// prose is text of one file, without its code.
type prose struct {
	path     string
	text     string
	messages []message
}

type message struct {
	line int
	text string
}

// TestVoice counts words of the project's former dialect in all comments and
// pages, and messages in the form "X is no Y".
func TestVoice(t *testing.T) {
	words, counts := 0, map[string]int{}
	for _, p := range readProse(t) {
		n := len(word.FindAllString(p.text, -1))
		words += n
		for name, re := range dialect {
			found := len(re.FindAllString(p.text, -1))
			counts[name] += found
			if n >= 300 && float64(found)*1000/float64(n) > 3*maxPerThousand {
				t.Errorf("%s: %q stands %d times in %d words: use \"if\", \"when\" or a noun", p.path, name, found, n)
			}
		}
		for _, m := range p.messages {
			if negations.MatchString(existential.ReplaceAllString(m.text, "")) {
				t.Errorf("%s:%d: the message %q says what something is not: want \"invalid X: want Y\"", p.path, m.line, m.text)
			}
		}
	}
	for name, n := range counts {
		rate := float64(n) * 1000 / float64(words)
		t.Logf("%q: %.2f in 1,000 words (%d in %d)", name, rate, n, words)
		if rate > maxPerThousand {
			t.Errorf("%q stands %.2f times in 1,000 words of comments and pages, want at most %v", name, rate, maxPerThousand)
		}
	}
}

// readProse returns the text of all Go files and pages of the repository.
func readProse(t *testing.T) (all []prose) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "build", "node_modules", "target"}, d.Name()):
			return fs.SkipDir
		case strings.HasSuffix(path, ".md"):
			text, err := os.ReadFile(path)
			all = append(all, prose{path: path, text: codeBlock.ReplaceAllString(string(text), "")})
			return err
		case strings.HasSuffix(path, ".go"):
			p, err := goProse(path)
			all = append(all, p)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// goProse returns the comments of a file, and its strings of several words.
func goProse(path string) (prose, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return prose{}, fmt.Errorf("%s: %w", path, err)
	}
	p := prose{path: path}
	var text strings.Builder
	for _, c := range f.Comments {
		text.WriteString(c.Text())
	}
	p.text = codeBlock.ReplaceAllString(text.String(), "")
	ast.Inspect(f, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil && strings.Contains(s, " ") {
				p.messages = append(p.messages, message{fset.Position(lit.Pos()).Line, s})
			}
		}
		return true
	})
	return p, nil
}
