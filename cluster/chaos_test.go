package cluster_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

var chaosJobs = flag.Int("chaos", 2, "jobs that TestChaos runs under faults")

// workerURL is set in processes that the test starts as workers.
const workerURL = "CLUSTER_TEST_WORKER"

// workerLease is the duration of their leases; 2 s if it is not set.
const workerLease = "CLUSTER_TEST_LEASE"

// beWorker is the main function of a worker process.
func beWorker(url string) int {
	soft, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	s, err := postgres.Open(soft, url, postgres.Options{Connections: 3, GiveUp: time.Minute})
	if err != nil && soft.Err() != nil {
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		return 6
	}
	defer s.Close()
	lease, err := time.ParseDuration(os.Getenv(workerLease))
	if err != nil {
		lease = 2 * time.Second
	}
	err = cluster.Work(context.Background(), soft, cluster.Config{
		Store: s, Engine: shared, Slots: 2, Name: fmt.Sprint("w", os.Getpid()), App: "chaos", PID: os.Getpid(), Lease: lease, Modules: 2, Grace: 5 * time.Second,
		Notice: func(line string) { fmt.Fprintln(os.Stderr, "worker:", line) },
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		return 1
	}
	return 0
}

// children are worker processes.
type children struct {
	t   *testing.T
	url string
	all []*exec.Cmd
}

func (c *children) start() {
	cmd := exec.Command(os.Args[0])
	// The race detector would keep each process for a second after its end.
	cmd.Env = append(os.Environ(), workerURL+"="+c.url, "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.all = append(c.all, cmd)
}

// replace ends a worker process with a signal, and starts another.
func (c *children) replace(i int, signal os.Signal) int {
	code := c.end(i, signal)
	c.start()
	return code
}

func (c *children) end(i int, signal os.Signal) int {
	cmd := c.all[i]
	_ = cmd.Process.Signal(signal)
	_ = cmd.Wait()
	c.all = append(c.all[:i], c.all[i+1:]...)
	return cmd.ProcessState.ExitCode()
}

func (c *children) stop() {
	for len(c.all) > 0 {
		_ = c.all[0].Process.Signal(syscall.SIGCONT)
		c.end(0, syscall.SIGKILL)
	}
}

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
// run without faults: workers are killed or stopped for longer than their leases, the
// server is killed and started again, and sessions are terminated.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("it kills workers for half a minute: run without -short")
	}
	server := pgtest.Start(t, true)
	url := server.Database(t)
	s := openStore(t, url)
	counts := map[string]int{}
	for round := range *chaosJobs {
		j := jobOver(t, faulty, working(1500, 400_000))
		if round%3 == 2 {
			j = newJob(t, square, 150_000) // short chunks, and a fold of 15 groups
		}
		j.Settings.Seed = uint64(round) // another job each time
		want := local(t, j)
		id := submit(t, s, j)
		c := &children{t: t, url: url}
		c.start()
		c.start()
		faults(t, server, c, counts, 6*time.Second)
		got, p := collect(t, s, id)
		c.stop()
		equal(t, got, want)
		if p.Conflicts > 0 || p.Failed > 0 {
			t.Errorf("%+v", p)
		}
		t.Logf("job %d: executions %d of %d, leases %+v, mended %d", round, p.Executions, p.Total, p.Leases, p.Mended)
	}
	t.Logf("faults: %v", counts)
}

// faults causes random faults for some time.
func faults(t *testing.T, server *pgtest.Server, c *children, counts map[string]int, d time.Duration) {
	for until := time.Now().Add(d); time.Now().Before(until); time.Sleep(50*time.Millisecond + rand.N(600*time.Millisecond)) {
		i := rand.IntN(len(c.all))
		switch kind := []string{"kill -9", "kill -9", "stop", "term", "sessions", "server"}[rand.IntN(6)]; kind {
		case "kill -9":
			c.replace(i, syscall.SIGKILL)
			counts[kind]++
		case "term":
			if code := c.replace(i, syscall.SIGTERM); code != 0 && code != -1 { // -1: ended before it listened for signals
				t.Errorf("a worker that was told to stop ended with %d", code)
			}
			counts[kind]++
		case "stop":
			_ = c.all[i].Process.Signal(syscall.SIGSTOP)
			time.Sleep(2500 * time.Millisecond)
			_ = c.all[i].Process.Signal(syscall.SIGCONT)
			counts[kind]++
		case "sessions":
			pgtest.Exec(t, server.URL("postgres"), "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname <> 'postgres' and random() < 0.5")
			counts[kind]++
		case "server":
			server.Kill()
			if err := server.Launch(); err != nil {
				t.Fatal(err)
			}
			counts[kind]++
		}
	}
}
