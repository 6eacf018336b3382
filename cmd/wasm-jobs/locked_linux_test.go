package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The bytes that SQLite locks: for a rollback journal in the file itself, for the writer
// in the index of the log. See "File Locking And Concurrency" and "WAL-mode File Format"
// in its documentation.
const (
	sqlitePending, sqliteLocks = 0x40000000, 512
	sqliteWriter               = 120
)

// lockBytes locks bytes of a file until the test ends, as another process that uses the
// store does.
func lockBytes(t *testing.T, path string, first, count int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	lock := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart, Start: first, Len: count}
	for err = syscall.EAGAIN; err == syscall.EAGAIN; { // while somebody writes
		err = syscall.FcntlFlock(file.Fd(), syscall.F_SETLK, &lock)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestSignalWhileLocked checks that the first signal ends each verb while another
// process holds a store's locks. run, which drains, ends within the grace period.
func TestSignalWhileLocked(t *testing.T) {
	const square = "../../guest-examples/square/c/square.wasm"
	dir := t.TempDir()
	st, receipt := filepath.Join(dir, "store"), filepath.Join(dir, "receipt")
	mustRun(t, "run", square, "--range-of", "0-2", "--store", st, "--progress", "none", "--receipt", receipt)
	t.Run("opening", func(t *testing.T) {
		lockBytes(t, filepath.Join(st, "store.lock"), sqlitePending, sqliteLocks)
		for _, line := range []string{
			"list", "status", "info J 1", "output J", "describe J", "redrive J", "delete J", "prune --older-than 1h", "fsck",
			"run " + square + " --range-of 0-3", "verify " + receipt + " " + square + " --range-of 0-2 --sample 1",
		} {
			t.Run(line, func(t *testing.T) {
				if code, said := signalOnceOpen(t, "store.lock", append(strings.Fields(line), "--store", st)); code != exitInterrupted || !strings.Contains(said, "interrupted") {
					t.Errorf("exit code %d: %s", code, said)
				}
			})
		}
	})
	t.Run("writing", func(t *testing.T) {
		j := startJob(t, logs+loops, "--store", st, "--grace", "10ms")
		lockBytes(t, filepath.Join(st, "store.db-shm"), sqliteWriter, 1)
		j.signal(syscall.SIGTERM)
		defer time.AfterFunc(40*time.Second, func() { j.cmd.Process.Kill() }).Stop() // less than the minute that it would wait
		j.end()
	})
}

// A command that waits for another one says so, and goes on when the other has ended.
func TestWaitingIsSaid(t *testing.T) {
	const square = "../../guest-examples/square/c/square.wasm"
	dir := t.TempDir()
	mustRun(t, "run", square, "--range-of", "0-2", "--store", dir, "--progress", "none")
	for _, line := range []string{"list", "describe J", "fsck", "run " + square + " --range-of 0-3 --progress plain"} {
		t.Run(line, func(t *testing.T) {
			lock, err := os.OpenFile(filepath.Join(dir, "store.lock"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Close()
			bytes := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart, Start: sqlitePending, Len: sqliteLocks}
			if err := syscall.FcntlFlock(lock.Fd(), syscall.F_SETLKW, &bytes); err != nil {
				t.Fatal(err)
			}
			cmd := command(append(strings.Fields(line), "--store", dir)...)
			said, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(said)
			for lines.Scan() && lines.Text() != "wasm-jobs: waiting for another command on this store" {
				t.Logf("it says %q", lines.Text()) // for ever, if it does not say that it waits
			}
			lock.Close() // releases the lock
			for lines.Scan() {
				if strings.Contains(lines.Text(), "waiting") {
					t.Errorf("it says so again: %q", lines.Text())
				}
			}
			if err := cmd.Wait(); err != nil && !strings.HasPrefix(line, "describe") {
				t.Error(err)
			}
		})
	}
}

// signalOnceOpen runs a command and sends a signal once it has a file open.
func signalOnceOpen(t *testing.T, name string, args []string) (code int, said string) {
	t.Helper()
	var out strings.Builder
	cmd := command(args...)
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // until the process ends
		_ = cmd.Wait() // its exit code says more
		close(ended)
	}()
	for !hasOpen(cmd, name) {
		select {
		case <-ended:
			t.Fatalf("it ended with exit code %d: %s", cmd.ProcessState.ExitCode(), &out)
		default:
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	<-ended
	return cmd.ProcessState.ExitCode(), out.String()
}

// hasOpen reports whether a process has a file open.
func hasOpen(cmd *exec.Cmd, name string) bool {
	dir := fmt.Sprintf("/proc/%d/fd", cmd.Process.Pid)
	entries, _ := os.ReadDir(dir) // none if it has ended
	for _, e := range entries {
		if path, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && filepath.Base(path) == name {
			return true
		}
	}
	return false
}
