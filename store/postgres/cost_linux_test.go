package postgres_test

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// TestLeaseCost logs the processor time of a settled lease of 100 small outputs with the
// next lease, of the server and of this process: the median of 5 rounds, in which 2 and 64
// workers take turns.
func TestLeaseCost(t *testing.T) {
	if !*long {
		t.Skip("make bench-cluster runs it")
	}
	const size = 100
	server := pgtest.Start(t, true)
	s, err := postgres.Open(t.Context(), server.URL("postgres"), postgres.Options{Create: true, Connections: 32, GiveUp: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	records := spanOf(0, size, usual).Records
	served, own := map[int][]float64{}, map[int][]float64{}
	for round := range 5 {
		for i, workers := range []int{2, 64} {
			_, job := handIn(t, s, byte(1+2*round+i), 1<<20)
			all := make([]*postgres.Worker, workers)
			for i := range all {
				if all[i], err = s.Register(t.Context(), postgres.WorkerInfo{Name: fmt.Sprint("w", i), App: "a", Host: "h", Slots: 1, Lease: time.Hour}); err != nil {
					t.Fatal(err)
				}
			}
			settleAll(t, all, job, 10, records) // connections plan their statements
			server0, own0 := server.CPU(), ownCPU()
			leases := 640 / workers
			settleAll(t, all, job, leases, records)
			each := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(workers*leases) }
			served[workers], own[workers] = append(served[workers], each(server.CPU()-server0)), append(own[workers], each(ownCPU()-own0))
			s.ExecForTest(t, "update jobs set state = 'cancelled'; delete from pending; delete from slots; update workers set gone = true")
		}
	}
	for _, workers := range []int{2, 64} {
		slices.Sort(served[workers])
		slices.Sort(own[workers])
		sum, verdict := served[workers][2]+own[workers][2], "holds"
		if sum > 1.5 {
			verdict = "falls short"
		}
		t.Logf("%d workers: a settled lease costs %.2f ms of CPU of the server, and %.2f of the workers: %.2f, at most 1.5: %s", workers, served[workers][2], own[workers][2], sum, verdict)
	}
}

// settleAll has each worker settle leases with the outputs of all their chunks.
func settleAll(t *testing.T, all []*postgres.Worker, job, leases int, records []store.Record) {
	t.Helper()
	var working sync.WaitGroup
	for _, w := range all {
		working.Go(func() {
			want := postgres.Want{job: len(records)}
			l, err := w.Next(t.Context(), 1, want, nil)
			for i := 0; err == nil && i < leases; i++ {
				if l.Key == 0 {
					t.Errorf("no lease")
					return
				}
				span := postgres.Span{First: l.First, Records: records[:l.Last-l.First], Detail: func(from, to int) []byte { return make([]byte, 3*(to-from)) }}
				l, err = w.Settle(t.Context(), &postgres.Settlement{
					Lease: l, Seq: l.Key, Spans: []postgres.Span{span}, Done: l.Last, Executed: len(span.Records), Ends: true, Next: true, Want: want,
				})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	working.Wait()
}

// ownCPU returns the processor time of this process.
func ownCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
