package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestDocs runs the commands of the README and of the pages in docs. All blocks
// of one page run in one shell, in order, in a new directory with the files
// of a clone:
//
//   - a block marked sh is a script in which no command may fail;
//   - a block marked console shows commands after "$ " with their output, in
//     which ... is anything. "# exit N" after a command is its exit code;
//   - a block whose first line is a comment with a name, such as "# squares.yaml", is
//     that file.
//
// A command that installs something, or needs a database, is skipped.
func TestDocs(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, "../../README.md") {
		t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			steps, err := readSteps(string(text))
			if err != nil {
				t.Fatal(err)
			}
			if len(steps) == 0 {
				t.Skip("the page has no commands")
			}
			if _, err := exec.LookPath("curl"); err != nil && strings.Contains(string(text), "$ curl ") {
				t.Skip("no curl")
			}
			runSteps(t, steps)
		})
	}
}

// step is one command, or a script, of a page.
type step struct {
	line    int // of the page
	command string
	want    string // output; "" with check = there is none
	check   bool   // that the output is want
	exit    int
}

var (
	fence = regexp.MustCompile("^```([a-z]*)$")
	// progressLine is only in the output of a slow machine.
	progressLine = regexp.MustCompile(`(?m)^wasm-jobs: \d+/\d+ chunks \(.*\n`)
	exits        = regexp.MustCompile(`\s+# exit (\d+)$`)
	// passed matches commands that a test cannot run.
	passed = regexp.MustCompile(`(?m)(^|\s)(go install|make (demo|test)|docker|kubectl|brew|apt|psql|createdb)\b|postgres://|s3://`)
	// fileName is the first line of a block that is a file.
	fileName = regexp.MustCompile(`^# ([a-z]+\.[a-z]+)$`)
)

// readSteps returns the steps of a page. Other blocks must not contain commands.
func readSteps(page string) (steps []step, err error) {
	var block []string
	kind, begun := "", 0
	for i, line := range strings.Split(page, "\n") {
		m := fence.FindStringSubmatch(line)
		switch {
		case m != nil && begun == 0:
			kind, begun, block = m[1], i+1, nil
		case line == "```":
			found, err := readBlock(kind, begun, block)
			if err != nil {
				return nil, err
			}
			steps, begun = append(steps, found...), 0
		case begun != 0:
			block = append(block, line)
		case strings.HasPrefix(line, "    wasm-jobs "):
			return nil, fmt.Errorf("line %d: a command outside of a block marked sh or console: %s", i+1, line)
		}
	}
	return steps, nil
}

func readBlock(kind string, line int, block []string) ([]step, error) {
	switch kind {
	case "sh":
		script := strings.Join(block, "\n")
		if passed.MatchString(script) {
			return nil, nil
		}
		return []step{{line: line, command: script}}, nil
	case "console":
		return readConsole(line, block), nil
	}
	if m := fileName.FindStringSubmatch(strings.Join(block[:min(1, len(block))], "")); m != nil {
		return []step{{line: line, command: "cat > " + m[1] + " <<'END_OF_FILE'\n" + strings.Join(block, "\n") + "\nEND_OF_FILE"}}, nil
	}
	for i, l := range block {
		if kind != "yaml" && strings.HasPrefix(strings.TrimPrefix(l, "$ "), "wasm-jobs ") {
			return nil, fmt.Errorf("line %d: a command in a block marked %q: want sh or console", line+i+1, kind)
		}
	}
	return nil, nil
}

// readConsole splits a block at its prompts. A command continues on the next line after
// a backslash, and up to the end of its here document.
func readConsole(line int, block []string) (steps []step) {
	for i := 0; i < len(block); i++ {
		command, ok := strings.CutPrefix(block[i], "$ ")
		if !ok {
			s := &steps[len(steps)-1]
			s.want += block[i] + "\n"
			continue
		}
		s := step{line: line + i + 1, check: true}
		if m := exits.FindStringSubmatch(command); m != nil {
			s.exit, _ = strconv.Atoi(m[1])
			command = strings.TrimSuffix(command, m[0])
		}
		end := ""
		if _, after, ok := strings.Cut(command, "<<'"); ok {
			end, _, _ = strings.Cut(after, "'")
		}
		for ; i+1 < len(block) && (end != "" && block[i] != end || strings.HasSuffix(command, "\\")); i++ {
			command += "\n" + block[i+1]
		}
		s.command = command
		steps = append(steps, s)
	}
	return steps
}

func runSteps(t *testing.T, steps []step) {
	t.Helper()
	sh, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash")
	}
	dir, out := t.TempDir(), t.TempDir()
	entries, err := filepath.Glob("../../[a-z]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		target, err := filepath.Abs(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(dir, filepath.Base(e))); err != nil {
			t.Fatal(err)
		}
	}
	var script strings.Builder
	n := 0
	for _, s := range steps {
		if s.check && passed.MatchString(s.command) {
			continue
		}
		fmt.Fprintf(&script, "{ %s\n} >%s/%d 2>&1 </dev/null; echo $? >%s/%d.exit\n", s.command, out, n, out, n)
		steps[n] = s
		n++
	}
	cmd := exec.Command(sh)
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(script.String())
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+filepath.Join(out, "cache"), "NO_COLOR=1",
		"GOPROXY=off", "GOFLAGS=", "MAKEFLAGS=", "MAKELEVEL=", "GOCACHE="+goCache(t))
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the shell: %v: %s", err, text)
	}
	for i, s := range steps[:n] {
		checkStep(t, s, filepath.Join(out, strconv.Itoa(i)))
	}
}

func checkStep(t *testing.T, s step, file string) {
	t.Helper()
	got, err := os.ReadFile(file)
	if err != nil {
		t.Errorf("line %d: %q was not run: %v", s.line, s.command, err)
		return
	}
	code, err := os.ReadFile(file + ".exit")
	if want := fmt.Sprintln(s.exit); err != nil || string(code) != want {
		t.Errorf("line %d: %q: exit %s, want %s%s", s.line, s.command, strings.TrimSpace(string(code)), want, got)
		return
	}
	got = progressLine.ReplaceAll(got, nil)
	if s.check && !anything(s.want).MatchString(string(got)) {
		t.Errorf("line %d: %q\ngot:\n%s\nwant:\n%s", s.line, s.command, got, s.want)
	}
}

// anything returns an expression for text in which "..." matches anything, and a line
// with only "..." matches any lines.
func anything(text string) *regexp.Regexp {
	e := regexp.QuoteMeta(text)
	e = strings.ReplaceAll(e, `\.\.\.`+"\n", `(?s:.*)`+"\n")
	e = strings.ReplaceAll(e, `\.\.\.`, `.*`)
	e = strings.ReplaceAll(e, "\n(?s:.*)\n", "\n(?s:(?:.*\n)?)")
	return regexp.MustCompile(`^` + e + `$`)
}
