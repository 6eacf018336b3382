package wasmjobs_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// TestDeployments parses the examples, and checks that the command has the flags in them.
func TestDeployments(t *testing.T) {
	paths, err := filepath.Glob("deploy/*.yaml")
	more, moreErr := filepath.Glob("deploy/kubernetes/*.yaml")
	if err := errors.Join(err, moreErr); err != nil || len(paths)+len(more) < 3 {
		t.Fatalf("%v, %v, %v", paths, more, err)
	}
	flags := flagsOfCommand(t)
	for _, path := range append(paths, more...) {
		text := readText(t, path)
		documents := 0
		for d := yaml.NewDecoder(strings.NewReader(text)); ; documents++ {
			var document map[string]any
			if err := d.Decode(&document); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if strings.Contains(path, "kubernetes") && (document["apiVersion"] == nil || document["kind"] == nil || document["spec"] == nil && document["stringData"] == nil) {
				t.Errorf("%s: document %d: want a manifest with apiVersion, kind, and spec or stringData", path, documents)
			}
		}
		if documents == 0 {
			t.Errorf("%s is empty", path)
		}
		checkFlags(t, path, text, flags)
	}
	for _, path := range []string{"deploy/wasm-jobs-worker.service", "docs/cluster.md"} {
		checkFlags(t, path, readText(t, path), flags)
	}
	if _, err := os.Stat("deploy/pgbouncer.ini"); err != nil {
		t.Error(err)
	}
}

func checkFlags(t *testing.T, path, text string, flags map[string]bool) {
	t.Helper()
	for _, m := range flagName.FindAllStringSubmatch(text, -1) {
		if !flags[m[1]] {
			t.Errorf("%s: unknown flag %s", path, m[0])
		}
	}
}
