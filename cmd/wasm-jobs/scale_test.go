//go:build unix

package main

import (
	"bytes"
	"encoding/binary"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

var scale = flag.Bool("scale", false, "run jobs of a million chunks")

const (
	scaleChunks = 1_000_000
	scaleLimit  = 300 << 20 // bytes of peak memory
)

// TestScale streams a million chunks, as an array and as a sequence.
func TestScale(t *testing.T) {
	if !*scale {
		t.Skip("a million chunks take minutes: make scale")
	}
	body := make([]byte, 0, 5*scaleChunks)
	for i := range uint32(scaleChunks) {
		body = binary.BigEndian.AppendUint32(append(body, 0x1a), 100_000+i)
	}
	head := binary.BigEndian.AppendUint32([]byte{0x9a}, scaleChunks)
	for name, file := range map[string][]byte{"array": append(head, body...), "sequence": body} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("../../build/wasm-jobs", "run", "../../guest-examples/square/c/square.wasm", path, "--no-store")
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil || !bytes.Equal(out, []byte("443332733333500000\n")) {
			t.Fatalf("%s: %s, %v", name, out, err)
		}
		peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
		if runtime.GOOS == "linux" {
			peak <<= 10 // in KiB there
		}
		t.Logf("%s: peak memory %d MiB in %v", name, peak>>20, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
		if peak > scaleLimit {
			t.Errorf("%s: peak memory is above %d MiB", name, scaleLimit>>20)
		}
	}
}
