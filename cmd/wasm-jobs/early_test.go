package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestEarly checks that results are written while a job runs only if nobody sees them
// before the job has succeeded.
func TestEarly(t *testing.T) {
	for path, early := range map[string]bool{
		"-": false, os.DevNull: false, filepath.Join(t.TempDir(), "o.cbor"): true,
	} {
		f := &resultFiles{result: path}
		if err := f.open(io.Discard); err != nil {
			t.Fatal(err)
		}
		if got := f.early(false) != nil; got != early {
			t.Errorf("%s: written early: %v", path, got)
		}
		f.discard()
	}
}
