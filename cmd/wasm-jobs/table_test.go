package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/rivo/uniseg"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/terminal"
)

func TestTable(t *testing.T) {
	list := func(t *table) {
		t.header("JOB", "NAME", "STATE", "FILE")
		t.row("0123456789ab", "a name that is long", stateCell("succeeded"), "/a/path/of/a/flow.yaml")
		t.row("ba9876543210", "b", stateCell("broken"), "x")
	}
	fields := func(t *table) {
		t.field("job", "%s", "0123456789ab")
		t.field("command", "%s", "one two three four five six seven")
		t.row("digest", strings.Repeat("0123456789", 4))
	}
	for _, tt := range []struct {
		name  string
		width int
		fill  func(*table)
		want  string
	}{
		{"nothing", 20, func(*table) {}, ""},
		{"no terminal", 0, list, "JOB           NAME                 STATE      FILE\n" +
			"0123456789ab  a name that is long  succeeded  /a/path/of/a/flow.yaml\n" +
			"ba9876543210  b                    broken     x\n"},
		{"it fits", 80, list, "JOB           NAME                 STATE      FILE\n" +
			"0123456789ab  a name that is long  succeeded  /a/path/of/a/flow.yaml\n" +
			"ba9876543210  b                    broken     x\n"},
		{"the widest are cut", 54, list, "JOB           NAME            STATE      FILE\n" +
			"0123456789ab  a name that i…  succeeded  /a/path/of/a…\n" +
			"ba9876543210  b               broken     x\n"},
		{"too narrow", 10, list, "JOB       NAME      STATE     FILE\n" +
			"0123456…  a name …  succeed…  /a/path…\n" +
			"ba98765…  b         broken    x\n"},
		{"fields in a pipe", 0, fields, "job      0123456789ab\ncommand  one two three four five six seven\ndigest   " + strings.Repeat("0123456789", 4) + "\n"},
		{"fields", 32, fields, "job      0123456789ab\ncommand  one two three four five\n         six seven\n" +
			"digest   01234567890123456789012\n         34567890123456789\n"},
		{"wide letters", 20, func(t *table) { t.row("名前名前名前", "b", "c"); t.row("a", "b", "ddddddddddd") },
			"名前名…  b  c\na        b  ddddddd…\n"},
		{"only neighbours share columns", 0, func(t *table) { t.row("a", "b"); t.row("line"); t.row("long", "b") }, "a  b\nline\nlong  b\n"},
		{"control characters", 0, func(t *table) { t.row("\x1b[31m", "x\ty") }, `\x1b[31m  x\ty` + "\n"},
	} {
		var b bytes.Buffer
		table := &table{out: &b, width: tt.width}
		tt.fill(table)
		if err := table.flush(); err != nil || b.String() != tt.want {
			t.Errorf("%s: %v\ngot\n%swant\n%s", tt.name, err, b.String(), tt.want)
		}
	}
}

func FuzzTable(f *testing.F) {
	f.Add("a name", "名前 \u0301 x", 20)
	f.Add("a", strings.Repeat("long ", 50), 20) // its first cell is narrower than "name"
	f.Fuzz(func(t *testing.T, a, b string, width int) {
		width = 60 + width&127
		var out bytes.Buffer
		table := &table{out: &out, width: width}
		table.row(a, b, "x")
		table.field("name", "%s", b)
		if err := table.flush(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if n := uniseg.StringWidth(strings.TrimSuffix(line, "\n")); n > width {
				t.Errorf("%q, %q: %d columns of %d: %q", a, b, n, width, line)
			}
		}
	})
}

func TestColours(t *testing.T) {
	for _, tt := range []struct {
		none, force, want string
	}{
		{"", "", "x"}, {"1", "", "x"}, {"", "1", "\x1b[31mx\x1b[0m"}, {"", "0", "x"}, {"1", "1", "x"},
	} {
		t.Setenv("NO_COLOR", tt.none)
		t.Setenv("CLICOLOR_FORCE", tt.force)
		var b bytes.Buffer
		if got := terminal.ColoursOf(&b).In(terminal.Red, "x"); got != tt.want {
			t.Errorf("NO_COLOR=%s CLICOLOR_FORCE=%s: %q, want %q", tt.none, tt.force, got, tt.want)
		}
	}
}
