package wasmjobs_test

import (
	"os"
	"strings"
	"testing"
)

// TestReadmeShowsExamples holds the Go code of the README to the runnable
// examples of package host: each block stands there, but for its indentation.
func TestReadmeShowsExamples(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := os.ReadFile("host/example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(readme), "\n```go\n")[1:]
	if len(blocks) != 4 {
		t.Fatalf("%d blocks of Go found, expected running, watching, chunks from code and a store", len(blocks))
	}
	for i, block := range blocks {
		code, _, _ := strings.Cut(block, "\n```")
		if !strings.Contains(unindented(string(examples)), unindented(code)) {
			t.Errorf("block %d is no part of host/example_test.go:\n%s", i+1, code)
		}
	}
}

func unindented(code string) string {
	lines := strings.Split(code, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "\n")
}
