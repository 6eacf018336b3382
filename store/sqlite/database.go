package sqlite

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/wasm-jobs/wasm-jobs/store"
)

const (
	// pageSize is fixed, so that outputs are found in a file whose header is
	// gone.
	pageSize = 4096
	// usableSize leaves room for the checksum that each page ends with.
	usableSize = pageSize - 8
)

// schema holds the outputs in the order in which a job makes them, in packs;
// the view outputs is for those who look.
//
// batches is a log of what each commit added: for each output the first 8
// bytes of its chunk's digest, and its order. Processes follow it to know
// which chunks there are. chunks is the same as an index, into which the log is
// moved when an output has to be found under another order.
const schema = `
create table actions(
	id integer primary key autoincrement,
	digest blob not null unique,
	indexed integer not null default 0); -- batches up to it are in chunks
` + packSchema + `
create table batches(
	action integer not null, seq integer not null,
	count integer not null, entries blob not null,
	primary key(action, seq)) without rowid;
create table chunks(
	action integer not null, prefix integer not null, ord blob not null,
	primary key(action, prefix, ord)) without rowid;
`

const packSchema = `
create table packs(
	id integer primary key,
	action integer not null, ord blob not null, chunk blob not null,
	places text not null, body blob not null,
	unique(action, ord, chunk));
create view outputs as select packs.action as action,
	substr(body, p.value->>0 + 1, p.value->>1) as ord,
	substr(body, p.value->>0 + p.value->>1 + 1, 32) as chunk,
	substr(body, p.value->>0 + p.value->>1 + 33, 16) as checksum,
	p.value->>3 as fuel,
	substr(body, p.value->>0 + p.value->>1 + 49, p.value->>2) as output
	from packs, json_each(places) as p;
`

// conn is a connection that keeps its statements.
type conn struct {
	*sqlite3.Conn
	stmts map[string]*sqlite3.Stmt
	pack  pack // of packOf; kept for its memory
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
	// SQLite deletes the log by its name when the last connection closes; by
	// then the name may belong to another file, where this one was set aside.
	if _, err := c.FileControl("", sqlite3.FCNTL_PERSIST_WAL, true); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.BusyTimeout(patience); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *conn) Close() error {
	for _, stmt := range c.stmts {
		stmt.Close()
	}
	c.stmts = nil
	return c.Conn.Close()
}

// text is an argument that is a text, and no blob.
type text []byte

// prepare returns the statement of a query, reset and with its arguments
// bound: int64s, blobs and texts.
func (c *conn) prepare(query string, args ...any) (*sqlite3.Stmt, error) {
	stmt := c.stmts[query]
	if stmt == nil {
		var err error
		if stmt, _, err = c.PrepareFlags(query, sqlite3.PREPARE_PERSISTENT); err != nil {
			return nil, err
		}
		c.stmts[query] = stmt
	}
	stmt.Reset() // its error is that of its last run
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
		default:
			panic(fmt.Sprintf("argument of type %T", arg))
		}
		if err != nil {
			return nil, err
		}
	}
	return stmt, nil
}

// bind binds a blob; no bytes are an empty one and not NULL.
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

// exec runs a statement that gives no rows.
func (c *conn) exec(query string, args ...any) error {
	stmt, err := c.prepare(query, args...)
	if err != nil {
		return err
	}
	return stmt.Exec()
}

// ints runs a query for one row of integers; ok is false where there is none.
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
		c.Exec("rollback") // its error would be that of the same file
	}
	return err
}

// database is the file as it is open now.
type database struct {
	store   *Store
	info    os.FileInfo
	broken  bool  // it is closed, and no other could be opened yet
	writer  *conn // of the committer
	readers chan *conn

	mu      sync.Mutex
	shelves map[store.Action]*shelf
}

// maxReaders bounds the connections that Get and All keep open.
const maxReaders = 8

// open opens the file, and lays it out where it is new. The caller holds the
// lock.
func (s *Store) open() (*database, error) {
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	c, err := s.connect(s.path)
	if err != nil {
		return nil, err
	}
	db := &database{store: s, info: info, writer: c, readers: make(chan *conn, maxReaders), shelves: map[store.Action]*shelf{}}
	if err := db.layOut(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return db, nil
}

func (db *database) layOut() error {
	c := db.writer
	var tables int64
	if _, err := c.ints("select count(*) from sqlite_schema", []*int64{&tables}); err != nil {
		return err
	}
	if tables == 0 {
		if err := c.Exec(fmt.Sprintf("pragma page_size=%d; pragma application_id=%d; pragma user_version=%d",
			pageSize, applicationID, Version<<16|Version)); err != nil {
			return err
		}
		if err := c.EnableChecksums("main"); err != nil {
			return err
		}
	}
	if err := c.Exec("pragma journal_mode=wal; pragma synchronous=full; pragma wal_autocheckpoint=4000; pragma cell_size_check=on; pragma cache_size=-16384"); err != nil {
		return err
	}
	if err := db.renew(); err != nil {
		return err
	}
	if tables == 0 {
		if err := c.transaction("begin immediate", func() error { return c.Exec(schema + jobSchema) }); err != nil {
			return err
		}
		if _, _, err := c.WALCheckpoint("", sqlite3.CHECKPOINT_FULL); err != nil {
			return err
		}
	}
	return db.check()
}

// check makes sure that this is a store: a file that is none, or whose schema
// is damaged, is beyond reading.
func (db *database) check() error {
	var id, version, size int64
	for pragma, into := range map[string]*int64{"application_id": &id, "user_version": &version, "page_size": &size} {
		if _, err := db.writer.ints("pragma "+pragma, []*int64{into}); err != nil {
			return err
		}
	}
	if id != applicationID || version != Version<<16|Version || size != pageSize {
		return fmt.Errorf("%w: it has application id %#x, version %#x and pages of %d bytes", errDamaged, id, version, size)
	}
	for _, query := range []string{
		"select id, digest, indexed from actions limit 1", "select action, ord, chunk, places, body from packs limit 1",
		"select action, seq, count, entries from batches limit 1", "select action, prefix, ord from chunks limit 1",
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

// readerCache lets a connection keep 24 MiB of pages, against 2: the index of
// a million chunks, which is read at random.
const readerCache = "pragma cache_size=-24576"

// read calls f with a connection for reading, in one transaction.
func (db *database) read(f func(*conn) error) error {
	var c *conn
	select {
	case c = <-db.readers:
	default:
		var err error
		if c, err = db.store.connect(db.store.path); err != nil {
			return err
		}
		if err := c.Exec(readerCache); err != nil {
			return errors.Join(err, c.Close())
		}
	}
	err := c.transaction("begin", func() error { return f(c) })
	if err != nil {
		return errors.Join(err, c.Close())
	}
	select {
	case db.readers <- c:
		return nil
	default:
		return c.Close()
	}
}

// close closes all connections. Nobody uses them any more.
func (db *database) close(checkpoint bool) (err error) {
	for {
		select {
		case c := <-db.readers:
			err = errors.Join(err, c.Close())
			continue
		default:
		}
		break
	}
	if checkpoint {
		err = errors.Join(err, db.truncateLog())
	}
	return errors.Join(err, db.writer.Close())
}

// truncateLog writes the log back into the file. Another process that reads
// keeps some of it from that; then its own Close does it. While it is waited
// for nobody can write, so that the writer's patience is short from here on.
func (db *database) truncateLog() error {
	if err := db.writer.BusyTimeout(100 * time.Millisecond); err != nil {
		return err
	}
	if _, _, err := db.writer.WALCheckpoint("", sqlite3.CHECKPOINT_TRUNCATE); err != nil && !isBusy(err) {
		return err
	}
	return nil
}

// moved tells whether the path no longer names the file that is open.
func (db *database) moved() bool {
	info, err := os.Stat(db.store.path)
	return err != nil || !os.SameFile(info, db.info)
}
