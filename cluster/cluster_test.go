package cluster_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

var shared host.Engine

func TestMain(m *testing.M) {
	dir, other := os.Getenv(cacheDir), os.Getenv(cacheDir) != ""
	if !other {
		made, err := os.MkdirTemp("", "cluster")
		if err != nil {
			panic(err)
		}
		dir = made
		os.Setenv(cacheDir, dir) // processes that are killed leave none
	}
	r, err := runtime.New(context.Background(), runtime.Config{CacheDir: dir})
	if err != nil {
		panic(err)
	}
	shared = host.NewEngine(r)
	if other {
		os.Exit(beOther())
	}
	code := m.Run()
	shared.Close(context.Background())
	os.RemoveAll(dir)
	pgtest.Stop()
	os.Exit(code)
}

// openStore opens a store in the database of a URL.
func openStore(t testing.TB, url string) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), url, postgres.Options{Create: true, Connections: 5, GiveUp: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// guest reads a module of the repository.
func guest(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	square = "guest-examples/square/c/square.wasm"
	faulty = "guest-examples/faulty/c/faulty.wasm"
)

// newJob returns a job over the integers 0..n-1.
func newJob(t testing.TB, module string, n int) *host.Job {
	t.Helper()
	return jobOver(t, module, numbers(n))
}

// numbers returns the chunks 0..n-1.
func numbers(n int) (file []byte) {
	for i := range n {
		file = abi.AppendHead(file, abi.MajorUint, uint64(i))
	}
	return file
}

func jobOver(t testing.TB, module string, file []byte) *host.Job {
	t.Helper()
	path := filepath.Join(t.TempDir(), "chunks.cbor")
	if err := os.WriteFile(path, file, 0o644); err != nil {
		t.Fatal(err)
	}
	j, err := makeJob(t.Context(), guest(t, module), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Chunks.(io.Closer).Close() })
	return j
}

// makeJob returns a job over a file of chunks.
func makeJob(ctx context.Context, module []byte, path string) (*host.Job, error) {
	in, err := chunks.Open(ctx, path, chunks.Options{})
	if err != nil {
		return nil, err
	}
	j := &host.Job{Module: module, Chunks: in, Retry: host.DefaultRetry(), Settings: runtime.Settings{Timeout: 10 * time.Second}}
	j.Retry.Backoff, j.Outputs = time.Millisecond, true
	j.Admitted, err = shared.Admit(ctx, j.Module, j.Options)
	return j, err
}

// result is all that users see of a result.
type result struct {
	outputs, dead, receipt []byte
	aggregate              [sha256.Size]byte
	err                    string
}

func resultOf(t testing.TB, r *host.Result, err error) (got result) {
	t.Helper()
	if r == nil {
		t.Fatalf("no result: %v", err)
	}
	if err != nil {
		got.err = err.Error()
	}
	var outputs, dead bytes.Buffer
	if err := errors.Join(r.WriteOutputs(t.Context(), &outputs), r.WriteDeadLetter(t.Context(), &dead)); err != nil {
		t.Fatal(err)
	}
	got.outputs, got.dead, got.aggregate = outputs.Bytes(), dead.Bytes(), sha256.Sum256(r.Aggregate)
	if receipt, err := r.Receipt(); err == nil {
		if got.receipt, err = receipt.Marshal(); err != nil {
			t.Fatal(err)
		}
	}
	return got
}

// local runs a job in this process.
func local(t testing.TB, j *host.Job) result {
	t.Helper()
	c, err := host.New(t.Context(), host.Config{Workers: 2, Engine: shared})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	r, err := c.Run(t.Context(), j)
	return resultOf(t, r, err)
}

// submit submits a job.
func submit(t testing.TB, s *postgres.Store, j *host.Job) store.JobID {
	t.Helper()
	u, err := cluster.Submit(t.Context(), j, cluster.Submission{Store: s, Priority: 127})
	if err != nil {
		t.Fatal(err)
	}
	return u.Job
}

// start starts a worker with its own store, and returns a function that stops it.
func start(t testing.TB, url string, slots int, change func(c *cluster.Config)) (stop func() error) {
	t.Helper()
	s := openStore(t, url)
	c := cluster.Config{
		Store: s, Engine: shared, Slots: slots, Name: "w", App: "test", Host: "here", PID: os.Getpid(), Lease: 2 * time.Second, Modules: 4, Grace: 5 * time.Second,
		Notice: func(line string) { t.Log(line) },
	}
	if change != nil {
		change(&c)
	}
	soft, cancel := context.WithCancel(t.Context())
	var err error
	var done sync.WaitGroup
	done.Go(func() {
		if err = cluster.Work(context.WithoutCancel(t.Context()), soft, c); err != nil && soft.Err() == nil {
			t.Errorf("worker: %v", err)
		}
	})
	stop = sync.OnceValue(func() error {
		cancel()
		done.Wait()
		s.Close() // tests that start many workers would run out of connections
		return err
	})
	t.Cleanup(func() { stop() })
	return stop
}

// collect waits for a job, and returns its result.
func collect(t testing.TB, s *postgres.Store, id store.JobID) (result, *postgres.Progress) {
	t.Helper()
	return collectFrom(t, s, nil, id)
}

// collectFrom is collect for a job whose input is in a shared directory, if blobs is not nil.
func collectFrom(t testing.TB, s *postgres.Store, blobs cluster.Blobs, id store.JobID) (result, *postgres.Progress) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var last postgres.Progress
	p, err := cluster.Wait(ctx, s, id, func(p *postgres.Progress) error { last = *p; return nil })
	if err != nil {
		t.Fatalf("%v; %+v", err, last)
	}
	record, err := journal.Find(ctx, s, journal.Name(id))
	if err != nil {
		t.Fatal(err)
	}
	r, err := cluster.Collect(ctx, s, &cluster.Collection{Record: record.Record, Progress: p, Engine: shared, Outputs: true, Shared: blobs})
	return resultOf(t, r, err), p
}

func equal(t testing.TB, got, want result) {
	t.Helper()
	if !bytes.Equal(got.outputs, want.outputs) {
		t.Errorf("%d bytes of outputs, want %d", len(got.outputs), len(want.outputs))
	}
	if !bytes.Equal(got.dead, want.dead) {
		t.Errorf("dead letter %x, want %x", got.dead, want.dead)
	}
	if !bytes.Equal(got.receipt, want.receipt) {
		t.Errorf("receipt %s, want %s", got.receipt, want.receipt)
	}
	if got.aggregate != want.aggregate {
		t.Error("another aggregate")
	}
	if (got.err == "") != (want.err == "") {
		t.Errorf("error %q, want %q", got.err, want.err)
	}
}

// TestEqual runs jobs in this process and with workers, and compares all that users see.
func TestEqual(t *testing.T) {
	jobs := map[string]func(t *testing.T) *host.Job{
		"no chunks":       func(t *testing.T) *host.Job { return newJob(t, square, 0) },
		"one chunk":       func(t *testing.T) *host.Job { return newJob(t, square, 1) },
		"many chunks":     func(t *testing.T) *host.Job { return newJob(t, square, 5000) },
		"text ids":        func(t *testing.T) *host.Job { return jobOver(t, "testdata/wasm/echo.wasm", mixedIDs(300)) },
		"merge of floats": func(t *testing.T) *host.Job { return newJob(t, "testdata/wasm/groups.wasm", 25_000) },
		"failing chunks":  func(t *testing.T) *host.Job { return jobOver(t, faulty, kinds()) },
		"failing setup":   func(t *testing.T) *host.Job { return newJob(t, "testdata/wasm/setup-fails.wasm", 3) },
		"aggregate traps": func(t *testing.T) *host.Job { return newJob(t, "testdata/wasm/aggregate-traps.wasm", 3) },
		"no aggregate":    func(t *testing.T) *host.Job { return newJob(t, "testdata/wasm/echo.wasm", 100) },
		"one may fail": func(t *testing.T) *host.Job {
			j := jobOver(t, faulty, kinds())
			j.MaxFailures = new(int)
			return j
		},
	}
	url := pgtest.URL(t)
	s := openStore(t, url)
	start(t, url, 2, nil)
	start(t, url, 2, nil)
	for name, make := range jobs {
		t.Run(name, func(t *testing.T) {
			j := make(t)
			id := submit(t, s, j)
			got, p := collect(t, s, id)
			want := local(t, j)
			if name == "one may fail" { // the number of stopped chunks depends on timing
				if p.State != "incomplete" || p.Failed == 0 {
					t.Errorf("%+v", p)
				}
				return
			}
			equal(t, got, want)
			if p.Conflicts > 0 {
				t.Errorf("%d conflicts", p.Conflicts)
			}
			if again := submit(t, s, j); again != id {
				t.Error("another job")
			}
		})
	}
}

// mixedIDs returns chunks whose ids are shuffled integers and texts.
func mixedIDs(n int) (file []byte) {
	text := func(s string) []byte { return append(abi.AppendHead(nil, abi.MajorText, uint64(len(s))), s...) }
	for i := range n {
		k := (i * 7919) % n
		file = append(abi.AppendHead(file, abi.MajorMap, 2), text("id")...)
		if k%2 == 0 {
			file = abi.AppendHead(file, abi.MajorUint, uint64(k))
		} else {
			file = append(file, text(fmt.Sprintf("t%d-é", k))...)
		}
		file = append(append(file, text("x")...), text("v")...)
	}
	return file
}

// kinds returns a chunk of each kind that the faulty guest knows, and the chunks around it.
func kinds() (file []byte) {
	for i := range 12 {
		file = abi.AppendHead(file, abi.MajorUint, uint64(i))
	}
	return file
}

// TestCollectTheAggregate makes the result of a job whose outputs are gone: they are read
// only if they are wanted.
func TestCollectTheAggregate(t *testing.T) {
	url := pgtest.URL(t)
	s := openStore(t, url)
	j := newJob(t, square, 100)
	want := local(t, j)
	id := submit(t, s, j)
	start(t, url, 1, nil)
	_, p := collect(t, s, id)
	record, err := journal.Find(t.Context(), s, journal.Name(id))
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, "delete from wasm_jobs.packs where job is not null")
	s = openStore(t, url) // the first one has read them
	for _, outputs := range []bool{true, false} {
		r, err := cluster.Collect(t.Context(), s, &cluster.Collection{Record: record.Record, Progress: p, Engine: shared, Outputs: outputs})
		if outputs {
			if _, missing := errors.AsType[*host.MissingError](err); !missing {
				t.Errorf("with outputs: %v", err)
			}
			continue
		}
		if err != nil || sha256.Sum256(r.Aggregate) != want.aggregate {
			t.Fatalf("without outputs: %v, another aggregate", err)
		}
		receipt, err := r.Receipt()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := receipt.Marshal(); err != nil || !bytes.Equal(b, want.receipt) {
			t.Errorf("receipt %s, %v", b, err)
		}
	}
}
