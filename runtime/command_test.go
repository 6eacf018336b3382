package runtime_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
)

// commandWasm returns a WASI command, which obeys its arguments or the first
// line of its input.
func commandWasm(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("../testdata/command/command.wasm")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// garden returns a directory with a file, a directory and links in and out of
// it.
func garden(t testing.TB) wasi.Dir {
	t.Helper()
	top := t.TempDir()
	dir := filepath.Join(top, "data")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "sub"), 0o755),
		os.WriteFile(filepath.Join(top, "secret"), []byte("secret"), 0o644),
		os.WriteFile(filepath.Join(dir, "a.txt"), []byte("in a file\n"), 0o644),
		os.Symlink("a.txt", filepath.Join(dir, "link")),
		os.Symlink("../secret", filepath.Join(dir, "out")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	tree, err := wasi.ReadTree(t.Context(), dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return wasi.Dir{Guest: "/data", Tree: tree}
}

// callCommand runs the command on one chunk.
func callCommand(t testing.TB, s runtime.Settings, chunk []byte) (output []byte, fuel uint64, err error) {
	t.Helper()
	i := prepare(t, commandWasm(t), s).Borrow(nil)
	defer i.Release()
	return i.Call(t.Context(), abi.ExportExec, chunk, nil)
}

func TestCommand(t *testing.T) {
	dir := garden(t)
	text := abi.AppendText(nil, "two words\nand five more here\n")
	for _, test := range []struct {
		name  string
		args  string
		chunk []byte
		want  string // the output, or the failure after "class: "
	}{
		{"no bytes", "upper", []byte{0x40}, ""},
		{"a text", "count", text, "2 6 29\n"},
		{"a byte string", "upper", []byte{0x43, 'a', 0xff, 'z'}, "A\xffZ"},
		{"a string in parts", "upper", []byte{0x7f, 0x61, 'a', 0x60, 0x62, 'b', 'c', 0xff}, "ABC"},
		{"bytes in parts", "upper", []byte{0x5f, 0x41, 'x', 0x42, 'y', 'z', 0xff}, "XYZ"},
		{"an integer", "upper", []byte{0}, "abi: the chunk is an integer, "},
		{"a map", "upper", []byte{0xa0}, "abi: the chunk is a map, "},
		{"null", "upper", []byte{0xf6}, "abi: the chunk is a simple value"},
		{"a tagged text", "upper", []byte{0xc0, 0x61, 'a'}, "abi: the chunk is a tagged item"},
		{"arguments", "args|two words|", text, "[args][two words][]\n"},
		{"environment", "env", text, "[A=1][B= b ]\n"},
		{"exit code 0", "exit|0", text, "not an output\n"},
		{"exit code 3", "exit|3", text, `guest: exit code 3: first line\nthe end of 3`},
		{"exit code 255", "exit|255", text, "guest: exit code 255: "},
		{"a long standard error", "err|5000", text, "guest: exit code 1: ..."},
		{"a trap", "abort", text, "trap: unreachable: about to abort"},
		{"a denied growth", "grow|9000000", text, "memory: unreachable after a growth beyond the limit of 4194304 bytes was denied: no memory"},
		{"a loop", "loop", text, "fuel: used more than 3000000 units of fuel"},
		{"as much as allowed", "out|997", text, filled(997)},
		{"a byte too much", "out|998", text, "abi: the output has more than 1000 bytes"},
		{"far too much", "out|100000", text, "abi: the output has more than 1000 bytes"},
		{"a file", "cat|/data/a.txt", text, "in a file\n"},
		{"a link", "cat|/data/sub/../link", text, "in a file\n"},
		{"a link out", "cat|/data/out", text, "guest: exit code 1: /data/out: Capabilities insufficient"},
		{"a path out", "cat|/data/../secret", text, "guest: exit code 1: /data/../secret: Capabilities insufficient"},
		{"another path", "cat|/etc/passwd", text, "guest: exit code 1: /etc/passwd: Capabilities insufficient"},
		{"a directory", "list|/data", text, "a.txt file 10 0\nlink link 5 0 -> a.txt\nout link 9 0 -> ../secret\nsub dir 0 0\n"},
		{"writing", "change|/data", text, strings.Join([]string{"write", "append", "create", "truncate", "mkdir", "unlink", "rename", "symlink", "rmdir"}, ": Read-only file system\n") + ": Invalid argument\n"}, // rmdir of the directory itself
	} {
		t.Run(test.name, func(t *testing.T) {
			s := settings
			s.MaxOutput = 1000
			s.Command = runtime.Command{Args: strings.Split(test.args, "|"), Env: []string{"A=1", "B= b "}, Dirs: []wasi.Dir{dir}}
			output, fuel, err := callCommand(t, s, test.chunk)
			if err != nil {
				if !strings.HasPrefix(err.Error(), test.want) || test.want == "" {
					t.Fatalf("%v, want %q", err, test.want)
				}
				return
			}
			if want := string(abi.AppendHead(nil, abi.MajorBytes, uint64(len(test.want)))) + test.want; string(output) != want {
				t.Errorf("output %q, want %q", output, want)
			}
			if fuel == 0 {
				t.Error("it took no fuel")
			}
		})
	}
}

// filled returns what the command's out writes.
func filled(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(i%26)
		if i%64 == 63 {
			b[i] = '\n'
		}
	}
	return string(b)
}

func TestCommandReadsCBOR(t *testing.T) {
	s := settings
	s.Command = runtime.Command{Args: []string{"count"}, Stdin: runtime.StdinCBOR}
	for _, chunk := range [][]byte{{0}, {0x82, 1, 2}, abi.AppendText(nil, "text")} {
		output, _, err := callCommand(t, s, chunk)
		if want := fmt.Sprintf("0 1 %d\n", len(chunk)); err != nil || string(output[1:]) != want {
			t.Errorf("% x: %q, %v, want %q", chunk, output, err, want)
		}
	}
}

func TestCommandTimesOut(t *testing.T) {
	s := runtime.Settings{Timeout: 10 * time.Millisecond, Command: runtime.Command{Args: []string{"loop"}}}
	if _, _, err := callCommand(t, s, []byte{0x40}); classOf(err) != abi.ClassTimeout {
		t.Errorf("%v, want class timeout", err)
	}
}

// TestCommandLogs checks that standard error is logged by lines, and standard
// output is not logged.
func TestCommandLogs(t *testing.T) {
	s := settings
	s.Command.Args = []string{"exit", "0"}
	var lines []string
	i := prepare(t, commandWasm(t), s).Borrow(func(level int32, line string) { lines = append(lines, fmt.Sprint(level, " ", line)) })
	defer i.Release()
	if _, _, err := i.Call(t.Context(), abi.ExportExec, []byte{0x40}, nil); err != nil {
		t.Fatal(err)
	}
	if want := []string{"-4 first line", "-4 the end of 0"}; !slices.Equal(lines, want) {
		t.Errorf("logged %q, want %q", lines, want)
	}
}

// TestCommandRandomness checks that random bytes depend on the seed and the
// chunk, and on nothing else.
func TestCommandRandomness(t *testing.T) {
	seen := map[string]string{}
	for _, seed := range []uint64{1, 2} {
		for _, chunk := range [][]byte{{0x40}, {0x41, 'x'}} {
			name := fmt.Sprint(seed, chunk)
			for _, isolation := range []runtime.Isolation{runtime.IsolationReset, runtime.IsolationInstance} {
				s := runtime.Settings{Seed: seed, Isolation: isolation, Command: runtime.Command{Args: []string{"entropy"}}}
				output, _, err := callCommand(t, s, chunk)
				if err != nil {
					t.Fatal(err)
				}
				if first, again := seen[string(output)]; again && first != name {
					t.Errorf("%s and %s see the same: %s", first, name, output)
				}
				seen[string(output)] = name
			}
		}
	}
	if len(seen) != 4 {
		t.Errorf("%d outputs of 4 seeds and chunks: %q", len(seen), seen)
	}
}

// TestCommandIsReset runs every action of a command after every other, on an
// instance that is reset. Each action must run as on a new instance.
func TestCommandIsReset(t *testing.T) {
	before := settings
	defer func() { settings = before }()
	settings.MaxOutput = 10_000
	settings.Command.Dirs = []wasi.Dir{garden(t)}
	reset, clone, fresh := pools(t, runtime.Config{}, commandWasm(t))
	var chunks [][]byte
	for _, line := range []string{
		"", "count\na b", "calls", "calls", "upper\nabc", "exit 3", "exit 0", "abort", "loop", "grow 1000000", "grow 9000000",
		"out 9000", "out 20000", "err 3000", "entropy", "cat /data/a.txt", "cat /data/out", "list /data", "change /data", "env", "args",
	} {
		chunks = append(chunks, abi.AppendText(nil, line))
	}
	chunks = append(chunks, []byte{0})
	want := map[string]string{}
	var sequence [][]byte
	for a := range chunks {
		if raceDetector && a%4 != 0 {
			continue
		}
		for b := range chunks {
			sequence = append(sequence, chunks[a], chunks[b])
		}
	}
	compare(t, reset, want, fresh, abi.ExportExec, sequence)
	compare(t, clone, want, fresh, abi.ExportExec, sequence[len(sequence)/2:])
	if got := want[abi.ExportExec+string(abi.AppendText(nil, "calls"))]; !strings.HasPrefix(got, fmt.Sprintf("42%x ", "0\n")) {
		t.Errorf("earlier calls are visible in the first one: %s", got)
	}
}

// TestCommandIsNeverKept checks that a program is never started twice in the
// same state, even if the state is to be kept.
func TestCommandIsNeverKept(t *testing.T) {
	s := settings
	s.Isolation, s.Command.Args = runtime.IsolationNone, []string{"calls"}
	p := prepare(t, commandWasm(t), s)
	if p.Isolation() != runtime.IsolationReset {
		t.Errorf("isolation %s", p.Isolation())
	}
	i := p.Borrow(nil)
	defer i.Release()
	for range 3 {
		if output, _, err := i.Call(t.Context(), abi.ExportExec, []byte{0x40}, nil); err != nil || string(output) != "\x420\n" {
			t.Errorf("%q, %v", output, err)
		}
	}
}

// TestFailuresOfCommandsNameSettings checks that the class and message of a
// failure determine its setting.
func TestFailuresOfCommandsNameSettings(t *testing.T) {
	text := abi.AppendText(nil, "two words")
	for _, test := range []struct {
		name, args string
		chunk      []byte
		want       runtime.Setting
	}{
		{"an integer", "upper", []byte{0}, runtime.SettingStdin},
		{"a byte too much", "out|998", text, runtime.SettingMaxOutput},
		{"exit code 3", "exit|3", text, ""},
		{"a trap", "abort", text, ""},
	} {
		s := settings
		s.MaxOutput, s.Command.Args = 1000, strings.Split(test.args, "|")
		_, _, err := callCommand(t, s, test.chunk)
		failure, ok := errors.AsType[*abi.Failure](err)
		if !ok {
			t.Fatalf("%s: %v", test.name, err)
		}
		if got := runtime.SettingOf(&abi.Failure{Class: failure.Class, Message: failure.Message}); got != test.want {
			t.Errorf("%s: setting %q, want %q", test.name, got, test.want)
		}
		if failure.Class = abi.ClassGuest; runtime.SettingOf(failure) != "" {
			t.Errorf("%s: a guest's own message names a setting", test.name)
		}
	}
}

// TestMemoryThatDoesNotFit checks that a refusal names the setting.
func TestMemoryThatDoesNotFit(t *testing.T) {
	m, err := newRuntime(t, runtime.Config{}).Admit(t.Context(), wasmFile(t, "echo"), runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = m.Fits(runtime.Settings{Memory: 1})
	refused, ok := errors.AsType[*runtime.RefusedError](err)
	if !ok || refused.Setting != runtime.SettingMemory || !strings.HasSuffix(err.Error(), "more than the limit of 1: Settings.Memory raises it") {
		t.Errorf("%v", err)
	}
}

// TestCommandFits checks which settings fit which modules.
func TestCommandFits(t *testing.T) {
	r := newRuntime(t, runtime.Config{})
	command, err1 := r.Admit(t.Context(), commandWasm(t), runtime.Options{})
	echo, err2 := r.Admit(t.Context(), wasmFile(t, "echo"), runtime.Options{})
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if !command.Description().Command || echo.Description().Command {
		t.Error("a command was not recognized")
	}
	dir := garden(t)
	for _, test := range []struct {
		name     string
		command  runtime.Command
		ofExec   string // why a module with exec is refused
		ofStarts string // why a command is refused
	}{
		{"nothing", runtime.Command{}, "", ""},
		{"raw input", runtime.Command{Stdin: runtime.StdinRaw}, "", ""},
		{"CBOR input", runtime.Command{Stdin: runtime.StdinCBOR}, "Settings.Command.Stdin is only for", ""},
		{"other input", runtime.Command{Stdin: "x"}, "", "want raw or cbor"},
		{"arguments", runtime.Command{Args: []string{""}}, "Settings.Command.Args is only for", ""},
		{"a NUL in an argument", runtime.Command{Args: []string{"a\x00"}}, "Settings.Command.Args is only for", "holds a NUL"},
		{"environment", runtime.Command{Env: []string{"A="}}, "Settings.Command.Env is only for", ""},
		{"no pair", runtime.Command{Env: []string{"A"}}, "Settings.Command.Env is only for", "want KEY=VALUE"},
		{"a key twice", runtime.Command{Env: []string{"A=1", "A=2"}}, "Settings.Command.Env is only for", `duplicate variable "A"`},
		{"a directory", runtime.Command{Dirs: []wasi.Dir{dir}}, "Settings.Command.Dirs is only for", ""},
		{"a directory twice", runtime.Command{Dirs: []wasi.Dir{dir, dir}}, "Settings.Command.Dirs is only for", `duplicate directory "/data"`},
		{"a directory without a name", runtime.Command{Dirs: []wasi.Dir{{Tree: dir.Tree}}}, "Settings.Command.Dirs is only for", "invalid directory name"},
		{"a directory without a tree", runtime.Command{Dirs: []wasi.Dir{{Guest: "x"}}}, "Settings.Command.Dirs is only for", "missing tree"},
	} {
		for module, want := range map[*runtime.Module]string{echo: test.ofExec, command: test.ofStarts} {
			err := module.Fits(runtime.Settings{Command: test.command})
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s, command %v: %v, want %q", test.name, module == command, err, want)
			}
			refused, ok := errors.AsType[*runtime.RefusedError](err)
			if setting, _, _ := strings.Cut(test.ofExec, " "); module == echo && ok && string(refused.Setting) != setting {
				t.Errorf("%s: setting %q, want %q", test.name, refused.Setting, setting)
			}
		}
	}
}

// TestCommandThatFoldsNeedsAlloc checks the required exports of commands, and
// their types.
func TestCommandThatFoldsNeedsAlloc(t *testing.T) {
	text := func(s string) []byte { return append([]byte{byte(len(s))}, s...) }
	export := func(name string, function byte) []byte { return append(text(name), 0, function) }
	for _, test := range []struct {
		name    string
		exports [][]byte
		want    string
	}{
		{"only _start", [][]byte{export("_start", 0)}, ""},
		{"_start of another type", [][]byte{export("_start", 1)}, `export "_start" has type (i32, i32) -> i64: want () -> ()`},
		{"with aggregate", [][]byte{export("_start", 0), export("aggregate", 1)}, `missing export "alloc": want func (i32) -> i32`},
		{"with setup", [][]byte{export("_start", 0), export("setup", 1)}, `missing export "alloc": want func (i32) -> i32`},
		{"with aggregate of another type", [][]byte{export("_start", 0), export("aggregate", 0), export("alloc", 2)}, `export "aggregate" has type () -> (): want (i32, i32) -> i64`},
		{"with all", [][]byte{export("_start", 0), export("aggregate", 1), export("alloc", 2)}, ""},
	} {
		exports := append([]byte{byte(len(test.exports) + 1)}, slices.Concat(append(test.exports, append(text("memory"), 2, 0))...)...)
		wasm := module(
			section(1, 3, 0x60, 0, 0, 0x60, 2, 0x7f, 0x7f, 1, 0x7e, 0x60, 1, 0x7f, 1, 0x7f),
			section(3, 3, 0, 1, 2), section(5, 1, 0, 1), section(7, exports...),
			section(10, 3, 2, 0, 0x0b, 4, 0, 0x42, 0, 0x0b, 4, 0, 0x41, 0, 0x0b))
		d := runtime.Inspect(wasm)
		if got := strings.Join(d.Problems, "; "); got != test.want || !d.Command {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// TestEveryImportIsAdmitted admits a module with every supported function as an
// import, by the type in the text of the module.
func TestEveryImportIsAdmitted(t *testing.T) {
	valueType := map[string]byte{"i32": 0x7f, "i64": 0x7e}
	types := func(list string) (b []byte) {
		for word := range strings.FieldsFuncSeq(list, func(r rune) bool { return strings.ContainsRune("(), ", r) }) {
			b = append(b, valueType[word])
		}
		return append([]byte{byte(len(b))}, b...)
	}
	for name, signature := range wasi.Types() {
		params, results, _ := strings.Cut(signature, " -> ")
		function := append(append([]byte{0x60}, types(params)...), types(results)...)
		text := func(s string) []byte { return append([]byte{byte(len(s))}, s...) }
		wasm := module(
			section(1, slices.Concat([]byte{2}, function, []byte{0x60, 0, 0})...),
			section(2, slices.Concat([]byte{1}, text(abi.WASIModule), text(name), []byte{0, 0})...),
			section(3, 1, 1), section(5, 1, 0, 1),
			section(7, slices.Concat([]byte{2}, text("_start"), []byte{0, 1}, text("memory"), []byte{2, 0})...),
			section(10, 1, 2, 0, 0x0b))
		if d := runtime.Inspect(wasm); !d.Accepted || !d.Command {
			t.Errorf("%s: %q", name, d.Problems)
		}
	}
}
