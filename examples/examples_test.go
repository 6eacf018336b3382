// Package examples holds programs that embed the host.
package examples

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestExamples builds the programs outside the repository, as embedders do, and runs
// them.
func TestExamples(t *testing.T) {
	dir := t.TempDir()
	embed(t, dir, "call", "endless", "deadline", "processor")
	square := filepath.Join(dir, "square.wasm")
	runIn(t, ".", []string{"GOOS=wasip1", "GOARCH=wasm"}, "go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", square, "../guest-examples/square/go")
	for _, tt := range []struct{ name, module, want string }{
		{"call", square, "the squares of 0 to 999 sum up to 332833500\n"},
		{"processor", square, "0 that makes 0 <nil> <nil>\n1 that makes 1 <nil> <nil>\n2 that makes 4 <nil> <nil>\n"},
		{"endless", square, "the first square beyond a million is the square of 1001\n"},
		{"deadline", absolute(t, "../guest-examples/faulty/c/faulty.wasm"), "interrupted: true\ndeadline exceeded: true\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := runIn(t, dir, nil, filepath.Join(dir, "bin", tt.name), tt.module); got != tt.want {
				t.Errorf("printed %q, want %q", got, tt.want)
			}
		})
	}
}

// TestExamplesAreShort counts the lines from "func main" on.
func TestExamplesAreShort(t *testing.T) {
	programs, err := filepath.Glob("*/main.go")
	if err != nil || len(programs) != 4 {
		t.Fatalf("%q, error %v: want four programs", programs, err)
	}
	for _, path := range programs {
		_, code, _ := strings.Cut(readFile(t, path), "\nfunc main() {")
		if n := strings.Count(code, "\n"); n == 0 || n >= 25 {
			t.Errorf("%s: %d lines, want under 25", path, n)
		}
	}
}

// embed copies programs into a new module, which requires the checkout, and builds
// them.
func embed(t *testing.T, dir string, programs ...string) {
	t.Helper()
	const ours = "module github.com/wasm-jobs/wasm-jobs\n"
	mod := readFile(t, "../go.mod")
	if !strings.HasPrefix(mod, ours) {
		t.Fatal("go.mod does not begin with the name of the module")
	}
	mod = "module example.com/embeds\n" + strings.TrimPrefix(mod, ours) +
		"\nrequire github.com/wasm-jobs/wasm-jobs v0.0.0\n\nreplace github.com/wasm-jobs/wasm-jobs => " + absolute(t, "..") + "\n"
	writeFile(t, filepath.Join(dir, "go.mod"), mod)
	writeFile(t, filepath.Join(dir, "go.sum"), readFile(t, "../go.sum"))
	for _, name := range programs {
		writeFile(t, filepath.Join(dir, name, "main.go"), readFile(t, filepath.Join(name, "main.go")))
	}
	runIn(t, dir, []string{"GOFLAGS=-mod=mod"}, "go", "build", "-o", filepath.Join(dir, "bin")+string(filepath.Separator), "./...")
}

// runIn runs a command and returns its output.
func runIn(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	var errors bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stderr = dir, append(os.Environ(), env...), &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, errors.String())
	}
	return string(out)
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o777)
	if err == nil {
		err = os.WriteFile(path, []byte(content), 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
}
