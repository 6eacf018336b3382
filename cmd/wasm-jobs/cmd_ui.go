package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/interrupt"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/ui"
	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/flow/definition"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

func uiCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "ui", Usage: "serve a page that shows the jobs of a store, while they run and afterwards",
		UsageText: `wasm-jobs ui [--store STORE] [--listen ADDRESS]

The page is for reading only. It shows jobs and flows, one job while it runs, its
failures, its chunks with their attempts and outputs, and reports. It ends with
Ctrl-C.

Example: wasm-jobs ui`,
		Flags: []cli.Flag{storeFlag(),
			&cli.StringFlag{Name: "listen", Value: "127.0.0.1:7778", Usage: "`ADDRESS` to listen on: HOST:PORT, port 0 is any free port, or unix:PATH"},
			&cli.BoolFlag{Name: "insecure", Usage: "allow an unencrypted connection to a database on another machine"},
		},
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 0); err != nil {
				return err
			}
			return serveUI(ctx, c)
		},
	}
}

func serveUI(ctx *cli.Context, c *console) (err error) {
	dir, err := storeDir(ctx)
	if err != nil {
		return err
	}
	source := &storeSource{dir: dir, open: func() (recordStore, error) { return records(ctx, c) }}
	if _, err := source.get(ctx.Context); err != nil { // a mistake is told now
		return err
	}
	defer func() { err = errors.Join(err, source.close()) }()
	o := &serveOptions{listen: ctx.String("listen")}
	l, err := o.open(ctx.Context)
	if err != nil {
		return err
	}
	defer l.Close()
	say := func(format string, args ...any) { fmt.Fprintf(c.err, "wasm-jobs: "+format+"\n", args...) }
	h := newHTTPServer(ui.New(uiConfig(source, l, o.listen)), nil, func(line string) { say("%s", line) })
	h.BaseContext = func(net.Listener) context.Context { return ctx.Context }
	ended := make(chan error, 1)
	go func() { ended <- serveOn(h, l, nil) }() // until the listener is closed
	if err := l.publish(); err != nil {
		return errors.Join(usageErrorf("invalid --listen %q: %w", o.listen, err), h.Close())
	}
	say("page on %s", l.url(false))
	if !l.isPrivate() {
		say("warning: anybody who reaches %s can read this store", l.url(false))
	}
	return awaitUI(ctx.Context, h, ended)
}

// awaitUI waits for a signal, and then ends the server.
func awaitUI(ctx context.Context, h *http.Server, ended <-chan error) error {
	select {
	case err := <-ended:
		return fmt.Errorf("no more connections can be accepted: %w", err)
	case <-ctx.Done():
	}
	// Less than the time after which a signal ends the process.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), interrupt.Time/2)
	defer cancel()
	_ = h.Shutdown(end) // open pages have ended with ctx; others are cut
	h.Close()
	<-ended
	return nil
}

func uiConfig(source *storeSource, l *drainListener, listen string) ui.Config {
	config := ui.Config{
		Title: shownStore(source.dir), Allowed: hostsOf(l, listen), Report: recordedReport, Printable: printable,
		Open: func(ctx context.Context) (ui.Store, error) {
			s, err := source.get(ctx)
			if s == nil || err != nil { // a nil store must be a nil interface
				return nil, err
			}
			return s, nil
		},
		Alone: func(j *journal.Record, id abi.ID) string { return aloneOf(&j.Spec)(id) },
		Flows: uiFlows, Flow: uiFlow, Items: uiItems, Item: uiItem,
	}
	if postgres.IsURL(source.dir) {
		config.Workers = uiWorkers
	}
	return config
}

// hostsOf returns which hosts a request may name: the address of the listener, and
// names that no other page can make resolve to it.
func hostsOf(l *drainListener, listen string) func(string) bool {
	if l.path != "" {
		return func(string) bool { return true } // no page of others reaches a socket in the file system
	}
	_, port, _ := net.SplitHostPort(l.Addr().String()) // an address has a port
	given, _, _ := net.SplitHostPort(listen)
	names := []string{"localhost"}
	if name, err := os.Hostname(); err == nil && !l.isPrivate() {
		names = append(names, name)
	}
	if given != "" {
		names = append(names, given)
	}
	private := l.isPrivate()
	return func(host string) bool {
		name, p, err := net.SplitHostPort(host)
		if err != nil {
			name, p = strings.Trim(host, "[]"), "80"
		}
		if p != port {
			return false
		}
		if ip := net.ParseIP(name); ip != nil {
			return !private || ip.IsLoopback()
		}
		return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
	}
}

// storeSource keeps a store open, and opens it again if its file is another one. It is
// safe for concurrent use.
type storeSource struct {
	dir  string
	open func() (recordStore, error)

	mu    sync.Mutex
	store recordStore // nil if there is none
	file  fs.FileInfo // of the store, if it is a directory
}

// get returns the store, or nil if there is none.
func (s *storeSource) get(context.Context) (recordStore, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if postgres.IsURL(s.dir) {
		if s.store != nil {
			return s.store, nil
		}
	} else {
		file, err := os.Stat(filepath.Join(s.dir, sqlite.FileName))
		if err != nil {
			file = nil
		}
		if s.store != nil && file != nil && os.SameFile(file, s.file) {
			return s.store, nil
		}
		if s.store != nil {
			_ = s.store.Close() // its file is gone
			s.store = nil
		}
		s.file = file
	}
	opened, err := s.open()
	if err != nil || opened == nil {
		return nil, err
	}
	s.store = opened
	return opened, nil
}

func (s *storeSource) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store == nil {
		return nil
	}
	return storeError(s.store.Close())
}

func uiWorkers(ctx context.Context, s ui.Store) (out []ui.Worker, err error) {
	shared, ok := s.(*postgres.Store)
	if !ok {
		return nil, nil
	}
	all, err := shared.Workers(ctx)
	for _, w := range all {
		out = append(out, ui.Worker{Name: w.Name, Host: w.Host, State: w.State, Slots: w.Slots, Busy: w.Busy, Chunks: w.Chunks, Seen: w.Seen})
	}
	return out, err
}

// maxFlows is the number of runs of flows that a page lists.
const maxFlows = 200

func uiFlows(ctx context.Context, s ui.Store) ([]ui.Flow, error) {
	all := []ui.Flow{}
	err := flowRuns(ctx, s, func(f *flowRecord) (bool, error) {
		all = append(all, *flowOf(f))
		return len(all) < maxFlows, nil
	})
	return all, err
}

func uiFlow(ctx context.Context, s ui.Store, name string) (*ui.Flow, error) {
	f, err := runOf(ctx, s, name)
	if err != nil {
		return nil, err
	}
	out := flowOf(f)
	out.Edges = edgesOf(f)
	return out, nil
}

// runOf returns the run of a flow with a name.
func runOf(ctx context.Context, s ui.Store, name string) (found *flowRecord, err error) {
	err = flowRuns(ctx, s, func(f *flowRecord) (bool, error) {
		if f.spec.Name == name {
			found = f
		}
		return found == nil, nil
	})
	if err == nil && found == nil {
		err = fmt.Errorf("%w: run %q", ui.ErrNotFound, name)
	}
	return found, err
}

// lookAt opens the parts of a run that are needed to list its items.
func lookAt(ctx context.Context, s ui.Store, name string) (*flow.Look, func(), error) {
	f, err := runOf(ctx, s, name)
	if err != nil {
		return nil, nil, err
	}
	return f.look(ctx, &console{in: strings.NewReader(""), out: io.Discard, err: io.Discard})
}

// errEnough ends a list of items early.
var errEnough = errors.New("enough items")

func uiItems(ctx context.Context, s ui.Store, name string, each func(*flow.ItemState) bool) error {
	look, closeInput, err := lookAt(ctx, s, name)
	if err != nil {
		return err
	}
	defer closeInput()
	_, err = look.Items(ctx, func(i *flow.ItemState) error {
		if !each(i) {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

func uiItem(ctx context.Context, s ui.Store, name, id string) (*flow.ItemState, []flow.StepState, error) {
	look, closeInput, err := lookAt(ctx, s, name)
	if err != nil {
		return nil, nil, err
	}
	defer closeInput()
	var steps []flow.StepState
	i, err := look.Item(ctx, id, func(step *flow.StepState) error {
		steps = append(steps, *step)
		return nil
	})
	if errors.Is(err, flow.ErrNoItem) {
		err = fmt.Errorf("%w: item %q", ui.ErrNotFound, id)
	}
	return i, steps, err
}

// flowOf returns the state of a run, from its record.
func flowOf(f *flowRecord) *ui.Flow {
	out := &ui.Flow{Name: f.spec.Name, File: f.spec.File, Started: f.last().Started, State: flow.Crashed, Report: flow.ReportOf(f.last())}
	switch {
	case !f.last().Ended.IsZero() && out.Report != nil:
		out.State = out.Report.State
	case f.last().Ended.IsZero() && f.running():
		out.State = flow.Running
	}
	return out
}

// edgesOf returns the ways between the states of a flow; none if its file cannot be
// read any more.
func edgesOf(f *flowRecord) (edges []ui.Edge) {
	d, err := definition.Parse(f.spec.File, []byte(f.spec.Text))
	if err != nil {
		return nil
	}
	built, _, err := d.Flow(recordedParts{f.spec})
	if err != nil {
		return nil
	}
	for i := range built.States {
		s := &built.States[i]
		for _, to := range append([]string{s.Next}, s.To...) {
			edges = append(edges, ui.Edge{From: s.Name, To: to, Kind: "move"})
		}
		for _, to := range s.On {
			edges = append(edges, ui.Edge{From: s.Name, To: to, Kind: "failure"})
		}
		if s.Children != nil {
			edges = append(edges, ui.Edge{From: s.Name, To: s.Children.Join, Kind: "join"})
		}
	}
	slices.SortFunc(edges, func(a, b ui.Edge) int { return strings.Compare(a.From+"\x00"+a.To+a.Kind, b.From+"\x00"+b.To+b.Kind) })
	return slices.Compact(edges)
}
