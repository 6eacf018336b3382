//go:build unix

package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host"
)

var (
	scale       = flag.Bool("scale", false, "run jobs of very many chunks")
	scaleChunks = flag.Int("scale-chunks", 1_000_000, "how many chunks TestScale has")
)

const scaleLimit = 300 << 20 // bytes of peak memory

// TestScale streams a million chunks, as an array and as a sequence, without a
// store and with a durable one, and asks for the same job again.
func TestScale(t *testing.T) {
	if !*scale {
		t.Skip("a million chunks take a while: make scale")
	}
	body := make([]byte, 0, 5**scaleChunks)
	for i := range uint32(*scaleChunks) {
		body = binary.BigEndian.AppendUint32(append(body, 0x1a), 100_000+i)
	}
	head := binary.BigEndian.AppendUint32([]byte{0x9a}, uint32(*scaleChunks))
	dir := t.TempDir()
	array, sequence := filepath.Join(dir, "array"), filepath.Join(dir, "sequence")
	if err := errors.Join(os.WriteFile(array, append(head, body...), 0o600), os.WriteFile(sequence, body, 0o600)); err != nil {
		t.Fatal(err)
	}
	memory := scaleRun(t, "as an array, --no-store", array, "--no-store")
	scaleRun(t, "as a sequence, --no-store", sequence, "--no-store")
	durable := scaleRun(t, "durable", sequence, "--store", filepath.Join(dir, "store"))
	again := scaleRun(t, "again", sequence, "--store", filepath.Join(dir, "store"))
	t.Logf("durable takes %.2f times as long as --no-store; again %.3f of the first run", durable.Seconds()/memory.Seconds(), again.Seconds()/durable.Seconds())
}

// TestScaleSample verifies one percent of a job of very many chunks. As far as
// execution goes, that is to cost less than three percent of all of it: by the
// calls of the guest, which are counted, exactly one. How long it takes is logged.
func TestScaleSample(t *testing.T) {
	if !*scale {
		t.Skip("a million chunks take a while: make scale")
	}
	var body []byte
	for i := range uint32(*scaleChunks) { // each counts to some thousands
		body = append(body, "\xa2\x62do\x64work\x61n\x1a"...)
		body = binary.BigEndian.AppendUint32(body, 5_000+i%1000)
	}
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(path("chunks"), body, 0o600); err != nil {
		t.Fatal(err)
	}
	const module = "../../guest-examples/faulty/c/faulty.wasm"
	run := func(args ...string) (out []byte, cpu time.Duration) {
		t.Helper()
		cmd := exec.Command("../../build/wasm-jobs", args...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v, %s", args, err, out)
		}
		return out, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	_, whole := run("run", module, path("chunks"), "--no-store", "--receipt", path("receipt"), "--outputs", path("outputs"), "--report", path("report"), "-o", path("o"))
	out, sampled := run("verify", path("receipt"), module, path("chunks"), "--sample", "1%", "--outputs", path("outputs"), "--json")
	var report struct{ Phases host.Phases }
	var found verification
	b, err := os.ReadFile(path("report"))
	if err := errors.Join(err, json.Unmarshal(b, &report), json.Unmarshal(out, &found)); err != nil {
		t.Fatal(err)
	}
	if want := (*scaleChunks + 99) / 100; !found.Holds || found.Executed != want || found.Proved != want {
		t.Errorf("executed %d, proved %d, expected %d: %s", found.Executed, found.Proved, want, out)
	}
	t.Logf("run: scan %.2f s, execute %.2f s, %v of CPU; verify --sample 1%%: scan %.2f s, execute %.2f s (%.1f %%), compare %.2f s, %v of CPU (%.1f %%)",
		report.Phases.Scan, report.Phases.Execute, whole.Round(10*time.Millisecond), found.Seconds.Scan, found.Seconds.Execute,
		100*found.Seconds.Execute/report.Phases.Execute, found.Seconds.Compare, sampled.Round(10*time.Millisecond), 100*sampled.Seconds()/whole.Seconds())
}

// scaleRun runs the job, whose result is the number of its chunks. Where
// outputs stay in memory, that may take as much as there are.
func scaleRun(t *testing.T, name, path string, flags ...string) time.Duration {
	t.Helper()
	args := append([]string{"run", "../../testdata/wasm/echo-merge.wasm", path}, flags...)
	cmd := exec.Command("../../build/wasm-jobs", args...)
	cmd.Stderr = os.Stderr
	start := time.Now()
	out, err := cmd.Output()
	took := time.Since(start)
	if err != nil || string(out) != fmt.Sprintln(*scaleChunks) {
		t.Fatalf("%s: %s, %v", name, out, err)
	}
	peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
	if runtime.GOOS == "linux" {
		peak <<= 10 // in KiB there
	}
	t.Logf("%s: peak memory %d MiB, %v of wall time, %v of CPU", name, peak>>20, took.Round(10*time.Millisecond),
		(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Round(10*time.Millisecond))
	if peak > scaleLimit && (flags[0] == "--store" || *scaleChunks <= 1_000_000) {
		t.Errorf("%s: peak memory is above %d MiB", name, scaleLimit>>20)
	}
	return took
}
