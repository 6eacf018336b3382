package postgres_test

import (
	"flag"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

var long = flag.Bool("long", false, "run 1,000 overlaps, and 500 workers")

// TestManyWorkers has 64 and then 500 simulated workers, over 32 connections as through a
// pooler, lease and finish empty batches: no request fails, and no chunk is leased twice.
// With -long, it logs the rates, of which the one with 500 should be at least half of the
// other, and what idle workers cost.
func TestManyWorkers(t *testing.T) {
	server := pgtest.Start(t, true)
	s, err := postgres.Open(t.Context(), server.URL("postgres"), postgres.Options{Create: true, Connections: 32, GiveUp: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rounds, count := []int{16, 40}, 120
	if *long {
		rounds, count = []int{64, 500, 64, 500, 64, 500}, 10_000
	}
	rates := map[int][]float64{}
	for round, workers := range rounds {
		leases := count / workers
		total := 4 * workers * leases // otherwise the leases become rare towards the end
		_, n := handIn(t, s, byte(round+1), total)
		all := make([]*postgres.Worker, workers)
		for i := range all {
			if all[i], err = s.Register(t.Context(), postgres.WorkerInfo{Name: fmt.Sprint("w", i), App: "a", Host: "h", Slots: 1, Lease: time.Hour}); err != nil {
				t.Fatal(err)
			}
		}
		taken := make([]atomic.Int32, total)
		begun, cpu := time.Now(), server.CPU()
		var working sync.WaitGroup
		for _, w := range all {
			working.Go(func() { empty(t, w, n, leases, taken) })
		}
		working.Wait()
		took, served := time.Since(begun), server.CPU()-cpu
		for chunk := range taken {
			if taken[chunk].Load() > 1 {
				t.Errorf("chunk %d was leased %d times", chunk, taken[chunk].Load())
			}
		}
		granted := workers * leases
		rate := float64(granted) / took.Seconds()
		rates[workers] = append(rates[workers], rate)
		t.Logf("%d workers: %d leases, %.0f a second, %.2f ms of the server's CPU each", workers, granted, rate, served.Seconds()*1000/float64(granted))
		s.ExecForTest(t, "update jobs set state = 'cancelled'; delete from pending; update slots set job = null")
		idle(t, server, all)
		for _, w := range all {
			if err := w.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if *long {
		slices.Sort(rates[64])
		slices.Sort(rates[500])
		few, many := rates[64][1], rates[500][1]
		verdict := "holds"
		if many < few/2 {
			verdict = "falls short"
		}
		t.Logf("500 workers reach %.2f of the rate of 64, at least 0.5: %s", many/few, verdict)
	}
}

// idle logs what a question for work and a heartbeat cost the server if there is no work.
func idle(t *testing.T, server *pgtest.Server, all []*postgres.Worker) {
	cost := func(ask func(w *postgres.Worker) error) float64 {
		begun := server.CPU()
		for range 3 {
			for _, w := range all {
				if err := ask(w); err != nil {
					t.Fatal(err)
				}
			}
		}
		return (server.CPU() - begun).Seconds() * 1000 / float64(3*len(all))
	}
	next := cost(func(w *postgres.Worker) error {
		l, err := w.Next(t.Context(), 1, nil, nil)
		if err == nil && l.Key != 0 {
			err = fmt.Errorf("there is no work, but %v", l)
		}
		return err
	})
	beat := cost(func(w *postgres.Worker) error {
		_, err := w.Beat(t.Context(), nil)
		return err
	})
	// A worker asks every 3.75 s in the mean, and its heart beats every 7.5 s.
	core := float64(len(all)) * (next/3750 + beat/7500) * 100
	t.Logf("%d idle workers: %.2f ms of the server's CPU for a question for work, %.2f for a heartbeat: %.1f %% of a core", len(all), next, beat, core)
}

// empty takes leases of one chunk, and ends each without outputs.
func empty(t *testing.T, w *postgres.Worker, job, leases int, taken []atomic.Int32) {
	l, err := w.Next(t.Context(), 1, postgres.Want{job: 1}, nil)
	for seq := int64(1); err == nil && seq <= int64(leases); seq++ {
		if l.Key == 0 || l.Fold {
			t.Errorf("no lease: %+v", l)
			return
		}
		taken[l.First].Add(1)
		l, err = w.Settle(t.Context(), &postgres.Settlement{
			Lease: l, Seq: seq, Done: l.Last, Ends: true, Next: seq < int64(leases), Want: postgres.Want{job: 1},
		})
	}
	if err != nil {
		t.Error(err)
	}
}
