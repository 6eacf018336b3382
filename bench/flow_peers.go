package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/cschleiden/go-workflows/backend"
	workflowdb "github.com/cschleiden/go-workflows/backend/sqlite"
	"github.com/cschleiden/go-workflows/client"
	"github.com/cschleiden/go-workflows/worker"
	"github.com/cschleiden/go-workflows/workflow"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // the driver "sqlite", in a version that River works with

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

// goStep names the samples of steps without a store.
const goStep = "a step of a Go function that does nothing, without a store"

// flowPeer is a way to make steps of Go functions, in this process, that survive a crash.
type flowPeer struct {
	name    string
	module  string  // of Go, with its version in the table; "" = ours
	steps   int     // in a round
	durable string  // what it makes durable, and when
	lead    float64 // how many times ours is to take less for a step; 0 = it is ours
	// run makes the steps with a database in dir. It returns the CPU time of this process,
	// without the time of opening the database.
	run func(ctx context.Context, dir string, steps int) (ns float64, err error)
}

var durableStep = flowPeer{
	name: "flow", steps: 30_000, run: ourSteps,
	durable: "the output of each step, in batches of steps, before any later step of its items; WAL, synchronous=FULL. A restart looks steps up",
}

func flowPeers() []flowPeer {
	return []flowPeer{durableStep, {
		name: "go-workflows", module: "github.com/cschleiden/go-workflows", steps: 300, lead: 100, run: workflowSteps,
		durable: "an instance for each item, and the events of its history: one transaction for each workflow task and for each activity result; WAL, synchronous=FULL. A restart replays the history of instances",
	}, {
		name: "River", module: "github.com/riverqueue/river", steps: 1000, lead: 30, run: riverSteps,
		durable: "a row for each job: at its insertion (all jobs in one transaction), when a worker takes it, and when it has completed; WAL, synchronous=FULL. A restart works jobs that have not completed",
	}}
}

func (p *flowPeer) sample() string { return "a step of three Go functions, durable: " + p.name }

// peer describes a peer in a table.
type peer struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Steps   int    `json:"steps"` // in a round
	Durable string `json:"durable"`
}

func (p *flowPeer) about() peer {
	about := peer{p.name, "this tree", p.steps, p.durable}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == p.module {
				about.Version = d.Path + " " + d.Version
			}
		}
	}
	return about
}

// functions makes steps of Go functions in this process. Each round begins with another side.
func (f *flows) functions(ctx context.Context, round int) error {
	ns, err := goSteps(ctx, flow.Config{}, &idle, 200_000)
	if err != nil {
		return err
	}
	f.sample(goStep, ns/200_000, true)
	peers := flowPeers()
	for i := range peers {
		p := peers[(i+round)%len(peers)]
		goruntime.GC()
		err := f.inStore(func(dir string) error {
			if err := os.Mkdir(dir, 0o700); err != nil {
				return err
			}
			ns, err := p.run(ctx, dir, p.steps)
			f.sample(p.sample(), ns/float64(p.steps), true)
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// processCPU returns the CPU time of this process in nanoseconds.
func processCPU() float64 {
	var at unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &at); err != nil {
		panic(err) // the clock exists on each system that this program runs on
	}
	return float64(at.Nano())
}

// idle is a flow of one function that does nothing.
var idle = flow.Flow{Name: "idle", States: []flow.State{
	{Name: "idle", Next: "done", Exec: &flow.Func{Name: "idle", Version: "1", Call: func(_ context.Context, _ [32]byte, data []byte) ([]byte, error) {
		return data, nil
	}}},
	{Name: "done", End: true},
}}

// goSteps runs a flow over n roots and returns the CPU time.
func goSteps(ctx context.Context, c flow.Config, f *flow.Flow, n int) (ns float64, err error) {
	var ids abi.IDSet
	ids.AddRange(0, uint64(n-1))
	input, err := chunks.FromSeq(ctx, sources.Range("range", ids), chunks.Options{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, input.Close()) }()
	goruntime.GC()
	start := processCPU()
	r, err := flow.NewRunner(c).Run(ctx, &flow.Run{Flow: f, Input: input})
	if err == nil && r.Report.Items.Ended != n {
		err = fmt.Errorf("%d of %d items ended", r.Report.Items.Ended, n)
	}
	return processCPU() - start, err
}

// ourSteps makes steps with our store.
func ourSteps(ctx context.Context, dir string, steps int) (ns float64, err error) {
	s, err := sqlite.Open(ctx, dir, sqlite.Options{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	f := &flow.Flow{Name: "three"}
	for i, next := range []string{"b", "c", "done"} {
		name := string(rune('a' + i))
		f.States = append(f.States, flow.State{Name: name, Next: next, Exec: &flow.Func{Name: name, Version: "1", Call: incrementItem}})
	}
	f.States = append(f.States, flow.State{Name: "done", End: true})
	return goSteps(ctx, flow.Config{Store: s, Records: s}, f, steps/flowStates)
}

// incrementItem is increment for a CBOR item.
func incrementItem(ctx context.Context, _ [32]byte, data []byte) ([]byte, error) {
	h, err := abi.ReadHead(data)
	if err != nil {
		return nil, err
	}
	n, err := increment(ctx, int(h.Arg))
	return abi.AppendHead(nil, abi.MajorUint, uint64(n)), err
}

func increment(_ context.Context, n int) (int, error) { return n + 1, nil }

// threeIncrements is the workflow of go-workflows.
func threeIncrements(ctx workflow.Context, n int) (int, error) {
	for range flowStates {
		var err error
		if n, err = workflow.ExecuteActivity[int](ctx, workflow.DefaultActivityOptions, increment, n).Get(ctx); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// workflowSteps makes steps with go-workflows, and its file of SQLite.
func workflowSteps(ctx context.Context, dir string, steps int) (ns float64, err error) {
	db := workflowdb.NewSqliteBackend(filepath.Join(dir, "workflows.db"), workflowdb.WithBackendOptions(backend.WithLogger(slog.New(slog.DiscardHandler))))
	defer func() { err = errors.Join(err, db.Close()) }()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	w := worker.New(db, nil)
	if err := errors.Join(w.RegisterWorkflow(threeIncrements), w.RegisterActivity(increment)); err != nil {
		return 0, err
	}
	start := processCPU()
	if err := w.Start(ctx); err != nil {
		return 0, err
	}
	err = awaitWorkflows(ctx, client.New(db), steps/flowStates)
	ns = processCPU() - start
	stop()
	return ns, errors.Join(err, w.WaitForCompletion())
}

// awaitWorkflows begins n workflows, and checks their results.
func awaitWorkflows(ctx context.Context, c *client.Client, n int) error {
	instances := make([]*workflow.Instance, n)
	for i := range instances {
		var err error
		if instances[i], err = c.CreateWorkflowInstance(ctx, client.WorkflowInstanceOptions{InstanceID: fmt.Sprint("w", i)}, threeIncrements, i); err != nil {
			return err
		}
	}
	for i, one := range instances {
		got, err := client.GetWorkflowResult[int](ctx, c, one, 10*time.Minute)
		if err == nil && got != i+flowStates {
			err = fmt.Errorf("workflow %d returned %d, want %d", i, got, i+flowStates)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// idleJob is a job of River that does nothing.
type idleJob struct{}

// Kind implements [river.JobArgs].
func (idleJob) Kind() string { return "idle" }

// riverSteps makes steps with River, and its driver for SQLite.
func riverSteps(ctx context.Context, dir string, steps int) (ns float64, err error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "river.db")+"?_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=busy_timeout(5000)")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1) // as the driver's documentation asks
	driver := riversqlite.New(db)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return 0, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return 0, err
	}
	left, done, workers := atomic.Int64{}, make(chan struct{}), river.NewWorkers()
	left.Store(int64(steps))
	river.AddWorker(workers, river.WorkFunc(func(context.Context, *river.Job[idleJob]) error {
		if left.Add(-1) == 0 {
			close(done)
		}
		return nil
	}))
	c, err := river.NewClient(driver, &river.Config{
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 1000}}, Workers: workers, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return 0, err
	}
	start := processCPU()
	err = awaitJobs(ctx, c, steps, done)
	ns = processCPU() - start
	completed := 0
	err = errors.Join(err, db.QueryRowContext(ctx, "select count(*) from river_job where state = 'completed'").Scan(&completed))
	if err == nil && completed != steps {
		err = fmt.Errorf("%d of %d jobs have completed", completed, steps)
	}
	return ns, err
}

// awaitJobs inserts n jobs, waits for them, and stops the client, which then has recorded
// that they have completed.
func awaitJobs(ctx context.Context, c *river.Client[*sql.Tx], n int, done <-chan struct{}) error {
	jobs := make([]river.InsertManyParams, n)
	for i := range jobs {
		jobs[i].Args = idleJob{}
	}
	if _, err := c.InsertMany(ctx, jobs); err != nil {
		return err
	}
	if err := c.Start(ctx); err != nil {
		return err
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
	return errors.Join(c.Stop(context.WithoutCancel(ctx)), ctx.Err())
}
