package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/event"
)

// bigChunks is a number of chunks whose outputs do not fit in a small file system.
const bigChunks = 100

// bigFile writes a job's chunks. Each output has 40 KB, and the chunk's number.
func bigFile(t *testing.T) string {
	t.Helper()
	var b []byte
	for i := range uint32(bigChunks) {
		b = append(b, "\xa2\x62do\x63big\x64size\x1a"...)
		b = binary.BigEndian.AppendUint32(b, 40_000+i)
	}
	path := filepath.Join(t.TempDir(), "chunks.cbor")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// smallFileSystem mounts a file system of a few MiB with ballast in it.
func smallFileSystem(t *testing.T) (mount, ballast string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a file system of 16 MiB needs root")
	}
	mount = t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("a file system of 16 MiB cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ballast = filepath.Join(mount, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 13<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return mount, ballast
}

// TestFullDiskCommand runs a job until the store's disk is full, frees space, and runs
// it again.
func TestFullDiskCommand(t *testing.T) {
	mount, ballast := smallFileSystem(t)
	chunks, dir := bigFile(t), t.TempDir()
	run := func(name string) (stderr string, code int, done map[abi.ID]bool, reused map[abi.ID]bool) {
		cmd := command("run", "../../guest-examples/faulty/c/faulty.wasm", chunks, "--store", mount, "--progress", "none",
			"-j", "1", "--events", filepath.Join(dir, name+".events"), "--report", filepath.Join(dir, name+".json"), "-o", os.DevNull)
		var text bytes.Buffer
		cmd.Stderr = &text
		var exit *exec.ExitError
		if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		done, reused = readEvents(t, filepath.Join(dir, name+".events"))
		return text.String(), cmd.ProcessState.ExitCode(), done, reused
	}
	stderr, code, done, _ := run("full")
	if code != exitStore || !strings.Contains(stderr, mount) || !strings.Contains(stderr, "full") && !strings.Contains(stderr, "no space left") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if r := readReport(t, filepath.Join(dir, "full.json")); r.State != "broken" || r.Chunks.Succeeded != len(done) || len(done) == bigChunks {
		t.Errorf("%s: %+v, %d reported", r.State, r.Chunks, len(done))
	}
	t.Logf("%d of %d chunks were done: %s", len(done), bigChunks, stderr)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	stderr, code, _, reused := run("room")
	if code != exitOK || strings.Contains(stderr, "store:") {
		t.Errorf("with room: exit code %d: %s", code, stderr)
	}
	for id := range done {
		if !reused[id] {
			t.Errorf("chunk %v was reported as done, and is executed again", id)
		}
	}
}

// readEvents returns which chunks succeeded and which were reused.
func readEvents(t *testing.T, path string) (done, reused map[abi.ID]bool) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	done, reused = map[abi.ID]bool{}, map[abi.ID]bool{}
	for line := range bytes.Lines(b) {
		var e host.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		switch e.Kind {
		case event.KindSucceeded:
			done[*e.ID] = true
		case event.KindReused:
			reused[*e.ID] = true
		}
	}
	return done, reused
}
