package cluster_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// TestTerm tells worker processes to stop, at random moments, every fourth one twice: each
// ends with 0, no lease expires, no attempt fails, and no chunk is executed twice, except
// those that a second signal cut off.
func TestTerm(t *testing.T) {
	terms := 20
	if *chaosJobs > 2 {
		terms = 200
	}
	if testing.Short() {
		terms = 3
	}
	url := pgtest.URL(t)
	s := openStore(t, url)
	t.Setenv(workerLease, "1m") // none expires because a process waits for a processor
	log := filepath.Join(t.TempDir(), "log")
	t.Setenv(workerLog, log)
	j := jobOver(t, faulty, working(500*terms, 1_000_000))
	id := submit(t, s, j)
	c := &children{t: t, url: url}
	defer c.stop()
	c.start()
	c.start()
	granted, stopped, twice := 0, 0, 0
	for ; stopped < terms; stopped++ {
		p := until(t, s, id, "another lease", func(p *postgres.Progress) bool { return int(p.Leases.Granted) > granted || cluster.Ended(p.State) })
		if granted = int(p.Leases.Granted); cluster.Ended(p.State) {
			break
		}
		signals := []os.Signal{syscall.SIGTERM}
		if stopped%4 == 3 {
			signals = append(signals, syscall.SIGINT) // a second SIGTERM could be one with the first
			twice++
		}
		if code := c.replace(0, signals...); code != 0 && code != -1 { // -1: it did not listen for signals yet
			t.Errorf("a worker that was told to stop ended with %d", code)
		}
	}
	for len(c.all) > 0 {
		c.end(0, syscall.SIGTERM)
	}
	p := until(t, s, id, "read", func(*postgres.Progress) bool { return true })
	x := executions(t, log, j)
	cut := x.all - p.Succeeded
	if int(p.Executions) != p.Succeeded || cut < 0 || cut > 2*twice || p.Active > 0 || p.Leases.Expired > 0 || p.Failed > 0 || p.Conflicts > 0 {
		t.Errorf("%d executions, %+v", x.all, p)
	}
	attempts := 0
	if queryRow(t, url, "select count(*) from wasm_jobs.attempts", &attempts); attempts > 0 {
		t.Errorf("%d attempts are recorded", attempts)
	}
	t.Logf("%d workers were told to stop, %d of them twice, which cut off %d chunks: %+v", stopped, twice, cut, p.Leases)
	if stopped < terms/2 {
		t.Errorf("the job ended before %d workers were told to stop", terms/2)
	}
}

// TestHostileNeighbour runs a job whose guests loop, grow, overflow the stack and ignore
// heartbeats on the slots of a worker that serves another job: the other job has its usual
// result, and the worker lives on.
func TestHostileNeighbour(t *testing.T) {
	url := pgtest.URL(t)
	s := openStore(t, url)
	bad := jobOver(t, faulty, requests("loop", "grow", "heartbeat", "stack", "calls", "badptr", "wrap", "loop", "grown", "oob", "malformed", "exit"))
	bad.Settings.Timeout, bad.Retry = 300*time.Millisecond, host.RetryPolicy{}
	good := newJob(t, square, 3000)
	want := local(t, good)
	ids := []store.JobID{submit(t, s, bad), submit(t, s, good)}
	stop := start(t, url, 2, nil)
	got, _ := collect(t, s, ids[1])
	equal(t, got, want)
	_, p := collect(t, s, ids[0])
	if p.State != "incomplete" || p.Failed < 10 || p.Leases.Expired > 0 {
		t.Errorf("%+v", p)
	}
	again := newJob(t, square, 10)
	after, _ := collect(t, s, submit(t, s, again))
	equal(t, after, local(t, again))
	if err := stop(); err != nil {
		t.Error(err)
	}
}
