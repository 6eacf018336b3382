package cluster_test

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

var costRounds = flag.Int("rounds", 0, "rounds of TestCost; 0 = skip it")

// bench runs the command in its own folder, and sums the processor time.
type bench struct {
	t       *testing.T
	dir     string
	command string
}

func (b *bench) run(args ...string) (string, time.Duration) {
	b.t.Helper()
	cmd := exec.Command(b.command, args...)
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+b.dir)
	var out, diagnostics bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diagnostics
	if err := cmd.Run(); err != nil {
		b.t.Fatalf("%v: %v: %s", args, err, diagnostics.String())
	}
	return strings.TrimSpace(out.String()), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// shared submits a job, has one worker with two slots execute it, and waits for it.
func (b *bench) shared(server *pgtest.Server, job []string) (sum, worker, database time.Duration) {
	url := server.Database(b.t)
	before := server.CPU()
	id, submit := b.run(append([]string{"submit", "--progress", "none", "--store", url}, job...)...)
	_, worker = b.run("worker", "--progress", "none", "--store", url, "-j", "2", "--idle-timeout", "100ms")
	_, wait := b.run("wait", "--progress", "none", "--store", url, "-o", "out", id)
	database = server.CPU() - before
	return submit + worker + wait + database, worker, database
}

// TestCost compares the processor time of jobs on a shared store, including the server,
// with the processor time of a run in memory and of a run on a durable local store.
func TestCost(t *testing.T) {
	if *costRounds == 0 {
		t.Skip("make bench-cluster runs it")
	}
	b := &bench{t: t, dir: t.TempDir()}
	b.command = filepath.Join(b.dir, "wasm-jobs")
	if out, err := exec.Command("go", "build", "-tags", "urfave_cli_no_docs", "-o", b.command, "../cmd/wasm-jobs").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	var small []byte
	for i := range 500_000 {
		small = abi.AppendHead(small, abi.MajorUint, uint64(i))
	}
	for name, file := range map[string][]byte{"small": small, "work": working(4000, 1_000_000)} {
		if err := os.WriteFile(filepath.Join(b.dir, name), file, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	server := pgtest.Start(t, true)
	for _, job := range [][]string{
		{filepath.Join(root, faulty), "work"},
		{filepath.Join(root, square), "small"},
	} {
		var memory, durable, shared, worker, database []float64
		for range *costRounds {
			_, m := b.run(append([]string{"run", "--progress", "none", "--no-store", "-j", "2", "-o", "out"}, job...)...)
			_, d := b.run(append([]string{"run", "--progress", "none", "--store", t.TempDir(), "-j", "2", "-o", "out"}, job...)...)
			s, w, db := b.shared(server, job)
			memory, durable, shared = append(memory, m.Seconds()), append(durable, d.Seconds()), append(shared, s.Seconds())
			worker, database = append(worker, w.Seconds()), append(database, db.Seconds())
		}
		t.Logf("%s %s: in memory %.2f s of CPU = 1; durable %.2f; shared %.2f (worker %.2f s, server %.2f s)", filepath.Base(job[0]), job[1],
			median(memory), median(memory)/median(durable), median(memory)/median(shared), median(worker), median(database))
	}
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}
