package main

import (
	"bytes"
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
