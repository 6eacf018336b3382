//go:build linux

package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These are long with the flags of make serve-load, and short without.
var (
	serveLoad        = flag.Duration("serve-load", time.Second, "how long a server is asked for twice as much as it can do")
	serveRequests    = flag.Int("serve-requests", 20_000, "how many requests one server answers")
	serveConnections = flag.Int("serve-connections", 200, "how many connections say nothing")
)

// cpu returns the CPU time of a process.
func (s *served) cpu(t *testing.T) time.Duration {
	var at unix.Timespec
	if err := unix.ClockGettime(int32(^s.cmd.Process.Pid<<3|2), &at); err != nil { // clock_getcpuclockid(3)
		t.Fatal(err)
	}
	return time.Duration(at.Nano())
}

// memory returns the resident memory of a process in MiB.
func (s *served) memory(t *testing.T) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib >> 10
}

// loadOf counts the answers that an open-loop generator got.
type loadOf struct {
	mu       sync.Mutex
	accepted []time.Duration // until the answer, of status 200
	rejected []time.Duration
	wrong    map[string]int
}

func (l *loadOf) add(code int, retryAfter bool, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case code == 200:
		l.accepted = append(l.accepted, d)
	case code == 503 && retryAfter:
		l.rejected = append(l.rejected, d)
	default:
		l.wrong[fmt.Sprint("status ", code)]++
	}
}

func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[int(q*float64(len(all)-1))]
}

// countTo is a request that takes some milliseconds; each is another.
func countTo(n int) string { return fmt.Sprintf(`{"do":"work","n":%d}`, 1_000_000+n) }

// A generator that does not wait for answers sends twice as many requests as the server
// can execute: it answers nearly as many as it can, rejects the rest, and then recovers.
func TestServeOverload(t *testing.T) {
	s := serveTest(t, "--listen", "127.0.0.1:0", "-j", "1", "--max-wait", "300ms", "faulty="+faultyWasm)
	s.http.Transport.(*http.Transport).MaxIdleConnsPerHost = 1000
	began, served := time.Now(), 0
	for ; time.Since(began) < *serveLoad/4; served++ { // one after the other
		if code, _ := s.post(countTo(served)); code != 200 {
			t.Fatalf("status %d", code)
		}
	}
	each := time.Since(began) / time.Duration(served)
	before := s.memory(t)
	sent, took, seen := s.overload(t.Context(), each/2, served)
	after := s.memory(t)
	began = time.Now()
	const more = 100
	for n := range more {
		if code, _ := s.post(countTo(n)); code != 200 {
			t.Errorf("after the load: status %d", code)
		}
	}
	capacity := float64(took) / float64(each)
	t.Logf("a request takes %v; %.1f times the capacity of %.0f was sent, %.2f of it were answered, p99 %v; %d were rejected, p50 %v, p99 %v; memory %d MiB before and %d after; then, a request takes %v",
		each, float64(sent)/capacity, capacity, float64(len(seen.accepted))/capacity, quantile(seen.accepted, .99), len(seen.rejected), quantile(seen.rejected, .5), quantile(seen.rejected, .99), before, after, time.Since(began)/more)
	if len(seen.wrong) > 0 || len(seen.accepted) == 0 { // without rejections, the machine became faster
		t.Errorf("%d answered, %d rejected, %v", len(seen.accepted), len(seen.rejected), seen.wrong)
	}
	numbers := s.numbers(t)
	if executed := numbers[`wasm_jobs_queue_seconds_count{module="faulty"}`]; executed != served+len(seen.accepted)+more {
		t.Errorf("%d were executed, and %d answered", executed, served+len(seen.accepted)+more)
	}
	if rejected := numbers[`wasm_jobs_rejected_total{reason="full"}`] + numbers[`wasm_jobs_rejected_total{reason="wait"}`]; rejected != len(seen.rejected) {
		t.Errorf("%d were rejected, and %d got status 503", rejected, len(seen.rejected))
	}
	if code := s.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d: %s", code, s.said.text())
	}
}

// overload sends a request in each interval, for the time of -serve-load, and waits for
// the answers. A generator that comes late sends all that are due.
func (s *served) overload(ctx context.Context, interval time.Duration, first int) (sent int, took time.Duration, seen *loadOf) {
	seen = &loadOf{wrong: map[string]int{}}
	var all sync.WaitGroup
	clock := time.NewTicker(interval)
	defer clock.Stop()
	start := time.Now()
	for ; took < *serveLoad && ctx.Err() == nil; took = time.Since(start) {
		for ; sent < int(took/interval); sent++ {
			n := first + sent
			all.Go(func() {
				sent := time.Now()
				code, retryAfter := s.post(countTo(n))
				seen.add(code, retryAfter, time.Since(sent))
			})
		}
		<-clock.C
	}
	all.Wait()
	return sent, took, seen
}

// Silent connections cost bounded memory, and no time.
func TestServeIdle(t *testing.T) {
	s := serveTest(t, "--listen", "127.0.0.1:0", squareWasm)
	if _, err := s.square(3); err != nil {
		t.Fatal(err)
	}
	before := s.memory(t)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for len(conns) < *serveConnections {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Logf("after %d connections: %v", len(conns), err) // of this process
			break
		}
		conns = append(conns, c)
	}
	const asked = 1000 // connections with one request each: they stay
	for _, c := range conns[:min(asked, len(conns))] {
		_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "HTTP/1.1 200 OK\r\n" {
			t.Fatalf("%q, %v", line, err)
		}
	}
	if len(conns) < maxConnections { // otherwise, a connection waits for others to be closed
		if _, err := s.square(4); err != nil {
			t.Error(err)
		}
	}
	used := s.cpu(t)
	wait := time.After(min(*serveLoad, 5*time.Second))
	<-wait
	t.Logf("%d connections: %d MiB before, %d with them; %v of CPU in %v", len(conns), before, s.memory(t), s.cpu(t)-used, min(*serveLoad, 5*time.Second))
	if code := s.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d: %s", code, s.said.text())
	}
}

// Very many requests: neither memory nor time grows.
func TestServeMany(t *testing.T) {
	s := serveTest(t, "--listen", "127.0.0.1:0", squareWasm)
	body := strings.Repeat("3\n", *serveRequests/100)
	var execs atomic.Int64
	for tenth := range 10 {
		began := time.Now()
		var all sync.WaitGroup
		for range 10 { // batches, in addition to single requests
			all.Go(func() {
				answer, err := s.http.Post(s.at("/v1/square/batch"), "application/jsonl", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				defer answer.Body.Close()
				lines := 0
				for b := bufio.NewScanner(answer.Body); b.Scan(); lines++ {
				}
				if lines != *serveRequests/100 {
					t.Errorf("%d answers", lines)
				}
			})
		}
		for range 20 {
			if _, err := s.square(3); err != nil {
				t.Error(err)
			}
			execs.Add(1)
		}
		all.Wait()
		t.Logf("%d%% of %d requests: %v, %d MiB", (tenth+1)*10, *serveRequests, time.Since(began).Round(time.Millisecond), s.memory(t))
	}
	if code := s.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d: %s", code, s.said.text())
	}
}
