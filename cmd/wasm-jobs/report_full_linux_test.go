package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReportOnFullDisk writes reports to a disk without room, from run and from report:
// exit code 4, one line, and neither a file nor a part of one.
func TestReportOnFullDisk(t *testing.T) {
	mount, ballast := smallFileSystem(t)
	fill(t, ballast)
	store := filepath.Join(t.TempDir(), "store")
	run := []string{"run", faultyWasm, "--range-of", "0-2", "--store", store, "--progress", "none", "-o", os.DevNull}
	if out, err := command(run...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, form := range []string{"html", "txt", "json", "html.gz"} {
		path := filepath.Join(mount, "report."+form)
		for _, args := range [][]string{append(run, "--report", path), {"report", "--store", store, "-o", path}} {
			out, err := command(args...).CombinedOutput()
			exit, ok := errors.AsType[interface {
				error
				ExitCode() int
			}](err)
			if !ok || exit.ExitCode() != exitStore || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), "no space left") {
				t.Errorf("%v: %v, want exit code %d and one line; got %s", args, err, exitStore, out)
			}
		}
	}
	left, err := os.ReadDir(mount)
	if err != nil || len(left) != 1 {
		t.Errorf("the disk has %v, want only the ballast: %v", left, err)
	}
}

// fill makes a file as large as its disk allows.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
}
