package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/processor"
	"github.com/wasm-jobs/wasm-jobs/processor/web"
)

const serveExitHelp = `Exit codes:
   0    ended by SIGINT or SIGTERM, with all that was accepted answered
   2    refused before anything was served: usage, a module, an address
   3    _initialize or setup failed
   4    the store cannot be opened, or failed at the end
   130  a second signal ended it at once`

func serveCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "serve", Usage: "answer requests over HTTP with modules",
		UsageText: `wasm-jobs serve [flags] [NAME=]MODULE...

Example: wasm-jobs serve square.wasm
         curl --json 7 http://127.0.0.1:7777/v1/square/exec

The default of NAME is the name of the file without its ending.

   POST /v1/NAME/exec    one request as application/cbor, application/json,
                         application/octet-stream or text/plain; so is the answer,
                         or as Accept says
   POST /v1/NAME/batch   a CBOR sequence or JSON lines, answered as they arrive
   GET  /v1/NAME  /healthz  /readyz  /metrics

SIGHUP reads modules and certificates again, and keeps the old ones if the new ones
are invalid. SIGINT and SIGTERM answer accepted requests, for --drain at most, and
exit.

Memory: --workers instances of --memory each with an output of --max-output, the
snapshot of each module and up to 64 idle instances; four bodies of --max-body in sum;
4 MiB for each of --workers + --queue batches at most; 128 KiB for each of 8192
connections and 8192 requests at most.

` + serveExitHelp,
		ArgsUsage: "[NAME=]MODULE...",
		Flags:     serveFlags(),
		Action: func(ctx *cli.Context) error {
			o, err := parseServe(ctx)
			if err != nil {
				return err
			}
			return serve(ctx.Context, c, o)
		},
	}
}

func serveFlags() []cli.Flag {
	return append(callFlags(),
		&cli.StringFlag{Name: "listen", Value: "127.0.0.1:7777", Usage: "`ADDRESS` to listen on: HOST:PORT, port 0 is any free port, or unix:PATH"},
		&cli.IntFlag{Name: "queue", DefaultText: "16 a worker", Usage: "limit of waiting requests; more get status 503"},
		&cli.DurationFlag{Name: "max-wait", Value: time.Second, Usage: "the longest a request waits for a worker; 0 = no limit"},
		&cli.StringFlag{Name: "max-body", DefaultText: "--max-chunk", Usage: "limit of a body, and of one request of a batch"},
		&cli.Float64Flag{Name: "rate", DefaultText: "no limit", Usage: "requests a second of one client address; more get status 429, and a batch is read at that rate"},
		&cli.DurationFlag{Name: "drain", Value: 10 * time.Second, Usage: "time to answer accepted requests after the first signal"},
		&cli.StringFlag{Name: "tls-cert", Usage: "`FILE` with the certificate chain, as PEM"},
		&cli.StringFlag{Name: "tls-key", Usage: "`FILE` with its key, as PEM"},
		&cli.StringFlag{Name: "token-env", Usage: "require the bearer token in the environment variable `NAME`"},
		&cli.BoolFlag{Name: "debug", Usage: "include the guest's stack in errors"},
	)
}

// serveOptions are the flags of serve, parsed.
type serveOptions struct {
	*callOptions
	modules           []servedModule
	web               web.Config
	listen            string
	drain             time.Duration
	certFile, keyFile string
}

// servedModule is a module's name, and its path.
type servedModule struct{ name, path string }

var moduleName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,63}$`) })

func parseServe(ctx *cli.Context) (*serveOptions, error) {
	if ctx.NArg() == 0 {
		return nil, usageErrorf("serve takes [NAME=]MODULE..., got 0 arguments")
	}
	calls, err := parseCalls(ctx)
	if err != nil {
		return nil, err
	}
	o := &serveOptions{callOptions: calls, listen: ctx.String("listen"), drain: ctx.Duration("drain"),
		certFile: ctx.String("tls-cert"), keyFile: ctx.String("tls-key")}
	for _, arg := range ctx.Args().Slice() {
		if err := o.addModule(arg); err != nil {
			return nil, err
		}
	}
	return o, errors.Join(o.parseLimitsOfServer(ctx), o.parseToken(ctx))
}

// addModule reads [NAME=]MODULE.
func (o *serveOptions) addModule(arg string) error {
	name, path, named := strings.Cut(arg, "=")
	if !named || strings.ContainsAny(name, `/\`) { // a path with an = in it
		path = arg
		name = strings.TrimSuffix(filepath.Base(arg), filepath.Ext(arg))
	}
	if path == "" {
		return usageErrorf("invalid module %q: want NAME=MODULE", arg)
	}
	if !moduleName().MatchString(name) {
		return usageErrorf("invalid name %q of the module %s: want lower letters, digits, _, . and -, 64 at most; NAME=MODULE gives another", name, path)
	}
	if slices.ContainsFunc(o.modules, func(m servedModule) bool { return m.name == name }) {
		return usageErrorf("duplicate name %q of a module: NAME=MODULE gives another", name)
	}
	o.modules = append(o.modules, servedModule{name, path})
	return nil
}

func (o *serveOptions) parseLimitsOfServer(ctx *cli.Context) error {
	if o.workers == 0 {
		o.workers = defaultWorkers()
	}
	o.web = web.Config{Workers: o.workers, Queue: ctx.Int("queue"), MaxWait: ctx.Duration("max-wait"), Timeout: o.settings.Timeout,
		MaxBody: o.input.MaxChunk, IDs: o.input, Rate: ctx.Float64("rate"), Debug: ctx.Bool("debug"), Words: worded}
	const maxQueue = 1 << 20
	switch {
	case isChosen(ctx, "queue") && (o.web.Queue < 1 || o.web.Queue > maxQueue):
		return usageErrorf("invalid --queue %d: want 1 to %d", o.web.Queue, maxQueue)
	case o.web.MaxWait < 0:
		return usageErrorf("invalid --max-wait %s: want 0 or more", o.web.MaxWait)
	case isChosen(ctx, "rate") && !(o.web.Rate >= 1e-6 && o.web.Rate <= 1e9):
		return usageErrorf("invalid --rate %v: want requests a second, 0.000001 to 1000000000", o.web.Rate)
	case o.drain < 0:
		return usageErrorf("invalid --drain %s: want 0 or more", o.drain)
	case (o.certFile == "") != (o.keyFile == ""):
		return usageErrorf("--tls-cert and --tls-key belong together: give both")
	}
	if !isChosen(ctx, "max-body") {
		return nil
	}
	size, err := parseSize[int64](ctx, "max-body")
	o.web.MaxBody = size
	return err
}

// parseToken takes the token from the environment. It is never printed.
func (o *serveOptions) parseToken(ctx *cli.Context) error {
	name := ctx.String("token-env")
	if !isSet(ctx, "token-env") {
		return nil
	}
	if o.web.Token = os.Getenv(name); o.web.Token == "" {
		return usageErrorf("invalid --token-env %q: the environment variable is missing or empty", name)
	}
	return nil
}

// serve answers requests until a signal comes.
func serve(soft context.Context, c *console, o *serveOptions) (err error) {
	l, err := o.open(soft)
	if err != nil {
		return err
	}
	defer l.Close()
	certificates, err := o.openCertificates()
	if err != nil {
		return err
	}
	x, err := openCallee(soft, c, o.callOptions)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	counted := newServeMetrics()
	o.web.Observer = counted
	var server *web.Server
	o.web.Metrics = counted.handler(func() web.Counts { return server.Counts() })
	if server, err = web.New(o.web); err != nil {
		return err
	}
	s := &serving{o: o, x: x, server: server, certificates: certificates, listener: l}
	return s.run(soft)
}

// serving is a running server.
type serving struct {
	o            *serveOptions
	x            *callee
	server       *web.Server
	certificates *certificates // nil without TLS
	listener     *drainListener
	closing      sync.WaitGroup // waits for replaced modules
}

func (s *serving) run(soft context.Context) error {
	defer s.closing.Wait()
	reload := make(chan struct{}, 1)
	s.x.c.signals.Hangup(func() {
		select {
		case reload <- struct{}{}:
		default: // a reload is pending already
		}
	})
	h := newHTTPServer(s.server, s.certificates, func(line string) { s.x.say("%s", line) })
	ended := make(chan error, 1)
	go func() { ended <- serveOn(h, s.listener, s.certificates) }() // until the listener is closed
	defer h.Close()
	if err := s.load(soft); err != nil {
		h.Close()
		<-ended
		return errors.Join(err, s.server.Drain(context.Background()))
	}
	if err := s.listener.publish(); err != nil {
		h.Close()
		<-ended
		return errors.Join(usageErrorf("invalid --listen %q: %w", s.o.listen, err), s.server.Drain(context.Background()))
	}
	s.announce()
	s.x.c.signals.Drain()
	for {
		select {
		case <-reload:
			s.reload(soft)
		case err := <-ended:
			return errors.Join(fmt.Errorf("no more connections can be accepted: %w", err), s.server.Drain(context.Background()))
		case <-soft.Done():
			return s.end(h, ended)
		}
	}
}

// load opens the modules and serves them.
func (s *serving) load(ctx context.Context) error {
	modules, err := s.openModules(ctx)
	if err != nil {
		return err
	}
	return s.server.Swap(ctx, modules)
}

func (s *serving) openModules(ctx context.Context) (modules []web.Module, err error) {
	for _, m := range s.o.modules {
		opened, err := s.openModule(ctx, m)
		if err != nil {
			for _, m := range modules {
				err = errors.Join(err, m.Module.Close())
			}
			return nil, err
		}
		modules = append(modules, opened)
	}
	return modules, nil
}

func (s *serving) openModule(ctx context.Context, m servedModule) (web.Module, error) {
	opened, err := s.x.open(ctx, m.path, m.name)
	if err != nil {
		return web.Module{}, err
	}
	served := web.Module{Name: m.name, Module: opened}
	if s.x.store != nil {
		served.Cache = func(next processor.Appender) *processor.Cache { return s.x.cache(opened, next) }
	}
	return served, nil
}

// announce prints the URLs of the modules.
func (s *serving) announce() {
	for _, m := range s.o.modules {
		s.x.say("serving %s on %s", m.name, s.listener.url(s.certificates != nil))
	}
	if s.o.web.Token == "" && !s.listener.isPrivate() {
		s.x.say("warning: anybody who reaches %s can run its modules: use --token-env NAME to require a token", s.listener.url(s.certificates != nil))
	}
}

// lingerTime is how long a server that ends still answers on open connections. Each
// answer closes its connection, so that busy clients go elsewhere.
const lingerTime = 100 * time.Millisecond

// end ends a server: it accepts no more connections, and answers accepted requests.
func (s *serving) end(h *http.Server, ended <-chan error) error {
	s.x.say("stopping: accepted requests are answered within %v; a second signal stops at once", s.o.drain)
	hard := s.x.c.signals.Hard
	ctx, cancel := context.WithTimeout(hard, s.o.drain)
	defer cancel()
	s.server.Ending()
	s.listener.drain()
	<-ended
	select {
	case <-time.After(min(lingerTime, s.o.drain)):
	case <-ctx.Done():
	}
	s.listener.closeSilent()
	_ = h.Shutdown(ctx) // its error is ctx's; Drain then cancels the rest
	err := s.server.Drain(ctx)
	h.Close()
	if hard.Err() != nil {
		return errors.Join(host.ErrInterrupted, err)
	}
	return err
}

// reload reads the certificate and the modules again. If one of the two is invalid,
// its old version stays.
func (s *serving) reload(ctx context.Context) {
	if s.certificates != nil {
		if err := s.certificates.load(); err != nil {
			s.x.say("the old certificate stays: %s", errorLine(err))
		}
	}
	modules, err := s.openModules(ctx)
	if err != nil {
		s.x.say("the old modules stay: %s", errorLine(err))
		return
	}
	closed, err := s.server.Replace(modules)
	if err != nil {
		s.x.say("the old modules stay: %s", errorLine(err))
		return
	}
	s.closing.Go(func() { // until the requests of the old modules are answered; run waits for it
		if err := closed(ctx); err != nil && ctx.Err() == nil {
			s.x.say("the old modules could not be closed: %s", errorLine(err))
		}
	})
	s.x.say("modules were read again")
}

// isLoopback reports whether only this machine reaches an address.
func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return !ok || tcp.IP.IsLoopback()
}
