// Package ui serves a page over a store, for reading: its jobs, one job while it runs,
// its failures and its chunks, runs of flows, and workers.
//
// Names, messages and outputs come from guests and from files of others. Each is escaped,
// and the policy of the page allows no script but its own. A request must name the host
// that the server listens on, so that a page of somebody else cannot read it through a
// name that resolves to this machine.
package ui

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/report"
	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Store is the store that is shown.
type Store interface {
	store.Store
	store.Journal
}

// Config has the sources of the pages. All fields but Workers must be set.
type Config struct {
	Title string // name of the store
	// Open returns the store, which stays open, or nil if there is none.
	Open func(ctx context.Context) (Store, error)
	// Allowed reports whether a request may name a host.
	Allowed func(host string) bool
	// Report returns the report of a job. With brief, it lacks the list of failed
	// chunks, and its groups only have the first ones of very many.
	Report func(ctx context.Context, j *journal.Record, brief bool) (*report.Document, error)
	// Alone returns the command that runs one chunk, or "".
	Alone func(j *journal.Record, id abi.ID) string
	// Printable escapes control characters in a line of text.
	Printable func(string) string
	// Flows returns the runs of flows, the latest first, and Flow one of them; its error
	// is [ErrNotFound] if there is none.
	Flows func(ctx context.Context, s Store) ([]Flow, error)
	Flow  func(ctx context.Context, s Store, name string) (*Flow, error)
	// Items calls each for the items of a run, in item order, until it returns false. Item
	// returns one item with its steps. The error is [ErrNotFound] if there is none.
	Items func(ctx context.Context, s Store, name string, each func(*flow.ItemState) bool) error
	Item  func(ctx context.Context, s Store, name, id string) (*flow.ItemState, []flow.StepState, error)
	// Workers returns the workers of a shared store; nil for others.
	Workers func(ctx context.Context, s Store) ([]Worker, error)
	// Interval is the least time between two updates of a page; 0 = half a second.
	Interval time.Duration
}

// Flow is the run of a flow.
type Flow struct {
	Name, State, File string
	Started           time.Time
	Report            *flow.Report // nil if nothing is known yet
	Edges             []Edge       // of its states
}

// Edge is a way from one state to another. Kind is move, failure or join.
type Edge struct{ From, To, Kind string }

// Worker is a worker of a shared store.
type Worker struct {
	Name, Host, State string
	Slots, Busy       int
	Chunks            int64
	Seen              time.Time
}

// ErrNotFound reports that the store does not have the subject of a page.
var ErrNotFound = errors.New("not found")

//go:embed static
var static embed.FS

//go:embed pages.html
var pagesText string

// server serves the pages.
type server struct {
	Config
	pages   *template.Template
	streams chan struct{} // has one for each open stream
}

// maxStreams is the number of pages that are updated at once.
const maxStreams = 64

// New returns a handler of the pages.
func New(c Config) http.Handler {
	if c.Interval == 0 {
		c.Interval = 500 * time.Millisecond
	}
	s := &server{Config: c, streams: make(chan struct{}, maxStreams)}
	s.pages = template.Must(template.New("").Funcs(functions).Parse(pagesText))
	files, err := fs.Sub(static, "static")
	if err != nil {
		panic(err) // the directory is embedded
	}
	mux := http.NewServeMux()
	mux.Handle("GET /static/", http.StripPrefix("/static/", http.FileServerFS(files)))
	mux.HandleFunc("GET /{$}", s.page(s.jobs, "jobs"))
	s.flowPages(mux)
	mux.HandleFunc("GET /workers", s.page(s.workers, "workers"))
	mux.HandleFunc("GET /compare", s.page(s.compare, "compare"))
	mux.HandleFunc("GET /job/{job}", s.page(s.job, "job"))
	mux.HandleFunc("GET /job/{job}/chunk", s.page(s.chunk, "chunk"))
	mux.HandleFunc("GET /job/{job}/output", s.output)
	mux.HandleFunc("GET /job/{job}/{file}", s.report)
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, fmt.Errorf("%w: %s", ErrNotFound, cut(r.URL.Path, maxQuery)))
	})
	return s.guard(mux)
}

// policy allows nothing but the scripts and styles of this server.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// guard refuses other methods and hosts, and sets the headers of all responses.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case !s.Allowed(r.Host):
			http.Error(w, "this host is not the one that the page is on: use its own URL", http.StatusForbidden)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "the page is for reading only: want GET or HEAD", http.StatusMethodNotAllowed)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// view is the content of a page.
type view struct {
	Title   string // of the page
	Store   string
	Shared  bool     // the store has workers
	Regions []string // templates of the parts that are updated
	Data    any
}

// request is a request for a page, with the progress at the last look of the same stream.
type request struct {
	*http.Request
	store  Store
	before *progress // nil = the first one
}

// page returns the handler of a page. load finds its content.
func (s *server) page(load func(*request) (*view, error), name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("live") != "" {
			s.live(w, r, load)
			return
		}
		v, err := s.load(&request{Request: r}, load)
		if err != nil {
			s.fail(w, err)
			return
		}
		s.write(w, http.StatusOK, name, v)
	}
}

// load opens the store and loads a page.
func (s *server) load(r *request, load func(*request) (*view, error)) (*view, error) {
	var err error
	if r.store, err = s.Open(r.Context()); err != nil {
		return nil, err
	}
	v, err := load(r)
	if err != nil {
		return nil, err
	}
	v.Store, v.Shared = s.Title, s.Workers != nil
	return v, nil
}

// write writes a page.
func (s *server) write(w http.ResponseWriter, code int, name string, v *view) {
	var b bytes.Buffer
	if err := s.pages.ExecuteTemplate(&b, name, v); err != nil {
		http.Error(w, "the page cannot be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes()) // the reader may have gone
}

// fail writes an error as a page.
func (s *server) fail(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	if errors.Is(err, ErrNotFound) || errors.Is(err, store.ErrNoJob) || errors.Is(err, journal.ErrNoChunk) {
		code = http.StatusNotFound
	}
	if _, ambiguous := errors.AsType[*journal.AmbiguousError](err); ambiguous {
		code = http.StatusNotFound
	}
	s.write(w, code, "problem", &view{Title: http.StatusText(code), Store: s.Title, Shared: s.Workers != nil, Data: line(err.Error())})
}

// line returns a text of several lines as one.
func line(s string) string { return strings.Join(strings.Fields(s), " ") }

// find returns the job that a request names.
func (r *request) find(name string) (*journal.Record, error) {
	if r.store == nil || name == "" {
		return nil, fmt.Errorf("%w: job %q", ErrNotFound, name)
	}
	return journal.Find(r.Context(), r.store, name)
}
