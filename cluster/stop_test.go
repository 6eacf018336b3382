package cluster_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// TestTerm tells worker processes to stop, at random moments: each ends with 0, no lease
// expires, no attempt fails, and no chunk is executed twice.
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
	total := 500 * terms
	j := jobOver(t, faulty, working(total, 1_000_000))
	id := submit(t, s, j)
	c := &children{t: t, url: url}
	defer c.stop()
	c.start()
	c.start()
	granted, cut := 0, 0
	for ; cut < terms; cut++ {
		p := until(t, s, id, "another lease", func(p *postgres.Progress) bool { return int(p.Leases.Granted) > granted || cluster.Ended(p.State) })
		if granted = int(p.Leases.Granted); cluster.Ended(p.State) {
			break
		}
		if code := c.replace(0, syscall.SIGTERM); code != 0 && code != -1 { // -1: it did not listen for signals yet
			t.Errorf("a worker that was told to stop ended with %d", code)
		}
	}
	got, p := collect(t, s, id)
	twice := p.Executions != int64(total) && p.Leases.Stolen == 0 // a chunk that runs while it is stolen is executed twice
	if got.err != "" || twice || p.Leases.Expired > 0 || p.Failed > 0 || p.Conflicts > 0 {
		t.Errorf("%s, %+v", got.err, p)
	}
	if t.Logf("%d workers were told to stop: %+v", cut, p.Leases); cut < terms/2 {
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
