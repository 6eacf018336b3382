package wasmjobs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"
)

// arm64Tests are the tests that run on an emulated arm64, with the number of tests that
// must pass, subtests included: the engine has a compiler of its own for it, and outputs
// and receipts must be the same bytes.
var arm64Tests = []struct {
	name, dir, run string
	passed         int
}{
	{"faults", "runtime/rewrite", "^Test(Faults|Fixes)$", 10},
	{"W3C suite", "runtime/rewrite", "^TestSpecSuite$", 150},
	{"receipts", "cmd/wasm-jobs", "^TestReceiptsAreTheSameHoweverTheJobIsRun$", 20},
	{"random modules", "runtime/internal/enginefuzz", "^TestEngines$", 1},
}

var passedTest = regexp.MustCompile(`(?m)^\s*--- PASS: `)

// TestArm64 builds tests for arm64 and runs them under QEMU.
func TestArm64(t *testing.T) {
	if testing.Short() {
		t.Skip("builds tests for another architecture")
	}
	if runtime.GOARCH == "arm64" {
		t.Skip("this is arm64: the tests run as they are")
	}
	qemu, dir := emulator(t), t.TempDir()
	built := map[string]string{}
	for _, tt := range arm64Tests {
		t.Run(tt.name, func(t *testing.T) {
			if built[tt.dir] == "" {
				built[tt.dir] = buildForArm64(t, tt.dir, dir)
			}
			cmd := exec.CommandContext(t.Context(), qemu, built[tt.dir], "-test.v", "-test.run", tt.run)
			cmd.Dir = tt.dir
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, tail(out))
			}
			if passed := len(passedTest.FindAll(out, -1)); passed < tt.passed {
				t.Errorf("%d tests passed, want at least %d\n%s", passed, tt.passed, tail(out))
			}
		})
	}
}

// emulator returns the path of the emulator of arm64. It skips the test if there is none.
func emulator(t *testing.T) string {
	for _, name := range []string{"qemu-aarch64-static", "qemu-aarch64"} {
		if path, err := exec.LookPath(name); err == nil && runtime.GOOS == "linux" {
			return path
		}
	}
	t.Skip("no emulator of arm64: on Debian, apt-get install qemu-user-static")
	return ""
}

// buildForArm64 builds the tests of a folder into another one.
func buildForArm64(t *testing.T, dir, into string) string {
	path := filepath.Join(into, filepath.Base(dir)+".test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "urfave_cli_no_docs", "-o", path, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// tail returns the end of an output.
func tail(out []byte) []byte { return out[max(0, len(out)-4000):] }
