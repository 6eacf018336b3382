package cluster_test

import (
	"context"
	"errors"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// TestWatching reads the status of a job again and again while workers execute it: each
// chunk is in one group, no two leases have the same chunk, and what succeeded stays so. With
// many jobs of TestChaos, the job takes long enough for 1,000 looks.
func TestWatching(t *testing.T) {
	url := pgtest.URL(t)
	s := openStore(t, url)
	total, least := 600, 1
	if *chaosJobs > 2 {
		total, least = 300_000, 1000
	}
	id := submit(t, s, jobOver(t, faulty, working(total, 200_000)))
	start(t, url, 2, nil)
	start(t, url, 2, nil)
	had, looks, leased := 0, 0, 0
	for state := ""; !cluster.Ended(state); looks++ {
		var err error
		if state, err = s.StateOf(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		m, err := s.MomentOf(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		record, err := journal.Find(t.Context(), s, journal.Name(id))
		if err != nil {
			t.Fatal(err)
		}
		at := &journal.Moment{}
		for _, span := range m.Succeeded {
			at.Succeeded = append(at.Succeeded, journal.Lease{From: span[0], To: span[1]})
		}
		for _, l := range m.Active {
			at.Active = append(at.Active, journal.Lease{From: l.From, To: l.To})
		}
		status, parts, err := record.StatusAt(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		active := 0
		for _, of := range parts {
			for _, part := range of {
				active += part.To - part.From
			}
		}
		leased = max(leased, active)
		if active != status.Active.Count || status.Pending.Count+status.Active.Count+status.Succeeded.Count+status.Failed.Count != total {
			t.Fatalf("%d leased, %+v", active, status)
		}
		if status.Succeeded.Count < had {
			t.Fatalf("%d chunks had succeeded, now %d", had, status.Succeeded.Count)
		}
		had = status.Succeeded.Count
	}
	if had != total || leased == 0 {
		t.Errorf("%d of %d succeeded, at most %d were leased", had, total, leased)
	}
	t.Logf("%d looks at %d chunks", looks, total)
	if looks < least {
		t.Errorf("%d looks, want %d", looks, least)
	}
}

// TestResumeUpload interrupts a submission several times: what was sent is not sent again.
func TestResumeUpload(t *testing.T) {
	s := openStore(t, pgtest.URL(t))
	var file []byte
	chunk := make([]byte, 256<<10)
	const total = 128
	for i := range total {
		chunk[0] = byte(i)
		file = append(abi.AppendHead(file, abi.MajorBytes, uint64(len(chunk))), chunk...)
	}
	j := jobOver(t, "testdata/wasm/echo.wasm", file)
	stopped := errors.New("stopped")
	for _, after := range []int{20, 50, 90} {
		ctx, cancel := context.WithCancelCause(t.Context())
		_, err := cluster.Submit(ctx, j, cluster.Submission{Store: s, Priority: 127, Progress: func(chunks, _ int) {
			if chunks >= after {
				cancel(stopped)
			}
		}})
		if !errors.Is(context.Cause(ctx), stopped) || err == nil {
			t.Fatalf("it was not interrupted after %d chunks: %v", after, err)
		}
		if p, err := s.Progress(t.Context(), idOf(j)); err != nil || p.State != "uploading" {
			t.Fatalf("%+v, %v", p, err)
		}
	}
	u, err := cluster.Submit(t.Context(), j, cluster.Submission{Store: s, Priority: 127})
	if err != nil || u.State != "active" {
		t.Fatal(u, err)
	}
	if size := u.Sent + u.Skipped; u.Sent > size*4/10 || size < int64(len(file)) {
		t.Errorf("%d bytes were sent at last, %d were there, of %d", u.Sent, u.Skipped, len(file))
	}
}

func idOf(j *host.Job) store.JobID { return store.JobID(j.Spec().ID()) }
