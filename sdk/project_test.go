package sdk_test

import (
	"bytes"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/sdk"
)

// The first example of a README is a guest: it compiles in a new project.
func TestExamplesOfReadmes(t *testing.T) {
	for _, tt := range []struct {
		language, source string
		check            []string
	}{
		{"c", "main.c", []string{"cc", "-std=c17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "main.c"}},
		{"go", "main.go", []string{"go", "vet", "."}},
	} {
		t.Run(tt.language, func(t *testing.T) {
			if _, err := exec.LookPath(tt.check[0]); err != nil {
				t.Skip(err)
			}
			readme, err := os.ReadFile(filepath.Join(tt.language, "README.md"))
			if err != nil {
				t.Fatal(err)
			}
			block := regexp.MustCompile("(?s)```" + tt.language + "\n(.*?)```").FindSubmatch(readme)
			dir := project(t, tt.language, "warmest")
			if err := os.WriteFile(filepath.Join(dir, tt.source), block[1], 0o600); err != nil {
				t.Fatal(err)
			}
			_ = os.Remove(filepath.Join(dir, "main_test.go")) // of the source before
			check := exec.Command(tt.check[0], tt.check[1:]...)
			check.Dir, check.Env = dir, append(os.Environ(), "GOPROXY=off", "GOFLAGS=")
			if out, err := check.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func project(t *testing.T, language, name string) (dir string) {
	t.Helper()
	files, err := sdk.Project(language, name)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for _, f := range files {
		path := filepath.Join(dir, f.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A project has its own name and all common files, and no mark is left.
func TestProjects(t *testing.T) {
	for _, language := range sdk.Languages() {
		for _, example := range sdk.Examples() {
			testProject(t, language, example)
		}
	}
	if _, err := sdk.Project("cobol", "my-job"); err == nil || strings.Contains(err.Error(), "\n") {
		t.Error("cobol:", err)
	}
	if _, err := sdk.ExampleProject("go", "sort", "my-job"); err == nil || strings.Contains(err.Error(), "\n") {
		t.Error("sort:", err)
	}
}

func testProject(t *testing.T, language, example string) {
	t.Helper()
	files, err := sdk.ExampleProject(language, example, "my-job")
	if err != nil {
		t.Fatal(language, example, err)
	}
	paths := []string{}
	for _, f := range files {
		if strings.HasSuffix(f.Path, ".go") {
			if formatted, err := format.Source(f.Content); err != nil || !bytes.Equal(formatted, f.Content) {
				t.Errorf("%s: %s is not formatted as by gofmt: %v", example, f.Path, err)
			}
		}
		paths = append(paths, f.Path)
		if bytes.Contains(f.Content, []byte("<%")) || strings.Contains(f.Path, "tmpl") {
			t.Errorf("%s: %s is not filled in", language, f.Path)
		}
		if f.Path == "README.md" && !bytes.HasPrefix(f.Content, []byte("# my-job\n")) {
			t.Errorf("%s: README.md begins with %.20q", language, f.Content)
		}
	}
	for _, needed := range []string{".gitignore", "Makefile", "README.md", "vectors.json"} {
		if !slices.Contains(paths, needed) {
			t.Errorf("%s: no %s in %q", language, needed, paths)
		}
	}
	if !slices.IsSorted(paths) {
		t.Errorf("%s: %q", language, paths)
	}
}
