package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/help"
)

// said runs the command in this process, and returns its standard output.
func said(t *testing.T, words ...string) string {
	t.Helper()
	var out, err bytes.Buffer
	code := Main(t.Context(), append([]string{"wasm-jobs"}, words...), strings.NewReader(""), &out, &err)
	if code != exitOK || err.Len() > 0 {
		t.Errorf("%q: exit code %d, error %q", words, code, err.String())
	}
	return out.String()
}

// The help of every verb fits 80 columns, and names the verb and its flags.
func TestHelpFits(t *testing.T) {
	pages := map[string]string{"wasm-jobs": said(t, "--help")}
	for _, v := range verbs(t) {
		for _, flag := range []string{"--help", "--help-all"} {
			page := said(t, append(slices.Clone(v.words), flag)...)
			pages[v.String()+" "+flag] = page
			if !strings.HasPrefix(page, "wasm-jobs "+v.String()+": ") {
				t.Errorf("%v %s begins with %.40q", v, flag, page)
			}
		}
		all := pages[v.String()+" --help-all"]
		for _, flag := range visibleFlags(v.command) {
			for _, name := range flag.Names() {
				if !strings.Contains(all, dashes(name)) {
					t.Errorf("%v --help-all has no %s", v, dashes(name))
				}
			}
		}
	}
	for name, page := range pages {
		for line := range strings.Lines(page) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 || strings.ContainsAny(line, "\t`") {
				t.Errorf("%s: %d columns: %q", name, n, line)
			}
		}
	}
}

// The everyday flags of run, and its exit codes, fit on one screen.
func TestHelpOfRunFitsOneScreen(t *testing.T) {
	if n := strings.Count(said(t, "run", "--help"), "\n"); n > 50 {
		t.Errorf("%d lines", n)
	}
	if all := said(t, "run", "--help-all"); strings.Count(all, "\n") < 100 || !strings.Contains(all, "\nStore:\n") {
		t.Errorf("--help-all:\n%s", all)
	}
}

func TestHelpWraps(t *testing.T) {
	app := newApp(&console{in: strings.NewReader(""), out: io.Discard, err: io.Discard}, "")
	run := app.Command("run")
	for _, width := range []int{40, 60, 200} {
		var b bytes.Buffer
		if err := pageOf([]string{"wasm-jobs", "run"}, run, true).Write(&b, width); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(line) - 1; n > width && len(strings.Fields(line)) > 2 {
				t.Errorf("width %d: %q", width, line)
			}
		}
		if strings.Contains(b.String(), "\n\n\n") {
			t.Errorf("width %d: empty lines:\n%s", width, b.String())
		}
	}
}

// help VERB, VERB --help and VERB with --help at any place are the same.
func TestHelpForms(t *testing.T) {
	for _, words := range [][]string{
		{"help", "run"}, {"run", "-h"}, {"run", "m", "c", "--help"}, {"run", "--workers", "2", "-h", "m"},
	} {
		if got := said(t, words...); got != said(t, "run", "--help") {
			t.Errorf("%q: %.100q", words, got)
		}
	}
	for _, words := range [][]string{{"chunks"}, {"help", "chunks"}, {"chunks", "--help"}, {"chunks", "-h"}} {
		if got := said(t, words...); !strings.Contains(got, "from-lines") || got != said(t, "chunks", "--help") {
			t.Errorf("%q: %.100q", words, got)
		}
	}
	for _, words := range [][]string{{}, {"help"}, {"-h"}, {"--help-all"}} {
		if got := said(t, words...); !strings.HasPrefix(got, "wasm-jobs: ") || got != said(t, "--help") {
			t.Errorf("%q: %.100q", words, got)
		}
	}
	for _, words := range [][]string{{"-v"}, {"--version"}, {"version"}} {
		if got := said(t, words...); !strings.HasPrefix(got, "wasm-jobs ") || strings.Count(got, "\n") != 1 {
			t.Errorf("%q: %q", words, got)
		}
	}
}

// Each flag has a word for its value.
func TestPlaceholders(t *testing.T) {
	for _, v := range verbs(t) {
		for _, flag := range v.command.Flags {
			d := describeFlag(v.command, flag)
			if takesValue(flag) != (d.placeholder != "") || d.placeholder == "TEXT" || d.placeholder == "value" {
				t.Errorf("%v %s: placeholder %q", v, dashes(d.names[0]), d.placeholder)
			}
		}
	}
}

// Every flag with a default has a variable, of a name of its own.
func TestVariables(t *testing.T) {
	for name, want := range map[string]string{"workers": "WASM_JOBS_WORKERS", "fold-timeout": "WASM_JOBS_FOLD_TIMEOUT", "max-chunk": "WASM_JOBS_MAX_CHUNK"} {
		if got := variable(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	app := newApp(&console{in: strings.NewReader(""), out: io.Discard, err: io.Discard}, "")
	without := []string{}
	for _, flag := range app.Command("run").Flags {
		if value, _ := defaultOf(flag); value != "" && !hasVariable(flag) {
			without = append(without, nameOf(flag))
		}
	}
	if want := []string{"limit", "store"}; !slices.Equal(without, want) {
		t.Errorf("flags with a default and without a variable: %q, want %q", without, want)
	}
}

func completed(t *testing.T, words ...string) string {
	t.Helper()
	return said(t, append([]string{completeWord}, words...)...)
}

func TestCompletion(t *testing.T) {
	for _, tt := range []struct {
		words []string
		want  []string // lines without texts
	}{
		{[]string{"ru"}, []string{"run"}},
		{[]string{"--v"}, []string{"--version"}},
		{[]string{"flow", "st"}, []string{"status"}},
		{[]string{"help", "flow", "st"}, []string{"status"}},
		{[]string{"nothing", ""}, nil},
		{[]string{"run", "--max-f"}, []string{"--max-failures"}},
		{[]string{"run", "m", "c", "--max-f"}, []string{"--max-failures"}},
		{[]string{"run", "--format", ""}, []string{"json", "diag", "cbor"}},
		{[]string{"run", "-f", "d"}, []string{"diag"}},
		{[]string{"run", "--format=d"}, []string{"--format=diag"}},
		{[]string{"run", "--format", "=", "d"}, []string{"diag"}},
		{[]string{"run", "--format", "="}, []string{"json", "diag", "cbor"}},
		{[]string{"chunks", "cat", "-f", "c"}, []string{"csv", "cbor"}},
		{[]string{"run", "--output", ""}, []string{filesToo}},
		{[]string{"run", "--workers", ""}, nil},
		{[]string{"run", ""}, []string{filesToo}},
		{[]string{"run", "--partial", ""}, []string{filesToo}},
		{[]string{"run", "--", "--max"}, []string{filesToo}},
		{[]string{"new", "x", "--lang", "g"}, []string{"go"}},
		{[]string{"completion", "z"}, []string{"zsh"}},
	} {
		var got []string
		for line := range strings.Lines(completed(t, tt.words...)) {
			word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
			got = append(got, word)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.words, got, tt.want)
		}
	}
	if got := completed(t); !strings.Contains(got, "run\trun a module over a file of chunks\n") {
		t.Errorf("no words: %q", got)
	}
}

// shellTests ask each shell to complete a line. Each prints the candidates, one a line.
var shellTests = map[string]func(line string) []string{
	"bash": func(line string) []string {
		return []string{"-c", `source <(wasm-jobs completion bash); COMP_WORDS=($1); [[ $1 != *' ' ]] || COMP_WORDS+=("")
			COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _wasm_jobs; printf '%s\n' "${COMPREPLY[@]}"`, "bash", line}
	},
	"fish": func(line string) []string {
		return []string{"--no-config", "-c", "wasm-jobs completion fish | source; complete -C " + "'" + line + "'"}
	},
	// zsh completes only on a terminal. zpty is one.
	"zsh": func(line string) []string {
		return []string{"-f", "-c", `zmodload zsh/zpty; zpty z zsh -f -i
			zpty -w z "stty cols 200; autoload -U compinit; compinit -u -d $TMPDIR/dump; source <(wasm-jobs completion zsh); PS1=REA''DY:"
			zpty -r z text '*READY:*'
			zpty -w -n z "$1"$'\t'; zpty -w z '#END'
			zpty -r z text '*END*'; print -r -- "$text"`, "zsh", line}
	},
}

// The scripts complete in their shells.
func TestCompletionScripts(t *testing.T) {
	bin := commandDir(t)
	for shell, command := range shellTests {
		t.Run(shell, func(t *testing.T) {
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("no %s: install the package %s", shell, shell)
			}
			complete := func(line string) string {
				c := exec.CommandContext(t.Context(), path, command(line)...)
				home := t.TempDir()
				c.Env = append(os.Environ(), "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"), "HOME="+home, "TMPDIR="+home, "TERM=xterm", "XDG_CACHE_HOME="+home)
				out, err := c.CombinedOutput()
				if err != nil {
					t.Errorf("%s: %v\n%s", line, err, out)
				}
				return string(out)
			}
			for line, want := range map[string]string{
				"wasm-jobs insp":            "inspect",
				"wasm-jobs run --max-f":     "--max-failures",
				"wasm-jobs run --format ":   "diag",
				"wasm-jobs chunks from-js":  "from-jsonl",
				"wasm-jobs run m c --parti": "--partial",
			} {
				if got := complete(line); !strings.Contains(got, want) {
					t.Errorf("%q: %q, want %s", line, got, want)
				}
			}
		})
	}
}

// commandDir returns a directory with the command under its name. The test binary is the
// command: see TestMain.
func commandDir(t *testing.T) (dir string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "wasm-jobs")); err != nil {
		t.Skip("no symbolic links:", err)
	}
	return dir
}

// Each verb has a manual page, which man shows without a warning.
func TestManPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man")
	said(t, manWord, dir)
	want := []string{"wasm-jobs.1"}
	for _, v := range verbs(t) {
		want = append(want, "wasm-jobs-"+strings.ReplaceAll(v.String(), " ", "-")+".1")
	}
	for _, name := range want {
		page, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.HasPrefix(page, []byte(".TH ")) || !bytes.Contains(page, []byte("\n.SH \"SYNOPSIS\"\n")) {
			t.Errorf("%s: %v, %.60q", name, err, page)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != len(want) {
		t.Errorf("%d pages, want %d: %v", len(entries), len(want), err)
	}
	man, err := exec.LookPath("man")
	if err != nil {
		t.Skip("no man: install the package man-db")
	}
	for _, name := range want {
		c := exec.CommandContext(t.Context(), man, "--warnings", "-E", "UTF-8", "-l", filepath.Join(dir, name))
		c.Env = append(os.Environ(), "MANWIDTH=80", "MANPAGER=cat", "LC_ALL=C.UTF-8")
		var warnings bytes.Buffer
		c.Stderr = &warnings
		out, err := c.Output()
		if err != nil || warnings.Len() > 0 || !bytes.Contains(out, []byte("SYNOPSIS")) {
			t.Errorf("%s: %v: %s\n%.200s", name, err, warnings.String(), out)
		}
	}
}

func TestManEscapes(t *testing.T) {
	p := &help.Page{Name: "x y", Summary: "one-two", Text: "x y\n\n.dot\n\n  'quote \\n -a ~^`"}
	var b bytes.Buffer
	if err := p.WriteMan(&b, "x 1", nil); err != nil {
		t.Fatal(err)
	}
	want := ".TH \"X\\-Y\" 1 \"\" \"x 1\" \"\"\n.SH \"NAME\"\nx-y \\- one\\-two\n.SH \"SYNOPSIS\"\n.PP\n.nf\nx y\n.fi\n.SH \"DESCRIPTION\"\n" +
		".PP\n\\&.dot\n.PP\n.nf\n  \\(aqquote \\en \\-a \\(ti\\(ha\\(ga\n.fi\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}
