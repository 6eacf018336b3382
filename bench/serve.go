package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasm-jobs/wasm-jobs/processor"
	"github.com/wasm-jobs/wasm-jobs/processor/web"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// servingFlag makes the program the server that -serve measures. The server is a separate
// process, so its CPU time does not include the client's.
const servingFlag = "-serving"

// servedGuest is a module for handlers.
type servedGuest struct {
	name string
	work *work
}

// servedGuests are a guest in C and one in Go that return a number.
func servedGuests(ctx context.Context, t *tools) ([]servedGuest, error) {
	k := kernels()[0]
	inC, err := newWork(ctx, k, t)
	if err != nil {
		return nil, err
	}
	wasm, err := buildGuest(ctx, "noopgo", t.dir)
	if err != nil {
		return nil, err
	}
	return []servedGuest{{"noop", inC}, {"go", &work{kernel: k, modules: modules{abi: wasm, wasi: true}, want: k.chunk, tools: t}}}, nil
}

// serving serves all compared handlers until standard input ends.
func serving(ctx context.Context, stdin io.Reader, stdout io.Writer) (err error) {
	t, err := newTools(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	guests, err := servedGuests(ctx, t)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	ours, err := serveOurs(ctx, t, guests)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ours.Drain(context.Background())) }()
	others, err := serveOthers(ctx, mux, guests)
	defer func() { err = errors.Join(err, closeAll(others)) }()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { // until standard input ends
		_, _ = io.Copy(io.Discard, stdin)
		l.Close()
	}()
	fmt.Fprintln(stdout, l.Addr())
	// As the command serve does, for all handlers. Neither it nor echo needs a mux.
	h := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case strings.HasPrefix(path, "/v1/"):
			ours.ServeHTTP(w, r)
		case path == "/echo":
			echo(w, r)
		default:
			mux.ServeHTTP(w, r)
		}
	}), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, ConnContext: web.ConnContext}
	_ = h.Serve(listener{l})
	return nil
}

// listener accepts connections as the command serve does.
type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return web.Conn(c), nil
}

// echo returns the body: the minimum work of a server.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	_, _ = w.Write(body)
}

func serveOurs(ctx context.Context, t *tools, guests []servedGuest) (*web.Server, error) {
	workers := goruntime.GOMAXPROCS(0)
	s, err := web.New(web.Config{Workers: workers, MaxWait: time.Second, Timeout: 30 * time.Second})
	if err != nil {
		return nil, err
	}
	var all []web.Module
	for _, g := range guests {
		m, err := processor.Open(ctx, g.work.modules.abi, processor.Options{Runtime: t.runtime, Workers: workers, Settings: runtime.Settings{Timeout: 30 * time.Second}}) // as serve does
		if err != nil {
			return nil, err
		}
		all = append(all, web.Module{Name: g.name, Module: m})
	}
	return s, s.Swap(ctx, all)
}

// serveOthers serves guests on the other sides, at /SIDE/GUEST. One request at a time uses
// a runner.
func serveOthers(ctx context.Context, mux *http.ServeMux, guests []servedGuest) (all []opened, err error) {
	for _, side := range []struct {
		name string
		open opener
	}{{"wazero-new", openWazero(false)}, {"extism-reused", openExtismReused}, {"extism-new", openExtismNew}} {
		for _, g := range guests {
			if g.work.modules.extism == nil && side.name != "wazero-new" {
				continue
			}
			pool := make(chan runner, goruntime.GOMAXPROCS(0))
			for range cap(pool) {
				r, err := side.open(ctx, g.work)
				if err != nil {
					return all, err
				}
				all = append(all, opened{runner: r})
				pool <- r
			}
			mux.HandleFunc("/"+side.name+"/"+g.name, func(w http.ResponseWriter, r *http.Request) {
				if _, err := io.ReadAll(r.Body); err != nil { // all requests are the chunk of the work
					return
				}
				one := <-pool
				output, err := one.run(r.Context(), 1)
				output = bytes.Clone(output)
				pool <- one
				if err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
					return
				}
				w.Header().Set("Content-Type", "application/cbor")
				_, _ = w.Write(output)
			})
		}
	}
	return all, nil
}

// variant is one kind of request.
type variant struct {
	name, path, contentType string
	body                    []byte
	each                    int // requests in one post; 1 except for batches
	posts, senders          int // in a round, and connections that send them at once
}

// servers measures a server.
type servers struct {
	address  string
	pid      int
	samples  map[string][]float64 // CPU nanoseconds of the server per request, one per round
	quiet    map[string][]float64 // nanoseconds from a post to the end of its answer, on one connection
	variants []variant
}

// measureServe measures all claims about requests over HTTP.
func measureServe(ctx context.Context, rounds int, to io.Writer) (r *commandReport, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, servingFlag)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer func() { in.Close(); err = errors.Join(err, cmd.Wait()) }()
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("the server does not start: %w", err)
	}
	s := &servers{address: strings.TrimSpace(address), pid: cmd.Process.Pid, samples: map[string][]float64{}, quiet: map[string][]float64{}}
	s.prepare()
	t, err := newTools(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	pipe, err := openPipes(ctx, t)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pipe.close()) }()
	for round := range rounds {
		fmt.Fprintf(to, "requests: round %d of %d\n", round+1, rounds)
		if err := s.round(); err != nil {
			return nil, err
		}
		piped, call, err := pipe.round(ctx)
		if err != nil {
			return nil, err
		}
		s.samples[pipeCalls], s.samples[bareCalls] = append(s.samples[pipeCalls], piped), append(s.samples[bareCalls], call)
	}
	r = &commandReport{Version: reportVersion, Machine: thisMachine(), Rounds: rounds}
	s.report(r)
	return r, nil
}

func (s *servers) prepare() {
	chunk := kernels()[0].chunk
	one := func(name, path, contentType string, body []byte, posts int) variant {
		return variant{name, path, contentType, body, 1, posts, connections}
	}
	const cbor = "application/cbor"
	s.variants = []variant{
		one("echo", "/echo", cbor, chunk, 8000),
		one("exec, CBOR", "/v1/noop/exec", cbor, chunk, 8000),
		one("exec, JSON", "/v1/noop/exec", "application/json", []byte("16909060"), 8000),
		one("exec, a guest in Go", "/v1/go/exec", cbor, chunk, 8000),
		one("wazero, new", "/wazero-new/noop", cbor, chunk, 4000),
		one("wazero, new, a guest in Go", "/wazero-new/go", cbor, chunk, 40), // takes milliseconds
		one("Extism, reused", "/extism-reused/noop", cbor, chunk, 2000),
		one("Extism, new", "/extism-new/noop", cbor, chunk, 2000),
		{"batch", "/v1/noop/batch", "application/cbor-seq", bytes.Repeat(chunk, 20_000), 20_000, 2, 2},
	}
}

const (
	// connections is how many connections send posts at once: as many as wrk opens if
	// nobody says otherwise. With fewer, the server sleeps between posts, and most of its
	// CPU time is that of waking it.
	connections = 10
	// turns is how often in a round each variant has its turn, so that what else the
	// machine does meets all of them.
	turns = 20
)

// round sends the posts of each variant, in turns that begin with another variant each.
// Those with few posts send them in the first turn.
func (s *servers) round() error {
	spent := make([]float64, len(s.variants))
	links := make([][]*link, len(s.variants))
	defer func() {
		for _, l := range slices.Concat(links...) {
			l.conn.Close()
		}
	}()
	for turn := range turns {
		for n := range s.variants {
			i := (n + turn) % len(s.variants)
			v := &s.variants[i]
			posts := v.posts / turns
			switch {
			case posts < v.senders && turn > 0:
				continue
			case posts < v.senders:
				posts = v.posts
			}
			cpu, err := s.turn(v, posts, &links[i])
			if err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
			spent[i] += cpu
		}
	}
	for i, v := range s.variants {
		s.samples[v.name] = append(s.samples[v.name], spent[i]/float64(v.posts*v.each))
	}
	for range turns { // nothing else is asked meanwhile
		for i, v := range s.variants[:2] {
			took, err := links[i][0].ask(&v, 500/turns)
			if err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
			s.quiet[v.name] = append(s.quiet[v.name], took...)
		}
	}
	return nil
}

// cpu returns the CPU time of the server in nanoseconds.
func (s *servers) cpu() (float64, error) {
	var at unix.Timespec
	err := unix.ClockGettime(int32(^s.pid<<3|2), &at) // CPUCLOCK_SCHED of the process: clock_getcpuclockid(3)
	return float64(at.Nano()), err
}

// turn sends posts over connections that are used at once, and returns the CPU time that
// they took. The first turn opens the connections.
func (s *servers) turn(v *variant, posts int, links *[]*link) (float64, error) {
	before, err := s.cpu()
	if err != nil {
		return 0, err
	}
	for len(*links) < v.senders {
		conn, err := net.Dial("tcp", s.address)
		if err != nil {
			return 0, err
		}
		*links = append(*links, &link{conn, bufio.NewReaderSize(conn, 64<<10)})
	}
	var all sync.WaitGroup
	errs := make([]error, v.senders)
	for i, l := range *links {
		all.Go(func() { _, errs[i] = l.ask(v, posts/v.senders) })
	}
	all.Wait()
	after, err := s.cpu()
	return after - before, errors.Join(append(errs, err)...)
}

// link is a connection to the server.
type link struct {
	conn net.Conn
	r    *bufio.Reader
}

// ask sends posts, one after the other. It returns how long each took until the answer
// arrived: what this client does to read its headers is not the server's.
func (l *link) ask(v *variant, n int) (took []float64, err error) {
	request := append(fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", v.path, v.contentType, len(v.body)), v.body...)
	for range n {
		start := time.Now()
		if v.each > 1 {
			go func() { _, _ = l.conn.Write(request) }() // while the answer is read, which shows any error
		} else if _, err := l.conn.Write(request); err != nil {
			return nil, err
		}
		if _, err := l.r.Peek(1); err != nil {
			return nil, err
		}
		took = append(took, float64(time.Since(start)))
		answer, err := http.ReadResponse(l.r, nil)
		if err != nil {
			return nil, err
		}
		size, err := io.Copy(io.Discard, answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK || size < int64(v.each) {
			return nil, fmt.Errorf("status %d, %d bytes, %w", answer.StatusCode, size, err)
		}
	}
	return took, nil
}

// report adds the claims.
func (s *servers) report(r *commandReport) {
	claimed := func(of, to string, limit float64, least bool) {
		ratios := make([]float64, len(s.samples[of]))
		for i := range ratios {
			ratios[i] = s.samples[of][i] / s.samples[to][i]
		}
		where := "CPU of the server: "
		if of == pipeCalls || to == pipeCalls {
			where = "CPU: "
		}
		r.Claims = append(r.Claims, claim{where + of + ", to " + to, quartilesOf(ratios), limit, least})
	}
	claimed("exec, CBOR", "echo", 1.25, false)
	claimed("exec, JSON", "echo", 1.6, false)
	claimed("exec, a guest in Go", "echo", 1.8, false)
	claimed("wazero, new", "exec, CBOR", 3, true)
	claimed("wazero, new, a guest in Go", "exec, a guest in Go", 80, true)
	claimed("Extism, reused", "exec, CBOR", 4, true)
	claimed("Extism, new", "exec, CBOR", 9, true)
	claimed("exec, CBOR", "batch", 12, true)
	claimed("batch", bareCalls, 1.6, false)
	claimed(pipeCalls, bareCalls, 1.6, false)
	claimed("exec, CBOR", pipeCalls, 12, true)
	for _, v := range s.variants {
		r.Timings = append(r.Timings, timing{Name: "CPU of the server a request: " + v.name, NS: quartilesOf(s.samples[v.name])})
	}
	for _, name := range []string{bareCalls, pipeCalls} {
		r.Timings = append(r.Timings, timing{Name: "CPU a request: " + name, NS: quartilesOf(s.samples[name])})
	}
	for _, name := range []string{"echo", "exec, CBOR"} {
		all := slices.Sorted(slices.Values(s.quiet[name]))
		at := func(q float64) float64 { return all[int(q*float64(len(all)-1))] }
		p50, p99 := at(.5), at(.99)
		r.Timings = append(r.Timings, timing{Name: "until the answer, p50: " + name, NS: quartiles{p50, p50, p50}}, timing{Name: "until the answer, p99: " + name, NS: quartiles{p99, p99, p99}})
	}
}
