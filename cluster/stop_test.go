package cluster_test

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// terms returns how many workers a test tells to stop.
func terms() int {
	switch {
	case testing.Short():
		return 3
	case *chaosJobs > 2:
		return 200
	}
	return 20
}

// stops tells worker processes of one job to stop.
type stops struct {
	children
	job            *host.Job
	log            string // file that workers write
	stopped, twice int
}

func newStops(t *testing.T, url string, j *host.Job) *stops {
	t.Setenv(workerLease, "1m") // none expires because a process waits for a processor
	log := filepath.Join(t.TempDir(), "log")
	t.Setenv(workerLog, log)
	x := &stops{children: children{t: t, url: url}, job: j, log: log}
	t.Cleanup(x.stop)
	x.start()
	x.start()
	return x
}

// next tells a worker to stop, every fourth one twice, and starts another one.
func (x *stops) next(i int) {
	signals := []os.Signal{syscall.SIGTERM}
	if x.stopped%4 == 3 {
		signals = append(signals, syscall.SIGINT) // a second SIGTERM could be one with the first
		x.twice++
	}
	x.stopped++
	if code := x.replace(i, signals...); code != 0 && code != -1 { // -1: it did not listen for signals yet
		x.t.Errorf("a worker that was told to stop ended with %d", code)
	}
}

// check stops all workers, and checks that no lease expired, that no attempt failed, and that
// no chunk was executed twice, except those that a second signal cut off.
func (x *stops) check(s *postgres.Store, id store.JobID) {
	x.t.Helper()
	for len(x.all) > 0 {
		x.end(0, syscall.SIGTERM)
	}
	at := until(x.t, s, id, "read", func(*postgres.Progress) bool { return true })
	ran := executions(x.t, x.log, x.job)
	cut := ran.all - at.Succeeded
	if int(at.Executions) != at.Succeeded || cut < 0 || cut > 2*x.twice || at.Active > 0 || at.Leases.Expired > 0 || at.Failed > 0 || at.Conflicts > 0 {
		x.t.Errorf("%d executions, %+v", ran.all, at)
	}
	attempts := 0
	if queryRow(x.t, x.url, "select count(*) from wasm_jobs.attempts", &attempts); attempts > 0 {
		x.t.Errorf("%d attempts are recorded", attempts)
	}
	x.t.Logf("%d workers were told to stop, %d of them twice, which cut off %d chunks: %+v", x.stopped, x.twice, cut, at.Leases)
	if x.stopped < terms()/2 {
		x.t.Errorf("the job ended before %d workers were told to stop", terms()/2)
	}
}

// TestTerm tells worker processes to stop, at random moments, every fourth one twice, also
// while they begin and take their first leases: each ends with 0, no lease expires, no attempt
// fails, and no chunk is executed twice, except those that a second signal cut off.
func TestTerm(t *testing.T) {
	url := pgtest.URL(t)
	s := openStore(t, url)
	j := jobOver(t, faulty, working(500*terms(), 1_000_000))
	id := submit(t, s, j)
	x := newStops(t, url, j)
	for granted := 0; x.stopped < terms(); {
		p := until(t, s, id, "another lease", func(p *postgres.Progress) bool { return int(p.Leases.Granted) > granted || cluster.Ended(p.State) })
		if granted = int(p.Leases.Granted); cluster.Ended(p.State) {
			break
		}
		x.next(0)
	}
	x.check(s, id)
}

// TestLeasedAgainAfterTerm tells worker processes to stop while another worker has nothing to
// do, because the job may have one lease at once: the other worker takes what they give back
// at once, not after the time of a lease, which is 1 min.
func TestLeasedAgainAfterTerm(t *testing.T) {
	url := pgtest.URL(t)
	s := openStore(t, url)
	j := jobOver(t, faulty, working(500*terms(), 2_000_000))
	u, err := cluster.Submit(t.Context(), j, cluster.Submission{Store: s, Priority: 127, MaxConcurrency: 1})
	if err != nil {
		t.Fatal(err)
	}
	x := newStops(t, url, j)
	for x.stopped < terms() {
		busy := 0
		p := until(t, s, u.Job, "one worker with a lease, and one without work", func(p *postgres.Progress) (is bool) {
			busy, is = twoWorkers(t, s)
			return is || cluster.Ended(p.State)
		})
		if cluster.Ended(p.State) {
			break
		}
		time.Sleep(rand.N(100 * time.Millisecond))
		x.next(slices.IndexFunc(x.all, func(c *exec.Cmd) bool { return c.Process.Pid == busy }))
	}
	x.check(s, u.Job)
	leasedAgain(t, url, x.stopped/2)
}

// twoWorkers reports whether there are two workers, of which only one has a lease, and its
// process.
func twoWorkers(t *testing.T, s *postgres.Store) (busy int, is bool) {
	all, err := s.Workers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(w postgres.WorkerState) bool { return w.State == "gone" })
	if len(all) != 2 {
		return 0, false
	}
	if all[0].Busy < all[1].Busy {
		all[0], all[1] = all[1], all[0]
	}
	return all[0].PID, all[0].Busy > 0 && all[1].Busy == 0
}

// leasedAgain checks after which time chunks that were given back were leased again, by the
// clock of the database, and that there were at least so many leases with such chunks.
func leasedAgain(t *testing.T, url string, least int) {
	t.Helper()
	var leases int
	var middle, longest float64 // seconds
	queryRow(t, url, `select count(*), coalesce(percentile_cont(0.5) within group (order by gap), 0), coalesce(max(gap), 0) from (
		select extract(epoch from min(next.time) - e.time)::float8 gap from wasm_jobs.events e join wasm_jobs.events next
			on next.kind = 'leased' and next.job = e.job and next.n > e.n and next.first <= e.last and next.last >= e.first
		where e.kind = 'lease_ended' and e.why = 'returned' group by e.n, e.time) g`, &leases, &middle, &longest)
	t.Logf("%d leases were given back with chunks that were leased again: after %.3f s in the median, and %.3f s at most; at most 1 s: %s", leases, middle, longest, verdict(longest <= 1))
	if longest > 15 { // a quarter of the time of a lease
		t.Errorf("chunks that were given back were leased again after %.1f s", longest)
	}
	if leases < least {
		t.Errorf("only %d leases were given back with chunks that were leased again, want %d", leases, least)
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
