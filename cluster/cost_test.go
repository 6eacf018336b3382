package cluster_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

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

// priced is a job whose cost is measured.
type priced struct {
	name         string
	module, file string
	lease        int // chunks; 0 = as many as a worker wants
}

// price is the processor time of one run on a shared store.
type price struct {
	submit, worker, wait, server time.Duration
	leases                       int
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
	_, p.worker = b.run("worker", "--progress", "none", "--store", url, "-j", "2", "--idle-timeout", "100ms")
	_, p.wait = b.run("wait", "--progress", "none", "--store", url, "-o", "out", id)
	p.server = server.CPU() - before
	p.leases = count(b.t, url, "select count(*) from wasm_jobs.events where kind = 'leased'")
	return p
}

func count(t *testing.T, url, sql string) (n int) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.WithoutCancel(t.Context()))
	if err := c.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
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
	// A chunk of "work" takes about 0.56 ms.
	for name, file := range map[string][]byte{"small": small, "work": working(4000, 1_000_000), "long": working(18_000, 1_000_000)} {
		if err := os.WriteFile(filepath.Join(b.dir, name), file, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	server := pgtest.Start(t, true)
	for _, job := range []priced{
		{"no-op chunks, default leases", filepath.Join(root, square), "small", 0},
		{"leases of 35 ms (one of 64 lanes)", filepath.Join(root, faulty), "work", 100},
		{"leases of 0.16 s (one of 64 lanes)", filepath.Join(root, faulty), "long", 1800},
	} {
		b.compare(server, &job)
	}
}

// compare logs the medians of rounds, in which the runs of a job take turns.
func (b *bench) compare(server *pgtest.Server, job *priced) {
	var memory, durable, shared, submit, worker, wait, database []float64
	leases := 0
	for range *costRounds {
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
		leases = p.leases
	}
	b.t.Logf("%s: in memory %.2f s of CPU = 1; durable %.2f; shared %.2f (submit %.2f s, worker %.2f s, wait %.2f s, server %.2f s; %d leases)", job.name,
		median(memory), median(durable), median(shared), median(submit), median(worker), median(wait), median(database), leases)
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}
