package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// namesPath matches the usage of a flag whose value is a path.
var namesPath = regexp.MustCompile("`(FILE|DIR|PATH|PREFIX|HOST:GUEST)`")

// Each flag whose value is a path, of a verb that writes results, is known to
// [checkPaths] as a result or as an input.
func TestPathsAreKnown(t *testing.T) {
	own := map[string]string{ // checked elsewhere
		"split": "output", // a prefix: the names are known only when the files are written
	}
	for _, v := range verbs(t) {
		known := pathsOf(strings.Join(v.words, " "))
		listed := slices.Concat(known.results, known.inputs, known.dirs)
		for _, name := range listed {
			if flagsByName(v.command)[name] == nil {
				t.Errorf("%v has no flag --%s", v, name)
			}
		}
		for _, flag := range v.command.Flags {
			name, isPath := nameOf(flag), namesPath.MatchString(usageOf(flag))
			writes := regexp.MustCompile(`(^|: )write |^all that is written|write .* to `).MatchString(usageOf(flag))
			switch {
			case name == "store" && isPath:
				if len(known.results) > 0 != known.store {
					t.Errorf("%v: its store is not known", v)
				}
			case writes && isPath && !slices.Contains(known.results, name) && own[v.command.Name] != name:
				t.Errorf("%v: --%s is not known as a result", v, name)
			case isPath && len(known.results) > 0 && !slices.Contains(listed, name):
				t.Errorf("%v: --%s is neither a result nor an input", v, name)
			}
		}
	}
}

func usageOf(flag cli.Flag) string { return flag.(cli.DocGenerationFlag).GetUsage() }

// argumentsOf has the number of arguments of each verb, and flags that it requires.
var argumentsOf = map[string]struct {
	args int
	more []string
}{
	"run": {args: 2}, "redrive": {}, "output": {}, "replay": {args: 1, more: []string{"--module=other"}},
	"sign": {args: 1, more: []string{"--builder=https://example.org"}}, "chunks merge": {args: 3}, "flow run": {args: 2}, "wait": {}, "flow redrive": {}, "flow prove": {args: 2},
}

// Each result of each verb is refused if it would replace an input, under the input's
// path, another path, a link or a second name of the file. Nothing changes.
func TestResultsAreNoInputs(t *testing.T) {
	away(t)
	write(t, "input", "input")
	write(t, "other", "other")
	links(t)
	tried := 0
	for _, v := range verbs(t) {
		known := pathsOf(strings.Join(v.words, " "))
		for _, result := range known.results {
			if result == "bundle" { // a file is refused because it is not a directory
				continue
			}
			for _, line := range inputLines(v, known, result) {
				for _, path := range []string{"input", "./input", filepath.Join(".", "sub", "..", "input"), "link", "hard", "sub/link"} {
					tried++
					code, said := oneLine(t, append(line, "--"+result+"="+path)...)
					if code != exitRefused || !strings.Contains(said, "--"+result+" "+path+" would replace ") {
						t.Errorf("%q: exit code %d, %q", line, code, said)
					}
				}
			}
		}
	}
	if b, err := os.ReadFile("input"); err != nil || string(b) != "input" {
		t.Errorf("the input is %q now (%v)", b, err)
	}
	if tried < 200 {
		t.Errorf("%d lines", tried)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// links gives the file input more names.
func links(t *testing.T) {
	t.Helper()
	for _, err := range []error{
		os.Mkdir("sub", 0o700), os.Symlink("input", "link"), os.Link("input", "hard"), os.Symlink("..", "sub/up"), os.Symlink("up/hard", "sub/link"),
	} {
		if err != nil {
			t.Skip(err)
		}
	}
}

// inputLines returns lines of a verb in which the file input is one of its
// inputs each.
func inputLines(v verb, known verbPaths, result string) (lines [][]string) {
	needs := argumentsOf[strings.Join(v.words, " ")]
	if needs.args == 0 && known.args {
		needs.args = 1
	}
	base := append(slices.Clone(v.words), needs.more...)
	for _, name := range known.inputs {
		if result == "dead-letter" && name == "chunks" {
			continue
		}
		line := slices.DeleteFunc(slices.Clone(base), func(word string) bool { return strings.HasPrefix(word, "--"+name+"=") })
		lines = append(lines, append(line, "--"+name+"=input", "other"))
	}
	for _, name := range known.dirs {
		lines = append(lines, append(slices.Clone(base), "--"+name+"=.:/guest", "other"))
	}
	for i := range needs.args {
		if result == "dead-letter" && i == 1 {
			continue
		}
		args := slices.Repeat([]string{"other"}, needs.args)
		args[i] = "input"
		lines = append(lines, append(slices.Clone(base), args...))
	}
	return lines
}

// No result may be in the store, even if the store does not exist yet, or be a directory
// of input files.
func TestResultsAreNotInTheStore(t *testing.T) {
	away(t)
	write(t, "c", "c")
	for _, err := range []error{os.Mkdir("there", 0o700), os.Symlink("there", "link")} {
		if err != nil {
			t.Skip(err)
		}
	}
	for _, v := range verbs(t) {
		known := pathsOf(strings.Join(v.words, " "))
		if !known.store {
			continue
		}
		for _, result := range known.results {
			for path, store := range map[string]string{
				"there": "there", "there/": "there", "there/store.db": "there", "link/x": "there", "there/x/y": "link",
				"new": "new", "./new/x": "new", "link/new/x": "there/new", ".cache/wasm-jobs/x": "",
			} {
				line := append(slices.Clone(v.words), "c", "c", "--"+result+"="+path)
				if store != "" {
					line = append(line, "--store="+store)
				}
				code, said := oneLine(t, line...)
				if code != exitRefused || !strings.Contains(said, "--"+result+" "+path+" is in the store ") {
					t.Errorf("%q: exit code %d, %q", line, code, said)
				}
			}
		}
	}
	for _, result := range []string{"--outputs=there", "--outputs=link/", "--bundle=there"} {
		line := []string{"run", "c", "--no-store", "--files=there", result}
		if code, said := oneLine(t, line...); code != exitRefused || !strings.Contains(said, " would replace the input there") {
			t.Errorf("%q: exit code %d, %q", line, code, said)
		}
	}
	for _, path := range []string{"new", "there/new", "there/x", "there/store.db"} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is there", path)
		}
	}
}

// A result that replaces nothing is not refused.
func TestOtherResults(t *testing.T) {
	away(t)
	for _, name := range []string{"m", "c", "x"} {
		write(t, name, name)
	}
	for _, line := range [][]string{
		{"run", "m", "c", "--dead-letter=c"},
		{"run", "m", "c", "--output=x", "--report=new", "--store=s"},
		{"run", "m", "c", "--output=c", "--output=-"},
		{"run", "m", os.DevNull, "--output=" + os.DevNull},
		{"redrive", "j", "--chunks=c", "--dead-letter=c", "--store=s"},
		{"output", "x", "--output=x", "--store=s"},
		{"chunks", "from-range", "x", "--output=x"},
		{"run", "m", "--files=.", "--output=x", "--no-store"},
	} {
		_, said := oneLine(t, line...)
		if strings.Contains(said, "would replace") || strings.Contains(said, "give another name") {
			t.Errorf("%q: %q", line, said)
		}
	}
}
