package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/atomicfile"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/interrupt"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/sdk"
)

// If a signal ends the process, unfinished files of keygen and new are removed, and no
// new ones can be made. Finished files stay.
func TestUnfinished(t *testing.T) {
	t.Chdir(t.TempDir())
	c := &console{out: io.Discard, signals: interrupt.Watch(t.Context(), host.ErrInterrupted, func(error) {})}
	defer c.signals.End()
	key, project := c.newUnfinished(), c.newUnfinished()
	files, err := sdk.Project("c", "p")
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(writeNew(key, "key", 0o600, []byte("half a pair")),
		project.make("p", func() error { return os.Mkdir("p", 0o777) }), writeProject(project, "p", files[:1]),
		keygen(c, "whole"), newProject(c, "q", "c", "primes"))
	if err != nil || names(t, ".") != "key p q whole whole.pub" {
		t.Fatalf("there are %s, error %v", names(t, "."), err)
	}
	key.abandon()
	project.abandon()
	if left := names(t, "."); left != "q whole whole.pub" {
		t.Errorf("there are %s", left)
	}
	if key.mu.TryLock() || project.mu.TryLock() {
		t.Error("something can be made after it")
	}
}

// A failure does not leave half a pair of keys, or half a project.
func TestNothingHalfIsLeft(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("key.pub", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := &console{out: io.Discard, signals: interrupt.Watch(t.Context(), host.ErrInterrupted, func(error) {})}
	defer c.signals.End()
	if err := keygen(c, "key"); err == nil || exitCode(err) != exitRefused || names(t, ".") != "key.pub" {
		t.Errorf("error %v, there are %s", err, names(t, "."))
	}
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

// Temporary files that a killed process left are removed from a directory of outputs.
func TestLeftoversInDirectoriesOfOutputs(t *testing.T) {
	child := exec.Command(os.Args[0], "-test.run=^$")
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	own := atomicfile.TempName("output")
	dead := regexp.MustCompile(`-\d+-\d+-(\w+)$`).ReplaceAllString(own, fmt.Sprintf("-%d-1-$1", child.Process.Pid))
	dir := t.TempDir()
	for _, name := range []string{own, dead, "0.cbor"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := &resultFiles{outputs: dir}
	if err := f.open(io.Discard); err != nil {
		t.Fatal(err)
	}
	f.discard()
	if left, want := names(t, dir), own+" 0.cbor"; left != want {
		t.Errorf("there are %s, want %s", left, want)
	}
}
