package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

// recordStore is a durable store: a directory, or a shared database.
type recordStore interface {
	store.Store
	store.Journal
}

// storeVariable is the environment variable that names the store if no flag does. Unlike
// the flag, it may hold a password.
const storeVariable = "WASM_JOBS_STORE"

// namedStore returns an error if a name is neither a directory nor the URL of a database.
func namedStore(name string) (string, error) {
	scheme, _, isURL := strings.Cut(name, "://")
	if isURL && !postgres.IsURL(name) {
		return "", usageErrorf("invalid store URL with the scheme %q: want postgres://USER@HOST/DATABASE, or a directory", scheme)
	}
	return name, nil
}

// shownStore returns the name of a store for messages.
func shownStore(name string) string {
	if postgres.IsURL(name) {
		return postgres.Redact(name)
	}
	return name
}

// insecureFlag is the flag of all verbs that can open a database.
func insecureFlag() cli.Flag {
	return &cli.BoolFlag{Name: "insecure", Usage: "allow an unencrypted connection to the database of another machine"}
}

// allowInsecure gives a verb with a store the flag, unless it has it.
func allowInsecure(verb *cli.Command) {
	has := func(name string) bool {
		return slices.ContainsFunc(verb.Flags, func(f cli.Flag) bool { return nameOf(f) == name })
	}
	if has("store") && !has("insecure") {
		verb.Flags = append(verb.Flags, insecureFlag())
	}
}

// sharedStore returns the URL of the verb's store, which must be shared.
func sharedStore(ctx *cli.Context) (string, error) {
	name, err := storeDir(ctx)
	if err == nil && !postgres.IsURL(name) {
		err = usageErrorf("%s needs a shared store: --store postgres://USER@HOST/DATABASE, or %s", ctx.Command.Name, storeVariable)
	}
	return name, err
}

// openShared opens the database of a URL for a verb.
func openShared(ctx *cli.Context, c *console, url string, o postgres.Options) (*postgres.Store, error) {
	o.Insecure = ctx.Bool("insecure")
	o.Notice = func(line string) { fmt.Fprintf(c.err, "wasm-jobs: store: %s\n", line) }
	o.Damaged = func(d postgres.Damage) { fmt.Fprintf(c.err, "wasm-jobs: store: %s\n", packLine(d)) }
	return openURL(ctx.Context, url, o)
}

// allowsPassword reports whether a URL may hold a password: if it is in the environment, and
// in no argument.
func allowsPassword(url string) bool {
	return url == os.Getenv(storeVariable) && !slices.ContainsFunc(os.Args, func(arg string) bool { return strings.HasSuffix(arg, url) })
}

func openURL(ctx context.Context, url string, o postgres.Options) (*postgres.Store, error) {
	o.AllowPassword = allowsPassword(url)
	s, err := postgres.Open(ctx, url, o)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// openLooking opens a store to read it. The store is nil if there is none.
func openLooking(ctx context.Context, c *console, name string, insecure bool) (recordStore, error) {
	if postgres.IsURL(name) {
		return openURL(ctx, name, postgres.Options{Insecure: insecure})
	}
	if !sqlite.Exists(name) {
		return nil, nil
	}
	options := c.storeOptions()
	options.ReadOnly = true
	s, err := sqlite.Open(ctx, name, options)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func packLine(d postgres.Damage) string {
	return fmt.Sprintf("pack %d with %s is damaged and was dropped: its chunks are executed again when they are needed", d.Pack, plural(d.Count, "output"))
}

// isUnreachable reports whether an error has the exit code for unusable databases.
func isUnreachable(err error) bool {
	_, schema := errors.AsType[*postgres.SchemaError](err)
	return schema || errors.Is(err, postgres.ErrUnreachable)
}

// isConnection reports whether a database could not be connected to.
func isConnection(err error) bool {
	_, invalid := errors.AsType[*postgres.ConnectionError](err)
	return invalid || isUnreachable(err)
}

// sharedWords returns a hint, with flags and verbs, for an error of a database.
func sharedWords(err error) string {
	if e, ok := errors.AsType[*postgres.SchemaError](err); ok {
		switch {
		case e.Foreign:
			return "name another one with ?wasm_jobs_schema=NAME in the URL"
		case e.Have > e.Want:
			return "update this program"
		}
		if e.Have != 0 {
			return fmt.Sprintf("wasm-jobs migrate --store URL raises it to version %d", e.Want)
		}
		return "wasm-jobs migrate --store URL makes it"
	}
	if e, ok := errors.AsType[*postgres.ConnectionError](err); ok {
		switch {
		case e.Password:
			return "or the whole URL in " + storeVariable
		case e.Insecure:
			return "or --insecure, which allows it"
		}
	}
	if errors.Is(err, postgres.ErrUnreachable) {
		return "check the URL, the server and the role's rights"
	}
	if _, ok := errors.AsType[*cluster.TooLargeError](err); ok {
		return "--max-upload SIZE raises the limit, --shared DIR keeps it in a directory that all machines see"
	}
	return ""
}

// storeReport has the costs of a job in a durable store.
func storeReport(s recordStore, path string) *host.StoreReport {
	switch s := s.(type) {
	case *sqlite.Store:
		n := s.Stats()
		return &host.StoreReport{Path: path, Puts: n.Puts, Commits: n.Commits, Syncs: n.Syncs, Bytes: n.Bytes}
	case *postgres.Store:
		n := s.Stats()
		return &host.StoreReport{Path: s.URL(), Kind: "postgres", Server: s.Server(), Schema: postgres.SchemaVersion, Puts: n.Puts, Commits: n.Commits, Bytes: n.Bytes}
	}
	return nil
}

// pruneShared deletes old jobs of a database that are over.
func pruneShared(ctx *cli.Context, c *console, p *pruning, s *postgres.Store) error {
	if p.sized {
		return usageErrorf("invalid --max-size for a database: it limits only stores in directories; use --older-than")
	}
	for j, err := range journal.List(ctx.Context, s) {
		if err != nil {
			return storeError(err)
		}
		state := j.State()
		if state == journal.Running || state == "active" || state == "paused" || state == "uploading" && time.Since(j.Last().Seen) < p.age || time.Since(j.Last().Seen) <= p.age {
			continue
		}
		if !p.dry {
			if err := s.Delete(ctx.Context, j.Record.ID); err != nil && !errors.Is(err, store.ErrNoJob) {
				return storeError(err)
			}
		}
		p.deleted = append(p.deleted, stateOf(j))
	}
	return p.report(ctx, c)
}

// fsckShared checks every pack of a database.
func fsckShared(ctx *cli.Context, c *console, url string) (err error) {
	names := []string{}
	s, err := openURL(ctx.Context, url, postgres.Options{Insecure: ctx.Bool("insecure"), Damaged: func(d postgres.Damage) { names = append(names, packLine(d)) }})
	if err != nil {
		return err
	}
	defer s.Close()
	found, err := s.Check(ctx.Context)
	if err != nil {
		return storeError(err)
	}
	if ctx.Bool("json") {
		err = writeJSON(c.out, struct {
			postgres.CheckReport
			Store   string   `json:"store"`
			Notices []string `json:"notices"`
			Names   []string `json:"names"`
		}{found, s.URL(), []string{}, names})
	} else {
		for _, line := range names {
			fmt.Fprintln(c.out, line)
		}
		_, err = fmt.Fprintf(c.out, "%s; %s\n", intact(found.Outputs, found.Damaged, "sound"), plural(found.Jobs, "job"))
	}
	if err == nil && found.Damaged > 0 {
		return &exitError{exitFailed, nil}
	}
	return outputError(err)
}

// sharedFlags are the flags of verbs for a shared store.
func sharedFlags(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "store", Usage: "`URL` of the shared store: postgres://USER@HOST/DATABASE; default: the URL in " + storeVariable},
		insecureFlag(),
	}, more...)
}

// sharedJob opens the shared store, and finds the job that the argument names.
func sharedJob(ctx *cli.Context, c *console, f func(s *postgres.Store, j *journal.Record) error) error {
	url, err := sharedStore(ctx)
	if err != nil {
		return err
	}
	if ctx.NArg() != 1 {
		return usageErrorf("%s needs one JOB: its id, or the beginning of it; wasm-jobs list shows them", ctx.Command.Name)
	}
	s, err := openShared(ctx, c, url, postgres.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	j, err := journal.Find(ctx.Context, s, ctx.Args().First())
	if _, ambiguous := errors.AsType[*journal.AmbiguousError](err); ambiguous {
		return usageErrorf("%w: give more of it", err)
	}
	if errors.Is(err, store.ErrNoJob) {
		return unknownJob(ctx, ctx.Args().First())
	}
	if err != nil {
		return storeError(err)
	}
	return f(s, j)
}

// sharedStatus has the fields of status that only jobs that workers share have.
type sharedStatus struct {
	Priority       int                    `json:"priority"`
	MaxConcurrency int                    `json:"max_concurrency"`
	WaitingFor     string                 `json:"waiting_for"`
	Leases         []postgres.ActiveLease `json:"active"` // by chunk numbers in id order; both ends are included
}

// statusOf reads the progress of a job. shared is nil for a job that no workers share.
func statusOf(ctx context.Context, from recordStore, j *journal.Record) (status *journal.Status, shared *sharedStatus, err error) {
	s, ok := from.(*postgres.Store)
	if !ok || j.Record.Shared == nil {
		status, err = j.Status(ctx)
		return status, nil, err
	}
	p, err := s.Progress(ctx, j.Record.ID)
	if err != nil {
		return nil, nil, err
	}
	m, err := s.MomentOf(ctx, j.Record.ID)
	if err != nil {
		return nil, nil, err
	}
	status, parts, err := j.StatusAt(ctx, momentOf(&m))
	if err != nil {
		return nil, nil, err
	}
	shared = &sharedStatus{Priority: p.Priority, MaxConcurrency: p.MaxConcurrency, WaitingFor: cluster.WaitingFor(&p), Leases: []postgres.ActiveLease{}}
	for i, l := range m.Active {
		for _, part := range parts[i] {
			l.From, l.To = part.From, part.To-1
			shared.Leases = append(shared.Leases, l)
		}
	}
	return status, shared, nil
}

// momentOf returns a moment as package journal takes it.
func momentOf(m *postgres.Moment) *journal.Moment {
	spans := func(all [][2]int) (out []journal.Lease) {
		for _, s := range all {
			out = append(out, journal.Lease{From: s[0], To: s[1]})
		}
		return out
	}
	at := &journal.Moment{Succeeded: spans(m.Succeeded), Failed: spans(m.Failed)}
	for _, l := range m.Active {
		at.Active = append(at.Active, journal.Lease{From: l.From, To: l.To, Since: l.Since})
	}
	return at
}

func (s *sharedStatus) print(t *table) {
	t.field("priority", "%d", s.Priority)
	if s.MaxConcurrency > 0 {
		t.field("at most", "%s at once", plural(s.MaxConcurrency, "chunk"))
	}
	if s.WaitingFor != "" {
		t.field("waiting for", "%s", s.WaitingFor)
	}
	for _, l := range s.Leases {
		t.field("lease", "chunks %d to %d: worker %s on %s, since %s", l.From, l.To, l.Worker, l.Host, l.Since.Local().Format(time.DateTime))
	}
}
