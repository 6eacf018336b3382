package cluster_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// watched is an engine that counts the calls of a fold, and can fail or delay them.
type watched struct {
	host.Engine
	calls atomic.Int64
	fold  func(ctx context.Context, function string) error // nil = goes on
	exec  func(chunk []byte)                               // nil = nobody
}

func (e *watched) Admit(ctx context.Context, wasm []byte, o runtime.Options) (host.Module, error) {
	m, err := e.Engine.Admit(ctx, wasm, o)
	return watchedModule{m, e}, err
}

type watchedModule struct {
	host.Module
	engine *watched
}

func (m watchedModule) Prepare(ctx context.Context, s runtime.Settings) (host.Pool, error) {
	p, err := m.Module.Prepare(ctx, s)
	return watchedPool{p, m.engine}, err
}

type watchedPool struct {
	host.Pool
	engine *watched
}

func (p watchedPool) Borrow(log runtime.Log) host.Instance {
	return watchedInstance{p.Pool.Borrow(log), p.engine}
}

type watchedInstance struct {
	host.Instance
	engine *watched
}

func (i watchedInstance) Call(ctx context.Context, function string, input, dst []byte) ([]byte, uint64, error) {
	if function == abi.ExportExec && i.engine.exec != nil {
		i.engine.exec(input)
	}
	if function != abi.ExportExec {
		i.engine.calls.Add(1)
		if i.engine.fold != nil {
			if err := i.engine.fold(ctx, function); err != nil {
				return nil, 0, err
			}
		}
	}
	return i.Instance.Call(ctx, function, input, dst)
}

// TestFoldIsShared folds more than one group: several workers make the calls, each call is
// made once, and the result is that of a local run.
func TestFoldIsShared(t *testing.T) {
	url := pgtest.URL(t)
	s := openStore(t, url)
	j := newJob(t, square, 75_000) // eight groups
	want := local(t, j)
	id := submit(t, s, j)
	// Each of two workers waits with its first call for the other.
	var engines [2]*watched
	var arrived [2]chan struct{}
	for i := range engines {
		arrived[i] = make(chan struct{})
		first := atomic.Bool{}
		engines[i] = &watched{Engine: shared, fold: func(ctx context.Context, _ string) error {
			if !first.Swap(true) {
				close(arrived[i])
			}
			select {
			case <-arrived[1-i]:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		start(t, url, 1, func(c *cluster.Config) { c.Engine = engines[i] })
	}
	got, p := collect(t, s, id)
	equal(t, got, want)
	if calls := engines[0].calls.Load() + engines[1].calls.Load(); calls != 9 || p.Conflicts > 0 {
		t.Errorf("%d calls, want 8 of aggregate and 1 of merge; %+v", calls, p)
	}
}

// TestFoldGoesOn deletes outputs and damages results in the middle of a fold: the job ends
// with the same result.
func TestFoldGoesOn(t *testing.T) {
	for name, sql := range map[string]string{
		"packs are gone":             "delete from wasm_jobs.packs where job is not null and first > 20000",
		"a pack is damaged":          "update wasm_jobs.packs set data = set_byte(data, 3, 255 # get_byte(data, 3)) where job is not null and first + count > 20000",
		"calls are gone":             "delete from wasm_jobs.folds where n % 2 = 1",
		"results are damaged":        "update wasm_jobs.folds set output = '\\x00' where output is not null",
		"leases are gone":            "delete from wasm_jobs.slots; delete from wasm_jobs.pending",
		"the workers are not known":  "delete from wasm_jobs.workers",
		"calls are not as they were": "update wasm_jobs.folds set level = 3 where n = 1",
	} {
		t.Run(name, func(t *testing.T) {
			url := pgtest.URL(t)
			s := openStore(t, url)
			j := newJob(t, square, 35_000)
			want := local(t, j)
			id := submit(t, s, j)
			done, once := atomic.Bool{}, sync.Once{}
			e := &watched{Engine: shared}
			e.fold = func(context.Context, string) error {
				if e.calls.Load() >= 2 {
					once.Do(func() { // the other worker waits for it
						pgtest.Exec(t, url, sql)
						done.Store(true)
					})
				}
				return nil
			}
			for range 2 {
				start(t, url, 1, func(c *cluster.Config) { c.Engine = e })
			}
			got, p := collect(t, s, id)
			equal(t, got, want)
			if p.Conflicts > 0 || !done.Load() {
				t.Errorf("%+v", p)
			}
		})
	}
}

// TestFoldFails fails calls of a fold: the job is broken, with the message of a local run.
func TestFoldFails(t *testing.T) {
	for _, function := range []string{abi.ExportAggregate, abi.ExportMerge} {
		url := pgtest.URL(t)
		s := openStore(t, url)
		j := newJob(t, square, 25_000)
		id := submit(t, s, j)
		e := &watched{Engine: shared, fold: func(_ context.Context, called string) error {
			if called == function {
				return abi.Failf(abi.ClassGuest, "no\nmore")
			}
			return nil
		}}
		start(t, url, 2, func(c *cluster.Config) { c.Engine = e })
		got, p := collect(t, s, id)
		if p.State != "broken" || p.BrokenBy != "fold" || !strings.HasPrefix(got.err, function+" failed: ") || !strings.HasSuffix(got.err, "no more") {
			t.Errorf("%s: %s by %s: %q", function, p.State, p.BrokenBy, got.err)
		}
	}
}

// TestFoldKillsItsWorker has calls of a fold that kill their worker: the job is broken after at
// most four deaths. If it is submitted again, deaths are counted from zero; a run in this
// process ends it too.
func TestFoldKillsItsWorker(t *testing.T) {
	for function, n := range map[string]int{abi.ExportAggregate: 100, abi.ExportMerge: 25_000} {
		t.Run(function, func(t *testing.T) {
			url := pgtest.URL(t)
			s := openStore(t, url)
			j := newJob(t, square, n)
			id := submit(t, s, j)
			c := &children{t: t, url: url, env: []string{workerDies + "=" + function}}
			deaths := 0
			for c.dies(s, id) {
				if deaths++; deaths == 10 {
					t.Fatal("10 deaths, and the job goes on")
				}
			}
			got, p := collect(t, s, id)
			want := function + " failed: lost: 3 workers died or vanished while they made this call"
			if p.State != "broken" || p.BrokenBy != "fold" || got.err != want || deaths < 3 || deaths > 4 {
				t.Errorf("%d deaths, %s by %s: %q", deaths, p.State, p.BrokenBy, got.err)
			}
			if function == abi.ExportMerge {
				redrive(t, s, j)
			} else {
				submit(t, s, j)
				if !c.dies(s, id) {
					t.Error("the job that was submitted again ended at once")
				}
				start(t, url, 1, nil)
			}
			got, p = collect(t, s, id)
			equal(t, got, local(t, j))
			if p.State != "succeeded" || p.BrokenBy != "" {
				t.Errorf("again: %s by %q", p.State, p.BrokenBy)
			}
		})
	}
}

// TestFoldLosesItsWorker kills the worker that has leased several calls of a fold: another
// one makes them.
func TestFoldLosesItsWorker(t *testing.T) {
	url := pgtest.URL(t)
	s := openStore(t, url)
	j := newJob(t, square, 75_000) // eight groups, of which one slot leases four
	want := local(t, j)
	id := submit(t, s, j)
	c := &children{t: t, url: url, env: []string{workerDies + "=" + abi.ExportAggregate}}
	c.start()
	c.end(0) // by its first call
	calls := 0
	if queryRow(t, url, "select last - done from wasm_jobs.slots where kind = 2 and job is not null", &calls); calls < 2 {
		t.Fatalf("a lease of %d calls", calls)
	}
	start(t, url, 1, nil)
	got, p := collect(t, s, id)
	equal(t, got, want)
	if p.Conflicts > 0 {
		t.Errorf("%+v", p)
	}
}

// dies starts a worker, and waits until it dies or the job ends, which is false.
func (c *children) dies(s *postgres.Store, id store.JobID) (died bool) {
	c.t.Helper()
	c.start()
	child, ended := c.all[0], make(chan struct{})
	c.all = nil // it is waited for here
	go func() {
		_ = child.Wait()
		close(ended)
	}()
	defer func() {
		_ = child.Process.Kill() // the job may have ended before it
		<-ended
	}()
	over := false
	until(c.t, s, id, "a death or the end of the job", func(p *postgres.Progress) bool {
		over = cluster.Ended(p.State)
		select {
		case <-ended:
			return true
		default:
			return over
		}
	})
	return !over
}
