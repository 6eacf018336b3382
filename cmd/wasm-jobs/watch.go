package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/telemetry"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/tracing"
	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

func metricsFlag() cli.Flag {
	return &cli.StringFlag{Name: "metrics", Usage: "serve metrics for Prometheus at `ADDR`, under /metrics, such as 127.0.0.1:9464; port 0 = any"}
}

func traceFlag() cli.Flag {
	return &cli.StringFlag{Name: "trace-otlp", DefaultText: "$OTEL_EXPORTER_OTLP_ENDPOINT", Usage: "send spans to the OpenTelemetry collector at `URL`, as OTLP over HTTP"}
}

// watchOptions are the flags with which others watch a job. The zero value is of a job that
// nobody watches.
type watchOptions struct {
	metrics string // address
	trace   string // URL of the collector
}

func parseWatch(ctx *cli.Context) (w watchOptions, err error) {
	if w.metrics = ctx.String("metrics"); isSet(ctx, "metrics") {
		if _, _, err := net.SplitHostPort(w.metrics); err != nil {
			return w, usageErrorf("invalid --metrics %q: want HOST:PORT, such as 127.0.0.1:9464", w.metrics)
		}
	}
	w.trace = ctx.String("trace-otlp")
	if isSet(ctx, "trace-otlp") && w.trace == "" {
		return w, usageErrorf("empty --trace-otlp: want the URL of a collector")
	}
	return w, nil
}

// watch is the open ends of [watchOptions]: a server of metrics and a tracer, each nil if
// nobody asked for it.
type watch struct {
	server *telemetry.Server
	tracer *tracing.Tracer
	err    io.Writer
}

// open starts the server of metrics, and prepares the tracer.
func (o *watchOptions) open(ctx context.Context, c *console, write func(io.Writer)) (w *watch, err error) {
	w = &watch{err: c.err}
	if err := w.openTracer(o.trace); err != nil {
		return nil, err
	}
	if o.metrics == "" {
		return w, nil
	}
	if w.server, err = telemetry.Listen(ctx, o.metrics, write); err != nil {
		return nil, usageErrorf("invalid --metrics %q: %w", o.metrics, err)
	}
	fmt.Fprintf(c.err, "wasm-jobs: metrics on http://%s/metrics\n", w.server.Address())
	return w, nil
}

// openTracer prepares the tracer. The variables are for all programs of a machine, so one
// that is not for this program does not refuse the job.
func (w *watch) openTracer(endpoint string) (err error) {
	given := endpoint != ""
	if !given && os.Getenv("OTEL_SDK_DISABLED") != "true" && os.Getenv("OTEL_TRACES_EXPORTER") != "none" {
		endpoint = os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT")
	}
	if endpoint == "" {
		return nil
	}
	w.tracer, err = tracing.New(tracing.Config{Endpoint: endpoint, Headers: os.Getenv("OTEL_EXPORTER_OTLP_HEADERS"), Version: readVersion().Version})
	if err != nil && given {
		return usageErrorf("invalid --trace-otlp %q: %w", endpoint, err)
	}
	if err != nil {
		fmt.Fprintf(w.err, "wasm-jobs: warning: no spans are sent: invalid OTEL_EXPORTER_OTLP_ENDPOINT %q: %v\n", endpoint, err)
	}
	return nil
}

// close ends the server, and sends the remaining spans.
func (w *watch) close() {
	if w.server != nil {
		w.server.Close()
	}
	if w.tracer == nil {
		return
	}
	if err := w.tracer.Close(); err != nil {
		fmt.Fprintf(w.err, "wasm-jobs: warning: spans were not sent: %s\n", printable(err.Error()))
	}
}

// watchedJob has the observers of a watched job.
type watchedJob struct {
	*watch
	numbers *telemetry.Job // nil = none
	spans   *tracing.Job   // nil = none
}

// watchJob returns the observers of a job, which is about to begin.
func (o *watchOptions) watchJob(ctx context.Context, c *console, name string) (*watchedJob, error) {
	j := &watchedJob{}
	if o.metrics != "" {
		j.numbers = telemetry.NewJob()
	}
	var err error
	if j.watch, err = o.open(ctx, c, func(w io.Writer) { j.numbers.Write(w) }); err != nil {
		return nil, err
	}
	if j.tracer != nil {
		j.spans = j.tracer.Job(name)
	}
	return j, nil
}

// with returns the observer together with those of the job.
func (j *watchedJob) with(o host.Observer) host.Observer {
	all := []host.Observer{o}
	if j.numbers != nil {
		all = append(all, j.numbers)
	}
	if j.spans != nil {
		all = append(all, j.spans)
	}
	if len(all) == 1 {
		return o
	}
	return event.Multi(all...)
}

// finish takes the numbers of the report, and ends the spans. result may be nil.
func (j *watchedJob) finish(result *host.Result, err error) {
	var r *host.Report
	if result != nil {
		r = &result.Report
	}
	if j.numbers != nil && r != nil {
		j.numbers.Finish(r)
	}
	if j.spans != nil {
		j.spans.Finish(r, err)
	}
}

// watchedFlow has the observers of a watched run of a flow.
type watchedFlow struct {
	*watch
	numbers telemetry.Flow
	spans   *tracing.Flow // nil = none
	asked   bool          // somebody watches
}

func (o *watchOptions) watchFlow(ctx context.Context, c *console, name string) (*watchedFlow, error) {
	f := &watchedFlow{}
	var err error
	if f.watch, err = o.open(ctx, c, f.numbers.Write); err != nil {
		return nil, err
	}
	if f.tracer != nil {
		f.spans = f.tracer.Flow(name)
	}
	f.asked = f.server != nil || f.tracer != nil
	return f, nil
}

// with returns a function that passes reports to next, which may be nil, and to the
// observers.
func (f *watchedFlow) with(next func(*flow.Report)) func(*flow.Report) {
	if !f.asked {
		return next
	}
	return func(r *flow.Report) {
		f.numbers.Observe(r)
		if f.spans != nil {
			f.spans.Report(r)
		}
		if next != nil {
			next(r)
		}
	}
}

// events returns an observer of events, together with that of the spans.
func (f *watchedFlow) events(o event.Observer) event.Observer {
	if f.spans == nil {
		return o
	}
	return event.Multi(o, f.spans)
}

// finish takes the numbers of the last report, and ends the spans. result may be nil.
func (f *watchedFlow) finish(result *flow.Result, err error) {
	var r *flow.Report
	if result != nil {
		r = &result.Report
		f.numbers.Observe(r)
	}
	if f.spans != nil {
		f.spans.Finish(r, err)
	}
}

// watchedWorker is the watcher of a worker.
type watchedWorker struct {
	*watch
	numbers *workerNumbers
	spans   *tracing.Worker // nil = none
}

// watchWorker returns the watcher of a worker, which is about to begin.
func (o *watchOptions) watchWorker(ctx context.Context, c *console, numbers *workerNumbers) (*watchedWorker, error) {
	w := &watchedWorker{numbers: numbers}
	var err error
	if w.watch, err = o.open(ctx, c, numbers.write); err != nil {
		return nil, err
	}
	if w.tracer != nil {
		w.spans = w.tracer.Worker(numbers.name)
	}
	return w, nil
}

// Observe implements [cluster.Watcher].
func (w *watchedWorker) Observe(job store.JobID, name string, events []event.Event) {
	if w.spans != nil {
		w.spans.Observe(job, name, events)
	}
}

// Stored implements [cluster.Watcher].
func (w *watchedWorker) Stored(outputs int, fuel uint64) { w.numbers.stored.Add(outputs, fuel) }

// workerNumbers reads the numbers of a worker from the shared store, at most once a second
// however often it is scraped.
type workerNumbers struct {
	workers func(context.Context) ([]postgres.WorkerState, error)
	name    string
	host    string
	pid     int
	stored  telemetry.Stored

	mu     sync.Mutex
	read   time.Time
	last   telemetry.Worker
	errors uint64
}

// scrapeTime bounds one reading of the store.
const scrapeTime = 2 * time.Second

func (n *workerNumbers) write(to io.Writer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Since(n.read) > time.Second {
		n.refresh()
	}
	n.last.Write(to, &n.stored, n.errors)
}

// refresh reads the numbers. If it fails, those of before stay. mu is held.
func (n *workerNumbers) refresh() {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	n.read = time.Now()
	list, err := n.workers(ctx)
	if err != nil {
		n.errors++
		return
	}
	for i := range list {
		if w := &list[i]; w.Name == n.name && w.Host == n.host && w.PID == n.pid && w.State != "gone" {
			n.last = telemetry.Worker{Slots: w.Slots, Busy: w.Busy, Chunks: w.Chunks, Lost: w.Lost}
		}
	}
}
