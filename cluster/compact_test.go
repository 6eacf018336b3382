package cluster_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// TestCompact executes a job while each heartbeat writes the tables of leases again: the result
// is that of a local run, no lease is lost, and no chunk is executed twice unless a lease on it
// was stolen or duplicated.
func TestCompact(t *testing.T) {
	url := pgtest.URL(t)
	s := openStore(t, url)
	pgtest.Exec(t, url, `do $do$ declare old text := pg_get_functiondef('wasm_jobs.compact'::regproc); new text; begin
		new := replace(replace(old, '1048576', '0'), '2048', '0');
		if length(new) <> length(old) - 9 then raise exception 'the limits of compact were not found'; end if;
		execute new;
	end $do$`)
	j := newJob(t, square, 5000)
	want := local(t, j)
	id := submit(t, s, j)
	files := "select string_agg(pg_relation_filepath('wasm_jobs.' || n), ' ') from unnest('{workers,slots,pending}'::text[]) n"
	var before, after string
	queryRow(t, url, files, &before)
	stop := heart(t, s)
	var mu sync.Mutex
	executed := map[string]int{}
	for range 2 {
		e := &watched{Engine: shared, exec: func(chunk []byte) {
			mu.Lock()
			defer mu.Unlock()
			executed[string(chunk)]++
		}}
		start(t, url, 2, func(c *cluster.Config) { c.Engine, c.Lease = e, 30*time.Second })
	}
	got, p := collect(t, s, id)
	stop()
	equal(t, got, want)
	again := 0
	for _, n := range executed {
		again += n - 1
	}
	if queryRow(t, url, files, &after); before == after {
		t.Error("the tables were never written again")
	}
	if p.Leases.Expired > 0 || p.Conflicts > 0 || p.Mended > 0 || again > 0 && p.Leases.Stolen+p.Leases.Duplicated == 0 || len(executed) != p.Total {
		t.Errorf("%d chunks were executed, %d again; %+v", len(executed), again, p)
	}
	t.Logf("%d executions again, %d leases stolen, %d duplicated", again, p.Leases.Stolen, p.Leases.Duplicated)
}

// heart has the heart of another worker beat all the time, until stop is called.
func heart(t *testing.T, s *postgres.Store) (stop func()) {
	t.Helper()
	w, err := s.Register(t.Context(), postgres.WorkerInfo{Name: "heart", App: "test", Host: "here", Slots: 1, Lease: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var beating sync.WaitGroup
	beating.Go(func() {
		for ctx.Err() == nil {
			if _, err := w.Beat(ctx, nil); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	return func() {
		cancel()
		beating.Wait()
	}
}
