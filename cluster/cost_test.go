package cluster_test

import (
	"bytes"
	"flag"
	"fmt"
	"math"
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
	began   func(url, job string) // nil = nobody; called before a worker executes a job
}

// newBench builds the command.
func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir()}
	b.command = filepath.Join(b.dir, "wasm-jobs")
	if out, err := exec.Command("go", "build", "-tags", "urfave_cli_no_docs", "-o", b.command, "../cmd/wasm-jobs").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return b
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

// priced is a job whose cost is measured, with the limits of what it costs on a shared store.
type priced struct {
	name   string
	module string
	file   string // in the folder of the command
	lease  int    // chunks; 0 = as many as a worker wants
	least  float64
	behind float64 // the most that it may be behind the durable local store; 0 = no limit
}

// price is the processor time of one run on a shared store.
type price struct {
	submit, worker, wait, server time.Duration
	leases                       int
	busy                         time.Duration // of the worker's slots
}

func (p *price) sum() time.Duration { return p.submit + p.worker + p.wait + p.server }

// shared submits a job, has one worker with two slots execute it, and waits for it.
func (b *bench) shared(server *pgtest.Server, job *priced) (p price) {
	url := server.Database(b.t)
	b.run("migrate", "--store", url)
	if job.lease > 0 {
		pgtest.Exec(b.t, url, fmt.Sprintf(`do $do$ declare old text := pg_get_functiondef('wasm_jobs.grant_lease'::regproc); new text; begin
			new := regexp_replace(old, 'want := greatest\(1, least\(want, 16384[^;]*;', 'want := %d;');
			if new = old then raise exception 'the size of leases was not found'; end if;
			execute new;
		end $do$`, job.lease))
	}
	before := server.CPU()
	var id string
	id, p.submit = b.run("submit", "--progress", "none", "--store", url, job.module, job.file)
	if b.began != nil {
		b.began(url, id)
	}
	_, p.worker = b.run("worker", "--progress", "none", "--store", url, "-j", "2", "--idle-timeout", "100ms")
	_, p.wait = b.run("wait", "--progress", "none", "--store", url, "-o", "out", id)
	p.server = server.CPU() - before
	var seconds float64
	queryRow(b.t, url, "select (select count(*) from wasm_jobs.events where kind = 'leased'), sum(seconds) from wasm_jobs.workers", &p.leases, &seconds)
	p.busy = time.Duration(seconds * float64(time.Second))
	return p
}

// TestCost compares the processor time of jobs on a shared store, including the server,
// with the processor time of a run in memory and of a run on a durable local store.
func TestCost(t *testing.T) {
	if *costRounds == 0 {
		t.Skip("make bench-cluster runs it")
	}
	b := newBench(t)
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	var small []byte
	for i := range 500_000 {
		small = abi.AppendHead(small, abi.MajorUint, uint64(i))
	}
	b.write("small", small)
	server := pgtest.Start(t, true)
	b.compare(server, &priced{name: "no-op chunks, default leases", module: filepath.Join(root, square), file: "small", least: 0.45})
	work := filepath.Join(root, faulty)
	each := b.each(work)
	t.Logf("a chunk of work takes %.3f ms of CPU", each.Seconds()*1000)
	for _, of := range []struct {
		length        time.Duration
		lane          int // leases of each of the 64 lanes, which no lease passes the end of
		least, behind float64
	}{{56 * time.Millisecond, 4, 0.85, 0.08}, {time.Second, 1, 0.95, 0}} {
		lease := max(1, int(math.Round(of.length.Seconds()/each.Seconds())))
		b.write("work", working(64*of.lane*lease, workLength))
		b.compare(server, &priced{fmt.Sprint("leases of ", of.length), work, "work", lease, of.least, of.behind})
	}
}

// workLength makes a chunk of work that takes about 0.56 ms.
const workLength = 1_000_000

func (b *bench) write(name string, file []byte) {
	if err := os.WriteFile(filepath.Join(b.dir, name), file, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// each returns the processor time that a chunk of work takes.
func (b *bench) each(module string) time.Duration {
	b.write("one", working(1, workLength))
	b.write("work", working(3001, workLength))
	var times []float64
	for range 5 {
		_, one := b.run("run", "--progress", "none", "--no-store", "-j", "2", "-o", "out", module, "one")
		_, all := b.run("run", "--progress", "none", "--no-store", "-j", "2", "-o", "out", module, "work")
		times = append(times, (all-one).Seconds()/3000)
	}
	return time.Duration(median(times) * float64(time.Second))
}

// compare logs the medians of rounds, in which the runs of a job take turns.
func (b *bench) compare(server *pgtest.Server, job *priced) {
	var memory, durable, shared, submit, worker, wait, database, lengths, leases []float64
	for round := range *costRounds {
		run := func(store ...string) time.Duration {
			args := append([]string{"run", "--progress", "none", "-j", "2", "-o", "out"}, store...)
			_, took := b.run(append(args, job.module, job.file)...)
			return took
		}
		m, d := run("--no-store"), run("--store", b.t.TempDir())
		p := b.shared(server, job)
		memory, durable, shared = append(memory, m.Seconds()), append(durable, m.Seconds()/d.Seconds()), append(shared, m.Seconds()/p.sum().Seconds())
		submit, worker, wait = append(submit, p.submit.Seconds()), append(worker, p.worker.Seconds()), append(wait, p.wait.Seconds())
		database = append(database, p.server.Seconds())
		b.t.Logf("%s, round %d: in memory %.2f s; durable %.2f; shared %.2f", job.name, round+1, m.Seconds(), m.Seconds()/d.Seconds(), m.Seconds()/p.sum().Seconds())
		lengths, leases = append(lengths, p.busy.Seconds()/float64(p.leases)*1000), append(leases, float64(p.leases))
	}
	ratio, local := median(shared), median(durable)
	limits := fmt.Sprintf("at least %.2f: %s", job.least, verdict(ratio >= job.least))
	if job.behind > 0 {
		limits += fmt.Sprintf("; %.2f behind durable, at most %.2f: %s", local-ratio, job.behind, verdict(local-ratio <= job.behind))
	}
	b.t.Logf("%s (%.0f leases, %.1f ms of the worker's time each, %.1f of CPU in memory): in memory %.2f s of CPU = 1; durable %.2f; shared %.2f (quartiles %.2f to %.2f), %s (submit %.2f s, worker %.2f s, wait %.2f s, server %.2f s)", job.name,
		median(leases), median(lengths), median(memory)/median(leases)*1000, median(memory), local, ratio, shared[len(shared)/4], shared[3*len(shared)/4], limits,
		median(submit), median(worker), median(wait), median(database))
}

func verdict(holds bool) string {
	if holds {
		return "holds"
	}
	return "falls short"
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}
