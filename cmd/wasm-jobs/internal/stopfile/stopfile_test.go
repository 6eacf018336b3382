package stopfile_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/stopfile"
)

func TestRequest(t *testing.T) {
	r := &stopfile.Request{Store: t.TempDir(), Job: "3f2a", Host: "here", PID: 7}
	if !r.Taken() {
		t.Error("a request that nobody made")
	}
	if err := r.Make(); err != nil { // to an earlier process with this number
		t.Fatal(err)
	}
	asked := make(chan bool, 2)
	end := r.Watch(t.Context(), func() { asked <- true })
	if !r.Taken() {
		t.Error("a request from before Watch is still there")
	}
	there := *r
	there.Host = "there"
	if err := there.Make(); err != nil {
		t.Fatal(err)
	}
	if there.Taken() {
		t.Error("a request to another host is gone")
	}
	if err := r.Make(); err != nil {
		t.Fatal(err)
	}
	<-asked
	end()
	if !r.Taken() || len(asked) > 0 {
		t.Error("the request was taken twice, or is still there")
	}
	if err := r.Withdraw(); err != nil {
		t.Error(err)
	}
}

// TestNoRequest makes sure that requests need a directory that can be written.
func TestNoRequest(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (&stopfile.Request{Store: file, Job: "3f2a"}).Make(); err == nil {
		t.Error("a request in a file")
	}
}
