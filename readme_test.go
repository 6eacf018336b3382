package wasmjobs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadmeCompiles compiles the Go programs of the README. What they do is in
// the runnable examples of package host.
func TestReadmeCompiles(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(readme), "\n```go\n")[1:]
	if len(blocks) < 2 {
		t.Fatalf("%d Go programs found", len(blocks))
	}
	for i, block := range blocks {
		program, _, _ := strings.Cut(block, "\n```")
		path := filepath.Join(t.TempDir(), fmt.Sprintf("readme%d.go", i))
		library := strings.Replace(program, "package main", "package readme", 1)
		if err := os.WriteFile(path, []byte(library), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("go", "vet", path).CombinedOutput(); err != nil {
			t.Errorf("program %d: %v\n%s", i+1, err, out)
		}
	}
}
