package wasmjobs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// shape bounds the lines of a tree's functions, from func to the closing brace. Short
// functions are read at a glance; a long one should be a list of steps.
type shape struct {
	ninth   int // nine of ten functions have at most so many lines
	longest int
}

var shapes = map[string]shape{
	"abi":       {30, 50},
	"cmd":       {30, 120}, // the steps of a command, in order
	"flow":      {30, 50},
	"host":      {30, 70},
	"processor": {30, 60},
	"runtime":   {30, 60},
	"store":     {30, 50},
}

// TestFunctionsAreShort checks the length of all functions except those in tests.
func TestFunctionsAreShort(t *testing.T) {
	lines := map[string][]int{}
	eachSource(t, func(path string) {
		tree, _, _ := strings.Cut(path, "/")
		want, bounded := shapes[tree]
		if !bounded {
			return
		}
		for name, n := range functionsOf(t, path) {
			lines[tree] = append(lines[tree], n)
			if n > want.longest {
				t.Errorf("%s has %d lines, want at most %d in %s", name, n, want.longest, tree)
			}
		}
	})
	for tree, want := range shapes {
		all := lines[tree]
		if len(all) < 50 {
			t.Fatalf("only %d functions of %s were read", len(all), tree)
		}
		slices.Sort(all)
		if n := all[(len(all)*9+9)/10-1]; n > want.ninth {
			t.Errorf("%s: one in ten functions has %d lines or more, want at most %d", tree, n, want.ninth)
		}
	}
}

// functionsOf returns the number of lines of each function of a file, by position and
// name.
func functionsOf(t *testing.T, path string) map[string]int {
	t.Helper()
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]int{}
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
			first, last := set.Position(fn.Pos()), set.Position(fn.End())
			lines[first.String()+" "+fn.Name.Name] = last.Line - first.Line + 1
		}
	}
	return lines
}
