package postgres

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// Options are the options of [Open]. The zero value works.
type Options struct {
	// GiveUp is the time for which a request is repeated while the database cannot be
	// reached; 0 = 30 s.
	GiveUp time.Duration
	// Connections is the maximum number of open connections, unless the URL sets it; at
	// least 2.
	Connections int
	// AllowPassword allows a password in the URL.
	AllowPassword bool
	// Insecure allows unencrypted connections to other machines.
	Insecure bool
	// Create makes the schema if there is none; the role must have the right to.
	Create bool
	// Damaged, if not nil, is called with each pack that does not match its checksum.
	// Several goroutines may call it.
	Damaged func(Damage)
	// Notice, if not nil, is called with one line of text for users, for example that
	// the database cannot be reached.
	Notice func(line string)
}

// Damage is a pack that does not match its checksum. Its outputs count as missing.
type Damage struct {
	Pack  int64
	Count int // outputs
}

// Stats has counts of a store since it was opened.
type Stats struct {
	Puts, Commits, Bytes int64
	Retries              int64
}

// Store holds outputs and the journal in a database. It is safe for concurrent use.
type Store struct {
	pool    *pgxpool.Pool
	options Options
	schema  string
	url     string // without a password
	server  string
	access  access

	mu      sync.Mutex
	indexes map[store.Action]*index
	closed  atomic.Bool

	puts, commits, bytes, retries atomic.Int64
}

// Open connects to a database. The error is a *[ConnectionError], a *[SchemaError],
// or [ErrUnreachable]; nothing is written unless the schema is made.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	s, err := connect(ctx, url, o)
	if err != nil {
		return nil, err
	}
	if err := s.checkSchema(ctx); err != nil {
		s.pool.Close()
		return nil, err
	}
	return s, nil
}

// connect makes the pool, and checks that the server answers.
func connect(ctx context.Context, url string, o Options) (*Store, error) {
	if o.GiveUp == 0 {
		o.GiveUp = 30 * time.Second
	}
	c, err := parse(url, &o)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, c.pool)
	if err != nil {
		return nil, &ConnectionError{Reason: "invalid store URL: " + (&quiet{err}).Error()}
	}
	s := &Store{pool: pool, options: o, schema: c.schema, url: Redact(url), indexes: map[store.Action]*index{}}
	s.access = &tables{s}
	var version int
	err = s.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, "select current_setting('server_version_num')::int, split_part(version(), ' on ', 1)").Scan(&version, &s.server)
	})
	if err == nil && version < 140000 {
		err = &ConnectionError{Reason: "the server is " + s.server + ": want PostgreSQL 14 or later"}
	}
	if err != nil {
		pool.Close()
		return nil, err
	}
	return s, nil
}

// URL returns the URL of the store, without a password.
func (s *Store) URL() string { return s.url }

// Server returns the name and version of the server, such as PostgreSQL 15.13.
func (s *Store) Server() string { return s.server }

// Stats returns the counts so far.
func (s *Store) Stats() Stats {
	return Stats{Puts: s.puts.Load(), Commits: s.commits.Load(), Bytes: s.bytes.Load(), Retries: s.retries.Load()}
}

// Close implements [store.Store].
func (s *Store) Close() error {
	if !s.closed.Swap(true) {
		s.pool.Close()
	}
	return nil
}

// sql replaces $. in a statement with the name of the schema.
func (s *Store) sql(statement string) string {
	return strings.ReplaceAll(statement, "$.", `"`+s.schema+`".`)
}

const (
	// requestTime bounds one request, with more time for the bytes that it sends or
	// receives, which may be over a slow line.
	requestTime  = 30 * time.Second
	transferRate = 256 << 10 // bytes a second
	anyTime      = 1 << 40   // bytes, of a request that may take as long as it needs
	firstRetry   = 50 * time.Millisecond
	lastRetry    = 5 * time.Second
)

// do makes a request that may be repeated. It repeats the request until it succeeds, until
// it fails for a reason other than the connection or the state of the server, or until
// GiveUp has passed.
func (s *Store) do(ctx context.Context, request func(ctx context.Context, c *pgx.Conn) error) error {
	wait := backoff.NewExponentialBackOff(backoff.WithInitialInterval(firstRetry), backoff.WithMaxInterval(lastRetry), backoff.WithMaxElapsedTime(0))
	deadline := time.Now().Add(s.options.GiveUp)
	for told := false; ; {
		if s.closed.Load() {
			return store.ErrClosed
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		err := s.try(ctx, request)
		pause := wait.NextBackOff()
		if err == nil || ctx.Err() != nil || !temporary(err) || time.Now().Add(pause).After(deadline) {
			return explain(ctx, err)
		}
		s.retries.Add(1)
		if s.options.Notice != nil && !told && time.Until(deadline) < s.options.GiveUp-time.Second {
			told = true
			s.options.Notice("a request to the database failed and is repeated: " + (&quiet{err}).Error())
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// transferKey is the key of the bytes of a request in its context.
type transferKey struct{}

// transfers returns a context for requests that send or receive bytes.
func transfers(ctx context.Context, bytes int) context.Context {
	return context.WithValue(ctx, transferKey{}, bytes)
}

// sizeOf returns the bytes of arguments.
func sizeOf(args []any) (bytes int) {
	for _, arg := range args {
		switch arg := arg.(type) {
		case []byte:
			bytes += len(arg)
		case [][]byte:
			for _, b := range arg {
				bytes += len(b)
			}
		}
	}
	return bytes
}

// try makes a request once.
func (s *Store) try(ctx context.Context, request func(ctx context.Context, c *pgx.Conn) error) error {
	bytes, _ := ctx.Value(transferKey{}).(int)
	limited, cancel := context.WithTimeout(ctx, min(requestTime, max(s.options.GiveUp, time.Second))+time.Duration(bytes/transferRate)*time.Second)
	defer cancel()
	c, err := s.pool.Acquire(limited)
	if err != nil {
		return err
	}
	defer c.Release()
	err = request(limited, c.Conn())
	if err != nil && (readOnly(err) || isNetwork(err)) { // the pool must not use this connection again
		closing, done := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		_ = c.Conn().Close(closing)
		done()
	}
	return err
}

// inTx makes a transaction that may be repeated.
func (s *Store) inTx(ctx context.Context, f func(ctx context.Context, tx pgx.Tx) error) error {
	return s.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		tx, err := c.Begin(ctx)
		if err != nil {
			return err
		}
		if err := f(ctx, tx); err != nil {
			_ = tx.Rollback(ctx)
			return err
		}
		return tx.Commit(ctx)
	})
}

// rowsTransfer is the most that the rows of one query of bytes have, about: segments and
// packs.
const rowsTransfer = 24 << 20

// rows returns the rows of a query.
func rows[T any](ctx context.Context, s *Store, statement string, scan func(pgx.Rows) (T, error), args ...any) (all []T, err error) {
	err = s.do(transfers(ctx, rowsTransfer), func(ctx context.Context, c *pgx.Conn) error {
		all = all[:0]
		r, err := c.Query(ctx, s.sql(statement), args...)
		if err != nil {
			return err
		}
		defer r.Close()
		for r.Next() {
			item, err := scan(r)
			if err != nil {
				return err
			}
			all = append(all, item)
		}
		return r.Err()
	})
	return all, err
}

// one reads one row.
func (s *Store) one(ctx context.Context, statement string, args []any, to ...any) error {
	return s.do(transfers(ctx, sizeOf(args)), func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, s.sql(statement), args...).Scan(to...)
	})
}

// codeOf returns the SQLSTATE of an error, or "".
func codeOf(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}
