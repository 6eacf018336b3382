package cluster_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// TestRefusedJob submits a job whose input is in a shared directory. A worker without the
// directory says so, leaves the job to others and executes other jobs meanwhile.
func TestRefusedJob(t *testing.T) {
	url := pgtest.URL(t)
	s := openStore(t, url)
	blobs, err := cluster.SharedDir(t.TempDir(), s)
	if err != nil {
		t.Fatal(err)
	}
	j := newJob(t, square, 500)
	want := local(t, j)
	u, err := cluster.Submit(t.Context(), j, cluster.Submission{Store: s, Priority: 255, Shared: blobs})
	if err != nil {
		t.Fatal(err)
	}
	var notices atomic.Int64
	blind := start(t, url, 2, func(c *cluster.Config) {
		c.Notice = func(line string) {
			if !strings.Contains(line, " here") || !strings.Contains(line, "shared directory") {
				t.Errorf("notice %q", line)
			}
			notices.Add(1)
		}
	})
	other := newJob(t, square, 300)
	got, _ := collect(t, s, submit(t, s, other))
	equal(t, got, local(t, other))
	p := until(t, s, u.Job, "refused", func(p *postgres.Progress) bool { return notices.Load() > 0 })
	if p.State != "active" || p.Failed > 0 || p.Leases.Granted > 20 {
		t.Errorf("%+v after %d notices", p, notices.Load())
	}
	if err := blind(); err != nil {
		t.Errorf("the worker without the directory ended: %v", err)
	}
	start(t, url, 2, func(c *cluster.Config) { c.Shared = blobs })
	p = until(t, s, u.Job, "over", func(p *postgres.Progress) bool { return cluster.Ended(p.State) })
	record, err := journal.Find(t.Context(), s, journal.Name(u.Job))
	if err != nil {
		t.Fatal(err)
	}
	r, err := cluster.Collect(t.Context(), s, &cluster.Collection{Record: record.Record, Progress: p, Engine: shared, Shared: blobs, Outputs: true})
	equal(t, resultOf(t, r, err), want)
}
