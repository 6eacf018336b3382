//go:build unix

package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
)

var linesSize = flag.Int("lines-size", 4<<20, "how many bytes the file of TestLinesMemory has")

// TestLinesMemory reads a file with --lines, and with chunks from-lines through a pipe.
// The memory of a process does not grow with the file, except for eight bytes a chunk.
func TestLinesMemory(t *testing.T) {
	dir := t.TempDir()
	file, store := filepath.Join(dir, "lines.txt"), filepath.Join(dir, "store")
	lines := writeLines(t, file, *linesSize)
	blocks := (lines + 999) / 1000
	linesRun(t, "run --lines", lines, nil, "--lines", file, "--store", store)
	linesRun(t, "run --lines --chunk-lines 1000", blocks, nil, "--lines", file, "--chunk-lines", "1000", "--store", store)
	from := command("chunks", "from-lines", file, "--lines", "1000")
	from.Stderr = os.Stderr
	linesRun(t, "chunks from-lines | run -", blocks, from, "-", "--store", store)
}

// writeLines writes lines of about 100 bytes, all different.
func writeLines(t *testing.T, path string, size int) (lines int) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	var block bytes.Buffer
	for written := 0; written < size; written += block.Len() {
		block.Reset()
		for range 1000 {
			fmt.Fprintf(&block, "%d%s\n", lines, strings.Repeat(" word", 10+random.IntN(15)))
			lines++
		}
		if _, err := file.Write(block.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return lines
}

// forgetPeak makes the present memory of this process its peak, if the system is Linux:
// the peak of a process that is started includes the one of its parent until then.
func forgetPeak() {
	debug.FreeOSMemory()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // proc(5)
}

// linesRun runs a job whose result is the number of its chunks. If first is not nil, it
// makes the chunks.
func linesRun(t *testing.T, name string, want int, first *exec.Cmd, flags ...string) {
	t.Helper()
	forgetPeak()
	run := command(append([]string{"run", "../../testdata/wasm/echo-merge.wasm", "--progress", "none"}, flags...)...)
	run.Stderr = os.Stderr
	commands := []*exec.Cmd{run}
	if first != nil {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		first.Stdout, run.Stdin = w, r
		if err := first.Start(); err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		w.Close()
		commands = append(commands, first)
	}
	out, err := run.Output()
	if first != nil {
		err = errors.Join(err, first.Wait())
	}
	if err != nil || string(out) != fmt.Sprintln(want) {
		t.Fatalf("%s: %s, %v; want %d", name, out, err, want)
	}
	for _, c := range commands {
		peak := c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
		if runtime.GOOS == "linux" {
			peak <<= 10 // in KiB there
		}
		t.Logf("%s: %s: peak memory %d MiB, %v of CPU", name, c.Args[1], peak>>20, c.ProcessState.UserTime()+c.ProcessState.SystemTime())
		if peak > scaleLimit && !raceDetector {
			t.Errorf("%s: %s: peak memory is above %d MiB", name, c.Args[1], scaleLimit>>20)
		}
	}
}
