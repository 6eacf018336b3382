//go:build unix

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
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

// TestScaleSample verifies one percent of jobs with very many chunks: cheap ones, with
// the outputs in a file and in a store, and expensive ones. It checks that exactly one
// percent of the guest's calls is made. It logs the share of the whole run's time, and
// the fixed cost of each chunk.
func TestScaleSample(t *testing.T) {
	if !*scale {
		t.Skip("a million chunks take a while: make scale")
	}
	dir := t.TempDir()
	cheap, expensive := newSampled(t, dir, "cheap", 5_000), newSampled(t, dir, "expensive", 75_000)
	stored := *cheap
	stored.name, stored.from = "cheap, of a store", []string{"--store", filepath.Join(dir, "store")}
	stored.run(t, stored.from...)
	cheap.run(t, "--no-store", "--outputs", cheap.from[1])
	expensive.run(t, "--no-store", "--outputs", expensive.from[1])
	stored.whole = cheap.whole // compare with a run without a store
	all := []*sampled{cheap, expensive, &stored}
	for range 5 { // interleaved, so that other load affects all of them equally
		for _, s := range all {
			s.verify(t)
		}
	}
	for _, s := range all {
		s.log(t)
	}
}

// sampled is a job of which samples are verified.
type sampled struct {
	name, chunks, receipt string
	from                  []string // flags that name its outputs
	whole                 cost     // of the job
	samples               []cost   // of verify --sample 1%
}

// cost is the cost of a run of the command.
type cost struct{ wall, cpu time.Duration }

func costOf(t *testing.T, args ...string) (out []byte, c cost) {
	t.Helper()
	cmd := exec.Command("../../build/wasm-jobs", args...)
	cmd.Stderr = os.Stderr
	start := time.Now()
	out, err := cmd.Output()
	c.wall = time.Since(start)
	if err != nil {
		t.Fatalf("%v: %v, %s", args, err, out)
	}
	c.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return out, c
}

const sampledModule = "../../guest-examples/faulty/c/faulty.wasm"

// newSampled writes chunks, all different, that count to n or slightly more.
func newSampled(t *testing.T, dir, name string, n uint32) *sampled {
	t.Helper()
	var body []byte
	for i := range uint32(*scaleChunks) {
		body = binary.BigEndian.AppendUint32(append(body, "\xa3\x62do\x64work\x61i\x1a"...), i)
		body = binary.BigEndian.AppendUint32(append(body, "\x61n\x1a"...), n+i%1000)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, body, 0o600); err != nil {
		t.Fatal(err)
	}
	return &sampled{name: name, chunks: path, receipt: path + ".receipt", from: []string{"--outputs", path + ".outputs"}}
}

func (s *sampled) run(t *testing.T, flags ...string) {
	t.Helper()
	_, s.whole = costOf(t, append([]string{"run", sampledModule, s.chunks, "--receipt", s.receipt, "-o", s.chunks + ".aggregate"}, flags...)...)
}

func (s *sampled) verify(t *testing.T) {
	t.Helper()
	out, c := costOf(t, append([]string{"verify", s.receipt, sampledModule, s.chunks, "--sample", "1%", "--json"}, s.from...)...)
	s.samples = append(s.samples, c)
	var found verification
	if err := json.Unmarshal(out, &found); err != nil {
		t.Fatal(err)
	}
	if want := (*scaleChunks + 99) / 100; !found.Holds || found.Executed != want || found.Proved != want {
		t.Errorf("%s: executed %d, proved %d, expected %d: %s", s.name, found.Executed, found.Proved, want, out)
	}
}

// log prints medians. verify takes one percent of the run, and a fixed time for each
// chunk of the job. It therefore takes three percent of a run if the fixed time is two
// percent of a chunk's time.
func (s *sampled) log(t *testing.T) {
	of := func(part func(cost) time.Duration) string {
		var all []time.Duration
		for _, c := range s.samples {
			all = append(all, part(c))
		}
		slices.Sort(all)
		median, whole := all[len(all)/2], part(s.whole)
		each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 / float64(*scaleChunks) }
		fixed := each(median - whole/100)
		return fmt.Sprintf("%.2f s of %.1f s, %.2f %%: a chunk takes %.1f µs, the fixed part of one is %.2f µs, 3 %% from %.0f µs on",
			median.Seconds(), whole.Seconds(), 100*median.Seconds()/whole.Seconds(), each(whole), fixed, 50*fixed)
	}
	t.Logf("verify --sample 1%%, %s:\nwall time %s\nCPU       %s", s.name,
		of(func(c cost) time.Duration { return c.wall }), of(func(c cost) time.Duration { return c.cpu }))
}

// scaleRun runs the job, whose result is the number of its chunks. With more than a
// million chunks, memory has no limit if outputs stay in memory.
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

// TestManyFailures runs chunks that all trap, and as many that succeed. It checks that
// memory and report of the failures are bounded. With -scale there are 100,000 chunks.
func TestManyFailures(t *testing.T) {
	if runtime.GOOS != "linux" || raceDetector {
		t.Skip("the peak of memory is that of Linux, without the race detector")
	}
	n := 20_000
	if *scale {
		n = 100_000
	}
	const most, largest, whole = 64 << 20, 16 << 20, 1 << 20 // for 100,000; whole is for the texts of the first
	succeeding, _ := peakOf(t, n, "\x01", 0)
	failing, report := peakOf(t, n, trap, exitFailed)
	t.Logf("%d chunks: %d MiB more than if they succeed, a report of %d KiB", n, (failing-succeeding)>>20, report>>10)
	if failing-succeeding > most || report > min(largest, whole+largest*int64(n)/100_000) {
		t.Errorf("%d failures take %d bytes of memory, and a report of %d bytes", n, failing-succeeding, report)
	}
}

// peakOf runs n chunks, and returns the peak of memory and the size of the report.
func peakOf(t *testing.T, n int, chunk string, code int) (peak, report int64) {
	t.Helper()
	dir := t.TempDir()
	path, reportPath := filepath.Join(dir, "chunks"), filepath.Join(dir, "report")
	if err := os.WriteFile(path, bytes.Repeat([]byte(chunk), n), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command("run", faultyModule, path, "--no-store", "--progress", "none", "--retries", "0", "--report", reportPath, "-o", filepath.Join(dir, "result"))
	_ = cmd.Run() // its exit code says more
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("exit code %d, want %d", got, code)
	}
	stat, err := os.Stat(reportPath)
	if err != nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10, stat.Size()
}
