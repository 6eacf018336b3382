package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An error may have names of files and of what stands in them: no terminal is to
// obey those.
func TestErrorsArePrintable(t *testing.T) {
	for _, name := range []string{"\x1b[31mred", "a\rb", "bell\a", "c1 \u009b1m", "no UTF-8 \x9b1m", "tab\t"} {
		var out, err bytes.Buffer
		if code := Main(t.Context(), []string{"wasm-jobs", "verify-proof", name, "proof"}, strings.NewReader(""), &out, &err); code != exitRefused || out.Len() > 0 {
			t.Errorf("%q: exit code %d, output %q", name, code, out.String())
		}
		line := strings.TrimSuffix(err.String(), "\n")
		if line != printable(line) || strings.Contains(line, name) || !strings.Contains(line, `\`) {
			t.Errorf("%q: error %q", name, line)
		}
	}
}

// Neither are the names in a module, which anybody may have chosen, obeyed.
func TestTablesArePrintable(t *testing.T) {
	name := "\x1b[31m%d\t\n"
	wasm := []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00")
	wasm = append(wasm, 7, byte(4+len(name)), 1, byte(len(name)))
	wasm = append(append(wasm, name...), 0, 0, 10, 4, 1, 2, 0, 11)
	file := filepath.Join(t.TempDir(), "module.wasm")
	if err := os.WriteFile(file, wasm, 0o600); err != nil {
		t.Fatal(err)
	}
	var out, err bytes.Buffer
	if code := Main(t.Context(), []string{"wasm-jobs", "inspect", file}, strings.NewReader(""), &out, &err); code != exitRefused {
		t.Fatalf("exit code %d: %s", code, err.String())
	}
	if want := `\x1b[31m%d\t\n  func () -> ()` + "\n"; !strings.Contains(out.String(), "export     "+want) {
		t.Errorf("%q has no %q", out.String(), want)
	}
}
