package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// verb is a command with its name on the command line.
type verb struct {
	words   []string
	command *cli.Command
}

func (v verb) String() string { return strings.Join(v.words, " ") }

// verbs returns all commands and subcommands.
func verbs(t *testing.T) (all []verb) {
	t.Helper()
	app := newApp(&console{in: strings.NewReader(""), out: io.Discard, err: io.Discard}, "")
	for _, command := range app.Commands {
		all = append(all, verb{[]string{command.Name}, command})
		for _, sub := range command.Subcommands {
			all = append(all, verb{[]string{command.Name, sub.Name}, sub})
		}
	}
	if len(all) < 30 {
		t.Fatalf("%d verbs", len(all))
	}
	return all
}

// dashed returns a name as it is typed.
func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// oneLine runs the command in this process and returns its exit code and its message,
// which must be one line.
func oneLine(t *testing.T, words ...string) (code int, line string) {
	t.Helper()
	var out, err bytes.Buffer
	code = Main(t.Context(), append([]string{"wasm-jobs"}, words...), strings.NewReader(""), &out, &err)
	if out.Len() > 0 || strings.Count(err.String(), "\n") != 1 {
		t.Errorf("%q: output %q, error %q", words, out.String(), err.String())
	}
	return code, err.String()
}

// away changes to a directory of the test, in case a failing test makes a command
// write files.
func away(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	t.Chdir(dir)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, ".cache"))
	return dir
}

// arrange returns the arguments of a command line as cli gets them.
func arrange(app *cli.App, args []string) ([]string, error) {
	line, err := readLine(app, args)
	return line.args, err
}

// Every flag of every verb is refused without its value at the end of the line. A flag
// that takes one value is refused if it is given twice, under any of its names. The
// arguments do not matter.
func TestEveryFlag(t *testing.T) {
	away(t)
	flags := 0
	for _, v := range verbs(t) {
		if len(v.command.Subcommands) > 0 {
			continue
		}
		for _, flag := range v.command.Flags {
			_, isBool := flag.(*cli.BoolFlag)
			_, isList := flag.(*cli.StringSliceFlag)
			for _, name := range flag.Names() {
				flags++
				checkFlagAtEnd(t, v, flag, name, isBool)
				for _, other := range flag.Names() {
					checkFlagTwice(t, v, name, other, isBool || isList)
				}
			}
		}
	}
	if flags < 200 {
		t.Errorf("%d flags", flags)
	}
}

func checkFlagAtEnd(t *testing.T, v verb, flag cli.Flag, name string, isBool bool) {
	t.Helper()
	line := append(slices.Clone(v.words), "a", "b", dashed(name))
	if isBool {
		if _, err := arrange(newApp(&console{}, ""), append([]string{"wasm-jobs"}, line...)); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		return
	}
	code, said := oneLine(t, line...)
	if want := "wasm-jobs: missing value for " + spelled(flag) + " at the end of the line\n"; code != exitRefused || said != want || !strings.Contains(said, dashed(name)) {
		t.Errorf("%q: exit code %d, %q, want %q", line, code, said, want)
	}
}

func checkFlagTwice(t *testing.T, v verb, name, other string, may bool) {
	t.Helper()
	for _, twice := range [][]string{
		{dashed(name), "1", dashed(other), "1"},
		{dashed(name) + "=1", "a", dashed(other) + "=1"},
	} {
		line := append(slices.Clone(v.words), twice...)
		if may {
			if _, err := arrange(newApp(&console{}, ""), append([]string{"wasm-jobs"}, line...)); err != nil {
				t.Errorf("%q: %v", line, err)
			}
			continue
		}
		code, said := oneLine(t, line...)
		if code != exitRefused || !strings.Contains(said, ": give it once") || !strings.Contains(said, dashed(name)) {
			t.Errorf("%q: exit code %d, %q", line, code, said)
		}
	}
}

func TestArrange(t *testing.T) {
	for _, tt := range []struct {
		line, want, err string
	}{
		{line: "", err: "help is asked for"},
		{line: "run", want: "run --"},
		{line: "run m c", want: "run -- m c"},
		{line: "run m -o out c --partial", want: "run -o out --partial -- m c"},
		{line: "run - --output=-o -- -x --partial", want: "run --output=-o -- - -x --partial"},
		{line: "run --arg -- --arg -o m", want: "run --arg -- --arg -o -- m"},
		{line: "run m --frob c", err: "unknown flag --frob; wasm-jobs run --help-all lists all flags"},
		{line: "run --partial --partial m", want: "run --partial --partial -- m"},
		{line: "run --partial --partial=false m", err: "duplicate --partial: give it once"},
		{line: "run -o a --output b m", err: "duplicate --output (-o): give it once"},
		{line: "run m -o", err: "missing value for --output (-o) at the end of the line"},
		{line: "run --arg a --arg", err: "missing value for --arg at the end of the line"},
		{line: "chunks split c -n 3", want: "chunks split -n 3 -- c"},
		{line: "chunks split c -n", err: "missing value for -n at the end of the line"},
		{line: "chunks nothing c", err: `unknown command "nothing" of chunks; wasm-jobs chunks --help lists all commands`},
		{line: "nothing -o", err: `unknown command "nothing"; wasm-jobs --help lists all commands`},
		{line: "rnu m c", err: `unknown command "rnu"; did you mean "run"? wasm-jobs --help lists all commands`},
		{line: "flow stauts", err: `unknown command "stauts" of flow; did you mean "status"? wasm-jobs flow --help lists all commands`},
		{line: "run --worker 3 m c", err: "unknown flag --worker; did you mean --workers?"},
		{line: "run --worker=3 m c", err: "unknown flag --worker; did you mean --workers?"},
		{line: "run -j3 m c", err: "unknown flag -j3; did you mean -j 3?"},
		{line: "run -x m c", err: "unknown flag -x; wasm-jobs run --help-all lists all flags"},
		{line: "--verison", err: "unknown flag --verison; did you mean --version?"},
		{line: "-j 3 run m c", err: "flag -j before the command: want wasm-jobs COMMAND -j"},
		{line: "-v", want: "version --"},
		{line: "--version --json", want: "version --json --"},
		{line: "run --arg --help m --help", err: "help is asked for"},
		{line: "run --arg --help m", want: "run --arg --help -- m"},
		{line: "run m -- --help", want: "run -- m --help"},
		{line: "run -j x m", err: `invalid --workers (-j) "x": want an integer`},
		{line: "run --timeout 5 m", err: `invalid --timeout "5": want a time such as 30s, 5m or 0`},
		{line: "run --seed -1 m", err: `invalid --seed "-1": want an integer, 0 or more`},
		{line: "run --partial=x m", err: `invalid --partial "x": want true or false`},
	} {
		args, err := arrange(newApp(&console{}, ""), append([]string{"wasm-jobs"}, strings.Fields(tt.line)...))
		if err != nil {
			if err.Error() != tt.err {
				t.Errorf("%s: %v", tt.line, err)
			}
			continue
		}
		if got := strings.Join(args[1:], " "); got != tt.want || tt.err != "" {
			t.Errorf("%s: %q, want %q %s", tt.line, got, tt.want, tt.err)
		}
	}
}

// Any number of workers that is too large gives one line and exit code 2.
func TestWorkersLimit(t *testing.T) {
	away(t)
	file := filepath.Join(t.TempDir(), "c.cbor")
	if err := os.WriteFile(file, []byte{1, 2}, 0o600); err != nil {
		t.Fatal(err)
	}
	verbsWithWorkers := 0
	for _, v := range verbs(t) {
		if flagsByName(v.command)["workers"] == nil {
			continue
		}
		verbsWithWorkers++
		for _, n := range []string{"4097", "2147483647", "9999999999", "9223372036854775807", "99999999999999999999"} {
			code, said := oneLine(t, append(slices.Clone(v.words), "-j", n, file, file)...)
			if code != exitRefused || !strings.Contains(said, n) {
				t.Errorf("%v -j %s: exit code %d, %q", v, n, code, said)
			}
		}
	}
	if verbsWithWorkers < 4 {
		t.Errorf("%d verbs have workers", verbsWithWorkers)
	}
	want := fmt.Sprintf("wasm-jobs: invalid --workers %d: too large, want at most %d\n", 4097, 4096)
	if _, said := oneLine(t, "run", "-j", "4097", file, file); said != want {
		t.Errorf("%q, want %q", said, want)
	}
}
