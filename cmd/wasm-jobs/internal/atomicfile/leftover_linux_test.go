package atomicfile

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestLeftoversOfDeadProcesses checks that the temporary files of dead processes of this
// machine are removed, and no others.
func TestLeftoversOfDeadProcesses(t *testing.T) {
	child := exec.Command("/bin/true")
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	dead, parent := child.Process.Pid, os.Getppid()
	name := func(machine string, id int, start uint64, random string) string {
		return fmt.Sprintf(".r.json.wasm-jobs-%s-%d-%d-%s", machine, id, start, random)
	}
	const random = "ABCDEFGHIJKLM"
	files := []struct {
		name string
		goes bool
	}{
		{name(machine(), dead, 1, random), true},
		{name(machine(), parent, processStart(parent)+1, random), true}, // its id is another process's now
		{name(machine(), parent, processStart(parent), random), false},
		{name(machine(), parent, 0, random), false},
		{name(machine(), os.Getpid(), 1, random), false},
		{name("aaaaaaaa", dead, 1, random), false}, // another machine, which may know the id
		{name(machine(), dead, 1, "short"), false},
		{strings.TrimPrefix(name(machine(), dead, 1, random), "."), false},
		{name(machine(), dead, 1, random) + ".cbor", false},
		{".r.json." + random, false},
		{"r.json", false},
	}
	dir := t.TempDir()
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, name(machine(), dead, 1, "LINKLINKLINKL"))
	if err := os.Symlink("r.json", link); err != nil {
		t.Fatal(err)
	}
	f, err := Create(filepath.Join(dir, "result"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Discard()
	for _, f := range files {
		if _, err := os.Lstat(filepath.Join(dir, f.name)); os.IsNotExist(err) != f.goes {
			t.Errorf("%s: error %v, want removed: %v", f.name, err, f.goes)
		}
	}
	if _, err := os.Lstat(link); err != nil {
		t.Errorf("a link is not a file that was left: %v", err)
	}
	if base := filepath.Base(f.temp); !tempPattern().MatchString(base) || isLeftover(base) {
		t.Errorf("the temporary file is %s", base)
	}
}

// The start time of a process distinguishes it from a later process with its id.
func TestProcessStart(t *testing.T) {
	if own, parent := processStart(os.Getpid()), processStart(os.Getppid()); own == 0 || parent == 0 || own < parent {
		t.Errorf("it started at %d, its parent at %d", own, parent)
	}
	if !isAlive(os.Getpid(), processStart(os.Getpid())) || !isAlive(1, 0) {
		t.Error("a process that runs is said to be dead")
	}
}
