package cluster_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// TestFailover stops the primary server at once in the middle of a job, and promotes its
// standby: no worker is touched, and the result is the same. With a synchronous standby, no
// acknowledged output is missing.
func TestFailover(t *testing.T) {
	for _, mode := range []string{"synchronous", "asynchronous"} {
		t.Run(mode, func(t *testing.T) {
			primary := pgtest.Start(t, true)
			standby := primary.Standby(t)
			if mode == "synchronous" {
				primary.Exec(t, "postgres", "alter system set synchronous_standby_names = 'standby'")
				primary.Exec(t, "postgres", "select pg_reload_conf()")
			}
			url := primary.Database(t)
			both := strings.Replace(url, "host="+primary.Dir(), "host="+primary.Dir()+","+standby.Dir()+"&target_session_attrs=read-write", 1)
			s := openStore(t, both)
			j := jobOver(t, faulty, working(1000, 200_000))
			j.Settings.Seed = uint64(len(mode)) // another job each time
			want := local(t, j)
			id := submit(t, s, j)
			start(t, both, 2, nil)
			start(t, both, 2, nil)
			had := until(t, s, id, "begun", func(p *postgres.Progress) bool { return p.Succeeded > 100 })
			if mode == "asynchronous" {
				standby.Exec(t, "postgres", "select pg_wal_replay_pause()")
				had = until(t, s, id, "further", func(p *postgres.Progress) bool { return p.Succeeded > had.Succeeded || cluster.Ended(p.State) })
			}
			if cluster.Ended(had.State) {
				t.Skip("it was over before the failover")
			}
			primary.Kill()
			standby.Promote(t)
			after := until(t, s, id, "read", func(*postgres.Progress) bool { return true })
			if mode == "synchronous" && after.Succeeded < had.Succeeded {
				t.Errorf("%d outputs after the failover, and %d before", after.Succeeded, had.Succeeded)
			}
			got, p := collect(t, s, id)
			equal(t, got, want)
			if p.Conflicts > 0 || p.Failed > 0 {
				t.Errorf("%+v", p)
			}
			t.Logf("outputs before %d, after %d; executions %d of 1000, mended %d", had.Succeeded, after.Succeeded, p.Executions, p.Mended)
		})
	}
}

// big returns chunks for the faulty guest whose outputs have the given size.
func big(n, size int) (file []byte) {
	text := func(s string) []byte { return append(abi.AppendHead(nil, abi.MajorText, uint64(len(s))), s...) }
	for i := range n {
		file = append(abi.AppendHead(file, abi.MajorMap, 3), text("id")...)
		file = append(abi.AppendHead(file, abi.MajorUint, uint64(i)), text("do")...)
		file = append(append(file, text("big")...), text("size")...)
		file = abi.AppendHead(file, abi.MajorUint, uint64(size))
	}
	return file
}

// TestFullDisk fills the disk of the server: workers say so and keep their outputs, and go
// on when there is room again.
func TestFullDisk(t *testing.T) {
	server := pgtest.Start(t, false)
	url, room := server.Small(t, 24<<20)
	s := openStore(t, url)
	j := jobOver(t, faulty, big(40, 1<<20))
	want := local(t, j)
	id := submit(t, s, j)
	full := make(chan struct{})
	once := sync.OnceFunc(func() { close(full) })
	stop := start(t, url, 2, func(c *cluster.Config) {
		c.Lease = 30 * time.Second
		c.Store = noticing(t, url, func(line string) {
			t.Log(line)
			if strings.Contains(line, "No space left") {
				once()
			}
		})
	})
	select {
	case <-full:
	case <-time.After(time.Minute):
		t.Fatal("the worker did not report the full disk")
	}
	if p := until(t, s, id, "read", func(*postgres.Progress) bool { return true }); p.State != "active" || p.Failed > 0 {
		t.Errorf("%+v", p)
	}
	runOnFull(t, url)
	room()
	got, p := collect(t, s, id)
	equal(t, got, want)
	if p.Conflicts > 0 || p.Executions > 45 {
		t.Errorf("%+v", p)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// runOnFull runs a job here, with outputs on the full disk: it ends with an error of the
// store, and the database counts as reachable.
func runOnFull(t *testing.T, url string) {
	t.Helper()
	s, err := postgres.Open(t.Context(), url, postgres.Options{Connections: 2, GiveUp: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := host.New(t.Context(), host.Config{Workers: 1, Engine: shared, Store: s, Journal: s})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	j := jobOver(t, faulty, big(4, 8<<20))
	_, err = c.Run(t.Context(), j)
	if _, ok := errors.AsType[*host.StoreError](err); !ok || errors.Is(err, postgres.ErrUnreachable) {
		t.Errorf("a run on a full disk: %v", err)
	}
}

// noticing opens a store with a function for notices.
func noticing(t *testing.T, url string, notice func(line string)) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), url, postgres.Options{Connections: 5, GiveUp: time.Minute, Notice: notice})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestDamagedInput damages the module or the chunks of a submitted job, in the database or in
// the shared directory: the job breaks, and when it is submitted again, as its error says,
// only what is damaged is sent again.
func TestDamagedInput(t *testing.T) {
	for _, where := range []string{"tables", "directory"} {
		for role, of := range map[string]string{"module": "files", "chunks": "segments"} {
			t.Run(where+"/"+role, func(t *testing.T) {
				t.Parallel()
				url := pgtest.URL(t)
				s := openStore(t, url)
				submission := cluster.Submission{Store: s, Priority: 127}
				dir := t.TempDir()
				if where == "directory" {
					blobs, err := cluster.SharedDir(dir, s)
					if err != nil {
						t.Fatal(err)
					}
					submission.Shared = blobs
				}
				j := newJob(t, square, 3000)
				whole, err := cluster.Submit(t.Context(), j, submission)
				if err != nil {
					t.Fatal(err)
				}
				var damaged int64
				var digest string
				queryRow(t, url, "select size, encode(digest, 'hex') from wasm_jobs.blobs join wasm_jobs."+of+" using (digest)", &damaged, &digest)
				if where == "directory" {
					must(t, os.Truncate(filepath.Join(dir, digest[:2], digest), damaged-1))
				} else {
					pgtest.Exec(t, url, fmt.Sprintf(`update wasm_jobs.blobs set data = set_byte(data, 9, 255 - get_byte(data, 9)) where digest = '\x%s'`, digest))
				}
				start(t, url, 1, func(c *cluster.Config) { c.Shared = submission.Shared })
				if p := until(t, s, whole.Job, "over", func(p *postgres.Progress) bool { return cluster.Ended(p.State) }); p.State != "broken" || !strings.Contains(p.Error, "submit the job again") {
					t.Fatalf("%+v", p)
				}
				again, err := cluster.Submit(t.Context(), j, submission)
				if err != nil || again.Sent != damaged || again.Skipped != whole.Sent-damaged {
					t.Fatalf("%+v, %v; want %d bytes of %d sent", again, err, damaged, whole.Sent)
				}
				got, _ := collectFrom(t, s, submission.Shared, whole.Job)
				equal(t, got, local(t, j))
			})
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
