package cluster_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// TestWatchingCost compares the processor time of a job while the command status looks at it at
// least 1,000 times with the time of the same job that nobody looks at. The processes that
// look are not counted; the server, which also answers them, is counted apart.
func TestWatchingCost(t *testing.T) {
	if *costRounds == 0 {
		t.Skip("make bench-cluster runs it")
	}
	b := newBench(t)
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	b.write("work", working(60_000, workLength))
	job := &priced{module: filepath.Join(root, faulty), file: "work"}
	server := pgtest.Start(t, true)
	var ratios, alone, watched, servers, served, looks []float64
	for range *costRounds {
		p := b.shared(server, job)
		var w watching
		b.began = func(url, id string) { w.begin(b, url, id) }
		q := b.shared(server, job)
		b.began = nil
		n := float64(w.end())
		mine, other := p.sum()-p.server, q.sum()-q.server
		ratios, alone, watched = append(ratios, other.Seconds()/mine.Seconds()), append(alone, mine.Seconds()), append(watched, other.Seconds())
		servers, served, looks = append(servers, p.server.Seconds()), append(served, q.server.Seconds()), append(looks, n)
		t.Logf("%.0f looks: %.2f s of CPU, %.2f without; server %.2f, %.2f without", n, other.Seconds(), mine.Seconds(), q.server.Seconds(), p.server.Seconds())
	}
	ratio, n := median(ratios), median(looks)
	t.Logf("%.0f looks (at least %.0f): the job takes %.2f s of CPU, %.2f without: %.3f (quartiles %.3f to %.3f), at most 1.05 with 1,000 looks: %s; the server takes %.2f s, %.2f without",
		n, looks[0], median(watched), median(alone), ratio, ratios[len(ratios)/4], ratios[3*len(ratios)/4], verdict(ratio <= 1.05 && looks[0] >= 1000), median(served), median(servers))
}

// watching has processes look at a job.
type watching struct {
	over  atomic.Bool
	looks atomic.Int64
	all   sync.WaitGroup
}

// begin starts to look at a job, two processes at a time.
func (w *watching) begin(b *bench, url, id string) {
	for range 2 {
		w.all.Go(func() {
			for !w.over.Load() {
				cmd := exec.Command(b.command, "status", "--json", "--store", url, id)
				cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+b.dir)
				if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte(id)) {
					b.t.Errorf("%v: %s", err, out)
					return
				}
				w.looks.Add(1)
			}
		})
	}
}

// end ends the looks, and returns their number.
func (w *watching) end() int64 {
	w.over.Store(true)
	w.all.Wait()
	return w.looks.Load()
}
