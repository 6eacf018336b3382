package cluster_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

// Tests start this program again as other processes. One of the first three variables says
// as what, and has the URL of the store.
const (
	workerURL    = "CLUSTER_TEST_WORKER"
	submitterURL = "CLUSTER_TEST_SUBMITTER"
	waiterURL    = "CLUSTER_TEST_WAITER"

	cacheDir      = "CLUSTER_TEST_CACHE"   // compiled modules
	workerLease   = "CLUSTER_TEST_LEASE"   // duration of the leases of a worker; 2 s if it is not set
	workerLog     = "CLUSTER_TEST_LOG"     // file to which a worker adds what it does
	workerDies    = "CLUSTER_TEST_DIES"    // function of a fold that kills the worker
	clientJob     = "CLUSTER_TEST_JOB"     // seed, module and file of chunks of the job
	clientReceipt = "CLUSTER_TEST_RECEIPT" // file for the receipt
)

// beOther is the main function of another process than that of the tests.
func beOther() (code int) {
	if url := os.Getenv(workerURL); url != "" {
		return beWorker(url)
	}
	main, url := submitJob, os.Getenv(submitterURL)
	if url == "" {
		main, url = awaitJob, os.Getenv(waiterURL)
	}
	ctx := context.Background()
	s, err := postgres.Open(ctx, url, postgres.Options{Connections: 3, GiveUp: time.Minute})
	if err == nil {
		err = main(ctx, s)
		s.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		return 1
	}
	return 0
}

// beWorker takes leases until the first SIGTERM or SIGINT; the second one cuts off what runs.
func beWorker(url string) int {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	soft, stop := context.WithCancel(context.Background())
	hard, cut := context.WithCancel(context.Background())
	go func() { // it ends with the process
		<-signals
		stop()
		<-signals
		cut()
	}()
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
	c := cluster.Config{
		Store: s, Engine: shared, Slots: 2, Name: fmt.Sprint("w", os.Getpid()), App: "chaos", PID: os.Getpid(), Lease: lease, Modules: 2, Grace: 5 * time.Second,
		Notice: func(line string) { fmt.Fprintln(os.Stderr, "worker:", line) },
	}
	if path := os.Getenv(workerLog); path != "" {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			fmt.Fprintln(os.Stderr, "worker:", err)
			return 1
		}
		defer file.Close()
		logger := &logger{file}
		c.Watcher, c.Engine = logger, &watched{Engine: shared, exec: logger.executes}
	}
	if poison := os.Getenv(workerDies); poison != "" {
		c.Engine = &watched{Engine: shared, fold: func(_ context.Context, function string) error {
			if function == poison {
				return syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			return nil
		}}
	}
	if err = cluster.Work(hard, soft, c); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		return 1
	}
	return 0
}

// logger writes what a worker does, in one write for each line: what it wrote survives the
// worker.
type logger struct{ file *os.File }

func (l *logger) write(format string, args ...any) {
	if _, err := fmt.Fprintf(l.file, format+"\n", args...); err != nil {
		panic(err)
	}
}

// mark names a chunk.
func mark(chunk []byte) string {
	sum := sha256.Sum256(chunk)
	return hex.EncodeToString(sum[:8])
}

func (l *logger) executes(chunk []byte) { l.write("executes %s", mark(chunk)) }

// Observe implements [cluster.Watcher].
func (l *logger) Observe(_ store.JobID, _ string, events []event.Event) {
	for _, e := range events {
		who := fmt.Sprintf("%d.%d", os.Getpid(), e.Worker)
		switch e.Kind {
		case event.KindLeased:
			l.write("leased %s %d %d", who, e.Lease.From, e.Lease.To)
		case event.KindLeaseEnded:
			l.write("ended %s %s", who, e.Lease.Why)
		}
	}
}

// Stored implements [cluster.Watcher].
func (*logger) Stored(int, uint64) {}

// clientsJob returns the job that a client is told to submit, or to wait for.
func clientsJob(ctx context.Context) (*host.Job, error) {
	var seed uint64
	var module, path string
	if _, err := fmt.Sscan(os.Getenv(clientJob), &seed, &module, &path); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(module)))
	if err != nil {
		return nil, err
	}
	j, err := makeJob(ctx, b, path)
	if err != nil {
		return nil, err
	}
	j.Settings.Seed = seed
	return j, nil
}

func submitJob(ctx context.Context, s *postgres.Store) error {
	j, err := clientsJob(ctx)
	if err == nil {
		_, err = cluster.Submit(ctx, j, cluster.Submission{Store: s, Priority: 127})
	}
	return err
}

// awaitJob waits for a job, and writes its receipt.
func awaitJob(ctx context.Context, s *postgres.Store) error {
	j, err := clientsJob(ctx)
	if err != nil {
		return err
	}
	id := store.JobID(j.Spec().ID())
	p, err := cluster.Wait(ctx, s, id, func(*postgres.Progress) error { return nil })
	if err != nil {
		return err
	}
	record, err := journal.Find(ctx, s, journal.Name(id))
	if err != nil {
		return err
	}
	r, err := cluster.Collect(ctx, s, &cluster.Collection{Record: record.Record, Progress: p, Engine: shared, Outputs: true})
	if err != nil {
		return err
	}
	receipt, err := r.Receipt()
	if err != nil {
		return err
	}
	b, err := receipt.Marshal()
	if err != nil {
		return err
	}
	path := os.Getenv(clientReceipt)
	if err := os.WriteFile(path+".new", b, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// children are worker processes.
type children struct {
	t   *testing.T
	url string
	env []string
	all []*exec.Cmd
}

func (c *children) start() {
	c.all = append(c.all, startOther(c.t, append([]string{workerURL + "=" + c.url}, c.env...)))
}

// startOther starts this program as another process.
func startOther(t *testing.T, env []string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	// The race detector would keep each process for a second after its end.
	cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE")), env...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// replace ends a worker process with a signal, and starts another.
func (c *children) replace(i int, signals ...os.Signal) int {
	code := c.end(i, signals...)
	c.start()
	return code
}

func (c *children) end(i int, signals ...os.Signal) int {
	cmd := c.all[i]
	for _, s := range signals {
		_ = cmd.Process.Signal(s)
	}
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

// client is a process that submits a job or waits for it.
type client struct {
	t   *testing.T
	env []string
	cmd *exec.Cmd
}

// start starts the process, unless it runs.
func (c *client) start() {
	if c.cmd == nil {
		c.cmd = startOther(c.t, c.env)
	}
}

// end sends the process a signal, and returns its exit code, -1 if the signal ended it.
func (c *client) end(s os.Signal) int {
	if c.cmd == nil {
		return 0
	}
	_ = c.cmd.Process.Signal(s)
	return c.wait()
}

// wait waits for the end of the process.
func (c *client) wait() int {
	_ = c.cmd.Wait()
	code := c.cmd.ProcessState.ExitCode()
	c.cmd = nil
	return code
}
