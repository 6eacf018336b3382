package web

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/lending"
	"github.com/wasm-jobs/wasm-jobs/processor"
)

// Config says how a server works. Workers must be set; the other fields have the
// defaults that their comments name.
type Config struct {
	Workers int           // requests that run at once, over all modules
	Queue   int           // requests that wait; 0 = processor.DefaultQueue for each worker
	MaxWait time.Duration // for a worker; 0 = no limit; a batch waits without limit
	// Timeout is the time limit of a request from its arrival, and of one in a batch from
	// the moment that it has a worker. A client may ask for less, for a batch too: the time
	// that a request waits for a worker then counts. 0 = no limit.
	Timeout time.Duration
	MaxBody int64 // bytes of a body, and of one request of a batch; 0 = 64 MiB
	IDs     chunks.Options
	// Rate is how many requests a second one client address may send, and the size of
	// a burst; 0 = no limit. A batch is read at that rate. An IPv6 client is a network of
	// 64 bits.
	Rate  float64
	Token string // bearer token (RFC 6750) of all requests except health probes; "" = none
	// Debug shows the stacks of guests to clients.
	Debug bool
	// Words rewrites failures for clients; nil leaves them unchanged.
	Words    func(*abi.Failure) *abi.Failure
	Observer Observer     // may be nil
	Metrics  http.Handler // under /metrics; nil = 404
}

// Observer observes requests. Its methods are called concurrently.
type Observer interface {
	// Answered is called for each answered request; module is "" if the request named
	// no module, or an unknown one.
	Answered(module string, code int, elapsed time.Duration)
	// Waited is called with the time that a number of requests waited for a worker.
	Waited(module string, d time.Duration, requests int)
	// Rejected is called with the reason for each rejected request.
	Rejected(reason Reason)
	// Executed is called with the fuel of executions that were answered.
	Executed(fuel uint64)
}

// Reason is why a request was rejected without being executed.
type Reason string

// The reasons.
const (
	ReasonFull     Reason = "full"     // too many requests wait, or their bodies hold too much memory
	ReasonWait     Reason = "wait"     // it waited for Config.MaxWait
	ReasonDeadline Reason = "deadline" // its own time limit, or Config.Timeout, was over
	ReasonRate     Reason = "rate"     // its client sends more than Config.Rate
	ReasonDraining Reason = "draining" // the server ends
)

// MaxHeaders is the limit of the header of a request, in bytes as HTTP/2 counts them (RFC
// 9113, section 10.5.1). Requests above it get status 431. The MaxHeaderBytes of an
// [http.Server] should be twice as large: net/http answers requests above its own limit with
// 431 in HTTP/1.1, but closes the connection in HTTP/2.
const MaxHeaders = 64 << 10

// Bounds without a setting.
const (
	// maxRequests is the limit of requests at once, also of those whose body has not come
	// yet: one connection of HTTP/2 can begin many.
	maxRequests    = 8192
	defaultMaxBody = 64 << 20
	// heldBodies times Config.MaxBody is the limit of the memory for bodies of requests
	// and for outputs that are not sent yet.
	heldBodies = 4
	// batchWindow and batchHeld bound the requests and bytes that one batch holds.
	batchWindow = 1024
	batchHeld   = 4 << 20
	// bodyTime is the time to receive a body, if Config.Timeout is not set, and the
	// time to send an answer.
	bodyTime = 30 * time.Second
)

// Server answers requests for modules. It is safe for concurrent use. The caller must
// end it with Drain, or with a Swap without modules.
type Server struct {
	config Config
	gate   *lending.Lender[struct{}] // of the right to use a worker
	rates  *rates                    // nil without Config.Rate
	pace   pace
	held   atomic.Int64 // bytes of bodies

	soft, hard context.Context // end when batches must read no more, and when all requests must end
	drain, cut context.CancelFunc

	mu       sync.Mutex // guards the fields below
	modules  map[string]*entry
	retiring map[*entry]struct{} // that were replaced, and are not closed yet
	batches  int
	flying   int           // requests
	empty    chan struct{} // closed when no request is left after Drain began
	ready    bool
	retired  Counts // of retired modules
}

// Module is a module that is served under a name.
type Module struct {
	Name   string
	Module *processor.Module
	// Cache returns a cache over next, which runs requests on the workers; nil = a
	// cache without a store.
	Cache func(next processor.Appender) *processor.Cache
	About any // added to the description, as JSON
}

// entry is a served module, until its last user is gone.
type entry struct {
	Module
	digest      string   // sha256: and hex
	digestValue []string // the same, of a header
	cache       *processor.Cache
	runner      processor.Appender // of batches
	limit       time.Duration      // of a request in a batch that has a worker; 0 = none but the module's
	unused      chan struct{}      // closed when it was replaced and has no users
	closed      chan struct{}      // closed when the module is closed

	users int   // guarded by Server.mu, as are the fields below
	gone  bool  // it was replaced
	err   error // of closing it
}

// New returns a server. It is not ready before the first Swap.
func New(c Config) (*Server, error) {
	if c.Workers < 1 || c.Queue < 0 || c.MaxWait < 0 || c.Timeout < 0 || c.MaxBody < 0 || c.Rate < 0 {
		return nil, errors.New("web: invalid Config: want Workers of at least 1, and no negative number")
	}
	c.Queue = cmp.Or(c.Queue, processor.DefaultQueue*c.Workers)
	c.MaxBody = cmp.Or(c.MaxBody, defaultMaxBody)
	s := &Server{config: c, gate: lending.New(c.Workers, func() struct{} { return struct{}{} }),
		modules: map[string]*entry{}, retiring: map[*entry]struct{}{}}
	if c.Rate > 0 {
		s.rates = newRates(c.Rate)
	}
	s.hard, s.cut = context.WithCancel(context.Background())
	s.soft, s.drain = context.WithCancel(s.hard)
	return s, nil
}

// Swap serves other modules from now on, and waits until the old ones are closed: see
// [Server.Replace]. The error is Replace's, that of closing them, or ctx's if ctx ended
// first; they are then closed later.
func (s *Server) Swap(ctx context.Context, modules []Module) error {
	closed, err := s.Replace(modules)
	if err != nil {
		return err
	}
	return closed(ctx)
}

// Replace serves other modules from now on. A request is answered by one module from its
// beginning to its end. The old modules are closed when their requests are answered.
// closed, which need not be called, waits for that; its error is that of closing them,
// or ctx's.
//
// The error says that two modules have one name. Nothing is then replaced, and the
// modules stay the caller's.
func (s *Server) Replace(modules []Module) (closed func(ctx context.Context) error, err error) {
	next := map[string]*entry{}
	for _, m := range modules {
		if _, twice := next[m.Name]; twice {
			return nil, fmt.Errorf("web: duplicate name %q of a module", m.Name)
		}
		next[m.Name] = nil
	}
	for _, m := range modules {
		next[m.Name] = s.newEntry(m)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := slices.Collect(maps.Values(s.modules))
	s.modules, s.ready = next, s.ready || len(next) > 0
	for _, e := range old {
		e.gone = true
		s.retiring[e] = struct{}{}
		if e.users == 0 {
			close(e.unused)
		}
		go s.retire(e) // until its requests are answered; Drain waits for it
	}
	return func(ctx context.Context) error { return s.waitClosed(ctx, old) }, nil
}

// waitClosed waits until modules that were replaced are closed.
func (s *Server) waitClosed(ctx context.Context, old []*entry) error {
	var errs []error
	for _, e := range old {
		select {
		case <-e.closed:
			errs = append(errs, e.err)
		case <-ctx.Done():
			return errors.Join(append(errs, ctx.Err())...)
		}
	}
	return errors.Join(errs...)
}

func (s *Server) newEntry(m Module) *entry {
	digest := m.Module.Digest()
	e := &entry{Module: m, digest: "sha256:" + hex.EncodeToString(digest[:]), unused: make(chan struct{}), closed: make(chan struct{})}
	e.digestValue = []string{e.digest}
	if own := m.Module.Timeout(); own == 0 || own > s.config.Timeout {
		e.limit = s.config.Timeout
	}
	next := &gated{s: s, e: e}
	if m.Cache != nil {
		e.cache = m.Cache(next)
		e.runner = e.cache
		return e
	}
	e.cache, e.runner = processor.NewCache(next, processor.CacheOptions{}), &gated{s: s, e: e, isPatient: true}
	return e
}

// retire closes a module when it is no longer in use.
func (s *Server) retire(e *entry) {
	<-e.unused
	err := errors.Join(e.cache.Close(), e.Module.Module.Close())
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.retiring, e)
	s.retired.add(e)
	e.err = err
	close(e.closed)
}

// Counts are numbers of a server at one moment.
type Counts struct {
	Queued, Executing int
	Reused            uint64 // requests for which nothing was executed
	StoreErrors       uint64
	Instances         uint64 // instances of all modules
}

// add adds the counts of a module.
func (c *Counts) add(e *entry) {
	cached, instances := e.cache.Stats(), e.Module.Module.Stats()
	c.Reused += cached.Reused
	c.StoreErrors += cached.Lookups + cached.Puts
	c.Instances += instances.Created - instances.Closed
}

// Counts returns the current numbers.
func (s *Server) Counts() Counts {
	executing, queued := s.gate.Counts()
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.retired
	c.Queued, c.Executing = queued, executing
	for _, e := range s.modules {
		c.add(e)
	}
	for e := range s.retiring {
		c.add(e)
	}
	return c
}

// Ending prepares the end of the server: it is no longer ready, batches read no more
// requests, and each connection is closed after its next answer. New requests are
// answered until Drain.
func (s *Server) Ending() {
	s.drain()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = false
}

// Drain ends the server: it answers the accepted requests. If ctx ends first, the
// remaining ones are cancelled. Drain returns when no request is left and all modules
// are closed, replaced ones too. Connections belong to the caller.
func (s *Server) Drain(ctx context.Context) error {
	s.Ending()
	s.mu.Lock()
	if s.empty == nil {
		s.empty = make(chan struct{})
		s.checkEmpty()
	}
	empty := s.empty
	s.mu.Unlock()
	select {
	case <-empty:
	case <-ctx.Done():
		s.cut()
		<-empty
	}
	s.cut()
	if _, err := s.Replace(nil); err != nil { // never
		return err
	}
	s.mu.Lock()
	left := slices.Collect(maps.Keys(s.retiring))
	s.mu.Unlock()
	return s.waitClosed(context.Background(), left)
}

func (s *Server) checkEmpty() {
	if s.empty != nil && s.flying == 0 {
		select {
		case <-s.empty:
		default:
			close(s.empty)
		}
	}
}

// enter counts a request for a target. It returns the module, which is nil if there is
// none, and why the request is rejected; "" if it is not. The caller must then leave.
func (s *Server) enter(t target) (e *entry, reason Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.hard.Err() != nil:
		return nil, ReasonDraining
	case s.flying >= maxRequests:
		return nil, ReasonFull
	}
	s.flying++
	if t.isModule {
		e = s.find(t.name)
	}
	if e != nil {
		e.users++
	}
	return e, ""
}

// find returns the module with a name; nil if there is none. "" is the only module, if
// there is one only. s.mu is held.
func (s *Server) find(name string) *entry {
	if name == "" && len(s.modules) == 1 {
		for _, e := range s.modules {
			return e
		}
	}
	return s.modules[name]
}

// leave ends what enter began.
func (s *Server) leave(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flying--
	s.checkEmpty()
	if e == nil {
		return
	}
	if e.users--; e.users == 0 && e.gone {
		close(e.unused)
	}
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/healthz":
		s.health(w, r, true)
		return
	case "/readyz":
		s.mu.Lock()
		ready := s.ready
		s.mu.Unlock()
		s.health(w, r, ready)
		return
	}
	t := s.target(r)
	e, reason := s.enter(t)
	if reason != "" {
		s.reject(w, nil, reason)
		return
	}
	defer s.leave(e)
	if s.soft.Err() != nil {
		w.Header().Set("Connection", "close")
	}
	if t.verb != "exec" { // its answers have it too
		w.Header()[headerNoSniff] = noSniff
	}
	a := &answer{ResponseWriter: w, began: now()}
	if o := s.config.Observer; o != nil {
		defer a.tell(o, e)
	}
	s.route(a, r, e, t)
	a.ResponseWriter = nil // an instance keeps the context of its last call
}

// route dispatches a request by its path and method.
func (s *Server) route(w *answer, r *http.Request, e *entry, t target) {
	h := headersOf(r)
	switch {
	case h.size > MaxHeaders:
		s.fail(w, e, http.StatusRequestHeaderFieldsTooLarge, "large", fmt.Sprintf("the header is larger than %d bytes, the limit", MaxHeaders))
	case !s.authorized(r):
		w.Header().Set("WWW-Authenticate", `Bearer realm="wasm-jobs"`)
		s.fail(w, e, http.StatusUnauthorized, "token", "missing or invalid bearer token: want Authorization: Bearer TOKEN")
	case r.URL.Path == "/metrics" && s.config.Metrics != nil && isRead(r):
		s.config.Metrics.ServeHTTP(w, r)
	case r.URL.Path == "/metrics" && s.config.Metrics != nil:
		s.failMethod(w, nil, r, "GET, HEAD")
	case e == nil && s.starting():
		w.Header().Set("Retry-After", "1")
		s.fail(w, nil, http.StatusServiceUnavailable, "starting", "the modules are not prepared yet")
	case e == nil:
		s.fail(w, nil, http.StatusNotFound, "unknown", s.unknown(t))
	case t.verb == "":
		s.describe(w, r, e)
	case r.Method != http.MethodPost:
		s.failMethod(w, e, r, http.MethodPost)
	case s.rates != nil && !s.rates.allow(client(r), epoch.Add(w.began)):
		s.reject(w, e, ReasonRate)
	case t.verb == "exec":
		s.exec(w, r, e, &h)
	default:
		s.batch(w, r, e, &h)
	}
}

// headers are the size of the header of a request, and the values that are looked at. The
// size needs all of them: to look up each takes as long again.
type headers struct {
	size                                                int
	accept, encoding, contentType, noneMatch, timeLimit []string
}

func headersOf(r *http.Request) (h headers) {
	const each = 32 // as of RFC 7541, section 4.1
	h.size = len(r.RequestURI)
	for name, values := range r.Header {
		for _, value := range values {
			h.size += len(name) + len(value) + each
		}
		switch name {
		case "Accept":
			h.accept = values
		case "Content-Encoding":
			h.encoding = values
		case "Content-Type":
			h.contentType = values
		case "If-None-Match":
			h.noneMatch = values
		case headerTimeout:
			h.timeLimit = values
		}
	}
	return h
}

// first returns the first value of a header; "" if there is none.
func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// target is what a path names.
type target struct {
	name, verb string
	isModule   bool // otherwise, the path is unknown
}

// target returns the target of a request.
func (s *Server) target(r *http.Request) (t target) {
	t.name, t.verb, t.isModule = parsePath(r.URL)
	if t.name == "" && t.isModule && isRead(r) && s.has(t.verb) { // the description of a module with this name
		t.name, t.verb = t.verb, ""
	}
	return t
}

// parsePath takes /v1/NAME, /v1/NAME/exec and /v1/NAME/batch apart, and /v1/exec and
// /v1/batch, whose name is "".
func parsePath(u *url.URL) (name, verb string, ok bool) {
	rest, ok := strings.CutPrefix(u.Path, "/v1/")
	isEscaped := u.RawPath != "" && strings.Count(u.RawPath, "/") != strings.Count(u.Path, "/") // a %2F
	if !ok || rest == "" || isEscaped {
		return "", "", false
	}
	name, verb, nested := strings.Cut(rest, "/")
	switch {
	case nested && (verb == "exec" || verb == "batch"):
		return name, verb, name != ""
	case !nested && (name == "exec" || name == "batch"):
		return "", name, true
	}
	return name, "", !nested
}

// has reports whether a module is served under a name.
func (s *Server) has(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.modules[name] != nil
}

// isRead reports whether a request only reads.
func isRead(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// starting reports whether no module is served yet.
func (s *Server) starting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.ready && s.soft.Err() == nil
}

// unknown returns the message for a path without a module.
func (s *Server) unknown(t target) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case t.isModule && t.name == "":
		return "several modules are served: want /v1/NAME/exec"
	case t.isModule:
		return fmt.Sprintf("unknown module %.64q", t.name)
	}
	return "unknown path: want /v1/NAME/exec, /v1/NAME/batch or /v1/NAME"
}

// answer is the answer to a request in progress. What each request needs is one
// allocation.
type answer struct {
	http.ResponseWriter
	began   time.Duration  // on the clock of now
	code    int            // 0 before WriteHeader
	held    int64          // bytes that count in Server.held
	context requestContext // of exec
	values  [2]string      // of headers
}

// tell tells the observer that the request is answered.
func (a *answer) tell(o Observer, e *entry) {
	module := ""
	if e != nil {
		module = e.Name
	}
	o.Answered(module, cmp.Or(a.code, http.StatusOK), now()-a.began)
}

// readDeadliner is what the writers of net/http implement.
type readDeadliner interface{ SetReadDeadline(t time.Time) error }

// setReadDeadline sets the time until which the body must be read; zero = no limit.
func (a *answer) setReadDeadline(t time.Time) {
	if w, ok := a.ResponseWriter.(readDeadliner); ok {
		_ = w.SetReadDeadline(t)
		return
	}
	_ = http.NewResponseController(a.ResponseWriter).SetReadDeadline(t)
}

func (a *answer) WriteHeader(code int) {
	if a.code == 0 {
		a.code = code
	}
	a.ResponseWriter.WriteHeader(code)
}

// Unwrap is for [http.ResponseController].
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
