package cluster_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

var chaosJobs = flag.Int("chaos", 2, "jobs that TestChaos runs under faults")

// working returns chunks that take about a millisecond each.
func working(n, length int) (file []byte) {
	text := func(s string) []byte { return append(abi.AppendHead(nil, abi.MajorText, uint64(len(s))), s...) }
	for i := range n {
		file = append(abi.AppendHead(file, abi.MajorMap, 3), text("id")...)
		file = append(abi.AppendHead(file, abi.MajorUint, uint64(i)), text("do")...)
		file = append(append(file, text("work")...), text("n")...)
		file = abi.AppendHead(file, abi.MajorUint, uint64(length+i))
	}
	return file
}

// TestChaos runs jobs under random faults, and compares each result with the result of a
// run without faults: workers, submitters and processes that wait are killed, workers are
// stopped for longer than their leases, the server is killed and started again, and sessions
// are terminated. A chunk is executed again only if a lease on it was lost, stolen or
// duplicated.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("it kills workers for half a minute: run without -short")
	}
	server := pgtest.Start(t, true)
	url := server.Database(t)
	s := openStore(t, url)
	f := &faults{t: t, server: server, counts: map[string]int{}}
	again := 0
	for round := range *chaosJobs {
		file := working(1500, 400_000)
		module := faulty
		if round%3 == 2 {
			module, file = square, numbers(300_000) // short chunks, and a fold of 30 groups
		}
		j := jobOver(t, module, file)
		j.Settings.Seed = uint64(round) // another job each time
		want := local(t, j)
		f.begin(url, module, file, round)
		f.cause(6*time.Second, func() bool {
			p, err := s.Progress(t.Context(), store.JobID(j.Spec().ID()))
			return err == nil && cluster.Ended(p.State)
		})
		f.finish(want.receipt)
		got, p := collect(t, s, store.JobID(j.Spec().ID()))
		f.workers.stop()
		equal(t, got, want)
		if p.Conflicts > 0 || p.Failed > 0 {
			t.Errorf("%+v", p)
		}
		x := executions(t, f.log, j)
		again += x.again
		x.check(t, p, endings(t, url, p.Number))
		t.Logf("job %d: %d executions of %d chunks, %d of them reported; %d again, for %d chunks of leases lost; leases %+v, mended %d; so far: %v",
			round, x.all, p.Total, p.Executions, x.again, x.lost, p.Leases, p.Mended, f.counts)
	}
	t.Logf("faults: %v; %d executions again", f.counts, again)
}

// faults causes faults in one job at a time.
type faults struct {
	t       *testing.T
	server  *pgtest.Server
	counts  map[string]int
	workers *children
	// Processes that are begun again after they were killed.
	submitter, waiter *client
	receipt           string // file that the waiter writes
	log               string // file that workers write
}

// begin starts the processes that submit and execute a job and wait for it. Submitters are
// killed a few times in their first moments.
func (f *faults) begin(url, module string, file []byte, seed int) {
	dir := f.t.TempDir()
	path := filepath.Join(dir, "chunks.cbor")
	if err := os.WriteFile(path, file, 0o644); err != nil {
		f.t.Fatal(err)
	}
	f.receipt, f.log = filepath.Join(dir, "receipt.json"), filepath.Join(dir, "log")
	job := fmt.Sprint(seed, " ", module, " ", path)
	f.workers = &children{t: f.t, url: url, env: []string{workerLog + "=" + f.log}}
	f.workers.start()
	f.workers.start()
	f.submitter = &client{f.t, []string{submitterURL + "=" + url, clientJob + "=" + job}, nil}
	f.waiter = &client{f.t, []string{waiterURL + "=" + url, clientJob + "=" + job, clientReceipt + "=" + f.receipt}, nil}
	for range rand.IntN(4) {
		f.submitter.start()
		time.Sleep(rand.N(400 * time.Millisecond))
		f.kill("kill -9 submitter", f.submitter)
	}
	f.submitter.start()
	f.waiter.start()
}

// kill kills a process and starts it again.
func (f *faults) kill(name string, c *client) {
	if c.end(syscall.SIGKILL) == -1 { // otherwise it was over
		f.counts[name]++
	}
	c.start()
}

// finish lets the submitter and the process that waits run to their ends, and compares the
// receipt.
func (f *faults) finish(want []byte) {
	for _, c := range []*client{f.submitter, f.waiter} {
		for deadline := time.Now().Add(5 * time.Minute); c.wait() != 0; c.start() {
			if time.Now().After(deadline) {
				f.t.Fatalf("%v: it does not succeed", c.env)
			}
		}
	}
	got, err := os.ReadFile(f.receipt)
	if err != nil || !bytes.Equal(got, want) {
		f.t.Errorf("the process that waited has another receipt: %v, %s", err, got)
	}
}

// cause causes random faults for some time, or until the job is over.
func (f *faults) cause(d time.Duration, over func() bool) {
	kinds := []string{"kill -9", "kill -9", "stop", "term", "sessions", "server", "kill -9 submitter", "kill -9 wait"}
	for until := time.Now().Add(d); time.Now().Before(until) && !over(); time.Sleep(50*time.Millisecond + rand.N(450*time.Millisecond)) {
		kind := kinds[rand.IntN(len(kinds))]
		i := rand.IntN(len(f.workers.all))
		switch kind {
		case "kill -9 submitter":
			f.kill(kind, f.submitter)
			continue
		case "kill -9 wait":
			f.kill(kind, f.waiter)
			continue
		case "kill -9":
			f.workers.replace(i, syscall.SIGKILL)
		case "term":
			if code := f.workers.replace(i, syscall.SIGTERM); code != 0 && code != -1 { // -1: ended before it listened for signals
				f.t.Errorf("a worker that was told to stop ended with %d", code)
			}
		case "stop":
			_ = f.workers.all[i].Process.Signal(syscall.SIGSTOP)
			time.Sleep(2500 * time.Millisecond)
			_ = f.workers.all[i].Process.Signal(syscall.SIGCONT)
		case "sessions":
			pgtest.Exec(f.t, f.server.URL("postgres"), "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname <> 'postgres' and random() < 0.5")
		case "server":
			f.server.Kill()
			if err := f.server.Launch(); err != nil {
				f.t.Fatal(err)
			}
		}
		f.counts[kind]++
	}
}

// executed has what workers wrote about the executions of one job, whether they lived to
// report it or not.
type executed struct {
	all, again int
	lost       int   // chunks of leases that did not end well
	of         []int // executions of each chunk
	may        []int // leases on it that did not end well
}

// executions reads what workers wrote.
func executions(t *testing.T, log string, j *host.Job) (x executed) {
	t.Helper()
	x.of, x.may = make([]int, j.Chunks.Len()), make([]int, j.Chunks.Len())
	index := map[string]int{}
	err := j.Chunks.Read(t.Context(), 0, j.Chunks.Len(), func(i int, chunk []byte) error {
		index[mark(chunk)] = i
		return nil
	})
	text, failed := os.ReadFile(log)
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	open := map[string][2]int{} // by process and slot
	lose := func(span [2]int) {
		for i := span[0]; i <= span[1]; i++ {
			x.may[i]++
			x.lost++
		}
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		switch words[0] {
		case "executes":
			i, ok := index[words[1]]
			if !ok {
				t.Fatalf("unknown chunk: %s", line)
			}
			x.of[i]++
			x.all++
		case "leased":
			from, _ := strconv.Atoi(words[2])
			to, _ := strconv.Atoi(words[3])
			if earlier, ok := open[words[1]]; ok {
				t.Errorf("%s has two leases: %v and %d to %d", words[1], earlier, from, to)
			}
			open[words[1]] = [2]int{from, to}
		case "ended":
			if words[2] != string(event.Done) && words[2] != string(event.Returned) {
				lose(open[words[1]])
			}
			delete(open, words[1])
		}
	}
	for _, span := range open { // of killed workers
		lose(span)
	}
	x.again = x.all - j.Chunks.Len()
	return x
}

// endings returns the chunks of leases of a job that the database ended early.
func endings(t *testing.T, url string, number int) (ended [][2]int) {
	t.Helper()
	var text string
	queryRow(t, url, fmt.Sprint("select coalesce(json_agg(json_build_array(first, last)), '[]')::text from wasm_jobs.events where kind = 'lease_ended' and why in ('expired', 'stolen') and job = ", number), &text)
	if err := json.Unmarshal([]byte(text), &ended); err != nil {
		t.Fatal(err)
	}
	return ended
}

// queryRow reads one row of the database of a URL.
func queryRow(t *testing.T, url, sql string, to ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if err := conn.QueryRow(t.Context(), sql).Scan(to...); err != nil {
		t.Fatal(err)
	}
}

// check compares executions with the leases that were lost, stolen or duplicated: for each
// chunk with what workers wrote, and in sum with what the database reports.
func (x *executed) check(t *testing.T, p *postgres.Progress, ended [][2]int) {
	t.Helper()
	may, chunks := slices.Clone(x.may), 0
	for _, span := range ended {
		for i := span[0]; i <= span[1]; i++ {
			may[i]++
			chunks++
		}
	}
	beyond, first := 0, -1
	for i, n := range x.of {
		if n == 0 {
			t.Errorf("chunk %d was not executed", i)
		}
		if more := n - 1 - may[i]; more > 0 {
			if beyond += more; first < 0 {
				first = i
			}
		}
	}
	if beyond > int(p.Leases.Duplicated) {
		t.Errorf("%d executions again of chunks without a lost or stolen lease, the first is chunk %d; %d leases were duplicated", beyond, first, p.Leases.Duplicated)
	}
	if most := p.Total + chunks + int(p.Leases.Duplicated); int(p.Executions) > most {
		t.Errorf("%d executions are reported, want at most %d", p.Executions, most)
	}
}
