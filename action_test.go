package wasmjobs_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// action is what action.yml says, as far as tests look at it.
type action struct {
	Inputs map[string]struct {
		Description string
		Required    bool
		Default     string
	}
	Outputs map[string]struct{ Value string }
	Runs    struct {
		Using string
		Steps []actionStep
	}
}

type actionStep struct {
	Name, ID, If, Shell, Run, Uses string
	Env, With                      map[string]string
}

func readAction(t *testing.T) (a action, text string) {
	t.Helper()
	b, err := os.ReadFile("action.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &a); err != nil {
		t.Fatal(err)
	}
	return a, string(b)
}

var (
	pinned     = regexp.MustCompile(`^[a-z/-]+@[0-9a-f]{40}$`)
	expression = regexp.MustCompile(`\$\{\{\s*([^}]*?)\s*\}\}`)
	inputName  = regexp.MustCompile(`inputs\.([a-z-]+)`)
)

// TestActionForm holds action.yml to what keeps it safe: actions of others are
// named by commit, and no expression stands in a script.
func TestActionForm(t *testing.T) {
	a, text := readAction(t)
	if a.Runs.Using != "composite" || len(a.Runs.Steps) < 5 {
		t.Fatalf("using %q with %d steps", a.Runs.Using, len(a.Runs.Steps))
	}
	for _, step := range a.Runs.Steps {
		switch {
		case step.Uses != "" && !pinned.MatchString(step.Uses):
			t.Errorf("%s: %s is not named by its commit", step.Name, step.Uses)
		case step.Uses == "" && step.Shell != "bash":
			t.Errorf("%s: shell %q", step.Name, step.Shell)
		case expression.MatchString(step.Run):
			t.Errorf("%s: the script has the expression %s", step.Name, expression.FindString(step.Run))
		case step.Run != "" && step.If != "":
			t.Errorf("%s: a script with a condition is not tested", step.Name)
		case strings.HasPrefix(step.Uses, "actions/cache/save@") && !strings.Contains(step.If, "github.event_name == 'push'"):
			t.Errorf("%s: saves what is not of a push", step.Name)
		}
	}
	used := map[string]bool{}
	for _, name := range inputName.FindAllStringSubmatch(text, -1) {
		used[name[1]] = true
	}
	if got, want := slices.Sorted(maps.Keys(used)), slices.Sorted(maps.Keys(a.Inputs)); !slices.Equal(got, want) {
		t.Errorf("inputs %v are used, and %v are declared", got, want)
	}
	for name, input := range a.Inputs {
		if input.Description == "" {
			t.Errorf("input %s has no description", name)
		}
	}
}

// workspace is a repository that uses the action.
type workspace struct {
	dir, temp string
	binary    string
	path      string // PATH; "" = that of the test
}

// newWorkspace has a module and chunks, the integers 2 and 3, and the command.
func newWorkspace(t *testing.T) *workspace {
	t.Helper()
	if _, err := exec.LookPath("bash"); err != nil || runtime.GOOS == "windows" {
		t.Skip("the steps of the action need bash, on a system with its paths")
	}
	w := &workspace{dir: t.TempDir(), temp: t.TempDir()}
	w.binary = filepath.Join(w.temp, "built")
	if out, err := exec.Command("go", "build", "-o", w.binary, "./cmd/wasm-jobs").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for from, to := range map[string]string{"guest-examples/square/c/square.wasm": "a square; touch no.wasm", "guest-examples/faulty/c/faulty.wasm": "faulty.wasm"} {
		module, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		w.write(t, to, string(module))
	}
	w.write(t, "chunks.cbor", "\x02\x03")
	return w
}

func (w *workspace) write(t *testing.T, name, contents string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(contents), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs the action's scripts one after the other, as a runner does, until
// one fails. It returns what they printed, and the folder of the artifact.
func (w *workspace) run(t *testing.T, with map[string]string) (printed, out string, err error) {
	t.Helper()
	a, _ := readAction(t)
	values := map[string]string{}
	for name, input := range a.Inputs {
		values["inputs."+name] = input.Default
	}
	for name, value := range with {
		if _, known := a.Inputs[name]; !known {
			t.Fatalf("input %s is not declared", name)
		}
		values["inputs."+name] = value
	}
	for _, step := range a.Runs.Steps {
		if step.Run == "" {
			continue
		}
		text, err := w.step(t, &step, values)
		printed += text
		if err != nil {
			return printed, values["steps.prepare.outputs.directory"], fmt.Errorf("%s: %w", step.Name, err)
		}
	}
	return printed, values["steps.prepare.outputs.directory"], nil
}

// step runs one script, and adds its outputs to the values of expressions.
func (w *workspace) step(t *testing.T, step *actionStep, values map[string]string) (string, error) {
	t.Helper()
	outputs := filepath.Join(w.temp, "outputs")
	if err := os.WriteFile(outputs, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(w.temp, "script.sh")
	if err := os.WriteFile(script, []byte(step.Run), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "--noprofile", "--norc", "-eo", "pipefail", script)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "RUNNER_TEMP="+w.temp, "GITHUB_OUTPUT="+outputs)
	if w.path != "" {
		cmd.Env = append(cmd.Env, "PATH="+w.path)
	}
	for name, value := range step.Env {
		cmd.Env = append(cmd.Env, name+"="+expression.ReplaceAllStringFunc(value, func(e string) string {
			key := expression.FindStringSubmatch(e)[1]
			v, known := values[key]
			if !known {
				t.Fatalf("%s: the expression %s has no value", step.Name, e)
			}
			return v
		}))
	}
	text, err := cmd.CombinedOutput()
	written, readErr := os.ReadFile(outputs)
	if readErr != nil {
		t.Fatal(readErr)
	}
	for line := range strings.Lines(string(written)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values["steps."+step.ID+".outputs."+name] = value
	}
	return string(text), err
}

// TestAction runs the scripts of action.yml with a built binary, over a job
// whose receipt is committed.
func TestAction(t *testing.T) {
	w := newWorkspace(t)
	with := map[string]string{"path": w.binary, "module": "a square; touch no.wasm", "chunks": "chunks.cbor"}
	and := func(more ...string) map[string]string {
		all := maps.Clone(with)
		for i := 0; i < len(more); i += 2 {
			all[more[i]] = more[i+1]
		}
		return all
	}
	printed, out, err := w.run(t, with)
	if err != nil || !strings.Contains(printed, "no receipt is given") {
		t.Fatalf("without a receipt: %v\n%s", err, printed)
	}
	receipt, err := os.ReadFile(filepath.Join(out, "receipt.json"))
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, "committed.json", string(receipt))

	for _, test := range []struct {
		name   string
		with   map[string]string
		prints string
		fails  bool
	}{
		{"the same", and("receipt", "committed.json"), "the receipt is the committed one", false},
		{"other workers", and("receipt", "committed.json", "args", "--workers=1\n\n--isolation=instance\n"), "the receipt is the committed one", false},
		{"chunks of a flag", and("chunks", "", "args", "--range-of=2-3"), "no receipt is given", false},
		{"another seed", and("receipt", "committed.json", "args", "--seed=7"), "settings.seed differs", true},
		{"no such receipt", and("receipt", "none.json"), "none.json: there is no such receipt", true},
		{"what is no flag", and("args", "$(touch pwned)"), "a line is one flag", true},
		{"a flag like a script", and("args", "--seed=$(touch pwned)"), "seed", true},
		{"a failed chunk", and("module", "faulty.wasm", "bundles", "true"), "chunk 1 failed", true},
		{"no such module", and("module", "none.wasm"), "none.wasm: no such file", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			printed, out, err := w.run(t, test.with)
			if (err != nil) != test.fails || !strings.Contains(printed, test.prints) {
				t.Errorf("%v\n%s\nexpected %q, and to fail: %t", err, printed, test.prints, test.fails)
			}
			if test.with["bundles"] == "true" {
				if _, err := os.Stat(filepath.Join(out, "bundles", "1.bundle")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, made := range []string{"pwned", "no.wasm"} {
		if _, err := os.Stat(filepath.Join(w.dir, made)); err == nil {
			t.Errorf("an input was run as a script, and made %s", made)
		}
	}
}

// TestActionInstalls has a program stand for go, and looks at what it is asked.
func TestActionInstalls(t *testing.T) {
	w := newWorkspace(t)
	bin := t.TempDir()
	fake := fmt.Sprintf("#!/bin/sh\necho \"go $*\"\ncp '%s' \"$GOBIN/wasm-jobs\"\n", w.binary)
	if err := os.WriteFile(filepath.Join(bin, "go"), []byte(fake), 0o700); err != nil {
		t.Fatal(err)
	}
	w.path = bin + string(os.PathListSeparator) + os.Getenv("PATH")
	printed, _, err := w.run(t, map[string]string{"module": "a square; touch no.wasm", "chunks": "chunks.cbor", "version": "v1.2.3"})
	if want := "go install github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs@v1.2.3\n"; err != nil || !strings.Contains(printed, want) {
		t.Errorf("%v\n%s\nexpected %q", err, printed, want)
	}
}
