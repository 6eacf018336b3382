package project

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// opened returns a project with a Makefile.
func opened(t *testing.T, command, makefile string) *Project {
	t.Helper()
	for _, tool := range []string{"make", "sh"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "Makefile"), makefile)
	p, err := Open(dir, command)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	write(t, file, "")
	for path, want := range map[string]error{dir: ErrNoMakefile, file: ErrNoDirectory, filepath.Join(dir, "none"): os.ErrNotExist} {
		if _, err := Open(path, "x"); !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", path, err, want)
		}
	}
}

// A target's call is read as make prints it, with its variables, quotes and
// continuations, and runs with more arguments.
func TestCall(t *testing.T) {
	p := opened(t, "it's", "MODULE = build/m.wasm\nrun:\n\t@command -v $(WASM_JOBS)\n\t$(WASM_JOBS) run $(MODULE) \\\n\t\t--lines 'a b*'\ntest:\n\t$(WASM_JOBS) run x\nbroken: none\n")
	call, err := p.Call(t.Context(), "run")
	if want := `'it'\''s' run build/m.wasm 	--lines 'a b*'`; err != nil || strings.Join(strings.Fields(call), " ") != strings.Join(strings.Fields(want), " ") {
		t.Errorf("%q, error %v; want %q", call, err, want)
	}
	if _, err := p.Call(t.Context(), "test"); !errors.Is(err, ErrNoCall) {
		t.Errorf("error %v", err)
	}
	if _, err := p.Call(t.Context(), "broken"); err == nil || !strings.Contains(err.Error(), "none") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v", err)
	}
	var out bytes.Buffer
	if err := p.Run(t.Context(), "printf '%s|' 'a b*'", []string{"$x", "c d"}, &out, nil); err != nil || out.String() != "a b*|$x|c d|" {
		t.Errorf("%q, error %v", &out, err)
	}
}

// Build makes the first target, without the flags of a make around it, and keeps the
// first part of what it prints.
func TestBuild(t *testing.T) {
	t.Setenv("MAKEFLAGS", "n")
	p := opened(t, "x", "all:\n\t@head -c 3000000 /dev/zero; echo error: no >&2; exit 3\nother:\n\ttouch other\n")
	output, err := p.Build(t.Context())
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 2 || len(output) != maxOutput {
		t.Errorf("%d bytes, error %v", len(output), err)
	}
}

// A build that ignores SIGTERM ends with its context, and with it all that it started:
// they hold a pipe open.
func TestBuildEnds(t *testing.T) {
	p := opened(t, "x", "all:\n\t@trap '' TERM; (trap '' TERM; echo > started; sleep 1000; sleep 1000) 3>alive & sleep 1000; sleep 1000\n")
	for _, name := range []string{"alive", "started"} {
		if err := exec.Command("mkfifo", filepath.Join(p.dir, name)).Run(); err != nil {
			t.Skip(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { // until cancel
		_, err := p.Build(ctx)
		ended <- err
	}()
	read := func(name string) []byte {
		content, err := os.ReadFile(filepath.Join(p.dir, name)) // until all writers have closed it
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	alive := make(chan struct{})
	go func() { // until the processes have ended
		defer close(alive)
		read("alive")
	}()
	if n := len(read("started")); n == 0 {
		t.Fatal("it did not start")
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	<-alive
}

func TestFault(t *testing.T) {
	for _, test := range []struct{ output, want string }{
		{"", ""},
		{"something\n", "something"},
		{"# example.com/primes\n./main.go:3:2: undefined: x\n./main.go:4:2: undefined: y\n", "./main.go:3:2: undefined: x"},
		{"main.c:1:5: warning: unused [-Wunused-error]\nIn file included from main.c:2:\nx.h:3:1: error: unknown type name 'foo'\n", "x.h:3:1: error: unknown type name 'foo'"},
		{"warning: unused variable\n  --> lib.rs:3:9\nerror[E0425]: cannot find value `x`\n --> lib.rs:5:7\n", "error[E0425]: cannot find value `x`"},
		{"ERROR TS2304: Cannot find name 'x'.\n", "ERROR TS2304: Cannot find name 'x'."},
		{"guest.zig:3:5: error: use of undeclared identifier 'x'\n", "guest.zig:3:5: error: use of undeclared identifier 'x'"},
		{"make: *** [Makefile:3: build/x.wasm] Error 1\n", "make: *** [Makefile:3: build/x.wasm] Error 1"},
	} {
		if got := Fault(test.output); got[0] != test.want || !slices.Equal(got, strings.Split(strings.TrimSpace(test.output), "\n")[strings.Count(test.output[:strings.Index(test.output, test.want)], "\n"):]) {
			t.Errorf("%q: %q, want it to begin with %q", test.output, got, test.want)
		}
	}
}
