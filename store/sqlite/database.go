package sqlite

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite/internal/dbfile"
)

const (
	pageSize   = dbfile.PageSize
	usableSize = dbfile.UsableSize
)

// conn is a connection that caches its statements.
type conn struct {
	*sqlite3.Conn
	stmts map[string]*sqlite3.Stmt
	pack  pack // used by packOf; kept for its memory
	wide  bool // see widen
}

func (s *Store) connect(path string) (*conn, error) {
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: "vfs=" + s.vfs.name}
	if !strings.HasPrefix(u.Path, "/") {
		u.Path = "/" + u.Path // C:/...
	}
	raw, err := sqlite3.OpenFlags(u.String(), sqlite3.OPEN_READWRITE|sqlite3.OPEN_CREATE|sqlite3.OPEN_URI)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, stmts: map[string]*sqlite3.Stmt{}}
	if err := c.harden(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if s.vfs.image != nil {
		return c, c.isolate()
	}
	// SQLite deletes the log by its name when the last connection closes. If this
	// file was set aside, the name may belong to another file by then.
	if _, err := c.FileControl("", sqlite3.FCNTL_PERSIST_WAL, true); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := s.waitsFor(c, busyTimeout); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// isolate makes the connection one to an image: it needs no shared index of the
// log, and does not write the log back into the file.
func (c *conn) isolate() error {
	err := c.Exec("pragma locking_mode=exclusive; pragma wal_autocheckpoint=0")
	if err == nil {
		_, err = c.Config(sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE, true)
	}
	if err != nil {
		return errors.Join(err, c.Close())
	}
	return nil
}

// limits are the maxima that our own statements and rows need, or the lowest that
// SQLite allows; a hostile file that exceeds them gets an error. The length of a row
// is limited to SQLite's default.
var limits = map[sqlite3.LimitCategory]int{
	sqlite3.LIMIT_LENGTH: 1_000_000_000, sqlite3.LIMIT_SQL_LENGTH: 64 << 10, sqlite3.LIMIT_COLUMN: 32, sqlite3.LIMIT_EXPR_DEPTH: 64,
	sqlite3.LIMIT_COMPOUND_SELECT: 4, sqlite3.LIMIT_VDBE_OP: 10_000, sqlite3.LIMIT_FUNCTION_ARG: 8,
	sqlite3.LIMIT_LIKE_PATTERN_LENGTH: 64, sqlite3.LIMIT_VARIABLE_NUMBER: 16, sqlite3.LIMIT_TRIGGER_DEPTH: 1,
}

// harden protects against a hostile schema in the file: it cannot call functions
// with side effects, run triggers or change itself.
func (c *conn) harden() error {
	for limit, value := range limits {
		c.Limit(limit, value)
	}
	for option, on := range map[sqlite3.DBConfig]bool{
		sqlite3.DBCONFIG_TRUSTED_SCHEMA: false, sqlite3.DBCONFIG_DEFENSIVE: true, sqlite3.DBCONFIG_ENABLE_TRIGGER: false,
		sqlite3.DBCONFIG_WRITABLE_SCHEMA: false,
	} {
		if _, err := c.Config(option, on); err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) Close() error {
	for _, stmt := range c.stmts {
		stmt.Close()
	}
	c.stmts = nil
	return c.Conn.Close()
}

// text is an argument that is bound as a text, not as a blob.
type text []byte

// prepare returns the statement of a query, reset and with its arguments
// bound: int64s, blobs, texts and nil.
func (c *conn) prepare(query string, args ...any) (*sqlite3.Stmt, error) {
	stmt := c.stmts[query]
	if stmt == nil {
		var err error
		if stmt, _, err = c.PrepareFlags(query, sqlite3.PREPARE_PERSISTENT); err != nil {
			return nil, err
		}
		c.stmts[query] = stmt
	}
	stmt.Reset() // its error was returned by the last run
	for i, arg := range args {
		var err error
		switch arg := arg.(type) {
		case int64:
			err = stmt.BindInt64(i+1, arg)
		case []byte:
			err = bind(stmt, i+1, arg)
		case string:
			err = stmt.BindText(i+1, arg)
		case text:
			err = stmt.BindRawText(i+1, arg)
		case nil:
			err = stmt.BindNull(i + 1)
		default:
			panic(fmt.Sprintf("argument of type %T", arg))
		}
		if err != nil {
			return nil, err
		}
	}
	return stmt, nil
}

// bind binds a blob; nil is bound as an empty blob, not as NULL.
func bind(stmt *sqlite3.Stmt, i int, b []byte) error {
	if b == nil {
		b = []byte{}
	}
	return stmt.BindBlob(i, b)
}

// columns reads the columns of a row one after another.
type columns struct {
	stmt *sqlite3.Stmt
	next int
}

func (r *columns) int() int64 {
	r.next++
	return r.stmt.ColumnInt64(r.next - 1)
}

// time is zero for NULL.
func (r *columns) time() time.Time {
	if r.stmt.ColumnType(r.next) == sqlite3.NULL {
		r.next++
		return time.Time{}
	}
	return time.UnixMicro(r.int()).UTC()
}

// blob returns a copy of a blob or a text, nil for NULL.
func (r *columns) blob() []byte {
	r.next++
	return r.stmt.ColumnBlob(r.next-1, nil)
}

// exec runs a statement that returns no rows.
func (c *conn) exec(query string, args ...any) error {
	stmt, err := c.prepare(query, args...)
	if err != nil {
		return err
	}
	return stmt.Exec()
}

// ints runs a query for one row of integers; ok is false if there is no row.
func (c *conn) ints(query string, into []*int64, args ...any) (ok bool, err error) {
	stmt, err := c.prepare(query, args...)
	if err != nil {
		return false, err
	}
	if ok = stmt.Step(); ok {
		for i, p := range into {
			*p = stmt.ColumnInt64(i)
		}
	}
	return ok, errors.Join(stmt.Err(), stmt.Reset())
}

// transaction runs f between begin and commit; begin is "begin" or "begin
// immediate".
func (c *conn) transaction(begin string, f func() error) error {
	if err := c.exec(begin); err != nil {
		return err
	}
	err := f()
	if err == nil {
		if err = c.exec("commit"); err == nil {
			return nil
		}
	}
	for _, stmt := range c.stmts {
		stmt.Reset()
	}
	if !c.GetAutocommit() {
		c.Exec("rollback") // its error would say no more than err
	}
	return err
}

// database is the open file.
type database struct {
	store   *Store
	info    os.FileInfo
	broken  bool  // the file is closed, and no new one could be opened yet
	failed  error // of the engine: it is never opened again
	writer  *conn // of the committer
	readers chan *conn

	writing sync.Mutex  // held while the writer is in use
	fresh   atomic.Bool // the file was just laid out, and was not written since

	mu      sync.Mutex
	indexes map[store.Action]*actionIndex
}

// maxReaders bounds the connections that Get and All keep open.
const maxReaders = 8

// open opens the file, and creates it if it is missing. The caller holds the lock.
func (s *Store) open(ctx context.Context) (*database, error) {
	created, err := s.create()
	if err != nil {
		return nil, err
	}
	db, err := s.openFile(ctx, created)
	if !errors.Is(err, errEmpty) || s.vfs.image != nil {
		return db, err
	}
	if err := s.layOutFile(); err != nil {
		return nil, err
	}
	return s.openFile(ctx, true)
}

// openFile opens an existing file. fresh tells that it was laid out just now: it needs
// no check then. The error is errEmpty if it has no tables.
func (s *Store) openFile(ctx context.Context, fresh bool) (*database, error) {
	info, err := os.Stat(s.path)
	if err != nil {
		return nil, err
	}
	c, err := s.connect(s.path)
	if err != nil {
		return nil, err
	}
	db := &database{store: s, info: info, writer: c, readers: make(chan *conn, maxReaders), indexes: map[store.Action]*actionIndex{}}
	db.fresh.Store(fresh)
	c.SetInterrupt(ctx)
	prepare := db.prepare
	if fresh {
		prepare = db.settle
	}
	if err := prepare(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return db, nil
}

// prepare makes sure that the file is a store, and converts an older layout.
func (db *database) prepare() error {
	c := db.writer
	var tables int64
	if _, err := c.ints("select count(*) from sqlite_schema", []*int64{&tables}); err != nil {
		return err
	}
	if tables == 0 && db.store.vfs.image == nil {
		return errEmpty
	}
	if tables == 0 {
		return errors.Join(c.layOut(), db.check())
	}
	version, err := c.version()
	if err != nil {
		return err
	}
	switch {
	case version == 0:
		return fmt.Errorf("%w: invalid application id or version", errDamaged)
	case version > Version:
		return &VersionError{db.store.path, int(version)}
	}
	if err := errors.Join(c.checkSchema(version), db.settle()); err != nil {
		return err
	}
	if err := db.migrate(); err != nil {
		return err
	}
	return db.check()
}

// settle configures the connection that writes.
func (db *database) settle() error {
	c := db.writer
	if db.store.vfs.image != nil {
		return c.Exec("pragma cell_size_check=on")
	}
	return c.Exec("pragma journal_mode=wal; pragma synchronous=full; pragma wal_autocheckpoint=4000; pragma cell_size_check=on; pragma cache_size=-16384")
}

// check makes sure that the file is a store. If it is not, or if its schema is
// damaged, the error is errDamaged.
func (db *database) check() error {
	var id, version, size int64
	for pragma, into := range map[string]*int64{"application_id": &id, "user_version": &version, "page_size": &size} {
		if _, err := db.writer.ints("pragma "+pragma, []*int64{into}); err != nil {
			return err
		}
	}
	if id != applicationID || version != Version<<16|Version || size != pageSize {
		return fmt.Errorf("%w: application id %#x, version %#x and pages of %d bytes, want %#x, %#x and %d",
			errDamaged, id, version, size, applicationID, Version<<16|Version, pageSize)
	}
	for _, query := range []string{
		"select id, digest from actions limit 1", "select action, ord, chunk, places, body from packs limit 1",
		"select action, seq, count, size, first, pages, entries from batches limit 1", "select id, entries from batch_pages limit 1",
		"select id, digest, action, derived, input, total, created, spec from jobs limit 1", "select job, part, ids from job_ids limit 1",
		"select id, job, number, started, seen, ended, info, active, report from runs limit 1",
		"select job, first, count, run, chunks, detail from spans limit 1", "select id, job, chunk, run, final, class, detail from attempts limit 1",
	} {
		if err := db.writer.exec(query); err != nil {
			if errors.Is(err, sqlite3.ERROR) {
				return fmt.Errorf("%w: %w", errDamaged, err)
			}
			return err
		}
	}
	return nil
}

// widen lets a connection cache 24 MiB of pages instead of 2, before the index of a
// million chunks is read at random. A sweep reads each page once: there, new memory for
// each would cost more than reading it.
func (c *conn) widen() error {
	if c.wide {
		return nil
	}
	c.wide = true
	return c.Exec("pragma cache_size=-24576")
}

// read calls f with a connection for reading, in one transaction.
func (db *database) read(ctx context.Context, f func(*conn) error) error {
	var c *conn
	select {
	case c = <-db.readers:
	default:
		// A job looks its chunks up before it puts any. In a fresh file there is nothing to
		// read, so the writer can do that without another connection.
		if db.fresh.Load() && db.writing.TryLock() {
			defer db.writing.Unlock()
			return db.writer.read(ctx, f)
		}
		var err error
		if c, err = db.store.connect(db.store.path); err != nil {
			return err
		}
	}
	if err := c.read(ctx, f); err != nil {
		return errors.Join(err, c.Close())
	}
	select {
	case db.readers <- c:
		return nil
	default:
		return c.Close()
	}
}

// read calls f in one transaction. ctx interrupts f, but not the end of the transaction.
func (c *conn) read(ctx context.Context, f func(*conn) error) error {
	return c.transaction("begin", func() error {
		c.SetInterrupt(ctx)
		defer c.SetInterrupt(context.Background())
		return f(c)
	})
}

// close closes all connections, which must not be in use.
func (db *database) close(checkpoint bool) (err error) {
	if db.broken {
		return nil
	}
	for {
		select {
		case c := <-db.readers:
			err = errors.Join(err, c.Close())
			continue
		default:
		}
		break
	}
	if checkpoint && db.store.vfs.image == nil {
		err = errors.Join(err, db.truncateLog())
	}
	return errors.Join(err, db.writer.Close())
}

// truncateLog writes the log back into the file, however short it is: otherwise, other
// tools that open the file would do that, and write no checksums. If another process is
// reading, a part of the log stays, and the Close of that process writes it. Nobody can
// write during the wait, so the writer's busyTimeout is short from here on.
func (db *database) truncateLog() error {
	if err := db.writer.BusyTimeout(100 * time.Millisecond); err != nil {
		return err
	}
	if _, _, err := db.writer.WALCheckpoint("", sqlite3.CHECKPOINT_TRUNCATE); err != nil && !isBusy(err) {
		return err
	}
	return nil
}

// moved reports whether the path no longer names the open file.
func (db *database) moved() bool {
	info, err := os.Stat(db.store.path)
	return err != nil || !os.SameFile(info, db.info)
}
