package wasmjobs_test

import (
	"go/doc/comment"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// maxReadme is the maximum number of words in the README.
const maxReadme = 900

// TestReadmeIsShort counts the words of the README, code included.
func TestReadmeIsShort(t *testing.T) {
	if n := len(strings.Fields(readText(t, "README.md"))); n > maxReadme {
		t.Errorf("the README has %d words, want at most %d: move some to docs", n, maxReadme)
	}
}

// TestPagesShowExamples checks that each block of Go code in the README and in docs is
// part of a program that is compiled and run, apart from indentation.
func TestPagesShowExamples(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	compiled, found := examples(t), 0
	for _, page := range append(pages, "README.md") {
		for i, block := range strings.Split(readText(t, page), "\n```go\n")[1:] {
			code, _, _ := strings.Cut(block, "\n```")
			found++
			if !strings.Contains(compiled, unindented(code)) {
				t.Errorf("%s: block %d is not part of an example:\n%s", page, i+1, code)
			}
		}
	}
	if found < 6 {
		t.Errorf("%d blocks of Go found, want at least 6", found)
	}
}

// TestPackageDocShowsExamples checks the same for the documentation of package host,
// which begins with an example.
func TestPackageDocShowsExamples(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "host/doc.go", nil, parser.ParseComments|parser.PackageClauseOnly)
	if err != nil {
		t.Fatal(err)
	}
	compiled, blocks := examples(t), 0
	for _, block := range new(comment.Parser).Parse(f.Doc.Text()).Content {
		code, ok := block.(*comment.Code)
		if !ok {
			continue
		}
		blocks++
		if !strings.Contains(compiled, unindented(strings.TrimSuffix(code.Text, "\n"))) {
			t.Errorf("code that is not part of an example:\n%s", code.Text)
		}
	}
	if blocks == 0 {
		t.Error("no code was found")
	}
}

// examples returns all programs without their indentation. The tests of their packages
// compile and run them.
func examples(t *testing.T) string {
	t.Helper()
	paths, err := filepath.Glob("examples/*/main.go")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	var all strings.Builder
	for _, path := range append(paths, "host/example_test.go") {
		all.WriteString(unindented(readText(t, path)) + "\n")
	}
	return all.String()
}

func readText(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func unindented(code string) string {
	lines := strings.Split(code, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "\n")
}
