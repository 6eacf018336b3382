package wasmjobs_test

import (
	"crypto/sha256"
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

// action is the part of action.yml that the tests use.
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

// TestActionForm checks rules that keep action.yml safe: other actions are pinned to a
// commit, and no script contains an expression.
func TestActionForm(t *testing.T) {
	a, text := readAction(t)
	if a.Runs.Using != "composite" || len(a.Runs.Steps) < 5 {
		t.Fatalf("using %q with %d steps", a.Runs.Using, len(a.Runs.Steps))
	}
	for _, step := range a.Runs.Steps {
		switch {
		case step.Uses != "" && !pinned.MatchString(step.Uses):
			t.Errorf("%s: %s is not pinned to a commit", step.Name, step.Uses)
		case step.Uses == "" && step.Shell != "bash":
			t.Errorf("%s: shell %q", step.Name, step.Shell)
		case expression.MatchString(step.Run):
			t.Errorf("%s: the script contains the expression %s", step.Name, expression.FindString(step.Run))
		case step.Run != "" && step.If != "":
			t.Errorf("%s: scripts with a condition are not tested here", step.Name)
		case strings.HasPrefix(step.Uses, "actions/cache/save@") && !strings.Contains(step.If, "github.event_name == 'push'"):
			t.Errorf("%s: must save only after a push", step.Name)
		}
	}
	used := map[string]bool{}
	for _, name := range inputName.FindAllStringSubmatch(text, -1) {
		used[name[1]] = true
	}
	if got, want := slices.Sorted(maps.Keys(used)), slices.Sorted(maps.Keys(a.Inputs)); !slices.Equal(got, want) {
		t.Errorf("inputs %v are used, but %v are declared", got, want)
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
	path      string            // PATH; "" = the test's
	values    map[string]string // of the expressions, in the last use
}

// newWorkspace returns a workspace with a module, the chunks 2 and 3, and the command.
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

// run runs the action's scripts one after the other, as a runner does, until one
// fails. It returns their output and the folder of the artifact.
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
	w.values = values
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
	cmd.Env = append(os.Environ(), "RUNNER_TEMP="+w.temp, "GITHUB_OUTPUT="+outputs, "GITHUB_STEP_SUMMARY="+filepath.Join(w.temp, "summary"))
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
	if err != nil || !strings.Contains(printed, "no receipt to compare with") {
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
		{"the same", and("receipt", "committed.json"), "the receipt matches committed.json", false},
		{"other workers", and("receipt", "committed.json", "args", "--workers=1\n\n--isolation=instance\n"), "the receipt matches committed.json", false},
		{"chunks of a flag", and("chunks", "", "args", "--range-of=2-3"), "no receipt to compare with", false},
		{"another seed", and("receipt", "committed.json", "args", "--seed=7"), "settings.seed differs", true},
		{"no such receipt", and("receipt", "none.json"), "none.json: missing receipt", true},
		{"not a flag", and("args", "$(touch pwned)"), "args: invalid line", true},
		{"a flag like a script", and("args", "--seed=$(touch pwned)"), "seed", true},
		{"a failed chunk", and("module", "faulty.wasm", "bundles", "true"), "chunk 1 failed", true},
		{"no such module", and("module", "none.wasm"), "none.wasm: no such file", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			printed, out, err := w.run(t, test.with)
			if (err != nil) != test.fails || !strings.Contains(printed, test.prints) {
				t.Errorf("%v\n%s\nwant %q, and failure: %t", err, printed, test.prints, test.fails)
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
			t.Errorf("an input was run as a script, which made %s", made)
		}
	}
}

// release makes the files of a release in a directory, as they are below URLs of GitHub,
// and returns the URL of releases and the digest of the checksums.
func (w *workspace) release(t *testing.T, tag string) (url, checksums string) {
	t.Helper()
	dir := t.TempDir()
	below := filepath.Join(dir, "download", tag)
	name := fmt.Sprintf("wasm-jobs_%s_%s_%s", strings.TrimPrefix(tag, "v"), runtime.GOOS, runtime.GOARCH)
	if err := os.MkdirAll(filepath.Join(below, name), 0o700); err != nil {
		t.Fatal(err)
	}
	runIn(t, below, os.Environ(), "cp", w.binary, filepath.Join(name, "wasm-jobs"))
	runIn(t, below, os.Environ(), "tar", "-czf", name+".tar.gz", name)
	line := fmt.Sprintf("%x  %s.tar.gz\n", sha256.Sum256([]byte(readText(t, filepath.Join(below, name+".tar.gz")))), name)
	if err := os.WriteFile(filepath.Join(below, "checksums.txt"), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "latest"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(below, filepath.Join(dir, "latest", "download")); err != nil {
		t.Fatal(err)
	}
	return "file://" + dir, fmt.Sprintf("%x", sha256.Sum256([]byte(line)))
}

// TestActionDownloads runs the action with releases in a directory.
func TestActionDownloads(t *testing.T) {
	w := newWorkspace(t)
	url, checksums := w.release(t, "v1.2.3")
	damaged, _ := w.release(t, "v1.2.3")
	files, err := filepath.Glob(strings.TrimPrefix(damaged, "file://") + "/download/v1.2.3/*.tar.gz")
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.WriteFile(files[0], []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, version, checksums, releases, prints string
		fails                                      bool
	}{
		{"a tag", "v1.2.3", "", url, "no receipt to compare with", false},
		{"the latest", "latest", "", url, "no receipt to compare with", false},
		{"with the digest of the checksums", "v1.2.3", checksums, url, "no receipt to compare with", false},
		{"with another digest", "v1.2.3", strings.Repeat("0", 64), url, "want " + strings.Repeat("0", 64), true},
		{"an archive that was changed", "v1.2.3", "", damaged, "has the SHA-256", true},
		{"no such tag", "v9.9.9", "", url, "cannot download", true},
		{"not a version", "$(touch pwned)", "", url, "invalid version", true},
		{"a path", "v1/../..", "", url, "invalid version", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			printed, _, err := w.run(t, map[string]string{"module": "a square; touch no.wasm", "chunks": "chunks.cbor", "version": tt.version, "checksums": tt.checksums, "releases": tt.releases})
			if (err != nil) != tt.fails || !strings.Contains(printed, tt.prints) {
				t.Errorf("%v\n%s\nwant %q, and failure: %t", err, printed, tt.prints, tt.fails)
			}
		})
	}
}

// TestActionTwice uses the action twice in a job, on a job that fails with a message that
// looks like a page: artifacts have two names, and the summary has the text of both.
func TestActionTwice(t *testing.T) {
	w := newWorkspace(t)
	w.write(t, "page.jsonl", `{"do":"permanent","message":"</pre><script>alert(1)</script>"}`+"\n")
	with := map[string]string{"path": w.binary, "module": "faulty.wasm", "chunks": "", "args": "--jsonl=page.jsonl"}
	for n, want := range []string{"wasm-jobs", "wasm-jobs-2"} {
		if printed, _, err := w.run(t, with); err == nil {
			t.Errorf("the job succeeded\n%s", printed)
		}
		if w.values["steps.prepare.outputs.artifact"] != want {
			t.Errorf("use %d has the artifact %q, want %q", n+1, w.values["steps.prepare.outputs.artifact"], want)
		}
	}
	summary := readText(t, filepath.Join(w.temp, "summary"))
	if strings.Count(summary, "exit code 1") != 2 || strings.Count(summary, "</pre>") != 2 || strings.Contains(summary, "<script") || !strings.Contains(summary, "&lt;script&gt;") {
		t.Errorf("summary:\n%s", summary)
	}
}

// TestActionInstalls replaces go by a script, and checks its arguments.
func TestActionInstalls(t *testing.T) {
	w := newWorkspace(t)
	bin := t.TempDir()
	fake := fmt.Sprintf("#!/bin/sh\necho \"go $*\"\ncp '%s' \"$GOBIN/wasm-jobs\"\n", w.binary)
	if err := os.WriteFile(filepath.Join(bin, "go"), []byte(fake), 0o700); err != nil {
		t.Fatal(err)
	}
	const commit = "0123456789abcdef0123456789abcdef01234567"
	w.path = bin + string(os.PathListSeparator) + os.Getenv("PATH")
	printed, _, err := w.run(t, map[string]string{"module": "a square; touch no.wasm", "chunks": "chunks.cbor", "version": commit})
	if want := "go install github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs@" + commit + "\n"; err != nil || !strings.Contains(printed, want) {
		t.Errorf("%v\n%s\nwant %q", err, printed, want)
	}
}
