package cluster_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// proxy stands between a worker and the server, and cuts one connection: before, in or
// after the n-th message that it forwards, counted over all connections.
type proxy struct {
	server string // its socket
	count  atomic.Int64
	n      int64
	how    int // 0 before, 1 in, 2 after
	cuts   atomic.Int64
}

// listen serves a socket in a new folder, and returns the folder.
func (p *proxy) listen(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "wjproxy")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		all.Wait()
		os.RemoveAll(dir)
	})
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("unix", p.server)
			if err != nil {
				c.Close()
				continue
			}
			all.Go(func() { p.pass(c, s) })
			all.Go(func() { p.pass(s, c) })
		}
	})
	return dir
}

// pass forwards the messages of one side, until either side closes.
func (p *proxy) pass(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		send := b[:n]
		cut := p.count.Add(1) == p.n
		if cut {
			p.cuts.Add(1)
			send = send[:[]int{0, n / 2, n}[p.how]]
		}
		if _, err := to.Write(send); err != nil || cut {
			return
		}
	}
}

// TestLostAnswers cuts the connection between a worker and the server at each of many
// messages: the result is the same, and no chunk is executed more than twice.
func TestLostAnswers(t *testing.T) {
	server := pgtest.Shared(t)
	url := server.Database(t)
	s := openStore(t, url)
	const chunks = 60
	j := jobOver(t, faulty, working(chunks, 1000))
	want := local(t, j)
	step := int64(14) // make chaos cuts at each message
	if *chaosJobs > 2 {
		step = 1
	}
	cuts := int64(0)
	for n := int64(1); n < 140; n += step {
		p := &proxy{server: filepath.Join(server.Dir(), ".s.PGSQL.5432"), n: n, how: int(n) % 3}
		dir := p.listen(t)
		id := submit(t, s, j)
		stop := start(t, strings.Replace(url, server.Dir(), dir, 1), 2, func(c *cluster.Config) { c.Name = "cut" })
		got, progress := collect(t, s, id)
		if err := stop(); err != nil {
			t.Errorf("cut %d: %v", n, err)
		}
		equal(t, got, want)
		if progress.Executions > 2*chunks || progress.Conflicts > 0 {
			t.Errorf("cut %d: %+v", n, progress)
		}
		cuts += p.cuts.Load()
		if err := s.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if cuts < 5 {
		t.Errorf("only %d connections were cut", cuts)
	}
	t.Logf("%d connections were cut", cuts)
}
