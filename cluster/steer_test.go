package cluster_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// until waits until the progress of a job satisfies is.
func until(t *testing.T, s *postgres.Store, id store.JobID, what string, is func(p *postgres.Progress) bool) *postgres.Progress {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		p, err := s.Progress(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if is(&p) {
			return &p
		}
		if time.Now().After(deadline) {
			t.Fatalf("never %s: %+v", what, p)
		}
	}
}

// requests returns chunks for the faulty guest, each with its own request.
func requests(do ...string) (file []byte) {
	text := func(s string) []byte { return append(abi.AppendHead(nil, abi.MajorText, uint64(len(s))), s...) }
	for i, what := range do {
		file = append(abi.AppendHead(file, abi.MajorMap, 2), text("id")...)
		file = append(append(abi.AppendHead(file, abi.MajorUint, uint64(i)), text("do")...), text(what)...)
	}
	return file
}

// TestCancel cancels a job whose guests run without end: they are cut off, no chunk counts
// as failed, and the job continues when it is submitted again.
func TestCancel(t *testing.T) {
	url := pgtest.URL(t)
	s := openStore(t, url)
	start(t, url, 2, nil)
	j := jobOver(t, faulty, requests("loop", "heartbeat", "ok", "counter"))
	j.Settings.Timeout = time.Minute
	id := submit(t, s, j)
	until(t, s, id, "two run", func(p *postgres.Progress) bool { return p.Active == 2 })
	if state, err := s.SetState(t.Context(), id, "cancelled"); err != nil || state != "cancelled" {
		t.Fatal(state, err)
	}
	other := newJob(t, square, 50) // the slots are free again
	began := time.Now()
	got, _ := collect(t, s, submit(t, s, other))
	if got.err != "" || time.Since(began) > 20*time.Second {
		t.Errorf("%s after %s", got.err, time.Since(began))
	}
	result, p := collect(t, s, id)
	if !strings.Contains(result.err, cluster.ErrCancelled.Error()) || p.Failed > 0 || p.State != "cancelled" {
		t.Errorf("%s, %+v", result.err, p)
	}
	j.Settings.Timeout = 200 * time.Millisecond
	j.Retry = host.RetryPolicy{}
	if again := submit(t, s, j); again != id {
		t.Fatal("another job")
	}
	result, p = collect(t, s, id)
	if p.State != "incomplete" || p.Failed != 2 || p.Succeeded != 2 {
		t.Errorf("%+v, %s", p, result.err)
	}
}

// TestPause pauses a job: no lease is given out after the call. The job then continues.
func TestPause(t *testing.T) {
	url := pgtest.URL(t)
	s := openStore(t, url)
	j := jobOver(t, faulty, working(400, 300_000))
	id := submit(t, s, j)
	if _, err := s.SetState(t.Context(), id, "paused"); err != nil {
		t.Fatal(err)
	}
	start(t, url, 2, nil)
	time.Sleep(300 * time.Millisecond)
	if p := until(t, s, id, "read", func(*postgres.Progress) bool { return true }); p.Leases.Granted > 0 || cluster.WaitingFor(p) == "" {
		t.Errorf("%+v", p)
	}
	if _, err := s.SetState(t.Context(), id, "active"); err != nil {
		t.Fatal(err)
	}
	if got, _ := collect(t, s, id); got.err != "" || len(got.receipt) == 0 {
		t.Error(got.err)
	}
}

// TestStop ends workers softly in the middle of a job: they end without an error,
// others get their chunks at once, and nothing is executed twice.
func TestStop(t *testing.T) {
	url := pgtest.URL(t)
	s := openStore(t, url)
	j := jobOver(t, faulty, working(600, 300_000))
	want := local(t, j)
	id := submit(t, s, j)
	for range 5 {
		stop := start(t, url, 2, func(c *cluster.Config) { c.Lease = time.Minute })
		before := until(t, s, id, "read", func(*postgres.Progress) bool { return true }).Executions
		until(t, s, id, "further", func(p *postgres.Progress) bool { return p.Executions > before || p.State != "active" })
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if p := until(t, s, id, "read", func(*postgres.Progress) bool { return true }); p.Active > 0 || p.Leases.Expired > 0 {
			t.Fatalf("%+v", p)
		}
	}
	start(t, url, 2, nil)
	got, p := collect(t, s, id)
	equal(t, got, want)
	if p.Executions != 600 || p.Failed > 0 {
		t.Errorf("%+v", p)
	}
}

// TestContinue has a process continue a job that workers began, and workers continue a
// job that a process began.
func TestContinue(t *testing.T) {
	url := pgtest.URL(t)
	s := openStore(t, url)
	run := func(j *host.Job) (*host.Result, error) {
		c, err := host.New(t.Context(), host.Config{Workers: 2, Engine: shared, Store: s, Journal: s})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(t.Context())
		return c.Run(t.Context(), j)
	}
	j := jobOver(t, faulty, working(300, 200_000))
	want := local(t, j)
	stopped := make(chan struct{})
	j.Stop, j.Grace = stopped, time.Second
	time.AfterFunc(100*time.Millisecond, func() { close(stopped) })
	first, err := run(j)
	if !errors.Is(err, host.ErrInterrupted) {
		t.Skipf("it was over before it was stopped: %v", err)
	}
	had := first.Report.Chunks.Succeeded
	j.Stop = nil
	id := submit(t, s, j)
	stop := start(t, url, 2, nil)
	got, p := collect(t, s, id)
	equal(t, got, want)
	if p.Reused != had || int(p.Executions) > 300-had {
		t.Errorf("%d had been done, and %+v", had, p)
	}
	stop()
	again, err := run(j)
	equal(t, resultOf(t, again, err), want)
	if again.Report.Chunks.Reused != 300 {
		t.Errorf("%+v", again.Report.Chunks)
	}
}

// TestRedriveLost runs a chunk again here that failed with class lost on workers, and submits
// another job with such a chunk again: afterwards nothing is left of the failures and of the
// deaths that were counted.
func TestRedriveLost(t *testing.T) {
	for _, by := range []string{"redrive", "submit"} {
		t.Run(by, func(t *testing.T) {
			url := pgtest.URL(t)
			s := openStore(t, url)
			j := newJob(t, square, 60)
			want := local(t, j)
			id := submit(t, s, j)
			pgtest.Exec(t, url, `select wasm_jobs.lost_chunk(1, 7, 1), wasm_jobs.lost_chunk(1, 9, 1) from generate_series(1, 3)`)
			stop := start(t, url, 2, nil)
			_, p := collect(t, s, id)
			if p.State != "incomplete" || p.Failed != 2 || p.Succeeded != 58 {
				t.Fatalf("%+v", p)
			}
			if by == "submit" {
				submit(t, s, j)
			} else {
				stop()
				redrive(t, s, j, 7)
				if p := until(t, s, id, "read", func(*postgres.Progress) bool { return true }); p.State != "incomplete" || p.Failed != 1 || p.Succeeded != 59 {
					t.Errorf("%+v", p)
				}
				redrive(t, s, j, 9)
			}
			got, p := collect(t, s, id)
			equal(t, got, want)
			c, err := s.ChunkOf(t.Context(), id, 7)
			if err != nil || p.State != "succeeded" || p.Failed != 0 || p.Succeeded != 60 || c.Losses != 0 {
				t.Errorf("%v, %+v, %+v", err, p, c)
			}
		})
	}
}

// redrive runs chunks of a job again, in this process.
func redrive(t *testing.T, s *postgres.Store, j *host.Job, chunks ...int) {
	t.Helper()
	c, err := host.New(t.Context(), host.Config{Workers: 2, Engine: shared, Store: s, Journal: s})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	again := *j
	again.Redrive = &host.Redrive{Job: store.JobID(j.Spec().ID())}
	for _, chunk := range chunks {
		again.Redrive.Only.Add(j.Chunks.ID(chunk))
	}
	if r, err := c.Run(t.Context(), &again); err != nil {
		t.Errorf("%v: %+v", err, r.Report.Chunks)
	}
}

// TestSlowWorker has two workers execute a job, of which one becomes slow: the other one steals
// from it, and hardly any chunk is executed twice.
func TestSlowWorker(t *testing.T) {
	chunks := 10_000
	if *chaosJobs > 2 {
		chunks = 100_000
	}
	url := pgtest.URL(t)
	s := openStore(t, url)
	j := newJob(t, square, chunks)
	want := local(t, j)
	id := submit(t, s, j)
	for _, slowFrom := range []int64{int64(chunks), int64(chunks) / 4} {
		var executed atomic.Int64
		e := &watched{Engine: shared, exec: func([]byte) {
			took := time.Millisecond
			if executed.Add(1) > slowFrom {
				took = 100 * time.Millisecond
			}
			time.Sleep(took)
		}}
		start(t, url, 4, func(c *cluster.Config) { c.Engine, c.Lease = e, 30*time.Second })
	}
	got, p := collect(t, s, id)
	equal(t, got, want)
	again := float64(p.Executions)/float64(chunks) - 1
	t.Logf("%d chunks, %d leases stolen, %d duplicated; %.2f %% executed again, at most 0.5: %s", chunks, p.Leases.Stolen, p.Leases.Duplicated, 100*again, verdict(again <= 0.005))
	if p.Conflicts > 0 || p.Leases.Expired > 0 || again > 0.05 || *chaosJobs > 2 && (p.Leases.Stolen == 0 || again > 0.005) {
		t.Errorf("%+v", p)
	}
}
