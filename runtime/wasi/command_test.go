package wasi

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
)

// commandResult is the result of a command.
type commandResult struct {
	stdout, stderr string
	code           int
	charged        uint64
}

// runCommand runs a command in a new instance, on a state that is reset for it.
func runCommand(t *testing.T, command wazero.CompiledModule, state *State, seed uint64, input string) commandResult {
	t.Helper()
	var stdout, stderr bytes.Buffer
	var charged uint64
	state.Charge = func(units uint64) { charged += units }
	state.Reset(Call{Phase: "call", Seed: seed, Input: []byte(input), Stdin: []byte(input), Stdout: &stdout, Stderr: &stderr})
	ctx := &stateContext{context.Background(), state}
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions()
	mod, err := engine().InstantiateModule(ctx, command, config)
	if err != nil {
		t.Fatal(err)
	}
	defer mod.Close(ctx)
	_, err = mod.ExportedFunction("_start").Call(ctx)
	if err != nil && exitCode(err) < 0 {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	if mod.IsClosed() {
		t.Error("the instance was closed")
	}
	return commandResult{stdout.String(), stderr.String(), max(exitCode(err), 0), charged}
}

// runTwice runs a command on a new state, and on a state that another run used. It
// returns the result, which must be the same.
func runTwice(t *testing.T, command wazero.CompiledModule, c Config, input string) commandResult {
	t.Helper()
	want := runCommand(t, command, New(c), 1, input)
	used := New(c)
	other := runCommand(t, command, used, 2, "other input")
	if got := runCommand(t, command, used, 1, input); got != want {
		t.Errorf("two runs differ:\n%+v\n%+v", got, want)
	}
	if other.stdout == want.stdout {
		t.Error("another seed and input made no difference")
	}
	return want
}

func commandConfig(t *testing.T) Config {
	t.Helper()
	args, err1 := NewStrings("command", "-v", "two words")
	env, err2 := NewStrings("A=1", "HOME=/nowhere")
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return Config{Args: args, Env: env}
}

func TestCGuest(t *testing.T) {
	wasm, err := os.ReadFile("testdata/cguest.wasm")
	if err != nil {
		t.Fatal(err)
	}
	command := compile(engine(), wasm)
	defer command.Close(context.Background())
	got := runTwice(t, command, commandConfig(t), "first\nsecond")
	golden(t, "testdata/cguest.golden", got.stdout)
	if got.stderr != "the end\n" || got.code != 7 {
		t.Errorf("stderr %q, code %d", got.stderr, got.code)
	}
}

// TestGoGuest does not run in short mode or with the race detector: then the engine
// takes most of a minute to compile a Go guest.
func TestGoGuest(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("compiling a Go guest is slow: run without -short and -race")
	}
	wasm := buildGo(t, "./testdata/goguest")
	command := compile(engine(), wasm)
	defer command.Close(context.Background())
	got := runTwice(t, command, commandConfig(t), "input")
	if got.stderr != "the end\n" || got.code != len("input") {
		t.Errorf("stderr %q, code %d", got.stderr, got.code)
	}
	for _, want := range []string{
		"now 2022-01-01T00:00:00.0",
		"slept true 2022-01-01 01:30:00.",
		"timer 2h30m0.",
		"9 8 7 6 5 4 3 2 1 0 woken 2022-01-01 02:33:1",
		`args ["command" "-v" "two words"] env ["A=1" "HOME=/nowhere"]`,
		"files [] <nil>",
		`stdin "input" <nil>`,
	} {
		if !strings.Contains(got.stdout, "\n"+want) && !strings.HasPrefix(got.stdout, want) {
			t.Errorf("no line starts with %q in\n%s", want, got.stdout)
		}
	}
	for line := range strings.Lines(got.stdout) {
		if strings.HasPrefix(line, "open ") && !strings.HasPrefix(line, "open false ") ||
			line == "create <nil>\n" {
			t.Errorf("something was opened: %s", line)
		}
	}
}

// buildGo compiles a Go command for wasip1.
func buildGo(t *testing.T, pkg string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "guest.wasm")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, text)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// golden compares text with a file. WASI_UPDATE=1 writes the file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if os.Getenv("WASI_UPDATE") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
