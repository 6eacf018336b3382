package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/ncruces/go-sqlite3"

	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite/internal/dbfile"
)

// aside reads the records of jobs in a file that was set aside. Records have no
// checksums of their own, so they are not searched for on all pages, as outputs are:
// SQLite reads them, and verifies the checksum of each page. Every row is in a table
// and in an index, so a page that cannot be read hides no row unless the other one is
// damaged too.
//
// The file is opened as an image: it does not change. An aside is not safe for
// concurrent use.
type aside struct {
	vfs    *countingVFS
	conn   *conn
	tables [tableCount]tableRows
	unread int   // tables and indexes that cannot be read, or not completely
	exact  bool  // jobs returns all jobs, and no others
	failed error // of the engine: nothing can be read any more
}

// recordTable is a table with records of jobs. Each row belongs to a job.
type recordTable struct {
	name    string
	index   string   // has the job of every row
	columns []string // without the job; the name and the kind of each
}

// The kinds of columns: an upper-case letter allows NULL.
const (
	kindInt, kindText, kindBlob = 'i', 't', 'b'
	kindIntOrNull               = 'I'
	kindTextOrNull              = 'T'
)

// The tables with records of jobs.
const (
	tableIDs = iota
	tableRuns
	tableSpans
	tableAttempts
	tableCount
)

var recordTables = [tableCount]recordTable{
	tableIDs:      {"job_ids", "sqlite_autoindex_job_ids_1", []string{"part i", "ids b"}},
	tableRuns:     {"runs", "sqlite_autoindex_runs_1", []string{"id i", "number i", "started i", "seen i", "ended I", "info t", "active T", "report T"}},
	tableSpans:    {"spans", "spans_by_chunk", []string{"first i", "count i", "run i", "chunks b", "detail b"}},
	tableAttempts: {"attempts", "attempts_by_chunk", []string{"chunk i", "run i", "final i", "class t", "detail t"}},
}

// jobColumns are the columns of the table jobs after its row id.
var jobColumns = []string{"digest b", "action b", "derived b", "input b", "total i", "created i", "spec t"}

// names returns the names of columns with commas.
func names(columns []string) string {
	var b bytes.Buffer
	for i, c := range columns {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(c[:len(c)-2])
	}
	return b.String()
}

// tableRows are the row ids that were found in a table, by the row id of their job.
type tableRows struct {
	ids map[int64][]int64
	err error // some are missing
}

// openAside opens a file that was set aside. The error says why no record can be read.
func openAside(ctx context.Context, path string) (*aside, error) {
	if own := soundFirstPage(path); own != nil {
		return tryAside(ctx, path, own, true)
	}
	compacted, err := compactedFirstPage()
	if err != nil {
		return nil, err
	}
	best, err := tryAside(ctx, path, emptyFile[:pageSize], false)
	if err != nil {
		return nil, err
	}
	other, err := tryAside(ctx, path, compacted, false)
	if err != nil {
		return nil, errors.Join(err, best.close())
	}
	if other.unread < best.unread {
		best, other = other, best
	}
	best.exact = best.unread == 0 // another layout has tables where this one has indexes
	return best, other.close()
}

// soundFirstPage returns the first page of a file if it matches its checksum; else
// nil. It has the schema, and says that all pages have checksums.
func soundFirstPage(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var page [pageSize]byte
	n, _ := f.ReadAt(page[:], 0)
	if n < len(page) || page[20] != pageSize-usableSize || dbfile.Checksum(&page) != [8]byte(page[usableSize:]) {
		return nil
	}
	return page[:]
}

// anySize changes a first page so that the size of the file counts, and not the number
// of pages in the header: SQLite reads no file that is shorter.
func anySize(first []byte) []byte {
	page := [pageSize]byte(first)
	const changes, validFor = 24, 92
	copy(page[validFor:validFor+4], page[changes:])
	page[validFor] ^= 1
	sum := dbfile.Checksum(&page)
	copy(page[usableSize:], sum[:])
	return page[:]
}

// tryAside opens a file with a first page. exact tells that it is the file's own.
func tryAside(ctx context.Context, path string, first []byte, exact bool) (*aside, error) {
	s := &Store{path: path, vfs: registerVFS(nil)}
	s.vfs.image = newImage()
	s.vfs.image.over = anySize(first)
	a := &aside{vfs: s.vfs, exact: exact}
	err := a.safely(func() (err error) {
		if a.conn, err = s.connect(path); err == nil {
			a.conn.SetInterrupt(ctx)
			err = a.scan()
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

// close closes the file.
func (a *aside) close() error {
	var err error
	if a.conn != nil && a.failed == nil { // if the engine failed, its connection must not be used
		err = a.conn.Close()
	}
	a.vfs.unregister()
	return errors.Join(err, a.vfs.image.close())
}

// safely calls f unless the engine has failed. A panic of the engine is an error.
func (a *aside) safely(f func() error) (err error) {
	if a.failed != nil {
		return a.failed
	}
	func() {
		defer recoverEngine(&err)
		err = f()
	}()
	if errors.Is(err, errEngine) {
		a.failed = err
	}
	return err
}

// scan checks that the file is a store, and reads which rows each table has.
func (a *aside) scan() error {
	if err := a.conn.Exec("pragma cell_size_check=on"); err != nil {
		return err
	}
	version, err := a.conn.version()
	if err != nil {
		return err
	}
	if version < 2 || version > Version {
		return fmt.Errorf("%w: version %d has no records of jobs", errDamaged, version)
	}
	if err := a.conn.checkSchema(version); err != nil {
		return err
	}
	for i := range recordTables {
		t := &a.tables[i]
		t.ids = map[int64][]int64{}
		t.err = a.conn.rows(func(r *columns) {
			id, job := r.int(), r.int()
			t.ids[job] = append(t.ids[job], id)
		}, "select rowid, job from "+recordTables[i].name+" not indexed")
		probe := a.conn.rows(func(*columns) {}, "select rowid from "+recordTables[i].name+" indexed by "+recordTables[i].index+" limit 1")
		for _, err := range []error{t.err, probe} {
			if err != nil {
				a.unread++
			}
		}
	}
	return a.conn.GetInterrupt().Err()
}

// listedJob is a job with its row id.
type listedJob struct {
	row int64
	id  store.JobID
}

// jobs returns the jobs of the file, by row id. It clears exact if some may be missing.
func (a *aside) jobs() (all []listedJob) {
	var found [2]map[int64]store.JobID
	var errs [2]error
	for i, how := range []string{"indexed by sqlite_autoindex_jobs_1", "not indexed"} {
		found[i] = map[int64]store.JobID{}
		errs[i] = a.safely(func() error {
			return a.conn.rows(func(r *columns) {
				row, digest := r.int(), r.blob()
				if len(digest) == len(store.JobID{}) {
					found[i][row] = store.JobID(digest)
				}
			}, "select id, digest from jobs "+how)
		})
	}
	byIndex, byTable := found[0], found[1]
	if errs[0] != nil && errs[1] != nil || errs[0] == nil && errs[1] == nil && !maps.Equal(byIndex, byTable) {
		a.exact = false
	}
	maps.Copy(byTable, byIndex)
	for _, row := range slices.Sorted(maps.Keys(byTable)) {
		all = append(all, listedJob{row, byTable[row]})
	}
	return all
}

// rowsOf returns the row ids of a job's records in a table, in ascending order. If
// complete is false, some may be missing.
func (a *aside) rowsOf(table int, job int64) (ids []int64, complete bool) {
	t := &a.tables[table]
	byTable := t.ids[job]
	var byIndex []int64
	err := a.safely(func() error {
		return a.conn.rows(func(r *columns) { byIndex = append(byIndex, r.int()) },
			"select rowid from "+recordTables[table].name+" indexed by "+recordTables[table].index+" where job=?", job)
	})
	slices.Sort(byTable)
	slices.Sort(byIndex)
	ids = slices.Concat(byTable, byIndex)
	slices.Sort(ids)
	ids = slices.Compact(ids)
	switch {
	case err == nil && t.err == nil:
		return ids, slices.Equal(byTable, byIndex)
	default:
		return ids, err == nil || t.err == nil
	}
}

// record returns the columns of a row; ok is false if it cannot be read, belongs to
// another job, or has a value of the wrong type.
func (a *aside) record(table int, job, id int64) (values []any, ok bool) {
	t := &recordTables[table]
	return a.one(t.columns, "select "+names(t.columns)+" from "+t.name+" not indexed where rowid=? and job=?", id, job)
}

// job returns the columns of a job.
func (a *aside) job(row int64) (values []any, ok bool) {
	return a.one(jobColumns, "select "+names(jobColumns)+" from jobs not indexed where id=?", row)
}

// one returns the only row of a query.
func (a *aside) one(want []string, query string, args ...any) (values []any, ok bool) {
	err := a.safely(func() error {
		return a.conn.rows(func(r *columns) { values, ok = r.values(want) }, query, args...)
	})
	return values, ok && err == nil
}

// values returns the values of a row: int64s, strings, blobs and nil. ok is false if
// one has the wrong type.
func (r *columns) values(want []string) (values []any, ok bool) {
	for i, column := range want {
		kind := column[len(column)-1]
		var v any
		switch r.stmt.ColumnType(i) {
		case sqlite3.INTEGER:
			v, ok = r.stmt.ColumnInt64(i), kind == kindInt || kind == kindIntOrNull
		case sqlite3.TEXT:
			v, ok = string(r.stmt.ColumnRawBlob(i)), kind == kindText || kind == kindTextOrNull
		case sqlite3.BLOB:
			v, ok = r.stmt.ColumnBlob(i, nil), kind == kindBlob
		case sqlite3.NULL:
			v, ok = nil, kind == kindIntOrNull || kind == kindTextOrNull
		default:
			ok = false
		}
		if !ok {
			return nil, false
		}
		values = append(values, v)
	}
	return values, true
}

// results calls f with the outputs of an action that have no order and match their
// checksums: those that a job derived from its outputs. It stops at the first page
// that cannot be read.
func (a *aside) results(action store.Action, f func(store.Key, store.Value)) {
	var scratch []byte
	p := pack{}
	a.safely(func() error { // what cannot be read is derived again
		id, known, err := a.conn.locate(action)
		if err != nil || !known {
			return err
		}
		return a.conn.rows(func(r *columns) {
			readPack(r.stmt, &p)
			for i := range p.slots {
				row := p.row(i)
				if key, ok := row.verify(action, &scratch); ok && len(key.Order) == 0 {
					f(store.Key{Chunk: key.Chunk}, store.Value{Output: bytes.Clone(row.Output), Fuel: row.Fuel})
				}
			}
		}, "select ord, chunk, places, body from packs where action=? and ord=?", id, []byte{})
	})
}

// compactedFirstPage returns the first page of an empty store after Compact, which
// lays out the tables in another order.
func compactedFirstPage() (page []byte, err error) {
	s := &Store{vfs: registerVFS(nil)}
	defer s.vfs.unregister()
	s.vfs.image = newImage()
	s.vfs.image.over = emptyFile
	defer func() { err = errors.Join(err, s.vfs.image.close()) }()
	c, err := s.connect("in memory")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.Exec("vacuum; pragma wal_checkpoint(truncate)"); err != nil {
		return nil, err
	}
	page = make([]byte, pageSize)
	_, err = imageHandle{s.vfs.image.main}.ReadAt(page, 0)
	return page, err
}
