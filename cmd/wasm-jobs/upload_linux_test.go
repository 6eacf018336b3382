package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// TestUploadAtScale kills a submitter five times while it sends chunks: at most 1.1 times their bytes
// are sent. Neither the submitter nor the worker that executes the job takes 200 MiB. With
// -scale, it is 1 GiB.
func TestUploadAtScale(t *testing.T) {
	size := 64 << 20
	if *scale {
		size = 1 << 30
	}
	url := sharedDatabase(t)
	file := filepath.Join(t.TempDir(), "chunks.cbor")
	if err := os.WriteFile(file, padded(size>>19, 1<<19), 0o644); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	stored := func() (n int64) {
		if err := conn.QueryRow(t.Context(), "select coalesce(sum(size), 0)::bigint from wasm_jobs.blobs").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	var sent, most int64
	for kills := 0; ; kills++ {
		var out bytes.Buffer
		submitter := command("submit", "--store", url, "--json", "--progress", "none", faultyWasm, file)
		submitter.Stdout = &out
		until := stored() + int64(size)/8 + rand.Int64N(int64(size)/16)
		wrote, peak := observe(t, submitter, func() bool { return kills < 5 && stored() > until })
		sent, most = sent+wrote, max(most, peak)
		if submitter.ProcessState.ExitCode() == -1 {
			continue
		}
		var made handedIn
		if err := json.Unmarshal(out.Bytes(), &made); err != nil || kills != 5 || made.Upload.Bytes+made.Upload.Skipped < int64(size) {
			t.Fatalf("after %d kills: %v, %s", kills, err, out.String())
		}
		break
	}
	_, working := observe(t, command("worker", "--store", url, "-j", "2", "--idle-timeout", "1s", "--progress", "none"), func() bool { return false })
	ratio := float64(sent) / float64(size)
	t.Logf("%d MiB, five kills: %.3f of the bytes were sent; the submitter had %d MiB at most, the worker %d MiB", size>>20, ratio, most>>20, working>>20)
	if ratio < 0.9 || ratio > 1.1 || most > 200<<20 || working > 200<<20 {
		t.Error("want at most 1.1 of the bytes, and at most 200 MiB")
	}
	var state string
	if err := conn.QueryRow(t.Context(), "select state from wasm_jobs.jobs").Scan(&state); err != nil || state != "succeeded" {
		t.Errorf("%s, %v", state, err)
	}
}

// padded returns chunks of the faulty guest with random bytes.
func padded(n, size int) (file []byte) {
	text := func(s string) { file = append(abi.AppendHead(file, abi.MajorText, uint64(len(s))), s...) }
	noise := make([]byte, size)
	for i := range n {
		file = abi.AppendHead(file, abi.MajorMap, 4)
		text("id")
		file = abi.AppendHead(file, abi.MajorUint, uint64(i))
		text("do")
		text("work")
		text("n")
		file = abi.AppendHead(file, abi.MajorUint, 1000)
		text("pad")
		for at := 0; at < size; at += 8 {
			binary.LittleEndian.PutUint64(noise[at:], rand.Uint64())
		}
		file = append(abi.AppendHead(file, abi.MajorBytes, uint64(size)), noise...)
	}
	return file
}

// observe runs a command until it ends, or kills it when kill says so, and returns the bytes
// that it wrote, also to sockets, and its peak of memory.
func observe(t *testing.T, c *exec.Cmd, kill func() bool) (wrote, peak int64) {
	t.Helper()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = c.Wait()
		close(ended)
	}()
	look := func() {
		wrote = max(wrote, procField(c.Process.Pid, "io", "wchar: "))
		peak = max(peak, procField(c.Process.Pid, "status", "VmHWM:\t")<<10)
	}
	for {
		select {
		case <-ended:
			return wrote, peak
		case <-time.After(5 * time.Millisecond):
			look()
		}
		if kill() {
			_ = c.Process.Signal(syscall.SIGSTOP)
			look()
			_ = c.Process.Kill()
		}
	}
}

// procField returns a number of a file of a process, 0 if the process has ended.
func procField(pid int, file, name string) (n int64) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	_, rest, _ := strings.Cut(string(b), name)
	_, _ = fmt.Sscan(rest, &n)
	return n
}
